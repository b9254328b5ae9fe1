//! Combination over certificates, totals, reservations (spec `scheduling.md` §5.1–5.3).

use pktlab::cert::{Burst, CertType, Verified};

use super::super::{Admit, Ledger, Remaining, Usage, keys, unknown};
use super::{SECOND, START, certificate, chain, ledger, left};

const MAX: u64 = u64::MAX;

#[test]
fn what_no_certificate_limits_is_unlimited() {
    for mut ledger in [Ledger::unlimited(), ledger(&["", ""])] {
        assert_eq!(ledger.sockets(), 65_535);
        assert_eq!(ledger.priority(), MAX);
        assert!(ledger.monitors().is_empty());
        assert!(!ledger.spoofing());
        assert!(ledger.allows("192.0.2.1".parse().expect("address")));
        assert!(!ledger.never(MAX));
        for _ in 0..3 {
            assert_eq!(ledger.admit(START, MAX), Admit::Now);
            ledger.sent(START, MAX);
            assert!(ledger.receive(MAX));
        }
        let usage = ledger.used(START);
        assert_eq!((usage.send_packets, usage.send_bytes, usage.receive_bytes), (3, MAX, MAX));
        assert_eq!(usage.run_time, 0);
    }
    assert_eq!(Ledger::unlimited().end(), MAX);
}

#[test]
fn the_smallest_socket_count_and_priority_hold() {
    let ledger =
        ledger(&["max_socket_count=7;max_num_priority=9;", "max_socket_count=5;", "max_num_priority=3;"]);
    assert_eq!((ledger.sockets(), ledger.priority()), (5, 3));
    let large = super::ledger(&["max_socket_count=18446744073709551615;"]);
    assert_eq!(large.sockets(), 65_535);
    assert_eq!(super::ledger(&["max_socket_count=0;max_num_priority=0;"]).sockets(), 0);
}

#[test]
fn a_destination_must_match_an_entry_of_each_list() {
    let ledger = ledger(&["valid_dest=10.0.0.0/8,2001:db8::/32;", "", "valid_dest=10.1.0.0/16,::1;"]);
    let allows = |text: &str| ledger.allows(text.parse().expect("address"));
    assert!(allows("10.1.2.3"));
    assert!(!allows("10.2.2.3"));
    assert!(!allows("::1"));
    assert!(!allows("2001:db8::1"));
}

#[test]
fn an_ipv4_destination_in_ipv6_clothes_is_an_ipv4_destination() {
    let ledger = ledger(&["valid_dest=10.0.0.0/8,::/0;"]);
    let allows = |text: &str| ledger.allows(text.parse().expect("address"));
    assert!(allows("::ffff:10.1.1.1"));
    assert!(!allows("::ffff:192.168.1.1"));
    assert!(allows("2001:db8::1"));
}

#[test]
fn spoofing_needs_every_certificate() {
    for (limits, allowed) in [
        (&["src_ip_spoofing=1;"][..], true),
        (&["src_ip_spoofing=1;", "src_ip_spoofing=1;"], true),
        (&["src_ip_spoofing=1;", ""], false),
        (&["", "src_ip_spoofing=1;"], false),
        (&["src_ip_spoofing=1;", "src_ip_spoofing=0;"], false),
        (&["src_ip_spoofing=0;", "src_ip_spoofing=1;"], false),
        (&[""], false),
        (&[], false),
    ] {
        assert_eq!(ledger(limits).spoofing(), allowed, "{limits:?}");
    }
}

#[test]
fn monitors_are_listed_from_leaf_to_root() {
    let (a, b) = ("aa".repeat(32), "bb".repeat(32));
    let ledger = ledger(&[&format!("monitor={a};"), &format!("monitor={b}{a};")]);
    assert_eq!(ledger.monitors(), [[0xbb; 32], [0xaa; 32], [0xaa; 32]]);
}

#[test]
fn a_session_ends_with_its_first_certificate_or_its_run_time() {
    let expiring = |not_after, limits: &str| Verified {
        certs: vec![
            certificate(CertType::PubCmd, "", 1_500),
            certificate(CertType::DelPriv, limits, not_after),
            certificate(CertType::ExpPriv, "max_exp_period=5000000000000;", 3_000),
        ],
        order: vec![0, 1, 2],
        root: Some(0),
    };
    let end = |chain, remembered: &[Option<Remaining>]| Ledger::new(&chain, remembered, None, START).end();
    assert_eq!(end(expiring(2_000, ""), &[]), 2_000 * SECOND);
    assert_eq!(end(expiring(4_000, ""), &[]), 3_000 * SECOND);
    assert_eq!(end(expiring(2_000, "max_exp_period=7;"), &[]), START + 7);
    assert_eq!(
        end(expiring(2_000, ""), &[None, Some(left([MAX, MAX, MAX, MAX, 2 * SECOND]))]),
        START + 2 * SECOND
    );
    assert_eq!(
        end(expiring(2_000, "max_exp_period=7;"), &[Some(left([MAX, MAX, MAX, MAX, 0])), None]),
        START
    );
    assert_eq!(end(expiring(2_000, "max_exp_period=18446744073709551614;"), &[]), 2_000 * SECOND);
}

#[test]
fn totals_are_the_minimum_of_what_remains_of_each_certificate() {
    let limits = ["max_send_byte=100;max_send_pkt=3;", "max_send_byte=80;max_send_pkt=5;"];
    let fresh = ledger(&limits);
    assert!(!fresh.never(80));
    assert!(fresh.never(81));

    // Chain order: the delegation first.
    let remembered = [Some(left([4, 70, MAX, MAX, MAX])), Some(left([2, 60, MAX, MAX, MAX]))];
    let mut ledger = Ledger::new(&chain(&limits), &remembered, None, START);
    assert!(!ledger.never(60) && ledger.never(61));
    assert_eq!(ledger.admit(START, 10), Admit::Now);
    ledger.sent(START, 10);
    assert!(!ledger.never(50) && ledger.never(51));
    ledger.sent(START, 0);
    assert!(ledger.never(0), "both packets are used");
    assert_eq!(ledger.admit(START, 0), Admit::Exhausted);
}

#[test]
fn a_record_with_more_than_the_certificate_gives_widens_nothing() {
    let remembered = [Some(Remaining::UNLIMITED)];
    let ledger = Ledger::new(&chain(&["max_send_byte=5;"]), &remembered, None, START);
    assert!(!ledger.never(5) && ledger.never(6));
}

#[test]
fn a_message_that_can_never_be_sent_is_known() {
    for (limits, bytes, never) in [
        ("max_send_byte=10;", 10, false),
        ("max_send_byte=10;", 11, true),
        ("max_send_byte=0;", 0, false),
        ("max_send_pkt=0;", 0, true),
        ("max_burst_rate_byte=100/1000,20/10;", 20, false),
        ("max_burst_rate_byte=100/1000,20/10;", 21, true),
        ("max_burst_rate_byte=0/1000;", 1, true),
        ("max_burst_rate_byte=0/1000;", 0, false),
        ("max_burst_rate_pkt=1/1000;", MAX, false),
        ("max_burst_rate_pkt=5/10,0/1000;", 0, true),
        ("max_recv_pkt=0;max_recv_byte=0;", MAX, false),
    ] {
        let mut ledger = ledger(&[limits]);
        assert_eq!(ledger.never(bytes), never, "{limits} {bytes}");
        let expected = if never { Admit::Exhausted } else { Admit::Now };
        assert_eq!(ledger.admit(START, bytes), expected, "{limits} {bytes}");
    }
}

#[test]
fn the_operators_burst_applies_beside_those_of_certificates() {
    let builtin = Burst { count: 12_500_000, window: 10 * SECOND };
    let mut ledger =
        Ledger::new(&chain(&["max_burst_rate_byte=13000000/1000000000;"]), &[], Some(builtin), START);
    assert!(!ledger.never(12_500_000) && ledger.never(12_500_001));
    ledger.sent(START, 12_500_000);
    assert_eq!(ledger.admit(START + 1, 1), Admit::At(START + 10 * SECOND));
}

#[test]
fn receives_beyond_a_total_are_refused_and_not_counted() {
    let mut ledger = ledger(&["max_recv_byte=10;", "max_recv_pkt=3;"]);
    assert!(ledger.receive(6));
    assert!(!ledger.receive(5), "only 4 bytes are left");
    assert!(ledger.receive(4));
    assert!(ledger.receive(0));
    assert!(!ledger.receive(0), "no packet is left");
    let expected = Usage { receive_packets: 3, receive_bytes: 10, run_time: 5, ..Usage::default() };
    assert_eq!(ledger.used(START + 5), expected);
    assert_eq!(ledger.used(START - 5).run_time, 0, "a clock set back does not underflow");
}

#[test]
fn reservations_hold_back_what_they_might_use() {
    let mut ledger = ledger(&["max_send_byte=10;max_send_pkt=2;"]);
    ledger.reserve(7);
    assert!(!ledger.never(10), "the reservation may come to nothing");
    assert_eq!(ledger.admit(START, 4), Admit::AfterSettle);
    assert_eq!(ledger.admit(START, 3), Admit::Now);
    assert_eq!(ledger.used(START), Usage::default());

    ledger.settle(7, None, 0);
    assert_eq!(ledger.admit(START, 10), Admit::Now);
    ledger.reserve(7);
    ledger.settle(7, Some(START), 5);
    assert_eq!((ledger.used(START).send_packets, ledger.used(START).send_bytes), (1, 5));
    assert_eq!(ledger.admit(START, 6), Admit::Exhausted);
    ledger.reserve(0);
    assert_eq!(ledger.admit(START, 5), Admit::AfterSettle, "the last packet is reserved");
}

#[test]
fn unknown_limits_without_the_mark_are_named_once() {
    let chain = chain(&["new_limit=1;*newer_limit=2;", "new_limit=2;filter=ab;*max_send_byte=1;"]);
    assert_eq!(unknown(&chain), ["filter", "new_limit"]);
}

#[test]
fn keys_name_the_privilege_certificates_in_chain_order() {
    let chain = chain(&["", ""]);
    let keys = keys(&chain);
    assert_eq!(keys.len(), 2);
    for (key, cert) in keys.iter().zip(&chain.certs[1..]) {
        assert_eq!((key.authority, &key.serial), (cert.authority_id, &cert.serial));
    }
    assert_ne!(keys[0], keys[1]);
}

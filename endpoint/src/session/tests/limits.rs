//! The rows of spec `scheduling.md` §5.3, as a controller meets them.

use pktlab::vmem::{SocketState, socket as cell};
use pktlab::wire::{ErrId, Message};

use super::super::End;
use super::lab::{
    EVERYTHING, LATE, Lab, SECOND, START, address, capture, config, limited, packet, raw, result, send,
    send_raw, send_to, shape, tcp,
};
use crate::limits::Ledger;

fn with(limits: &str) -> Lab {
    let mut config = config();
    config.raw = true;
    let mut lab = Lab::with(config, limited(limits, LATE));
    lab.udp(1, 1000);
    lab
}

#[test]
fn totals_of_packets_and_bytes() {
    let mut lab = with("max_send_pkt=2;");
    assert_eq!(lab.errid(send_to(1, 0, 0, b"")), 0);
    assert_eq!(lab.errid(send_to(1, 0, 0, b"")), 0);
    assert_eq!(lab.errid(send_to(1, 0, 0, b"")), 0x39);

    let mut lab = with("max_send_byte=5;");
    assert_eq!(lab.errid(send_to(1, 0, 0, &[0; 6])), 0x39);
    assert_eq!(lab.errid(send_to(1, 0, 0, &[0; 5])), 0);
    assert_eq!(lab.errid(send_to(1, 0, 0, &[0; 1])), 0x39);
    assert_eq!(lab.errid(send_to(1, 0, 0, b"")), 0, "no bytes are left, packets are");
}

#[test]
fn each_piece_of_a_stream_is_a_packet() {
    let mut lab = Lab::with(config(), limited("max_send_pkt=2;", LATE));
    lab.tcp(1, 0);
    lab.world.sends.extend([Ok(1), Ok(1), Ok(1)]);
    assert_eq!(shape(&lab.ask(send(1, 0, 7, "abcd"))), ["result 0x0", "tag 7 0x41"]);
    assert_eq!(lab.world.log, ["send 1 a", "send 1 b"]);
    assert_eq!(lab.state(1), SocketState::Open);
}

#[test]
fn exhaustion_while_queued_drops_the_queue_with_a_tag_each() {
    let mut lab = with("max_send_byte=5;");
    let later = START + 100;
    assert_eq!(lab.errid(send_to(1, later, 1, &[0; 4])), 0);
    assert_eq!(lab.errid(send_to(1, later, 2, &[0; 4])), 0, "it fits what is left now");
    assert_eq!(lab.errid(send_to(1, later, 3, &[0; 4])), 0);
    lab.advance(100);
    assert_eq!(shape(&lab.said()), ["tag 1 0x0", "tag 2 0x41", "tag 3 0x41"]);
    assert_eq!((lab.buf_used(), lab.state(1)), (0, SocketState::Open));
    // The tags belong to their socket: its mask holds them, another one's does not.
    let mut lab = with("max_send_byte=5;");
    lab.udp(2, 0);
    lab.set_mask(1, pktlab::vmem::mask::NTAG);
    lab.ask(send_to(1, later, 1, &[0; 4]));
    lab.ask(send_to(1, later, 2, &[0; 4]));
    lab.advance(100);
    assert!(lab.said().is_empty());
    assert_eq!(shape(&lab.set_mask(1, 0)), ["tag 1 0x0", "tag 2 0x41", "result 0x0"]);
}

#[test]
fn bursts_delay_and_what_never_fits_is_refused() {
    let mut lab = with(&format!("max_burst_rate_byte=10/{SECOND};max_burst_rate_pkt=2/{};", 10 * SECOND));
    assert_eq!(lab.errid(send_to(1, 0, 0, &[0; 11])), 0x39);
    assert_eq!(shape(&lab.ask(send_to(1, 0, 1, &[0; 10]))), ["result 0x0", "tag 1 0x0"]);
    assert_eq!(shape(&lab.ask(send_to(1, 0, 2, &[0; 1]))), ["result 0x0"], "queued");
    assert_eq!(shape(&lab.ask(send_to(1, 0, 3, &[0; 1]))), ["result 0x0"]);
    assert_eq!(lab.session.deadline(), Some(START + SECOND));
    lab.advance(SECOND);
    assert_eq!(shape(&lab.said()), ["tag 2 0x0"]);
    lab.advance(9 * SECOND - 1);
    assert!(lab.said().is_empty(), "two packets are gone");
    lab.advance(1);
    assert_eq!(shape(&lab.said()), ["tag 3 0x0"]);

    let mut lab = with(&format!("max_burst_rate_pkt=0/{SECOND};"));
    assert_eq!(lab.errid(send_to(1, 0, 0, b"")), 0x39);
}

#[test]
fn the_operators_burst_holds_beside_the_certificates() {
    let burst = pktlab::cert::Burst { count: 10, window: SECOND };
    let mut lab = Lab::with(config(), super::lab::limited_also("", LATE, Some(burst)));
    lab.udp(1, 0);
    assert_eq!(lab.errid(send_to(1, 0, 0, &[0; 11])), 0x39);
    assert_eq!(lab.errid(send_to(1, 0, 0, &[0; 10])), 0);
}

#[test]
fn receive_totals_discard_and_count() {
    let mut lab = with("max_recv_pkt=1;");
    lab.datagram(1, "one");
    lab.datagram(1, "two");
    assert_eq!(shape(&lab.said()), ["data one"]);
    assert_eq!((lab.number(1, cell::DROP_BYTES), lab.number(1, cell::DROP_UNITS)), (3, 1));
    assert_eq!(lab.state(1), SocketState::Open);

    let mut lab = with("max_recv_byte=4;");
    lab.datagram(1, "three");
    lab.datagram(1, "four");
    lab.datagram(1, "");
    assert_eq!(shape(&lab.said()), ["data four", "data "]);
    assert_eq!((lab.number(1, cell::DROP_BYTES), lab.number(1, cell::DROP_UNITS)), (5, 1));

    let mut lab = with("max_recv_pkt=1;");
    assert_eq!(lab.errid(raw(2, "0.0.0.0", 1000)), 0);
    assert_eq!(lab.errid(capture(2, u64::MAX, EVERYTHING)), 0);
    lab.world.packets.extend([(vec![0x45; 20], START), (vec![0x45; 21], START)]);
    lab.readable(2);
    assert_eq!(lab.said().len(), 1);
    assert_eq!((lab.number(2, cell::DROP_BYTES), lab.number(2, cell::DROP_UNITS)), (21, 1));
}

#[test]
fn only_what_the_budget_lets_through_counts_as_received() {
    let mut lab = with("max_recv_byte=4;");
    lab.write(cell::block(1) + cell::RBUFSZ, &4u32.to_be_bytes());
    lab.datagram(1, "truncated");
    assert_eq!(shape(&lab.said()), ["data trun"]);
}

#[test]
fn a_stream_that_would_get_a_hole_is_closed() {
    let mut lab = Lab::with(config(), limited("max_recv_byte=4;", LATE));
    lab.tcp(1, 100);
    lab.ask(send(1, START + SECOND, 3, "waits"));
    lab.world.reads.push_back(Ok(b"five!".to_vec()));
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["data five"], "what the limit leaves arrives");
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["stat Code(255)", "tag 3 0x41"]);
    assert_eq!(lab.state(1), SocketState::UnkFault);
}

#[test]
fn sockets_and_destinations() {
    let mut lab = with("max_socket_count=2;");
    assert_eq!(lab.errid(tcp(2, 0)), 0);
    assert_eq!(lab.errid(tcp(3, 0)), 0x44);

    let mut lab = with("valid_dest=198.51.100.0/24;");
    assert_eq!(lab.errid(tcp(2, 0)), 0x3a);
    assert_eq!(lab.errid(send_to(1, 0, 0, b"")), 0x39);
    assert_eq!(lab.errid(raw(3, "0.0.0.0", 0)), 0);
    assert_eq!(lab.errid(send_raw(3, 0, 0, &packet([0; 4], [192, 0, 2, 9], 20))), 0x39);
    assert_eq!(lab.errid(send_raw(3, 0, 0, &packet([0; 4], [198, 51, 100, 9], 20))), 0);
}

#[test]
fn the_run_time_ends_the_session_without_a_message() {
    let mut lab = Lab::with(config(), limited(&format!("max_exp_period={SECOND};"), LATE));
    lab.udp(1, 0);
    lab.advance(SECOND);
    assert_eq!(lab.session.ended(), None);
    assert_eq!(lab.session.deadline(), Some(START + SECOND + 1), "an idle session is woken for it");
    lab.advance(1);
    assert_eq!(lab.session.ended(), Some(End::Expired));
    assert!(lab.said().is_empty());
    assert!(!lab.world.open.contains(&1));
    // In the set-up phase too.
    let mut lab = Lab::fresh(config(), limited(&format!("max_exp_period={SECOND};"), LATE));
    lab.advance(SECOND + 1);
    assert_eq!(lab.session.ended(), Some(End::Expired));
}

#[test]
fn the_operators_policy_is_counted_and_answers_like_a_limit() {
    let mut config = config();
    let denied = pktlab::cert::Network { addr: address("192.0.2.0:0").ip(), prefix: 24 };
    let rules = crate::policy::Rules { deny: vec![denied], ..Default::default() };
    config.policy = crate::policy::Policy::new(&rules, &[], &[]);
    config.raw = true;
    let mut lab = Lab::with(config, Ledger::unlimited());
    lab.udp(1, 0);
    assert_eq!(lab.ask(send_to(1, 0, 0, b"x")), [result(ErrId::ESKTPKTDENY)]);
    assert_eq!(lab.errid(tcp(2, 0)), 0x3a);
    assert_eq!(lab.errid(raw(3, "0.0.0.0", 0)), 0);
    assert_eq!(lab.errid(send_raw(3, 0, 0, &packet([0; 4], [192, 0, 2, 9], 20))), 0x39);
    assert_eq!(lab.session.report(START).refused, 3);
}

#[test]
fn the_report_adds_up() {
    let mut lab = with("max_send_byte=1000;max_recv_pkt=10;max_socket_count=9;");
    lab.ask(send_to(1, 0, 0, b"four"));
    lab.ask(send_to(1, START + 50, 0, b"later"));
    lab.datagram(1, "abc");
    lab.write(cell::block(1) + cell::RBUFSZ, &[0; 4]);
    lab.datagram(1, "dropped");
    let report = lab.session.report(START + 7);
    assert!(report.started);
    assert_eq!((report.sockets_open, report.sockets_opened, report.captures), (1, 1, 0));
    assert_eq!((report.sent.packets, report.sent.bytes), (1, 4));
    assert_eq!((report.received.packets, report.received.bytes), (1, 3));
    assert_eq!((report.dropped.packets, report.dropped.bytes), (1, 7));
    assert_eq!(report.left.send_bytes, Some(996));
    assert_eq!(report.left.receive_packets, Some(9));
    assert_eq!((report.left.sockets, report.left.send_packets), (Some(8), None));
    assert_eq!(report.buffer_size, 100_000);
    assert!(report.buffer_used > 0);
    assert_eq!(shape(&lab.ask(Message::NClose { socket: 1 })).last().map(String::as_str), Some("result 0x0"));
    let report = lab.session.report(START + 7);
    assert_eq!((report.unsent, report.buffer_used), (1, 0));
}

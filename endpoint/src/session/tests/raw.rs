//! Raw sockets and captures (spec `raw.md`, `filters-monitors.md` §1, `endpoint.md` §8 raw rows).

use pktlab::vmem::{SocketState, extension, send_error, socket as cell, system};
use pktlab::wire::{ExtNote, Message, NCap};

use super::super::{Errno, Losses, OpenFault, Output};
use super::lab::{
    EVERYTHING, LATE, Lab, SECOND, START, capture, close, config, limited, packet, raw, send_raw, shape,
};
use crate::limits::Ledger;

const OWN: [u8; 4] = [192, 0, 2, 1];
const ELSEWHERE: [u8; 4] = [198, 51, 100, 7];
const MS: u64 = 1_000_000;

fn opened(rbufsz: u32) -> Lab {
    let mut lab = Lab::raw(Ledger::unlimited());
    assert_eq!(lab.errid(raw(1, "0.0.0.0", rbufsz)), 0);
    lab
}

fn capturing(rbufsz: u32, end: u64) -> Lab {
    let mut lab = opened(rbufsz);
    assert_eq!(lab.errid(capture(1, end, EVERYTHING)), 0);
    lab
}

impl Lab {
    fn captured(&mut self, data: &str, time: u64) {
        self.world.packets.push_back((data.as_bytes().to_vec(), time));
    }
}

#[test]
fn the_local_address_is_an_exported_one() {
    let mut lab = opened(0);
    assert_eq!(lab.world.log, ["raw 1 192.0.2.1"], "0.0.0.0 is the first exported one");
    assert_eq!(lab.cell(1, 0, 3), [4, 0, 2]);
    assert_eq!(lab.cell(1, cell::LADDR, 16)[..5], [192, 0, 2, 1, 0]);
    assert_eq!(lab.cell(1, cell::LPORT, 4), [0; 4]);
    assert_eq!(lab.errid(raw(2, "192.0.2.1", 0)), 0, "several at once");
    assert_eq!(lab.errid(raw(3, "192.0.2.2", 0)), 0x36);
    for fault in [OpenFault::Socket(Errno::PERM), OpenFault::Bind(Errno::ADDRNOTAVAIL)] {
        lab.world.opens.push_back(Err(fault));
        assert_eq!(lab.errid(raw(3, "0.0.0.0", 0)), 0xffff, "{fault:?}");
        assert_eq!(lab.state(3), SocketState::Free);
    }
}

#[test]
fn ipv6_needs_its_bit() {
    let mut lab = Lab::raw(Ledger::unlimited());
    assert_eq!(lab.errid(raw(1, "::", 0)), 0xffff);
    let mut lab = Lab::extended();
    assert_eq!(lab.errid(raw(1, "2001:db8::9", 0)), 0x36);
    assert_eq!(lab.errid(raw(1, "::", 0)), 0);
    assert_eq!(lab.cell(1, 0, 3), [6, 0, 2]);
    assert_eq!(lab.cell(1, cell::LADDR, 2), [0x20, 0x01]);
    let mut v6 = vec![0; 40];
    v6[0] = 0x60;
    v6[24] = 0x20;
    assert_eq!(lab.errid(send_raw(1, 0, 0, &v6[..39])), 0x39);
    assert_eq!(lab.errid(send_raw(1, 0, 0, &packet(OWN, ELSEWHERE, 40))), 0x37, "another family");
    assert_eq!(lab.errid(send_raw(1, 0, 0, &v6)), 0);
    assert!(lab.world.log.last().is_some_and(|line| line.ends_with("to [2000::]:0")));
    v6[8] = 0xfd;
    assert_eq!(lab.errid(send_raw(1, 0, 0, &v6)), 0x39, "a foreign source");
    // Switching the bit off closes nothing.
    lab.enable(0);
    assert_eq!(lab.state(1), SocketState::Open);
    assert_eq!(lab.errid(raw(2, "::", 0)), 0xffff);
}

#[test]
fn packets_are_checked_before_they_are_queued() {
    let mut lab = opened(0);
    let mut wrong_version = packet(OWN, ELSEWHERE, 20);
    wrong_version[0] = 0x55;
    assert_eq!(lab.errid(send_raw(1, 0, 0, &packet(OWN, ELSEWHERE, 19))), 0x39);
    assert_eq!(lab.errid(send_raw(1, 0, 0, b"")), 0x39);
    assert_eq!(lab.errid(send_raw(1, 0, 0, &wrong_version)), 0x39);
    assert_eq!(lab.errid(send_raw(1, 0, 0, &packet([192, 0, 2, 2], ELSEWHERE, 20))), 0x39);
    assert!(lab.world.log.iter().all(|line| !line.starts_with("send")));
    for source in [[0; 4], OWN] {
        let said = lab.ask(send_raw(1, 0, 3, &packet(source, ELSEWHERE, 20)));
        assert_eq!(shape(&said), ["result 0x0", "tag 3 0x0"]);
        assert!(lab.world.log.last().is_some_and(|line| line.ends_with("to 198.51.100.7:0")));
    }
}

#[test]
fn foreign_sources_need_every_certificates_word() {
    let foreign = packet([203, 0, 113, 1], ELSEWHERE, 20);
    for (limits, errid) in [("", 0x39), ("src_ip_spoofing=0;", 0x39), ("src_ip_spoofing=1;", 0)] {
        let mut lab = Lab::raw(limited(limits, LATE));
        assert_eq!(lab.errid(raw(1, "0.0.0.0", 0)), 0);
        assert_eq!(lab.errid(send_raw(1, 0, 0, &foreign)), errid, "{limits}");
    }
}

#[test]
fn send_errors_follow_the_raw_rows() {
    let good = packet([0; 4], ELSEWHERE, 20);
    for errno in [Errno::PERM, Errno::ACCESS, Errno::INVAL, Errno::MSGSIZE] {
        let mut lab = opened(0);
        lab.world.sends.push_back(Err(errno));
        assert_eq!(shape(&lab.ask(send_raw(1, 0, 5, &good))), ["result 0x0", "tag 5 0x41"]);
        assert_eq!(lab.state(1), SocketState::Open, "{errno:?}");
        assert_eq!(lab.cell(1, cell::NSENDERR, 1), [send_error::BAD_PACKET as u8]);
        assert_eq!(shape(&lab.ask(send_raw(1, 0, 6, &good))), ["result 0x0", "tag 6 0x0"]);
        assert_eq!(lab.buf_used(), 0);
    }
    for (errno, error) in [(Errno::NOBUFS, 1), (Errno::NOMEM, 1), (Errno::IO, 127)] {
        let mut lab = capturing(0, u64::MAX);
        lab.world.sends.push_back(Err(Errno::AGAIN));
        lab.ask(send_raw(1, 0, 5, &good));
        lab.ask(send_raw(1, 0, 6, &good));
        lab.world.sends.push_back(Err(errno));
        lab.writable(1);
        assert_eq!(shape(&lab.said()), ["tag 5 0x41", "tag 6 0x41"], "no NSTAT: {errno:?}");
        assert_eq!(lab.state(1), SocketState::UnkFault);
        assert_eq!(lab.cell(1, cell::NSENDERR, 1), [error]);
        assert_eq!(lab.errid(capture(1, 0, EVERYTHING)), 0x33);
        assert_eq!(lab.errid(send_raw(1, 0, 0, &good)), 0x33);
        assert_eq!(lab.errid(close(1)), 0);
    }
}

#[test]
fn what_the_system_does_to_headers_is_announced() {
    let mut lab = opened(0);
    assert_eq!(lab.read(system::IP4HDRMOD, 12), [0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0]);
    assert_eq!(lab.read(system::IP6HDRMOD, 8), [0; 8]);
    assert_eq!(lab.read(system::TRANSSUP, 4), [0, 0, 0, 7]);
}

#[test]
fn programs_are_accepted_or_refused_by_the_table() {
    let too_long = vec![0; 65_537];
    let longest = {
        let mut program = vec![0];
        program.extend(EVERYTHING[1..9].repeat(8190));
        program.extend(&EVERYTHING[9..]);
        program
    };
    let bad: [(&str, &[u8]); 12] = [
        ("longer than 65536 bytes", &too_long),
        ("empty", b""),
        ("unknown type", b"\x02\x95\0\0\0\0\0\0\0"),
        ("not a multiple of 8", b"\0\x95\0\0\0\0\0\0"),
        ("WASM, a multiple of 8", b"\x01\0asm\x01\0\0\0"),
        ("WASM, not a multiple of 8", b"\x01\0asm\x01\0\0"),
        ("no instruction", b"\0"),
        ("bad opcode", b"\0\xff\0\0\0\0\0\0\0\x95\0\0\0\0\0\0\0"),
        ("endless loop", b"\0\x05\0\xff\xff\0\0\0\0\x95\0\0\0\0\0\0\0"),
        ("helper without arguments", b"\0\x85\0\0\0\0\0\0\x01\x95\0\0\0\0\0\0\0"),
        ("uninitialised register", b"\0\xbf\x03\0\0\0\0\0\0\x95\0\0\0\0\0\0\0"),
        ("falls off the end", b"\0\xb7\0\0\0\0\0\0\x01"),
    ];
    for (what, program) in bad {
        let mut lab = capturing(1000, u64::MAX);
        assert_eq!(lab.errid(capture(1, u64::MAX, program)), 0x38, "{what}");
        assert_eq!(lab.world.log[1..], ["capture 1 on"], "{what}: the one that runs goes on");
        lab.captured("still", START);
        lab.readable(1);
        assert_eq!(shape(&lab.said()), ["data still"], "{what}");
    }
    for program in [EVERYTHING, &longest, b"\0\x85\0\0\0\0\0\0\x05\x95\0\0\0\0\0\0\0"] {
        let mut lab = opened(0);
        assert_eq!(lab.errid(capture(1, u64::MAX, program)), 0);
    }
}

#[test]
fn the_systems_refusal_is_a_fault_of_the_socket() {
    let mut lab = opened(0);
    lab.world.captures.push_back(Err(Errno::PERM));
    assert_eq!(lab.errid(capture(1, u64::MAX, EVERYTHING)), 0xffff);
    assert_eq!(lab.state(1), SocketState::UnkFault);
    assert_eq!(lab.errid(capture(1, u64::MAX, EVERYTHING)), 0x33);
    assert_eq!(lab.errid(close(1)), 0);
    assert_eq!(lab.errid(raw(1, "0.0.0.0", 0)), 0);
}

#[test]
fn nothing_is_received_before_an_ncap() {
    let mut lab = opened(1000);
    assert!(!lab.world.watched.get(&1).copied().unwrap_or_default().read);
    lab.captured("early", START);
    lab.readable(1);
    assert!(lab.said().is_empty());
    let foreign = NCap { socket: 1, family: 6, proto: 0, end: 0, filter: EVERYTHING.into() };
    assert_eq!(lab.errid(Message::NCap(foreign)), 0x37);
    assert_eq!(lab.errid(capture(2, 0, EVERYTHING)), 0x33);
}

#[test]
fn captures_end_at_their_time() {
    let end = START + SECOND;
    let mut lab = capturing(1000, end);
    lab.captured("in time", end);
    lab.captured("late", end + 1);
    lab.world.now = end + 10;
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["data in time"]);
    assert_eq!(lab.session.report(end).captures, 1);
    // What came in time may still rest in the kernel when the time is over.
    lab.captured("from the kernel", end - 1);
    lab.advance(2 * MS);
    assert_eq!(shape(&lab.said()), ["data from the kernel"]);
    assert_eq!(lab.world.log[1..], ["capture 1 on", "capture 1 off"]);
    assert!(!lab.world.watched[&1].read);
    assert_eq!((lab.session.deadline(), lab.session.report(end).captures), (None, 0));
    assert_eq!(lab.state(1), SocketState::Open);
}

#[test]
fn the_end_does_not_cut_off_what_came_in_time() {
    let end = START + SECOND;
    let mut lab = capturing(10_000, end);
    for _ in 0..500 {
        lab.captured("x", end);
    }
    lab.captured("late", end + 1);
    lab.advance(SECOND + 2 * MS);
    assert_eq!(lab.said().len(), 500);
}

#[test]
fn an_end_in_the_past_stops_the_capture() {
    let mut lab = capturing(1000, u64::MAX);
    lab.world.losses = Losses { kernel: 5, faults: 0 };
    assert_eq!(lab.errid(capture(1, START, EVERYTHING)), 0);
    assert_eq!(lab.number(1, cell::DROP_UNITS), 5, "losses before the end are counted");
    assert_eq!(lab.world.log[1..], ["capture 1 on", "capture 1 off"]);
    lab.captured("x", START);
    lab.readable(1);
    assert!(lab.said().is_empty());
    assert_eq!(lab.session.report(START).captures, 0);
}

#[test]
fn a_capture_is_replaced_and_queued_packets_still_arrive() {
    let mut lab = capturing(1000, START + SECOND);
    lab.captured("queued", START);
    lab.readable(1);
    assert_eq!(shape(&lab.ask(capture(1, u64::MAX, EVERYTHING))), ["data queued", "result 0x0"]);
    lab.advance(2 * SECOND);
    lab.captured("second", START + 2 * SECOND);
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["data second"], "the first end is forgotten");
}

#[test]
fn the_budget_truncates_and_drops() {
    let mut lab = capturing(6, u64::MAX);
    for data in ["four", "four", "more"] {
        lab.captured(data, START);
    }
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["data four", "data fo"]);
    assert_eq!((lab.number(1, cell::DROP_BYTES), lab.number(1, cell::DROP_UNITS)), (6, 2));
    let mut small = config();
    (small.buf_max, small.raw) = (130, true);
    let mut lab = Lab::with(small, Ledger::unlimited());
    assert_eq!(lab.errid(raw(1, "0.0.0.0", 1000)), 0);
    assert_eq!(lab.errid(capture(1, u64::MAX, EVERYTHING)), 0);
    lab.captured("0123456789", START);
    lab.captured("0123456789", START);
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["data 012345"]);
    assert_eq!((lab.number(1, cell::DROP_BYTES), lab.number(1, cell::DROP_UNITS)), (14, 2));
}

#[test]
fn losses_and_faults_are_counted_wherever_they_are_found() {
    let mut lab = capturing(1000, START + SECOND);
    lab.world.losses = Losses { kernel: 2, faults: 3 };
    assert_eq!(lab.number(1, cell::DROP_UNITS), 2, "brought up to date by the read");
    assert_eq!((lab.number(1, cell::FILTER_FAULTS), lab.number(1, cell::DROP_BYTES)), (3, 0));
    lab.world.losses = Losses { kernel: 1, faults: 1 };
    assert_eq!(lab.errid(capture(1, START + SECOND, EVERYTHING)), 0);
    assert_eq!((lab.number(1, cell::DROP_UNITS), lab.number(1, cell::FILTER_FAULTS)), (3, 4));
    lab.world.losses = Losses { kernel: u32::MAX, faults: u32::MAX };
    lab.advance(2 * SECOND);
    assert_eq!((lab.number(1, cell::DROP_UNITS), lab.number(1, cell::FILTER_FAULTS)), (u32::MAX, u32::MAX));
    let report = lab.session.report(START);
    assert_eq!(report.filter_faults, 4 + u64::from(u32::MAX));
    assert_eq!(report.dropped.packets, 3 + u64::from(u32::MAX));
    assert_eq!(lab.errid(close(1)), 0);
    assert_eq!(lab.cell(1, cell::DROP_BYTES, 12), [0; 12]);
}

#[test]
fn stamps_stand_for_both_kinds_of_data() {
    let mut lab = Lab::extended();
    assert_eq!(lab.errid(raw(1, "0.0.0.0", 4)), 0);
    assert_eq!(lab.errid(capture(1, u64::MAX, EVERYTHING)), 0);
    lab.captured("0123456789", START + 7);
    lab.readable(1);
    let [ExtNote::NDatx(data)] = &lab.notes()[..] else { panic!("NDATX") };
    assert_eq!(
        (&data.data[..], data.time, data.truncated, data.remote),
        (&b"0123"[..], START + 7, true, None)
    );
    lab.session.request(
        pktlab::wire::Frame::Message(send_raw(1, 0, 9, &packet([0; 4], ELSEWHERE, 20))),
        &mut lab.world,
    );
    let outputs = lab.outputs();
    let [_, Output::Extension(ExtNote::NTagx(tag))] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((tag.tag, tag.kernel_time, tag.errid.0), (9, true, 0));
    lab.enable(ALL_BUT_STAMPS);
    lab.captured("plain", START);
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["data plai"]);
}

const ALL_BUT_STAMPS: u32 = super::lab::ALL & !extension::STAMPS;

#[test]
fn a_session_captures_with_sixteen_sockets_at_most() {
    let mut lab = Lab::raw(Ledger::unlimited());
    for id in 0..17 {
        assert_eq!(lab.errid(raw(id, "0.0.0.0", 1000)), 0);
    }
    for id in 0..16 {
        assert_eq!(lab.errid(capture(id, u64::MAX, EVERYTHING)), 0);
    }
    assert_eq!(lab.errid(capture(16, u64::MAX, EVERYTHING)), 0x30);
    assert_eq!(lab.errid(capture(3, u64::MAX, EVERYTHING)), 0, "one that runs may have another filter");
    assert_eq!(lab.errid(capture(3, 1, EVERYTHING)), 0, "and be stopped");
    assert_eq!(lab.errid(capture(16, u64::MAX, EVERYTHING)), 0);
}

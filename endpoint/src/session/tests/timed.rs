//! Sends handed over to be made at their times: order, recall, errors, and the limits they reserve (spec `endpoint.md`
//! §5.4, `scheduling.md` §5.3).

use pktlab::vmem::SocketState;
use pktlab::wire::{ErrId, Frame, Message};

use super::super::{End, Errno};
use super::lab::{
    LATE, Lab, SECOND, START, close, config, fin, limited, packet, raw, result, send, send_raw, send_to,
    shape,
};
use crate::limits::Ledger;

const SOON: u64 = START + 5;

/// A UDP socket with a tagged send that was made and not told, and one that waits.
fn half_made() -> Lab {
    let mut lab = Lab::new();
    lab.udp(1, 0);
    lab.ask(send_to(1, SOON, 1, b"made"));
    lab.ask(send_to(1, START + SECOND, 2, b"waits"));
    lab.world.now = SOON;
    lab.world.make(1);
    lab
}

#[test]
fn what_was_made_is_told_before_the_last_message_of_a_session() {
    let mut lab = half_made();
    assert_eq!(shape(&lab.ask(Message::Yield { resume: 9 })), ["tag 1 0x0", "result 0x0"]);
    assert_eq!(lab.session.ended(), Some(End::Yield { resume: 9 }));

    let mut lab = half_made();
    let malformed = Frame::Malformed { code: 0x2a, raw: bytes::Bytes::new(), reason: "test" };
    assert_eq!(shape(&lab.frame(malformed)), ["tag 1 0x0", "result 0x10"]);

    let mut lab = half_made();
    lab.session.suspend(&mut lab.world);
    assert_eq!(shape(&lab.said()), ["tag 1 0x0", "Suspd"]);
    assert_eq!(lab.session.ended(), Some(End::Suspended));
    lab.session.suspend(&mut lab.world);
    assert!(lab.said().is_empty(), "once");

    for mut lab in [half_made(), half_made()] {
        lab.session.close(&mut lab.world);
        let report = lab.session.report(lab.world.now);
        assert_eq!((report.sent.packets, report.sent.bytes, report.unsent), (1, 4, 1));
        assert_eq!((report.buffer_used, report.sockets_open), (0, 0));
    }
}

#[test]
fn closing_tells_what_was_made_and_nothing_of_the_rest() {
    let mut lab = half_made();
    assert_eq!(shape(&lab.ask(close(1))), ["tag 1 0x0", "result 0x0"]);
    assert_eq!(lab.buf_used(), 0);
    lab.udp(1, 0);
    lab.advance(2 * SECOND);
    assert!(lab.said().is_empty(), "nothing of the earlier opening is sent or told");
    assert_eq!(lab.world.log, ["send 1 made to 192.0.2.53:53", "close 1"]);
}

#[test]
fn a_fin_overtakes_what_is_handed_over() {
    let mut lab = Lab::new();
    lab.tcp(1, 0);
    lab.ask(send(1, START + 10, 1, "late"));
    assert_eq!(lab.world.handed[&1].len(), 1);
    assert_eq!(shape(&lab.ask(fin(1, START + 3))), ["result 0x0"]);
    lab.advance(3);
    assert_eq!(shape(&lab.said()), ["tag 1 0x41"]);
    lab.advance(SECOND);
    assert_eq!(lab.world.log, ["shut 1"]);
    assert_eq!(lab.state(1), SocketState::Wfin);
}

#[test]
fn a_queue_that_is_blocked_keeps_its_order() {
    let mut lab = Lab::new();
    lab.udp(1, 0);
    for tag in 1..=3 {
        lab.ask(send_to(1, SOON, tag, &[b'0' + tag as u8]));
    }
    assert_eq!(lab.world.handed[&1].len(), 3);
    lab.world.sends.extend([Ok(0), Err(Errno::AGAIN)]);
    lab.advance(10);
    assert_eq!(shape(&lab.said()), ["tag 1 0x0"]);
    assert!(lab.world.watched[&1].write && !lab.world.handed.contains_key(&1));
    lab.writable(1);
    assert_eq!(shape(&lab.said()), ["tag 2 0x0", "tag 3 0x0"]);
}

#[test]
fn one_error_is_told_once_whoever_met_it() {
    let mut lab = Lab::new();
    lab.tcp(1, 10);
    lab.ask(send(1, SOON, 1, "a"));
    lab.ask(send(1, SOON, 2, "b"));
    lab.world.now = SOON;
    lab.world.sends.push_back(Err(Errno::CONNRESET));
    lab.world.make(1);
    lab.world.reads.push_back(Err(Errno::CONNRESET));
    lab.readable(1);
    lab.tell();
    assert_eq!(shape(&lab.said()), ["stat Code(1)", "tag 1 0x41", "tag 2 0x41"]);
    assert_eq!(lab.state(1), SocketState::Reset);
    assert_eq!(lab.buf_used(), 0);
}

#[test]
fn a_bad_raw_packet_does_not_stop_those_behind_it() {
    let mut lab = Lab::raw(Ledger::unlimited());
    assert_eq!(lab.errid(raw(1, "0.0.0.0", 0)), 0);
    let good = packet([0; 4], [192, 0, 2, 9], 28);
    for tag in 1..=3 {
        assert_eq!(lab.errid(send_raw(1, SOON, tag, &good)), 0);
    }
    lab.world.sends.extend([Ok(0), Err(Errno::MSGSIZE)]);
    lab.advance(10);
    assert_eq!(shape(&lab.said()), ["tag 1 0x0", "tag 2 0x41", "tag 3 0x0"]);
    assert_eq!(lab.state(1), SocketState::Open);
}

#[test]
fn more_than_is_handed_over_at_once_leaves_in_order() {
    let mut lab = Lab::new();
    lab.udp(1, 0);
    for tag in 1..=200 {
        // The second half has earlier times, which do not count before its turn.
        let time = if tag <= 100 { START + 1_000 + u64::from(tag) } else { START };
        assert_eq!(lab.errid(send_to(1, time, tag, b"")), 0);
    }
    assert!(lab.world.handed[&1].len() < 200, "what is handed over is bounded");
    lab.advance(2_000);
    let said = shape(&lab.said());
    let expected: Vec<String> = (1..=200).map(|tag| format!("tag {tag} 0x0")).collect();
    assert_eq!(said, expected);
}

#[test]
fn a_stream_piece_taken_in_part_continues_before_the_next() {
    let mut lab = Lab::new();
    lab.tcp(1, 0);
    lab.ask(send(1, SOON, 1, "abcd"));
    lab.ask(send(1, 0, 2, "ef"));
    lab.world.sends.extend([Ok(1), Err(Errno::AGAIN)]);
    lab.advance(10);
    assert!(lab.said().is_empty());
    lab.writable(1);
    assert_eq!(shape(&lab.said()), ["tag 1 0x0", "tag 2 0x0"]);
    assert_eq!(lab.world.log, ["send 1 a", "send 1 bcd", "send 1 ef"]);
}

#[test]
fn a_reserved_packet_comes_back_when_it_is_not_sent() {
    let reserved = || {
        let mut lab = Lab::with(config(), limited("max_send_pkt=1;", LATE));
        lab.udp(1, 0);
        lab.udp(2, 0);
        assert_eq!(lab.errid(send_to(1, START + SECOND, 1, b"a")), 0);
        assert_eq!(shape(&lab.ask(send_to(2, 0, 2, b"b"))), ["result 0x0"], "it may still come to nothing");
        lab
    };
    // It comes to nothing: the other one leaves.
    let mut lab = reserved();
    assert_eq!(shape(&lab.ask(close(1))), ["result 0x0", "tag 2 0x0"]);
    assert_eq!(lab.errid(send_to(2, 0, 3, b"c")), 0x39);
    // It leaves: the other one never can.
    let mut lab = reserved();
    lab.advance(SECOND);
    assert_eq!(shape(&lab.said()), ["tag 1 0x0", "tag 2 0x41"]);
    // Its socket breaks.
    let mut lab = reserved();
    lab.world.sends.push_back(Err(Errno::PIPE));
    lab.advance(SECOND);
    assert_eq!(shape(&lab.said()), ["stat Code(255)", "tag 1 0x41", "tag 2 0x0"]);
}

#[test]
fn a_send_far_ahead_does_not_make_the_burst_limit_forget() {
    let mut lab = Lab::with(config(), limited(&format!("max_burst_rate_byte=10/{};", SECOND / 2), LATE));
    lab.udp(1, 0);
    lab.udp(2, 0);
    assert_eq!(shape(&lab.ask(send_to(1, 0, 1, &[0; 9]))), ["result 0x0", "tag 1 0x0"]);
    assert_eq!(lab.errid(send_to(1, START + SECOND, 2, &[0; 1])), 0);
    assert_eq!(lab.world.handed[&1].len(), 1, "there is room by then");
    assert_eq!(shape(&lab.ask(send_to(2, 0, 3, &[0; 9]))), ["result 0x0"]);
    lab.advance(SECOND / 2 - 1);
    assert!(lab.said().is_empty(), "the window is still full");
    lab.advance(1);
    assert_eq!(shape(&lab.said()), ["tag 3 0x0"]);
    lab.advance(SECOND / 2);
    assert_eq!(shape(&lab.said()), ["tag 2 0x0"]);
}

#[test]
fn a_send_far_ahead_takes_nothing_from_one_that_is_due() {
    let mut lab = Lab::with(config(), limited("max_send_pkt=1;", LATE));
    lab.udp(1, 0);
    lab.udp(2, 0);
    assert_eq!(lab.errid(send_to(1, START + 3_600 * SECOND, 1, b"a")), 0);
    assert_eq!(lab.session.deadline(), Some(START + 3_599 * SECOND));
    assert_eq!(shape(&lab.ask(send_to(2, 0, 2, b"b"))), ["result 0x0", "tag 2 0x0"]);
    lab.advance(3_600 * SECOND);
    assert_eq!(shape(&lab.said()), ["tag 1 0x41"]);
}

#[test]
fn a_refused_start_is_the_last_word() {
    let mut lab = Lab::fresh(config(), limited(&format!("monitor={};", "ab".repeat(32)), LATE));
    assert_eq!(lab.ask(Message::Start), [result(ErrId::ECRTNOHDAT)]);
    assert!(!lab.session.report(START).started);
    assert_eq!(lab.session.deadline(), None);
    assert!(lab.ask(Message::Start).is_empty());
}

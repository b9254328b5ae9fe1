//! Budgets, back-pressure, masks and order (spec `endpoint.md` §3, §6, §7).

use pktlab::vmem::{mask, socket as cell};
use pktlab::wire::{Frame, Message};

use super::super::FIFO_FULL;
use super::lab::{Lab, SECOND, START, config, send_to, shape};
use crate::limits::Ledger;

#[test]
fn a_stream_is_read_up_to_its_budget_and_then_not() {
    let mut lab = Lab::new();
    lab.tcp(1, 10);
    lab.world.reads.push_back(Ok(b"0123456789abcdef".to_vec()));
    lab.readable(1);
    assert!(!lab.world.watched[&1].read, "no room: the peer is stalled");
    lab.readable(1);
    assert_eq!(lab.world.asked, [10], "a stray wake-up reads nothing");
    assert_eq!(shape(&lab.said()), ["data 0123456789"]);
    assert!(lab.world.watched[&1].read, "handed over: room again");
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["data abcdef"]);
    assert_eq!(lab.number(1, cell::RBUFUSED), 0);
}

#[test]
fn a_zero_budget_stalls_streams_and_drops_datagrams() {
    let mut lab = Lab::new();
    lab.tcp(1, 0);
    assert!(!lab.world.watched.get(&1).copied().unwrap_or_default().read);
    lab.write(cell::block(1) + cell::RBUFSZ, &[0, 0, 0, 1]);
    assert!(lab.world.watched[&1].read, "a new budget takes effect at once");
    lab.udp(2, 0);
    lab.datagram(2, "lost");
    assert!(lab.said().is_empty());
    assert_eq!((lab.number(2, cell::DROP_BYTES), lab.number(2, cell::DROP_UNITS)), (4, 1));
}

#[test]
fn datagrams_are_truncated_to_the_room() {
    let mut lab = Lab::new();
    lab.udp(1, 6);
    lab.datagram(1, "four");
    lab.datagram(1, "four");
    lab.datagram(1, "more");
    assert_eq!(shape(&lab.said()), ["data four", "data fo"]);
    assert_eq!((lab.number(1, cell::DROP_BYTES), lab.number(1, cell::DROP_UNITS)), (6, 2));
    lab.datagram(1, "");
    assert_eq!(shape(&lab.said()), ["data "], "empty datagrams arrive");
}

#[test]
fn the_endpoint_budget_bounds_both_directions() {
    let mut small = config();
    small.buf_max = 1000;
    let mut lab = Lab::with(small, Ledger::unlimited());
    lab.udp(1, 10_000);
    let later = START + SECOND;
    assert_eq!(lab.errid(send_to(1, later, 0, &[0; 361])), 0);
    assert_eq!(lab.buf_used(), 500);
    assert_eq!(lab.errid(send_to(1, later, 0, &[0; 362])), 0x30);
    assert_eq!(lab.errid(send_to(1, later, 0, &[0; 361])), 0);
    assert_eq!(lab.errid(send_to(1, later, 0, b"")), 0x30);
    lab.datagram(1, "x");
    assert!(lab.said().is_empty());
    assert_eq!(lab.number(1, cell::DROP_UNITS), 1);
    lab.advance(SECOND);
    assert_eq!(lab.buf_used(), 0);
    lab.datagram(1, "0123456789");
    assert_eq!(lab.session.buf_used, 140);
}

#[test]
fn requests_stop_at_a_hundred_waiting_messages() {
    let mut lab = Lab::new();
    let read = || Frame::Message(Message::MRead { addr: 0, len: 1 });
    for count in 0..FIFO_FULL {
        assert!(lab.session.wants_request(), "{count}");
        lab.session.request(read(), &mut lab.world);
    }
    assert!(!lab.session.wants_request());
    let batch = lab.session.take_batch(1, 1);
    assert_eq!(batch.len(), 1);
    assert!(!lab.session.wants_request(), "taken is not yet written");
    lab.session.sent(&mut lab.world);
    assert!(lab.session.wants_request());
}

#[test]
fn masks_hold_and_release_kind_by_kind_before_the_result() {
    let mut lab = Lab::new();
    lab.udp(1, 100);
    assert_eq!(shape(&lab.set_mask(1, mask::NTAG | mask::NDATA)), ["result 0x0"]);
    lab.datagram(1, "one");
    assert_eq!(shape(&lab.ask(send_to(1, 0, 5, b"x"))), ["result 0x0"]);
    lab.world.now += 50;
    lab.datagram(1, "two");
    assert!(lab.said().is_empty());
    assert_eq!(lab.number(1, cell::RBUFUSED), 6, "held data occupies its budget");
    assert_eq!(shape(&lab.set_mask(1, mask::NTAG)), ["data one", "data two", "result 0x0"]);
    lab.datagram(1, "three");
    assert_eq!(shape(&lab.said()), ["data three"]);
    lab.set_mask(1, mask::NTAG | mask::NDATA);
    lab.datagram(1, "four");
    let said = lab.set_mask(1, 0);
    assert_eq!(shape(&said), ["tag 5 0x0", "data four", "result 0x0"]);
    let Message::NTag(tag) = &said[0] else { panic!("a tag") };
    assert_eq!(tag.time, START, "the original time");
    assert_eq!((lab.number(1, cell::RBUFUSED), lab.buf_used()), (0, 0));
}

#[test]
fn a_full_budget_of_held_data_still_fills_to_the_brim() {
    let mut lab = Lab::new();
    lab.tcp(1, 10);
    lab.set_mask(1, mask::NDATA);
    for piece in ["abcd", "efgh", "ijkl"] {
        lab.world.reads.push_back(Ok(piece.as_bytes().to_vec()));
        lab.readable(1);
    }
    assert_eq!(lab.number(1, cell::RBUFUSED), 10);
    assert!(!lab.world.watched[&1].read);
    assert_eq!(shape(&lab.set_mask(1, 0)), ["data abcd", "data efgh", "data ij", "result 0x0"]);
}

#[test]
fn held_tags_cannot_pile_up_beyond_the_budget() {
    let mut lab = Lab::new();
    lab.udp(1, 0);
    lab.set_mask(1, mask::NTAG);
    let mut accepted = 0;
    while lab.errid(send_to(1, 0, 1, b"")) == 0 {
        accepted += 1;
        assert!(accepted < 10_000, "no bound");
    }
    assert!(lab.buf_used() <= 100_000);
    assert_eq!(lab.set_mask(1, 0).len(), accepted + 1);
    assert_eq!(lab.buf_used(), 0);
}

#[test]
fn closing_delivers_what_is_queued_and_discards_what_is_held() {
    let mut lab = Lab::new();
    lab.udp(1, 100);
    lab.datagram(1, "queued");
    let said = lab.ask(Message::NClose { socket: 1 });
    assert_eq!(shape(&said), ["data queued", "result 0x0"]);
    lab.udp(1, 100);
    lab.set_mask(1, mask::NDATA);
    lab.datagram(1, "held");
    assert_eq!(shape(&lab.ask(Message::NClose { socket: 1 })), ["result 0x0"]);
    assert_eq!(lab.buf_used(), 0);
    lab.udp(1, 100);
    assert_eq!(lab.number(1, cell::RBUFUSED), 0);
}

#[test]
fn data_of_an_earlier_opening_is_not_charged_to_the_next() {
    let mut lab = Lab::new();
    lab.udp(1, 100);
    lab.datagram(1, "old");
    lab.session.request(Frame::Message(Message::NClose { socket: 1 }), &mut lab.world);
    lab.session.request(Frame::Message(super::lab::udp(1, 100)), &mut lab.world);
    lab.datagram(1, "new");
    assert_eq!(lab.session.take_batch(3, 1000).len(), 3);
    lab.session.sent(&mut lab.world);
    assert_eq!(lab.session.slots[1].as_ref().map(|slot| slot.rbufused), Some(3));
    assert_eq!(shape(&lab.said()), ["data new"]);
}

//! Transmit queues, target times, tags, FIN, send errors (spec `endpoint.md` §5.4, §5.6, §8).

use pktlab::vmem::{SocketState, send_error, socket as cell};
use pktlab::wire::Message;

use super::super::Errno;
use super::lab::{Lab, SECOND, START, fin, send, send_to, shape, tcp};

#[test]
fn results_precede_tags_and_targets_are_never_early() {
    let mut lab = Lab::new();
    lab.udp(1, 0);
    assert_eq!(shape(&lab.ask(send_to(1, 0, 7, b"now"))), ["result 0x0", "tag 7 0x0"]);
    assert_eq!(shape(&lab.ask(send_to(1, START + SECOND, 8, b"later"))), ["result 0x0"]);
    assert_eq!(shape(&lab.ask(send_to(1, 0, 9, b"behind"))), ["result 0x0"], "not sorted by time");
    lab.advance(SECOND - 1);
    assert_eq!(lab.world.log, ["send 1 now to 192.0.2.53:53"]);
    lab.advance(1);
    assert_eq!(shape(&lab.said()), ["tag 8 0x0", "tag 9 0x0"]);
    assert_eq!(lab.world.log[1..], ["send 1 later to 192.0.2.53:53", "send 1 behind to 192.0.2.53:53"]);
}

#[test]
fn queues_of_different_sockets_are_independent() {
    let mut lab = Lab::new();
    lab.udp(1, 0);
    lab.udp(2, 0);
    lab.ask(send_to(1, START + 5, 1, b"a"));
    lab.ask(send_to(2, START + 3, 2, b"b"));
    assert_eq!(lab.session.deadline(), None, "each waits for its own time elsewhere");
    lab.advance(10);
    assert_eq!(shape(&lab.said()), ["tag 2 0x0", "tag 1 0x0"]);
}

#[test]
fn an_untagged_or_empty_send_works() {
    let mut lab = Lab::new();
    lab.udp(1, 0);
    assert_eq!(shape(&lab.ask(send_to(1, 0, 0, b""))), ["result 0x0"]);
    assert_eq!(lab.world.log, ["send 1  to 192.0.2.53:53"]);
    lab.tcp(2, 0);
    assert_eq!(shape(&lab.ask(send(2, 0, 3, ""))), ["result 0x0", "tag 3 0x0"]);
}

#[test]
fn a_stream_continues_partial_writes_before_the_next_message() {
    let mut lab = Lab::new();
    lab.tcp(1, 0);
    lab.world.sends.extend([Ok(2), Err(Errno::AGAIN)]);
    assert_eq!(shape(&lab.ask(send(1, 0, 1, "abcd"))), ["result 0x0"]);
    assert_eq!(shape(&lab.ask(send(1, 0, 2, "ef"))), ["result 0x0"]);
    assert!(lab.world.watched[&1].write);
    assert_eq!(lab.session.deadline(), None);
    lab.writable(1);
    assert_eq!(shape(&lab.said()), ["tag 1 0x0", "tag 2 0x0"]);
    assert_eq!(lab.world.log, ["send 1 ab", "send 1 cd", "send 1 ef"]);
    assert!(!lab.world.watched[&1].write);
}

#[test]
fn sends_wait_for_the_connection() {
    let mut lab = Lab::new();
    lab.ask(tcp(1, 0));
    assert_eq!(lab.state(1), SocketState::Opening);
    assert_eq!(shape(&lab.ask(send(1, 0, 4, "hello"))), ["result 0x0"]);
    assert!(lab.world.log.is_empty());
    lab.writable(1);
    assert_eq!(shape(&lab.said()), ["stat Established(192.0.2.80:80)", "tag 4 0x0"]);
    assert_eq!(lab.state(1), SocketState::Open);
}

#[test]
fn a_synchronous_connect_is_open_without_nstat() {
    let mut lab = Lab::new();
    lab.world.opens.push_back(Ok(true));
    assert_eq!(shape(&lab.ask(tcp(1, 10))), ["result 0x0"]);
    assert_eq!(lab.state(1), SocketState::Open);
    assert!(lab.world.watched[&1].read);
}

#[test]
fn fin_lets_earlier_targets_out_and_drops_the_rest() {
    let mut lab = Lab::new();
    lab.tcp(1, 10);
    lab.ask(send(1, START + 5, 1, "early"));
    lab.ask(send(1, START + 20, 2, "late"));
    assert_eq!(shape(&lab.ask(fin(1, START + 10))), ["result 0x0"]);
    assert_eq!(shape(&lab.ask(fin(1, 0))), ["result 0x0"], "the first time stays");
    lab.advance(9);
    assert_eq!(shape(&lab.said()), ["tag 1 0x0"]);
    lab.advance(1);
    assert_eq!(shape(&lab.said()), ["tag 2 0x41"]);
    assert_eq!(lab.world.log, ["send 1 early", "shut 1"]);
    assert_eq!(lab.state(1), SocketState::Wfin);
    assert_eq!(lab.cell(1, cell::NSENDERR, 1), [send_error::WRITE_SHUT as u8]);
    assert_eq!(lab.errid(send(1, 0, 0, "x")), 0x33);
    assert_eq!(lab.errid(fin(1, 0)), 0);
    lab.world.reads.extend([Ok(b"rest".to_vec()), Ok(vec![])]);
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["data rest"]);
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["stat Code(3)"]);
    assert_eq!(lab.state(1), SocketState::End);
    assert_eq!(lab.errid(Message::NClose { socket: 1 }), 0);
}

#[test]
fn fin_after_the_peer_ends_both_directions() {
    let mut lab = Lab::new();
    lab.tcp(1, 10);
    lab.world.reads.push_back(Ok(vec![]));
    lab.readable(1);
    assert_eq!(shape(&lab.said()), ["stat Code(3)"]);
    assert_eq!(lab.state(1), SocketState::Eof);
    assert_eq!(shape(&lab.ask(send(1, 0, 1, "still"))), ["result 0x0", "tag 1 0x0"]);
    assert_eq!(shape(&lab.ask(fin(1, 0))), ["result 0x0"]);
    assert_eq!(lab.state(1), SocketState::End);
}

#[test]
fn write_errors_follow_the_table() {
    for (errno, state, code, error) in [
        (Errno::TIMEDOUT, SocketState::TimedOut, 2, 3),
        (Errno::CONNRESET, SocketState::Reset, 1, 4),
        (Errno::HOSTUNREACH, SocketState::Unreach, 0xff, 5),
        (Errno::NETUNREACH, SocketState::Unreach, 0xff, 5),
        (Errno::PIPE, SocketState::UnkFault, 0xff, 127),
        (Errno::MSGSIZE, SocketState::UnkFault, 0xff, 127),
    ] {
        let mut lab = Lab::new();
        lab.udp(1, 0);
        lab.world.sends.push_back(Err(Errno::AGAIN));
        lab.ask(send_to(1, 0, 0x0102, b"a"));
        lab.ask(send_to(1, 0, 3, b"b"));
        lab.world.sends.push_back(Err(errno));
        lab.writable(1);
        let said = shape(&lab.said());
        assert_eq!(said, [&format!("stat Code({code})"), "tag 258 0x41", "tag 3 0x41"], "{errno:?}");
        assert_eq!(lab.state(1), state);
        assert_eq!(lab.cell(1, cell::NSENDERR, 3), [error, 1, 2]);
    }
}

#[test]
fn read_errors_follow_the_table() {
    for (errno, state, code) in [
        (Errno::TIMEDOUT, SocketState::TimedOut, 2),
        (Errno::CONNRESET, SocketState::Reset, 1),
        (Errno::HOSTUNREACH, SocketState::Unreach, 0xff),
        (Errno::IO, SocketState::UnkFault, 0xff),
    ] {
        let mut lab = Lab::new();
        lab.tcp(1, 10);
        lab.ask(send(1, START + SECOND, 6, "waits"));
        lab.world.reads.push_back(Err(errno));
        lab.readable(1);
        assert_eq!(shape(&lab.said()), [&format!("stat Code({code})"), "tag 6 0x41"]);
        assert_eq!(lab.state(1), state);
        assert_eq!(lab.cell(1, cell::NSENDERR, 1), [0]);
    }
}

#[test]
fn a_failing_shutdown_is_a_fault() {
    let mut lab = Lab::new();
    lab.tcp(1, 0);
    lab.world.shut = Some(Errno::NOTCONN);
    lab.ask(fin(1, 0));
    assert_eq!(lab.state(1), SocketState::UnkFault);
    assert_eq!(lab.cell(1, cell::NSENDERR, 1), [6]);
}

#[test]
fn closing_discards_unsent_data_without_tags() {
    let mut lab = Lab::new();
    lab.udp(1, 0);
    lab.ask(send_to(1, START + SECOND, 1, b"never"));
    assert_eq!(shape(&lab.ask(Message::NClose { socket: 1 })), ["result 0x0"]);
    lab.advance(2 * SECOND);
    assert!(lab.said().is_empty());
    assert_eq!(lab.read(pktlab::vmem::system::BUFUSED, 4), [0; 4]);
}

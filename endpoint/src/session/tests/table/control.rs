//! NCAP and NCTL.

use bytes::Bytes;
use pktlab::vmem::{SocketState, send_error, socket as cell, system};
use pktlab::wire::{Message, NCap, NCtl};

use super::super::super::Errno;
use super::super::lab::{EVERYTHING, Lab, SECOND, START, capture, fin, raw, send};
use super::{ID, Row, STATES, configured, row, tcp_in};

const FOREVER: u64 = u64::MAX;

fn cap(family: u8, proto: u8, filter: &[u8]) -> Message {
    Message::NCap(NCap { socket: ID, family, proto, end: FOREVER, filter: Bytes::copy_from_slice(filter) })
}

fn ctl(family: u8, time: u64, command: u8) -> Message {
    Message::NCtl(NCtl { socket: ID, family, time, command })
}

fn raw_socket() -> Lab {
    let mut lab = configured(|config| config.raw = true);
    assert_eq!(lab.errid(raw(ID, "0.0.0.0", 100)), 0);
    lab
}

fn refusing(errno: Errno) -> Lab {
    let mut lab = raw_socket();
    lab.world.captures.push_back(Err(errno));
    lab
}

/// An open stream with an NSEND for each of these times.
fn queued(times: &[u64]) -> Lab {
    let mut lab = tcp_in(SocketState::Open);
    for (tag, time) in (1..).zip(times) {
        assert_eq!(lab.errid(send(ID, *time, tag, &format!("{tag}"))), 0);
    }
    lab
}

pub(super) fn rows() -> Vec<Row> {
    let too_long = vec![0; 65_537];
    let open = || tcp_in(SocketState::Open);
    let mut rows = vec![
        row("5.5", "raw, accepted", raw_socket(), capture(ID, FOREVER, EVERYTHING))
            .answers(0)
            .state(SocketState::Open)
            .log(&["capture 1 on"]),
        row("5.5", "raw, an end in the past", raw_socket(), capture(ID, START, EVERYTHING))
            .answers(0)
            .log(&["capture 1 off"]),
        row("5.5", "raw, another family", raw_socket(), cap(6, 0, EVERYTHING)).answers(0x37),
        row("5.5", "raw, another protocol", raw_socket(), cap(4, 6, EVERYTHING)).answers(0x37),
        row("5.5", "raw, a protocol that does not exist", raw_socket(), cap(4, 9, EVERYTHING)).answers(0x37),
        row("5.5", "state before match", tcp_in(SocketState::Reset), cap(6, 0, b"")).answers(0x33),
        row("5.5", "match before program", raw_socket(), cap(6, 0, &too_long)).answers(0x37),
        row("5.5", "raw, too long", raw_socket(), cap(4, 0, &too_long))
            .answers(0x38)
            .state(SocketState::Open),
        row("5.5", "raw, undecodable", raw_socket(), cap(4, 0, b"\x09")).answers(0x38).log(&[]),
        row("5.5", "raw, not eBPF", raw_socket(), cap(4, 0, b"\x01\0asm\x01\0\0\0")).answers(0x38).log(&[]),
        row("5.5", "raw, refused by the verifier", raw_socket(), cap(4, 0, b"\0\x05\0\xff\xff\0\0\0\0"))
            .answers(0x38)
            .log(&[]),
        row("5.5", "raw, refused by the system", refusing(Errno::PERM), cap(4, 0, EVERYTHING))
            .answers(0xffff)
            .state(SocketState::UnkFault),
        row("5.5", "too long before not raw", open(), cap(4, 6, &too_long)).answers(0x38),
        row("5.6", "a FIN now", open(), fin(ID, 0))
            .answers(0)
            .state(SocketState::Wfin)
            .cell(cell::NSENDERR, &[send_error::WRITE_SHUT as u8])
            .log(&["shut 1"]),
        row("5.6", "a FIN later", open(), fin(ID, START + SECOND))
            .answers(0)
            .state(SocketState::Open)
            .log(&[]),
        row("5.6", "a FIN drops what is not before it", queued(&[START + 10, START + 20]), fin(ID, START))
            .says(&["result 0x0", "tag 1 0x41", "tag 2 0x41"])
            .state(SocketState::Wfin)
            .memory(system::BUFUSED, &[0; 4])
            .log(&["shut 1"]),
        row("5.6", "a FIN waits for what is before it", queued(&[START + 10]), fin(ID, START + 20))
            .answers(0)
            .state(SocketState::Open)
            .log(&[]),
        row("5.6", "a later request leaves the first time", with_fin(START + 10), fin(ID, 0))
            .answers(0)
            .state(SocketState::Open)
            .log(&[]),
        row("5.6", "the shutdown fails", failing_shutdown(), fin(ID, 0))
            .answers(0)
            .state(SocketState::UnkFault)
            .cell(cell::NSENDERR, &[send_error::WRITE_SHUT as u8]),
        row("5.6", "another family", open(), ctl(6, 0, NCtl::FIN)).answers(0x37).state(SocketState::Open),
        row("5.6", "another protocol's socket", with_udp(), fin(ID, 0)).answers(0x37),
        row("5.6", "match before state", tcp_in(SocketState::Refused), ctl(6, 0, NCtl::FIN)).answers(0x37),
        row("5.6", "an unknown command", open(), ctl(4, 0, 2)).answers(0x10).state(SocketState::Open),
        row("5.6", "state before command", tcp_in(SocketState::Refused), ctl(4, 0, 2)).answers(0x33),
    ];
    for state in STATES {
        let errid = match state {
            SocketState::Opening | SocketState::Open => 0xffff,
            _ => 0x33,
        };
        let capture = row("5.5", format!("a stream, state {state:?}"), tcp_in(state), cap(4, 6, EVERYTHING));
        rows.push(capture.answers(errid).state(state).log(&[]));
        let (errid, after) = match state {
            SocketState::Free => (0x37, state),
            SocketState::Open => (0, SocketState::Wfin),
            SocketState::Eof => (0, SocketState::End),
            state if state.is_error() => (0x33, state),
            _ => (0, state),
        };
        let control = row("5.6", format!("state {state:?}"), tcp_in(state), fin(ID, 0));
        rows.push(control.answers(errid).state(after));
    }
    rows
}

fn with_fin(time: u64) -> Lab {
    let mut lab = tcp_in(SocketState::Open);
    lab.ask(fin(ID, time));
    lab
}

fn with_udp() -> Lab {
    let mut lab = Lab::new();
    lab.udp(ID, 0);
    lab
}

fn failing_shutdown() -> Lab {
    let mut lab = tcp_in(SocketState::Open);
    lab.world.shut = Some(Errno::NOTCONN);
    lab
}

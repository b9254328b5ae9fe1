//! Phases, CDATA, START, YIELD, malformed messages.

use bytes::Bytes;
use pktlab::vmem::SocketState;
use pktlab::wire::{ErrId, Frame, Message, NBlock, NData, NDrop, NStat, NTag, Outcome, Proto, StatEvent};

use super::super::super::End;
use super::super::lab::{EVERYTHING, LATE, Lab, capture, close, config, fin, limited, send, tcp};
use super::{Row, frame, row, tcp_in, wire};
use crate::limits::Ledger;

fn fresh(limits: &str) -> Lab {
    Lab::fresh(config(), limited(limits, LATE))
}

fn cdata(hint: &'static [u8], data: &'static [u8]) -> Message {
    Message::CData { hint: Bytes::from_static(hint), data: Bytes::from_static(data) }
}

fn demanding() -> String {
    format!("monitor={};", "ab".repeat(32))
}

/// Everything an endpoint may be told that is no request of either phase.
fn strangers() -> Vec<Frame> {
    let (socket, family, proto, time) = (1, 4, Proto::Udp, 0);
    let empty = Bytes::new();
    let remote = Some("192.0.2.1:1".parse().expect("address"));
    let mut frames: Vec<Frame> = [
        Message::End,
        Message::Cont,
        Message::Suspd,
        Message::Resumd,
        Message::Result(Outcome::Plain(ErrId::SUCCESS)),
        Message::MData { addr: 0, data: empty.clone() },
        Message::NTag(NTag { socket, tag: 1, time, errid: ErrId::SUCCESS }),
        Message::NStat(NStat { socket, family, proto: proto.octet(), time, event: StatEvent::Code(1) }),
        Message::NData(NData { socket, family, proto, time, remote, data: empty.clone() }),
        Message::NDrop(NDrop { socket, family, proto: 0x11, first: 0, last: 0, units: 1, bytes: 1 }),
        Message::NBlock(NBlock { socket, family, proto: 0x11, monitor_errid: 1, time }),
        Message::LInfo { name: empty.clone(), aux: empty.clone(), info: empty.clone() },
        Message::XCert { der: Bytes::from_static(b"x") },
        Message::XNotify { channel: Bytes::from_static(b"x"), descriptor: empty.clone() },
        Message::XReg { snikey: "abc".into() },
    ]
    .map(Frame::Message)
    .into();
    frames.extend([wire(0x00, b""), wire(0x99, b"x"), wire(0x90, b""), wire(0xff, &[0; 40])]);
    frames
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("2.1", "hint in other letters", fresh(""), cdata(b"Monitor", b"\0")).answers(0x24),
        row("2.1", "empty hint", fresh(""), cdata(b"", b"\0")).answers(0x24),
        row("2.1", "bad hint before bad program", fresh(""), cdata(b"monitor_send", b"")).answers(0x24),
        row("2.1", "empty program", fresh(&demanding()), cdata(b"monitor", b"")).answers(0x20),
        row("2.1", "unknown type byte", fresh(&demanding()), cdata(b"monitor", b"\x07x")).answers(0x20),
        row("2.1", "eBPF of broken length", fresh(&demanding()), cdata(b"monitor", b"\0\x95")).answers(0x20),
        row("2.1", "digest not required", fresh(&demanding()), cdata(b"monitor", b"\x01\0asm")).answers(0x20),
        row("2.1", "filters are never required", fresh(""), cdata(b"filter", b"\0")).answers(0x20),
        row("2.2", "ok", fresh(""), Message::Start).answers(0),
        row("2.2", "a required digest is missing", fresh(&demanding()), Message::Start)
            .answers(0x21)
            .ends(End::Refused),
        row("5.7", "success and close", tcp_in(SocketState::Open), Message::Yield { resume: 7 })
            .answers(0)
            .state(SocketState::Free)
            .log(&["close 1"])
            .ends(End::Yield { resume: 7 }),
        row("5.7", "what is queued stands before it", with_queued(), Message::Yield { resume: 0 })
            .says(&["data queued", "result 0x0"])
            .ends(End::Yield { resume: 0 }),
    ];
    for (index, stranger) in strangers().into_iter().enumerate() {
        for (phase, lab) in [("SETUP", fresh("")), ("RUN", Lab::new())] {
            let name = format!("{phase}, unsupported {index}: {stranger:?}");
            rows.push(frame("2", name, lab, stranger.clone()).answers(0x11));
        }
    }
    for (name, asked) in [
        ("MREAD", Message::MRead { addr: 0, len: 1 }),
        ("MWRITE", Message::MWrite { addr: 0, data: Bytes::new() }),
        ("NOPEN", tcp(1, 0)),
        ("NCLOSE", close(1)),
        ("NSEND", send(1, 0, 0, "x")),
        ("NCAP", capture(1, 0, EVERYTHING)),
        ("NCTL", fin(1, 0)),
        ("YIELD", Message::Yield { resume: 0 }),
    ] {
        rows.push(row("2", format!("SETUP, a request of RUN: {name}"), fresh(""), asked).answers(0x11));
    }
    for (name, asked) in [("CDATA", cdata(b"monitor", b"\0")), ("START", Message::Start)] {
        rows.push(row("2", format!("RUN, a request of SETUP: {name}"), Lab::new(), asked).answers(0x11));
    }
    for (section, name, code, body) in malformed() {
        for (phase, lab) in
            [("SETUP", Lab::fresh(config(), Ledger::unlimited())), ("RUN", tcp_in(SocketState::Open))]
        {
            let asked = wire(code, &body);
            assert!(matches!(asked, Frame::Malformed { .. }), "{name}: {asked:?}");
            let row = frame(section, format!("{phase}, malformed: {name}"), lab, asked);
            rows.push(row.answers(0x10).state(SocketState::Free).ends(End::Malformed));
        }
    }
    rows
}

fn with_queued() -> Lab {
    let mut lab = tcp_in(SocketState::Open);
    lab.world.reads.push_back(Ok(b"queued".to_vec()));
    lab.readable(1);
    lab
}

/// Section, name, type byte and body of messages that break a rule of their form.
fn malformed() -> Vec<(&'static str, &'static str, u8, Vec<u8>)> {
    // Socket, family and protocol of each request about a socket, then zeros.
    let about = |proto: u8, len: usize| {
        let mut body = vec![1, 4, proto];
        body.resize(len, 0);
        body
    };
    let open = |family: u8, proto: u8, len: usize| {
        let mut body = about(proto, len);
        body[1] = family;
        body
    };
    vec![
        ("2", "START with a body", 0x21, vec![0]),
        ("2", "RESULT of three bytes", 0x40, vec![0; 3]),
        ("2", "RESULT of a monitor without its tail", 0x40, vec![0, 0x12]),
        ("2.1", "CDATA without hint length", 0x20, vec![]),
        ("2.1", "CDATA hint beyond the body", 0x20, vec![2, b'x']),
        ("5.7", "YIELD of seven bytes", 0x23, vec![0; 7]),
        ("5.1", "MREAD of no bytes", 0x28, vec![0; 6]),
        ("5.1", "MREAD beyond 2^32", 0x28, vec![0xff, 0xff, 0xff, 0xff, 0, 1]),
        ("5.1", "MREAD of five bytes", 0x28, vec![0; 5]),
        ("5.1", "MWRITE without an address", 0x29, vec![0; 3]),
        ("5.1", "MWRITE beyond 2^32", 0x29, vec![0xff, 0xff, 0xff, 0xff, 1]),
        ("5.2", "NOPEN of an undefined family", 0x2a, open(5, 0x11, 13)),
        ("5.2", "NOPEN of an unknown protocol", 0x2a, open(4, 1, 13)),
        ("5.2", "NOPEN raw of a wrong length", 0x2a, open(4, 0, 12)),
        ("5.2", "NOPEN UDP of a wrong length", 0x2a, open(4, 0x11, 12)),
        ("5.2", "NOPEN TCP of a wrong length", 0x2a, open(4, 6, 14)),
        ("5.2", "NOPEN TCP without addresses", 0x2a, open(4, 6, 7)),
        ("5.2", "NOPEN TCP over IPv6 of an IPv4 length", 0x2a, open(6, 6, 19)),
        ("5.3", "NCLOSE of nothing", 0x2b, vec![]),
        ("5.3", "NCLOSE of two", 0x2b, vec![1, 2]),
        ("5.4", "NSEND of twelve bytes", 0x2c, about(6, 12)),
        ("5.4", "NSEND of an unknown protocol", 0x2c, about(1, 40)),
        ("5.4", "NSEND UDP without a port", 0x2c, about(0x11, 18)),
        ("5.4", "NSEND UDP without an address", 0x2c, about(0x11, 13)),
        ("5.4", "NSEND UDP of an undefined family", 0x2c, open(5, 0x11, 40)),
        ("5.4", "NSEND UDP over IPv6 of an IPv4 length", 0x2c, open(6, 0x11, 30)),
        ("5.5", "NCAP without a program", 0x2d, about(0, 11)),
        ("5.6", "NCTL without its command", 0x2e, about(6, 11)),
        ("5.6", "NCTL of another protocol", 0x2e, about(0x11, 12)),
    ]
}

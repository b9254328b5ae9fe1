//! NSEND.

use bytes::Bytes;
use pktlab::vmem::{SocketState, system};
use pktlab::wire::{Message, NSend, Proto};

use super::super::lab::{LATE, Lab, SECOND, START, config, limited, packet, raw, send, send_raw, send_to};
use super::{ID, Row, STATES, row, tcp_in};
use crate::limits::Ledger;

const OWN: [u8; 4] = [192, 0, 2, 1];
const FOREIGN: [u8; 4] = [203, 0, 113, 1];
const INSIDE: [u8; 4] = [198, 51, 100, 7];
const OUTSIDE: [u8; 4] = [192, 0, 2, 53];
const DEST: &str = "valid_dest=198.51.100.0/24;";

/// Socket 1 is UDP, socket 2 raw; so much fits into the endpoint's buffer.
fn lab(buf_max: u32, limits: &str) -> Lab {
    let mut config = config();
    (config.buf_max, config.raw) = (buf_max, true);
    let mut lab = Lab::with(config, limited(limits, LATE));
    lab.udp(ID, 0);
    assert_eq!(lab.errid(raw(2, "0.0.0.0", 0)), 0);
    lab
}

fn inside(len: usize) -> Message {
    let remote = Some(std::net::SocketAddr::from((INSIDE, 53)));
    let data = Bytes::from(vec![0; len]);
    Message::NSend(NSend { socket: ID, family: 4, proto: Proto::Udp, time: 0, tag: 0, remote, data })
}

fn of_family(family: u8, proto: Proto) -> Message {
    let remote = (proto == Proto::Udp).then(|| std::net::SocketAddr::from((INSIDE, 53)));
    Message::NSend(NSend { socket: ID, family, proto, time: 0, tag: 0, remote, data: Bytes::new() })
}

pub(super) fn rows() -> Vec<Row> {
    let wide = 100_000;
    let udp = |limits| lab(wide, limits);
    let version = {
        let mut packet = packet(OWN, INSIDE, 20);
        packet[0] = 0x65;
        NSend { socket: 2, family: 4, proto: Proto::Raw, time: 0, tag: 0, remote: None, data: packet.into() }
    };
    let exhausted = || {
        let mut lab = udp("max_send_pkt=1;");
        lab.ask(inside(0));
        lab
    };
    let mut rows = vec![
        row("5.4", "1 before 2", tcp_in(SocketState::Refused), of_family(6, Proto::Udp)).answers(0x33),
        row("5.4", "2 another protocol", tcp_in(SocketState::Open), of_family(4, Proto::Udp)).answers(0x37),
        row("5.4", "2 another family", tcp_in(SocketState::Open), of_family(6, Proto::Tcp)).answers(0x37),
        row("5.4", "2 a family that does not exist", tcp_in(SocketState::Open), of_family(0, Proto::Tcp))
            .answers(0x37),
        row("5.4", "2 before 3", udp(""), send_raw(ID, 0, 0, b"")).answers(0x37),
        row("5.4", "2 before 5", udp("valid_dest=203.0.113.0/24;"), of_family(4, Proto::Tcp)).answers(0x37),
        row("5.4", "3 shorter than a header", udp(""), send_raw(2, 0, 0, &packet(OWN, INSIDE, 19)))
            .answers(0x39),
        row("5.4", "3 empty", udp(""), send_raw(2, 0, 0, b"")).answers(0x39),
        row("5.4", "3 another version", udp(""), Message::NSend(version)).answers(0x39),
        row("5.4", "4 foreign source", udp(""), send_raw(2, 0, 0, &packet(FOREIGN, INSIDE, 20)))
            .answers(0x39),
        row("5.4", "4 own source", udp(""), send_raw(2, 0, 9, &packet(OWN, INSIDE, 20)))
            .says(&["result 0x0", "tag 9 0x0"]),
        row("5.4", "4 source of zeros", udp(""), send_raw(2, 0, 0, &packet([0; 4], INSIDE, 20))).answers(0),
        row("5.4", "5 raw, destination not allowed", udp(DEST), send_raw(2, 0, 0, &packet(OWN, OUTSIDE, 20)))
            .answers(0x39),
        row("5.4", "5 raw, destination allowed", udp(DEST), send_raw(2, 0, 0, &packet(OWN, INSIDE, 20)))
            .answers(0),
        row("5.4", "5 UDP, destination not allowed", udp(DEST), send_to(ID, 0, 0, b"")).answers(0x39),
        row("5.4", "5 UDP, destination allowed", udp(DEST), inside(0)).answers(0),
        row("5.4", "5 before 7", lab(0, DEST), send_to(ID, 0, 0, b"")).answers(0x39),
        row("5.4", "6 longer than what is left", udp("max_send_byte=3;"), inside(4)).answers(0x39),
        row("5.4", "6 as long as what is left", udp("max_send_byte=3;"), inside(3)).answers(0),
        row("5.4", "6 longer than the smallest burst", udp("max_burst_rate_byte=9/9,3/1;"), inside(4))
            .answers(0x39),
        row("5.4", "6 no packet is left", exhausted(), inside(0)).answers(0x39),
        row("5.4", "6 a packet burst of 0", udp("max_burst_rate_pkt=0/1;"), inside(0)).answers(0x39),
        row("5.4", "6 before 7", lab(0, "max_send_byte=3;"), inside(4)).answers(0x39),
        row("5.4", "7 no room", lab(148, ""), inside(10)).answers(0x30).memory(system::BUFUSED, &[0; 4]),
        row("5.4", "7 just enough room", lab(149, ""), inside(10)).answers(0),
        row("5.4", "target in the future", udp(""), send_to(ID, START + SECOND, 7, b"x"))
            .answers(0)
            .memory(system::BUFUSED, &140u32.to_be_bytes())
            .log(&[]),
        row("5.4", "target of 0", udp(""), send_to(ID, 0, 7, b"x"))
            .says(&["result 0x0", "tag 7 0x0"])
            .log(&["send 1 x to 192.0.2.53:53"]),
        row("5.4", "target in the past", udp(""), send_to(ID, START - 1, 7, b"x"))
            .says(&["result 0x0", "tag 7 0x0"]),
        row("5.4", "tag of 0", udp(""), send_to(ID, 0, 0, b"x")).answers(0),
        row("5.4", "an empty datagram", udp(""), send_to(ID, 0, 7, b""))
            .says(&["result 0x0", "tag 7 0x0"])
            .log(&["send 1  to 192.0.2.53:53"]),
        row("5.4", "a stream", tcp_in(SocketState::Open), send(ID, 0, 7, "x"))
            .says(&["result 0x0", "tag 7 0x0"])
            .log(&["send 1 x"]),
        row("5.4", "UDP over IPv6", over_ipv6(), of_ipv6()).says(&["result 0x0", "tag 7 0x0"]),
    ];
    for state in STATES {
        let errid = match state {
            SocketState::Opening | SocketState::Open | SocketState::Eof => 0,
            _ => 0x33,
        };
        let row = row("5.4", format!("1 state {state:?}"), tcp_in(state), send(ID, START + 9, 1, "x"));
        rows.push(row.answers(errid).state(state));
    }
    rows
}

fn over_ipv6() -> Lab {
    let mut lab = Lab::with(config(), Ledger::unlimited());
    let local = super::super::lab::address("[::]:0");
    let address = pktlab::wire::OpenAddress::Udp { local };
    lab.ask(Message::NOpen(pktlab::wire::NOpen { socket: ID, rbufsz: 0, address }));
    lab
}

fn of_ipv6() -> Message {
    let remote = Some(super::super::lab::address("[2001:db8::53]:53"));
    let data = Bytes::from_static(b"x");
    Message::NSend(NSend { socket: ID, family: 6, proto: Proto::Udp, time: 0, tag: 7, remote, data })
}

//! NOPEN and NCLOSE.

use pktlab::cert::Network;
use pktlab::vmem::{SocketState, socket as cell};
use pktlab::wire::{Message, NOpen, OpenAddress};

use super::super::super::{Errno, OpenFault};
use super::super::lab::{LATE, Lab, START, address, close, config, limited, raw, send, tcp, udp};
use super::{ID, Row, STATES, configured, row, tcp_in};
use crate::policy::{Policy, Rules};

fn listen() -> Message {
    let local = address("0.0.0.0:0");
    Message::NOpen(NOpen { socket: ID, rbufsz: 0, address: OpenAddress::TcpListen { local } })
}

fn udp_v6() -> Message {
    Message::NOpen(NOpen { socket: ID, rbufsz: 0, address: OpenAddress::Udp { local: address("[::]:0") } })
}

/// A session that has used up its one NOPEN on socket `id`.
fn spent(id: u8) -> Lab {
    let mut lab = Lab::with(config(), limited("max_socket_count=1;", LATE));
    lab.udp(id, 0);
    lab
}

fn failing(fault: OpenFault) -> Lab {
    let mut lab = configured(|config| config.raw = true);
    lab.world.opens.push_back(Err(fault));
    lab
}

fn only_v4(raw: bool) -> Lab {
    configured(|config| {
        config.addresses.pop();
        config.raw = raw;
        config.udp = false;
    })
}

fn denying() -> Lab {
    let mut lab = Lab::with(config(), limited("valid_dest=198.51.100.0/24;", LATE));
    lab.world.opens.push_back(Err(OpenFault::Bind(Errno::ADDRINUSE)));
    lab
}

fn closed_by_operator() -> Lab {
    let net = Network { addr: address("192.0.2.80:0").ip(), prefix: 32 };
    let rules = Rules { deny: vec![net], ..Rules::default() };
    configured(|config| config.policy = Policy::new(&rules, &[], &[]))
}

pub(super) fn rows() -> Vec<Row> {
    let raw_lab = || configured(|config| config.raw = true);
    let no_tcp = || configured(|config| config.tcp = false);
    let mut rows = vec![
        row("5.2", "1 budget spent", spent(2), udp(ID, 0)).answers(0x44).state(SocketState::Free),
        row("5.2", "1 before 2", spent(ID), udp(ID, 0)).answers(0x44).state(SocketState::Open),
        row("5.2", "2 before 3", v6_taken(), udp_v6()).answers(0x32).state(SocketState::Open),
        row("5.2", "3 family not exported", only_v4(false), udp_v6()).answers(0x34).state(SocketState::Free),
        row("5.2", "3 before 4", only_v4(false), udp_v6()).answers(0x34),
        row("5.2", "3 before 5, raw", only_v4(true), raw(ID, "::", 0)).answers(0x34),
        row("5.2", "4 UDP not enabled", only_v4(false), udp(ID, 0)).answers(0x35).state(SocketState::Free),
        row("5.2", "4 TCP not enabled", no_tcp(), tcp(ID, 0)).answers(0x35),
        row("5.2", "4 listening without TCP", no_tcp(), listen()).answers(0x35),
        row("5.2", "4 raw not enabled", Lab::new(), raw(ID, "0.0.0.0", 0)).answers(0x35),
        row("5.2", "UDP", Lab::new(), udp(ID, 9))
            .answers(0)
            .state(SocketState::Open)
            .cell(cell::FAMILY, &[4, 0x11])
            .cell(cell::LADDR, &[0; 16])
            .cell(cell::LPORT, &[0x9c, 0x40, 0, 0])
            .cell(cell::RBUFSZ, &[0, 0, 0, 9]),
        row("5.2", "UDP over IPv6", Lab::new(), udp_v6())
            .answers(0)
            .state(SocketState::Open)
            .cell(cell::FAMILY, &[6]),
        row("5.2", "TCP connect", Lab::new(), tcp(ID, 9))
            .answers(0)
            .state(SocketState::Opening)
            .cell(cell::FAMILY, &[4, 6])
            .cell(cell::RADDR, &[192, 0, 2, 80])
            .cell(cell::RPORT, &[0, 80]),
        row("5.2", "TCP connect that is done at once", done_at_once(), tcp(ID, 0))
            .answers(0)
            .state(SocketState::Open),
        row(
            "5.2",
            "TCP connect that fails at once",
            failing(OpenFault::Connect(Errno::NETUNREACH)),
            tcp(ID, 0),
        )
        .answers(0xffff)
        .state(SocketState::Free),
        row("5.2", "TCP destination before bind", denying(), tcp(ID, 0))
            .answers(0x3a)
            .state(SocketState::Free),
        row("5.2", "TCP destination the operator denies", closed_by_operator(), tcp(ID, 0)).answers(0x3a),
        row("5.2", "TCP listen", Lab::new(), listen()).answers(0x11).state(SocketState::Free),
        row("5.2", "raw", raw_lab(), raw(ID, "0.0.0.0", 5))
            .answers(0)
            .state(SocketState::Open)
            .cell(cell::FAMILY, &[4, 0])
            .cell(cell::LADDR, &[192, 0, 2, 1])
            .log(&["raw 1 192.0.2.1"]),
        row("5.2", "raw on an address that is not exported", raw_lab(), raw(ID, "192.0.2.2", 0))
            .answers(0x36),
        row("5.2", "raw over IPv6", raw_lab(), raw(ID, "::", 0)).answers(0xffff).state(SocketState::Free),
        row("5.2", "raw without privilege", failing(OpenFault::Socket(Errno::PERM)), raw(ID, "0.0.0.0", 0))
            .answers(0xffff)
            .state(SocketState::Free),
        row(
            "5.2",
            "raw without an interface",
            failing(OpenFault::Bind(Errno::ADDRNOTAVAIL)),
            raw(ID, "0.0.0.0", 0),
        )
        .answers(0xffff),
        row("5.3", "unsent NSENDs and held notifications go without a word", with_unsent(), close(ID))
            .says(&["result 0x0"])
            .cell(0, &[0; 0x400])
            .memory(pktlab::vmem::system::BUFUSED, &[0; 4])
            .log(&["close 1"]),
        row("5.3", "queued notifications stand before the RESULT", with_queued(), close(ID))
            .says(&["data queued", "result 0x0"]),
    ];
    for (name, fault, udp_errid, tcp_errid) in [
        ("address not available", OpenFault::Bind(Errno::ADDRNOTAVAIL), 0x36, 0x36),
        ("address in use", OpenFault::Bind(Errno::ADDRINUSE), 0x42, 0x40),
        ("another bind error", OpenFault::Bind(Errno::ACCESS), 0xffff, 0xffff),
        ("no descriptor", OpenFault::Socket(Errno::MFILE), 0x44, 0x44),
        ("no memory", OpenFault::Socket(Errno::NOBUFS), 0x44, 0x44),
        ("a family the system lacks", OpenFault::Socket(Errno::AFNOSUPPORT), 0x34, 0x34),
    ] {
        for (proto, asked, errid) in [("UDP", udp(ID, 0), udp_errid), ("TCP", tcp(ID, 0), tcp_errid)] {
            let row = row("5.2", format!("{proto} bind: {name}"), failing(fault), asked);
            rows.push(row.answers(errid).state(SocketState::Free));
        }
    }
    for state in STATES {
        let errid = if state == SocketState::Free { 0 } else { 0x32 };
        let after = if state == SocketState::Free { SocketState::Open } else { state };
        let opening = row("5.2", format!("2 slot {state:?}"), tcp_in(state), udp(ID, 0));
        rows.push(opening.answers(errid).state(after));
        let errid = if state == SocketState::Free { 0x33 } else { 0 };
        let closing = row("5.3", format!("slot {state:?}"), tcp_in(state), close(ID));
        rows.push(closing.answers(errid).cell(0, &[0; 0x400]));
    }
    rows
}

fn v6_taken() -> Lab {
    let mut lab = only_v4(true);
    lab.ask(raw(ID, "0.0.0.0", 0));
    lab
}

fn done_at_once() -> Lab {
    let mut lab = Lab::new();
    lab.world.opens.push_back(Ok(true));
    lab
}

fn with_unsent() -> Lab {
    let mut lab = tcp_in(SocketState::Open);
    lab.set_mask(ID, pktlab::vmem::mask::NDATA);
    lab.world.reads.push_back(Ok(b"held".to_vec()));
    lab.readable(ID);
    lab.ask(send(ID, START + 1_000, 7, "unsent"));
    lab
}

fn with_queued() -> Lab {
    let mut lab = tcp_in(SocketState::Open);
    lab.world.reads.push_back(Ok(b"queued".to_vec()));
    lab.readable(ID);
    lab
}

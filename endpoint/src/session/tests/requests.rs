//! Phases and the answer tables of spec `endpoint.md` §2 and §5, memory of `vmem.md`.

use bytes::Bytes;
use pktlab::vmem::{SocketState, extension, mask, socket as cell, system};
use pktlab::wire::{Frame, Message, NCap, NCtl, NOpen, NSend, OpenAddress, Proto};

use super::super::{End, Errno, OpenFault, Output};
use super::lab::{LATE, Lab, SECOND, address, config, fin, limited, ok, result, send, send_to, tcp, udp};
use crate::limits::Ledger;
use pktlab::wire::{ErrId, ExtNote};

fn cdata(hint: &'static [u8]) -> Message {
    Message::CData { hint: Bytes::from_static(hint), data: Bytes::from_static(b"\0") }
}

#[test]
fn set_up_takes_cdata_and_start_only() {
    let mut lab = Lab::fresh(config(), Ledger::unlimited());
    assert_eq!(lab.errid(cdata(b"Filter")), 0x24);
    assert_eq!(lab.errid(cdata(b"filter")), 0x20);
    assert_eq!(lab.errid(cdata(b"monitor")), 0x20);
    assert_eq!(lab.errid(Message::MRead { addr: 0, len: 1 }), 0x11);
    assert_eq!(lab.errid(Message::Suspd), 0x11);
    assert_eq!(lab.frame(Frame::Unknown { code: 0x99, raw: Bytes::new() }), [result(ErrId::ECTLNOTSUP)]);
    assert_eq!(lab.errid(Message::Start), 0);
    assert_eq!(lab.errid(Message::Start), 0x11);
    assert_eq!(lab.errid(cdata(b"monitor")), 0x11);
    assert_eq!(lab.errid(Message::End), 0x11);
    assert_eq!(lab.session.ended(), None);
}

#[test]
fn set_up_lasts_ten_seconds() {
    let mut lab = Lab::fresh(config(), Ledger::unlimited());
    lab.advance(10 * SECOND - 1);
    assert_eq!(lab.session.ended(), None);
    lab.advance(1);
    assert_eq!(lab.session.ended(), Some(End::SetupTimeout));
    assert!(lab.said().is_empty());
    let mut started = Lab::new();
    started.advance(60 * SECOND);
    assert_eq!(started.session.ended(), None);
}

#[test]
fn certificates_that_demand_monitors_are_refused_at_start() {
    let mut lab = Lab::fresh(config(), limited(&format!("monitor={};", "ab".repeat(32)), LATE));
    assert_eq!(lab.errid(Message::Start), 0x21);
    assert_eq!(lab.session.ended(), Some(End::Refused));
}

#[test]
fn a_session_ends_with_its_certificates() {
    let end = super::lab::START + SECOND;
    let mut lab = Lab::with(config(), limited("", end));
    lab.udp(1, 0);
    lab.advance(SECOND);
    assert_eq!(lab.session.ended(), None, "notAfter itself is still valid");
    lab.world.now += 1;
    lab.session.timer(&mut lab.world);
    assert_eq!(lab.session.ended(), Some(End::Expired));
    assert!(lab.world.log.contains(&"close 1".to_owned()));
}

#[test]
fn malformed_and_yield_end_with_a_last_result() {
    let mut lab = Lab::new();
    lab.tcp(1, 100);
    lab.world.reads.push_back(Ok(b"x".to_vec()));
    lab.readable(1);
    let said = lab.frame(Frame::Malformed { code: 0x2a, raw: Bytes::new(), reason: "test" });
    assert_eq!(said.len(), 2);
    assert_eq!(said.last(), Some(&result(ErrId::ECTLBADMSG)));
    assert_eq!(lab.session.ended(), Some(End::Malformed));
    assert!(lab.ask(Message::Start).is_empty(), "nothing is answered after the end");

    let mut lab = Lab::new();
    assert_eq!(lab.ask(Message::Yield { resume: 7 }), [ok()]);
    assert_eq!(lab.session.ended(), Some(End::Yield { resume: 7 }));
    assert!(!lab.session.wants_request());
}

#[test]
fn nopen_checks_in_order() {
    let mut lab = Lab::new();
    let raw = |socket| {
        let local = address("0.0.0.0:0").ip();
        Message::NOpen(NOpen { socket, rbufsz: 0, address: OpenAddress::Raw { local } })
    };
    let listen =
        NOpen { socket: 9, rbufsz: 0, address: OpenAddress::TcpListen { local: address("0.0.0.0:1") } };
    lab.udp(1, 0);
    assert_eq!(lab.errid(raw(1)), 0x32, "in use comes before the protocol");
    assert_eq!(lab.errid(raw(2)), 0x35);
    assert_eq!(lab.errid(Message::NOpen(listen)), 0x11);
    for (fault, udp_errid, tcp_errid) in [
        (OpenFault::Bind(Errno::ADDRNOTAVAIL), 0x36, 0x36),
        (OpenFault::Bind(Errno::ADDRINUSE), 0x42, 0x40),
        (OpenFault::Bind(Errno::ACCESS), 0xffff, 0xffff),
        (OpenFault::Socket(Errno::MFILE), 0x44, 0x44),
        (OpenFault::Connect(Errno::NETUNREACH), 0xffff, 0xffff),
    ] {
        lab.world.opens.push_back(Err(fault));
        assert_eq!(lab.errid(udp(3, 0)), udp_errid, "{fault:?}");
        lab.world.opens.push_back(Err(fault));
        assert_eq!(lab.errid(tcp(3, 0)), tcp_errid, "{fault:?}");
        assert_eq!(lab.state(3), SocketState::Free);
    }
    let mut without = config();
    without.addresses.pop();
    without.udp = false;
    let mut lab = Lab::with(without, Ledger::unlimited());
    let v6 = NOpen { socket: 1, rbufsz: 0, address: OpenAddress::Udp { local: address("[::]:0") } };
    assert_eq!(lab.errid(Message::NOpen(v6)), 0x34, "family before protocol");
    assert_eq!(lab.errid(udp(1, 0)), 0x35);
}

#[test]
fn the_socket_budget_counts_openings() {
    let mut lab = Lab::with(config(), limited("max_socket_count=2;", LATE));
    lab.world.opens.push_back(Err(OpenFault::Bind(Errno::ADDRINUSE)));
    assert_eq!(lab.errid(udp(1, 0)), 0x42, "a failure costs nothing");
    assert_eq!(lab.errid(udp(1, 0)), 0);
    assert_eq!(lab.errid(Message::NClose { socket: 1 }), 0);
    assert_eq!(lab.errid(udp(1, 0)), 0);
    assert_eq!(lab.errid(udp(1, 0)), 0x44, "the budget comes before the slot");
    assert_eq!(lab.errid(Message::NClose { socket: 1 }), 0);
    assert_eq!(lab.errid(Message::NClose { socket: 1 }), 0x33);
}

#[test]
fn destinations_are_limited() {
    let mut lab = Lab::with(config(), limited("valid_dest=198.51.100.0/24;", LATE));
    assert_eq!(lab.errid(tcp(1, 0)), 0x3a);
    lab.udp(1, 0);
    assert_eq!(lab.errid(send_to(1, 0, 0, b"x")), 0x39);
    let inside = NSend {
        socket: 1,
        family: 4,
        proto: Proto::Udp,
        time: 0,
        tag: 0,
        remote: Some(address("198.51.100.7:1")),
        data: Bytes::new(),
    };
    assert_eq!(lab.errid(Message::NSend(inside)), 0);
}

#[test]
fn nsend_nctl_and_ncap_check_the_socket() {
    let mut lab = Lab::new();
    assert_eq!(lab.errid(send(1, 0, 0, "x")), 0x33);
    assert_eq!(lab.errid(fin(1, 0)), 0x37, "a free slot never matches");
    let capture = |proto| {
        let filter = Bytes::from_static(b"\0");
        Message::NCap(NCap { socket: 1, family: 4, proto, end: 0, filter })
    };
    assert_eq!(lab.errid(capture(0)), 0x33);
    lab.udp(1, 0);
    assert_eq!(lab.errid(capture(0)), 0x37);
    assert_eq!(lab.errid(capture(0x11)), 0xffff);
    assert_eq!(lab.state(1), SocketState::Open, "and the socket lives");
    assert_eq!(lab.errid(send(1, 0, 0, "x")), 0x37);
    assert_eq!(lab.errid(fin(1, 0)), 0x37);
    lab.tcp(2, 0);
    let unknown = NCtl { socket: 2, family: 4, time: 0, command: 9 };
    assert_eq!(lab.errid(Message::NCtl(unknown)), 0x10);
    assert_eq!(lab.session.ended(), None);
    let family = NCtl { socket: 2, family: 6, time: 0, command: 1 };
    assert_eq!(lab.errid(Message::NCtl(family)), 0x37);
}

#[test]
fn connects_that_fail_are_silent_until_nerr_is_enabled() {
    for (errno, state) in [
        (Errno::CONNREFUSED, SocketState::Refused),
        (Errno::TIMEDOUT, SocketState::TimedOut),
        (Errno::HOSTUNREACH, SocketState::Unreach),
        (Errno::NETUNREACH, SocketState::UnkFault),
    ] {
        let mut lab = Lab::new();
        assert_eq!(lab.errid(tcp(1, 0)), 0);
        assert_eq!(lab.errid(send(1, 0, 5, "kept")), 0);
        lab.world.connects.push_back(Err(errno));
        lab.writable(1);
        assert!(lab.said().is_empty());
        assert_eq!(lab.state(1), state);
        assert_eq!(lab.errid(send(1, 0, 0, "x")), 0x33);
        assert_eq!(lab.errid(fin(1, 0)), 0x33);

        let mut lab = Lab::new();
        assert_eq!(lab.write(extension::ENABLED, &[0, 0, 0, 0xff]), [ok()]);
        lab.tcp_fails(errno);
        assert_eq!(lab.state(1), state);
    }
}

impl Lab {
    /// With NERR enabled: the error arrives with its number, whether the connect fails later or at once.
    fn tcp_fails(&mut self, errno: Errno) {
        let number = errno.raw_os_error() as u16;
        assert_eq!(self.errid(tcp(1, 0)), 0);
        self.world.connects.push_back(Err(errno));
        self.writable(1);
        let late = self.session.take_batch(10, 1000);
        self.session.sent(&mut self.world);
        assert!(
            matches!(&late[..], [Output::Extension(ExtNote::NErr(error))] if error.errno == number && error.socket == 1)
        );
        self.world.opens.push_back(Err(OpenFault::Connect(errno)));
        self.session.request(Frame::Message(tcp(2, 0)), &mut self.world);
        let at_once = self.session.take_batch(10, 1000);
        self.session.sent(&mut self.world);
        let [first, Output::Extension(ExtNote::NErr(error))] = &at_once[..] else { panic!("{at_once:?}") };
        assert_eq!(*first, Output::Message(ok()));
        assert_eq!((error.errno, error.remote), (number, Some(address("192.0.2.80:80"))));
    }
}

#[test]
fn memory_shows_the_system() {
    let mut lab = Lab::new();
    assert_eq!(lab.read(system::IP4NO, 10), [1, 1, 0, 0, 0, 6, 0, 1, 0x86, 0xa0]);
    assert_eq!(lab.read(system::IP4LS, 9), [192, 0, 2, 1, 255, 255, 255, 0, 0]);
    assert_eq!(lab.read(system::IP6LS, 2), [0x20, 0x01]);
    assert_eq!(lab.read(system::TIME, 8), super::lab::START.to_be_bytes());
    assert_eq!(lab.read(system::IP4DNSNO, 2), [1, 1]);
    assert_eq!(lab.read(system::IP4DNSLS, 5), [192, 0, 2, 53, 0]);
    assert_eq!(lab.read(system::IP6DNSLS + 15, 1), [0x53]);
    assert_eq!(lab.read(system::HOSTID, 4), *b"lab\0");
    // A range that starts in a hole returns what it covers.
    let hole = lab.read(0x1000_000a, 0x100);
    assert_eq!(hole[0xf6..0xfa], [192, 0, 2, 1]);
    assert_eq!(lab.read(0, 3), [0; 3]);
    assert_eq!(lab.read(0xffff_fff0, 15), [0; 15]);
    assert_eq!(lab.read(0x4000_0000, 65_535).len(), 65_535);
    assert_eq!(lab.read(extension::CELL, 16), *b"PLX1\0\0\0\x05\0\0\0\0\0\0\0\0");
    assert_eq!(lab.write(extension::ENABLED, &[0xff; 4]), [ok()]);
    assert_eq!(lab.read(extension::ENABLED, 4), [0, 0, 0, 5], "only offered bits stick");
}

#[test]
fn socket_blocks_are_read_and_partly_written() {
    let mut lab = Lab::new();
    lab.tcp(0, 0x0102_0304);
    lab.udp(1, 7);
    assert_eq!(lab.cell(0, 0, 4), [4, 6, 2, 0]);
    assert_eq!(lab.cell(0, cell::LADDR, 4), [192, 0, 2, 1]);
    assert_eq!(lab.cell(0, cell::RADDR, 4), [192, 0, 2, 80]);
    assert_eq!(lab.cell(0, cell::RPORT, 2), [0, 80]);
    assert_eq!(lab.cell(1, 0, 4), [4, 0x11, 2, 0]);
    assert_eq!(lab.cell(1, cell::LPORT, 4), [0x9c, 0x40, 0, 0]);
    // Part of a field, over the border of two blocks, and into one that is free.
    assert_eq!(lab.write(cell::block(0) + cell::RBUFSZ + 1, &[9]), [ok()]);
    assert_eq!(lab.number(0, cell::RBUFSZ), 0x0109_0304);
    let from = cell::block(0) + cell::CTFL;
    let mut data = vec![0xaa; cell::BLOCK as usize];
    data.resize(cell::BLOCK as usize + 0x400, 0xbb);
    assert_eq!(lab.write(from, &data), [ok()]);
    assert_eq!(lab.cell(0, cell::CTFL + 0x7f, 2), [0xaa, 0]);
    assert_eq!(lab.cell(1, cell::NOTIFMASK, 2), [0xaa, 0xaa]);
    assert_eq!(lab.cell(1, cell::CTFL, 1), [0xbb]);
    assert_eq!(lab.cell(1, cell::STAT, 1), [2], "read-only cells stay");
    assert_eq!(lab.cell(2, 0, 0x400), vec![0; 0x400]);
    assert_eq!(lab.write(0, &[]), [ok()]);
    assert_eq!(lab.errid(Message::NClose { socket: 1 }), 0);
    assert_eq!(lab.cell(1, 0, 0x400), vec![0; 0x400]);
}

#[test]
fn writes_to_a_failed_socket_are_ignored() {
    let mut lab = Lab::new();
    assert_eq!(lab.errid(tcp(1, 5)), 0);
    lab.world.connects.push_back(Err(Errno::CONNREFUSED));
    lab.writable(1);
    assert_eq!(lab.write(cell::block(1) + cell::NOTIFMASK, &mask::NDATA.to_be_bytes()), [ok()]);
    assert_eq!(lab.cell(1, cell::NOTIFMASK, 2), [0, 0]);
}

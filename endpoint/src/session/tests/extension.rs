//! Requests and notifications of the private range (`docs/extensions.md`).

use bytes::Bytes;
use pktlab::vmem::{SocketState, extension, mask, socket as cell};
use pktlab::wire::{
    ErrId, ExtNote, ExtRequest, Frame, Message, NCtl, NOpen, NOpt, NTake, NWait, OpenAddress, Proto, SocketId,
};

use super::super::{Accepted, End, Errno, OpenFault, Output, Ready, Reported};
use super::lab::{
    ALL, EVERYTHING, LATE, Lab, SECOND, START, address, capture, close, config, limited, ok, raw, result,
    send, send_to, shape, tcp,
};

fn opt(socket: SocketId, proto: u8, option: u8, value: Option<u32>) -> ExtRequest {
    ExtRequest::NOpt(NOpt { socket, family: 4, proto, option, value })
}

fn wait(token: u32, time: u64) -> ExtRequest {
    ExtRequest::NWait(NWait { token, time })
}

fn take(socket: SocketId, listener: SocketId, handle: u32) -> ExtRequest {
    ExtRequest::NTake(NTake { socket, listener, handle, rbufsz: 50 })
}

fn listen(socket: SocketId) -> Message {
    let local = address("0.0.0.0:0");
    Message::NOpen(NOpen { socket, rbufsz: 0, address: OpenAddress::TcpListen { local } })
}

fn refused(errid: ErrId) -> Vec<Output> {
    vec![Output::Message(result(errid))]
}

impl Lab {
    fn arrives(&mut self, listener: SocketId, handle: u32, remote: &str) -> Vec<ExtNote> {
        let (remote, local) = (address(remote), address("192.0.2.1:40002"));
        self.world.accepts.push_back(Accepted { handle, remote, local });
        self.readable(listener);
        self.notes()
    }

    fn tokens(&mut self) -> Vec<u32> {
        let token = |note| match note {
            ExtNote::NTime(time) => time.token,
            other => panic!("{other:?}"),
        };
        self.notes().into_iter().map(token).collect()
    }
}

#[test]
fn every_request_is_unknown_without_its_bit() {
    let requests = [
        (extension::NOPT, opt(1, 0x11, 1, None)),
        (extension::NWAIT, wait(1, 0)),
        (extension::LISTEN, take(2, 1, 1)),
    ];
    for (bit, request) in requests {
        let mut lab = Lab::extended();
        lab.udp(1, 0);
        lab.enable(ALL & !bit);
        assert_eq!(lab.extend(&request), refused(ErrId::ECTLNOTSUP), "{request:?}");
        // So are malformed ones, and the session goes on.
        let raw = Bytes::from(vec![request.code(), 0, 0, 1, 0]);
        let malformed = Frame::Unknown { code: request.code(), raw };
        assert_eq!(lab.frame(malformed.clone()), [result(ErrId::ECTLNOTSUP)]);
        lab.enable(bit);
        assert_ne!(lab.extend(&request), refused(ErrId::ECTLNOTSUP), "{request:?}");
        assert_eq!(lab.frame(malformed), [result(ErrId::ECTLBADMSG)]);
        assert_eq!(lab.session.ended(), Some(End::Malformed));
    }
    let mut lab = Lab::extended();
    for code in (0x93..=0xff).chain([0x8f, 0x00]) {
        assert_eq!(lab.frame(Frame::Unknown { code, raw: Bytes::new() }), [result(ErrId::ECTLNOTSUP)]);
    }
}

#[test]
fn bits_begin_at_zero_and_only_offered_ones_stick() {
    let mut lab = Lab::new();
    assert_eq!(lab.session.enabled(), 0);
    lab.enable(u32::MAX);
    assert_eq!(lab.session.enabled(), 0b101);
    lab.write(extension::CELL, &[0xff; 8]);
    assert_eq!(lab.read(extension::CELL, 8), *b"PLX1\0\0\0\x05", "magic and offer are read-only");
    lab.write(extension::ENABLED + 3, &[1]);
    assert_eq!(lab.session.enabled(), 1, "a part of the cell");
}

#[test]
fn nopt_answers_by_its_table() {
    let mut lab = Lab::extended();
    lab.udp(1, 0);
    lab.tcp(2, 0);
    assert_eq!(lab.errid(raw(3, "0.0.0.0", 0)), 0);
    assert_eq!(lab.errid(tcp(4, 0)), 0);
    lab.world.connects.push_back(Err(Errno::CONNREFUSED));
    lab.writable(4);
    lab.notes();
    for (request, errid) in [
        (opt(9, 6, 200, None), ErrId::ESKTNOTOPEN),
        (opt(4, 0x11, 200, None), ErrId::ESKTNOTOPEN),
        (opt(1, 6, 200, None), ErrId::ESKTNOMATCH),
        (opt(1, 0x11, 0, None), ErrId::ECTLNOTSUP),
        (opt(1, 0x11, 15, Some(1)), ErrId::ECTLNOTSUP),
        (opt(1, 0x11, 5, Some(1)), ErrId::ECTLNOTSUP),
        (opt(1, 0x11, 14, None), ErrId::ECTLNOTSUP),
        (opt(2, 6, 4, Some(1)), ErrId::ECTLNOTSUP),
        (opt(2, 6, 11, Some(1)), ErrId::ECTLNOTSUP),
        (opt(2, 6, 13, None), ErrId::ECTLNOTSUP),
        (opt(1, 0x11, 12, Some(1)), ErrId::ECTLNOTSUP),
        (opt(3, 0, 1, Some(1)), ErrId::ECTLNOTSUP),
        (opt(2, 6, 12, None), ErrId::EUNKFAULT),
    ] {
        assert_eq!(lab.extend(&request), refused(errid), "{request:?}");
    }
    lab.world.option_fault = Some(Errno::INVAL);
    assert_eq!(lab.extend(&opt(1, 0x11, 1, Some(9999))), refused(ErrId::EUNKFAULT));
    assert_eq!(lab.extend(&opt(1, 0x11, 1, Some(3))), [Output::Message(ok())]);
    let data = Bytes::from_static(&[0, 0, 0, 3]);
    assert_eq!(lab.extend(&opt(1, 0x11, 1, None)), [Output::Message(Message::MData { addr: 1, data })]);
}

#[test]
fn waits_end_in_order_and_never_early() {
    let mut lab = Lab::extended();
    for (token, time) in [(1, START + 20), (2, START + 10), (3, START + 10), (4, START), (5, 0)] {
        assert_eq!(lab.extend(&wait(token, time)), [Output::Message(ok())]);
    }
    lab.session.timer(&mut lab.world);
    assert_eq!(lab.tokens(), [5], "the clock has reached the time of 4, not passed it");
    lab.advance(1);
    assert_eq!(lab.tokens(), [4]);
    lab.advance(9);
    assert_eq!(lab.tokens(), [0u32; 0]);
    lab.advance(1);
    assert_eq!(lab.tokens(), [2, 3]);
    lab.advance(SECOND);
    assert_eq!(lab.tokens(), [1]);
    assert_eq!(lab.session.deadline(), None);
}

#[test]
fn a_wait_stands_behind_what_was_captured_before_its_time() {
    let mut lab = Lab::extended();
    lab.enable(ALL & !extension::STAMPS);
    assert_eq!(lab.errid(raw(1, "0.0.0.0", 100)), 0);
    assert_eq!(lab.errid(capture(1, u64::MAX, EVERYTHING)), 0);
    lab.extend(&wait(1, START + 10));
    lab.advance(1_000_000);
    lab.world.packets.push_back((b"slow".to_vec(), START + 9));
    lab.readable(1);
    lab.advance(2_000_000);
    let outputs = lab.outputs();
    let [Output::Message(Message::NData(_)), Output::Extension(ExtNote::NTime(time))] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert!(time.time > START + 10);
}

#[test]
fn waits_are_bounded() {
    let mut lab = Lab::extended();
    for token in 0..1_024 {
        assert_eq!(lab.extend(&wait(token, u64::MAX)), [Output::Message(ok())]);
    }
    assert_eq!(lab.extend(&wait(0, 0)), refused(ErrId::ESYSNOBUFS));
    lab.advance(1000 * SECOND);
    assert!(lab.notes().is_empty());
}

#[test]
fn listeners_answer_like_connects() {
    let mut lab = Lab::extended();
    for (fault, errid) in [
        (OpenFault::Bind(Errno::ADDRINUSE), 0x40),
        (OpenFault::Bind(Errno::ADDRNOTAVAIL), 0x36),
        (OpenFault::Bind(Errno::ACCESS), 0xffff),
        (OpenFault::Socket(Errno::MFILE), 0x44),
    ] {
        lab.world.opens.push_back(Err(fault));
        assert_eq!(lab.errid(listen(1)), errid);
    }
    assert_eq!(lab.errid(listen(1)), 0);
    assert_eq!(lab.state(1), SocketState::Open);
    assert_eq!(lab.cell(1, cell::LPORT, 2), 40_002u16.to_be_bytes());
    assert_eq!(lab.cell(1, cell::RADDR, 20)[..16], [0; 16]);
    assert_eq!(lab.errid(send(1, 0, 0, "x")), 0x33);
    let fin = NCtl { socket: 1, family: 4, time: 0, command: NCtl::FIN };
    assert_eq!(lab.errid(Message::NCtl(fin)), 0x33);
    assert_eq!(lab.errid(listen(1)), 0x32);
    lab.enable(0);
    assert_eq!(lab.errid(listen(2)), 0x11);
}

#[test]
fn connections_wait_until_they_are_taken() {
    let mut lab = Lab::extended();
    assert_eq!(lab.errid(listen(1)), 0);
    assert!(lab.world.watched[&1].read);
    let [ExtNote::NAccpt(first)] = lab.arrives(1, 7, "198.51.100.9:50000")[..] else { panic!("NACCPT") };
    assert_eq!((first.listener, first.handle, first.remote), (1, 7, address("198.51.100.9:50000")));
    assert_eq!(lab.extend(&take(1, 1, 7)), refused(ErrId::ESKTINUSE));
    assert_eq!(lab.extend(&take(2, 1, 8)), refused(ErrId::ESKTNOTOPEN), "an unknown handle");
    assert_eq!(lab.extend(&take(2, 3, 7)), refused(ErrId::ESKTNOTOPEN), "no such listener");
    lab.udp(3, 0);
    assert_eq!(lab.extend(&take(2, 3, 7)), refused(ErrId::ESKTNOTOPEN), "no listener");
    assert_eq!(lab.extend(&take(2, 1, 7)), [Output::Message(ok())]);
    assert_eq!(lab.state(2), SocketState::Open);
    assert_eq!(lab.cell(2, cell::RADDR, 4), [198, 51, 100, 9]);
    assert_eq!(lab.number(2, cell::RBUFSZ), 50);
    assert_eq!(lab.extend(&take(4, 1, 7)), refused(ErrId::ESKTNOTOPEN), "a handle works once");
    // It outlives its listener and works like any other.
    assert_eq!(lab.errid(close(1)), 0);
    lab.world.reads.push_back(Ok(b"hello".to_vec()));
    lab.readable(2);
    assert_eq!(shape(&lab.said()), ["data hello"]);
    assert_eq!(shape(&lab.ask(send(2, 0, 1, "back"))), ["result 0x0", "tag 1 0x0"]);
}

#[test]
fn what_nobody_took_is_closed_with_its_listener() {
    let mut lab = Lab::extended();
    assert_eq!(lab.errid(listen(1)), 0);
    lab.arrives(1, 1, "198.51.100.9:1");
    lab.arrives(1, 2, "198.51.100.9:2");
    assert_eq!(lab.errid(close(1)), 0);
    assert_eq!(lab.world.log, ["refuse 1", "refuse 2", "close 1"]);
    let mut lab = Lab::extended();
    assert_eq!(lab.errid(listen(1)), 0);
    lab.arrives(1, 3, "198.51.100.9:1");
    lab.session.suspend(&mut lab.world);
    assert_eq!(lab.world.log, ["refuse 3", "close 1"]);
}

#[test]
fn only_so_many_connections_wait() {
    let mut lab = Lab::extended();
    assert_eq!(lab.errid(listen(1)), 0);
    for handle in 1..=200 {
        let (remote, local) = (address("198.51.100.9:1"), address("192.0.2.1:40002"));
        lab.world.accepts.push_back(Accepted { handle, remote, local });
    }
    lab.readable(1);
    assert_eq!(lab.notes().len(), 128);
    assert!(!lab.world.watched[&1].read, "the kernel keeps the rest");
    assert_eq!(lab.extend(&take(2, 1, 5)), [Output::Message(ok())]);
    assert!(lab.world.watched[&1].read);
    lab.readable(1);
    assert_eq!(lab.notes().len(), 1);
}

#[test]
fn taking_is_limited_like_connecting() {
    let ledger = limited("max_socket_count=2;valid_dest=198.51.100.0/24;", LATE);
    let mut lab = Lab::extended_with(config(), ledger);
    assert_eq!(lab.errid(listen(1)), 0);
    lab.arrives(1, 1, "203.0.113.9:1");
    lab.arrives(1, 2, "198.51.100.9:1");
    lab.arrives(1, 3, "198.51.100.9:2");
    assert_eq!(lab.extend(&take(2, 1, 1)), refused(ErrId::ESKTOPNDENY));
    assert_eq!(lab.world.log, ["refuse 1"]);
    assert_eq!(lab.extend(&take(2, 1, 1)), refused(ErrId::ESKTNOTOPEN), "its handle is gone");
    assert_eq!(lab.extend(&take(2, 1, 2)), [Output::Message(ok())]);
    assert_eq!(lab.extend(&take(2, 1, 3)), refused(ErrId::ENORES), "the budget comes before the slot");
}

#[test]
fn datagrams_come_with_what_the_kernel_knew() {
    let mut lab = Lab::extended();
    lab.udp(1, 4);
    lab.datagram(1, "datagram");
    let [ExtNote::NDatx(data)] = &lab.notes()[..] else { panic!("NDATX") };
    assert_eq!((data.ttl, data.tos, data.kernel_time, data.truncated), (Some(61), Some(0), true, true));
    assert_eq!(
        (data.remote, data.local),
        (Some(address("192.0.2.53:53")), Some(address("192.0.2.1:0").ip()))
    );
    assert_eq!(&data.data[..], b"data");
    lab.session.request(Frame::Message(send_to(1, 0, 4, b"x")), &mut lab.world);
    let outputs = lab.outputs();
    assert!(
        matches!(&outputs[..], [_, Output::Extension(ExtNote::NTagx(tag))] if tag.tag == 4 && tag.kernel_time)
    );
    // Streams keep the plain forms.
    lab.tcp(2, 10);
    lab.world.reads.push_back(Ok(b"abc".to_vec()));
    lab.readable(2);
    assert_eq!(shape(&lab.said()), ["data abc"]);
    assert_eq!(shape(&lab.ask(send(2, 0, 5, "x"))), ["result 0x0", "tag 5 0x0"]);
    // Held ones keep their form when the bit is switched off.
    lab.set_mask(1, mask::NDATA | mask::NTAG);
    lab.datagram(1, "held");
    assert_eq!(shape(&lab.ask(send_to(1, 0, 6, b"x"))), ["result 0x0"]);
    lab.enable(0);
    lab.session.request(
        Frame::Message(Message::MWrite {
            addr: cell::block(1) + cell::NOTIFMASK,
            data: Bytes::from_static(&[0, 0]),
        }),
        &mut lab.world,
    );
    let outputs = lab.outputs();
    assert!(matches!(
        &outputs[..],
        [Output::Extension(ExtNote::NTagx(_)), Output::Extension(ExtNote::NDatx(_)), Output::Message(_)]
    ));
    lab.datagram(1, "new");
    assert_eq!(shape(&lab.said()), ["data new"]);
    assert_eq!(lab.buf_used(), 0);
}

fn icmp(data: &'static [u8]) -> Reported {
    Reported {
        errno: 113,
        origin: 2,
        icmp_type: 11,
        icmp_code: 0,
        info: 0,
        offender: Some(address("192.0.2.254:0").ip()),
        remote: Some(address("198.51.100.7:33434")),
        time: START,
        data: Bytes::from_static(data),
    }
}

impl Lab {
    fn troubled(&mut self, id: SocketId, reported: Reported) {
        self.world.reports.push_back(reported);
        self.session.ready(id, Ready { error: true, ..Ready::default() }, &mut self.world);
    }
}

#[test]
fn icmp_errors_are_told_and_change_nothing() {
    let mut lab = Lab::extended();
    lab.udp(1, 100);
    lab.troubled(1, icmp(b"hi"));
    let [ExtNote::NErr(error)] = &lab.notes()[..] else { panic!("NERR") };
    assert_eq!((error.socket, error.proto, error.errno, error.origin), (1, Proto::Udp.octet(), 113, 2));
    assert_eq!((error.icmp_type, &error.data[..]), (11, &b"hi"[..]));
    assert_eq!(lab.state(1), SocketState::Open);
    lab.set_mask(1, mask::NSTAT);
    lab.troubled(1, icmp(b"held"));
    assert!(lab.notes().is_empty());
    assert_eq!(lab.number(1, cell::RBUFUSED), 4, "the quotation occupies the receive budget");
    assert!(lab.buf_used() > 4);
    let release =
        Message::MWrite { addr: cell::block(1) + cell::NOTIFMASK, data: Bytes::from_static(&[0, 0]) };
    lab.session.request(Frame::Message(release), &mut lab.world);
    assert_eq!(lab.notes().len(), 1);
    assert_eq!((lab.number(1, cell::RBUFUSED), lab.buf_used()), (0, 0));
}

#[test]
fn errors_find_room_or_are_dropped_and_counted() {
    let mut lab = Lab::extended();
    lab.udp(1, 4);
    lab.troubled(1, icmp(b"quote"));
    assert!(lab.notes().is_empty());
    assert_eq!((lab.number(1, cell::DROP_BYTES), lab.number(1, cell::DROP_UNITS)), (5, 1));
    lab.troubled(1, icmp(b""));
    assert_eq!(lab.notes().len(), 1, "an error without a quotation needs no receive budget");
    let mut small = config();
    small.buf_max = 141;
    let mut lab = Lab::extended_with(small, crate::limits::Ledger::unlimited());
    lab.udp(1, 100);
    lab.troubled(1, icmp(b""));
    assert!(lab.notes().is_empty());
    assert_eq!(lab.number(1, cell::DROP_UNITS), 1);
    // Nothing is told or counted for a controller that did not ask.
    lab.enable(0);
    lab.troubled(1, icmp(b""));
    assert!(lab.said().is_empty());
    assert_eq!(lab.number(1, cell::DROP_UNITS), 1);
}

#[test]
fn a_refused_datagram_falls_alone_and_tells_why() {
    let mut lab = Lab::extended();
    lab.enable(extension::NERR);
    lab.udp(1, 100);
    lab.world.sends.push_back(Err(Errno::ACCESS));
    lab.session.request(Frame::Message(send_to(1, 0, 5, b"x")), &mut lab.world);
    let outputs = lab.outputs();
    let [first, Output::Extension(ExtNote::NErr(error)), Output::Message(Message::NTag(tag))] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(*first, Output::Message(ok()));
    assert_eq!((error.errno, error.origin, error.remote), (13, 0, Some(address("192.0.2.53:53"))));
    assert_eq!((tag.tag, tag.errid), (5, ErrId::EPKTNOTSENT));
    assert_eq!(lab.state(1), SocketState::Open);
    assert_eq!(shape(&lab.ask(send_to(1, 0, 6, b"y"))), ["result 0x0", "tag 6 0x0"]);
}

//! What no filter can take, packet by packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::steal::program::{DROP, NEXT};
use crate::steal::sys::testing;

const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
const LOCAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const REMOTE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3);
const LOCAL_PORT: u16 = 40001;
const REMOTE_PORT: u16 = 443;

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;

fn transport(source: u16, destination: u16) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0; 16]].concat()
}

/// `fragment` is the header's field: flags and offset. With options, so that the length matters.
fn v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x46, 0, 0, (24 + payload.len()) as u8, 0, 0];
    p.extend(fragment.to_be_bytes());
    p.extend([64, protocol, 0, 0]);
    p.extend(from.octets());
    p.extend(to.octets());
    p.extend([1, 1, 1, 0]);
    p.extend(payload);
    p
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
    p.extend(from.octets());
    p.extend(to.octets());
    p.extend(payload);
    p
}

fn icmp(kind: u8, quoted: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], quoted].concat()
}

fn verdict(loaded: &Loaded, ethertype: u16, packet: &[u8]) -> i32 {
    testing::run(&loaded.program, &frame(ethertype, packet), 1).unwrap().0
}

fn taking_everything() -> Option<Loaded> {
    if !permitted() {
        return None;
    }
    let loaded = Loaded::new().unwrap();
    for (local, remote) in [(LOCAL.into(), REMOTE.into()), (LOCAL6.into(), REMOTE6.into())] {
        let connection = Connection {
            local: SocketAddr::new(local, LOCAL_PORT),
            remote: SocketAddr::new(remote, REMOTE_PORT),
        };
        loaded.exempt(&connection).unwrap();
    }
    loaded.set(&everything(), u64::MAX).unwrap();
    Some(loaded)
}

#[test]
fn ipv4_connections() {
    let Some(loaded) = taking_everything() else { return };
    let own = transport(REMOTE_PORT, LOCAL_PORT);
    let foreign = transport(REMOTE_PORT, LOCAL_PORT + 1);
    let sent = transport(LOCAL_PORT, REMOTE_PORT);
    let quoted = v4(LOCAL, REMOTE, TCP, 0, &sent[..8]);
    for (what, expected, packet) in [
        ("own", NEXT, v4(REMOTE, LOCAL, TCP, 0, &own)),
        ("own, to the other end on this host", NEXT, v4(LOCAL, REMOTE, TCP, 0, &sent)),
        ("own, first fragment", NEXT, v4(REMOTE, LOCAL, TCP, 0x2000, &own)),
        ("own, later fragment", NEXT, v4(REMOTE, LOCAL, TCP, 0x2003, &[9; 16])),
        ("own, fragment behind 32 KiB", NEXT, v4(REMOTE, LOCAL, TCP, 0x1000, &[9; 16])),
        ("another port", DROP, v4(REMOTE, LOCAL, TCP, 0, &foreign)),
        ("ports the wrong way round", DROP, v4(REMOTE, LOCAL, TCP, 0, &sent)),
        ("UDP with the ports", DROP, v4(REMOTE, LOCAL, UDP, 0, &own)),
        ("UDP fragment", DROP, v4(REMOTE, LOCAL, UDP, 0x0003, &own)),
        ("another host", DROP, v4(OTHER, LOCAL, TCP, 0, &own)),
        ("another host's fragment", DROP, v4(OTHER, LOCAL, TCP, 0x0003, &own)),
        ("cut before the ports", DROP, v4(REMOTE, LOCAL, TCP, 0, &own[..3])),
        ("unreachable", NEXT, v4(OTHER, LOCAL, 1, 0, &icmp(3, &quoted))),
        ("time exceeded", NEXT, v4(OTHER, LOCAL, 1, 0, &icmp(11, &quoted))),
        ("redirect", NEXT, v4(OTHER, LOCAL, 1, 0, &icmp(5, &quoted))),
        ("echo", DROP, v4(OTHER, LOCAL, 1, 0, &icmp(8, &quoted))),
        ("error about a fragment", NEXT, v4(OTHER, LOCAL, 1, 0, &icmp(3, &v4(LOCAL, REMOTE, TCP, 3, &[])))),
        ("error about UDP", DROP, v4(OTHER, LOCAL, 1, 0, &icmp(3, &v4(LOCAL, REMOTE, UDP, 0, &sent[..8])))),
        (
            "error about another",
            DROP,
            v4(OTHER, LOCAL, 1, 0, &icmp(3, &v4(LOCAL, OTHER, TCP, 0, &sent[..8]))),
        ),
        (
            "error about an error",
            DROP,
            v4(OTHER, LOCAL, 1, 0, &icmp(3, &v4(LOCAL, REMOTE, 1, 0, &icmp(3, &quoted)))),
        ),
        ("error cut short", DROP, v4(OTHER, LOCAL, 1, 0, &icmp(3, &quoted[..26]))),
        ("later fragment of an error", DROP, v4(OTHER, LOCAL, 1, 0x0003, &icmp(3, &quoted))),
    ] {
        assert_eq!(verdict(&loaded, IPV4, &packet), expected, "{what}");
    }
}

#[test]
fn ipv6_connections_and_neighbours() {
    let Some(loaded) = taking_everything() else { return };
    let own = transport(REMOTE_PORT, LOCAL_PORT);
    let sent = transport(LOCAL_PORT, REMOTE_PORT);
    let quoted = v6(LOCAL6, REMOTE6, TCP, &sent);
    let from = |next, payload: &[u8]| v6(REMOTE6, LOCAL6, next, payload);
    // Next header, then the fields of each extension header.
    let options = |next: u8, tail: &[u8]| [&[next, 1][..], &[0; 14], tail].concat();
    let authentication = |next: u8, tail: &[u8]| [&[next, 4][..], &[0; 22], tail].concat();
    let fragment = |next: u8, field: u16, tail: &[u8]| {
        [&[next, 0][..], &field.to_be_bytes(), &[0, 0, 0, 7], tail].concat()
    };
    let many = (0..8).fold((TCP, own.clone()), |(next, tail), _| (0, options(next, &tail)));
    for (what, expected, packet) in [
        ("own", NEXT, from(TCP, &own)),
        ("own, to the other end on this host", NEXT, v6(LOCAL6, REMOTE6, TCP, &sent)),
        ("own behind options", NEXT, from(0, &options(60, &options(TCP, &own)))),
        ("own behind an authentication header", NEXT, from(51, &authentication(TCP, &own))),
        ("own, first fragment", NEXT, from(44, &fragment(TCP, 1, &own))),
        ("own, later fragment", NEXT, from(44, &fragment(TCP, 0x19, &[9; 16]))),
        ("UDP, later fragment", DROP, from(44, &fragment(UDP, 0x19, &own))),
        ("too many options", DROP, from(many.0, &many.1)),
        ("options cut short", DROP, from(0, &[TCP])),
        ("another port", DROP, from(TCP, &transport(REMOTE_PORT, LOCAL_PORT + 1))),
        ("another host", DROP, v6(OTHER6, LOCAL6, TCP, &own)),
        ("UDP with the ports", DROP, from(UDP, &own)),
        ("too big", NEXT, v6(OTHER6, LOCAL6, 58, &icmp(2, &quoted))),
        ("parameter problem", NEXT, v6(OTHER6, LOCAL6, 58, &icmp(4, &quoted))),
        ("type 0", DROP, v6(OTHER6, LOCAL6, 58, &icmp(0, &quoted))),
        ("echo", DROP, v6(OTHER6, LOCAL6, 58, &icmp(128, &quoted))),
        (
            "error about a fragment",
            NEXT,
            v6(OTHER6, LOCAL6, 58, &icmp(1, &v6(LOCAL6, REMOTE6, 44, &fragment(TCP, 0x19, &[])))),
        ),
        ("error about another", DROP, v6(OTHER6, LOCAL6, 58, &icmp(1, &v6(LOCAL6, OTHER6, TCP, &sent)))),
        ("before discovery", DROP, from(58, &icmp(132, &[]))),
        ("router solicitation", NEXT, from(58, &icmp(133, &[]))),
        ("neighbour solicitation", NEXT, from(58, &icmp(135, &[]))),
        ("redirect", NEXT, from(58, &icmp(137, &[]))),
        ("after discovery", DROP, from(58, &icmp(138, &[]))),
        ("discovery behind options", NEXT, from(0, &options(58, &icmp(135, &[])))),
    ] {
        assert_eq!(verdict(&loaded, IPV6, &packet), expected, "{what}");
    }
}

#[test]
fn other_protocols() {
    let Some(loaded) = taking_everything() else { return };
    assert_eq!(verdict(&loaded, 0x0806, &[0; 28]), NEXT, "ARP");
    assert_eq!(verdict(&loaded, 0x88CC, &[0; 64]), NEXT, "LLDP");
    assert_eq!(verdict(&loaded, IPV4, &[0; 40]), DROP, "no version");
    assert_eq!(verdict(&loaded, IPV4, &v4(OTHER, LOCAL, 132, 0, &[0; 20])), DROP, "SCTP");
}

#[test]
fn a_filter_is_in_force_until_its_end() {
    let Some(loaded) = taking_everything() else { return };
    let packet = v4(OTHER, LOCAL, UDP, 0, &[0; 8]);
    assert_eq!(verdict(&loaded, IPV4, &packet), DROP);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    loaded.set(&everything(), now).unwrap();
    assert_eq!(verdict(&loaded, IPV4, &packet), NEXT);
    loaded.set(&everything(), now + 3_600_000_000_000).unwrap();
    assert_eq!(verdict(&loaded, IPV4, &packet), DROP);
    loaded.set(&filter(&[alu(MOV, 0, 0), EXIT]), u64::MAX).unwrap();
    assert_eq!(verdict(&loaded, IPV4, &packet), NEXT);
    loaded.set(&everything(), u64::MAX).unwrap();
    loaded.filters.delete(&KEY).unwrap();
    assert_eq!(verdict(&loaded, IPV4, &packet), NEXT);
    loaded.filters.delete(&KEY).unwrap();
}

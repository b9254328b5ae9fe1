//! What is never withheld, whatever the filter says: the endpoint's own connections and what they need to live. The kernel
//! program, part three, and the keys it looks up.
//!
//! Exempt are packets of a listed TCP connection, later fragments of TCP between its hosts (they carry no ports), ICMP
//! errors that quote one of its packets, and neighbour discovery of IPv6.

use std::net::{IpAddr, SocketAddr};

use super::Connection;
use super::asm::{Alu, Asm, FRAME, If, Label, R0, R1, R2, R3, R4, R6, R7, R8, R9, Size};
use super::program::{LOAD_BYTES, MAP_LOOKUP, frame, frame_address};

/// Two addresses of 16 bytes (IPv4 as IPv4-mapped), then two ports in network order; 0 and 0 for later fragments.
pub(super) const KEY_LEN: usize = 36;
const KEY_DESTINATION: i16 = frame::KEY;
const KEY_SOURCE: i16 = frame::KEY + 16;
const KEY_DESTINATION_PORT: i16 = frame::KEY + 32;
const KEY_SOURCE_PORT: i16 = frame::KEY + 34;

const ICMP: i32 = 1;
const TCP: i32 = 6;
const FRAGMENT: i32 = 44;
const AUTHENTICATION: i32 = 51;
const ICMPV6: i32 = 58;
/// Hop-by-hop options, routing, destination options: headers with a length in units of 8 bytes.
const OPTIONS: [i32; 3] = [0, 43, 60];
/// Extension headers looked through. More of them are not found on a connection of this host.
const EXTENSIONS_MAX: usize = 6;

/// Both directions: on the loopback interface the packets to the other end arrive, too.
pub(super) fn keys(connection: &Connection) -> [[u8; KEY_LEN]; 4] {
    let octets = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let key = |to: SocketAddr, from: SocketAddr, ports: [u16; 2]| {
        let mut key = [0; KEY_LEN];
        key[..16].copy_from_slice(&octets(to.ip()));
        key[16..32].copy_from_slice(&octets(from.ip()));
        key[32..34].copy_from_slice(&ports[0].to_be_bytes());
        key[34..].copy_from_slice(&ports[1].to_be_bytes());
        key
    };
    let (local, remote) = (connection.local, connection.remote);
    [
        key(local, remote, [local.port(), remote.port()]),
        key(remote, local, [remote.port(), local.port()]),
        key(local, remote, [0, 0]),
        key(remote, local, [0, 0]),
    ]
}

/// Whose packet it is that addresses and ports are taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packet {
    /// The one that arrived.
    Received,
    /// One that was sent from here and comes back in an ICMP error.
    Quoted,
}

struct Exits {
    /// Look the key up.
    lookup: Label,
    exempt: Label,
    drop: Label,
}

/// Goes to `exempt` or `drop`. Takes r6 = packet and r9 = bytes of link header; uses all other registers.
///
/// r8 is the cursor into the packet. What cannot be read is not exempt: the stack could not read it either.
pub(super) fn check(asm: &mut Asm, connections: i32, exempt: Label, drop: Label) {
    let exits = Exits { lookup: asm.label(), exempt, drop };
    let v6 = asm.label();
    for offset in (0..40).step_by(8) {
        asm.store(Size::U64, FRAME, frame::KEY + offset, 0);
    }
    asm.mov(R8, R9);
    load(asm, frame::SMALL, 1, &exits);
    asm.load(Size::U8, R1, FRAME, frame::SMALL);
    asm.alu(Alu::Rsh, R1, 4);
    asm.jump(If::Ne, R1, 4, v6);
    ipv4(asm, Packet::Received, &exits);
    asm.bind(v6);
    asm.jump(If::Ne, R1, 6, drop);
    ipv6(asm, Packet::Received, &exits);

    asm.bind(exits.lookup);
    asm.map(R1, connections);
    frame_address(asm, R2, frame::KEY);
    asm.call(MAP_LOOKUP);
    asm.jump(If::Eq, R0, 0, drop);
    asm.goto(exempt);
}

/// `len` bytes at the cursor into the frame.
fn load(asm: &mut Asm, to: i16, len: i32, exits: &Exits) {
    asm.mov(R1, R6);
    asm.mov(R2, R8);
    frame_address(asm, R3, to);
    asm.mov(R4, len);
    asm.call(LOAD_BYTES);
    asm.jump(If::Ne, R0, 0, exits.drop);
}

/// Copies words of the header to the key. A quoted packet went the other way.
fn addresses(asm: &mut Asm, packet: Packet, source: i16, destination: i16, len: i16) {
    let (from, to) = match packet {
        Packet::Received => (KEY_SOURCE, KEY_DESTINATION),
        Packet::Quoted => (KEY_DESTINATION, KEY_SOURCE),
    };
    for word in (0..len).step_by(4) {
        for (field, key) in [(source, from), (destination, to)] {
            asm.load(Size::U32, R1, FRAME, frame::HEADER + field + word);
            // IPv4 stands in the last 4 of 16 bytes.
            asm.store(Size::U32, FRAME, key + 16 - len + word, R1);
        }
    }
}

/// The ports at the cursor, then the look-up.
fn ports(asm: &mut Asm, packet: Packet, exits: &Exits) {
    let (from, to) = match packet {
        Packet::Received => (KEY_SOURCE_PORT, KEY_DESTINATION_PORT),
        Packet::Quoted => (KEY_DESTINATION_PORT, KEY_SOURCE_PORT),
    };
    load(asm, frame::SMALL, 4, exits);
    for (field, key) in [(0, from), (2, to)] {
        asm.load(Size::U16, R1, FRAME, frame::SMALL + field);
        asm.store(Size::U16, FRAME, key, R1);
    }
    asm.goto(exits.lookup);
}

fn ipv4(asm: &mut Asm, packet: Packet, exits: &Exits) {
    load(asm, frame::HEADER, 20, exits);
    addresses(asm, packet, 12, 16, 4);
    for key in [KEY_SOURCE, KEY_DESTINATION] {
        asm.store(Size::U16, FRAME, key + 10, 0xFFFF);
    }
    asm.load(Size::U8, R1, FRAME, frame::HEADER);
    asm.alu(Alu::And, R1, 15);
    asm.alu(Alu::Lsh, R1, 2);
    asm.alu(Alu::Add, R8, R1);
    // R0 = fragment offset, R7 = protocol.
    asm.load(Size::U16, R0, FRAME, frame::HEADER + 6);
    asm.network_to_host(R0, 16);
    asm.alu(Alu::And, R0, 0x1FFF);
    asm.load(Size::U8, R7, FRAME, frame::HEADER + 9);
    let other = asm.label();
    asm.jump(If::Ne, R7, TCP, other);
    asm.jump(If::Ne, R0, 0, exits.lookup);
    ports(asm, packet, exits);
    asm.bind(other);
    if packet == Packet::Quoted {
        asm.goto(exits.drop);
        return;
    }
    asm.jump(If::Ne, R7, ICMP, exits.drop);
    asm.jump(If::Ne, R0, 0, exits.drop);
    load(asm, frame::SMALL, 1, exits);
    asm.load(Size::U8, R1, FRAME, frame::SMALL);
    let error = asm.label();
    // Unreachable, source quench, redirect, time exceeded, parameter problem.
    for kind in [3, 4, 5, 11, 12] {
        asm.jump(If::Eq, R1, kind, error);
    }
    asm.goto(exits.drop);
    asm.bind(error);
    asm.alu(Alu::Add, R8, 8);
    ipv4(asm, Packet::Quoted, exits);
}

fn ipv6(asm: &mut Asm, packet: Packet, exits: &Exits) {
    load(asm, frame::HEADER, 40, exits);
    addresses(asm, packet, 8, 24, 16);
    // R7 = protocol of what is at the cursor.
    asm.load(Size::U8, R7, FRAME, frame::HEADER + 6);
    asm.alu(Alu::Add, R8, 40);
    let (tcp, icmp) = (asm.label(), asm.label());
    for _ in 0..EXTENSIONS_MAX {
        extension(asm, tcp, icmp, packet, exits);
    }
    asm.jump(If::Eq, R7, TCP, tcp);
    if packet == Packet::Received {
        asm.jump(If::Eq, R7, ICMPV6, icmp);
    }
    asm.goto(exits.drop);
    asm.bind(tcp);
    ports(asm, packet, exits);
    if packet == Packet::Quoted {
        return;
    }
    asm.bind(icmp);
    load(asm, frame::SMALL, 1, exits);
    asm.load(Size::U8, R1, FRAME, frame::SMALL);
    let not_discovery = asm.label();
    asm.jump(If::Lt, R1, 133, not_discovery);
    asm.jump(If::Le, R1, 137, exits.exempt);
    asm.bind(not_discovery);
    // Unreachable, too big, time exceeded, parameter problem.
    asm.jump(If::Eq, R1, 0, exits.drop);
    asm.jump(If::Gt, R1, 4, exits.drop);
    asm.alu(Alu::Add, R8, 8);
    ipv6(asm, Packet::Quoted, exits);
}

/// Steps over one extension header, if there is one at the cursor.
fn extension(asm: &mut Asm, tcp: Label, icmp: Label, packet: Packet, exits: &Exits) {
    let (options, authentication, length, fragment, done) =
        (asm.label(), asm.label(), asm.label(), asm.label(), asm.label());
    asm.jump(If::Eq, R7, TCP, tcp);
    if packet == Packet::Received {
        asm.jump(If::Eq, R7, ICMPV6, icmp);
    }
    asm.jump(If::Eq, R7, FRAGMENT, fragment);
    asm.jump(If::Eq, R7, AUTHENTICATION, authentication);
    for kind in OPTIONS {
        asm.jump(If::Eq, R7, kind, options);
    }
    asm.goto(exits.drop);

    // R7 keeps the unit's shift until the header is loaded.
    asm.bind(authentication);
    asm.mov(R7, 2);
    asm.goto(length);
    asm.bind(options);
    asm.mov(R7, 3);
    asm.bind(length);
    load(asm, frame::SMALL, 2, exits);
    let (units_of_8, shifted) = (asm.label(), asm.label());
    asm.load(Size::U8, R1, FRAME, frame::SMALL + 1);
    asm.jump(If::Eq, R7, 3, units_of_8);
    // Words of 4 bytes, less 2.
    asm.alu(Alu::Add, R1, 2);
    asm.alu(Alu::Lsh, R1, 2);
    asm.goto(shifted);
    asm.bind(units_of_8);
    asm.alu(Alu::Add, R1, 1);
    asm.alu(Alu::Lsh, R1, 3);
    asm.bind(shifted);
    asm.alu(Alu::Add, R8, R1);
    asm.load(Size::U8, R7, FRAME, frame::SMALL);
    asm.goto(done);

    asm.bind(fragment);
    load(asm, frame::SMALL, 4, exits);
    asm.load(Size::U8, R7, FRAME, frame::SMALL);
    asm.load(Size::U16, R1, FRAME, frame::SMALL + 2);
    asm.network_to_host(R1, 16);
    asm.alu(Alu::Add, R8, 8);
    asm.alu(Alu::And, R1, 0xFFF8);
    asm.jump(If::Eq, R1, 0, done);
    // A later fragment: no ports.
    asm.jump(If::Eq, R7, TCP, exits.lookup);
    asm.goto(exits.drop);
    asm.bind(done);
}

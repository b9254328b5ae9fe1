//! Packets for raw sockets, built field by field, and looked at again.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep};

/// A network header without extensions; protocol and length are filled in later.
fn network(from: IpAddr, to: IpAddr, ttl: u8) -> Result<PacketBuilderStep<IpHeaders>> {
    Ok(PacketBuilder::ip(match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = Ipv4Header::new(0, ttl, etherparse::IpNumber::UDP, from.octets(), to.octets())?;
            header.dont_fragment = false;
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                hop_limit: ttl,
                source: from.octets(),
                destination: to.octets(),
                ..Default::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        _ => anyhow::bail!("{from} and {to} are of two families"),
    }))
}

/// An echo request. The checksum of ICMPv6 needs the true source.
pub fn echo(from: IpAddr, to: IpAddr, ttl: u8, id: u16, sequence: u16, data: &[u8]) -> Result<Vec<u8>> {
    let mut packet = Vec::new();
    let network = network(from, to, ttl)?;
    if to.is_ipv4() {
        network.icmpv4_echo_request(id, sequence).write(&mut packet, data)?;
    } else {
        network.icmpv6_echo_request(id, sequence).write(&mut packet, data)?;
    }
    Ok(packet)
}

/// A datagram.
pub fn udp(from: SocketAddr, to: SocketAddr, ttl: u8, data: &[u8]) -> Result<Vec<u8>> {
    let mut packet = Vec::new();
    network(from.ip(), to.ip(), ttl)?.udp(from.port(), to.port()).write(&mut packet, data)?;
    Ok(packet)
}

/// A TCP segment: SYN without `ack`, else ACK and PSH.
pub fn tcp(
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    ack: Option<u32>,
    data: &[u8],
) -> Result<Vec<u8>> {
    let mut packet = Vec::new();
    let segment = network(from.ip(), to.ip(), 64)?.tcp(from.port(), to.port(), sequence, 8192);
    let segment = match ack {
        None => segment.syn(),
        Some(number) => segment.ack(number).psh(),
    };
    segment.write(&mut packet, data)?;
    Ok(packet)
}

/// The head of a packet and what it carries.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub from: IpAddr,
    pub to: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    pub protocol: u8,
    pub payload: Vec<u8>,
}

/// Takes a packet without extension headers apart.
pub fn parse(packet: &[u8]) -> Result<Parsed> {
    let v4 = match packet.first().context("an empty packet")? >> 4 {
        4 => true,
        6 => false,
        other => anyhow::bail!("a packet of version {other}"),
    };
    let head = if v4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    ensure!(packet.len() >= head && head >= 20, "a packet of {} bytes", packet.len());
    let payload = packet[head..].to_vec();
    Ok(if v4 {
        let address = |at: usize| IpAddr::from([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        Parsed {
            from: address(12),
            to: address(16),
            ttl: packet[8],
            tos: packet[1],
            protocol: packet[9],
            payload,
        }
    } else {
        let header = etherparse::Ipv6Header::from_slice(packet)?.0;
        Parsed {
            from: IpAddr::from(header.source),
            to: IpAddr::from(header.destination),
            ttl: header.hop_limit,
            tos: header.traffic_class,
            protocol: packet[6],
            payload,
        }
    })
}

impl Parsed {
    /// Two bytes of the payload, big-endian; 0 beyond its end.
    pub fn half(&self, at: usize) -> u16 {
        self.payload.get(at..at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]))
    }

    /// Source and destination port.
    pub fn ports(&self) -> (u16, u16) {
        (self.half(0), self.half(2))
    }

    /// The packet that an ICMP error quotes.
    pub fn quoted(&self) -> Result<Parsed> {
        parse(self.payload.get(8..).context("no quoted packet")?)
    }

    /// Type and code of an ICMP message.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        let icmp = if self.from.is_ipv4() { 1 } else { 58 };
        (self.protocol == icmp && self.payload.len() >= 8).then(|| (self.payload[0], self.payload[1]))
    }

    /// Flags of a TCP segment.
    pub fn flags(&self) -> u8 {
        if self.protocol == 6 { self.payload.get(13).copied().unwrap_or(0) } else { 0 }
    }
}

/// Flags of TCP.
pub const RST: u8 = 4;
pub const SYN: u8 = 2;
pub const ACK: u8 = 16;

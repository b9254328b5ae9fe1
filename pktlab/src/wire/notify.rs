//! Notifications of the endpoint: NTAG, NSTAT, NDATA, NDROP, NBLOCK (spec `messages.md` §4.11–4.15) and the extension
//! NERR (`docs/extensions.md`).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::{ErrId, Proto, SocketId, Ticks};

/// NTAG 0x60: a tagged NSEND left its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NTag {
    pub socket: SocketId,
    pub tag: u16,
    pub time: Ticks,
    /// Success, or why the data was discarded.
    pub errid: ErrId,
}

/// NSTAT 0x61: a TCP connection changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NStat {
    pub socket: SocketId,
    /// Family and protocol as on the wire, not consulted by the codec.
    pub family: u8,
    pub proto: u8,
    pub time: Ticks,
    pub event: StatEvent,
}

/// What an NSTAT reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatEvent {
    /// Established, with the peer's address; this form has no code byte.
    Established(SocketAddr),
    /// A code of [`NStat::RESET`] and its siblings, or an unknown one.
    Code(u8),
}

impl NStat {
    pub const ESTABLISHED: u8 = 0x00;
    pub const RESET: u8 = 0x01;
    pub const TIMEOUT: u8 = 0x02;
    pub const PEER_CLOSED: u8 = 0x03;
    pub const UNKNOWN: u8 = 0xFF;
}

/// NDATA 0x62: received bytes, one datagram, or one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NData {
    pub socket: SocketId,
    /// As on the wire; checked by the codec for UDP only.
    pub family: u8,
    pub proto: Proto,
    pub time: Ticks,
    /// Sender, present exactly when `proto` is UDP.
    pub remote: Option<SocketAddr>,
    pub data: Bytes,
}

/// NDROP 0x63.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NDrop {
    pub socket: SocketId,
    pub family: u8,
    pub proto: u8,
    pub first: Ticks,
    pub last: Ticks,
    pub units: u32,
    pub bytes: u32,
}

/// NBLOCK 0x64: a monitor refused an NDATA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NBlock {
    pub socket: SocketId,
    pub family: u8,
    pub proto: u8,
    pub monitor_errid: u16,
    pub time: Ticks,
}

/// NERR 0xA0, an extension: an asynchronous error with the operating system's number. Never sent unless the controller
/// enabled extension bit 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NErr {
    pub socket: SocketId,
    pub family: u8,
    pub proto: u8,
    pub time: Ticks,
    /// Linux errno.
    pub errno: u16,
    /// `SO_EE_ORIGIN_*`: 0 none (a failed call such as connect), 1 local, 2 ICMP, 3 ICMPv6.
    pub origin: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// `ee_info`: path MTU for EMSGSIZE, else 0.
    pub info: u32,
    /// Who reported it, when an ICMP message did.
    pub offender: Option<IpAddr>,
    /// Where the failing packet was going, when known.
    pub remote: Option<SocketAddr>,
    /// The quoted packet or the datagram's payload, as the operating system returned it.
    pub data: Bytes,
}

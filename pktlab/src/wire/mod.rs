//! Messages of the PacketLab protocol (spec `messages.md`).
//!
//! Every message is `type: u8, length: u24` and `length` body bytes; all integers are big-endian. One file per
//! message family; offsets are known only to the file that owns the message.

mod broker;
mod codec;
mod errid;
mod extension;
mod fields;
mod notify;
mod reader;
mod request;
mod writer;

pub use broker::{ChannelList, Channels};
pub use codec::{EncodeError, Encoded, Frame};
pub use extension::{ExtNote, ExtRequest, NAccpt, NDatx, NErr, NOpt, NTagx, NTake, NTime, NWait, SockOpt};
pub use notify::{NBlock, NData, NDrop, NStat, NTag, StatEvent};
pub use reader::{MessageReader, ReadError};
pub use request::{NCap, NCtl, NOpen, NSend, OpenAddress};
pub use writer::{MessageWriter, WriteError};

use std::net::IpAddr;

use bytes::Bytes;

/// Nanoseconds since 1970-01-01T00:00:00Z, no leap seconds (spec `session.md` §2).
pub type Ticks = u64;

/// A socket number of an endpoint session; the controller chooses it.
pub type SocketId = u8;

/// Largest body a header can announce: 16 777 215 bytes.
pub const MAX_BODY: usize = 0xFF_FFFF;
/// Bytes in front of every body.
pub const HEADER_LEN: usize = 4;

/// Address family of a measurement socket (spec `messages.md` §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

/// Protocol of a measurement socket (spec `messages.md` §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    Raw,
    Tcp,
    Udp,
}

/// `errid` of a RESULT or NTAG (spec `messages.md` §3.2). Unlisted values are kept as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrId(pub u16);

/// Body of RESULT (spec `messages.md` §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Any errid without a tail, success included.
    Plain(ErrId),
    /// ECTLMONREJ: the monitor with this index refused the request with its own errid.
    MonitorRejected { index: u16, errid: u16 },
    /// ECTLMONUKN: the monitor with this index failed.
    MonitorFailed { index: u16 },
}

/// One message with an assigned type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    CData {
        hint: Bytes,
        data: Bytes,
    },
    Start,
    End,
    /// Absolute time before which the controller does not want to be contacted again.
    Yield {
        resume: Ticks,
    },
    Cont,
    MRead {
        addr: u32,
        len: u16,
    },
    MWrite {
        addr: u32,
        data: Bytes,
    },
    NOpen(NOpen),
    NClose {
        socket: SocketId,
    },
    NSend(NSend),
    NCap(NCap),
    NCtl(NCtl),
    /// One certificate, DER, not inspected by the codec.
    XCert {
        der: Bytes,
    },
    XPub(Channels),
    XSub(Channels),
    Result(Outcome),
    MData {
        addr: u32,
        data: Bytes,
    },
    NTag(NTag),
    NStat(NStat),
    NData(NData),
    NDrop(NDrop),
    NBlock(NBlock),
    LInfo {
        name: Bytes,
        aux: Bytes,
        info: Bytes,
    },
    Suspd,
    Resumd,
    XNotify {
        channel: Bytes,
        descriptor: Bytes,
    },
    /// The snikey, 1–63 characters out of `0-9 a-z`.
    XReg {
        snikey: String,
    },
}

impl Family {
    /// The byte on the wire.
    pub const fn octet(self) -> u8 {
        match self {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }

    pub const fn from_octet(octet: u8) -> Option<Family> {
        match octet {
            4 => Some(Family::V4),
            6 => Some(Family::V6),
            _ => None,
        }
    }

    /// Bytes of an address.
    pub const fn ip_len(self) -> usize {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }
}

impl Proto {
    /// The byte on the wire.
    pub const fn octet(self) -> u8 {
        match self {
            Proto::Raw => 0x00,
            Proto::Tcp => 0x06,
            Proto::Udp => 0x11,
        }
    }

    pub const fn from_octet(octet: u8) -> Option<Proto> {
        match octet {
            0x00 => Some(Proto::Raw),
            0x06 => Some(Proto::Tcp),
            0x11 => Some(Proto::Udp),
            _ => None,
        }
    }
}

/// The family of an address.
pub fn family_of(addr: &IpAddr) -> Family {
    match addr {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

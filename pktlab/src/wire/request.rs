//! Requests about measurement sockets: NOPEN, NSEND, NCAP, NCTL (spec `messages.md` §4.6–4.10).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::{Family, Proto, SocketId, Ticks};

/// NOPEN 0x2A. Family and protocol follow from `address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NOpen {
    pub socket: SocketId,
    /// Receive budget in payload bytes.
    pub rbufsz: u32,
    pub address: OpenAddress,
}

/// The four address forms of NOPEN. Both addresses of [`OpenAddress::TcpConnect`] have the same family; the encoder
/// refuses a mixture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenAddress {
    Raw { local: IpAddr },
    Udp { local: SocketAddr },
    TcpListen { local: SocketAddr },
    TcpConnect { local: SocketAddr, remote: SocketAddr },
}

/// NSEND 0x2C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NSend {
    pub socket: SocketId,
    /// As on the wire; checked by the codec for UDP only, where it fixes the length of the address.
    pub family: u8,
    pub proto: Proto,
    /// Not before this time; 0 means at once.
    pub time: Ticks,
    /// 0: no NTAG wanted.
    pub tag: u16,
    /// Destination, present exactly when `proto` is UDP.
    pub remote: Option<SocketAddr>,
    pub data: Bytes,
}

/// NCAP 0x2D. Family and protocol are not checked by the codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NCap {
    pub socket: SocketId,
    pub family: u8,
    pub proto: u8,
    pub end: Ticks,
    /// Encoded program (spec `programs.md` §1), at least one byte.
    pub filter: Bytes,
}

/// NCTL 0x2E, always for TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NCtl {
    pub socket: SocketId,
    pub family: u8,
    pub time: Ticks,
    /// [`NCtl::FIN`] or a value this implementation does not know.
    pub command: u8,
}

impl NCtl {
    /// Shut down the sending side.
    pub const FIN: u8 = 1;
}

impl OpenAddress {
    pub fn proto(&self) -> Proto {
        match self {
            OpenAddress::Raw { .. } => Proto::Raw,
            OpenAddress::Udp { .. } => Proto::Udp,
            OpenAddress::TcpListen { .. } | OpenAddress::TcpConnect { .. } => Proto::Tcp,
        }
    }

    pub fn family(&self) -> Family {
        match self {
            OpenAddress::Raw { local } => super::family_of(local),
            OpenAddress::Udp { local }
            | OpenAddress::TcpListen { local }
            | OpenAddress::TcpConnect { local, .. } => super::family_of(&local.ip()),
        }
    }
}

//! NOPT, NWAIT and NTAKE (`docs/extensions.md` §4, §6, §8).

use bytes::BufMut;

use crate::wire::codec::{Draft, EncodeError, Encoded};
use crate::wire::fields::{Body, Reason};
use crate::wire::{SocketId, Ticks};

/// NOPT 0x90: reads or sets an option of an open socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NOpt {
    pub socket: SocketId,
    /// Family and protocol as on the wire, not consulted by the codec.
    pub family: u8,
    pub proto: u8,
    /// A number of [`SockOpt`], or one that this implementation does not know.
    pub option: u8,
    /// The value to set; `None` reads.
    pub value: Option<u32>,
}

/// Options that NOPT names; the number is the byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SockOpt {
    /// TTL or hop limit of packets sent; [`NOpt::SYSTEM_DEFAULT`] is the system's.
    Ttl = 1,
    /// TOS or traffic class of packets sent; [`NOpt::SYSTEM_DEFAULT`] is the system's.
    Tos = 2,
    /// Path-MTU discovery: a value of Linux' `IP_PMTUDISC_*`.
    MtuDiscover = 3,
    /// Whether datagrams may go to broadcast addresses.
    Broadcast = 4,
    /// TCP: send small segments at once.
    NoDelay = 5,
    KeepAlive = 6,
    /// Seconds that closing waits for unsent data; [`NOpt::LINGER_OFF`] switches lingering off.
    Linger = 7,
    /// Bytes of the endpoint's kernel send buffer.
    SendBuffer = 8,
    /// Bytes of the endpoint's kernel receive buffer.
    ReceiveBuffer = 9,
    /// TCP maximum segment size in bytes.
    MaxSegment = 10,
    /// TTL or hop limit of multicast packets.
    MulticastTtl = 11,
    /// Known path MTU in bytes of a connected socket; read only.
    PathMtu = 12,
    /// Whether multicast packets come back to the endpoint's host.
    MulticastLoop = 13,
    /// TCP: acknowledge at once.
    QuickAck = 14,
}

/// NWAIT 0x91: asks for an NTIME once the endpoint's clock has passed `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NWait {
    /// Comes back in the NTIME; need not be unique.
    pub token: u32,
    pub time: Ticks,
}

/// NTAKE 0x92: takes a connection that waits at a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NTake {
    /// A free number for the connection.
    pub socket: SocketId,
    pub listener: SocketId,
    /// Out of the NACCPT.
    pub handle: u32,
    /// Receive budget of the connection in payload bytes.
    pub rbufsz: u32,
}

impl SockOpt {
    pub const ALL: [SockOpt; 14] = [
        SockOpt::Ttl,
        SockOpt::Tos,
        SockOpt::MtuDiscover,
        SockOpt::Broadcast,
        SockOpt::NoDelay,
        SockOpt::KeepAlive,
        SockOpt::Linger,
        SockOpt::SendBuffer,
        SockOpt::ReceiveBuffer,
        SockOpt::MaxSegment,
        SockOpt::MulticastTtl,
        SockOpt::PathMtu,
        SockOpt::MulticastLoop,
        SockOpt::QuickAck,
    ];

    /// The byte on the wire.
    pub const fn octet(self) -> u8 {
        self as u8
    }

    /// `None` for a number without an option.
    pub fn from_octet(octet: u8) -> Option<SockOpt> {
        SockOpt::ALL.into_iter().find(|option| option.octet() == octet)
    }
}

impl NOpt {
    /// Type byte, out of the private range.
    pub const CODE: u8 = 0x90;
    /// Value of [`SockOpt::Ttl`] and [`SockOpt::Tos`]: what the endpoint's system uses by itself.
    pub const SYSTEM_DEFAULT: u32 = u32::MAX;
    /// Value of [`SockOpt::Linger`].
    pub const LINGER_OFF: u32 = u32::MAX;

    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut draft = Draft::new();
        draft.head.put_slice(&[self.socket, self.family, self.proto, self.option]);
        if let Some(value) = self.value {
            draft.head.put_u32(value);
        }
        draft.finish(Self::CODE)
    }

    pub(super) fn decode(mut body: Body) -> Result<NOpt, Reason> {
        let (socket, family, proto, option) = (body.u8()?, body.u8()?, body.u8()?, body.u8()?);
        let value = if body.len() == 0 { None } else { Some(body.u32()?) };
        body.end()?;
        Ok(NOpt { socket, family, proto, option, value })
    }
}

impl NWait {
    /// Type byte, out of the private range.
    pub const CODE: u8 = 0x91;

    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut draft = Draft::new();
        draft.head.put_u32(self.token);
        draft.head.put_u64(self.time);
        draft.finish(Self::CODE)
    }

    pub(super) fn decode(mut body: Body) -> Result<NWait, Reason> {
        let wait = NWait { token: body.u32()?, time: body.u64()? };
        body.end()?;
        Ok(wait)
    }
}

impl NTake {
    /// Type byte, out of the private range.
    pub const CODE: u8 = 0x92;

    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut draft = Draft::new();
        draft.head.put_slice(&[self.socket, self.listener]);
        draft.head.put_u32(self.handle);
        draft.head.put_u32(self.rbufsz);
        draft.finish(Self::CODE)
    }

    pub(super) fn decode(mut body: Body) -> Result<NTake, Reason> {
        let take =
            NTake { socket: body.u8()?, listener: body.u8()?, handle: body.u32()?, rbufsz: body.u32()? };
        body.end()?;
        Ok(take)
    }
}

//! Notifications of the endpoint: NTAG, NSTAT, NDATA, NDROP, NBLOCK (spec `messages.md` §4.11–4.15).

use std::net::SocketAddr;

use bytes::{BufMut, Bytes};

use super::codec::{Draft, EncodeError};
use super::fields::{Body, Reason, put_addr};
use super::request::{put_udp_remote, udp_remote};
use super::{ErrId, Family, Proto, SocketId, Ticks};

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

impl NTag {
    pub(super) fn encode(&self, draft: &mut Draft) {
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u16(self.tag);
        out.put_u64(self.time);
        if self.errid != ErrId::SUCCESS {
            out.put_u16(self.errid.0);
        }
    }

    pub(super) fn decode(mut body: Body) -> Result<NTag, Reason> {
        let (socket, tag, time) = (body.u8()?, body.u16()?, body.u64()?);
        let errid = if body.len() == 0 { ErrId::SUCCESS } else { ErrId(body.u16()?) };
        body.end()?;
        Ok(NTag { socket, tag, time, errid })
    }
}

impl NStat {
    pub(super) fn encode(&self, draft: &mut Draft) {
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u8(self.family);
        out.put_u8(self.proto);
        out.put_u64(self.time);
        match &self.event {
            StatEvent::Established(peer) => put_addr(out, peer),
            StatEvent::Code(code) => out.put_u8(*code),
        }
    }

    pub(super) fn decode(mut body: Body) -> Result<NStat, Reason> {
        let (socket, family, proto, time) = (body.u8()?, body.u8()?, body.u8()?, body.u64()?);
        let event = match body.len() {
            1 => StatEvent::Code(body.u8()?),
            6 => StatEvent::Established(body.addr(Family::V4)?),
            18 => StatEvent::Established(body.addr(Family::V6)?),
            _ => return Err("NSTAT of a wrong length"),
        };
        Ok(NStat { socket, family, proto, time, event })
    }
}

impl NData {
    pub(super) fn encode(&self, draft: &mut Draft) -> Result<(), EncodeError> {
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u8(self.family);
        out.put_u8(self.proto.octet());
        out.put_u64(self.time);
        put_udp_remote(draft, self.proto, self.family, &self.remote)?;
        draft.payload = self.data.clone();
        Ok(())
    }

    pub(super) fn decode(mut body: Body) -> Result<NData, Reason> {
        let (socket, family) = (body.u8()?, body.u8()?);
        let proto = body.u8()?;
        let time = body.u64()?;
        let proto = Proto::from_octet(proto).ok_or("unknown protocol")?;
        let remote = udp_remote(&mut body, proto, family)?;
        Ok(NData { socket, family, proto, time, remote, data: body.rest() })
    }
}

impl NDrop {
    pub(super) fn encode(&self, draft: &mut Draft) {
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u8(self.family);
        out.put_u8(self.proto);
        out.put_u64(self.first);
        out.put_u64(self.last);
        out.put_u32(self.units);
        out.put_u32(self.bytes);
    }

    pub(super) fn decode(mut body: Body) -> Result<NDrop, Reason> {
        let drop = NDrop {
            socket: body.u8()?,
            family: body.u8()?,
            proto: body.u8()?,
            first: body.u64()?,
            last: body.u64()?,
            units: body.u32()?,
            bytes: body.u32()?,
        };
        body.end()?;
        Ok(drop)
    }
}

impl NBlock {
    pub(super) fn encode(&self, draft: &mut Draft) {
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u8(self.family);
        out.put_u8(self.proto);
        out.put_u16(self.monitor_errid);
        out.put_u64(self.time);
    }

    pub(super) fn decode(mut body: Body) -> Result<NBlock, Reason> {
        let block = NBlock {
            socket: body.u8()?,
            family: body.u8()?,
            proto: body.u8()?,
            monitor_errid: body.u16()?,
            time: body.u64()?,
        };
        body.end()?;
        Ok(block)
    }
}

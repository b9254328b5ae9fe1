//! NERR, NACCPT, NTIME, NDATX and NTAGX (`docs/extensions.md` §5, §6, §8, §9).

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes};

use super::body;
use crate::wire::codec::{Draft, EncodeError, Encoded};
use crate::wire::fields::{Body, Reason, put_addr, put_ip};
use crate::wire::request::{put_udp_remote, udp_remote};
use crate::wire::{ErrId, Family, Proto, SocketId, Ticks, family_of};

/// NERR 0xA0: an asynchronous error with the operating system's number.
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

/// NACCPT 0xA1: a connection waits at a listening socket, to be taken with NTAKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NAccpt {
    pub listener: SocketId,
    pub time: Ticks,
    /// Names the connection among those of the listener.
    pub handle: u32,
    /// Both of one family; the encoder refuses a mixture.
    pub remote: SocketAddr,
    pub local: SocketAddr,
}

/// NTIME 0xA2: the endpoint's clock has passed the time of an NWAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NTime {
    pub token: u32,
    /// When the endpoint noticed; not before the time asked for.
    pub time: Ticks,
}

/// NDATX 0xA3: one datagram or packet with what the endpoint's system told about it; stands for NDATA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NDatx {
    pub socket: SocketId,
    pub family: Family,
    /// UDP or raw.
    pub proto: Proto,
    pub time: Ticks,
    /// `time` is the kernel's receive stamp, not the time of the read.
    pub kernel_time: bool,
    /// TTL or hop limit it arrived with.
    pub ttl: Option<u8>,
    /// TOS or traffic class it arrived with.
    pub tos: Option<u8>,
    /// The endpoint ran out of buffer and cut the payload.
    pub truncated: bool,
    /// Address it was sent to, of `family`.
    pub local: Option<IpAddr>,
    /// Sender, present exactly when `proto` is UDP.
    pub remote: Option<SocketAddr>,
    pub data: Bytes,
}

/// NTAGX 0xA4: a tagged NSEND left its queue; stands for NTAG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NTagx {
    pub socket: SocketId,
    pub tag: u16,
    pub time: Ticks,
    /// `time` is the kernel's transmit stamp, not the time after the call.
    pub kernel_time: bool,
    /// Success, or why the data was discarded.
    pub errid: ErrId,
}

impl NErr {
    /// Type byte, out of the private range.
    pub const CODE: u8 = 0xA0;

    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut draft = Draft::new();
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u8(self.family);
        out.put_u8(self.proto);
        out.put_u64(self.time);
        out.put_u16(self.errno);
        out.put_slice(&[self.origin, self.icmp_type, self.icmp_code]);
        out.put_u32(self.info);
        match &self.offender {
            None => out.put_u8(0),
            Some(ip) => {
                out.put_u8(family_of(ip).ip_len() as u8);
                put_ip(out, ip);
            }
        }
        match &self.remote {
            None => out.put_u8(0),
            Some(addr) => {
                out.put_u8(family_of(&addr.ip()).ip_len() as u8 + 2);
                put_addr(out, addr);
            }
        }
        draft.payload = self.data.clone();
        draft.finish(Self::CODE)
    }

    /// Decodes a frame that came as unknown, header included; `None` when it is no NERR or a malformed one.
    pub fn decode(raw: &Bytes) -> Option<NErr> {
        body(Self::CODE, raw).and_then(Self::decode_body).ok()
    }

    pub(super) fn decode_body(mut body: Body) -> Result<NErr, Reason> {
        let (socket, family, proto, time) = (body.u8()?, body.u8()?, body.u8()?, body.u64()?);
        let (errno, origin, icmp_type, icmp_code) = (body.u16()?, body.u8()?, body.u8()?, body.u8()?);
        let info = body.u32()?;
        let offender = match body.u8()? {
            0 => None,
            4 => Some(body.ip(Family::V4)?),
            16 => Some(body.ip(Family::V6)?),
            _ => return Err("offender of a wrong length"),
        };
        let remote = match body.u8()? {
            0 => None,
            6 => Some(body.addr(Family::V4)?),
            18 => Some(body.addr(Family::V6)?),
            _ => return Err("remote address of a wrong length"),
        };
        let data = body.rest();
        Ok(NErr {
            socket,
            family,
            proto,
            time,
            errno,
            origin,
            icmp_type,
            icmp_code,
            info,
            offender,
            remote,
            data,
        })
    }
}

impl NAccpt {
    /// Type byte, out of the private range.
    pub const CODE: u8 = 0xA1;

    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let family = family_of(&self.remote.ip());
        if family_of(&self.local.ip()) != family {
            return Err(EncodeError::Invalid("local and remote address of different families"));
        }
        let mut draft = Draft::new();
        let out = &mut draft.head;
        out.put_slice(&[self.listener, family.octet(), Proto::Tcp.octet()]);
        out.put_u64(self.time);
        out.put_u32(self.handle);
        put_addr(out, &self.remote);
        put_addr(out, &self.local);
        draft.finish(Self::CODE)
    }

    pub(super) fn decode(mut body: Body) -> Result<NAccpt, Reason> {
        let listener = body.u8()?;
        let family = Family::from_octet(body.u8()?).ok_or("unknown family")?;
        if Proto::from_octet(body.u8()?) != Some(Proto::Tcp) {
            return Err("a connection of another protocol than TCP");
        }
        let (time, handle) = (body.u64()?, body.u32()?);
        let (remote, local) = (body.addr(family)?, body.addr(family)?);
        body.end()?;
        Ok(NAccpt { listener, time, handle, remote, local })
    }
}

impl NTime {
    /// Type byte, out of the private range.
    pub const CODE: u8 = 0xA2;

    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut draft = Draft::new();
        draft.head.put_u32(self.token);
        draft.head.put_u64(self.time);
        draft.finish(Self::CODE)
    }

    pub(super) fn decode(mut body: Body) -> Result<NTime, Reason> {
        let time = NTime { token: body.u32()?, time: body.u64()? };
        body.end()?;
        Ok(time)
    }
}

/// Flag bits of NDATX and NTAGX. A sender leaves the others 0, a receiver ignores them.
mod flag {
    pub const KERNEL_TIME: u8 = 1 << 0;
    pub const TTL: u8 = 1 << 1;
    pub const TOS: u8 = 1 << 2;
    pub const LOCAL: u8 = 1 << 3;
    pub const TRUNCATED: u8 = 1 << 4;
}

impl NDatx {
    /// Type byte, out of the private range.
    pub const CODE: u8 = 0xA3;

    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        if self.proto == Proto::Tcp {
            return Err(EncodeError::Invalid("NDATX is for UDP and raw sockets"));
        }
        let flags = [
            (self.kernel_time, flag::KERNEL_TIME),
            (self.ttl.is_some(), flag::TTL),
            (self.tos.is_some(), flag::TOS),
            (self.local.is_some(), flag::LOCAL),
            (self.truncated, flag::TRUNCATED),
        ];
        let mut draft = Draft::new();
        let out = &mut draft.head;
        out.put_slice(&[self.socket, self.family.octet(), self.proto.octet()]);
        out.put_u64(self.time);
        out.put_u8(flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit));
        out.put_slice(&[self.ttl.unwrap_or(0), self.tos.unwrap_or(0)]);
        if let Some(local) = &self.local {
            if family_of(local) != self.family {
                return Err(EncodeError::Invalid("address of another family than the socket's"));
            }
            put_ip(out, local);
        }
        put_udp_remote(&mut draft, self.proto, self.family.octet(), &self.remote)?;
        draft.payload = self.data.clone();
        draft.finish(Self::CODE)
    }

    pub(super) fn decode(mut body: Body) -> Result<NDatx, Reason> {
        let socket = body.u8()?;
        let family = Family::from_octet(body.u8()?).ok_or("unknown family")?;
        let proto = match Proto::from_octet(body.u8()?) {
            Some(proto @ (Proto::Raw | Proto::Udp)) => proto,
            Some(Proto::Tcp) | None => return Err("NDATX is for UDP and raw sockets"),
        };
        let (time, flags, ttl, tos) = (body.u64()?, body.u8()?, body.u8()?, body.u8()?);
        let has = |bit: u8| flags & bit != 0;
        let local = if has(flag::LOCAL) { Some(body.ip(family)?) } else { None };
        let remote = udp_remote(&mut body, proto, family.octet())?;
        Ok(NDatx {
            socket,
            family,
            proto,
            time,
            kernel_time: has(flag::KERNEL_TIME),
            ttl: has(flag::TTL).then_some(ttl),
            tos: has(flag::TOS).then_some(tos),
            truncated: has(flag::TRUNCATED),
            local,
            remote,
            data: body.rest(),
        })
    }
}

impl NTagx {
    /// Type byte, out of the private range.
    pub const CODE: u8 = 0xA4;

    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut draft = Draft::new();
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u16(self.tag);
        out.put_u64(self.time);
        out.put_u8(if self.kernel_time { flag::KERNEL_TIME } else { 0 });
        out.put_u16(self.errid.0);
        draft.finish(Self::CODE)
    }

    pub(super) fn decode(mut body: Body) -> Result<NTagx, Reason> {
        let (socket, tag, time, flags) = (body.u8()?, body.u16()?, body.u64()?, body.u8()?);
        let errid = ErrId(body.u16()?);
        body.end()?;
        Ok(NTagx { socket, tag, time, kernel_time: flags & flag::KERNEL_TIME != 0, errid })
    }
}

//! Reading and writing the fixed-size fields of message bodies. Nothing here knows a message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Family;

/// Why a body is malformed, in words for a log line.
pub(super) type Reason = &'static str;

/// A body being taken apart, front to back; every step checks the length.
pub(super) struct Body(pub Bytes);

impl Body {
    pub fn u8(&mut self) -> Result<u8, Reason> {
        self.0.try_get_u8().map_err(|_| TOO_SHORT)
    }

    pub fn u16(&mut self) -> Result<u16, Reason> {
        self.0.try_get_u16().map_err(|_| TOO_SHORT)
    }

    pub fn u32(&mut self) -> Result<u32, Reason> {
        self.0.try_get_u32().map_err(|_| TOO_SHORT)
    }

    pub fn u64(&mut self) -> Result<u64, Reason> {
        self.0.try_get_u64().map_err(|_| TOO_SHORT)
    }

    pub fn bytes(&mut self, len: usize) -> Result<Bytes, Reason> {
        if self.0.len() < len {
            return Err(TOO_SHORT);
        }
        Ok(self.0.split_to(len))
    }

    pub fn ip(&mut self, family: Family) -> Result<IpAddr, Reason> {
        match family {
            Family::V4 => Ok(Ipv4Addr::from(self.u32()?).into()),
            Family::V6 => self.0.try_get_u128().map(|ip| Ipv6Addr::from(ip).into()).map_err(|_| TOO_SHORT),
        }
    }

    pub fn addr(&mut self, family: Family) -> Result<SocketAddr, Reason> {
        Ok(SocketAddr::new(self.ip(family)?, self.u16()?))
    }

    /// Everything that is left.
    pub fn rest(self) -> Bytes {
        self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn end(self) -> Result<(), Reason> {
        if self.0.is_empty() { Ok(()) } else { Err("body is longer than its fields") }
    }
}

pub(super) const TOO_SHORT: Reason = "body is shorter than its fields";

pub(super) fn put_ip(out: &mut BytesMut, ip: &IpAddr) {
    match ip {
        IpAddr::V4(v4) => out.put_slice(&v4.octets()),
        IpAddr::V6(v6) => out.put_slice(&v6.octets()),
    }
}

pub(super) fn put_addr(out: &mut BytesMut, addr: &SocketAddr) {
    put_ip(out, &addr.ip());
    out.put_u16(addr.port());
}

//! Requests about measurement sockets: NOPEN, NSEND, NCAP, NCTL (spec `messages.md` §4.6–4.10).

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes};

use super::codec::{Draft, EncodeError};
use super::fields::{Body, Reason, put_addr, put_ip};
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

impl NOpen {
    pub(super) fn encode(&self, draft: &mut Draft) -> Result<(), EncodeError> {
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u8(self.address.family().octet());
        out.put_u8(self.address.proto().octet());
        out.put_u32(self.rbufsz);
        match &self.address {
            OpenAddress::Raw { local } => put_ip(out, local),
            OpenAddress::Udp { local } | OpenAddress::TcpListen { local } => put_addr(out, local),
            OpenAddress::TcpConnect { local, remote } => {
                if local.is_ipv4() != remote.is_ipv4() {
                    return Err(EncodeError::Invalid("local and remote address of different families"));
                }
                put_addr(out, local);
                put_addr(out, remote);
            }
        }
        Ok(())
    }

    pub(super) fn decode(mut body: Body) -> Result<NOpen, Reason> {
        let socket = body.u8()?;
        let family = Family::from_octet(body.u8()?).ok_or("unknown family")?;
        let proto = Proto::from_octet(body.u8()?).ok_or("unknown protocol")?;
        let rbufsz = body.u32()?;
        let ip = family.ip_len();
        let address = match (proto, body.len()) {
            (Proto::Raw, len) if len == ip => OpenAddress::Raw { local: body.ip(family)? },
            (Proto::Udp, len) if len == ip + 2 => OpenAddress::Udp { local: body.addr(family)? },
            (Proto::Tcp, len) if len == ip + 2 => OpenAddress::TcpListen { local: body.addr(family)? },
            (Proto::Tcp, len) if len == 2 * (ip + 2) => {
                OpenAddress::TcpConnect { local: body.addr(family)?, remote: body.addr(family)? }
            }
            _ => return Err("address part of a wrong length"),
        };
        Ok(NOpen { socket, rbufsz, address })
    }
}

impl NSend {
    pub(super) fn encode(&self, draft: &mut Draft) -> Result<(), EncodeError> {
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u8(self.family);
        out.put_u8(self.proto.octet());
        out.put_u64(self.time);
        out.put_u16(self.tag);
        put_udp_remote(draft, self.proto, self.family, &self.remote)?;
        draft.payload = self.data.clone();
        Ok(())
    }

    pub(super) fn decode(mut body: Body) -> Result<NSend, Reason> {
        let (socket, family) = (body.u8()?, body.u8()?);
        let proto = Proto::from_octet(body.u8()?).ok_or("unknown protocol")?;
        let (time, tag) = (body.u64()?, body.u16()?);
        let remote = udp_remote(&mut body, proto, family)?;
        Ok(NSend { socket, family, proto, time, tag, remote, data: body.rest() })
    }
}

/// The address in front of the data of NSEND and NDATA, present for UDP only.
pub(super) fn udp_remote(body: &mut Body, proto: Proto, family: u8) -> Result<Option<SocketAddr>, Reason> {
    if proto != Proto::Udp {
        return Ok(None);
    }
    let family = Family::from_octet(family).ok_or("unknown family")?;
    body.addr(family).map(Some)
}

pub(super) fn put_udp_remote(
    draft: &mut Draft,
    proto: Proto,
    family: u8,
    remote: &Option<SocketAddr>,
) -> Result<(), EncodeError> {
    match (proto, remote) {
        (Proto::Udp, Some(addr)) if super::family_of(&addr.ip()).octet() == family => {
            put_addr(&mut draft.head, addr);
            Ok(())
        }
        (Proto::Udp, Some(_)) => Err(EncodeError::Invalid("address of another family than the socket's")),
        (Proto::Udp, None) => Err(EncodeError::Invalid("UDP data without a remote address")),
        (_, None) => Ok(()),
        (_, Some(_)) => Err(EncodeError::Invalid("only UDP data has a remote address")),
    }
}

impl NCap {
    pub(super) fn encode(&self, draft: &mut Draft) -> Result<(), EncodeError> {
        if self.filter.is_empty() {
            return Err(EncodeError::Invalid("NCAP without a program"));
        }
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u8(self.family);
        out.put_u8(self.proto);
        out.put_u64(self.end);
        draft.payload = self.filter.clone();
        Ok(())
    }

    pub(super) fn decode(mut body: Body) -> Result<NCap, Reason> {
        let (socket, family, proto, end) = (body.u8()?, body.u8()?, body.u8()?, body.u64()?);
        if body.len() == 0 {
            return Err("NCAP without a program");
        }
        Ok(NCap { socket, family, proto, end, filter: body.rest() })
    }
}

impl NCtl {
    pub(super) fn encode(&self, draft: &mut Draft) {
        let out = &mut draft.head;
        out.put_u8(self.socket);
        out.put_u8(self.family);
        out.put_u8(Proto::Tcp.octet());
        out.put_u64(self.time);
        out.put_u8(self.command);
    }

    /// Bytes after the command are ignored, as the spec has it.
    pub(super) fn decode(mut body: Body) -> Result<NCtl, Reason> {
        let (socket, family) = (body.u8()?, body.u8()?);
        if Proto::from_octet(body.u8()?) != Some(Proto::Tcp) {
            return Err("NCTL for another protocol than TCP");
        }
        Ok(NCtl { socket, family, time: body.u64()?, command: body.u8()? })
    }
}

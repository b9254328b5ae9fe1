//! From [`Message`] to bytes and back: header, type codes, and the small messages that have no file of their own.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::fields::{Body, Reason};
use super::{Channels, ErrId, HEADER_LEN, MAX_BODY, Message, Outcome};

/// What a decoder made of `type, length, body`. A stream never loses its place: the next frame starts behind this one
/// whatever it was (spec `messages.md` §1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Message(Message),
    /// A known type whose body breaks a rule.
    Malformed {
        code: u8,
        raw: Bytes,
        reason: &'static str,
    },
    /// A type without assignment, the private range 0x90–0xFF included. `raw` has the header.
    Unknown {
        code: u8,
        raw: Bytes,
    },
}

/// An encoded message in two pieces, so that large payloads are never copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Header and fixed fields.
    pub head: Bytes,
    /// The rest; may be empty.
    pub payload: Bytes,
}

impl Encoded {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Both pieces in one buffer.
    pub fn to_vec(&self) -> Vec<u8> {
        [&self.head[..], &self.payload[..]].concat()
    }
}

/// A message that has no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("message body of {0} bytes exceeds the {MAX_BODY} bytes a header can announce; send it in parts")]
    TooLarge(usize),
    #[error("cannot encode the message: {0}")]
    Invalid(&'static str),
}

/// A body under construction: fixed fields, then an optional payload that is not copied.
pub(super) struct Draft {
    pub head: BytesMut,
    pub payload: Bytes,
}

impl Draft {
    pub fn new() -> Draft {
        let mut head = BytesMut::with_capacity(64);
        head.put_u32(0);
        Draft { head, payload: Bytes::new() }
    }

    /// Fills in the header.
    pub fn finish(mut self, code: u8) -> Result<Encoded, EncodeError> {
        let len = self.head.len() - HEADER_LEN + self.payload.len();
        if len > MAX_BODY {
            return Err(EncodeError::TooLarge(len));
        }
        self.head[..HEADER_LEN].copy_from_slice(&((u32::from(code) << 24) | len as u32).to_be_bytes());
        Ok(Encoded { head: self.head.freeze(), payload: self.payload })
    }
}

/// Type and body length out of a header.
pub(super) fn header(bytes: [u8; HEADER_LEN]) -> (u8, usize) {
    let word = u32::from_be_bytes(bytes);
    ((word >> 24) as u8, (word & 0xFF_FFFF) as usize)
}

impl Message {
    /// The type byte (spec `messages.md` §2).
    pub fn code(&self) -> u8 {
        match self {
            Message::CData { .. } => 0x20,
            Message::Start => 0x21,
            Message::End => 0x22,
            Message::Yield { .. } => 0x23,
            Message::Cont => 0x24,
            Message::MRead { .. } => 0x28,
            Message::MWrite { .. } => 0x29,
            Message::NOpen(_) => 0x2A,
            Message::NClose { .. } => 0x2B,
            Message::NSend(_) => 0x2C,
            Message::NCap(_) => 0x2D,
            Message::NCtl(_) => 0x2E,
            Message::XCert { .. } => 0x30,
            Message::XPub(_) => 0x31,
            Message::XSub(_) => 0x38,
            Message::Result(_) => 0x40,
            Message::MData { .. } => 0x41,
            Message::NTag(_) => 0x60,
            Message::NStat(_) => 0x61,
            Message::NData(_) => 0x62,
            Message::NDrop(_) => 0x63,
            Message::NBlock(_) => 0x64,
            Message::LInfo { .. } => 0x65,
            Message::Suspd => 0x68,
            Message::Resumd => 0x69,
            Message::XNotify { .. } => 0x70,
            Message::XReg { .. } => 0x80,
        }
    }

    /// Encodes in the canonical form (spec `messages.md` §5). An encoder obeys the same rules as a decoder.
    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut draft = Draft::new();
        let out = &mut draft.head;
        match self {
            Message::Start | Message::End | Message::Cont | Message::Suspd | Message::Resumd => {}
            Message::CData { hint, data } => {
                let len = u8::try_from(hint.len())
                    .map_err(|_| EncodeError::Invalid("hint longer than 255 bytes"))?;
                out.put_u8(len);
                out.put_slice(hint);
                draft.payload = data.clone();
            }
            Message::Yield { resume } => out.put_u64(*resume),
            Message::MRead { addr, len } => {
                check_range(*addr, usize::from(*len)).map_err(EncodeError::Invalid)?;
                if *len == 0 {
                    return Err(EncodeError::Invalid("MREAD of no bytes"));
                }
                out.put_u32(*addr);
                out.put_u16(*len);
            }
            Message::MWrite { addr, data } => {
                check_range(*addr, data.len()).map_err(EncodeError::Invalid)?;
                out.put_u32(*addr);
                draft.payload = data.clone();
            }
            Message::MData { addr, data } => {
                out.put_u32(*addr);
                draft.payload = data.clone();
            }
            Message::NClose { socket } => out.put_u8(*socket),
            Message::NOpen(m) => m.encode(&mut draft)?,
            Message::NSend(m) => m.encode(&mut draft)?,
            Message::NCap(m) => m.encode(&mut draft)?,
            Message::NCtl(m) => m.encode(&mut draft),
            Message::NTag(m) => m.encode(&mut draft),
            Message::NStat(m) => m.encode(&mut draft),
            Message::NData(m) => m.encode(&mut draft)?,
            Message::NDrop(m) => m.encode(&mut draft),
            Message::NBlock(m) => m.encode(&mut draft),
            Message::Result(outcome) => match *outcome {
                Outcome::Plain(ErrId::SUCCESS) => {}
                Outcome::Plain(ErrId::ECTLMONREJ | ErrId::ECTLMONUKN) => {
                    return Err(EncodeError::Invalid("this errid needs a monitor index"));
                }
                Outcome::Plain(errid) => out.put_u16(errid.0),
                Outcome::MonitorRejected { index, errid } => {
                    out.put_u16(ErrId::ECTLMONREJ.0);
                    out.put_u16(index);
                    out.put_u16(errid);
                }
                Outcome::MonitorFailed { index } => {
                    out.put_u16(ErrId::ECTLMONUKN.0);
                    out.put_u16(index);
                }
            },
            Message::LInfo { name, aux, info } => {
                for part in [name, aux, info] {
                    let len = u32::try_from(part.len()).map_err(|_| EncodeError::TooLarge(part.len()))?;
                    out.put_u32(len);
                }
                out.put_slice(name);
                out.put_slice(aux);
                draft.payload = info.clone();
            }
            Message::XCert { der } => {
                if der.is_empty() {
                    return Err(EncodeError::Invalid("empty certificate"));
                }
                draft.payload = der.clone();
            }
            Message::XPub(m) => m.encode(&mut draft, false)?,
            Message::XSub(m) => m.encode(&mut draft, true)?,
            Message::XNotify { channel, descriptor } => {
                super::broker::encode_notify(&mut draft, channel, descriptor)?;
            }
            Message::XReg { snikey } => {
                super::broker::check_snikey(snikey.as_bytes()).map_err(EncodeError::Invalid)?;
                out.put_slice(snikey.as_bytes());
            }
        }
        draft.finish(self.code())
    }

    /// Decodes one whole message, header included; `raw` must be exactly as long as its header says (the readers of this
    /// crate see to that; anything else comes back as malformed).
    pub fn decode(raw: Bytes) -> Frame {
        let Some(head) = raw.first_chunk::<HEADER_LEN>() else {
            return Frame::Malformed { code: 0, raw, reason: "shorter than a header" };
        };
        let (code, len) = header(*head);
        if raw.len() != HEADER_LEN + len {
            return Frame::Malformed { code, raw, reason: "length differs from the header's" };
        }
        let mut body = raw.clone();
        body.advance(HEADER_LEN);
        match decode_body(code, Body(body)) {
            Ok(Some(message)) => Frame::Message(message),
            Ok(None) => Frame::Unknown { code, raw },
            Err(reason) => Frame::Malformed { code, raw, reason },
        }
    }
}

fn decode_body(code: u8, mut body: Body) -> Result<Option<Message>, Reason> {
    Ok(Some(match code {
        0x20 => {
            let len = body.u8()?;
            Message::CData { hint: body.bytes(len.into())?, data: body.rest() }
        }
        0x21 => body.end().map(|()| Message::Start)?,
        0x22 => body.end().map(|()| Message::End)?,
        0x23 => {
            let resume = body.u64()?;
            body.end()?;
            Message::Yield { resume }
        }
        0x24 => body.end().map(|()| Message::Cont)?,
        0x28 => {
            let (addr, len) = (body.u32()?, body.u16()?);
            body.end()?;
            if len == 0 {
                return Err("MREAD of no bytes");
            }
            check_range(addr, len.into())?;
            Message::MRead { addr, len }
        }
        0x29 => {
            let addr = body.u32()?;
            check_range(addr, body.len())?;
            Message::MWrite { addr, data: body.rest() }
        }
        0x2A => Message::NOpen(super::NOpen::decode(body)?),
        0x2B => {
            let socket = body.u8()?;
            body.end()?;
            Message::NClose { socket }
        }
        0x2C => Message::NSend(super::NSend::decode(body)?),
        0x2D => Message::NCap(super::NCap::decode(body)?),
        0x2E => Message::NCtl(super::NCtl::decode(body)?),
        0x30 => {
            if body.len() == 0 {
                return Err("empty certificate");
            }
            Message::XCert { der: body.rest() }
        }
        0x31 => Message::XPub(Channels::decode(body, false)?),
        0x38 => Message::XSub(Channels::decode(body, true)?),
        0x40 => Message::Result(decode_outcome(body)?),
        0x41 => Message::MData { addr: body.u32()?, data: body.rest() },
        0x60 => Message::NTag(super::NTag::decode(body)?),
        0x61 => Message::NStat(super::NStat::decode(body)?),
        0x62 => Message::NData(super::NData::decode(body)?),
        0x63 => Message::NDrop(super::NDrop::decode(body)?),
        0x64 => Message::NBlock(super::NBlock::decode(body)?),
        0x65 => {
            let (name, aux, info) = (body.u32()?, body.u32()?, body.u32()?);
            if u64::from(name) + u64::from(aux) + u64::from(info) != body.len() as u64 {
                return Err("LINFO lengths differ from the body's");
            }
            Message::LInfo {
                name: body.bytes(name as usize)?,
                aux: body.bytes(aux as usize)?,
                info: body.rest(),
            }
        }
        0x68 => body.end().map(|()| Message::Suspd)?,
        0x69 => body.end().map(|()| Message::Resumd)?,
        0x70 => super::broker::decode_notify(body)?,
        0x80 => {
            let text = body.rest();
            super::broker::check_snikey(&text)?;
            Message::XReg { snikey: String::from_utf8_lossy(&text).into_owned() }
        }
        _ => return Ok(None),
    }))
}

fn decode_outcome(mut body: Body) -> Result<Outcome, Reason> {
    if !matches!(body.len(), 0 | 2 | 4 | 6) {
        return Err("RESULT of an odd length");
    }
    if body.len() == 0 {
        return Ok(Outcome::Plain(ErrId::SUCCESS));
    }
    Ok(match ErrId(body.u16()?) {
        ErrId::ECTLMONREJ => Outcome::MonitorRejected { index: body.u16()?, errid: body.u16()? },
        ErrId::ECTLMONUKN => Outcome::MonitorFailed { index: body.u16()? },
        errid => Outcome::Plain(errid),
    })
}

/// The rule of MREAD and MWRITE: `addr` must not exceed 0xFFFFFFFF − length.
fn check_range(addr: u32, len: usize) -> Result<(), Reason> {
    if u64::from(addr) + len as u64 > u64::from(u32::MAX) {
        return Err("memory range ends beyond the address space");
    }
    Ok(())
}

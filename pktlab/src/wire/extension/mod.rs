//! Messages out of the private range (`docs/extensions.md`), which need an extension bit of the endpoint.
//!
//! [`Message::decode`](super::Message::decode) leaves their types unknown: only a session that enabled the bit gives a frame
//! to [`ExtRequest::decode`] or [`ExtNote::decode`].

mod notify;
mod request;

pub use notify::{NAccpt, NDatx, NErr, NTagx, NTime};
pub use request::{NOpt, NTake, NWait, SockOpt};

use bytes::{Buf, Bytes};

use super::codec::{EncodeError, Encoded};
use super::fields::{Body, Reason};
use super::{HEADER_LEN, codec};

/// A request of the private range, controller to endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtRequest {
    NOpt(NOpt),
    NWait(NWait),
    NTake(NTake),
}

/// A notification of the private range, endpoint to controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtNote {
    NErr(NErr),
    NAccpt(NAccpt),
    NTime(NTime),
    NDatx(NDatx),
    NTagx(NTagx),
}

impl ExtRequest {
    /// The type byte.
    pub fn code(&self) -> u8 {
        match self {
            ExtRequest::NOpt(_) => NOpt::CODE,
            ExtRequest::NWait(_) => NWait::CODE,
            ExtRequest::NTake(_) => NTake::CODE,
        }
    }

    /// Header and body; none of these has a form that cannot be encoded.
    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        match self {
            ExtRequest::NOpt(m) => m.encode(),
            ExtRequest::NWait(m) => m.encode(),
            ExtRequest::NTake(m) => m.encode(),
        }
    }

    /// Decodes a frame that came as unknown, header included. `None` when `code` is no request of an extension; an error
    /// says why the body is malformed.
    pub fn decode(code: u8, raw: &Bytes) -> Option<Result<ExtRequest, &'static str>> {
        Some(match code {
            NOpt::CODE => body(code, raw).and_then(NOpt::decode).map(ExtRequest::NOpt),
            NWait::CODE => body(code, raw).and_then(NWait::decode).map(ExtRequest::NWait),
            NTake::CODE => body(code, raw).and_then(NTake::decode).map(ExtRequest::NTake),
            _ => return None,
        })
    }
}

impl ExtNote {
    /// The type byte.
    pub fn code(&self) -> u8 {
        match self {
            ExtNote::NErr(_) => NErr::CODE,
            ExtNote::NAccpt(_) => NAccpt::CODE,
            ExtNote::NTime(_) => NTime::CODE,
            ExtNote::NDatx(_) => NDatx::CODE,
            ExtNote::NTagx(_) => NTagx::CODE,
        }
    }

    /// Header and body; an error for addresses that contradict each other and for data beyond the length field.
    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        match self {
            ExtNote::NErr(m) => m.encode(),
            ExtNote::NAccpt(m) => m.encode(),
            ExtNote::NTime(m) => m.encode(),
            ExtNote::NDatx(m) => m.encode(),
            ExtNote::NTagx(m) => m.encode(),
        }
    }

    /// As [`ExtRequest::decode`], for notifications.
    pub fn decode(code: u8, raw: &Bytes) -> Option<Result<ExtNote, &'static str>> {
        Some(match code {
            NErr::CODE => body(code, raw).and_then(NErr::decode_body).map(ExtNote::NErr),
            NAccpt::CODE => body(code, raw).and_then(NAccpt::decode).map(ExtNote::NAccpt),
            NTime::CODE => body(code, raw).and_then(NTime::decode).map(ExtNote::NTime),
            NDatx::CODE => body(code, raw).and_then(NDatx::decode).map(ExtNote::NDatx),
            NTagx::CODE => body(code, raw).and_then(NTagx::decode).map(ExtNote::NTagx),
            _ => return None,
        })
    }
}

/// The body behind a header that must announce exactly this type and length.
fn body(code: u8, raw: &Bytes) -> Result<Body, Reason> {
    let head = raw.first_chunk::<HEADER_LEN>().ok_or("shorter than a header")?;
    if codec::header(*head) != (code, raw.len() - HEADER_LEN) {
        return Err("type or length differ from the header's");
    }
    let mut body = raw.clone();
    body.advance(HEADER_LEN);
    Ok(Body(body))
}

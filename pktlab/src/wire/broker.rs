//! Messages of brokers and proxies: XPUB, XSUB, XNOTIFY, XREG (spec `messages.md` §4.18–4.21).

use bytes::{BufMut, Bytes, BytesMut};

use super::Message;
use super::codec::{Draft, EncodeError};
use super::fields::{Body, Reason};
use crate::descriptor;

const MAX_CHANNEL: usize = 32;
/// Longest descriptor or attribute text in bytes, a limit of our own (spec `messages.md` §7.6): real ones take a few
/// hundred, and taking 16 MiB of `a=;` apart would cost ten times as much memory.
const MAX_TEXT: usize = 64 * 1024;

/// XPUB and XSUB (spec `messages.md` §4.18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    pub channels: ChannelList,
    /// Raw Ed25519 key of the endpoint operator at the root of the certificates sent before; zeros when none were.
    pub operator_key: [u8; 32],
    /// XPUB: experiment descriptor; XSUB: endpoint attributes. ASCII, may be empty.
    pub text: Bytes,
}

/// Any number of channel identifiers of 1–32 bytes each. Kept in wire form: as a vector, a hostile list of one-byte
/// identifiers would take many times the memory it took to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelList(Bytes);

impl ChannelList {
    /// A list of these identifiers; an error if one is empty or longer than 32 bytes.
    pub fn new<I: AsRef<[u8]>>(ids: impl IntoIterator<Item = I>) -> Result<ChannelList, EncodeError> {
        let mut wire = BytesMut::new();
        for id in ids {
            let id = id.as_ref();
            check_channel(id).map_err(EncodeError::Invalid)?;
            wire.put_u8(id.len() as u8);
            wire.put_slice(id);
        }
        wire.put_u8(0);
        Ok(ChannelList(wire.freeze()))
    }

    /// The identifiers in written order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (&len, tail) = rest.split_first()?;
            let (id, tail) = tail.split_at_checked(len.into())?;
            rest = tail;
            (len > 0).then_some(id)
        })
    }

    /// The list as on the wire, its terminating zero included.
    pub fn as_wire(&self) -> &Bytes {
        &self.0
    }

    fn decode(body: &mut Body) -> Result<ChannelList, Reason> {
        let mut end = 0;
        loop {
            match body.0.get(end).map(|len| usize::from(*len)) {
                None => return Err("channel list does not end"),
                Some(0) => break,
                Some(len @ 1..=MAX_CHANNEL) => end += 1 + len,
                Some(_) => return Err("channel identifier longer than 32 bytes"),
            }
        }
        // The zero was found inside the body.
        Ok(ChannelList(body.bytes(end + 1)?))
    }
}

impl Default for ChannelList {
    /// No channel.
    fn default() -> Self {
        ChannelList(Bytes::from_static(&[0]))
    }
}

impl Channels {
    /// `attributes` tells XSUB's text rules from XPUB's.
    pub(super) fn decode(mut body: Body, attributes: bool) -> Result<Channels, Reason> {
        let channels = ChannelList::decode(&mut body)?;
        let mut operator_key = [0; 32];
        operator_key.copy_from_slice(&body.bytes(32)?);
        let text = body.rest();
        check_text(&text, attributes)?;
        Ok(Channels { channels, operator_key, text })
    }

    pub(super) fn encode(&self, draft: &mut Draft, attributes: bool) -> Result<(), EncodeError> {
        check_text(&self.text, attributes).map_err(EncodeError::Invalid)?;
        draft.head.put_slice(self.channels.as_wire());
        draft.head.put_slice(&self.operator_key);
        draft.payload = self.text.clone();
        Ok(())
    }
}

pub(super) fn encode_notify(draft: &mut Draft, channel: &Bytes, text: &Bytes) -> Result<(), EncodeError> {
    check_channel(channel).map_err(EncodeError::Invalid)?;
    check_text(text, false).map_err(EncodeError::Invalid)?;
    draft.head.put_u8(channel.len() as u8);
    draft.head.put_slice(channel);
    draft.payload = text.clone();
    Ok(())
}

pub(super) fn decode_notify(mut body: Body) -> Result<Message, Reason> {
    let len = body.u8()?;
    let channel = body.bytes(len.into())?;
    check_channel(&channel)?;
    let descriptor = body.rest();
    check_text(&descriptor, false)?;
    Ok(Message::XNotify { channel, descriptor })
}

fn check_channel(channel: &[u8]) -> Result<(), Reason> {
    match channel.len() {
        1..=MAX_CHANNEL => Ok(()),
        _ => Err("channel identifier must have 1 to 32 bytes"),
    }
}

fn check_text(text: &[u8], attributes: bool) -> Result<(), Reason> {
    if text.len() > MAX_TEXT {
        return Err("descriptor or attributes longer than 64 KiB");
    }
    let parsed = if attributes { descriptor::parse_attributes(text) } else { descriptor::parse(text) };
    parsed.map(drop).map_err(|_| "descriptor or attributes break the grammar")
}

pub(super) fn check_snikey(key: &[u8]) -> Result<(), Reason> {
    let legal = |c: &u8| c.is_ascii_digit() || c.is_ascii_lowercase();
    if (1..=63).contains(&key.len()) && key.iter().all(legal) {
        Ok(())
    } else {
        Err("snikey must be 1 to 63 characters of 0-9 a-z")
    }
}

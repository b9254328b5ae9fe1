//! Messages of brokers and proxies: XPUB, XSUB, XNOTIFY, XREG (spec `messages.md` §4.18–4.21).

use bytes::{BufMut, Bytes};

use super::codec::{Draft, EncodeError};
use super::fields::{Body, Reason};
use super::{Channels, Message};
use crate::descriptor;

const MAX_CHANNEL: usize = 32;

impl Channels {
    /// `attributes` tells XSUB's text rules from XPUB's.
    pub(super) fn decode(mut body: Body, attributes: bool) -> Result<Channels, Reason> {
        let mut channels = Vec::new();
        loop {
            match usize::from(body.u8().map_err(|_| "channel list does not end")?) {
                0 => break,
                len @ 1..=MAX_CHANNEL => channels.push(body.bytes(len)?),
                _ => return Err("channel identifier longer than 32 bytes"),
            }
        }
        let mut operator_key = [0; 32];
        operator_key.copy_from_slice(&body.bytes(32)?);
        let text = body.rest();
        check_text(&text, attributes)?;
        Ok(Channels { channels, operator_key, text })
    }

    pub(super) fn encode(&self, draft: &mut Draft, attributes: bool) -> Result<(), EncodeError> {
        for channel in &self.channels {
            check_channel(channel).map_err(EncodeError::Invalid)?;
            draft.head.put_u8(channel.len() as u8);
            draft.head.put_slice(channel);
        }
        draft.head.put_u8(0);
        draft.head.put_slice(&self.operator_key);
        check_text(&self.text, attributes).map_err(EncodeError::Invalid)?;
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

//! Abstract unix socket names (leading NUL implied, not part of the strings here).
//!
//! | name | who binds it | type |
//! |---|---|---|
//! | `pktwrap/SESSION/call` | supervisor | SEQPACKET listener for [`crate::call`] |
//! | `pktwrap/SESSION/stream` | supervisor | STREAM listener for [`crate::stream`] |
//! | `pktwrap/SESSION/dgram` | supervisor | SEQPACKET listener for [`crate::datagram`] |
//! | `pktwrap/SESSION/KF/ID` | the program's socket | K: `t` TCP, `u` UDP, `i` ICMP datagram, `r` raw; F: `4`, `6` |
//!
//! SESSION is 16 hex digits, ID is 16 hex digits (a [`crate::page`] socket id).

use crate::page::SocketKey;

/// Longest name written here, in bytes, without the leading NUL.
pub const MAX_NAME: usize = 48;

/// A name in place, no heap.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    len: usize,
}

impl Name {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    fn prefix(session: u64) -> Name {
        let mut name = Name { bytes: [0; MAX_NAME], len: 0 };
        name.push(b"pktwrap/");
        name.push(&hex16(session));
        name.push(b"/");
        name
    }
}

/// The three listeners of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Call,
    Stream,
    Datagram,
}

pub fn listener(session: u64, which: Listener) -> Name {
    let mut name = Name::prefix(session);
    name.push(match which {
        Listener::Call => b"call",
        Listener::Stream => b"stream",
        Listener::Datagram => b"dgram",
    });
    name
}

/// What kind of IP socket a unix socket stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Tcp = b't',
    Udp = b'u',
    Icmp = b'i',
    Raw = b'r',
}

/// The name a program's socket is bound to. `family` is 4 or 6.
pub fn socket(session: u64, kind: Kind, family: u8, id: SocketKey) -> Name {
    let mut name = Name::prefix(session);
    name.push(&[kind as u8, b'0' + family, b'/']);
    name.push(&hex16(id));
    name
}

/// Kind, family (4 or 6) and id of a name made by [`socket`] for this session; `None` for every other name.
pub fn parse(session: u64, name: &[u8]) -> Option<(Kind, u8, SocketKey)> {
    let prefix = Name::prefix(session);
    let rest = name.strip_prefix(prefix.as_bytes())?;
    if rest.len() != 3 + 16 || rest[2] != b'/' {
        return None;
    }
    let kind = match rest[0] {
        b't' => Kind::Tcp,
        b'u' => Kind::Udp,
        b'i' => Kind::Icmp,
        b'r' => Kind::Raw,
        _ => return None,
    };
    let family = match rest[1] {
        b'4' => 4,
        b'6' => 6,
        _ => return None,
    };
    Some((kind, family, parse_hex16(&rest[3..])?))
}

/// Value of [`crate::ENV_LINK`]: session and token.
pub fn parse_env(value: &[u8]) -> Option<(u64, crate::Token)> {
    if value.len() != 48 {
        return None;
    }
    let high = parse_hex16(&value[16..32])?.to_be_bytes();
    let low = parse_hex16(&value[32..])?.to_be_bytes();
    let mut token = [0; 16];
    token[..8].copy_from_slice(&high);
    token[8..].copy_from_slice(&low);
    Some((parse_hex16(&value[..16])?, token))
}

fn hex16(value: u64) -> [u8; 16] {
    let mut out = [0; 16];
    for (i, digit) in out.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (60 - 4 * i)) as usize & 0xF];
    }
    out
}

fn parse_hex16(text: &[u8]) -> Option<u64> {
    if text.len() != 16 {
        return None;
    }
    text.iter().try_fold(0u64, |value, &c| {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_names_come_back() {
        let name = socket(0xfeed_0000_0000_0001, Kind::Udp, 6, 42);
        assert_eq!(parse(0xfeed_0000_0000_0001, name.as_bytes()), Some((Kind::Udp, 6, 42)));
        assert_eq!(parse(0xfeed_0000_0000_0002, name.as_bytes()), None, "other session");
        assert_eq!(parse(0xfeed_0000_0000_0001, &name.as_bytes()[..20]), None);
        let listener = listener(0xfeed_0000_0000_0001, Listener::Datagram);
        assert_eq!(parse(0xfeed_0000_0000_0001, listener.as_bytes()), None);
    }

    #[test]
    fn environment_value() {
        let (session, token) =
            parse_env(b"00000000000000ff000102030405060708090a0b0c0d0e0f").expect("well-formed");
        assert_eq!(session, 255);
        assert_eq!(token[15], 15);
        assert!(parse_env(b"00000000000000ff").is_none());
        assert!(parse_env(&[b'G'; 48]).is_none());
    }
}

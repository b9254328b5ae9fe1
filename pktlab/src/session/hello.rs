//! The SNI key of a ClientHello, read from the bytes themselves: TLS libraries fold case and drop names they do not
//! like, but an unknown or malformed key must fail and never fall back to the default entry (spec `session.md` §5).

use super::Snikey;

/// What `server_name` of a ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HelloName {
    /// No extension, or one too short to hold a name.
    Absent,
    Key(Snikey),
    /// Anything else.
    Malformed,
}

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;

/// Reads TLS records up to the end of the ClientHello. Bytes that are no ClientHello count as malformed.
pub(super) fn server_name(records: &[u8]) -> HelloName {
    let Some(message) = handshake_message(records) else { return HelloName::Malformed };
    match find_extension(&message) {
        None => HelloName::Malformed,
        Some(None) => HelloName::Absent,
        Some(Some(body)) if body.len() <= 2 => HelloName::Absent,
        Some(Some(body)) => single_name(body).map_or(HelloName::Malformed, HelloName::Key),
    }
}

/// The body of the first handshake message, put together from its records.
fn handshake_message(mut records: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let header = records.get(..5)?;
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != HANDSHAKE_RECORD || length == 0 {
            return None;
        }
        message.extend_from_slice(records.get(5..5 + length)?);
        records = &records[5 + length..];
        if let [kind, a, b, c, body @ ..] = &message[..] {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if *kind != CLIENT_HELLO {
                return None;
            }
            if let Some(body) = body.get(..length) {
                return Some(body.to_vec());
            }
        }
    }
}

/// `None` if the hello is malformed, else the body of its `server_name` extension, if there is one.
fn find_extension(hello: &[u8]) -> Option<Option<&[u8]>> {
    // legacy_version and random come first, then session id, cipher suites and compression methods.
    let (_, rest) = vector8(hello.get(34..)?)?;
    let (_, rest) = vector16(rest)?;
    let (_, rest) = vector8(rest)?;
    if rest.is_empty() {
        return Some(None);
    }
    let (mut extensions, _) = vector16(rest)?;
    while !extensions.is_empty() {
        let kind = u16::from_be_bytes(extensions.get(..2)?.try_into().ok()?);
        let (body, rest) = vector16(&extensions[2..])?;
        if kind == SERVER_NAME {
            return Some(Some(body));
        }
        extensions = rest;
    }
    Some(None)
}

/// The key, if the list holds exactly one entry and that is a host name that fits.
fn single_name(body: &[u8]) -> Option<Snikey> {
    let (list, rest) = vector16(body)?;
    let (&kind, entry) = list.split_first()?;
    let (name, after) = vector16(entry)?;
    if kind != 0 || !rest.is_empty() || !after.is_empty() {
        return None;
    }
    Snikey::try_from(std::str::from_utf8(name).ok()?).ok()
}

fn vector8(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = input.split_first()?;
    rest.split_at_checked(usize::from(length))
}

fn vector16(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_at_checked(2)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([length[0], length[1]])))
}

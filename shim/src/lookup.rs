//! Asking the supervisor for names and addresses, and DNS messages by hand.

use pktwrap_link::call::op;
use pktwrap_link::{Addr, Plain};

use crate::state;

/// Most addresses of one name handed on.
pub const MAX_ADDRS: usize = 64;
/// Longest name in presentation form.
pub const MAX_NAME: usize = 1025;

/// A resolved name.
pub struct Found {
    pub addrs: [Addr; MAX_ADDRS],
    pub count: usize,
    pub canonical: [u8; MAX_NAME],
    pub canonical_len: usize,
}

/// EAI_* as in netdb.h where libc has no constant.
pub const EAI_NODATA: i32 = -5;
pub const EAI_ADDRFAMILY: i32 = -9;

/// Name → addresses. `family`: 0 (both), 4 or 6. `Err` is an EAI_* code (errno set for EAI_SYSTEM).
pub fn resolve(name: &[u8], family: u8, canonical: bool, found: &mut Found) -> Result<(), i32> {
    let mut answer = [0u8; MAX_ADDRS * size_of::<Addr>() + MAX_NAME];
    let args = [u32::from(family), u32::from(canonical), 0, 0];
    let Some((reply, filled)) = state::ask(op::RESOLVE, args, name, &mut answer) else {
        return Err(libc::EAI_AGAIN);
    };
    if reply.status != 0 {
        if reply.status == libc::EAI_SYSTEM {
            crate::sys::set_errno(reply.errno);
        }
        return Err(reply.status);
    }
    let sent = reply.args[0] as usize;
    let mut at = 0;
    found.count = 0;
    for _ in 0..sent {
        let Some(addr) = answer.get(at..filled).and_then(Addr::from_bytes) else { break };
        at += size_of::<Addr>();
        if found.count < MAX_ADDRS && (addr.family == family || family == 0 && matches!(addr.family, 4 | 6)) {
            found.addrs[found.count] = addr;
            found.count += 1;
        }
    }
    let text = answer.get(at..filled).unwrap_or_default();
    let len = text.len().min(reply.args[1] as usize).min(MAX_NAME - 1);
    found.canonical[..len].copy_from_slice(&text[..len]);
    found.canonical_len = len;
    if found.count == 0 { Err(EAI_NODATA) } else { Ok(()) }
}

impl Found {
    pub const EMPTY: Found =
        Found { addrs: [Addr::NONE; MAX_ADDRS], count: 0, canonical: [0; MAX_NAME], canonical_len: 0 };
}

/// Address → name; the bytes written or an EAI_* code.
pub fn reverse(addr: &Addr, name: &mut [u8; MAX_NAME]) -> Result<usize, i32> {
    match state::ask(op::REVERSE, [0; 4], addr.as_bytes(), &mut name[..MAX_NAME - 1]) {
        None => Err(libc::EAI_AGAIN),
        Some((reply, filled)) if reply.status == 0 && filled > 0 => Ok(filled),
        Some((reply, _)) if reply.status == 0 => Err(libc::EAI_NONAME),
        Some((reply, _)) => Err(reply.status),
    }
}

/// Sends a DNS message, receives the answer; its true length, which may be more than there is room for.
pub fn query(message: &[u8], answer: &mut [u8]) -> Option<usize> {
    let (reply, _) = state::ask(op::QUERY, [0; 4], message, answer)?;
    (reply.status == 0).then_some(reply.len as usize)
}

/// A DNS query for `name`; its length, or `None` for a name that is no domain name.
pub fn question(name: &[u8], class: u16, kind: u16, id: u16, out: &mut [u8; 300]) -> Option<usize> {
    out[..2].copy_from_slice(&id.to_be_bytes());
    // Recursion desired, one question.
    out[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let mut at = 12;
    let name = name.strip_suffix(b".").unwrap_or(name);
    if !name.is_empty() {
        for label in name.split(|&c| c == b'.') {
            if label.is_empty() || label.len() > 63 || at + label.len() + 2 > 12 + 255 {
                return None;
            }
            out[at] = label.len() as u8;
            out[at + 1..at + 1 + label.len()].copy_from_slice(label);
            at += 1 + label.len();
        }
    }
    out[at] = 0;
    out[at + 1..at + 3].copy_from_slice(&kind.to_be_bytes());
    out[at + 3..at + 5].copy_from_slice(&class.to_be_bytes());
    Some(at + 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_the_labels_of_its_name() {
        let mut out = [0; 300];
        let len = question(b"a.example.", 1, 28, 7, &mut out).expect("a name");
        assert_eq!(&out[..len], b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x1c\0\x01");
        assert_eq!(question(b".", 1, 2, 0, &mut out), Some(17));
        assert_eq!(question(b"a..b", 1, 1, 0, &mut out), None);
        assert_eq!(question(&[b'x'; 64], 1, 1, 0, &mut out), None);
        let long = [b"abcdefghi.".as_slice(); 30].concat();
        assert_eq!(question(&long, 1, 1, 0, &mut out), None);
    }
}

//! Control calls: connect to the call listener, send one [`Request`] with its payload, receive one [`Reply`] with its
//! payload, close.

use crate::{Plain, Token};

/// Most bytes of payload in either direction (a DNS message over TCP and some names fit).
pub const MAX_PAYLOAD: usize = 65535 + 1024;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub version: u32,
    /// [`op`].
    pub op: u32,
    pub token: Token,
    /// Meaning depends on the operation.
    pub args: [u32; 4],
    /// Payload bytes that follow.
    pub len: u32,
    pub pid: u32,
}

// SAFETY: repr(C), 4+4+16+16+4+4 bytes without padding, integers only.
unsafe impl Plain for Request {}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply {
    /// 0, or an operation-specific code (EAI_*, h_errno, errno).
    pub status: i32,
    /// errno when the status is EAI_SYSTEM or the operation failed in the supervisor.
    pub errno: i32,
    pub args: [u32; 4],
    pub len: u32,
    pub reserved: u32,
}

// SAFETY: repr(C), 4+4+16+4+4 bytes without padding, integers only.
unsafe impl Plain for Reply {}

/// Values of [`Request::op`].
pub mod op {
    /// No payload. Reply carries the page's memfd as SCM_RIGHTS; args[0] = its length in bytes.
    pub const PAGE: u32 = 1;
    /// Name → addresses. Payload: the name. args[0]: family wanted (0 both, 4, 6); args[1]: 1 = canonical name wanted.
    /// Reply status: 0 or EAI_* (negative, as in netdb.h); payload: args[0] × [`crate::Addr`] (port 0, in the order to
    /// use), then the canonical name (args[1] bytes).
    pub const RESOLVE: u32 = 2;
    /// Address → name. Payload: one [`crate::Addr`]. Reply status as RESOLVE (EAI_NONAME: no name); payload: the name.
    pub const REVERSE: u32 = 3;
    /// Raw DNS query. Payload: a DNS message (only header and question are used). Reply status: 0, or -1 for no answer at
    /// all (TRY_AGAIN); payload: the answer message as received.
    pub const QUERY: u32 = 4;
}

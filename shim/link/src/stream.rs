//! The start of a TCP connection on its way to the supervisor.

use crate::{Addr, Plain, Token, page::SocketKey};

/// SO_SNDBUF a shim sets on every TCP socket before connecting: fixes how many cork bytes fit.
pub const SNDBUF: i32 = 32768;

/// First bytes on a connection to the stream listener; cork bytes (any value, their number in the slot) follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StreamHeader {
    pub version: u32,
    /// 4 or 6.
    pub family: u32,
    pub id: SocketKey,
    pub token: Token,
    pub remote: Addr,
    /// What the program bound; [`Addr::NONE`] when it did not.
    pub local: Addr,
    pub reserved: [u8; 32],
}

// SAFETY: repr(C), 4+4+8+16+24+24+32 bytes without padding, integers only.
unsafe impl Plain for StreamHeader {}

const _: () = assert!(size_of::<StreamHeader>() == 112);

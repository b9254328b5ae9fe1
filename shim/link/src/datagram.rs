//! Frames of datagram sockets (SEQPACKET, one frame a message).

use crate::{Addr, Plain, Token, page::SocketKey};

/// Largest payload of a frame, the largest UDP payload over IPv4; more is EMSGSIZE.
pub const MAX_PAYLOAD: usize = 65507;

/// First message on a connection to the datagram listener.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DatagramHello {
    pub version: u32,
    /// [`crate::names::Kind`] as its letter.
    pub kind: u8,
    /// 4 or 6.
    pub family: u8,
    pub protocol: u16,
    pub id: SocketKey,
    pub token: Token,
}

// SAFETY: repr(C), 4+1+1+2+8+16 bytes without padding, integers only.
unsafe impl Plain for DatagramHello {}

/// In front of every later message in both directions; the payload follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameHeader {
    /// [`frame_kind`].
    pub kind: u8,
    pub flags: u8,
    /// TTL or hop limit: to the endpoint 0 = default; from the endpoint 0 = unknown.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// Payload bytes (the message may have been cut by the reader's buffer).
    pub len: u32,
    /// Program → supervisor: when to send (0 = now). Supervisor → program: endpoint's receive time, ns since the epoch.
    pub time: u64,
    /// Number of the request that wants an answer in the slot (BIND, CONNECT), else 0.
    pub ticket: u32,
    /// Errno of an ERROR frame.
    pub errno: u32,
    /// DATA out: destination ([`Addr::NONE`] = the connected peer). DATA in: sender. CONNECT, BIND: the address.
    pub addr: Addr,
    /// DATA in: address it arrived on, when known.
    pub local: Addr,
}

// SAFETY: repr(C), 4×1+4+8+4+4+24+24 bytes without padding, integers only.
unsafe impl Plain for FrameHeader {}

const _: () = assert!(size_of::<FrameHeader>() == 72);

/// Values of [`FrameHeader::kind`].
pub mod frame_kind {
    /// A datagram.
    pub const DATA: u8 = 1;
    /// Program → supervisor: bind to `addr`; answered in the slot (`ticket`, `errno`).
    pub const BIND: u8 = 2;
    /// Program → supervisor: set the peer (family 0: remove it); answered in the slot.
    pub const CONNECT: u8 = 3;
    /// Program → supervisor: make sure `local` of the slot is filled in; answered in the slot.
    pub const LOCAL: u8 = 4;
    /// Supervisor → program: an asynchronous error, payload as of MSG_ERRQUEUE.
    pub const ERROR: u8 = 5;
}

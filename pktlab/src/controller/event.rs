//! What arrives at a socket.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::wire::{ErrId, NErr, NStat, Outcome, Ticks};

/// What arrives at a socket, in the order in which the endpoint noticed it.
#[derive(Clone, Debug)]
pub enum Event {
    Data(Received),
    Stat(NStat),
    /// Only for sockets opened with [`SocketOptions::tags`](super::SocketOptions::tags).
    Tag(Tagged),
    /// With the NERR extension only.
    Error(NErr),
    /// An NSEND was not accepted; its data is lost.
    SendRefused(Outcome),
    /// The session is over; nothing follows.
    Ended,
}

/// Bytes of a stream, one datagram, or one packet from its network header on. The facts beside the data are known where
/// the STAMPS extension holds, and never for TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// ns since the Unix epoch, endpoint clock.
    pub time: Ticks,
    /// Sender of a datagram.
    pub remote: Option<SocketAddr>,
    pub data: Bytes,
    /// `time` is the kernel's receive stamp, not the time of the endpoint's read.
    pub kernel_time: bool,
    /// TTL or hop limit it arrived with.
    pub ttl: Option<u8>,
    /// TOS or traffic class it arrived with.
    pub tos: Option<u8>,
    /// Address it was sent to.
    pub local: Option<IpAddr>,
    /// The endpoint cut the data for want of buffer. Without the extension that happens unmarked.
    pub truncated: bool,
}

/// A tagged NSEND left its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tagged {
    pub tag: u16,
    /// ns since the Unix epoch, endpoint clock.
    pub time: Ticks,
    /// `time` is the kernel's transmit stamp, not the time after the endpoint's call.
    pub kernel_time: bool,
    /// Success, or why the data was discarded.
    pub errid: ErrId,
}

impl Received {
    /// What an NDATA tells.
    pub(super) fn plain(time: Ticks, remote: Option<SocketAddr>, data: Bytes) -> Received {
        let (ttl, tos, local) = (None, None, None);
        Received { time, remote, data, kernel_time: false, ttl, tos, local, truncated: false }
    }
}

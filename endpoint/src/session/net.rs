//! What the session asks of the outside world: a clock and measurement sockets. The real one is [`crate::net`]; tests
//! script one. Errors are Linux error numbers, because the session's answers depend on them (spec `endpoint.md` §8).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use pktlab::wire::{SocketId, Ticks};
pub use rustix::io::Errno;

/// Why a socket could not be opened: the step decides the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFault {
    /// No descriptor, no memory, unsupported family.
    Socket(Errno),
    Bind(Errno),
    /// The connect failed at once, so nothing went out.
    Connect(Errno),
}

/// A started TCP connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connecting {
    pub local: SocketAddr,
    /// The operating system finished synchronously.
    pub established: bool,
}

/// A received datagram, with what the kernel told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub data: Bytes,
    pub remote: SocketAddr,
    /// When it arrived, endpoint clock.
    pub time: Ticks,
    /// Hop limit and traffic class of its header.
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    /// The address it was sent to.
    pub local: Option<IpAddr>,
}

/// Which readiness of a socket the session can use right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

/// Socket calls, none of which blocks. `id` names the socket; the session never uses an id it did not open.
pub trait Net {
    /// The endpoint's clock, ns since the Unix epoch. Read again after each call whose time matters.
    fn now(&mut self) -> Ticks;
    /// Opens and binds; returns the bound address.
    fn open_udp(&mut self, id: SocketId, local: SocketAddr) -> Result<SocketAddr, OpenFault>;
    /// Opens, binds and starts to connect.
    fn open_tcp(
        &mut self,
        id: SocketId,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Connecting, OpenFault>;
    /// Outcome of a connect that became writable: the peer and local address, or `None` while it still runs.
    fn finish_connect(&mut self, id: SocketId) -> Result<Option<(SocketAddr, SocketAddr)>, Errno>;
    /// One stream read of at most `max` ≥ 1 bytes; empty at the end of the stream.
    fn receive(&mut self, id: SocketId, max: usize) -> Result<Bytes, Errno>;
    /// One whole datagram.
    fn receive_from(&mut self, id: SocketId) -> Result<Datagram, Errno>;
    fn send(&mut self, id: SocketId, data: &[u8]) -> Result<usize, Errno>;
    fn send_to(&mut self, id: SocketId, data: &[u8], remote: SocketAddr) -> Result<(), Errno>;
    /// Ends the sending direction.
    fn shut_write(&mut self, id: SocketId) -> Result<(), Errno>;
    /// From now on report exactly this readiness, level-triggered.
    fn watch(&mut self, id: SocketId, interest: Interest);
    /// Closes; unknown ids are ignored.
    fn close(&mut self, id: SocketId);
}

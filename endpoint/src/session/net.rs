//! What the session asks of the outside world: a clock and measurement sockets. The real one is [`crate::net`]; tests
//! script one. Errors are Linux error numbers, because the session's answers depend on them (spec `endpoint.md` §8).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use pktlab::wire::{SockOpt, SocketId, Ticks};
pub use rustix::io::Errno;

use crate::filter::Filter;

/// Why a socket could not be opened: the step decides the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFault {
    /// No descriptor, no memory, no privilege, unsupported family.
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

/// A connection that a listening socket accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Names it until [`Net::take`] or [`Net::refuse`].
    pub handle: u32,
    pub remote: SocketAddr,
    pub local: SocketAddr,
}

/// A received datagram, with what the kernel told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub data: Bytes,
    pub remote: SocketAddr,
    /// When it arrived, endpoint clock.
    pub time: Ticks,
    /// `time` is the kernel's stamp.
    pub kernel_time: bool,
    /// Hop limit and traffic class of its header.
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    /// The address it was sent to.
    pub local: Option<IpAddr>,
}

/// A captured packet that the filter accepted, cut to the length the filter returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From the network header on.
    pub data: Bytes,
    /// When the kernel got it, endpoint clock.
    pub time: Ticks,
}

/// Packets that a capture did not deliver, since the last question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Lost because the kernel's buffer was full.
    pub kernel: u32,
    /// The filter trapped or ran out of fuel.
    pub faults: u32,
}

/// A successful send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub bytes: usize,
    /// Endpoint clock.
    pub time: Ticks,
    /// `time` is the kernel's transmit stamp, else it was read after the call.
    pub kernel_time: bool,
}

/// A send handed over to be made at its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    pub time: Ticks,
    pub data: Bytes,
    pub remote: Option<SocketAddr>,
    /// The kernel's transmit stamp is wanted.
    pub stamp: bool,
}

/// An error that the network reported for an earlier datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    pub errno: u16,
    /// `SO_EE_ORIGIN_*`.
    pub origin: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    pub info: u32,
    pub offender: Option<IpAddr>,
    pub remote: Option<SocketAddr>,
    pub time: Ticks,
    pub data: Bytes,
}

/// Which readiness of a socket the session can use right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

/// What a watched socket is ready for. A broken one is ready for everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    pub read: bool,
    pub write: bool,
    /// An error waits, see [`Net::reported`].
    pub error: bool,
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
    /// Opens a raw socket on the interface that owns `local`; it captures nothing yet.
    fn open_raw(&mut self, id: SocketId, local: IpAddr) -> Result<(), OpenFault>;
    /// Opens, binds and listens; returns the bound address.
    fn listen(&mut self, id: SocketId, local: SocketAddr) -> Result<SocketAddr, OpenFault>;
    /// Outcome of a connect that became writable: the peer and local address, or `None` while it still runs.
    fn finish_connect(&mut self, id: SocketId) -> Result<Option<(SocketAddr, SocketAddr)>, Errno>;
    /// The next connection of a listening socket; it stays aside until taken or refused.
    fn accept(&mut self, id: SocketId) -> Result<Accepted, Errno>;
    /// Makes an accepted connection socket `id`.
    fn take(&mut self, id: SocketId, handle: u32);
    /// Closes an accepted connection.
    fn refuse(&mut self, handle: u32);
    /// One stream read of at most `max` ≥ 1 bytes; empty at the end of the stream.
    fn receive(&mut self, id: SocketId, max: usize) -> Result<Bytes, Errno>;
    /// One whole datagram.
    fn receive_from(&mut self, id: SocketId) -> Result<Datagram, Errno>;
    /// The next captured packet.
    fn receive_packet(&mut self, id: SocketId) -> Result<Packet, Errno>;
    /// From now on captures what `filter` accepts, until `end`; what was captured before is forgotten. `None` stops. After an
    /// error nothing is captured.
    fn capture(&mut self, id: SocketId, filter: Option<&Filter>, end: Ticks) -> Result<(), Errno>;
    fn losses(&mut self, id: SocketId) -> Losses;
    /// The next error that the network reported.
    fn reported(&mut self, id: SocketId) -> Option<Reported>;
    /// A piece of a stream; fewer bytes than given may be taken.
    fn send(&mut self, id: SocketId, data: &[u8]) -> Result<Sent, Errno>;
    /// One datagram or raw packet.
    fn send_to(&mut self, id: SocketId, data: &[u8], remote: SocketAddr, stamp: bool) -> Result<Sent, Errno>;
    /// Hands a send over to be made at its time, behind those handed over before. Outcomes come back in order, by way of
    /// [`Session::made`](super::Session::made).
    fn hand_over(&mut self, id: SocketId, send: Timed);
    /// Takes back all sends handed over and not made; none of them can be made afterwards. Returns the outcomes of the others
    /// that were not told yet, and tells none of them again.
    fn take_back(&mut self, id: SocketId) -> Vec<Result<Sent, Errno>>;
    /// Ends the sending direction.
    fn shut_write(&mut self, id: SocketId) -> Result<(), Errno>;
    fn set_option(&mut self, id: SocketId, option: SockOpt, value: u32) -> Result<(), Errno>;
    fn option(&mut self, id: SocketId, option: SockOpt) -> Result<u32, Errno>;
    /// From now on report exactly this readiness, level-triggered.
    fn watch(&mut self, id: SocketId, interest: Interest);
    /// Closes; unknown ids are ignored. Sends handed over are forgotten, outcomes included.
    fn close(&mut self, id: SocketId);
}

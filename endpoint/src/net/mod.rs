//! The real measurement sockets: non-blocking, all in one level-triggered epoll together with one timer. No `unsafe`:
//! rustix and socket2 make the calls.

mod addresses;
mod open;
mod poll;
mod ring;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use pktlab::wire::{SocketId, Ticks};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{RecvFlags, SendFlags};
use rustix::time::{ClockId, TimerfdClockId, TimerfdFlags, clock_gettime};
use socket2::{Protocol, Socket, TcpKeepalive, Type};

use open::{address_of, bound, errno_of};

pub use addresses::{exported, resolv_conf};
pub use poll::Ready;

use crate::session::{Connecting, Datagram, Errno, Interest, Net, OpenFault};

/// Bytes of the receive buffer, the most one NDATA carries.
const BUFFER: usize = 64 * 1024;
/// A received piece at least this long keeps the buffer it was read into; shorter ones are copied out of it.
const KEEP: usize = BUFFER / 2;
/// Epoll token of the timer; sockets use their id.
const TIMER: u64 = 256;

struct Open {
    socket: Socket,
    interest: Interest,
}

/// See the module text.
pub struct Sockets {
    table: Vec<Option<Open>>,
    epoll: OwnedFd,
    timer: OwnedFd,
    /// Where the timer stands, ns; 0: off.
    armed: Ticks,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

impl Sockets {
    pub fn new() -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Realtime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        Ok(Self {
            table: std::iter::repeat_with(|| None).take(256).collect(),
            epoll,
            timer,
            armed: 0,
            buffer: Vec::with_capacity(BUFFER),
            events: Vec::with_capacity(257),
        })
    }

    fn get(&self, id: SocketId) -> Result<&Socket, Errno> {
        self.table[usize::from(id)].as_ref().map(|open| &open.socket).ok_or(Errno::BADF)
    }

    fn insert(&mut self, id: SocketId, socket: Socket) {
        self.table[usize::from(id)] = Some(Open { socket, interest: Interest::default() });
    }

    /// A read of at most `max` bytes, in a buffer of its own when it is long.
    fn read<T>(
        &mut self,
        id: SocketId,
        max: usize,
        call: impl Fn(&Socket, &mut Vec<u8>) -> Result<T, Errno>,
    ) -> Result<(Bytes, T), Errno> {
        let socket = self.table[usize::from(id)].as_ref().map(|open| &open.socket).ok_or(Errno::BADF)?;
        if max < BUFFER {
            let mut exact = Vec::with_capacity(max);
            let extra = call(socket, &mut exact)?;
            exact.truncate(max);
            let data = if exact.len() < max / 2 { Bytes::copy_from_slice(&exact) } else { exact.into() };
            return Ok((data, extra));
        }
        self.buffer.clear();
        let extra = call(socket, &mut self.buffer)?;
        if self.buffer.len() >= KEEP {
            let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER));
            Ok((full.into(), extra))
        } else {
            Ok((Bytes::copy_from_slice(&self.buffer), extra))
        }
    }
}

impl Net for Sockets {
    fn now(&mut self) -> Ticks {
        now()
    }

    fn open_udp(&mut self, id: SocketId, local: SocketAddr) -> Result<SocketAddr, OpenFault> {
        let socket = bound(local, Type::DGRAM, Protocol::UDP)?;
        let local = address_of(&socket).ok_or(OpenFault::Bind(Errno::INVAL))?;
        self.insert(id, socket);
        Ok(local)
    }

    fn open_tcp(
        &mut self,
        id: SocketId,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Connecting, OpenFault> {
        let socket = bound(local, Type::STREAM, Protocol::TCP)?;
        // Both are comforts; a connection without them still measures.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_keepalive(&TcpKeepalive::new());
        let established = match rustix::net::connect(&socket, &remote) {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            Err(errno) => return Err(OpenFault::Connect(errno)),
        };
        let local = address_of(&socket).unwrap_or(local);
        self.insert(id, socket);
        Ok(Connecting { local, established })
    }

    fn finish_connect(&mut self, id: SocketId) -> Result<Option<(SocketAddr, SocketAddr)>, Errno> {
        let socket = self.get(id)?;
        if let Some(error) = socket.take_error().map_err(|error| errno_of(&error))? {
            return Err(errno_of(&error));
        }
        let peer = match socket.peer_addr() {
            Ok(peer) => peer.as_socket(),
            Err(error) if errno_of(&error) == Errno::NOTCONN => return Ok(None),
            Err(error) => return Err(errno_of(&error)),
        };
        match (peer, address_of(socket)) {
            (Some(peer), Some(local)) => Ok(Some((peer, local))),
            _ => Err(Errno::AFNOSUPPORT),
        }
    }

    fn receive(&mut self, id: SocketId, max: usize) -> Result<Bytes, Errno> {
        let call = |socket: &Socket, buffer: &mut Vec<u8>| {
            rustix::net::recv(socket, spare_capacity(buffer), RecvFlags::empty())
        };
        self.read(id, max, call).map(|(data, _)| data)
    }

    fn receive_from(&mut self, id: SocketId) -> Result<Datagram, Errno> {
        let call = |socket: &Socket, buffer: &mut Vec<u8>| {
            let (_, _, remote) = rustix::net::recvfrom(socket, spare_capacity(buffer), RecvFlags::empty())?;
            remote.and_then(|remote| SocketAddr::try_from(remote).ok()).ok_or(Errno::INVAL)
        };
        let (data, remote) = self.read(id, BUFFER, call)?;
        Ok(Datagram { data, remote, time: now(), ttl: None, tos: None, local: None })
    }

    fn send(&mut self, id: SocketId, data: &[u8]) -> Result<usize, Errno> {
        rustix::net::send(self.get(id)?, data, SendFlags::NOSIGNAL)
    }

    fn send_to(&mut self, id: SocketId, data: &[u8], remote: SocketAddr) -> Result<(), Errno> {
        rustix::net::sendto(self.get(id)?, data, SendFlags::NOSIGNAL, &remote).map(drop)
    }

    fn shut_write(&mut self, id: SocketId) -> Result<(), Errno> {
        self.get(id)?.shutdown(std::net::Shutdown::Write).map_err(|error| errno_of(&error))
    }

    fn watch(&mut self, id: SocketId, interest: Interest) {
        let Some(open) = self.table[usize::from(id)].as_mut() else { return };
        let mut flags = epoll::EventFlags::empty();
        if interest.read {
            flags |= epoll::EventFlags::IN;
        }
        if interest.write {
            flags |= epoll::EventFlags::OUT;
        }
        let data = epoll::EventData::new_u64(id.into());
        // Without any interest the socket leaves the epoll, which would report errors and hang-ups all the same.
        let outcome = match (open.interest == Interest::default(), flags.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => epoll::add(&self.epoll, &open.socket, data, flags),
            (false, true) => epoll::delete(&self.epoll, &open.socket),
            (false, false) => epoll::modify(&self.epoll, &open.socket, data, flags),
        };
        match outcome {
            Ok(()) => open.interest = interest,
            Err(errno) => tracing::warn!("socket {id}: the system refused to watch it: {errno}"),
        }
    }

    fn close(&mut self, id: SocketId) {
        self.table[usize::from(id)] = None;
    }
}

/// The endpoint's clock.
pub fn now() -> Ticks {
    let time = clock_gettime(ClockId::Realtime);
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

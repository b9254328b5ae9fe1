//! The table of measurement sockets.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use pktlab::wire::{SockOpt, SocketId, Ticks};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{RecvFlags, SendFlags};
use rustix::time::{TimerfdClockId, TimerfdFlags};
use socket2::{Protocol, SockRef, TcpKeepalive, Type};

use super::message::Channel;
use super::open::{accepted, address_of, bound, errno_of, peer_of};
use super::poll::{self, token};
use super::{message, monotonic, now, options, raw};
use crate::filter::Filter;
use crate::pace::{Done, Job, Lane, Pacer};
use crate::session::{
    Accepted, Connecting, Datagram, Errno, Interest, Losses, Net, OpenFault, Packet, Reported, Sent, Timed,
};
use crate::steal::{Connection, Steal};

/// Bytes of the receive buffer, the most one NDATA carries.
const BUFFER: usize = 64 * 1024;
/// A received piece at least this long keeps the buffer it was read into; shorter ones are copied out of it.
const KEEP: usize = BUFFER / 2;
/// Connections the kernel holds for a listening socket beside those announced.
const BACKLOG: i32 = 128;

/// How captures are made.
#[derive(Clone, Debug, Default)]
pub struct CaptureOptions {
    /// Kernel memory of each, bytes.
    pub ring: usize,
    /// Withhold what is captured from the host, except these connections.
    pub steal: Option<Vec<Connection>>,
}

struct Open {
    channel: Arc<Channel>,
    v6: bool,
    interest: Interest,
    /// Present once a send was handed over.
    lane: Option<Lane>,
    raw: Option<Raw>,
}

struct Raw {
    ifindex: u32,
    capture: Option<raw::Capture>,
    steal: Option<Steal>,
}

/// See the module text.
pub struct Sockets {
    table: Vec<Option<Open>>,
    /// Connections that wait to be taken.
    waiting: HashMap<u32, OwnedFd>,
    handles: u32,
    pub(super) epoll: OwnedFd,
    pub(super) timer: OwnedFd,
    /// Where the timer stands, ns; 0: off.
    pub(super) armed: Ticks,
    buffer: Vec<u8>,
    pub(super) events: Vec<epoll::Event>,
    pacer: Pacer,
    openings: u64,
    /// Outcomes of timed sends that were looked at and not told.
    made: VecDeque<Done>,
    /// What the network reported of datagrams, found while something else was looked for.
    reports: VecDeque<(SocketId, Reported)>,
    captures: CaptureOptions,
}

impl Sockets {
    pub fn new(captures: CaptureOptions) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Realtime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let pacer = Pacer::new()?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(token::TIMER), readable)?;
        epoll::add(&epoll, pacer.wake(), epoll::EventData::new_u64(token::PACER), readable)?;
        Ok(Self {
            table: std::iter::repeat_with(|| None).take(256).collect(),
            waiting: HashMap::new(),
            handles: 0,
            epoll,
            timer,
            armed: 0,
            buffer: Vec::with_capacity(BUFFER),
            events: Vec::with_capacity(260),
            pacer,
            openings: 0,
            made: VecDeque::new(),
            reports: VecDeque::new(),
            captures,
        })
    }

    /// Hears of timed sends; their outcomes are then at [`Sockets::next_made`].
    pub fn hear(&mut self) {
        self.pacer.clear();
        self.look();
    }

    /// The next outcome of a timed send, in order of sending. One at a time, because what it leads to may take back others.
    pub fn next_made(&mut self) -> Option<(SocketId, Result<Sent, Errno>)> {
        loop {
            let done = self.made.pop_front()?;
            if self.is_current(&done) {
                return Some((done.socket, done.outcome));
            }
        }
    }

    fn look(&mut self) {
        while let Some(mut done) = self.pacer.done() {
            if self.is_current(&done) {
                let found = std::mem::take(&mut done.reports);
                self.reports.extend(found.into_iter().map(|reported| (done.socket, reported)));
                self.made.push_back(done);
            }
        }
    }

    /// Sockets of which something was reported that was not told yet.
    pub(super) fn with_reports(&self) -> impl Iterator<Item = SocketId> {
        self.reports.iter().map(|(id, _)| *id)
    }

    /// The socket it was made on is still the one with that number.
    fn is_current(&self, done: &Done) -> bool {
        let open = self.table[usize::from(done.socket)].as_ref();
        open.and_then(|open| open.lane.as_ref()).is_some_and(|lane| lane.generation() == done.generation)
    }

    fn get(&self, id: SocketId) -> Result<BorrowedFd<'_>, Errno> {
        self.table[usize::from(id)].as_ref().map(|open| open.channel.as_fd()).ok_or(Errno::BADF)
    }

    fn raw(&mut self, id: SocketId) -> Option<&mut Raw> {
        self.table[usize::from(id)].as_mut()?.raw.as_mut()
    }

    fn insert(&mut self, id: SocketId, fd: OwnedFd, v6: bool) {
        let open = Open {
            channel: Arc::new(Channel::new(fd)),
            v6,
            interest: Interest::default(),
            lane: None,
            raw: None,
        };
        self.table[usize::from(id)] = Some(open);
    }

    /// A read of at most `max` bytes, in a buffer of its own when it is long.
    fn read<T>(
        &mut self,
        id: SocketId,
        max: usize,
        call: impl Fn(BorrowedFd<'_>, &mut Vec<u8>) -> Result<T, Errno>,
    ) -> Result<(Bytes, T), Errno> {
        let fd = self.table[usize::from(id)].as_ref().map(|open| open.channel.as_fd()).ok_or(Errno::BADF)?;
        if max < BUFFER {
            let mut exact = Vec::with_capacity(max);
            let extra = call(fd, &mut exact)?;
            exact.truncate(max);
            let data = if exact.len() < max / 2 { Bytes::copy_from_slice(&exact) } else { exact.into() };
            return Ok((data, extra));
        }
        self.buffer.clear();
        let extra = call(fd, &mut self.buffer)?;
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
        message::prepare(socket.as_fd(), local.is_ipv6()).map_err(OpenFault::Socket)?;
        let bound = address_of(socket.as_fd()).ok_or(OpenFault::Bind(Errno::INVAL))?;
        self.insert(id, socket.into(), local.is_ipv6());
        Ok(bound)
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
        let bound = address_of(socket.as_fd()).unwrap_or(local);
        self.insert(id, socket.into(), local.is_ipv6());
        Ok(Connecting { local: bound, established })
    }

    fn open_raw(&mut self, id: SocketId, local: IpAddr) -> Result<(), OpenFault> {
        let (fd, ifindex) = raw::open(local)?;
        message::prepare_stamps(fd.as_fd()).map_err(OpenFault::Socket)?;
        self.insert(id, fd, local.is_ipv6());
        if let Some(open) = self.table[usize::from(id)].as_mut() {
            open.raw = Some(Raw { ifindex, capture: None, steal: None });
        }
        Ok(())
    }

    fn listen(&mut self, id: SocketId, local: SocketAddr) -> Result<SocketAddr, OpenFault> {
        let socket = super::open::listening(local, BACKLOG)?;
        let bound = address_of(socket.as_fd()).ok_or(OpenFault::Bind(Errno::INVAL))?;
        self.insert(id, socket.into(), local.is_ipv6());
        Ok(bound)
    }

    fn finish_connect(&mut self, id: SocketId) -> Result<Option<(SocketAddr, SocketAddr)>, Errno> {
        let fd = self.get(id)?;
        if let Some(error) = SockRef::from(&fd).take_error().map_err(|error| errno_of(&error))? {
            return Err(errno_of(&error));
        }
        let peer = match peer_of(fd) {
            Ok(peer) => peer,
            Err(Errno::NOTCONN) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        Ok(Some((peer, address_of(fd).ok_or(Errno::AFNOSUPPORT)?)))
    }

    fn accept(&mut self, id: SocketId) -> Result<Accepted, Errno> {
        let (fd, remote, local) = accepted(self.get(id)?)?;
        self.handles = self.handles.wrapping_add(1);
        self.waiting.insert(self.handles, fd);
        Ok(Accepted { handle: self.handles, remote, local })
    }

    fn take(&mut self, id: SocketId, handle: u32) {
        if let Some(fd) = self.waiting.remove(&handle) {
            let v6 = address_of(fd.as_fd()).is_some_and(|local| local.is_ipv6());
            self.insert(id, fd, v6);
        }
    }

    fn refuse(&mut self, handle: u32) {
        self.waiting.remove(&handle);
    }

    fn receive(&mut self, id: SocketId, max: usize) -> Result<Bytes, Errno> {
        let call = |fd: BorrowedFd<'_>, buffer: &mut Vec<u8>| {
            rustix::net::recv(fd, spare_capacity(buffer), RecvFlags::empty())
        };
        self.read(id, max, call).map(|(data, _)| data)
    }

    fn receive_from(&mut self, id: SocketId) -> Result<Datagram, Errno> {
        let (data, head) = self.read(id, BUFFER, message::receive)?;
        let message::Received { remote, time, kernel_time, ttl, tos, local, .. } = head;
        Ok(Datagram { data, remote, time, kernel_time, ttl, tos, local })
    }

    fn receive_packet(&mut self, id: SocketId) -> Result<Packet, Errno> {
        let capture = self.raw(id).and_then(|raw| raw.capture.as_mut()).ok_or(Errno::AGAIN)?;
        capture.next().ok_or(Errno::AGAIN)
    }

    fn capture(&mut self, id: SocketId, filter: Option<&Filter>, end: Ticks) -> Result<(), Errno> {
        let options = self.captures.clone();
        let raw = self.raw(id).ok_or(Errno::BADF)?;
        let outcome = match filter {
            None => {
                raw.stop();
                return Ok(());
            }
            Some(filter) => raw.start(filter, end, &options),
        };
        outcome.map_err(|error| {
            tracing::warn!("capture: {error}");
            raw.stop();
            errno_of(&error)
        })
    }

    fn losses(&mut self, id: SocketId) -> Losses {
        let capture = self.raw(id).and_then(|raw| raw.capture.as_mut());
        capture.map(raw::Capture::losses).unwrap_or_default()
    }

    fn reported(&mut self, id: SocketId) -> Option<Reported> {
        if let Some(place) = self.reports.iter().position(|(of, _)| *of == id) {
            return self.reports.remove(place).map(|(_, reported)| reported);
        }
        message::reported(&self.table[usize::from(id)].as_ref()?.channel)
    }

    fn send(&mut self, id: SocketId, data: &[u8]) -> Result<Sent, Errno> {
        let bytes = rustix::net::send(self.get(id)?, data, SendFlags::NOSIGNAL)?;
        Ok(Sent { bytes, time: now(), kernel_time: false })
    }

    fn send_to(&mut self, id: SocketId, data: &[u8], remote: SocketAddr, stamp: bool) -> Result<Sent, Errno> {
        let open = self.table[usize::from(id)].as_ref().ok_or(Errno::BADF)?;
        let mut found = Vec::new();
        let outcome = message::send(&open.channel, data, Some(&remote), stamp, &mut found);
        self.reports.extend(found.into_iter().map(|reported| (id, reported)));
        outcome
    }

    fn hand_over(&mut self, id: SocketId, send: Timed) {
        let Some(open) = self.table[usize::from(id)].as_mut() else { return };
        let lane = open.lane.get_or_insert_with(|| {
            self.openings += 1;
            self.pacer.lane(id, self.openings, open.channel.clone())
        });
        let Timed { time, data, remote, stamp } = send;
        if let Err(error) = self.pacer.submit(lane, Job { time, data, remote, stamp }) {
            // The send waits in its lane and comes back when the socket is closed.
            tracing::error!("no thread for timed sends: {error}");
        }
    }

    fn take_back(&mut self, id: SocketId) -> Vec<Result<Sent, Errno>> {
        let open = self.table[usize::from(id)].as_ref();
        let Some(lane) = open.and_then(|open| open.lane.as_ref()) else { return Vec::new() };
        self.pacer.recall(lane);
        let generation = lane.generation();
        self.look();
        let (own, others) = std::mem::take(&mut self.made)
            .into_iter()
            .partition::<VecDeque<_>, _>(|done| done.socket == id && done.generation == generation);
        self.made = others;
        own.into_iter().map(|done| done.outcome).collect()
    }

    fn shut_write(&mut self, id: SocketId) -> Result<(), Errno> {
        let fd = self.get(id)?;
        SockRef::from(&fd).shutdown(std::net::Shutdown::Write).map_err(|error| errno_of(&error))
    }

    fn set_option(&mut self, id: SocketId, option: SockOpt, value: u32) -> Result<(), Errno> {
        let open = self.table[usize::from(id)].as_ref().ok_or(Errno::BADF)?;
        options::set(open.channel.as_fd(), open.v6, option, value)
    }

    fn option(&mut self, id: SocketId, option: SockOpt) -> Result<u32, Errno> {
        let open = self.table[usize::from(id)].as_ref().ok_or(Errno::BADF)?;
        options::get(open.channel.as_fd(), open.v6, option)
    }

    fn watch(&mut self, id: SocketId, interest: Interest) {
        let Some(open) = self.table[usize::from(id)].as_mut() else { return };
        let before = std::mem::replace(&mut open.interest, interest);
        let outcome = match open.raw.as_ref() {
            // What a raw socket reads comes out of its ring.
            Some(raw) => {
                let ring = raw.capture.as_ref().map(|capture| capture.ring().as_fd());
                let write = |interest: Interest| Interest { read: false, ..interest };
                poll::watch(&self.epoll, open.channel.as_fd(), id.into(), write(before), write(interest))
                    .and_then(|()| match ring {
                        Some(ring) => poll::rewatch(&self.epoll, ring, token::ring(id), interest.read),
                        None => Ok(()),
                    })
            }
            None => poll::watch(&self.epoll, open.channel.as_fd(), id.into(), before, interest),
        };
        if let Err(errno) = outcome {
            tracing::warn!("socket {id}: the system refused to watch it: {errno}");
        }
    }

    fn close(&mut self, id: SocketId) {
        let Some(open) = self.table[usize::from(id)].take() else { return };
        self.reports.retain(|(of, _)| *of != id);
        if let Some(lane) = &open.lane {
            // The pacer holds the descriptor as long as it has something to send on it.
            self.pacer.recall(lane);
        }
        if open.interest != Interest::default() {
            // The pacer's copy would keep it registered.
            let _ = epoll::delete(&self.epoll, open.channel.as_fd());
        }
    }
}

impl Raw {
    fn start(&mut self, filter: &Filter, end: Ticks, options: &CaptureOptions) -> std::io::Result<()> {
        match &mut self.capture {
            Some(capture) => capture.replace(filter.clone(), now()),
            none => *none = Some(raw::Capture::new(self.ifindex, options.ring, filter.clone())?),
        }
        // The ring stands before the host loses anything.
        if let Some(exempt) = &options.steal {
            let steal = match &mut self.steal {
                Some(steal) => steal,
                none => none.insert(Steal::attach(self.ifindex, exempt)?),
            };
            let until = match end {
                Ticks::MAX => Ticks::MAX,
                end => monotonic().saturating_add(end.saturating_sub(now())),
            };
            steal.set(filter, until)?;
        }
        Ok(())
    }

    fn stop(&mut self) {
        // The host gets its packets again before the capture ends.
        self.steal = None;
        self.capture = None;
    }
}

//! A TCP connection of the program: connect, drop the cork, relay, finish.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use pktlab::controller::{Connected, Error, Event, RecvHalf, SendHalf, SocketOptions};
use pktlab::wire::{NStat, StatEvent};
use pktwrap_link::page::{Slot, flag, state};
use pktwrap_link::stream::StreamHeader;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::local;
use crate::context::{Busy, Context};
use crate::link::seqpacket::is_gone;
use crate::{addr, errno, page};

/// Buffer of one direction, and what must be left of it to read into it again.
pub const SLAB: usize = 64 << 10;
const SLAB_LEAST: usize = 8 << 10;
/// More cork than any send buffer holds: the slot is not the shim's work.
const CORK_MOST: u32 = 16 << 20;
/// How long a closed connection may take to deliver its last bytes.
const LINGER: Duration = Duration::from_secs(120);
/// How often a half-closed connection is asked whether the program closed the rest.
const GONE_PAUSE: Duration = Duration::from_millis(200);

pub async fn run(context: Arc<Context>, stream: UnixStream, header: StreamHeader, busy: Busy) {
    let Some(slot) = context.page().slot(header.id) else {
        tracing::warn!(id = header.id, "a connection for a socket that does not exist");
        return;
    };
    let Some(wanted) = header.remote.to_std() else { return fail(slot, libc::EINVAL) };
    let remote = addr::destination(wanted);
    let local = header.local.to_std().map(addr::unmapped);
    let family = if header.family == 6 { 6 } else { 4 };
    let connecting = async {
        if context.is_local(&remote) {
            slot.set(flag::LOCAL);
            return local::connect(local, remote).await.map(Side::Local);
        }
        connect(&context, local, remote).await.map(Side::Endpoint)
    };
    let side = tokio::select! {
        side = connecting => side,
        // Its bytes are cork so far; an end of file means that the program gave the connect up.
        () = read_closed(&stream) => return page::release(context.page(), header.id),
    };
    let (local, side) = match side {
        Ok(Side::Local(tcp)) => {
            (tcp.local_addr().unwrap_or_else(|_| addr::any(remote.ip())), Side::Local(tcp))
        }
        Ok(Side::Endpoint(connected)) => (connected.local, Side::Endpoint(connected)),
        Err(errno) => {
            tracing::debug!(%remote, errno, "connect failed");
            return fail(slot, errno);
        }
    };
    slot.local.store(&addr::presented(local, family));
    slot.remote.store(&addr::presented(remote, family));
    slot.publish(state::CONNECTED);
    tracing::debug!(%local, %remote, "connected");
    if !drop_cork(slot, &stream).await {
        return page::release(context.page(), header.id);
    }
    let flow = Flow { context: &context, slot, stream };
    let outcome = match side {
        Side::Local(tcp) => local::relay(&flow, tcp, busy).await,
        Side::Endpoint(connected) => relay(&flow, connected, busy).await,
    };
    match outcome {
        Ok(()) => page::release_later(context.page(), header.id),
        // The program still holds its end and has yet to ask for the error: the slot stays.
        Err(errno) => flow.reset(errno),
    }
}

enum Side {
    Local(tokio::net::TcpStream),
    Endpoint(Connected),
}

/// The connection's program side.
pub struct Flow<'a> {
    pub context: &'a Context,
    pub slot: &'a Slot,
    pub stream: UnixStream,
}

async fn connect(context: &Context, local: Option<SocketAddr>, remote: SocketAddr) -> Result<Connected, i32> {
    if !context.pool.info().exports(&remote.ip()) {
        return Err(libc::ENETUNREACH);
    }
    // A bind to the other family's unspecified address (an IPv6 socket with a mapped destination) keeps its port.
    let local = local.map(|local| match (local.ip().is_unspecified(), local.is_ipv4() == remote.is_ipv4()) {
        (true, false) => SocketAddr::new(addr::any(remote.ip()).ip(), local.port()),
        _ => local,
    });
    if local.is_some_and(|local| local.is_ipv4() != remote.is_ipv4()) {
        return Err(libc::EINVAL);
    }
    loop {
        let session = context.pool.session().await?;
        let attempt = match session.connect_tcp(local, remote, SocketOptions::default()) {
            Ok(connecting) => connecting.established().await.map_err(|failure| (is_full(&failure), failure)),
            Err(Error::NoSocket) => continue,
            Err(error) => return Err(errno::of_request(&error)),
        };
        match attempt {
            Ok(connected) => return Ok(connected),
            // The session's budget was smaller than announced; the pool knows now and gives another one.
            Err((true, _)) => {}
            Err((false, failure)) => return Err(errno::of_connect(&failure)),
        }
    }
}

fn is_full(failure: &pktlab::controller::ConnectFailure) -> bool {
    matches!(failure, pktlab::controller::ConnectFailure::Request(Error::NoSocket))
}

/// Reports a failed connect: the errno first, then the state, then (by dropping the stream) POLLERR.
fn fail(slot: &Slot, errno: i32) {
    slot.errno.store(errno.unsigned_abs(), Ordering::Release);
    slot.publish(state::FAILED);
}

async fn read_closed(stream: &UnixStream) {
    // PRIORITY never comes on a unix socket; asking for it reports the end of file without the cork's readability.
    match stream.ready(Interest::PRIORITY).await {
        Ok(_) => {}
        Err(_) => pending().await,
    }
}

/// Reads and drops the shim's filling. False when the program went away meanwhile.
async fn drop_cork(slot: &Slot, stream: &UnixStream) -> bool {
    let mut turns = 0u32;
    while slot.corked.load(Ordering::Acquire) == 0 {
        turns += 1;
        if turns < 64 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if is_gone(stream) {
                return false;
            }
        }
    }
    let cork = slot.cork.load(Ordering::Acquire);
    if cork > CORK_MOST {
        return false;
    }
    let mut left = cork as usize;
    let mut buffer = vec![0; left.min(SLAB)];
    while left > 0 {
        if stream.readable().await.is_err() {
            return false;
        }
        let most = left.min(buffer.len());
        match stream.try_read(&mut buffer[..most]) {
            Ok(0) => return false,
            Ok(n) => left -= n,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}

impl Flow<'_> {
    /// Bytes from the program, at most `most`; empty at its end of file. `slab` is reused between calls.
    pub async fn read(&self, slab: &mut BytesMut, most: usize) -> Result<Bytes, i32> {
        loop {
            self.stream.readable().await.map_err(|_| libc::EIO)?;
            if slab.capacity() - slab.len() < SLAB_LEAST {
                *slab = BytesMut::with_capacity(SLAB);
            }
            let result = self.stream.try_read_buf(&mut (&mut *slab).limit(most));
            match result {
                Ok(_) => return Ok(slab.split().freeze()),
                Err(error) => match error.kind() {
                    // Idle connections keep no buffer.
                    std::io::ErrorKind::WouldBlock => *slab = BytesMut::new(),
                    // The program closed with bytes unread; what it wrote before is still to be read.
                    std::io::ErrorKind::ConnectionReset => {}
                    _ => return Err(libc::EIO),
                },
            }
        }
    }

    /// Writes everything to the program. False when it does not read any more.
    pub async fn write(&self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            match self.stream.try_write(data) {
                Ok(n) => data = &data[n..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.stream.writable().await.is_err() {
                        return false;
                    }
                }
                // ECONNRESET: the program closed with bytes unread. It is reported once and hides nothing.
                Err(_) => return false,
            }
        }
        true
    }

    /// The peer's end of file.
    pub fn peer_finished(&self) {
        self.slot.set(flag::PEER_FIN);
        if let Err(error) = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write) {
            tracing::debug!("shutdown toward the program: {error}");
        }
    }

    fn reset(self, errno: i32) {
        self.slot.errno.store(errno.unsigned_abs(), Ordering::Release);
        self.slot.set(flag::RESET);
    }

    /// Completes when the program holds no descriptor of the connection.
    pub async fn gone(&self) {
        while !is_gone(&self.stream) {
            tokio::time::sleep(GONE_PAUSE).await;
        }
    }

    /// Never completes; lets pktwrap exit when the program ended and left this connection to somebody else.
    pub async fn excuse(&self, busy: Busy) {
        self.context.exiting().await;
        if is_gone(&self.stream) {
            pending::<()>().await;
        }
        drop(busy);
        pending::<()>().await;
    }
}

/// Relays until both sides are done. `Err` is the errno of a reset.
async fn relay(flow: &Flow<'_>, connected: Connected, busy: Busy) -> Result<(), i32> {
    let send = connected.socket.send;
    let finished = async {
        upward(flow, &send).await?;
        flow.gone().await;
        if tokio::time::timeout(LINGER, send.flushed()).await.is_err() {
            tracing::warn!("a closed connection could not deliver its last bytes");
        }
        Ok(())
    };
    tokio::select! {
        outcome = finished => outcome,
        errno = downward(flow, connected.socket.receive) => Err(errno),
        () = flow.excuse(busy) => Ok(()),
    }
}

/// Program to endpoint, until the program's end of file, which becomes a FIN.
async fn upward(flow: &Flow<'_>, send: &SendHalf) -> Result<(), i32> {
    let most = send.chunk();
    let mut slab = BytesMut::new();
    loop {
        let data = flow.read(&mut slab, most).await?;
        if data.is_empty() {
            // Fails only when the session is over, which the other direction reports.
            let _ = send.finish();
            return Ok(());
        }
        send.send(data, None).await.map_err(|_| libc::ECONNRESET)?;
    }
}

/// Endpoint to program; ends with the errno of a reset.
async fn downward(flow: &Flow<'_>, mut receive: RecvHalf) -> i32 {
    let mut reading = true;
    loop {
        match receive.recv().await {
            Some(Event::Data(data)) => reading = reading && flow.write(&data.data).await,
            Some(Event::Stat(stat)) => match stat.event {
                StatEvent::Code(NStat::PEER_CLOSED) => flow.peer_finished(),
                StatEvent::Code(NStat::RESET) => return libc::ECONNRESET,
                StatEvent::Code(NStat::TIMEOUT) => return libc::ETIMEDOUT,
                StatEvent::Established(_) | StatEvent::Code(NStat::ESTABLISHED) => {}
                // Broken pipe is what the endpoint cannot name; natively the next write would say so.
                StatEvent::Code(_) => return libc::EPIPE,
            },
            Some(Event::Error(error)) => return i32::from(error.errno),
            Some(Event::SendRefused(outcome)) => {
                tracing::debug!(?outcome, "the endpoint did not take the program's bytes");
                return match errno::of_outcome(outcome) {
                    // The NSTAT that says why comes first when there is one.
                    libc::EPIPE => libc::ECONNRESET,
                    other => other,
                };
            }
            Some(Event::Tag(_)) => {}
            Some(Event::Ended) | None => return libc::ECONNRESET,
        }
    }
}

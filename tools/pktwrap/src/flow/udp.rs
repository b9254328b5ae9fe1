//! A datagram socket of the program: frames in, NSEND out, NDATA in, frames out.
//!
//! The endpoint's socket is opened with the first datagram (pipelined, no waiting) or by bind.

use std::collections::VecDeque;
use std::future::pending;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pktwrap_link::datagram::{DatagramHello, FrameHeader, MAX_PAYLOAD, frame_kind};
use pktwrap_link::page::Slot;
use pktwrap_link::{Addr, Plain};

use super::ports::{Arrival, Ports};
use crate::context::{Busy, Context};
use crate::link::seqpacket::{Seqpacket, is_gone};
use crate::{addr, page};

const HEADER: usize = size_of::<FrameHeader>();
/// Frames kept while the program does not read; like a socket buffer, what comes on top is dropped.
const QUEUE_BYTES: usize = 512 << 10;
/// How long the last datagrams of a closed socket may take to leave the endpoint.
const LINGER: Duration = Duration::from_secs(10);

struct Udp<'a> {
    context: &'a Context,
    socket: Seqpacket,
    slot: &'a Slot,
    family: u8,
    bound: bool,
    peer: Option<SocketAddr>,
    queue: VecDeque<(FrameHeader, Bytes)>,
    queued: usize,
}

pub async fn run(context: Arc<Context>, socket: Seqpacket, hello: DatagramHello, busy: Busy) {
    let Some(slot) = context.page().slot(hello.id) else {
        tracing::warn!(id = hello.id, "frames of a socket that does not exist");
        return;
    };
    let family = hello.family;
    let udp = Udp {
        context: &context,
        socket,
        slot,
        family,
        bound: false,
        peer: None,
        queue: VecDeque::new(),
        queued: 0,
    };
    udp.serve(Ports::new(&context), busy).await;
    page::release(context.page(), hello.id);
}

impl Udp<'_> {
    async fn serve(mut self, mut ports: Ports<'_>, busy: Busy) {
        let mut busy = Some(busy);
        let mut left = false;
        let mut buffer = vec![0; HEADER + MAX_PAYLOAD];
        loop {
            tokio::select! {
                received = self.socket.recv(&mut buffer) => match received {
                    Ok(0) => break,
                    Ok(n) => self.frame(&buffer[..n], &mut ports).await,
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                    Err(_) => break,
                },
                arrival = ports.next() => self.arrived(arrival),
                _ = self.socket.writable(), if !self.queue.is_empty() => self.write_queue(),
                () = leave(self.context, busy.is_some() && !left) => {
                    left = true;
                    // Somebody other than the ended program holds this socket: nothing to wait for.
                    if !is_gone(&self.socket) {
                        busy = None;
                    }
                }
            }
        }
        if tokio::time::timeout(LINGER, ports.flushed()).await.is_err() {
            tracing::warn!("a closed datagram socket could not deliver its last datagrams");
        }
    }

    async fn frame(&mut self, frame: &[u8], ports: &mut Ports<'_>) {
        let Some(header) = FrameHeader::from_bytes(frame) else { return };
        let wanted = header.addr.to_std();
        match header.kind {
            frame_kind::DATA => {
                let Some(remote) = wanted.map(addr::destination).or(self.peer) else { return };
                let data = Bytes::copy_from_slice(&frame[HEADER..]);
                if let Err(errno) = ports.send(remote, data).await {
                    self.report(errno, remote);
                }
            }
            frame_kind::BIND => {
                let errno = match wanted {
                    _ if self.bound => libc::EINVAL,
                    None => libc::EAFNOSUPPORT,
                    Some(local) => match ports.bind(addr::unmapped(local)).await {
                        Ok(chosen) => {
                            self.bound = true;
                            self.show_local(SocketAddr::new(local.ip(), chosen.port()));
                            0
                        }
                        Err(errno) => errno,
                    },
                };
                self.answer(header.ticket, errno);
            }
            frame_kind::CONNECT => {
                let errno = self.connect(wanted, ports).await;
                self.answer(header.ticket, errno);
            }
            frame_kind::LOCAL => {
                let errno = match ports.local(self.peer).await {
                    Ok(local) => {
                        if let Some(local) = local {
                            self.show_local(local);
                        }
                        0
                    }
                    Err(errno) => errno,
                };
                self.answer(header.ticket, errno);
            }
            unknown => tracing::warn!(kind = unknown, "unknown frame"),
        }
    }

    async fn connect(&mut self, wanted: Option<SocketAddr>, ports: &mut Ports<'_>) -> i32 {
        let Some(wanted) = wanted else {
            self.peer = None;
            self.slot.remote.store(&Addr::NONE);
            return 0;
        };
        let remote = addr::destination(wanted);
        if let Err(errno) = ports.connect(remote).await {
            return errno;
        }
        self.peer = Some(remote);
        self.slot.remote.store(&addr::presented(remote, self.family));
        0
    }

    fn show_local(&self, local: SocketAddr) {
        self.slot.local.store(&addr::presented(addr::unmapped(local), self.family));
    }

    fn answer(&self, ticket: u32, errno: i32) {
        if ticket != 0 {
            self.slot.answer(ticket, errno.unsigned_abs());
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Data { from, data, time, ttl, tos, local } => {
                if self.peer.is_some_and(|peer| peer != from) || data.len() > MAX_PAYLOAD {
                    return;
                }
                let local = local.map(|ip| addr::presented(SocketAddr::new(ip, 0), self.family));
                let header = FrameHeader {
                    kind: frame_kind::DATA,
                    ttl: ttl.unwrap_or(0),
                    tos: tos.unwrap_or(0),
                    len: data.len() as u32,
                    time,
                    addr: addr::presented(from, self.family),
                    local: local.unwrap_or(Addr::NONE),
                    ..FrameHeader::default()
                };
                self.deliver(header, data);
            }
            // Linux tells unconnected sockets nothing about failures they did not ask for, and connected ones only what
            // concerns their peer.
            Arrival::Failed { errno, to } => {
                if let Some(peer) = self.peer
                    && to.is_none_or(|to| to == peer)
                {
                    self.report(errno, peer);
                }
            }
        }
    }

    fn report(&mut self, errno: i32, remote: SocketAddr) {
        tracing::debug!(%remote, errno, "datagram not delivered");
        let header = FrameHeader {
            kind: frame_kind::ERROR,
            errno: errno.unsigned_abs(),
            addr: addr::presented(remote, self.family),
            ..FrameHeader::default()
        };
        self.deliver(header, Bytes::new());
    }

    fn deliver(&mut self, header: FrameHeader, data: Bytes) {
        if self.queue.is_empty() && self.write(&header, &data) {
            return;
        }
        let size = HEADER + data.len();
        if self.queued + size > QUEUE_BYTES {
            tracing::debug!("the program reads too slowly; a datagram is dropped");
            return;
        }
        self.queued += size;
        self.queue.push_back((header, data));
    }

    fn write_queue(&mut self) {
        while let Some((header, data)) = self.queue.pop_front() {
            if !self.write(&header, &data) {
                self.queue.push_front((header, data));
                return;
            }
            self.queued -= HEADER + data.len();
        }
    }

    /// False when there is no room now.
    fn write(&self, header: &FrameHeader, data: &Bytes) -> bool {
        match self.socket.try_send(&[IoSlice::new(header.as_bytes()), IoSlice::new(data)]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // The program is gone; its end of file follows.
            Ok(()) | Err(_) => true,
        }
    }
}

/// Completes once when the program has ended, if that is still of interest.
async fn leave(context: &Context, interested: bool) {
    if !interested {
        pending::<()>().await;
    }
    context.exiting().await;
}

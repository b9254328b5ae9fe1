//! The network side of a datagram socket: up to one socket per family at the endpoint, and the same on this machine for
//! loopback destinations.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use pktlab::controller::{Error, Event, Opening, RecvHalf, SendHalf, SocketOptions};
use pktlab::wire::Family;
use tokio::net::UdpSocket;

use super::icmp;
use crate::context::Context;
use crate::{addr, errno};

/// Receive budget of a datagram socket; Linux gives 208 KiB by default.
const RECEIVE: usize = 256 << 10;
const DATAGRAM_MOST: usize = 65_535;
/// The first datagram's session may have to be started; nothing else here waits long.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What comes from the network.
pub enum Arrival {
    Data {
        from: SocketAddr,
        data: Bytes,
        time: u64,
        /// What the endpoint knows of how it came.
        ttl: Option<u8>,
        tos: Option<u8>,
        local: Option<IpAddr>,
    },
    /// An asynchronous failure, and the destination of the datagram it is about when that is known.
    Failed { errno: i32, to: Option<SocketAddr> },
}

/// A socket at the endpoint. `opening` is kept until somebody needs its outcome.
struct Remote {
    send: SendHalf,
    receive: RecvHalf,
    opening: Option<Opening>,
    local: Option<SocketAddr>,
}

pub struct Ports<'a> {
    context: &'a Context,
    /// What bind asked for, with the port that was chosen.
    bound: Option<SocketAddr>,
    remote4: Option<Remote>,
    remote6: Option<Remote>,
    here4: Option<UdpSocket>,
    here6: Option<UdpSocket>,
}

impl<'a> Ports<'a> {
    pub fn new(context: &'a Context) -> Ports<'a> {
        let (remote4, remote6, here4, here6) = (None, None, None, None);
        Ports { context, bound: None, remote4, remote6, here4, here6 }
    }

    /// Sends one datagram; opens a socket of the family when there is none. `Err` is the errno of what could not be sent.
    pub async fn send(&mut self, to: SocketAddr, data: Bytes) -> Result<(), i32> {
        if self.context.is_local(&to) {
            let socket = self.here(to.ip()).await?;
            // A connected socket refuses an address with EISCONN unless it is the peer's, then it needs none.
            let sent = match socket.peer_addr() {
                Ok(peer) if peer == to => socket.send(&data).await,
                _ => socket.send_to(&data, to).await,
            };
            return sent.map(drop).map_err(|error| errno_of(&error));
        }
        let remote = self.remote(to.ip()).await?;
        remote.send.send(data, Some(to)).await.map_err(|error| errno::of_request(&error))
    }

    /// Binds; returns the address with the chosen port.
    pub async fn bind(&mut self, local: SocketAddr) -> Result<SocketAddr, i32> {
        if local.ip().is_loopback() && !self.context.loopback_at_endpoint {
            let socket = UdpSocket::bind(local).await.map_err(|error| errno_of(&error))?;
            let chosen = socket.local_addr().map_err(|error| errno_of(&error))?;
            *self.here_slot(local.ip()) = Some(socket);
            self.bound = Some(chosen);
            return Ok(chosen);
        }
        self.bound = Some(local);
        // [::] on an endpoint without IPv6 still serves the IPv4 side of a dual-stack socket.
        let info = self.context.pool.info();
        let like = match local.ip() {
            ip if info.exports(&ip) => ip,
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) | IpAddr::V4(_) => return self.unbound(libc::EADDRNOTAVAIL),
        };
        match self.opened(like).await {
            Ok(chosen) => {
                self.bound = Some(SocketAddr::new(local.ip(), chosen.port()));
                Ok(chosen)
            }
            Err(errno) => self.unbound(errno),
        }
    }

    fn unbound(&mut self, errno: i32) -> Result<SocketAddr, i32> {
        self.bound = None;
        Err(errno)
    }

    /// Prepares for a peer without a round trip: whether it can be reached at all.
    pub async fn connect(&mut self, peer: SocketAddr) -> Result<(), i32> {
        if self.context.is_local(&peer) {
            let socket = self.here(peer.ip()).await?;
            return socket.connect(peer).await.map_err(|error| errno_of(&error));
        }
        if self.context.pool.info().exports(&peer.ip()) { Ok(()) } else { Err(libc::ENETUNREACH) }
    }

    /// The local address a program would see, `None` when the socket has none yet.
    pub async fn local(&mut self, peer: Option<SocketAddr>) -> Result<Option<SocketAddr>, i32> {
        if let Some(peer) = peer.filter(|peer| self.context.is_local(peer)) {
            let socket = self.here(peer.ip()).await?;
            return socket.local_addr().map(Some).map_err(|error| errno_of(&error));
        }
        let like = match (peer, &self.remote4, &self.remote6) {
            (Some(peer), _, _) => peer.ip(),
            (None, Some(_), _) => Ipv4Addr::UNSPECIFIED.into(),
            (None, None, Some(_)) => Ipv6Addr::UNSPECIFIED.into(),
            (None, None, None) => return Ok(self.bound),
        };
        let mut local = self.opened(like).await?;
        if peer.is_some() && local.ip().is_unspecified() {
            let info = self.context.pool.info();
            match like {
                IpAddr::V4(ip) if ip.is_loopback() => local.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_loopback() => local.set_ip(ip.into()),
                IpAddr::V4(_) => local.set_ip(info.ipv4.first().map_or(local.ip(), |(ip, _)| (*ip).into())),
                IpAddr::V6(_) => local.set_ip(info.ipv6.first().map_or(local.ip(), |ip| (*ip).into())),
            }
        }
        Ok(Some(local))
    }

    /// The next datagram or failure. Cancel-safe.
    pub async fn next(&mut self) -> Arrival {
        loop {
            let (four, event) = tokio::select! {
                event = receive(&mut self.remote4) => (true, event),
                event = receive(&mut self.remote6) => (false, event),
                arrival = receive_here(&self.here4) => return arrival,
                arrival = receive_here(&self.here6) => return arrival,
            };
            let side = if four { &mut self.remote4 } else { &mut self.remote6 };
            match event {
                Some(Event::Data(data)) => {
                    let Some(from) = data.remote else { continue };
                    let (ttl, tos, local) = (data.ttl, data.tos, data.local);
                    return Arrival::Data { from, data: data.data, time: data.time, ttl, tos, local };
                }
                Some(Event::Error(error)) => {
                    if icmp::is_hard(&error) {
                        return Arrival::Failed { errno: i32::from(error.errno), to: error.remote };
                    }
                }
                // A failed datagram ends the endpoint's socket (spec endpoint.md §8); the next one gets a new socket.
                Some(Event::Stat(_)) => *side = None,
                Some(Event::SendRefused(outcome)) => {
                    // With NOPEN refused every NSEND is; the reason is in NOPEN's answer.
                    let opening = side.as_mut().and_then(|side| side.opening.take());
                    let family = if four { Family::V4 } else { Family::V6 };
                    if let Some(opening) = opening {
                        match opening.local(family).await {
                            Ok(local) => {
                                if let Some(side) = side {
                                    side.local = Some(local);
                                }
                            }
                            Err(error) => {
                                *side = None;
                                return failed(errno::of_request(&error));
                            }
                        }
                    }
                    return failed(errno::of_outcome(outcome));
                }
                Some(Event::Tag(_)) => {}
                Some(Event::Ended) | None => {
                    *side = None;
                    return failed(libc::ENETDOWN);
                }
            }
        }
    }

    /// Waits until everything has left the endpoint's queues.
    pub async fn flushed(&self) {
        for side in [&self.remote4, &self.remote6].into_iter().flatten() {
            side.send.flushed().await;
        }
    }

    fn here_slot(&mut self, like: IpAddr) -> &mut Option<UdpSocket> {
        if like.is_ipv4() { &mut self.here4 } else { &mut self.here6 }
    }

    /// The socket on this machine, bound to loopback: it can reach nothing else.
    async fn here(&mut self, like: IpAddr) -> Result<&UdpSocket, i32> {
        let port = self.bound.map_or(0, |bound| bound.port());
        let slot = self.here_slot(like);
        if slot.is_none() {
            let ip: IpAddr =
                if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            let socket = match UdpSocket::bind((ip, port)).await {
                Ok(socket) => socket,
                Err(_) => UdpSocket::bind((ip, 0)).await.map_err(|error| errno_of(&error))?,
            };
            *slot = Some(socket);
        }
        slot.as_ref().ok_or(libc::EIO)
    }

    /// The endpoint's socket of the address's family.
    async fn remote(&mut self, like: IpAddr) -> Result<&mut Remote, i32> {
        let pool = &self.context.pool;
        if !pool.info().exports(&like) {
            return Err(libc::ENETUNREACH);
        }
        let bound = self.bound;
        let slot = if like.is_ipv4() { &mut self.remote4 } else { &mut self.remote6 };
        if slot.is_none() {
            let any = addr::any(like);
            let local = match bound {
                Some(bound) if bound.is_ipv4() == any.is_ipv4() => bound,
                Some(bound) => SocketAddr::new(any.ip(), bound.port()),
                None => any,
            };
            let options = SocketOptions { receive: RECEIVE, hold: false, tags: false };
            let (socket, opening) = loop {
                let session = tokio::time::timeout(OPEN_TIMEOUT, pool.session())
                    .await
                    .map_err(|_| libc::ENETDOWN)??;
                match session.open_udp(local, options) {
                    Ok(opened) => break opened,
                    Err(Error::NoSocket) => {}
                    Err(error) => return Err(errno::of_request(&error)),
                }
            };
            *slot = Some(Remote {
                send: socket.send,
                receive: socket.receive,
                opening: Some(opening),
                local: None,
            });
        }
        slot.as_mut().ok_or(libc::EIO)
    }

    /// As [`Ports::remote`], and waits until it is open.
    async fn opened(&mut self, like: IpAddr) -> Result<SocketAddr, i32> {
        let remote = self.remote(like).await?;
        if let Some(opening) = remote.opening.take() {
            let family = if like.is_ipv4() { Family::V4 } else { Family::V6 };
            match opening.local(family).await {
                Ok(local) => remote.local = Some(local),
                Err(error) => {
                    if like.is_ipv4() {
                        self.remote4 = None;
                    } else {
                        self.remote6 = None;
                    }
                    return Err(errno::of_request(&error));
                }
            }
        }
        remote_local(if like.is_ipv4() { &self.remote4 } else { &self.remote6 })
    }
}

fn remote_local(remote: &Option<Remote>) -> Result<SocketAddr, i32> {
    remote.as_ref().and_then(|remote| remote.local).ok_or(libc::EADDRNOTAVAIL)
}

async fn receive(remote: &mut Option<Remote>) -> Option<Event> {
    match remote {
        Some(remote) => remote.receive.recv().await,
        None => pending().await,
    }
}

async fn receive_here(socket: &Option<UdpSocket>) -> Arrival {
    let Some(socket) = socket else { return pending().await };
    loop {
        if let Err(error) = socket.readable().await {
            return failed(errno_of(&error));
        }
        let mut buffer = BytesMut::with_capacity(DATAGRAM_MOST);
        match socket.try_recv_buf_from(&mut buffer) {
            Ok((_, from)) => {
                let time =
                    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
                let (data, ttl, tos, local) = (Bytes::copy_from_slice(&buffer), None, None, None);
                return Arrival::Data { from, data, time, ttl, tos, local };
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return failed(errno_of(&error)),
        }
    }
}

fn failed(errno: i32) -> Arrival {
    Arrival::Failed { errno, to: None }
}

fn errno_of(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

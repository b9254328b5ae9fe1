//! Opening sockets: NOPEN, the wait for a connect, and what the socket's block says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::event::Event;
use super::shared::Shared;
use super::socket::{Socket, SocketOptions};
use super::{Answer, Controller, Error};
use crate::vmem::{SocketState, extension, socket as block};
use crate::wire::{ErrId, Family, Message, NOpen, NStat, OpenAddress, StatEvent};

/// Polling of a pending connect where the endpoint cannot tell that it failed.
const POLL_FIRST: Duration = Duration::from_millis(20);
const POLL_MOST: Duration = Duration::from_millis(250);
/// Part of a socket block that opening reads: FAMILY up to RPORT.
const BLOCK_LEN: u16 = 0x34;

/// A socket whose NOPEN was queued. Data may be sent before the answer is there.
pub struct Opening {
    answer: Answer,
    block: Answer,
    shared: Arc<Shared>,
}

/// A TCP connect under way.
pub struct Connecting {
    controller: Controller,
    socket: Socket,
    opening: Opening,
}

/// An established TCP connection.
pub struct Connected {
    pub socket: Socket,
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// Why a TCP connect failed.
#[derive(Clone, Debug)]
pub enum ConnectFailure {
    /// The endpoint's operating system said so (Linux errno).
    Errno(u16),
    Refused,
    Reset,
    TimedOut,
    Unreachable,
    /// The endpoint knows that it failed and not why.
    Unknown,
    /// NOPEN was refused, or the session is over.
    Request(Error),
}

impl Controller {
    /// Opens a UDP socket bound to `local` (unspecified address and port 0: any). Returns at once; the first datagrams may
    /// be sent without waiting for [`Opening::local`].
    pub fn open_udp(&self, local: SocketAddr, options: SocketOptions) -> Result<(Socket, Opening), Error> {
        self.open(OpenAddress::Udp { local }, options)
    }

    /// Starts a TCP connect from `local` (unspecified address and port 0: any) to `remote`, which must be of one family.
    pub fn connect_tcp(
        &self,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: SocketOptions,
    ) -> Result<Connecting, Error> {
        let local = local.unwrap_or_else(|| any(remote.ip()));
        let (socket, opening) = self.open(OpenAddress::TcpConnect { local, remote }, options)?;
        Ok(Connecting { controller: self.clone(), socket, opening })
    }

    pub(super) fn open(
        &self,
        address: OpenAddress,
        options: SocketOptions,
    ) -> Result<(Socket, Opening), Error> {
        let (socket, rbufsz) = Socket::reserve(&self.shared, address.family(), address.proto(), options)?;
        let opening = self.open_reserved(&socket, rbufsz, address)?;
        Ok((socket, opening))
    }

    /// NOPEN for a number that is taken already.
    pub(super) fn open_reserved(
        &self,
        socket: &Socket,
        rbufsz: u32,
        address: OpenAddress,
    ) -> Result<Opening, Error> {
        let id = socket.id();
        let answer = self.request(&Message::NOpen(NOpen { socket: id, rbufsz, address }))?;
        let block = self.request(&Message::MRead { addr: block::block(id), len: BLOCK_LEN })?;
        Ok(Opening { answer, block, shared: self.shared.clone() })
    }
}

impl Opening {
    /// Waits for the endpoint's answers; returns the local address the operating system chose. Its address part is
    /// unspecified for UDP opened so, its port 0 for raw sockets.
    pub async fn local(self, family: Family) -> Result<SocketAddr, Error> {
        Ok(self.block().await?.local(family))
    }

    pub(super) async fn block(self) -> Result<Block, Error> {
        if let Err(error) = self.answer.success().await {
            if error.errid() == Some(ErrId::ENORES) {
                self.shared.exhausted();
                return Err(Error::NoSocket);
            }
            return Err(error);
        }
        Ok(Block(self.block.data(usize::from(BLOCK_LEN)).await?))
    }
}

impl Connecting {
    /// Waits for the outcome. Established connections cost one round trip of the session and the endpoint's own connect;
    /// failures are told by NERR, or found by reading the socket's state every 20–250 ms where the endpoint has no NERR.
    pub async fn established(self) -> Result<Connected, ConnectFailure> {
        let Connecting { controller, mut socket, opening } = self;
        let (family, id) = (socket.family(), socket.id());
        let block = opening.block().await.map_err(ConnectFailure::Request)?;
        let mut open = block.outcome()?;
        let mut local = block.local(family);
        let mut remote = block.remote(family);
        let told = controller.extension(extension::NERR);
        let mut pause = POLL_FIRST;
        while !open {
            let event = if told {
                socket.receive.recv().await
            } else {
                match tokio::time::timeout(pause, socket.receive.recv()).await {
                    Ok(event) => event,
                    Err(_) => {
                        pause = (pause * 2).min(POLL_MOST);
                        let read = controller.mread(block::block(id), BLOCK_LEN).await;
                        open = Block(read.map_err(ConnectFailure::Request)?).outcome()?;
                        continue;
                    }
                }
            };
            match event {
                Some(Event::Stat(NStat { event: StatEvent::Established(peer), .. })) => {
                    remote = peer;
                    open = true;
                }
                Some(Event::Stat(NStat { event: StatEvent::Code(code), .. })) => match code {
                    NStat::ESTABLISHED => open = true,
                    NStat::RESET => return Err(ConnectFailure::Reset),
                    NStat::TIMEOUT => return Err(ConnectFailure::TimedOut),
                    _ => return Err(ConnectFailure::Unknown),
                },
                Some(Event::Error(error)) => return Err(ConnectFailure::Errno(error.errno)),
                Some(Event::Ended) | None => {
                    return Err(ConnectFailure::Request(controller.shared.ended_error()));
                }
                Some(Event::Data(_) | Event::Tag(_) | Event::SendRefused(_)) => {}
            }
        }
        if local.ip().is_unspecified() || local.port() == 0 {
            let read = controller.mread(block::block(id), BLOCK_LEN).await;
            local = Block(read.map_err(ConnectFailure::Request)?).local(family);
        }
        Ok(Connected { socket, local, remote })
    }
}

/// FAMILY … RPORT of a socket block.
pub(super) struct Block(Bytes);

impl Block {
    /// Whether the connect is done already; an error state is its failure.
    fn outcome(&self) -> Result<bool, ConnectFailure> {
        match SocketState::from_octet(self.0[block::STAT as usize]) {
            Some(SocketState::Opening) => Ok(false),
            Some(SocketState::Refused) => Err(ConnectFailure::Refused),
            Some(SocketState::Reset) => Err(ConnectFailure::Reset),
            Some(SocketState::TimedOut) => Err(ConnectFailure::TimedOut),
            Some(SocketState::Unreach) => Err(ConnectFailure::Unreachable),
            Some(SocketState::Open | SocketState::Eof | SocketState::Wfin | SocketState::End) => Ok(true),
            _ => Err(ConnectFailure::Unknown),
        }
    }

    pub(super) fn local(&self, family: Family) -> SocketAddr {
        self.addr(family, block::LADDR, block::LPORT)
    }

    fn remote(&self, family: Family) -> SocketAddr {
        self.addr(family, block::RADDR, block::RPORT)
    }

    fn addr(&self, family: Family, ip: u32, port: u32) -> SocketAddr {
        let (ip, port) = (ip as usize, port as usize);
        let port = u16::from_be_bytes([self.0[port], self.0[port + 1]]);
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.0[ip..ip + 16]);
        let ip = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
            Family::V6 => IpAddr::V6(octets.into()),
        };
        SocketAddr::new(ip, port)
    }
}

fn any(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

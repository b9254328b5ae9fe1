//! Listening sockets (the LISTEN extension): NACCPT announces a connection, NTAKE makes it a socket.

use std::net::SocketAddr;

use tokio::sync::mpsc;

use super::open::Connected;
use super::socket::{Core, Socket, SocketOptions};
use super::{Answer, Controller, Error};
use crate::vmem::extension;
use crate::wire::{ErrId, ExtRequest, NAccpt, NTake, OpenAddress, Proto};

/// A listening TCP socket at the endpoint. Dropping it closes the connections that were not accepted.
pub struct Listener {
    controller: Controller,
    socket: Socket,
    local: SocketAddr,
    options: SocketOptions,
    waiting: mpsc::UnboundedReceiver<NAccpt>,
    /// Announced, and not taken because the session had no number left.
    next: Option<NAccpt>,
    /// Kept across a cancelled [`Listener::accept`].
    taking: Option<(Socket, NAccpt, Answer)>,
}

impl Controller {
    /// Listens on `local` (unspecified address: all of its family, port 0: any); `options` are those of the connections.
    /// An IPv6 listener takes no IPv4 connections.
    pub async fn listen(&self, local: SocketAddr, options: SocketOptions) -> Result<Listener, Error> {
        if !self.extension(extension::LISTEN) {
            return Err(Error::Unsupported("listening sockets"));
        }
        let none = SocketOptions { receive: 0, hold: false, tags: false };
        let address = OpenAddress::TcpListen { local };
        let (socket, rbufsz) = Socket::reserve(&self.shared, address.family(), address.proto(), none)?;
        // Before the NOPEN goes out: the first NACCPT may follow its RESULT at once.
        let waiting = self.shared.accepts(socket.id());
        let opening = self.open_reserved(&socket, rbufsz, address)?;
        let local = opening.local(socket.family()).await?;
        Ok(Listener { controller: self.clone(), socket, local, options, waiting, next: None, taking: None })
    }
}

impl Listener {
    /// The address with the port that the endpoint's system chose.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next connection. Those whose peers have gone, or that the endpoint's operator does not allow, are passed over.
    /// [`Error::NoSocket`] leaves the connection waiting. Cancel-safe.
    pub async fn accept(&mut self) -> Result<Connected, Error> {
        loop {
            if self.taking.is_none() {
                let waiting = match self.next.take() {
                    Some(waiting) => waiting,
                    None => self.waiting.recv().await.ok_or_else(|| self.controller.shared.ended_error())?,
                };
                self.taking = Some(self.take(waiting).inspect_err(|_| self.next = Some(waiting))?);
            }
            let Some((_, _, answer)) = &mut self.taking else { continue };
            let outcome = answer.outcome().await;
            let Some((socket, taken, _)) = self.taking.take() else { continue };
            match outcome {
                Ok(()) => return Ok(Connected { socket, local: taken.local, remote: taken.remote }),
                Err(error) => match error.errid() {
                    Some(ErrId::ESKTNOTOPEN | ErrId::ESKTOPNDENY) => {
                        tracing::debug!(remote = %taken.remote, %error, "a connection is gone or not allowed");
                    }
                    Some(ErrId::ENORES) => {
                        self.controller.shared.exhausted();
                        self.next = Some(taken);
                        return Err(Error::NoSocket);
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    fn take(&self, waiting: NAccpt) -> Result<(Socket, NAccpt, Answer), Error> {
        let shared = &self.controller.shared;
        let (socket, rbufsz) = Socket::reserve(shared, self.socket.family(), Proto::Tcp, self.options)?;
        let take = NTake { socket: socket.id(), listener: self.socket.id(), handle: waiting.handle, rbufsz };
        let answer = shared.extension_request(&ExtRequest::NTake(take))?;
        Ok((socket, waiting, answer))
    }

    pub(super) fn core(&self) -> &Core {
        &self.socket.send.core
    }
}

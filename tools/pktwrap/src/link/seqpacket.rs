//! SEQPACKET unix sockets on tokio, and listeners on abstract names.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A listener on an abstract name.
pub struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    pub fn bind(kind: SocketType, name: &[u8]) -> io::Result<Listener> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        rustix::net::bind(&fd, &SocketAddrUnix::new_abstract_name(name)?)?;
        rustix::net::listen(&fd, 4096)?;
        Ok(Listener(crate::sys::register(fd, Interest::READABLE)?))
    }

    /// The next connection. Waits out a shortage of descriptors: the connection stays in the backlog.
    pub async fn accept(&self) -> OwnedFd {
        loop {
            match self.0.async_io(Interest::READABLE, |fd| accept(fd.as_fd())).await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!("cannot accept a socket of the program: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// A connection that is waiting already.
    pub fn try_accept(&self) -> Option<OwnedFd> {
        accept(self.0.get_ref().as_fd()).ok()
    }
}

fn accept(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?)
}

/// Whether the other side of a unix socket is closed altogether.
pub fn is_gone(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::empty())];
    match rustix::event::poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => fds[0].revents().contains(PollFlags::HUP),
        Err(_) => false,
    }
}

/// A connected SEQPACKET socket.
pub struct Seqpacket(AsyncFd<OwnedFd>);

impl Seqpacket {
    pub fn new(fd: OwnedFd) -> io::Result<Seqpacket> {
        Ok(Seqpacket(crate::sys::register(fd, Interest::READABLE | Interest::WRITABLE)?))
    }

    /// One message; 0 at the end. What does not fit into `buffer` is lost.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .async_io(Interest::READABLE, |fd| {
                let received = rustix::net::recv(fd, &mut *buffer, RecvFlags::empty())?;
                Ok(received.0)
            })
            .await
    }

    /// Sends one message made of `parts` if there is room.
    pub fn try_send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.try_io(Interest::WRITABLE, |fd| send(fd.as_fd(), parts, None))
    }

    /// Sends one message made of `parts`, and a descriptor with it.
    pub async fn send(&self, parts: &[IoSlice<'_>], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, |fd| send(fd.as_fd(), parts, descriptor)).await
    }

    /// Completes when a send may succeed.
    pub async fn writable(&self) -> io::Result<()> {
        self.0.writable().await.map(drop)
    }
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

fn send(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    rustix::net::sendmsg(fd, parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

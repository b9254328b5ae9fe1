//! Making and asking operating-system sockets.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::session::{Errno, OpenFault};

pub(super) fn bound(local: SocketAddr, kind: Type, protocol: Protocol) -> Result<Socket, OpenFault> {
    let socket = new(local, kind, protocol)?;
    if kind == Type::STREAM && local.ip().is_unspecified() && local.port() == 0 {
        // connect() chooses better: it knows the peer and can share a port between peers.
        return Ok(socket);
    }
    socket.bind(&SockAddr::from(local)).map_err(|error| OpenFault::Bind(errno_of(&error)))?;
    Ok(socket)
}

pub(super) fn listening(local: SocketAddr, backlog: i32) -> Result<Socket, OpenFault> {
    let socket = new(local, Type::STREAM, Protocol::TCP)?;
    // As servers do: connections of an earlier listener that are still closing do not block the port.
    let outcome = socket
        .set_reuse_address(true)
        .and_then(|()| socket.bind(&SockAddr::from(local)))
        .and_then(|()| socket.listen(backlog));
    outcome.map_err(|error| OpenFault::Bind(errno_of(&error)))?;
    Ok(socket)
}

fn new(local: SocketAddr, kind: Type, protocol: Protocol) -> Result<Socket, OpenFault> {
    let socket = Socket::new(Domain::for_address(local), kind.nonblocking().cloexec(), Some(protocol))
        .map_err(|error| OpenFault::Socket(errno_of(&error)))?;
    if local.is_ipv6() {
        // IPv4 has sockets of its own; mapped addresses would slip past destination limits.
        socket.set_only_v6(true).map_err(|error| OpenFault::Socket(errno_of(&error)))?;
    }
    Ok(socket)
}

/// The next connection of a listening socket, with remote and local address.
pub(super) fn accepted(listener: BorrowedFd<'_>) -> Result<(OwnedFd, SocketAddr, SocketAddr), Errno> {
    let fd = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let socket = Socket::from(fd);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new());
    let fd = OwnedFd::from(socket);
    let remote = peer_of(std::os::fd::AsFd::as_fd(&fd))?;
    let local = address_of(std::os::fd::AsFd::as_fd(&fd)).ok_or(Errno::AFNOSUPPORT)?;
    Ok((fd, remote, local))
}

pub(super) fn address_of(fd: BorrowedFd<'_>) -> Option<SocketAddr> {
    SockRef::from(&fd).local_addr().ok()?.as_socket()
}

pub(super) fn peer_of(fd: BorrowedFd<'_>) -> Result<SocketAddr, Errno> {
    let peer = SockRef::from(&fd).peer_addr().map_err(|error| errno_of(&error))?;
    peer.as_socket().ok_or(Errno::AFNOSUPPORT)
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(match error.kind() {
        // An error of ours that explains one of the system.
        std::io::ErrorKind::PermissionDenied => Errno::PERM,
        std::io::ErrorKind::Unsupported => Errno::OPNOTSUPP,
        _ => Errno::IO,
    })
}

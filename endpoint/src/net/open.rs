//! Making and asking operating-system sockets.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::session::{Errno, OpenFault};

pub(super) fn bound(local: SocketAddr, kind: Type, protocol: Protocol) -> Result<Socket, OpenFault> {
    let socket = Socket::new(Domain::for_address(local), kind.nonblocking().cloexec(), Some(protocol))
        .map_err(|error| OpenFault::Socket(errno_of(&error)))?;
    if local.is_ipv6() {
        // IPv4 has sockets of its own; mapped addresses would slip past destination limits.
        socket.set_only_v6(true).map_err(|error| OpenFault::Socket(errno_of(&error)))?;
    }
    if kind == Type::STREAM && local.ip().is_unspecified() && local.port() == 0 {
        // connect() chooses better: it knows the peer and can share a port between peers.
        return Ok(socket);
    }
    socket.bind(&SockAddr::from(local)).map_err(|error| OpenFault::Bind(errno_of(&error)))?;
    Ok(socket)
}

pub(super) fn address_of(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

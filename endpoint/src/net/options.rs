//! Socket options by the numbers of NOPT (`docs/extensions.md` §3).

use std::os::fd::BorrowedFd;

use libc::c_int;
use pktlab::wire::{NOpt, SockOpt};

use super::open::errno_of;
use super::sys;
use crate::session::Errno;

/// Most bytes of a kernel buffer that a controller may ask for: the kernel's memory is not in the session's budget.
const BUFFER_MAX: u32 = 4 << 20;

/// Level and name of an option of a socket over IPv6 or IPv4.
fn name(option: SockOpt, v6: bool) -> (c_int, c_int) {
    use libc::*;
    match (option, v6) {
        (SockOpt::Ttl, false) => (IPPROTO_IP, IP_TTL),
        (SockOpt::Ttl, true) => (IPPROTO_IPV6, IPV6_UNICAST_HOPS),
        (SockOpt::Tos, false) => (IPPROTO_IP, IP_TOS),
        (SockOpt::Tos, true) => (IPPROTO_IPV6, IPV6_TCLASS),
        (SockOpt::MtuDiscover, false) => (IPPROTO_IP, IP_MTU_DISCOVER),
        (SockOpt::MtuDiscover, true) => (IPPROTO_IPV6, IPV6_MTU_DISCOVER),
        (SockOpt::PathMtu, false) => (IPPROTO_IP, IP_MTU),
        (SockOpt::PathMtu, true) => (IPPROTO_IPV6, IPV6_MTU),
        (SockOpt::MulticastTtl, false) => (IPPROTO_IP, IP_MULTICAST_TTL),
        (SockOpt::MulticastTtl, true) => (IPPROTO_IPV6, IPV6_MULTICAST_HOPS),
        (SockOpt::MulticastLoop, false) => (IPPROTO_IP, IP_MULTICAST_LOOP),
        (SockOpt::MulticastLoop, true) => (IPPROTO_IPV6, IPV6_MULTICAST_LOOP),
        (SockOpt::Broadcast, _) => (SOL_SOCKET, SO_BROADCAST),
        (SockOpt::KeepAlive, _) => (SOL_SOCKET, SO_KEEPALIVE),
        (SockOpt::Linger, _) => (SOL_SOCKET, SO_LINGER),
        (SockOpt::SendBuffer, _) => (SOL_SOCKET, SO_SNDBUF),
        (SockOpt::ReceiveBuffer, _) => (SOL_SOCKET, SO_RCVBUF),
        (SockOpt::NoDelay, _) => (IPPROTO_TCP, TCP_NODELAY),
        (SockOpt::MaxSegment, _) => (IPPROTO_TCP, TCP_MAXSEG),
        (SockOpt::QuickAck, _) => (IPPROTO_TCP, TCP_QUICKACK),
    }
}

pub fn set(fd: BorrowedFd<'_>, v6: bool, option: SockOpt, value: u32) -> Result<(), Errno> {
    let name = name(option, v6);
    let outcome = match option {
        SockOpt::PathMtu => return Err(Errno::NOPROTOOPT),
        SockOpt::Linger => {
            let on = value != NOpt::LINGER_OFF;
            let linger = libc::linger { l_onoff: on.into(), l_linger: if on { number(value)? } else { 0 } };
            sys::set(fd, name, &linger)
        }
        SockOpt::SendBuffer | SockOpt::ReceiveBuffer => sys::set(fd, name, &number(value.min(BUFFER_MAX))?),
        // Both have -1 for what the system does by itself, except IPv4's TOS, where that is 0.
        SockOpt::Tos if value == NOpt::SYSTEM_DEFAULT && !v6 => sys::set(fd, name, &0),
        SockOpt::Ttl | SockOpt::Tos if value == NOpt::SYSTEM_DEFAULT => sys::set(fd, name, &-1),
        _ => sys::set(fd, name, &number(value)?),
    };
    outcome.map_err(|error| errno_of(&error))
}

pub fn get(fd: BorrowedFd<'_>, v6: bool, option: SockOpt) -> Result<u32, Errno> {
    let name = name(option, v6);
    if option == SockOpt::Linger {
        let linger: libc::linger = sys::get(fd, name).map_err(|error| errno_of(&error))?;
        return Ok(if linger.l_onoff == 0 { NOpt::LINGER_OFF } else { linger.l_linger as u32 });
    }
    // A negative number is the system's default, all ones on the wire too.
    sys::get::<c_int>(fd, name).map(|value| value as u32).map_err(|error| errno_of(&error))
}

fn number(value: u32) -> Result<c_int, Errno> {
    c_int::try_from(value).map_err(|_| Errno::INVAL)
}

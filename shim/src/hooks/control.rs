//! Making, naming and controlling sockets.

use core::sync::atomic::Ordering;

use libc::{c_int, c_ulong, c_void, sockaddr, socklen_t};
use pktwrap_link::names::Kind;
use pktwrap_link::page::{flag, state};

use crate::hook::{blocking, plain};
use crate::socket::{self as table, Hint, Socket};
use crate::state::Mode;
use crate::sys::{complain, fail};
use crate::{addr, options, tcp, udp};

/// 0 or -1 with errno.
fn done(errno: c_int) -> c_int {
    if errno == 0 { 0 } else { fail(errno) }
}

plain! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int => hooked_socket {
        match crate::state::mode() {
            Mode::Inert => return redhook::real!(socket)(domain, kind, protocol),
            Mode::Dead if matches!(domain, libc::AF_INET | libc::AF_INET6) => return fail(libc::ENETDOWN),
            _ => {}
        }
        match domain {
            libc::AF_INET | libc::AF_INET6 => match table::open(domain, kind, protocol) {
                errno if errno < 0 => fail(-errno),
                fd => fd,
            },
            // Ways around the hooks to the local network.
            libc::AF_PACKET | libc::AF_XDP => fail(libc::EPERM),
            AF_SMC | libc::AF_RXRPC | libc::AF_TIPC | libc::AF_RDS => fail(libc::EAFNOSUPPORT),
            _ => accepted(redhook::real!(socket)(domain, kind, protocol)),
        }
    }
}

plain! {
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: *mut c_int) -> c_int => hooked_socketpair {
        let result = redhook::real!(socketpair)(domain, kind, protocol, fds);
        if result == 0 {
            accepted(*fds);
            accepted(*fds.add(1));
        }
        result
    }
}

const AF_SMC: c_int = 43;

blocking! {
    fn connect(fd: c_int, sa: *const sockaddr, len: socklen_t) -> c_int {
        match table::find(fd) {
            None => connect::real()(fd, sa, len),
            Some(sock) if sock.kind == Kind::Tcp => done(tcp::connect(&sock, sa, len)),
            Some(sock) => done(udp::connect(&sock, sa, len)),
        }
    }
}

plain! {
    fn bind(fd: c_int, sa: *const sockaddr, len: socklen_t) -> c_int => hooked_bind {
        match table::find(fd) {
            None => redhook::real!(bind)(fd, sa, len),
            Some(sock) if sock.kind == Kind::Tcp => done(tcp::bind(&sock, sa, len)),
            Some(sock) => done(udp::bind(&sock, sa, len)),
        }
    }
}

plain! {
    fn listen(fd: c_int, backlog: c_int) -> c_int => hooked_listen {
        if table::find(fd).is_none() {
            return redhook::real!(listen)(fd, backlog);
        }
        complain(&[b"listening at the endpoint is not supported yet; listen() fails"]);
        fail(libc::EOPNOTSUPP)
    }
}

blocking! {
    fn accept(fd: c_int, sa: *mut sockaddr, len: *mut socklen_t) -> c_int {
        match table::find(fd) {
            None => accepted(accept::real()(fd, sa, len)),
            Some(sock) => fail(not_listening(&sock)),
        }
    }
}

blocking! {
    fn accept4(fd: c_int, sa: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
        match table::find(fd) {
            None => accepted(accept4::real()(fd, sa, len, flags)),
            Some(sock) => fail(not_listening(&sock)),
        }
    }
}

/// The new descriptor may have been another socket's before.
fn accepted(fd: c_int) -> c_int {
    table::forget(fd);
    fd
}

fn not_listening(sock: &Socket) -> c_int {
    if sock.kind == Kind::Tcp { libc::EINVAL } else { libc::EOPNOTSUPP }
}

plain! {
    fn getsockname(fd: c_int, sa: *mut sockaddr, len: *mut socklen_t) -> c_int => hooked_getsockname {
        let Some(sock) = table::find(fd) else { return redhook::real!(getsockname)(fd, sa, len) };
        let local = if sock.kind == Kind::Tcp { Ok(tcp::local(&sock)) } else { udp::local(&sock) };
        match local {
            Ok(local) => done(addr::hand_out(&local, sock.family, sa, len)),
            Err(errno) => fail(errno),
        }
    }
}

plain! {
    fn getpeername(fd: c_int, sa: *mut sockaddr, len: *mut socklen_t) -> c_int => hooked_getpeername {
        let Some(sock) = table::find(fd) else { return redhook::real!(getpeername)(fd, sa, len) };
        let remote = sock.slot.remote.load();
        let connected =
            sock.kind != Kind::Tcp || sock.state() == state::CONNECTED && !sock.slot.has(flag::RESET);
        if !connected || remote.family == 0 {
            return fail(libc::ENOTCONN);
        }
        done(addr::hand_out(&remote, sock.family, sa, len))
    }
}

plain! {
    fn setsockopt(fd: c_int, level: c_int, name: c_int, data: *const c_void, len: socklen_t) -> c_int
    => hooked_setsockopt {
        match table::find(fd).and_then(|s| options::set(&s, level, name, data, len)) {
            None => redhook::real!(setsockopt)(fd, level, name, data, len),
            Some(errno) => done(errno),
        }
    }
}

plain! {
    fn getsockopt(fd: c_int, level: c_int, name: c_int, data: *mut c_void, len: *mut socklen_t) -> c_int
    => hooked_getsockopt {
        match table::find(fd).and_then(|s| options::get(&s, level, name, data, len)) {
            None => redhook::real!(getsockopt)(fd, level, name, data, len),
            Some(errno) => done(errno),
        }
    }
}

plain! {
    fn shutdown(fd: c_int, how: c_int) -> c_int => hooked_shutdown {
        let Some(sock) = table::find(fd) else { return redhook::real!(shutdown)(fd, how) };
        let errno = match sock.kind {
            _ if !(libc::SHUT_RD..=libc::SHUT_RDWR).contains(&how) => libc::EINVAL,
            Kind::Tcp => tcp::shutdown(&sock, how),
            _ if sock.slot.remote.load().family == 0 => libc::ENOTCONN,
            _ => {
                if how != libc::SHUT_WR {
                    sock.slot.set(flag::LOCAL_RDSHUT);
                }
                0
            }
        };
        if errno != 0 {
            return fail(errno);
        }
        redhook::real!(shutdown)(fd, how)
    }
}

plain! {
    fn ioctl(fd: c_int, request: c_ulong, arg: *mut c_void) -> c_int => hooked_ioctl {
        if request == libc::FIONREAD
            && crate::state::page().is_some_and(|p| p.header.datagrams.load(Ordering::Relaxed) != 0)
            && let Ok(Some(sock)) = table::datagram(fd)
        {
            if arg.is_null() {
                return fail(libc::EFAULT);
            }
            arg.cast::<c_int>().write(udp::next_len(&sock));
            return 0;
        }
        redhook::real!(ioctl)(fd, request, arg)
    }
}

plain! {
    fn dup(fd: c_int) -> c_int => hooked_dup { accepted(redhook::real!(dup)(fd)) }
}

plain! {
    fn dup2(fd: c_int, to: c_int) -> c_int => hooked_dup2 { accepted(redhook::real!(dup2)(fd, to)) }
}

plain! {
    fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int => hooked_dup3 {
        accepted(redhook::real!(dup3)(fd, to, flags))
    }
}

blocking! {
    fn fcntl(fd: c_int, command: c_int, arg: *mut c_void) -> c_int {
        duplicated(command, fcntl::real()(fd, command, arg))
    }
}

blocking! {
    fn fcntl64(fd: c_int, command: c_int, arg: *mut c_void) -> c_int {
        duplicated(command, fcntl64::real()(fd, command, arg))
    }
}

fn duplicated(command: c_int, result: c_int) -> c_int {
    if command == libc::F_DUPFD || command == libc::F_DUPFD_CLOEXEC {
        table::remember(result, Hint::Unknown);
    }
    result
}

/// Finds all real functions.
pub fn prepare() {
    redhook::real!(socket);
    redhook::real!(socketpair);
    redhook::real!(bind);
    redhook::real!(listen);
    redhook::real!(getsockname);
    redhook::real!(getpeername);
    redhook::real!(setsockopt);
    redhook::real!(getsockopt);
    redhook::real!(shutdown);
    redhook::real!(ioctl);
    redhook::real!(dup);
    redhook::real!(dup2);
    redhook::real!(dup3);
    connect::prepare();
    accept::prepare();
    accept4::prepare();
    fcntl::prepare();
    fcntl64::prepare();
}

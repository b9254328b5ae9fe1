//! syscall(): tools (libuv, jemalloc) reach sockets through it; their numbers take the way of the named functions.

use libc::{c_int, c_long};

use super::{control, io};
use crate::hook::blocking;

blocking! {
    fn syscall(
        number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize,
    ) -> c_long {
        let fd = a as c_int;
        match number {
            libc::SYS_socket => control::hooked_socket(fd, b as c_int, c as c_int).into(),
            libc::SYS_connect => control::connect(fd, b as _, c as _).into(),
            libc::SYS_bind => control::hooked_bind(fd, b as _, c as _).into(),
            libc::SYS_listen => control::hooked_listen(fd, b as _).into(),
            libc::SYS_accept => control::accept(fd, b as _, c as _).into(),
            libc::SYS_accept4 => control::accept4(fd, b as _, c as _, d as _).into(),
            libc::SYS_getsockname => control::hooked_getsockname(fd, b as _, c as _).into(),
            libc::SYS_getpeername => control::hooked_getpeername(fd, b as _, c as _).into(),
            libc::SYS_setsockopt => control::hooked_setsockopt(fd, b as _, c as _, d as _, e as _).into(),
            libc::SYS_getsockopt => control::hooked_getsockopt(fd, b as _, c as _, d as _, e as _).into(),
            libc::SYS_shutdown => control::hooked_shutdown(fd, b as _).into(),
            libc::SYS_ioctl => control::hooked_ioctl(fd, b as _, c as _).into(),
            libc::SYS_dup3 => control::hooked_dup3(fd, b as _, c as _).into(),
            libc::SYS_sendto => io::sendto(fd, b as _, c, d as _, e as _, f as _) as c_long,
            libc::SYS_sendmsg => io::sendmsg(fd, b as _, c as _) as c_long,
            libc::SYS_sendmmsg => io::sendmmsg(fd, b as _, c as _, d as _).into(),
            libc::SYS_recvfrom => io::recvfrom(fd, b as _, c, d as _, e as _, f as _) as c_long,
            libc::SYS_recvmsg => io::recvmsg(fd, b as _, c as _) as c_long,
            libc::SYS_recvmmsg => io::recvmmsg(fd, b as _, c as _, d as _, e as _).into(),
            libc::SYS_read => io::read(fd, b as _, c) as c_long,
            libc::SYS_write => io::write(fd, b as _, c) as c_long,
            libc::SYS_readv => io::readv(fd, b as _, c as _) as c_long,
            libc::SYS_writev => io::writev(fd, b as _, c as _) as c_long,
            _ => syscall::real()(number, a, b, c, d, e, f),
        }
    }
}

/// Finds the real function.
pub fn prepare() {
    syscall::prepare();
}

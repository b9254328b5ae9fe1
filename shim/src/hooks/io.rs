//! Moving bytes. A stream socket's bytes are the unix socket's bytes; only what ends them is looked at. A datagram is a
//! frame.

use libc::{
    c_int, c_uint, c_void, iovec, mmsghdr, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t,
};
use pktwrap_link::names::Kind;

use crate::hook::blocking;
use crate::socket::{self, Socket};
use crate::{state, sys, tcp, udp};

/// What a descriptor is for reading and writing.
enum Class {
    Other,
    Stream,
    Datagram(Socket),
}

fn class(fd: c_int) -> Class {
    match socket::datagram(fd) {
        Ok(None) => Class::Other,
        Ok(Some(socket)) => Class::Datagram(socket),
        Err(()) => Class::Stream,
    }
}

/// After a receive on a stream.
fn received(fd: c_int, result: ssize_t, wanted: bool) -> ssize_t {
    if result > 0 || !wanted {
        return result;
    }
    let errno = if result < 0 { sys::errno() } else { 0 };
    if !matches!(errno, 0 | libc::ECONNRESET | libc::EINVAL) {
        return result;
    }
    let Some(socket) = socket::find(fd) else { return result };
    if socket.kind != Kind::Tcp {
        return result;
    }
    match tcp::no_data(&socket, errno) {
        Ok(()) => 0,
        Err(errno) => sys::fail(errno) as ssize_t,
    }
}

/// After a send on a stream with MSG_NOSIGNAL.
fn sent(fd: c_int, result: ssize_t, flags: c_int) -> ssize_t {
    if result >= 0 {
        return result;
    }
    let mut errno = sys::errno();
    if matches!(errno, libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN)
        && let Some(socket) = socket::find(fd)
    {
        errno = tcp::not_sent(&socket, errno);
    }
    if errno == libc::EPIPE && flags & libc::MSG_NOSIGNAL == 0 {
        sys::raise_sigpipe();
    }
    sys::fail(errno) as ssize_t
}

/// Flags a unix stream understands; urgent data travels in line.
fn stream_flags(flags: c_int) -> c_int {
    flags & (libc::MSG_DONTWAIT | libc::MSG_MORE) | libc::MSG_NOSIGNAL
}

fn answer(result: isize) -> ssize_t {
    sys::answer(result)
}

fn message(iov: *mut iovec, count: usize) -> msghdr {
    // SAFETY: integers and pointers, for which zero is valid.
    let mut message: msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = iov;
    message.msg_iovlen = count;
    message
}

unsafe fn datagram_out(
    socket: &Socket,
    data: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    let mut piece = iovec { iov_base: data.cast_mut(), iov_len: len };
    let mut message = message(&mut piece, 1);
    message.msg_name = to.cast_mut().cast();
    message.msg_namelen = to_len;
    answer(udp::send(socket, &message, flags))
}

unsafe fn datagram_in(
    socket: &Socket,
    data: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    let mut piece = iovec { iov_base: data, iov_len: len };
    let mut message = message(&mut piece, 1);
    if !from.is_null() && !from_len.is_null() {
        message.msg_name = from.cast();
        message.msg_namelen = *from_len;
    }
    let result = udp::receive(socket, &mut message, flags);
    if result >= 0 && !from_len.is_null() && !from.is_null() {
        *from_len = message.msg_namelen;
    }
    answer(result)
}

blocking! {
    fn send(fd: c_int, data: *const c_void, len: size_t, flags: c_int) -> ssize_t {
        match class(fd) {
            Class::Other => send::real()(fd, data, len, flags),
            Class::Stream => stream_out(fd, data, len, flags),
            Class::Datagram(s) => datagram_out(&s, data, len, flags, core::ptr::null(), 0),
        }
    }
}

unsafe fn stream_out(fd: c_int, data: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    let result = send::real()(fd, data, len, stream_flags(flags));
    if result < 0 && sys::errno() == libc::ENOTSOCK {
        socket::forget(fd);
        return send::real()(fd, data, len, flags);
    }
    sent(fd, result, flags)
}

blocking! {
    fn sendto(
        fd: c_int, data: *const c_void, len: size_t, flags: c_int, to: *const sockaddr, to_len: socklen_t,
    ) -> ssize_t {
        match class(fd) {
            Class::Other => sendto::real()(fd, data, len, flags, to, to_len),
            Class::Stream => {
                if flags & libc::MSG_FASTOPEN != 0 && !to.is_null() && super::control::connect(fd, to, to_len) < 0 {
                    return -1;
                }
                stream_out(fd, data, len, flags)
            }
            Class::Datagram(s) => datagram_out(&s, data, len, flags, to, to_len),
        }
    }
}

blocking! {
    fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
        match class(fd) {
            Class::Other => sendmsg::real()(fd, msg, flags),
            Class::Stream if msg.is_null() => sys::fail(libc::EFAULT) as ssize_t,
            Class::Stream => {
                let plain = message((*msg).msg_iov, (*msg).msg_iovlen);
                sent(fd, sendmsg::real()(fd, &plain, stream_flags(flags)), flags)
            }
            Class::Datagram(_) if msg.is_null() => sys::fail(libc::EFAULT) as ssize_t,
            Class::Datagram(s) => answer(udp::send(&s, msg, flags)),
        }
    }
}

blocking! {
    fn sendmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        if let Class::Other = class(fd) {
            return sendmmsg::real()(fd, list, count, flags);
        }
        // UIO_MAXIOV, as in the kernel.
        for i in 0..count.min(1024) {
            let one = list.add(i as usize);
            let result = sendmsg(fd, &(*one).msg_hdr, flags);
            if result < 0 {
                return if i == 0 { -1 } else { i as c_int };
            }
            (*one).msg_len = result as c_uint;
        }
        count.min(1024) as c_int
    }
}

blocking! {
    fn recv(fd: c_int, data: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
        match class(fd) {
            Class::Other => recv::real()(fd, data, len, flags),
            Class::Stream if flags & libc::MSG_ERRQUEUE != 0 => sys::fail(libc::EAGAIN) as ssize_t,
            Class::Stream => received(fd, recv::real()(fd, data, len, flags), len != 0),
            Class::Datagram(s) => {
                datagram_in(&s, data, len, flags, core::ptr::null_mut(), core::ptr::null_mut())
            }
        }
    }
}

blocking! {
    fn recvfrom(
        fd: c_int, data: *mut c_void, len: size_t, flags: c_int, from: *mut sockaddr, from_len: *mut socklen_t,
    ) -> ssize_t {
        match class(fd) {
            Class::Other => recvfrom::real()(fd, data, len, flags, from, from_len),
            Class::Stream => {
                let result = recv(fd, data, len, flags);
                // TCP names no sender.
                if result >= 0 && !from.is_null() && !from_len.is_null() {
                    *from_len = 0;
                }
                result
            }
            Class::Datagram(s) => datagram_in(&s, data, len, flags, from, from_len),
        }
    }
}

blocking! {
    fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
        match class(fd) {
            Class::Other => {
                let result = recvmsg::real()(fd, msg, flags);
                if result >= 0 {
                    forget_passed(msg);
                }
                result
            }
            _ if msg.is_null() => sys::fail(libc::EFAULT) as ssize_t,
            Class::Stream if flags & libc::MSG_ERRQUEUE != 0 => sys::fail(libc::EAGAIN) as ssize_t,
            Class::Stream => {
                let mut plain = message((*msg).msg_iov, (*msg).msg_iovlen);
                let wanted = (0..plain.msg_iovlen).any(|i| (*plain.msg_iov.add(i)).iov_len != 0);
                let result = received(fd, recvmsg::real()(fd, &mut plain, flags), wanted);
                if result >= 0 {
                    (*msg).msg_namelen = 0;
                    (*msg).msg_controllen = 0;
                    (*msg).msg_flags = plain.msg_flags;
                }
                result
            }
            Class::Datagram(s) => answer(udp::receive(&s, msg, flags)),
        }
    }
}

/// Descriptors that came with a message are not what they were.
unsafe fn forget_passed(msg: *const msghdr) {
    if state::page().is_none() || (*msg).msg_control.is_null() {
        return;
    }
    let mut at = libc::CMSG_FIRSTHDR(msg);
    while !at.is_null() {
        if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
            let data = libc::CMSG_DATA(at).cast::<c_int>();
            let count = (*at).cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize) / size_of::<c_int>();
            for i in 0..count {
                socket::forget(data.add(i).read_unaligned());
            }
        }
        at = libc::CMSG_NXTHDR(msg, at);
    }
}

blocking! {
    fn recvmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut libc::timespec) -> c_int {
        if let Class::Other = class(fd) {
            let got = recvmmsg::real()(fd, list, count, flags, timeout);
            for i in 0..got.max(0) {
                forget_passed(&(*list.add(i as usize)).msg_hdr);
            }
            return got;
        }
        let start = sys::now_ns();
        let limit = if timeout.is_null() {
            u64::MAX
        } else {
            (*timeout).tv_sec as u64 * 1_000_000_000 + (*timeout).tv_nsec as u64
        };
        let mut flags = flags;
        let mut got = 0;
        while got < count.min(1024) {
            let one = list.add(got as usize);
            let result = recvmsg(fd, &mut (*one).msg_hdr, flags & !libc::MSG_WAITFORONE);
            if result < 0 {
                return if got == 0 { -1 } else { got as c_int };
            }
            (*one).msg_len = result as c_uint;
            got += 1;
            if flags & libc::MSG_WAITFORONE != 0 {
                flags |= libc::MSG_DONTWAIT;
            }
            // As in Linux, the time is looked at only after a datagram.
            if sys::now_ns() - start >= limit {
                break;
            }
        }
        got as c_int
    }
}

blocking! {
    fn read(fd: c_int, data: *mut c_void, len: size_t) -> ssize_t {
        match class(fd) {
            Class::Other => read::real()(fd, data, len),
            Class::Stream => received(fd, read::real()(fd, data, len), len != 0),
            Class::Datagram(s) => datagram_in(&s, data, len, 0, core::ptr::null_mut(), core::ptr::null_mut()),
        }
    }
}

blocking! {
    fn write(fd: c_int, data: *const c_void, len: size_t) -> ssize_t {
        match class(fd) {
            Class::Other => write::real()(fd, data, len),
            Class::Stream => {
                let result = send::real()(fd, data, len, libc::MSG_NOSIGNAL);
                if result < 0 && sys::errno() == libc::ENOTSOCK {
                    socket::forget(fd);
                    return write::real()(fd, data, len);
                }
                sent(fd, result, 0)
            }
            Class::Datagram(s) => datagram_out(&s, data, len, 0, core::ptr::null(), 0),
        }
    }
}

blocking! {
    fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
        match class(fd) {
            Class::Other => readv::real()(fd, iov, count),
            Class::Stream => {
                let wanted = (0..count.max(0) as usize).any(|i| (*iov.add(i)).iov_len != 0);
                received(fd, readv::real()(fd, iov, count), wanted)
            }
            Class::Datagram(_) if !(0..=1024).contains(&count) => sys::fail(libc::EINVAL) as ssize_t,
            Class::Datagram(s) => {
                let mut message = message(iov.cast_mut(), count as usize);
                answer(udp::receive(&s, &mut message, 0))
            }
        }
    }
}

blocking! {
    fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
        match class(fd) {
            Class::Other => writev::real()(fd, iov, count),
            _ if !(0..=1024).contains(&count) => sys::fail(libc::EINVAL) as ssize_t,
            Class::Stream => {
                let message = message(iov.cast_mut(), count as usize);
                let result = sendmsg::real()(fd, &message, libc::MSG_NOSIGNAL);
                if result < 0 && sys::errno() == libc::ENOTSOCK {
                    socket::forget(fd);
                    return writev::real()(fd, iov, count);
                }
                sent(fd, result, 0)
            }
            Class::Datagram(s) => {
                let message = message(iov.cast_mut(), count as usize);
                answer(udp::send(&s, &message, 0))
            }
        }
    }
}

// Fortified twins: the size of the program's buffer is checked as libc would.

unsafe extern "C" {
    fn __chk_fail() -> !;
}

blocking! {
    fn __read_chk(fd: c_int, data: *mut c_void, len: size_t, room: size_t) -> ssize_t {
        if len > room {
            __chk_fail();
        }
        read(fd, data, len)
    }
}

blocking! {
    fn __recv_chk(fd: c_int, data: *mut c_void, len: size_t, room: size_t, flags: c_int) -> ssize_t {
        if len > room {
            __chk_fail();
        }
        recv(fd, data, len, flags)
    }
}

blocking! {
    fn __recvfrom_chk(
        fd: c_int, data: *mut c_void, len: size_t, room: size_t, flags: c_int,
        from: *mut sockaddr, from_len: *mut socklen_t,
    ) -> ssize_t {
        if len > room {
            __chk_fail();
        }
        recvfrom(fd, data, len, flags, from, from_len)
    }
}

blocking! {
    /// Passed through; here because a blocking connect waits in the real one.
    fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
        poll::real()(fds, count, timeout)
    }
}

/// Finds all real functions.
pub fn prepare() {
    send::prepare();
    sendto::prepare();
    sendmsg::prepare();
    sendmmsg::prepare();
    recv::prepare();
    recvfrom::prepare();
    recvmsg::prepare();
    recvmmsg::prepare();
    read::prepare();
    write::prepare();
    readv::prepare();
    writev::prepare();
    poll::prepare();
    __read_chk::prepare();
    __recv_chk::prepare();
    __recvfrom_chk::prepare();
}

//! UDP: one frame a datagram, and the requests that wait for an answer in the slot.

use core::sync::atomic::Ordering;

use libc::{c_int, iovec, msghdr, sockaddr, sockaddr_storage, socklen_t};
use pktwrap_link::datagram::{FrameHeader, MAX_PAYLOAD, frame_kind};
use pktwrap_link::page::{flag, futex_wait};
use pktwrap_link::{Addr, Plain};

use crate::socket::Socket;
use crate::tcp::PATIENCE_NS;
use crate::{addr, cmsg, options, sys};

/// Pieces of a message handled on the small stack frame; more take a larger one.
const FEW: usize = 15;
/// UIO_MAXIOV.
const MANY: usize = 1024;

const HEADER: usize = size_of::<FrameHeader>();

/// Sends a request and waits for its answer: 0 or errno.
fn request(socket: &Socket, kind: u8, addr: Addr) -> c_int {
    let slot = socket.slot;
    let ticket = slot.tickets.fetch_add(1, Ordering::AcqRel) + 1;
    let frame = FrameHeader { kind, ticket, addr, ..FrameHeader::default() };
    loop {
        let sent = sys::send(socket.fd, &[sys::piece(frame.as_bytes())], 0);
        match -sent as c_int {
            _ if sent >= 0 => break,
            // A non-blocking socket with a full buffer: these requests are answered at once natively.
            libc::EAGAIN => sys::pause_ms(1),
            _ => return libc::ENETDOWN,
        }
    }
    let saved = sys::errno();
    let start = sys::now_ns();
    loop {
        let answered = slot.answered.load(Ordering::Acquire);
        if answered.wrapping_sub(ticket) as i32 >= 0 {
            sys::set_errno(saved);
            return slot.answer_errno.load(Ordering::Relaxed) as c_int;
        }
        if sys::now_ns() - start > PATIENCE_NS || hung_up(socket) {
            return libc::ENETDOWN;
        }
        futex_wait(&slot.answered, answered, Some(100_000_000));
    }
}

fn hung_up(socket: &Socket) -> bool {
    let mut watched = libc::pollfd { fd: socket.fd, events: 0, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one pollfd, one timespec, both live through the call.
    unsafe {
        let at = [&raw mut watched as usize, 1, &raw const now as usize, 0, 8, 0];
        sys::call(libc::SYS_ppoll, at);
    }
    watched.revents & libc::POLLHUP != 0 && !socket.slot.has(flag::LOCAL_RDSHUT)
}

/// # Safety
/// As connect(2).
pub unsafe fn connect(socket: &Socket, sa: *const sockaddr, len: socklen_t) -> c_int {
    if sa.is_null() || (len as usize) < size_of::<libc::sa_family_t>() {
        return libc::EINVAL;
    }
    if c_int::from((*sa).sa_family) == libc::AF_UNSPEC {
        return request(socket, frame_kind::CONNECT, Addr::NONE);
    }
    match target(socket, sa, len) {
        Ok(remote) => request(socket, frame_kind::CONNECT, remote),
        Err(errno) => errno,
    }
}

/// # Safety
/// As bind(2).
pub unsafe fn bind(socket: &Socket, sa: *const sockaddr, len: socklen_t) -> c_int {
    let local = match addr::parse(sa, len) {
        Ok(local) => local,
        Err(errno) => return errno,
    };
    let own = if socket.family == 4 { libc::AF_INET } else { libc::AF_INET6 };
    if c_int::from((*sa).sa_family) != own {
        return libc::EAFNOSUPPORT;
    }
    if socket.slot.has(flag::BOUND) {
        return libc::EINVAL;
    }
    let errno = request(socket, frame_kind::BIND, local);
    if errno == 0 {
        socket.slot.set(flag::BOUND);
    }
    errno
}

/// The local address, or errno.
pub fn local(socket: &Socket) -> Result<Addr, c_int> {
    let now = socket.slot.local.load();
    let connected = socket.slot.remote.load().family != 0;
    let named =
        connected || socket.slot.has(flag::BOUND) || options::value(socket, options::cell::SENT).is_some();
    // A socket bound to any address has the one toward its peer once it is connected.
    let final_name = now.family != 0 && !(connected && addr::unspecified(&now));
    if final_name || !named {
        return Ok(now);
    }
    match request(socket, frame_kind::LOCAL, Addr::NONE) {
        0 => Ok(socket.slot.local.load()),
        errno => Err(errno),
    }
}

/// A destination the program named.
unsafe fn target(socket: &Socket, sa: *const sockaddr, len: socklen_t) -> Result<Addr, c_int> {
    let remote = addr::destination(addr::parse(sa, len)?);
    let family = c_int::from((*sa).sa_family);
    if socket.family == 4 && family != libc::AF_INET {
        return Err(libc::EAFNOSUPPORT);
    }
    if socket.family == 6 && remote.family == 4 && options::v6only(socket) {
        return Err(libc::ENETUNREACH);
    }
    Ok(remote)
}

/// Sends one datagram: bytes sent or `-errno`.
///
/// # Safety
/// As sendmsg(2).
pub unsafe fn send(socket: &Socket, message: *const msghdr, flags: c_int) -> isize {
    let message = &*message;
    if flags & libc::MSG_OOB != 0 {
        return -libc::EOPNOTSUPP as isize;
    }
    let pending = socket.take_error();
    if pending != 0 {
        return -pending as isize;
    }
    let mut frame = FrameHeader { kind: frame_kind::DATA, ..FrameHeader::default() };
    if message.msg_name.is_null() || message.msg_namelen == 0 {
        if socket.slot.remote.load().family == 0 {
            return -libc::EDESTADDRREQ as isize;
        }
    } else {
        match target(socket, message.msg_name.cast(), message.msg_namelen) {
            Ok(addr) if addr.port == 0 => return -libc::EINVAL as isize,
            Ok(addr) => frame.addr = addr,
            Err(errno) => return -errno as isize,
        }
    }
    (frame.ttl, frame.tos) = options::outgoing(socket);
    cmsg::read(message, &mut frame);
    let count = message.msg_iovlen;
    if count > MANY {
        return -libc::EMSGSIZE as isize;
    }
    if count <= FEW {
        send_pieces::<{ FEW + 1 }>(socket, &mut frame, message, flags)
    } else {
        send_pieces::<{ MANY + 1 }>(socket, &mut frame, message, flags)
    }
}

#[inline(never)]
unsafe fn send_pieces<const N: usize>(
    socket: &Socket,
    frame: &mut FrameHeader,
    message: &msghdr,
    flags: c_int,
) -> isize {
    let empty = iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
    let mut pieces = [empty; N];
    let mut total = 0usize;
    for i in 0..message.msg_iovlen {
        let piece = *message.msg_iov.add(i);
        total = total.saturating_add(piece.iov_len);
        pieces[i + 1] = piece;
    }
    if total > MAX_PAYLOAD {
        return -libc::EMSGSIZE as isize;
    }
    frame.len = total as u32;
    pieces[0] = sys::piece(frame.as_bytes());
    let mut whole: msghdr = core::mem::zeroed();
    whole.msg_iov = pieces.as_mut_ptr();
    whole.msg_iovlen = message.msg_iovlen + 1;
    let flags = flags & libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // The real function: a blocking send is a cancellation point.
    let sent = crate::hooks::io::sendmsg::real()(socket.fd, &whole, flags);
    if sent >= HEADER as isize {
        if options::value(socket, options::cell::SENT).is_none() {
            options::store(socket, options::cell::SENT, 1);
        }
        return sent - HEADER as isize;
    }
    let errno = if sent < 0 { sys::errno() } else { libc::ENETDOWN };
    match errno {
        libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN if socket.slot.has(flag::LOCAL_RDSHUT) => {
            -libc::EPIPE as isize
        }
        libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN => -libc::ENETDOWN as isize,
        other => -other as isize,
    }
}

/// Receives one datagram into the program's message: bytes, or `-errno`.
///
/// # Safety
/// As recvmsg(2).
pub unsafe fn receive(socket: &Socket, message: *mut msghdr, flags: c_int) -> isize {
    let message = &mut *message;
    if flags & libc::MSG_ERRQUEUE != 0 {
        return -libc::EAGAIN as isize;
    }
    if message.msg_iovlen > MANY {
        return -libc::EMSGSIZE as isize;
    }
    let pending = socket.take_error();
    if pending != 0 {
        return -pending as isize;
    }
    if message.msg_iovlen <= FEW {
        receive_pieces::<{ FEW + 1 }>(socket, message, flags)
    } else {
        receive_pieces::<{ MANY + 1 }>(socket, message, flags)
    }
}

#[inline(never)]
unsafe fn receive_pieces<const N: usize>(socket: &Socket, message: &mut msghdr, flags: c_int) -> isize {
    let empty = iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
    let mut head = [0u8; HEADER];
    let mut pieces = [empty; N];
    pieces[0] = sys::space(&mut head);
    for i in 0..message.msg_iovlen {
        pieces[i + 1] = *message.msg_iov.add(i);
    }
    let mut whole: msghdr = core::mem::zeroed();
    whole.msg_iov = pieces.as_mut_ptr();
    whole.msg_iovlen = message.msg_iovlen + 1;
    let passed = flags & (libc::MSG_DONTWAIT | libc::MSG_PEEK);
    let frame = loop {
        // The real function: a blocking receive is a cancellation point.
        let got = crate::hooks::io::recvmsg::real()(socket.fd, &mut whole, passed);
        if got < 0 {
            return match sys::errno() {
                libc::ECONNRESET => -libc::ENETDOWN as isize,
                errno => -errno as isize,
            };
        }
        if got == 0 {
            // Only the program's own shutdown ends a datagram socket in order.
            return if socket.slot.has(flag::LOCAL_RDSHUT) { 0 } else { -libc::ENETDOWN as isize };
        }
        let Some(frame) = FrameHeader::from_bytes(&head) else { return -libc::EIO as isize };
        if got < HEADER as isize {
            return -libc::EIO as isize;
        }
        match frame.kind {
            frame_kind::DATA => break frame,
            kind => {
                if passed & libc::MSG_PEEK != 0 {
                    drop_frame(socket);
                }
                if kind == frame_kind::ERROR {
                    return -(frame.errno as c_int).clamp(1, 4095) as isize;
                }
            }
        }
    };
    let mut room = 0usize;
    for i in 0..message.msg_iovlen {
        room = room.saturating_add((*message.msg_iov.add(i)).iov_len);
    }
    let len = frame.len as usize;
    message.msg_flags = flags & (libc::MSG_CMSG_CLOEXEC);
    if len > room {
        message.msg_flags |= libc::MSG_TRUNC;
    }
    if message.msg_name.is_null() {
        message.msg_namelen = 0;
    } else {
        let mut storage: sockaddr_storage = core::mem::zeroed();
        let size = addr::write(&frame.addr, socket.family, &mut storage);
        let copied = size.min(message.msg_namelen as usize);
        core::ptr::copy_nonoverlapping(
            (&raw const storage).cast::<u8>(),
            message.msg_name.cast::<u8>(),
            copied,
        );
        message.msg_namelen = size as socklen_t;
    }
    cmsg::write(socket, &frame, message);
    if flags & libc::MSG_TRUNC != 0 { len as isize } else { len.min(room) as isize }
}

/// Takes the frame at the head of the queue away.
fn drop_frame(socket: &Socket) {
    let mut head = [0u8; HEADER];
    let mut pieces = [sys::space(&mut head)];
    // SAFETY: the piece lives through the call.
    unsafe {
        let mut whole: msghdr = core::mem::zeroed();
        whole.msg_iov = pieces.as_mut_ptr();
        whole.msg_iovlen = 1;
        sys::recvmsg(socket.fd, &mut whole, libc::MSG_DONTWAIT);
    }
}

/// The frame at the head of the queue, left there.
fn peek(socket: &Socket) -> Option<FrameHeader> {
    let mut head = [0u8; HEADER];
    let mut pieces = [sys::space(&mut head)];
    // SAFETY: the piece lives through the call.
    let got = unsafe {
        let mut whole: msghdr = core::mem::zeroed();
        whole.msg_iov = pieces.as_mut_ptr();
        whole.msg_iovlen = 1;
        sys::recvmsg(socket.fd, &mut whole, libc::MSG_DONTWAIT | libc::MSG_PEEK)
    };
    if got < HEADER as isize { None } else { FrameHeader::from_bytes(&head) }
}

/// FIONREAD: payload bytes of the next datagram.
pub fn next_len(socket: &Socket) -> c_int {
    match peek(socket) {
        Some(frame) if frame.kind == frame_kind::DATA => frame.len as c_int,
        _ => 0,
    }
}

/// SO_ERROR: the pending error, or the one at the head of the queue.
pub fn take_error(socket: &Socket) -> c_int {
    let pending = socket.take_error();
    if pending != 0 {
        return pending;
    }
    match peek(socket) {
        Some(frame) if frame.kind == frame_kind::ERROR => {
            drop_frame(socket);
            frame.errno as c_int
        }
        _ => 0,
    }
}

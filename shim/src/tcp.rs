//! TCP: connect and the cork, and what Linux TCP answers where a unix stream socket answers something else.

use core::sync::atomic::Ordering;

use libc::{c_int, sockaddr, socklen_t};
use pktwrap_link::names::{self, Kind, Listener};
use pktwrap_link::page::{flag, futex_wait, state};
use pktwrap_link::stream::StreamHeader;
use pktwrap_link::{Addr, Plain, VERSION};

use crate::socket::{self, Hint, Socket};
use crate::state as session;
use crate::sys::{self, UnixName};
use crate::{addr, options};

/// Longest wait for something the endpoint will say without the program having asked to wait (getsockname).
pub const PATIENCE_NS: u64 = 10_000_000_000;

/// What the cork is made of.
static CORK: [u8; 16384] = [0; 16384];

/// connect(2) on a stream socket: 0 or errno.
///
/// # Safety
/// As connect(2).
pub unsafe fn connect(socket: &Socket, sa: *const sockaddr, len: socklen_t) -> c_int {
    if sa.is_null() || (len as usize) < size_of::<libc::sa_family_t>() {
        return libc::EINVAL;
    }
    let family = c_int::from((*sa).sa_family);
    if family == libc::AF_UNSPEC {
        // Linux resets the connection; the socket can connect again.
        return match replace(socket) {
            Ok(_) => 0,
            Err(errno) => errno,
        };
    }
    let own = if socket.family == 4 { libc::AF_INET } else { libc::AF_INET6 };
    if family != own {
        return libc::EAFNOSUPPORT;
    }
    let remote = match addr::parse(sa, len) {
        Ok(remote) => addr::destination(remote),
        Err(errno) => return errno,
    };
    if socket.family == 6 && remote.family == 4 && options::v6only(socket) {
        return libc::ENETUNREACH;
    }
    match socket.state() {
        state::NEW => start(socket, remote),
        state::CONNECTING if socket.nonblocking() => libc::EALREADY,
        state::CONNECTING => wait(socket, libc::EALREADY),
        // A non-blocking connect that came through is told so once.
        state::CONNECTED if !socket.slot.has(flag::REPORTED) => {
            socket.slot.set(flag::REPORTED);
            0
        }
        state::CONNECTED => libc::EISCONN,
        state::LISTENING => libc::EISCONN,
        state::FAILED if !socket.slot.has(flag::REPORTED) => report_failure(socket),
        state::FAILED => match replace(socket) {
            Ok(fresh) => start(&fresh, remote),
            Err(errno) => errno,
        },
        _ => libc::ENETDOWN,
    }
}

fn report_failure(socket: &Socket) -> c_int {
    socket.slot.set(flag::REPORTED);
    match socket.take_error() {
        0 => libc::ECONNABORTED,
        errno => errno,
    }
}

fn start(socket: &Socket, remote: Addr) -> c_int {
    let slot = socket.slot;
    if slot
        .state
        .compare_exchange(state::NEW, state::CONNECTING, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        return libc::EALREADY;
    }
    let listener = names::listener(session::session(), Listener::Stream);
    if sys::connect(socket.fd, &UnixName::new(listener.as_bytes())) < 0 {
        return dead(socket);
    }
    let header = StreamHeader {
        version: VERSION,
        family: u32::from(socket.family),
        id: socket.id,
        token: session::token(),
        remote,
        local: if slot.has(flag::BOUND) { slot.local.load() } else { Addr::NONE },
        reserved: [0; 32],
    };
    if sys::send(socket.fd, &[sys::piece(header.as_bytes())], libc::MSG_DONTWAIT)
        < size_of::<StreamHeader>() as isize
    {
        return dead(socket);
    }
    let mut cork = 0;
    loop {
        let sent = sys::send(socket.fd, &[sys::piece(&CORK)], libc::MSG_DONTWAIT);
        match sent {
            1.. => cork += sent as u32,
            // EPIPE and ECONNRESET show in the wait as a closed socket.
            _ => break,
        }
    }
    slot.cork.store(cork, Ordering::Relaxed);
    slot.corked.store(1, Ordering::Release);
    if socket.nonblocking() {
        return libc::EINPROGRESS;
    }
    wait(socket, libc::EINPROGRESS)
}

/// The supervisor is not there: the attempt ends here.
fn dead(socket: &Socket) -> c_int {
    socket.slot.set(flag::REPORTED);
    socket.slot.publish(state::FAILED);
    libc::ENETDOWN
}

/// Waits for the outcome as a blocking connect does. `late` is the answer when SO_SNDTIMEO ends first.
fn wait(socket: &Socket, late: c_int) -> c_int {
    let mut timeout = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = size_of::<libc::timeval>() as socklen_t;
    // SAFETY: value and length live through the call.
    unsafe {
        let at = [
            socket.fd as usize,
            libc::SOL_SOCKET as usize,
            libc::SO_SNDTIMEO as usize,
            &raw mut timeout as usize,
            &raw mut len as usize,
            0,
        ];
        sys::call(libc::SYS_getsockopt, at);
    }
    let limit = timeout.tv_sec as u64 * 1_000 + (timeout.tv_usec as u64).div_ceil(1_000);
    let start = sys::now_ns();
    loop {
        let mut millis = -1;
        if limit > 0 {
            let left = limit.saturating_sub((sys::now_ns() - start) / 1_000_000);
            if left == 0 {
                return late;
            }
            millis = c_int::try_from(left).unwrap_or(c_int::MAX);
        }
        let mut watched = libc::pollfd { fd: socket.fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one pollfd. The real poll, so that the thread can be cancelled here.
        let ready = unsafe { crate::hooks::io::poll::real()(&mut watched, 1, millis) };
        if ready < 0 && sys::errno() == libc::EINTR {
            return libc::EINTR;
        }
        match socket.state() {
            state::CONNECTED if ready > 0 => {
                socket.slot.set(flag::REPORTED);
                return 0;
            }
            state::FAILED => return report_failure(socket),
            state::CONNECTING if ready > 0 && watched.revents & (libc::POLLHUP | libc::POLLERR) != 0 => {
                return dead(socket);
            }
            state::CONNECTING | state::CONNECTED => {}
            _ => return libc::ENETDOWN,
        }
    }
}

/// Puts a fresh socket under the same descriptor, with the options of the old one: a unix socket connects only once.
fn replace(socket: &Socket) -> Result<Socket, c_int> {
    let descriptor = sys::fcntl(socket.fd, libc::F_GETFD, 0);
    let cloexec = if descriptor & libc::FD_CLOEXEC as isize != 0 { libc::SOCK_CLOEXEC } else { 0 };
    let nonblock = if socket.nonblocking() { libc::SOCK_NONBLOCK } else { 0 };
    let fresh = socket::stream(socket.family, cloexec | nonblock);
    if fresh < 0 {
        return Err(-fresh);
    }
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO, libc::SO_RCVLOWAT] {
        sys::copy_option(socket.fd, fresh, libc::SOL_SOCKET, name);
    }
    let moved = sys::dup3(fresh, socket.fd, if cloexec != 0 { libc::O_CLOEXEC } else { 0 });
    sys::close(fresh);
    if moved < 0 {
        return Err(-moved as c_int);
    }
    socket::remember(socket.fd, Hint::Stream);
    let found = socket::find(socket.fd).ok_or(libc::ENETDOWN)?;
    for (to, from) in found.slot.options.iter().zip(&socket.slot.options) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    if socket.slot.has(flag::BOUND) && socket.slot.kind.load(Ordering::Relaxed) == Kind::Tcp as u8 {
        found.slot.local.store(&socket.slot.local.load());
        found.slot.set(flag::BOUND);
    }
    Ok(found)
}

/// bind(2): remembered, the endpoint binds when it connects. 0 or errno.
///
/// # Safety
/// As bind(2).
pub unsafe fn bind(socket: &Socket, sa: *const sockaddr, len: socklen_t) -> c_int {
    let local = match addr::parse(sa, len) {
        Ok(local) => local,
        Err(errno) => return errno,
    };
    if c_int::from((*sa).sa_family) != if socket.family == 4 { libc::AF_INET } else { libc::AF_INET6 } {
        return libc::EAFNOSUPPORT;
    }
    if socket.state() != state::NEW || socket.slot.has(flag::BOUND) {
        return libc::EINVAL;
    }
    socket.slot.local.store(&local);
    socket.slot.set(flag::BOUND);
    0
}

/// The local address; while the endpoint connects, waits until it is known.
pub fn local(socket: &Socket) -> Addr {
    let start = sys::now_ns();
    loop {
        let local = socket.slot.local.load();
        let known = local.family != 0 && local.port != 0 && !addr::unspecified(&local);
        if known || socket.state() != state::CONNECTING {
            return local;
        }
        let left = PATIENCE_NS.saturating_sub(sys::now_ns() - start);
        if left == 0 {
            return local;
        }
        let saved = sys::errno();
        // A short wait at a time: the supervisor may die without a wake-up.
        futex_wait(&socket.slot.state, state::CONNECTING, Some(left.min(100_000_000)));
        sys::set_errno(saved);
        if hung_up(socket) {
            return socket.slot.local.load();
        }
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
    watched.revents & libc::POLLHUP != 0
}

/// What a receive that gave nothing means: `Ok` is a genuine end of file, `Err` the errno.
/// `errno` is what the unix socket said, 0 for end of file.
pub fn no_data(socket: &Socket, errno: c_int) -> Result<(), c_int> {
    match errno {
        0 | libc::ECONNRESET => {}
        libc::EINVAL if socket.state() == state::NEW => return Err(libc::ENOTCONN),
        _ => return Err(errno),
    }
    let slot = socket.slot;
    let told = slot.has(flag::RESET) || socket.state() == state::FAILED;
    if told {
        return match socket.take_error() {
            0 => Ok(()),
            pending => Err(pending),
        };
    }
    if slot.has(flag::PEER_FIN) || slot.has(flag::LOCAL_RDSHUT) {
        return Ok(());
    }
    // The supervisor is gone, said nothing, and says nothing again.
    Err(libc::ECONNRESET)
}

/// errno of a send that failed with `errno` (SIGPIPE not yet raised).
pub fn not_sent(socket: &Socket, errno: c_int) -> c_int {
    match errno {
        libc::EPIPE | libc::ECONNRESET => match socket.take_error() {
            0 => libc::EPIPE,
            pending => pending,
        },
        libc::ENOTCONN => libc::EPIPE,
        _ => errno,
    }
}

/// shutdown(2): 0 or errno. The caller does the real one on 0.
pub fn shutdown(socket: &Socket, how: c_int) -> c_int {
    match socket.state() {
        state::NEW | state::FAILED => return libc::ENOTCONN,
        state::CONNECTED if socket.slot.has(flag::RESET) => return libc::ENOTCONN,
        _ => {}
    }
    if how == libc::SHUT_RD || how == libc::SHUT_RDWR {
        socket.slot.set(flag::LOCAL_RDSHUT);
    }
    0
}

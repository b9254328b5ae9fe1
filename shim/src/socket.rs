//! Which socket a descriptor is, and how one is made. The socket's name is its identity; the table below only saves
//! look-ups and is never believed when it says "ours".

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use libc::c_int;
use pktwrap_link::datagram::DatagramHello;
use pktwrap_link::names::{self, Kind, Listener};
use pktwrap_link::page::{Slot, SocketKey};
use pktwrap_link::stream::SNDBUF;
use pktwrap_link::{Plain, VERSION};

use crate::state::{self, Mode};
use crate::sys::{self, UnixName};

/// A descriptor that stands for an IP socket.
#[derive(Clone, Copy)]
pub struct Socket {
    pub fd: c_int,
    pub kind: Kind,
    /// 4 or 6, of the socket (a v4-mapped peer is still on a 6).
    pub family: u8,
    pub id: SocketKey,
    pub slot: &'static Slot,
}

/// What is remembered of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    Unknown,
    Foreign,
    Stream,
    Datagram,
}

/// Descriptors above this are looked up every time.
const HINTS: usize = 32768;

/// A stale entry must err toward a look-up: descriptors that come from somewhere else (dup, SCM_RIGHTS) are set to
/// unknown, never copied; a child of vfork shares this memory but not the descriptors.
static TABLE: [AtomicU8; HINTS] = [const { AtomicU8::new(0) }; HINTS];

pub fn hint(fd: c_int) -> Hint {
    match TABLE.get(fd as usize).map_or(0, |cell| cell.load(Ordering::Relaxed)) {
        1 => Hint::Foreign,
        2 => Hint::Stream,
        3 => Hint::Datagram,
        _ => Hint::Unknown,
    }
}

pub fn remember(fd: c_int, hint: Hint) {
    if let Some(cell) = TABLE.get(fd as usize) {
        let value = match hint {
            Hint::Unknown => 0,
            Hint::Foreign => 1,
            Hint::Stream => 2,
            Hint::Datagram => 3,
        };
        cell.store(value, Ordering::Relaxed);
    }
}

/// Nothing is known of this descriptor any more.
pub fn forget(fd: c_int) {
    remember(fd, Hint::Unknown);
}

/// The IP socket behind a descriptor, or `None` when it is something else.
pub fn find(fd: c_int) -> Option<Socket> {
    if state::mode() != Mode::Live || hint(fd) == Hint::Foreign {
        return None;
    }
    look_up(fd)
}

/// The datagram socket behind a descriptor of a read or write; `Err` is a stream socket (not looked up).
pub fn datagram(fd: c_int) -> Result<Option<Socket>, ()> {
    if state::mode() != Mode::Live {
        return Ok(None);
    }
    match hint(fd) {
        Hint::Foreign => Ok(None),
        Hint::Stream => Err(()),
        Hint::Datagram | Hint::Unknown => match look_up(fd) {
            Some(socket) if socket.kind == Kind::Tcp => Err(()),
            found => Ok(found),
        },
    }
}

fn look_up(fd: c_int) -> Option<Socket> {
    let mut name = [0u8; 110];
    let mut len = name.len() as libc::socklen_t;
    // SAFETY: buffer and length live through the call.
    let result = unsafe {
        let at = [fd as usize, name.as_mut_ptr() as usize, &raw mut len as usize, 0, 0, 0];
        sys::call(libc::SYS_getsockname, at)
    };
    let known = if result == 0 && (len as usize) <= name.len() && len > 3 && name[2] == 0 {
        names::parse(state::session(), &name[3..len as usize])
    } else {
        None
    };
    let Some((kind, family, id)) = known else {
        // A closed descriptor may be anything the next time.
        remember(fd, if result == -libc::EBADF as isize { Hint::Unknown } else { Hint::Foreign });
        return None;
    };
    remember(fd, if kind == Kind::Tcp { Hint::Stream } else { Hint::Datagram });
    let slot = match state::page()?.slot(id) {
        Some(slot) => slot,
        // Its slot was taken over (65 536 newer sockets): everything about it reads as a failed socket.
        None => lost(),
    };
    Some(Socket { fd, kind, family, id, slot })
}

/// A private slot for sockets whose own is gone.
fn lost() -> &'static Slot {
    #[repr(align(64))]
    struct Aligned([AtomicU64; 32]);
    static SLOT: Aligned = Aligned([const { AtomicU64::new(0) }; 32]);
    // SAFETY: 256 bytes, 64-aligned, atomics only, zero is valid.
    unsafe { &*(&raw const SLOT.0).cast::<Slot>() }
}

/// socket(AF_INET or AF_INET6): the descriptor or `-errno`.
pub fn open(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let flags = kind & (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    let family = if domain == libc::AF_INET { 4 } else { 6 };
    let made = match (kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC), protocol) {
        (libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) => stream(family, flags),
        (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => datagram_socket(family, flags),
        (libc::SOCK_RAW, _) => -libc::EPERM,
        (libc::SOCK_STREAM | libc::SOCK_DGRAM | libc::SOCK_SEQPACKET, _) => -libc::EPROTONOSUPPORT,
        (libc::SOCK_RDM | 6 | 10, _) => -libc::ESOCKTNOSUPPORT,
        _ => -libc::EINVAL,
    };
    if made >= 0 {
        remember(made, if kind & 0xf == libc::SOCK_STREAM { Hint::Stream } else { Hint::Datagram });
    }
    made
}

/// A fresh, named stream socket.
pub fn stream(family: u8, flags: c_int) -> c_int {
    let Some(page) = state::page() else { return -libc::ENETDOWN };
    let fd = sys::unix_socket(libc::SOCK_STREAM, flags);
    if fd < 0 {
        return fd;
    }
    let (id, slot) = page.claim();
    slot.kind.store(Kind::Tcp as u8, Ordering::Relaxed);
    slot.family.store(family, Ordering::Relaxed);
    slot.protocol.store(libc::IPPROTO_TCP as u16, Ordering::Relaxed);
    let name = names::socket(state::session(), Kind::Tcp, family, id);
    let result = sys::bind(fd, &UnixName::new(name.as_bytes()));
    if result < 0 {
        sys::close(fd);
        return result as c_int;
    }
    sys::set_option_int(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, SNDBUF);
    fd
}

fn datagram_socket(family: u8, flags: c_int) -> c_int {
    let Some(page) = state::page() else { return -libc::ENETDOWN };
    // Before the socket exists: a reader that sees 0 here must be right.
    page.header.datagrams.fetch_add(1, Ordering::SeqCst);
    let fd = sys::unix_socket(libc::SOCK_SEQPACKET, flags & libc::SOCK_CLOEXEC);
    if fd < 0 {
        return fd;
    }
    let (id, slot) = page.claim();
    slot.kind.store(Kind::Udp as u8, Ordering::Relaxed);
    slot.family.store(family, Ordering::Relaxed);
    slot.protocol.store(libc::IPPROTO_UDP as u16, Ordering::Relaxed);
    let name = names::socket(state::session(), Kind::Udp, family, id);
    let listener = names::listener(state::session(), Listener::Datagram);
    let hello = DatagramHello {
        version: VERSION,
        kind: Kind::Udp as u8,
        family,
        protocol: libc::IPPROTO_UDP as u16,
        id,
        token: state::token(),
    };
    let mut result = sys::bind(fd, &UnixName::new(name.as_bytes()));
    if result >= 0 {
        result = sys::connect(fd, &UnixName::new(listener.as_bytes()));
        if result < 0 {
            // No supervisor: the network is gone, whatever the unix socket says.
            result = -libc::ENETDOWN as isize;
        }
    }
    if result >= 0 {
        result = sys::send(fd, &[sys::piece(hello.as_bytes())], 0);
    }
    if result >= 0 && flags & libc::SOCK_NONBLOCK != 0 {
        let now = sys::status_flags(fd);
        result = sys::fcntl(fd, libc::F_SETFL, now as usize | libc::O_NONBLOCK as usize);
    }
    if result < 0 {
        sys::close(fd);
        return result as c_int;
    }
    fd
}

impl Socket {
    pub fn nonblocking(&self) -> bool {
        sys::status_flags(self.fd) & libc::O_NONBLOCK as isize != 0
    }

    /// Takes the pending error.
    pub fn take_error(&self) -> c_int {
        self.slot.errno.swap(0, Ordering::AcqRel) as c_int
    }

    pub fn state(&self) -> u32 {
        self.slot.state.load(Ordering::Acquire)
    }
}

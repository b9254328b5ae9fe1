//! What `libpktwrap.so` and its supervisor `pktwrap` say to each other.
//!
//! Both sides are on one machine and of one build, so everything here is native-endian and `repr(C)`. Nothing in this
//! crate allocates, locks or keeps a descriptor: the shim uses it inside hooks.
//!
//! * [`names`]: the abstract unix socket names; a program's socket *is* its name.
//! * [`stream`]: the header in front of a TCP connection's bytes, and the cork.
//! * [`datagram`]: frames of a UDP (later ICMP, raw) socket.
//! * [`call`]: one-connection-each control calls (shared page, name resolution).
//! * [`page`]: the shared page with one slot per socket.
//!
//! Sockets from birth to death:
//!
//! ```text
//! TCP   socket()   AF_UNIX STREAM, bound to a name that holds its id; slot claimed, state NEW
//!       connect()  slot.state = CONNECTING; connect(2) to the stream listener; StreamHeader; zero bytes until EAGAIN
//!                  ("cork", their number goes to slot.cork, then slot.corked = 1); poll until writable
//!                  supervisor: NOPEN; on ESTABLISHED fill slot.local/remote, state = CONNECTED, futex wake, read
//!                  exactly slot.cork bytes and drop them: the program's poll now says writable
//!                  on failure: slot.errno, state = FAILED, futex wake, close with the cork unread: POLLERR|POLLHUP
//!       data       plain bytes both ways. Peer FIN: state |= PEER_FIN, then shutdown(SHUT_WR) toward the program.
//!                  Peer RST: slot.errno = ECONNRESET, flags |= RESET, then close. EOF without either flag means the
//!                  supervisor died: hooks say ECONNRESET.
//! UDP   socket()   AF_UNIX SEQPACKET, bound to its name, connected at once to the datagram listener, DatagramHello sent
//!       then       frames both ways, in order; BIND and CONNECT frames that want an answer get it in the slot
//! ```

pub mod call;
pub mod datagram;
pub mod names;
pub mod page;
pub mod stream;

/// Changes with every incompatible change of anything in this crate.
pub const VERSION: u32 = 1;

/// Environment of a wrapped program: `PKTWRAP_LINK=<16 hex digits session><32 hex digits token>`.
pub const ENV_LINK: &str = "PKTWRAP_LINK";

/// A session's secret, 128 random bits; part of every first message a shim sends.
pub type Token = [u8; 16];

/// An IP socket address in a fixed layout. `family` is 0 (none), 4 or 6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addr {
    pub family: u8,
    pub reserved: u8,
    /// Native-endian number.
    pub port: u16,
    /// IPv6 scope id, else 0.
    pub scope: u32,
    /// Network order; IPv4 uses the first four bytes.
    pub ip: [u8; 16],
}

impl Addr {
    pub const NONE: Addr = Addr { family: 0, reserved: 0, port: 0, scope: 0, ip: [0; 16] };

    pub fn from_std(addr: &core::net::SocketAddr) -> Addr {
        match addr {
            core::net::SocketAddr::V4(v4) => {
                let mut ip = [0; 16];
                ip[..4].copy_from_slice(&v4.ip().octets());
                Addr { family: 4, reserved: 0, port: v4.port(), scope: 0, ip }
            }
            core::net::SocketAddr::V6(v6) => {
                Addr { family: 6, reserved: 0, port: v6.port(), scope: v6.scope_id(), ip: v6.ip().octets() }
            }
        }
    }

    pub fn to_std(&self) -> Option<core::net::SocketAddr> {
        use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
        match self.family {
            4 => {
                let ip = Ipv4Addr::new(self.ip[0], self.ip[1], self.ip[2], self.ip[3]);
                Some(SocketAddrV4::new(ip, self.port).into())
            }
            6 => Some(SocketAddrV6::new(Ipv6Addr::from(self.ip), self.port, 0, self.scope).into()),
            _ => None,
        }
    }
}

/// Types that may be sent as their bytes: `repr(C)`, no padding, every bit pattern valid.
///
/// # Safety
/// The implementer promises exactly that.
pub unsafe trait Plain: Copy {
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: no padding (trait contract), so all size_of::<Self>() bytes are initialised.
        unsafe { core::slice::from_raw_parts((self as *const Self).cast(), size_of::<Self>()) }
    }

    /// `None` when `bytes` is shorter than the type; excess bytes are ignored.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: length checked above; every bit pattern is valid (trait contract); unaligned read.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

// SAFETY: repr(C), u8+u8+u16+u32+16×u8 has no padding, integers only.
unsafe impl Plain for Addr {}

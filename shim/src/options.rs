//! Socket options: one table says for each what a program reads back and whether it may set it. Values live in the
//! socket's slot, so that they survive dup, fork and exec like the kernel's own.

use core::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, c_void, socklen_t};
use pktwrap_link::names::Kind;
use pktwrap_link::page::{OPTIONS, flag, state};

use crate::socket::Socket;
use crate::{sys, udp};

/// Numbers of the cells: the first 24 are `slot.options`, the rest `slot.spare`; the last one tells which are set.
pub mod cell {
    pub const REUSEADDR: usize = 0;
    pub const KEEPALIVE: usize = 1;
    pub const BROADCAST: usize = 2;
    pub const REUSEPORT: usize = 3;
    pub const SNDBUF: usize = 4;
    pub const RCVBUF: usize = 5;
    /// Bit 31: l_onoff; the rest l_linger in seconds.
    pub const LINGER: usize = 6;
    pub const NODELAY: usize = 7;
    pub const TTL: usize = 8;
    pub const TOS: usize = 9;
    pub const HOPS: usize = 10;
    pub const TCLASS: usize = 11;
    pub const V6ONLY: usize = 12;
    /// 1: SO_TIMESTAMP, 2: SO_TIMESTAMPNS.
    pub const TIMESTAMP: usize = 13;
    pub const MTU_DISCOVER4: usize = 14;
    pub const PKTINFO4: usize = 15;
    pub const RECVTTL4: usize = 16;
    pub const RECVTOS4: usize = 17;
    pub const PKTINFO6: usize = 18;
    pub const RECVTTL6: usize = 19;
    pub const RECVTOS6: usize = 20;
    pub const MTU_DISCOVER6: usize = 21;
    pub const RECVERR4: usize = 22;
    pub const RECVERR6: usize = 23;
    pub const KEEPIDLE: usize = 24;
    pub const KEEPINTVL: usize = 25;
    pub const KEEPCNT: usize = 26;
    pub const USER_TIMEOUT: usize = 27;
    pub const PRIORITY: usize = 28;
    /// On/off options without effect of their own, one bit each.
    pub const BITS: usize = 29;
    /// 1 after a datagram went out: Linux has given the socket a port by then.
    pub const SENT: usize = 30;
    pub const SET: usize = 31;
}

#[derive(Clone, Copy)]
enum Action {
    /// A number in a cell: cell, default, least, greatest. -1 sets the default when the least is above it.
    Number(usize, c_int, c_int, c_int),
    /// On or off in a cell.
    Switch(usize, c_int),
    /// On or off in a bit of [`cell::BITS`].
    Bit(u8),
    /// Read-only.
    Fixed(c_int),
    /// May be set without effect; reads as this.
    Ignored(c_int),
    /// The unix socket's own.
    Pass,
    /// Setting it is refused with this errno; reading is ENOPROTOOPT.
    Refused(c_int),
    Special,
}

use Action::*;

#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    All,
    Tcp,
    Udp,
    /// IPv6 sockets.
    Six,
}

struct Entry {
    level: c_int,
    name: c_int,
    whom: For,
    action: Action,
}

const fn at(level: c_int, name: c_int, whom: For, action: Action) -> Entry {
    Entry { level, name, whom, action }
}

const SOCK: c_int = libc::SOL_SOCKET;
const IP: c_int = libc::IPPROTO_IP;
const IP6: c_int = libc::IPPROTO_IPV6;
const TCP: c_int = libc::IPPROTO_TCP;

/// Linux doubles the buffer sizes it is given and caps them at net.core.{r,w}mem_max.
const MEM_MAX: c_int = 212_992;

static TABLE: &[Entry] = &[
    at(SOCK, libc::SO_ERROR, For::All, Special),
    at(SOCK, libc::SO_TYPE, For::All, Special),
    at(SOCK, libc::SO_DOMAIN, For::All, Special),
    at(SOCK, libc::SO_PROTOCOL, For::All, Special),
    at(SOCK, libc::SO_LINGER, For::All, Special),
    at(SOCK, libc::SO_BINDTODEVICE, For::All, Special),
    at(SOCK, libc::SO_TIMESTAMP, For::All, Special),
    at(SOCK, libc::SO_TIMESTAMPNS, For::All, Special),
    at(SOCK, libc::SO_SNDBUF, For::All, Special),
    at(SOCK, libc::SO_RCVBUF, For::All, Special),
    at(SOCK, libc::SO_RCVTIMEO, For::All, Pass),
    at(SOCK, libc::SO_SNDTIMEO, For::All, Pass),
    at(SOCK, libc::SO_RCVLOWAT, For::Tcp, Pass),
    at(SOCK, libc::SO_COOKIE, For::All, Pass),
    at(SOCK, libc::SO_ACCEPTCONN, For::All, Fixed(0)),
    at(SOCK, libc::SO_REUSEADDR, For::All, Switch(cell::REUSEADDR, 0)),
    at(SOCK, libc::SO_REUSEPORT, For::All, Switch(cell::REUSEPORT, 0)),
    at(SOCK, libc::SO_KEEPALIVE, For::All, Switch(cell::KEEPALIVE, 0)),
    at(SOCK, libc::SO_BROADCAST, For::All, Switch(cell::BROADCAST, 0)),
    at(SOCK, libc::SO_PRIORITY, For::All, Number(cell::PRIORITY, 0, 0, 6)),
    at(SOCK, libc::SO_OOBINLINE, For::All, Bit(0)),
    at(SOCK, libc::SO_DONTROUTE, For::All, Bit(1)),
    at(SOCK, libc::SO_RXQ_OVFL, For::All, Bit(2)),
    at(SOCK, libc::SO_NO_CHECK, For::All, Bit(3)),
    at(SOCK, libc::SO_PASSCRED, For::All, Bit(4)),
    at(SOCK, libc::SO_DEBUG, For::All, Bit(5)),
    at(SOCK, libc::SO_BUSY_POLL, For::All, Ignored(0)),
    at(SOCK, libc::SO_MAX_PACING_RATE, For::All, Ignored(-1)),
    at(SOCK, libc::SO_INCOMING_CPU, For::All, Ignored(0)),
    at(SOCK, libc::SO_MARK, For::All, Refused(libc::EPERM)),
    at(SOCK, libc::SO_SNDBUFFORCE, For::All, Refused(libc::EPERM)),
    at(SOCK, libc::SO_RCVBUFFORCE, For::All, Refused(libc::EPERM)),
    at(SOCK, libc::SO_ATTACH_FILTER, For::All, Refused(libc::EPERM)),
    at(SOCK, libc::SO_ATTACH_BPF, For::All, Refused(libc::EPERM)),
    at(SOCK, libc::SO_DETACH_FILTER, For::All, Refused(libc::ENOENT)),
    at(SOCK, libc::SO_ZEROCOPY, For::All, Refused(libc::EOPNOTSUPP)),
    at(IP, libc::IP_TTL, For::All, Number(cell::TTL, 64, 1, 255)),
    at(IP, libc::IP_TOS, For::All, Number(cell::TOS, 0, 0, 255)),
    at(IP, libc::IP_MTU_DISCOVER, For::All, Number(cell::MTU_DISCOVER4, 1, 0, 5)),
    at(IP, libc::IP_MTU, For::All, Special),
    at(IP, libc::IP_RECVERR, For::All, Switch(cell::RECVERR4, 0)),
    at(IP, libc::IP_RECVTTL, For::All, Switch(cell::RECVTTL4, 0)),
    at(IP, libc::IP_RECVTOS, For::All, Switch(cell::RECVTOS4, 0)),
    at(IP, libc::IP_PKTINFO, For::All, Switch(cell::PKTINFO4, 0)),
    at(IP, libc::IP_BIND_ADDRESS_NO_PORT, For::All, Bit(6)),
    at(IP, libc::IP_FREEBIND, For::All, Bit(7)),
    at(IP, libc::IP_TRANSPARENT, For::All, Refused(libc::EPERM)),
    at(IP, libc::IP_RETOPTS, For::All, Bit(8)),
    at(IP, libc::IP_RECVOPTS, For::All, Bit(9)),
    at(IP, libc::IP_OPTIONS, For::All, Ignored(0)),
    at(IP, libc::IP_MULTICAST_TTL, For::All, Ignored(1)),
    at(IP, libc::IP_MULTICAST_LOOP, For::All, Ignored(1)),
    at(IP, libc::IP_MULTICAST_IF, For::All, Ignored(0)),
    at(IP, libc::IP_MULTICAST_ALL, For::All, Ignored(1)),
    at(IP6, libc::IPV6_V6ONLY, For::Six, Special),
    at(IP6, libc::IPV6_UNICAST_HOPS, For::Six, Number(cell::HOPS, 64, 0, 255)),
    at(IP6, libc::IPV6_TCLASS, For::Six, Number(cell::TCLASS, 0, 0, 255)),
    at(IP6, libc::IPV6_MTU_DISCOVER, For::Six, Number(cell::MTU_DISCOVER6, 1, 0, 5)),
    at(IP6, libc::IPV6_MTU, For::Six, Ignored(1500)),
    at(IP6, libc::IPV6_RECVERR, For::Six, Switch(cell::RECVERR6, 0)),
    at(IP6, libc::IPV6_RECVHOPLIMIT, For::Six, Switch(cell::RECVTTL6, 0)),
    at(IP6, libc::IPV6_RECVTCLASS, For::Six, Switch(cell::RECVTOS6, 0)),
    at(IP6, libc::IPV6_RECVPKTINFO, For::Six, Switch(cell::PKTINFO6, 0)),
    at(IP6, libc::IPV6_DONTFRAG, For::Six, Bit(10)),
    at(IP6, libc::IPV6_AUTOFLOWLABEL, For::Six, Bit(11)),
    at(IP6, libc::IPV6_FLOWINFO_SEND, For::Six, Bit(12)),
    at(IP6, libc::IPV6_FREEBIND, For::Six, Bit(13)),
    at(IP6, libc::IPV6_ADDR_PREFERENCES, For::Six, Ignored(2)),
    at(IP6, libc::IPV6_MULTICAST_HOPS, For::Six, Ignored(1)),
    at(IP6, libc::IPV6_MULTICAST_LOOP, For::Six, Ignored(1)),
    at(IP6, libc::IPV6_MULTICAST_IF, For::Six, Ignored(0)),
    at(TCP, libc::TCP_NODELAY, For::Tcp, Switch(cell::NODELAY, 0)),
    at(TCP, libc::TCP_KEEPIDLE, For::Tcp, Number(cell::KEEPIDLE, 7200, 1, 32767)),
    at(TCP, libc::TCP_KEEPINTVL, For::Tcp, Number(cell::KEEPINTVL, 75, 1, 32767)),
    at(TCP, libc::TCP_KEEPCNT, For::Tcp, Number(cell::KEEPCNT, 9, 1, 127)),
    at(TCP, libc::TCP_USER_TIMEOUT, For::Tcp, Number(cell::USER_TIMEOUT, 0, 0, c_int::MAX)),
    at(TCP, libc::TCP_CORK, For::Tcp, Bit(14)),
    at(TCP, libc::TCP_FASTOPEN_CONNECT, For::Tcp, Bit(15)),
    at(TCP, libc::TCP_FASTOPEN, For::Tcp, Ignored(0)),
    at(TCP, libc::TCP_QUICKACK, For::Tcp, Ignored(1)),
    at(TCP, libc::TCP_MAXSEG, For::Tcp, Special),
    at(TCP, libc::TCP_INFO, For::Tcp, Special),
    at(TCP, libc::TCP_CONGESTION, For::Tcp, Special),
    at(TCP, libc::TCP_SYNCNT, For::Tcp, Ignored(6)),
    at(TCP, libc::TCP_LINGER2, For::Tcp, Ignored(60)),
    at(TCP, libc::TCP_DEFER_ACCEPT, For::Tcp, Ignored(0)),
    at(TCP, libc::TCP_WINDOW_CLAMP, For::Tcp, Ignored(0)),
    at(TCP, libc::TCP_NOTSENT_LOWAT, For::Tcp, Ignored(0)),
    at(TCP, libc::TCP_ULP, For::Tcp, Refused(libc::ENOENT)),
    at(libc::IPPROTO_UDP, libc::UDP_CORK, For::Udp, Refused(libc::ENOPROTOOPT)),
];

fn entry(socket: &Socket, level: c_int, name: c_int) -> Option<&'static Entry> {
    TABLE.iter().find(|e| {
        let fits = match e.whom {
            For::All => true,
            For::Tcp => socket.kind == Kind::Tcp,
            For::Udp => socket.kind == Kind::Udp,
            For::Six => socket.family == 6,
        };
        e.level == level && e.name == name && fits
    })
}

fn place(socket: &Socket, number: usize) -> &'static AtomicU32 {
    if number < OPTIONS { &socket.slot.options[number] } else { &socket.slot.spare[number - OPTIONS] }
}

/// What the program set, if it did.
pub fn value(socket: &Socket, number: usize) -> Option<c_int> {
    let set = place(socket, cell::SET).load(Ordering::Acquire);
    (set & 1 << number != 0).then(|| place(socket, number).load(Ordering::Relaxed) as c_int)
}

pub fn store(socket: &Socket, number: usize, value: c_int) {
    place(socket, number).store(value as u32, Ordering::Relaxed);
    place(socket, cell::SET).fetch_or(1 << number, Ordering::AcqRel);
}

/// IPV6_V6ONLY.
pub fn v6only(socket: &Socket) -> bool {
    value(socket, cell::V6ONLY).is_some_and(|v| v != 0)
}

/// TTL (or hop limit) and TOS (or class) for a datagram; 0 = the default.
pub fn outgoing(socket: &Socket) -> (u8, u8) {
    let (ttl, tos) = if socket.family == 6 { (cell::HOPS, cell::TCLASS) } else { (cell::TTL, cell::TOS) };
    (value(socket, ttl).unwrap_or(0) as u8, value(socket, tos).unwrap_or(0) as u8)
}

/// setsockopt(2): 0 or errno; `None` when the unix socket is to be asked.
///
/// # Safety
/// As setsockopt(2).
pub unsafe fn set(
    socket: &Socket,
    level: c_int,
    name: c_int,
    data: *const c_void,
    len: socklen_t,
) -> Option<c_int> {
    let Some(entry) = entry(socket, level, name) else { return Some(libc::ENOPROTOOPT) };
    if let Pass = entry.action {
        return None;
    }
    if let Refused(errno) = entry.action {
        return Some(errno);
    }
    if let Special = entry.action
        && let Some(done) = set_special(socket, name, level, data, len)
    {
        return Some(done);
    }
    if data.is_null() {
        return Some(libc::EFAULT);
    }
    let number = match len {
        4.. => data.cast::<c_int>().read_unaligned(),
        1..=3 if level == IP => c_int::from(data.cast::<u8>().read()),
        _ => return Some(libc::EINVAL),
    };
    Some(match entry.action {
        Number(at, default, least, greatest) => {
            let resets = matches!(at, cell::TTL | cell::HOPS | cell::TCLASS);
            let number = if number == -1 && resets { default } else { number };
            // The lower two bits of the traffic class belong to ECN on a stream; Linux keeps them to itself.
            let number = if at == cell::TOS && socket.kind == Kind::Tcp { number & !3 } else { number };
            if at == cell::TOS || (least..=greatest).contains(&number) {
                store(socket, at, if at == cell::TOS { number & 255 } else { number });
                0
            } else {
                libc::EINVAL
            }
        }
        Switch(at, _) => {
            store(socket, at, c_int::from(number != 0));
            0
        }
        Bit(bit) => {
            let bits = place(socket, cell::BITS);
            if number != 0 {
                bits.fetch_or(1 << bit, Ordering::Relaxed);
            } else {
                bits.fetch_and(!(1 << bit), Ordering::Relaxed);
            }
            0
        }
        Ignored(_) => 0,
        Special => set_number(socket, level, name, number),
        Fixed(_) | Pass | Refused(_) => libc::ENOPROTOOPT,
    })
}

/// Options whose value is no int.
unsafe fn set_special(
    socket: &Socket,
    name: c_int,
    level: c_int,
    data: *const c_void,
    len: socklen_t,
) -> Option<c_int> {
    match (level, name) {
        (SOCK, libc::SO_LINGER) => {
            if (len as usize) < size_of::<libc::linger>() {
                return Some(libc::EINVAL);
            }
            let linger = data.cast::<libc::linger>().read_unaligned();
            let on = if linger.l_onoff != 0 { 1 << 31 } else { 0u32 };
            store(socket, cell::LINGER, (on | linger.l_linger as u32 & 0x7fff_ffff) as c_int);
            Some(0)
        }
        (SOCK, libc::SO_BINDTODEVICE) => {
            // Tools set the empty name ("any device") as a matter of course; names of this machine mean nothing there.
            let empty = len == 0 || data.cast::<u8>().read() == 0;
            Some(if empty { 0 } else { libc::ENODEV })
        }
        (TCP, libc::TCP_CONGESTION) => {
            let name = core::slice::from_raw_parts(data.cast::<u8>(), len as usize);
            let known = name.strip_suffix(b"\0").unwrap_or(name) == b"cubic";
            Some(if known { 0 } else { libc::ENOENT })
        }
        (TCP, libc::TCP_INFO) => Some(libc::ENOPROTOOPT),
        _ => None,
    }
}

/// Int options that are more than a cell.
fn set_number(socket: &Socket, level: c_int, name: c_int, number: c_int) -> c_int {
    match (level, name) {
        (SOCK, libc::SO_SNDBUF) => store(socket, cell::SNDBUF, (number.clamp(0, MEM_MAX) * 2).max(4608)),
        (SOCK, libc::SO_RCVBUF) => store(socket, cell::RCVBUF, (number.clamp(0, MEM_MAX) * 2).max(2304)),
        (SOCK, libc::SO_TIMESTAMP) => store(socket, cell::TIMESTAMP, c_int::from(number != 0)),
        (SOCK, libc::SO_TIMESTAMPNS) => store(socket, cell::TIMESTAMP, if number != 0 { 2 } else { 0 }),
        (IP6, libc::IPV6_V6ONLY) => {
            if socket.slot.has(flag::BOUND) || socket.kind == Kind::Tcp && socket.state() != state::NEW {
                return libc::EINVAL;
            }
            store(socket, cell::V6ONLY, c_int::from(number != 0));
        }
        (TCP, libc::TCP_MAXSEG) if (88..=32767).contains(&number) => {}
        (TCP, libc::TCP_MAXSEG) => return libc::EINVAL,
        _ => return libc::ENOPROTOOPT,
    }
    0
}

/// getsockopt(2): 0 or errno; `None` when the unix socket is to be asked.
///
/// # Safety
/// As getsockopt(2).
pub unsafe fn get(
    socket: &Socket,
    level: c_int,
    name: c_int,
    data: *mut c_void,
    len: *mut socklen_t,
) -> Option<c_int> {
    let Some(entry) = entry(socket, level, name) else {
        // A level the socket does not have at all: IPv4 sockets say so in other words.
        let foreign = match level {
            SOCK | IP => false,
            TCP => socket.kind != Kind::Tcp,
            libc::IPPROTO_UDP => socket.kind != Kind::Udp,
            _ => true,
        };
        return Some(if foreign && socket.family == 4 { libc::EOPNOTSUPP } else { libc::ENOPROTOOPT });
    };
    if let Pass = entry.action {
        return None;
    }
    if len.is_null() || data.is_null() {
        return Some(libc::EFAULT);
    }
    if (*len as c_int) < 0 {
        return Some(libc::EINVAL);
    }
    let number = match entry.action {
        Number(at, default, ..) | Switch(at, default) => value(socket, at).unwrap_or(default),
        Bit(bit) => (place(socket, cell::BITS).load(Ordering::Relaxed) >> bit & 1) as c_int,
        Fixed(number) | Ignored(number) => number,
        Refused(_) | Pass => return Some(libc::ENOPROTOOPT),
        Special => match get_special(socket, level, name) {
            Answer::Int(number) => number,
            Answer::Bytes(bytes, used) => return Some(copy(&bytes[..used], data, len)),
            Answer::Error(errno) => return Some(errno),
        },
    };
    Some(copy(&number.to_ne_bytes(), data, len))
}

unsafe fn copy(bytes: &[u8], data: *mut c_void, len: *mut socklen_t) -> c_int {
    let take = bytes.len().min(*len as usize);
    core::ptr::copy_nonoverlapping(bytes.as_ptr(), data.cast::<u8>(), take);
    *len = take as socklen_t;
    0
}

enum Answer {
    Int(c_int),
    Bytes([u8; 104], usize),
    Error(c_int),
}

fn get_special(socket: &Socket, level: c_int, name: c_int) -> Answer {
    let tcp = socket.kind == Kind::Tcp;
    let mut bytes = [0u8; 104];
    Answer::Int(match (level, name) {
        (SOCK, libc::SO_ERROR) if tcp => tcp_error(socket),
        (SOCK, libc::SO_ERROR) => udp::take_error(socket),
        (SOCK, libc::SO_TYPE) => {
            if tcp {
                libc::SOCK_STREAM
            } else {
                libc::SOCK_DGRAM
            }
        }
        (SOCK, libc::SO_DOMAIN) => {
            if socket.family == 4 {
                libc::AF_INET
            } else {
                libc::AF_INET6
            }
        }
        (SOCK, libc::SO_PROTOCOL) => {
            if tcp {
                libc::IPPROTO_TCP
            } else {
                libc::IPPROTO_UDP
            }
        }
        (SOCK, libc::SO_SNDBUF) => value(socket, cell::SNDBUF).unwrap_or(if tcp { 16384 } else { MEM_MAX }),
        (SOCK, libc::SO_RCVBUF) => value(socket, cell::RCVBUF).unwrap_or(if tcp { 131_072 } else { MEM_MAX }),
        (SOCK, libc::SO_TIMESTAMP) => c_int::from(value(socket, cell::TIMESTAMP) == Some(1)),
        (SOCK, libc::SO_TIMESTAMPNS) => c_int::from(value(socket, cell::TIMESTAMP) == Some(2)),
        (SOCK, libc::SO_LINGER) => {
            let raw = value(socket, cell::LINGER).unwrap_or(0) as u32;
            bytes[..4].copy_from_slice(&(raw >> 31).to_ne_bytes());
            bytes[4..8].copy_from_slice(&(raw & 0x7fff_ffff).to_ne_bytes());
            return Answer::Bytes(bytes, 8);
        }
        (SOCK, libc::SO_BINDTODEVICE) => return Answer::Bytes(bytes, 0),
        (IP, libc::IP_MTU) if socket.slot.remote.load().family == 0 => return Answer::Error(libc::ENOTCONN),
        (IP, libc::IP_MTU) => 1500,
        (IP6, libc::IPV6_V6ONLY) => c_int::from(v6only(socket)),
        (TCP, libc::TCP_MAXSEG) => {
            if socket.state() == state::CONNECTED {
                1448
            } else {
                536
            }
        }
        (TCP, libc::TCP_CONGESTION) => {
            bytes[..5].copy_from_slice(b"cubic");
            return Answer::Bytes(bytes, 16);
        }
        (TCP, libc::TCP_INFO) => {
            // struct tcp_info: the state, then 8 bytes of flags, then u32 fields (rto, ato, snd_mss, rcv_mss, …).
            bytes[0] = tcp_state(socket);
            bytes[16..20].copy_from_slice(&1448u32.to_ne_bytes());
            bytes[20..24].copy_from_slice(&536u32.to_ne_bytes());
            return Answer::Bytes(bytes, 104);
        }
        _ => return Answer::Error(libc::ENOPROTOOPT),
    })
}

fn tcp_error(socket: &Socket) -> c_int {
    let pending = socket.take_error();
    if pending != 0 || socket.state() != state::CONNECTING {
        return pending;
    }
    // Still connecting for the slot: unless the supervisor is gone, there is nothing to tell.
    let mut watched = libc::pollfd { fd: socket.fd, events: 0, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one pollfd, one timespec, both live through the call.
    unsafe {
        let at = [&raw mut watched as usize, 1, &raw const now as usize, 0, 8, 0];
        sys::call(libc::SYS_ppoll, at);
    }
    if watched.revents & libc::POLLHUP == 0 || socket.state() != state::CONNECTING {
        return socket.take_error();
    }
    socket.slot.publish(state::FAILED);
    libc::ENETDOWN
}

/// TCP_ESTABLISHED and its relatives.
fn tcp_state(socket: &Socket) -> u8 {
    match socket.state() {
        state::CONNECTED if socket.slot.has(flag::RESET) => 7,
        state::CONNECTED if socket.slot.has(flag::PEER_FIN) => 8,
        state::CONNECTED => 1,
        state::CONNECTING => 2,
        state::LISTENING => 10,
        _ => 7,
    }
}

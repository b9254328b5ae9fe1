//! One datagram in or out with its control data: kernel time stamps, hop limit, destination address, and what the network
//! reported of earlier ones.

mod sys;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use libc::c_int;
use pktlab::wire::Ticks;
use rustix::net::SendFlags;

use super::open::errno_of;
use super::{now, sys as options};
use crate::session::{Errno, Reported, Sent};
use sys::Control;

/// What the kernel is asked of every datagram socket: receive stamps, and numbered transmit stamps of the packets that want
/// one, without the packet.
const STAMPS: u32 = UNNUMBERED | libc::SOF_TIMESTAMPING_OPT_ID;
const UNNUMBERED: u32 =
    libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE | libc::SOF_TIMESTAMPING_OPT_TSONLY;
/// Entries of the error queue looked at after one send.
const LOOKS: usize = 16;
/// Longest quotation of a datagram that an error report brings.
const QUOTE: usize = 2048;
/// Attempts at a send that fails because of errors of earlier ones.
const ATTEMPTS: usize = 3;

/// A socket and its error queue, which is read by one thread at a time: whoever looks for the stamp of a packet must find it.
pub struct Channel {
    fd: OwnedFd,
    /// Number of the next packet that wants a stamp.
    stamps: Mutex<u32>,
}

impl Channel {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, stamps: Mutex::new(0) }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What came with a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub remote: SocketAddr,
    pub time: Ticks,
    /// `time` is the kernel's stamp, not read after the call.
    pub kernel_time: bool,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    /// Destination address of its header.
    pub local: Option<IpAddr>,
}

/// An entry of a socket's error queue.
enum Entry {
    /// The packet with this number was handed to the device at this time.
    Stamp(u32, Ticks),
    Error(Reported),
    /// Of no use here.
    Other,
}

/// Switches on what [`receive`] and [`reported`] tell. Toward IPv4 and IPv6 alike.
pub fn prepare(fd: BorrowedFd<'_>, v6: bool) -> Result<(), Errno> {
    use libc::*;
    let family = if v6 {
        [IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IPV6_RECVPKTINFO, IPV6_RECVERR].map(|name| (IPPROTO_IPV6, name))
    } else {
        [IP_RECVTTL, IP_RECVTOS, IP_PKTINFO, IP_RECVERR].map(|name| (IPPROTO_IP, name))
    };
    for name in family {
        options::set(fd, name, &1).map_err(|error| errno_of(&error))?;
    }
    prepare_stamps(fd)
}

/// As [`prepare`], for a socket that only sends.
pub fn prepare_stamps(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    set_stamps(fd, STAMPS)
}

fn set_stamps(fd: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    options::set(fd, (libc::SOL_SOCKET, libc::SO_TIMESTAMPING), &(flags as c_int))
        .map_err(|error| errno_of(&error))
}

/// Receives one datagram into the spare capacity of `buffer`.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Result<Received, Errno> {
    let mut control = Control::new();
    sys::receive(fd, buffer, &mut control, libc::MSG_DONTWAIT)?;
    let mut received = Received {
        remote: address(control.name()).ok_or(Errno::INVAL)?,
        time: 0,
        kernel_time: false,
        ttl: None,
        tos: None,
        local: None,
    };
    for (kind, data) in Messages(control.bytes()) {
        match kind {
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => {
                if let Some(time) = timespec(data) {
                    (received.time, received.kernel_time) = (time, true);
                }
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                received.ttl = int(data).and_then(|value| u8::try_from(value).ok());
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => received.tos = data.first().copied(),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                received.tos = int(data).and_then(|value| u8::try_from(value).ok());
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                received.local = data.get(8..).and_then(<[u8]>::first_chunk::<4>).map(|a| IpAddr::from(*a));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                received.local = data.first_chunk::<16>().map(|a| IpAddr::from(*a));
            }
            _ => {}
        }
    }
    if !received.kernel_time {
        received.time = now();
    }
    Ok(received)
}

/// One send that never blocks: a datagram or packet to `remote`, or a piece of a stream. With `stamp` the time is the
/// kernel's transmit stamp where that is there when the call returns. What the network reported of earlier datagrams may
/// come to light here: that goes to `others`.
pub fn send(
    channel: &Channel,
    data: &[u8],
    remote: Option<&SocketAddr>,
    stamp: bool,
    others: &mut Vec<Reported>,
) -> Result<Sent, Errno> {
    let fd = channel.as_fd();
    let Some(remote) = remote else {
        let bytes = rustix::net::send(fd, data, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        return Ok(Sent { bytes, time: now(), kernel_time: false });
    };
    let remote = socket2::SockAddr::from(*remote);
    let mut next = channel.stamps.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = first_of(fd, &mut next, stamp, others, || {
        let wanted = (libc::SOL_SOCKET, libc::SO_TIMESTAMPING, libc::SOF_TIMESTAMPING_TX_SOFTWARE);
        sys::send(fd, data, &remote, stamp.then_some(wanted))
    })?;
    let after = now();
    if stamp {
        let number = *next;
        *next = next.wrapping_add(1);
        for _ in 0..LOOKS {
            match entry(fd, &mut Vec::with_capacity(QUOTE)) {
                None => break,
                Some(Entry::Stamp(of, time)) if of == number => {
                    return Ok(Sent { bytes, time, kernel_time: true });
                }
                // Late, of an earlier packet.
                Some(Entry::Stamp(..) | Entry::Other) => {}
                Some(Entry::Error(reported)) => others.push(reported),
            }
        }
    }
    Ok(Sent { bytes, time: after, kernel_time: false })
}

/// Sends; an error reported for an earlier datagram, which makes the next send fail once, is no failure of this one.
fn first_of(
    fd: BorrowedFd<'_>,
    next: &mut u32,
    stamp: bool,
    others: &mut Vec<Reported>,
    call: impl Fn() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut attempt = 1;
    loop {
        let errno = match call() {
            Err(errno) if errno != Errno::AGAIN && errno != Errno::INTR => errno,
            outcome => return outcome,
        };
        if stamp {
            // Whether a failed send takes a number is the kernel's affair: count anew.
            let renumber = [UNNUMBERED, STAMPS].map(|flags| set_stamps(fd, flags));
            *next = if renumber.iter().all(Result::is_ok) { 0 } else { *next };
        }
        let mut of_network = false;
        for _ in 0..LOOKS {
            match entry(fd, &mut Vec::with_capacity(QUOTE)) {
                None => break,
                // What the system says of this very call comes back as its error.
                Some(Entry::Error(reported)) if reported.origin == libc::SO_EE_ORIGIN_LOCAL => {}
                Some(Entry::Error(reported)) => {
                    of_network = true;
                    others.push(reported);
                }
                Some(Entry::Stamp(..) | Entry::Other) => {}
            }
        }
        let own = matches!(errno, Errno::MSGSIZE | Errno::NOBUFS) && !of_network;
        if own || attempt == ATTEMPTS {
            return Err(errno);
        }
        attempt += 1;
    }
}

/// The next error that the network reported; late transmit stamps are passed over. Nothing while a send looks for its stamp.
pub fn reported(channel: &Channel) -> Option<Reported> {
    let _alone = channel.stamps.try_lock().ok()?;
    let mut buffer = Vec::with_capacity(QUOTE);
    for _ in 0..LOOKS {
        buffer.clear();
        if let Entry::Error(reported) = entry(channel.as_fd(), &mut buffer)? {
            return Some(reported);
        }
    }
    None
}

fn entry(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Option<Entry> {
    let mut control = Control::new();
    sys::receive(fd, buffer, &mut control, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT).ok()?;
    let (mut time, mut error) = (None, None);
    for (kind, data) in Messages(control.bytes()) {
        match kind {
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => time = timespec(data),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                error = Some(data);
            }
            _ => {}
        }
    }
    let Some(error) = error.and_then(|data| Some((data.first_chunk::<16>()?, data.get(16..)?))) else {
        return Some(Entry::Other);
    };
    let (&[e0, e1, e2, e3, origin, icmp_type, icmp_code, _, i0, i1, i2, i3, d0, d1, d2, d3], offender) =
        error;
    if origin == libc::SO_EE_ORIGIN_TIMESTAMPING {
        let number = u32::from_ne_bytes([d0, d1, d2, d3]);
        return Some(time.map_or(Entry::Other, |time| Entry::Stamp(number, time)));
    }
    Some(Entry::Error(Reported {
        errno: u16::try_from(u32::from_ne_bytes([e0, e1, e2, e3])).unwrap_or(0),
        origin,
        icmp_type,
        icmp_code,
        info: u32::from_ne_bytes([i0, i1, i2, i3]),
        offender: address(offender).map(|offender| offender.ip()),
        remote: address(control.name()),
        time: time.unwrap_or_else(now),
        data: Bytes::copy_from_slice(buffer),
    }))
}

/// Control messages, each with level and type.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = ((c_int, c_int), &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const HEAD: usize = size_of::<libc::cmsghdr>();
        let len = usize::from_ne_bytes(*self.0.first_chunk()?);
        let number =
            |at: usize| self.0.get(at..).and_then(<[u8]>::first_chunk).map(|b| c_int::from_ne_bytes(*b));
        let kind = (number(HEAD - 8)?, number(HEAD - 4)?);
        let data = self.0.get(HEAD..len)?;
        self.0 = self.0.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or(&[]);
        Some((kind, data))
    }
}

/// An address as the system has it.
fn address(raw: &[u8]) -> Option<SocketAddr> {
    let family = c_int::from(u16::from_ne_bytes(*raw.first_chunk()?));
    let port = u16::from_be_bytes(*raw.get(2..)?.first_chunk()?);
    let ip: IpAddr = match family {
        libc::AF_INET => Ipv4Addr::from(*raw.get(4..)?.first_chunk::<4>()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(*raw.get(8..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn int(data: &[u8]) -> Option<c_int> {
    data.first_chunk().map(|b| c_int::from_ne_bytes(*b))
}

/// The first of the time stamps, ns since the epoch; zero is none.
fn timespec(data: &[u8]) -> Option<Ticks> {
    let seconds = i64::from_ne_bytes(*data.first_chunk()?);
    let nanoseconds = i64::from_ne_bytes(*data.get(8..)?.first_chunk()?);
    let seconds = Ticks::try_from(seconds).ok()?.saturating_mul(1_000_000_000);
    let time = seconds.saturating_add(Ticks::try_from(nanoseconds).ok()?);
    (time != 0).then_some(time)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    struct End {
        socket: UdpSocket,
        channel: Channel,
    }

    fn end(host: &str) -> End {
        let socket = UdpSocket::bind(host).expect("bound");
        prepare(socket.as_fd(), host.starts_with('[')).expect("prepared");
        let channel = Channel::new(socket.try_clone().expect("clone").into());
        End { socket, channel }
    }

    impl End {
        fn address(&self) -> SocketAddr {
            self.socket.local_addr().expect("address")
        }
    }

    fn waited(socket: &UdpSocket, buffer: &mut Vec<u8>) -> Received {
        for _ in 0..2_000 {
            match receive(socket.as_fd(), buffer) {
                Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(1)),
                other => return other.expect("received"),
            }
        }
        panic!("nothing arrived");
    }

    /// The kernel switches receive stamps on a moment after the first socket wants them.
    fn warm(one: &UdpSocket, two: &UdpSocket, to: SocketAddr) {
        for _ in 0..200 {
            one.send_to(b"warm", to).expect("sent");
            if waited(two, &mut Vec::with_capacity(9)).kernel_time {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("no receive stamps here");
    }

    #[test]
    fn a_datagram_tells_its_times_and_its_header() {
        for (host, ip) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let (one, two) = (end(host), end(host));
            let (from, to) = (one.address(), two.address());
            socket2::SockRef::from(&one.socket).set_ttl_v4(33).ok();
            socket2::SockRef::from(&one.socket).set_unicast_hops_v6(33).ok();
            warm(&one.socket, &two.socket, to);
            let before = now();
            let sent = send(&one.channel, b"hello", Some(&to), true, &mut Vec::new()).expect("sent");
            assert!(sent.kernel_time, "{host}: loopback stamps at once");
            assert!(before <= sent.time && sent.time <= now());
            let mut buffer = Vec::with_capacity(100);
            let got = waited(&two.socket, &mut buffer);
            assert_eq!((&buffer[..], got.remote), (&b"hello"[..], from));
            assert_eq!(
                (got.ttl, got.tos, got.local),
                (Some(33), Some(0), Some(ip.parse().expect("address")))
            );
            assert!(got.kernel_time && got.time >= sent.time && got.time <= now());
            let plain = send(&one.channel, b"", Some(&to), false, &mut Vec::new()).expect("sent");
            assert!(!plain.kernel_time && plain.bytes == 0);
            assert!(
                entry(one.channel.as_fd(), &mut Vec::with_capacity(9)).is_none(),
                "no stamp is left over"
            );
        }
    }

    #[test]
    fn errors_of_the_network_are_reported_and_do_not_stop_sending() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (one, two, alive) = (end(host), end(host), end(host));
            let (gone, to) = (two.address(), alive.address());
            drop(two);
            let mut others = Vec::new();
            send(&one.channel, b"quoted", Some(&gone), false, &mut others).expect("sent");
            std::thread::sleep(Duration::from_millis(50));
            // The error waits; this datagram must go out all the same.
            send(&one.channel, b"through", Some(&to), true, &mut others).expect("sent");
            let mut buffer = Vec::with_capacity(100);
            waited(&alive.socket, &mut buffer);
            assert_eq!(buffer, b"through");
            others.extend(reported(&one.channel));
            let [error] = &others[..] else { panic!("{others:?}") };
            assert_eq!(i32::from(error.errno), libc::ECONNREFUSED);
            assert_eq!(error.remote, Some(gone));
            assert_eq!(&error.data[..], b"quoted");
            assert_eq!(error.offender.map(|ip| ip.is_loopback()), Some(true));
        }
    }

    #[test]
    fn a_failed_send_is_told_once_and_stamps_keep_their_packets() {
        let (one, two) = (end("127.0.0.1:0"), end("127.0.0.1:0"));
        let (to, mut others) = (two.address(), Vec::new());
        for _ in 0..3 {
            let long = send(&one.channel, &[0; 65_508], Some(&to), true, &mut others);
            assert_eq!(long, Err(Errno::MSGSIZE));
            let sent = send(&one.channel, b"x", Some(&to), true, &mut others).expect("sent");
            assert!(sent.kernel_time);
        }
        assert!(others.is_empty() && reported(&one.channel).is_none(), "{others:?}");
    }

    #[test]
    fn foreign_control_data_is_no_panic() {
        for len in 0..64 {
            for byte in [0u8, 1, 16, 255] {
                let bytes = vec![byte; len];
                assert!(Messages(&bytes).count() <= len);
                address(&bytes);
                timespec(&bytes);
            }
        }
    }
}

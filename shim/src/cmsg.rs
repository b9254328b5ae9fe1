//! Control messages of datagrams: what the program asked for (time stamps, TTL, TOS, arrival address) on receive, and
//! what it gives on send.

use libc::{c_int, c_void, msghdr};
use pktwrap_link::datagram::FrameHeader;

use crate::options::{self, cell};
use crate::socket::Socket;

/// IP_TTL / IP_TOS and their IPv6 forms in the control data of a send.
///
/// # Safety
/// The control data of `message` is readable for its length.
pub unsafe fn read(message: &msghdr, frame: &mut FrameHeader) {
    if message.msg_control.is_null() {
        return;
    }
    let mut at = libc::CMSG_FIRSTHDR(message);
    while !at.is_null() {
        let data = libc::CMSG_DATA(at);
        let len = (*at).cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
        let value = match len {
            4.. => data.cast::<c_int>().read_unaligned(),
            1.. => c_int::from(*data),
            _ => -1,
        };
        match ((*at).cmsg_level, (*at).cmsg_type, u8::try_from(value)) {
            (libc::IPPROTO_IP, libc::IP_TTL, Ok(ttl))
            | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, Ok(ttl)) => {
                frame.ttl = ttl;
            }
            (libc::IPPROTO_IP, libc::IP_TOS, Ok(tos)) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, Ok(tos)) => {
                frame.tos = tos;
            }
            _ => {}
        }
        at = libc::CMSG_NXTHDR(message, at);
    }
}

/// Fills the program's control buffer and sets `msg_controllen` and MSG_CTRUNC.
///
/// # Safety
/// The control data of `message` is writable for its length.
pub unsafe fn write(socket: &Socket, frame: &FrameHeader, message: &mut msghdr) {
    let mut out = Writer {
        at: message.msg_control.cast(),
        left: if message.msg_control.is_null() { 0 } else { message.msg_controllen },
        used: 0,
        cut: false,
    };
    let seconds = (frame.time / 1_000_000_000) as libc::time_t;
    let nanos = (frame.time % 1_000_000_000) as libc::c_long;
    match options::value(socket, cell::TIMESTAMP) {
        Some(1) => {
            let time = libc::timeval { tv_sec: seconds, tv_usec: (nanos / 1000) as libc::suseconds_t };
            out.put(libc::SOL_SOCKET, libc::SO_TIMESTAMP, &time);
        }
        Some(2) => {
            let time = libc::timespec { tv_sec: seconds, tv_nsec: nanos };
            out.put(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &time);
        }
        _ => {}
    }
    let wants = |number| options::value(socket, number).is_some_and(|v| v != 0);
    if frame.addr.family == 4 {
        if wants(cell::PKTINFO4) && frame.local.family == 4 {
            let mut octets = [0; 4];
            octets.copy_from_slice(&frame.local.ip[..4]);
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(octets) };
            let info = libc::in_pktinfo { ipi_ifindex: 1, ipi_spec_dst: address, ipi_addr: address };
            out.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        if wants(cell::RECVTTL4) && frame.ttl != 0 {
            out.put(libc::IPPROTO_IP, libc::IP_TTL, &c_int::from(frame.ttl));
        }
        if wants(cell::RECVTOS4) {
            out.put(libc::IPPROTO_IP, libc::IP_TOS, &frame.tos);
        }
    } else {
        if wants(cell::PKTINFO6) && frame.local.family == 6 {
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: frame.local.ip }, ipi6_ifindex: 1 };
            out.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        if wants(cell::RECVTTL6) && frame.ttl != 0 {
            out.put(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &c_int::from(frame.ttl));
        }
        if wants(cell::RECVTOS6) {
            out.put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &c_int::from(frame.tos));
        }
    }
    message.msg_controllen = out.used;
    if out.cut {
        message.msg_flags |= libc::MSG_CTRUNC;
    }
}

struct Writer {
    at: *mut u8,
    left: usize,
    used: usize,
    cut: bool,
}

impl Writer {
    unsafe fn put<T>(&mut self, level: c_int, kind: c_int, value: &T) {
        let space = libc::CMSG_SPACE(size_of::<T>() as u32) as usize;
        if self.left < space {
            self.cut = true;
            return;
        }
        let head = self.at.cast::<libc::cmsghdr>();
        (*head).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as usize;
        (*head).cmsg_level = level;
        (*head).cmsg_type = kind;
        let data = libc::CMSG_DATA(head);
        core::ptr::copy_nonoverlapping(
            (value as *const T).cast::<c_void>().cast::<u8>(),
            data,
            size_of::<T>(),
        );
        self.at = self.at.add(space);
        self.left -= space;
        self.used += space;
    }
}

//! Socket addresses: the program's `sockaddr` on one side, [`Addr`] on the other.

use libc::{c_int, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};
use pktwrap_link::Addr;

/// What is wrong with an address, as errno.
pub type Result<T> = core::result::Result<T, c_int>;

/// The address a program gave. An IPv4-mapped IPv6 address comes back as IPv4.
///
/// # Safety
/// `sa` is readable for `len` bytes.
pub unsafe fn parse(sa: *const sockaddr, len: socklen_t) -> Result<Addr> {
    if sa.is_null() || (len as usize) < size_of::<libc::sa_family_t>() {
        return Err(libc::EINVAL);
    }
    match c_int::from((*sa).sa_family) {
        libc::AF_INET if len as usize >= size_of::<sockaddr_in>() => {
            let v4 = sa.cast::<sockaddr_in>().read_unaligned();
            let mut addr = Addr { family: 4, port: u16::from_be(v4.sin_port), ..Addr::NONE };
            addr.ip[..4].copy_from_slice(&v4.sin_addr.s_addr.to_ne_bytes());
            Ok(addr)
        }
        // Linux accepts an address without the scope id.
        libc::AF_INET6 if len as usize >= 24 => {
            let mut bytes = [0u8; size_of::<sockaddr_in6>()];
            let take = bytes.len().min(len as usize);
            core::ptr::copy_nonoverlapping(sa.cast::<u8>(), bytes.as_mut_ptr(), take);
            let v6 = bytes.as_ptr().cast::<sockaddr_in6>().read_unaligned();
            let ip = v6.sin6_addr.s6_addr;
            let port = u16::from_be(v6.sin6_port);
            if ip[..10] == [0; 10] && ip[10..12] == [0xff; 2] {
                let mut addr = Addr { family: 4, port, ..Addr::NONE };
                addr.ip[..4].copy_from_slice(&ip[12..]);
                return Ok(addr);
            }
            Ok(Addr { family: 6, reserved: 0, port, scope: v6.sin6_scope_id, ip })
        }
        libc::AF_INET | libc::AF_INET6 => Err(libc::EINVAL),
        _ => Err(libc::EAFNOSUPPORT),
    }
}

/// Whether the IP address is 0.0.0.0 or `::`.
pub fn unspecified(addr: &Addr) -> bool {
    addr.ip == [0; 16]
}

/// Linux takes the unspecified address as a destination on this host.
pub fn destination(mut addr: Addr) -> Addr {
    if unspecified(&addr) {
        match addr.family {
            4 => addr.ip[..4].copy_from_slice(&[127, 0, 0, 1]),
            6 => addr.ip[15] = 1,
            _ => {}
        }
    }
    addr
}

/// The address as a `sockaddr` of a socket of `family` (4, 6): IPv4 on an IPv6 socket is mapped; [`Addr::NONE`] is
/// the unspecified address. Returns the bytes used.
pub fn write(addr: &Addr, family: u8, out: &mut sockaddr_storage) -> usize {
    let out: *mut sockaddr_storage = out;
    if family == 4 {
        let mut octets = [0; 4];
        octets.copy_from_slice(&addr.ip[..4]);
        let v4 = sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: addr.port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(octets) },
            sin_zero: [0; 8],
        };
        // SAFETY: a sockaddr_storage has room and alignment for every address.
        unsafe { out.cast::<sockaddr_in>().write(v4) };
        return size_of::<sockaddr_in>();
    }
    let mut ip = addr.ip;
    if addr.family == 4 {
        ip = [0; 16];
        // An unbound IPv6 socket is at `::`, whatever the far side says.
        if !unspecified(addr) {
            ip[10..12].copy_from_slice(&[0xff; 2]);
            ip[12..].copy_from_slice(&addr.ip[..4]);
        }
    }
    let v6 = sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: addr.port.to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: ip },
        sin6_scope_id: addr.scope,
    };
    // SAFETY: as above.
    unsafe { out.cast::<sockaddr_in6>().write(v6) };
    size_of::<sockaddr_in6>()
}

/// Gives an address to the program the way the kernel does: as many bytes as it has room for, and the true length.
///
/// # Safety
/// `sa` is writable for `*len` bytes; either may be null.
pub unsafe fn hand_out(addr: &Addr, family: u8, sa: *mut sockaddr, len: *mut socklen_t) -> c_int {
    if len.is_null() {
        return libc::EFAULT;
    }
    let mut storage: sockaddr_storage = core::mem::zeroed();
    let size = write(addr, family, &mut storage);
    let room = *len as c_int;
    if room < 0 {
        return libc::EINVAL;
    }
    if !sa.is_null() {
        core::ptr::copy_nonoverlapping(
            (&raw const storage).cast::<u8>(),
            sa.cast::<u8>(),
            size.min(room as usize),
        );
    }
    *len = size as socklen_t;
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str, family: u8) -> Addr {
        let addr = Addr::from_std(&text.parse().expect("address"));
        // SAFETY: zero is valid for a sockaddr_storage, and `parse` reads what `write` wrote.
        unsafe {
            let mut storage: sockaddr_storage = core::mem::zeroed();
            let size = write(&addr, family, &mut storage);
            parse((&raw const storage).cast(), size as socklen_t).expect("own address")
        }
    }

    #[test]
    fn addresses_survive_the_way_through_a_sockaddr() {
        assert_eq!(round("192.0.2.7:53", 4), Addr::from_std(&"192.0.2.7:53".parse().expect("address")));
        assert_eq!(round("192.0.2.7:53", 6), Addr::from_std(&"192.0.2.7:53".parse().expect("address")));
        assert_eq!(
            round("[2001:db8::1]:80", 6),
            Addr::from_std(&"[2001:db8::1]:80".parse().expect("address"))
        );
    }

    #[test]
    fn a_short_or_foreign_address_is_refused() {
        // SAFETY: the storage is larger than every length given.
        unsafe {
            let mut storage: sockaddr_storage = core::mem::zeroed();
            storage.ss_family = libc::AF_INET as libc::sa_family_t;
            assert_eq!(parse((&raw const storage).cast(), 8), Err(libc::EINVAL));
            storage.ss_family = libc::AF_UNIX as libc::sa_family_t;
            assert_eq!(parse((&raw const storage).cast(), 16), Err(libc::EAFNOSUPPORT));
        }
    }
}

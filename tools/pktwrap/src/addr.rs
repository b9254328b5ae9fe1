//! Address forms: what a program wrote, what goes to the network, what the program sees.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pktwrap_link::Addr;

/// The address the network needs: IPv4-mapped IPv6 addresses become IPv4; as a destination the unspecified address means
/// this host, as on Linux.
pub fn destination(addr: SocketAddr) -> SocketAddr {
    let addr = unmapped(addr);
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), addr.port()),
        _ => addr,
    }
}

/// IPv4-mapped IPv6 addresses as IPv4 ones.
pub fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(ip.into(), v6.port()),
            None => addr,
        },
        SocketAddr::V4(_) => addr,
    }
}

/// The address as a socket of `family` (4 or 6) shows it.
pub fn presented(addr: SocketAddr, family: u8) -> Addr {
    match addr {
        SocketAddr::V4(v4) if family == 6 => {
            let ip = if v4.ip().is_unspecified() { Ipv6Addr::UNSPECIFIED } else { v4.ip().to_ipv6_mapped() };
            Addr::from_std(&SocketAddr::new(ip.into(), v4.port()))
        }
        _ => Addr::from_std(&addr),
    }
}

/// The unspecified address of the other address's family, port 0.
pub fn any(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn mapped_addresses_go_out_as_ipv4_and_come_back_mapped() {
        let out = destination(addr("[::ffff:192.0.2.1]:80"));
        assert_eq!(out, addr("192.0.2.1:80"));
        assert_eq!(presented(out, 6).to_std(), Some(addr("[::ffff:192.0.2.1]:80")));
        assert_eq!(presented(out, 4).to_std(), Some(out));
        assert_eq!(presented(addr("0.0.0.0:9"), 6).to_std(), Some(addr("[::]:9")));
    }

    #[test]
    fn nowhere_means_here() {
        assert_eq!(destination(addr("0.0.0.0:1")), addr("127.0.0.1:1"));
        assert_eq!(destination(addr("[::]:1")), addr("[::1]:1"));
    }
}

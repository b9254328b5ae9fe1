//! What this host has and lets this process do.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use socket2::{Domain, Protocol, Socket, Type};

use crate::net::interfaces;
use crate::policy::Own;

/// Everything that leads to this host or to all of its neighbours: its addresses and the exported ones.
pub(super) fn own(exported: &[(IpAddr, u8)]) -> anyhow::Result<Vec<Own>> {
    let interfaces = interfaces()?;
    let all = interfaces.iter().map(|own| (own.address, own.bits)).chain(exported.iter().copied());
    Ok(all.map(|(address, bits)| Own { address, broadcast: broadcast(address, bits) }).collect())
}

/// The address that the kernel treats as everybody's on such a network, whether or not it was configured as such.
fn broadcast(address: IpAddr, bits: u8) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) if (1..31).contains(&bits) => Some(Ipv4Addr::from(u32::from(v4) | (u32::MAX >> bits))),
        _ => None,
    }
}

/// Opens what a raw socket of a controller needs: one socket to send and one to capture.
pub fn raw_permitted() -> io::Result<()> {
    // To close a packet socket takes 8 to 16 ms, a grace period of the kernel, and every session asks. Both need the same
    // capability, so the second is tried until it was there once: only a system call filter tells them apart.
    static CAPTURES: OnceLock<()> = OnceLock::new();
    // 255 is IPPROTO_RAW: the header comes from the caller, and nothing is received.
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    if CAPTURES.get().is_none() {
        // Protocol 0 receives nothing.
        Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        CAPTURES.get_or_init(|| ());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_addresses_of_networks() {
        let of = |text: &str, bits| broadcast(text.parse().expect("address"), bits);
        assert_eq!(of("192.0.2.7", 24), Some(Ipv4Addr::new(192, 0, 2, 255)));
        assert_eq!(of("10.1.2.3", 8), Some(Ipv4Addr::new(10, 255, 255, 255)));
        assert_eq!(of("192.0.2.6", 30), Some(Ipv4Addr::new(192, 0, 2, 7)));
        for bits in [0, 31, 32] {
            assert_eq!(of("192.0.2.7", bits), None);
        }
        assert_eq!(of("2001:db8::1", 64), None);
    }

    #[test]
    fn loopback_is_among_the_own_addresses() {
        let own = own(&[("192.0.2.7".parse().expect("address"), 24)]).expect("addresses");
        assert!(own.iter().any(|own| own.address == IpAddr::from([127, 0, 0, 1])));
        assert!(own.iter().any(|own| own.broadcast == Some(Ipv4Addr::new(192, 0, 2, 255))));
    }
}

//! Which addresses and resolvers this host shows to controllers.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An address of a network interface.
#[derive(Clone, Debug)]
pub struct Interface {
    pub name: String,
    pub up: bool,
    pub loopback: bool,
    pub address: IpAddr,
    /// Prefix length.
    pub bits: u8,
}

/// Resolves a list of `auto`, interface names, `a.b.c.d[/len]` and IPv6 addresses, in order and without repetition.
///
/// `auto` stands for the addresses of all interfaces that are up, loopback only for a family that has no other; the one from
/// which this host speaks to the rest of the world comes first.
pub fn exported(list: &[String]) -> anyhow::Result<Vec<(IpAddr, u8)>> {
    let mut own = interfaces()?;
    own.retain(|own| own.up && !is_link_local(own.address));
    let mut found: Vec<(IpAddr, u8)> = Vec::new();
    for entry in list {
        let before = found.len();
        if entry == "auto" {
            for v4 in [true, false] {
                let family = || own.iter().filter(|own| own.address.is_ipv4() == v4);
                let outside = family().any(|own| !own.loopback);
                let mut chosen: Vec<_> = family().filter(|own| own.loopback != outside).collect();
                let usual = usual(v4);
                // Stable: the others keep their order.
                chosen.sort_by_key(|own| usual != Some(own.address));
                found.extend(chosen.into_iter().map(|own| (own.address, own.bits)));
            }
            continue;
        }
        found.extend(own.iter().filter(|own| own.name == *entry).map(|own| (own.address, own.bits)));
        if found.len() == before {
            found.push(literal(entry, &own)?);
        }
    }
    let mut unique = Vec::with_capacity(found.len());
    for entry in found {
        if !unique.iter().any(|(address, _)| *address == entry.0) {
            unique.push(entry);
        }
    }
    Ok(unique)
}

/// The source address of packets to the default route, if there is one. Connecting a UDP socket sends nothing.
fn usual(v4: bool) -> Option<IpAddr> {
    // Documentation networks: nobody has a route of his own to them.
    let (any, elsewhere) = if v4 { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(elsewhere).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

fn literal(entry: &str, own: &[Interface]) -> anyhow::Result<(IpAddr, u8)> {
    let (address, bits) = match entry.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (entry, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        bail!(
            "`{entry}` in `addresses` is neither \"auto\", an interface with an address, nor an address; `ip address` lists them"
        );
    };
    let full = if address.is_ipv4() { 32 } else { 128 };
    let bits =
        match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= full).with_context(|| {
                format!("`{entry}` in `addresses`: the prefix length must be 0 to {full}")
            })?,
            None => own.iter().find(|own| own.address == address).map_or(full, |own| own.bits),
        };
    Ok((address, bits))
}

/// All addresses of all interfaces.
pub fn interfaces() -> anyhow::Result<Vec<Interface>> {
    let list = getifaddrs().context("cannot list the addresses of this host")?;
    Ok(list
        .filter_map(|entry| {
            let (address, mask) = (entry.address.as_ref()?, entry.netmask.as_ref());
            let (address, bits) = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => {
                    let mask = mask.and_then(|mask| mask.as_sockaddr_in()).map(|mask| mask.ip());
                    (IpAddr::V4(v4.ip()), mask.map_or(32, |mask| u32::from(mask).leading_ones()))
                }
                (_, Some(v6)) => {
                    let mask = mask.and_then(|mask| mask.as_sockaddr_in6()).map(|mask| mask.ip());
                    (IpAddr::V6(v6.ip()), mask.map_or(128, |mask| u128::from(mask).leading_ones()))
                }
                _ => return None,
            };
            let up = entry.flags.contains(InterfaceFlags::IFF_UP);
            let loopback = entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
            Some(Interface { name: entry.interface_name, up, loopback, address, bits: bits as u8 })
        })
        .collect())
}

/// Index of the interface that owns `address`.
pub fn interface_of(address: IpAddr) -> Option<u32> {
    let own = interfaces().ok()?.into_iter().find(|own| own.address == address)?;
    nix::net::if_::if_nametoindex(own.name.as_str()).ok()
}

/// Link-local addresses need a scope, which the protocol cannot carry.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The name servers of a resolv.conf; none when the file is missing.
pub fn resolv_conf(path: &Path) -> Vec<IpAddr> {
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> anyhow::Result<Vec<(IpAddr, u8)>> {
        exported(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn addresses_are_taken_in_order_once() {
        let found = list(&["192.0.2.7/24", "lo", "192.0.2.7", "2001:db8::1"]).expect("valid list");
        assert_eq!(found[0], ("192.0.2.7".parse().expect("address"), 24));
        assert!(found.contains(&("127.0.0.1".parse().expect("address"), 8)));
        assert_eq!(found.last(), Some(&("2001:db8::1".parse().expect("address"), 128)));
        assert_eq!(found.iter().filter(|(a, _)| a.to_string() == "192.0.2.7").count(), 1);
    }

    #[test]
    fn auto_finds_something() {
        assert!(!list(&["auto"]).expect("auto").is_empty());
    }

    #[test]
    fn nonsense_is_named() {
        let error = list(&["no-such-interface"]).expect_err("nonsense").to_string();
        assert!(error.contains("no-such-interface"), "{error}");
        assert!(list(&["192.0.2.1/33"]).is_err());
    }

    #[test]
    fn resolvers_are_read() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, "# x\nsearch a\nnameserver 192.0.2.53\n nameserver  ::1 \nnameserver bad\n")
            .expect("written");
        let expected: Vec<IpAddr> =
            vec!["192.0.2.53".parse().expect("address"), "::1".parse().expect("address")];
        assert_eq!(resolv_conf(&path), expected);
        assert!(resolv_conf(&dir.path().join("missing")).is_empty());
    }
}

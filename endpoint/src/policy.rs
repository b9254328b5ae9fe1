//! Where controllers may send, in the operator's view: a pure judgement by destination, the same for every protocol.
//!
//! Built in are refusals of this host, of private networks and of destinations with many receivers. The operator's
//! networks stand above them: of all entries that contain a destination the longest prefix decides; between equal
//! prefixes the operator's `deny` wins over the operator's `allow`, and that over what is built in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pktlab::cert::Network;

/// Port at which exported resolvers are reachable wherever they are.
const DNS: u16 = 53;

/// The operator's part of a [`Policy`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub allow: Vec<Network>,
    pub deny: Vec<Network>,
    /// Nothing is refused for a built-in reason.
    pub allow_all: bool,
    /// Loopback and the host's own addresses are not refused for a built-in reason.
    pub allow_own: bool,
    /// Private and link-local networks are not refused for a built-in reason.
    pub private: bool,
}

/// An address of one of the host's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    pub address: IpAddr,
    /// Where everybody on that network listens (IPv4).
    pub broadcast: Option<Ipv4Addr>,
}

/// What kind of destination a built-in entry refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Own,
    Loopback,
    Unspecified,
    LinkLocal,
    Private,
    Multicast,
    Broadcast,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Own => "is an address of the endpoint itself",
            Kind::Loopback => "is the endpoint's loopback",
            Kind::Unspecified => "stands for the endpoint itself",
            Kind::LinkLocal => "is link-local",
            Kind::Private => "is in a private network",
            Kind::Multicast => "is a multicast group",
            Kind::Broadcast => "is a broadcast address",
        }
    }
}

/// A destination that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("{0} {words}, which the operator does not allow", words = .1.words())]
    BuiltIn(IpAddr, Kind),
    #[error("the operator denies {0} ({net}/{prefix})", net = .1.addr, prefix = .1.prefix)]
    Operator(IpAddr, Network),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Deny,
    Allow,
    BuiltIn(Kind),
}

#[derive(Clone, Debug)]
struct Entry {
    network: Network,
    verdict: Verdict,
}

/// See the module text.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Sorted so that the first entry that contains a destination decides.
    v4: Vec<Entry>,
    v6: Vec<Entry>,
    resolvers: Vec<IpAddr>,
}

impl Policy {
    /// Every destination is allowed: for an endpoint that serves only the user it runs as.
    pub fn unrestricted() -> Self {
        Self { v4: Vec::new(), v6: Vec::new(), resolvers: Vec::new() }
    }

    /// `own`: all addresses of the host and the exported ones. `resolvers`: the exported ones.
    pub fn new(rules: &Rules, own: &[Own], resolvers: &[IpAddr]) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        let mut add = |network: Network, verdict| {
            let network = unmapped_network(network);
            entries.push(Entry { network, verdict });
        };
        for network in &rules.deny {
            add(*network, Verdict::Deny);
        }
        for network in &rules.allow {
            add(*network, Verdict::Allow);
        }
        let wanted = |kind| match kind {
            _ if rules.allow_all => false,
            Kind::Own | Kind::Loopback | Kind::Unspecified => !rules.allow_own,
            Kind::LinkLocal | Kind::Private => !rules.private,
            Kind::Multicast | Kind::Broadcast => true,
        };
        for (addr, prefix, kind) in SPECIAL.into_iter().filter(|(.., kind)| wanted(*kind)) {
            add(Network { addr, prefix }, Verdict::BuiltIn(kind));
        }
        for own in own {
            if wanted(Kind::Own) {
                add(host(own.address), Verdict::BuiltIn(Kind::Own));
            }
            if let Some(broadcast) = own.broadcast.filter(|_| wanted(Kind::Broadcast)) {
                add(host(broadcast.into()), Verdict::BuiltIn(Kind::Broadcast));
            }
        }
        entries.sort_by_key(|entry| {
            let rank = match entry.verdict {
                Verdict::Deny => 0,
                Verdict::Allow => 1,
                Verdict::BuiltIn(_) => 2,
            };
            (u8::MAX - entry.network.prefix, rank)
        });
        let (v4, v6) = entries.into_iter().partition(|entry| entry.network.addr.is_ipv4());
        Self { v4, v6, resolvers: resolvers.iter().map(|address| address.to_canonical()).collect() }
    }

    /// Whether packets may go to `address`. An IPv4 address inside an IPv6 one is judged as what it is.
    pub fn allows(&self, address: IpAddr) -> Result<(), Denied> {
        let plain = address.to_canonical();
        let list = if plain.is_ipv4() { &self.v4 } else { &self.v6 };
        match list.iter().find(|entry| entry.network.contains(&plain)) {
            None | Some(Entry { verdict: Verdict::Allow, .. }) => Ok(()),
            Some(Entry { verdict: Verdict::BuiltIn(kind), .. }) => Err(Denied::BuiltIn(address, *kind)),
            Some(Entry { verdict: Verdict::Deny, network }) => Err(Denied::Operator(address, *network)),
        }
    }

    /// As [`Policy::allows`], for protocols with ports. The exported resolvers can be asked although they sit, as most do, in
    /// the private network or on the host itself, unless the operator denies them by a network of his own.
    pub fn allows_port(&self, destination: SocketAddr) -> Result<(), Denied> {
        match self.allows(destination.ip()) {
            Err(Denied::BuiltIn(..))
                if destination.port() == DNS && self.resolvers.contains(&destination.ip().to_canonical()) =>
            {
                Ok(())
            }
            judged => judged,
        }
    }
}

fn host(address: IpAddr) -> Network {
    Network { addr: address, prefix: if address.is_ipv4() { 32 } else { 128 } }
}

/// A network of IPv4 addresses written as IPv6 is kept as IPv4, for that is how destinations are judged.
fn unmapped_network(network: Network) -> Network {
    match network.addr {
        IpAddr::V6(v6) if network.prefix >= 96 => match v6.to_ipv4_mapped() {
            Some(v4) => Network { addr: v4.into(), prefix: network.prefix - 96 },
            None => network,
        },
        _ => network,
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8, kind: Kind) -> (IpAddr, u8, Kind) {
    (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix, kind)
}

const fn v6(first: u16, last: u16, prefix: u8, kind: Kind) -> (IpAddr, u8, Kind) {
    (IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)), prefix, kind)
}

const SPECIAL: [(IpAddr, u8, Kind); 15] = [
    // Linux connects to the host itself for 0.0.0.0.
    v4(0, 0, 0, 0, 8, Kind::Unspecified),
    v4(10, 0, 0, 0, 8, Kind::Private),
    v4(100, 64, 0, 0, 10, Kind::Private),
    v4(127, 0, 0, 0, 8, Kind::Loopback),
    v4(169, 254, 0, 0, 16, Kind::LinkLocal),
    v4(172, 16, 0, 0, 12, Kind::Private),
    v4(192, 168, 0, 0, 16, Kind::Private),
    v4(224, 0, 0, 0, 4, Kind::Multicast),
    v4(255, 255, 255, 255, 32, Kind::Broadcast),
    v6(0, 0, 128, Kind::Unspecified),
    v6(0, 1, 128, Kind::Loopback),
    v6(0xfc00, 0, 7, Kind::Private),
    v6(0xfe80, 0, 10, Kind::LinkLocal),
    // Site-local: withdrawn, and still in use behind firewalls.
    v6(0xfec0, 0, 10, Kind::Private),
    v6(0xff00, 0, 8, Kind::Multicast),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter()
            .map(|text| {
                let (addr, prefix) = text.split_once('/').expect("a prefix");
                Network { addr: ip(addr), prefix: prefix.parse().expect("a length") }
            })
            .collect()
    }

    fn rules(allow: &[&str], deny: &[&str]) -> Rules {
        Rules { allow: networks(allow), deny: networks(deny), ..Rules::default() }
    }

    fn own() -> Vec<Own> {
        vec![
            Own { address: ip("198.51.100.7"), broadcast: Some(Ipv4Addr::new(198, 51, 100, 255)) },
            Own { address: ip("2001:db8::7"), broadcast: None },
        ]
    }

    fn allowed(policy: &Policy, list: &[&str]) {
        for text in list {
            assert_eq!(policy.allows(ip(text)), Ok(()), "{text}");
        }
    }

    fn refused(policy: &Policy, list: &[&str]) {
        for text in list {
            assert!(policy.allows(ip(text)).is_err(), "{text}");
        }
    }

    const PUBLIC: &[&str] = &[
        "198.51.100.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "223.255.255.255",
        "1.0.0.0",
        "2001:db8::8",
        "fbff::1",
        "2000::1",
        "::2",
    ];
    const PRIVATE: &[&str] = &[
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "172.16.0.0",
        "172.31.255.255",
        "192.168.0.0",
        "192.168.255.255",
        "169.254.0.0",
        "169.254.255.255",
        "fc00::",
        "fdff:ffff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "::ffff:10.1.2.3",
        "::ffff:192.168.0.1",
    ];
    const HOST: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.0",
        "127.0.0.1",
        "127.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "198.51.100.7",
        "2001:db8::7",
        "::ffff:198.51.100.7",
    ];
    const MANY: &[&str] = &["224.0.0.1", "239.255.255.255", "255.255.255.255", "198.51.100.255", "ff02::1"];

    #[test]
    fn a_standalone_endpoint_reaches_the_public_network_only() {
        let policy = Policy::new(&Rules::default(), &own(), &[]);
        allowed(&policy, PUBLIC);
        for list in [PRIVATE, HOST, MANY] {
            refused(&policy, list);
        }
        assert_eq!(
            policy.allows(ip("::ffff:127.0.0.1")),
            Err(Denied::BuiltIn(ip("::ffff:127.0.0.1"), Kind::Loopback))
        );
    }

    #[test]
    fn private_networks_open_without_the_host() {
        let policy = Policy::new(&Rules { private: true, ..Rules::default() }, &own(), &[]);
        allowed(&policy, PUBLIC);
        allowed(&policy, PRIVATE);
        refused(&policy, HOST);
        refused(&policy, MANY);
        // An own address stays closed although its private network is open.
        let inside = [Own { address: ip("10.0.0.7"), broadcast: None }];
        let policy = Policy::new(&Rules { private: true, ..Rules::default() }, &inside, &[]);
        refused(&policy, &["10.0.0.7"]);
        allowed(&policy, &["10.0.0.8"]);
    }

    #[test]
    fn the_host_and_everything_open_by_word() {
        let policy = Policy::new(&Rules { allow_own: true, ..Rules::default() }, &own(), &[]);
        allowed(&policy, HOST);
        refused(&policy, PRIVATE);
        refused(&policy, MANY);
        let all = Rules { allow_all: true, ..rules(&[], &["203.0.113.0/24"]) };
        let policy = Policy::new(&all, &own(), &[]);
        for list in [PUBLIC, PRIVATE, HOST, MANY] {
            allowed(&policy, list);
            allowed(&Policy::unrestricted(), list);
        }
        refused(&policy, &["203.0.113.9"]);
    }

    #[test]
    fn the_longest_prefix_decides_and_deny_wins_a_tie() {
        let rules = rules(
            &[
                "10.1.0.0/16",
                "192.0.2.0/24",
                "0.0.0.0/0",
                "127.0.0.1/32",
                "224.0.1.0/24",
                "::1/128",
                "::ffff:192.168.7.0/120",
            ],
            &["10.1.2.0/24", "192.0.2.0/24", "203.0.113.0/24", "2001:db8:1::/48"],
        );
        let policy = Policy::new(&rules, &own(), &[]);
        allowed(&policy, &["10.1.1.1", "127.0.0.1", "224.0.1.5", "::1", "192.168.7.9", "8.8.8.8"]);
        refused(
            &policy,
            &["10.1.2.1", "192.0.2.1", "203.0.113.1", "2001:db8:1::1", "127.0.0.2", "224.0.2.5"],
        );
        // "everything" as a network is no permission for what is refused for a reason.
        refused(&policy, &["10.2.0.1", "192.168.8.1", "198.51.100.7"]);
        assert_eq!(
            policy.allows(ip("10.1.2.1")),
            Err(Denied::Operator(ip("10.1.2.1"), networks(&["10.1.2.0/24"])[0]))
        );
    }

    #[test]
    fn an_entry_equal_to_a_built_in_one_stands_above_it() {
        let policy = Policy::new(&rules(&["10.0.0.0/8", "198.51.100.7/32"], &[]), &own(), &[]);
        allowed(&policy, &["10.200.0.1", "198.51.100.7"]);
        refused(&policy, &["192.168.0.1", "2001:db8::7"]);
    }

    #[test]
    fn exported_resolvers_answer_on_their_port_only() {
        let resolvers = [ip("192.168.1.1"), ip("127.0.0.53")];
        let policy = Policy::new(&Rules::default(), &own(), &resolvers);
        let port = |text: &str| policy.allows_port(text.parse().expect("address and port"));
        for open in ["192.168.1.1:53", "127.0.0.53:53", "[::ffff:127.0.0.53]:53", "192.0.2.1:80"] {
            assert_eq!(port(open), Ok(()), "{open}");
        }
        for closed in ["192.168.1.1:80", "192.168.1.2:53", "127.0.0.1:53"] {
            assert!(port(closed).is_err(), "{closed}");
        }
        let policy = Policy::new(&rules(&[], &["192.168.0.0/16"]), &own(), &resolvers);
        assert!(policy.allows_port("192.168.1.1:53".parse().expect("address and port")).is_err());
        assert!(policy.allows_port("127.0.0.53:53".parse().expect("address and port")).is_ok());
    }

    #[test]
    fn a_refusal_says_why() {
        let policy = Policy::new(&rules(&[], &["203.0.113.0/24"]), &own(), &[]);
        let text = |address| policy.allows(ip(address)).expect_err(address).to_string();
        assert!(text("198.51.100.7").contains("endpoint itself"));
        assert!(text("10.0.0.1").contains("private"));
        assert!(text("203.0.113.5").contains("203.0.113.0/24"));
    }
}

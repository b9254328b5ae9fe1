//! Scenarios: hosts and links as data (TOML), and the addresses that follow from them.
//!
//! Nothing here touches the system, so a wrong scenario is refused before anything is built.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The built-in scenario: controller, endpoint, target and a sink for escapes.
pub const FIRST_LIGHT: &str = include_str!("../../scenarios/first-light.toml");
/// The same with 25 ms each way between controller and endpoint.
pub const LONG_WAY: &str = include_str!("../../scenarios/long-way.toml");

/// One network situation.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the scenario is for, in a line.
    #[serde(default)]
    pub description: String,
    /// Hosts and routers; each becomes a network namespace.
    pub hosts: Vec<Host>,
    /// Point-to-point links.
    pub links: Vec<Link>,
}

/// A host or router.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Short name; the namespace is called `LAB-NAME`.
    pub name: String,
    /// Forwards packets between its links.
    #[serde(default)]
    pub forward: bool,
    /// Static routes, besides the connected ones.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Addresses that swallow what is sent to them through this host, without an answer.
    #[serde(default)]
    pub blackhole: Vec<IpAddr>,
    /// Host whose address is the name server in this host's `resolv.conf`.
    #[serde(default)]
    pub resolver: Option<String>,
    /// Servers that run here.
    #[serde(default)]
    pub serve: Vec<Service>,
}

/// A static route, for IPv4 and IPv6 alike.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `default`, or a host: the route to its address.
    pub to: String,
    /// Neighbour that forwards.
    pub via: String,
}

/// Servers a host can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// nginx: http on 80, https on 443 with the laboratory's certificate, a git repository.
    Web,
    /// dnsmasq on 53, UDP and TCP: the names of the laboratory.
    Dns,
    /// Echo on 7 and servers that break connections, see `serve`.
    Misbehave,
}

/// What a link does to packets in one direction. Nothing at all by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// One-way delay in milliseconds.
    pub delay_ms: f64,
    /// Added at random, evenly from zero to this many milliseconds; the order of packets is kept.
    pub jitter_ms: f64,
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Seed of jitter and loss.
    pub seed: u64,
    /// Line rate in Mbit/s; zero is no limit.
    pub rate_mbit: f64,
    /// Bytes that may wait for the line; more is dropped. Zero is 256 KiB. Counts only with a rate.
    pub limit_bytes: u64,
}

/// A link between two hosts.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The two hosts.
    pub ends: [String; 2],
    /// Number of the link's networks: 10.91.NET.0/24 and fd91:0:0:NET::/64.
    pub net: u8,
    /// Both directions: see [`Shape`].
    #[serde(default)]
    pub delay_ms: f64,
    /// See [`Shape::jitter_ms`].
    #[serde(default)]
    pub jitter_ms: f64,
    /// See [`Shape::loss`].
    #[serde(default)]
    pub loss: f64,
    /// See [`Shape::seed`].
    #[serde(default)]
    pub seed: u64,
    /// See [`Shape::rate_mbit`].
    #[serde(default)]
    pub rate_mbit: f64,
    /// See [`Shape::limit_bytes`].
    #[serde(default)]
    pub limit_bytes: u64,
    /// From the first end to the second, instead of the fields above.
    #[serde(default)]
    pub forward: Option<Shape>,
    /// From the second end to the first, instead of the fields above.
    #[serde(default)]
    pub backward: Option<Shape>,
}

impl Link {
    /// The shapes from first to second end and back; `None` when packets pass untouched.
    pub fn shapes(&self) -> Option<[Shape; 2]> {
        let both = Shape {
            delay_ms: self.delay_ms,
            jitter_ms: self.jitter_ms,
            loss: self.loss,
            seed: self.seed,
            rate_mbit: self.rate_mbit,
            limit_bytes: self.limit_bytes,
        };
        // The ways must not lose the same packets.
        let back = Shape { seed: self.seed ^ 0x5bd1_e995, ..both };
        let shapes = [self.forward.unwrap_or(both), self.backward.unwrap_or(back)];
        let idle = |s: &Shape| Shape { seed: 0, limit_bytes: 0, ..*s } == Shape::default();
        if shapes.iter().all(idle) { None } else { Some(shapes) }
    }

    /// IPv4 address of end 0 or 1.
    pub fn v4(&self, end: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 91, self.net, end as u8 + 1)
    }

    /// IPv6 address of end 0 or 1. The number is written as in IPv4: net 9 is `…:9::`, net 10 is `…:10::`.
    pub fn v6(&self, end: usize) -> Ipv6Addr {
        let digits = u16::from_str_radix(&self.net.to_string(), 16).unwrap_or(0);
        Ipv6Addr::new(0xfd91, 0, 0, digits, 0, 0, 0, end as u16 + 1)
    }

    /// Hardware address of end 0 or 1.
    pub fn mac(&self, end: usize) -> String {
        format!("02:00:5e:00:{:02x}:{:02x}", self.net, end + 1)
    }

    /// Which end a host is.
    pub fn end_of(&self, host: &str) -> Option<usize> {
        self.ends.iter().position(|e| e == host)
    }
}

impl Scenario {
    /// Reads and checks a scenario.
    pub fn parse(text: &str) -> Result<Scenario> {
        let scenario: Scenario = toml::from_str(text).context("not a scenario")?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|h| h.name == name)
    }

    /// Links of a host, with the end the host is.
    pub fn links_of<'a>(&'a self, host: &'a str) -> impl Iterator<Item = (&'a Link, usize)> {
        self.links.iter().filter_map(move |l| l.end_of(host).map(|end| (l, end)))
    }

    /// The link between two neighbours, with the end the second is.
    pub fn link_to<'a>(&'a self, from: &'a str, to: &str) -> Option<(&'a Link, usize)> {
        self.links_of(from).find_map(|(link, end)| (link.ends[1 - end] == to).then_some((link, 1 - end)))
    }

    /// A host's address: that of its first link.
    pub fn address(&self, host: &str) -> Option<(Ipv4Addr, Ipv6Addr)> {
        self.links_of(host).next().map(|(link, end)| (link.v4(end), link.v6(end)))
    }

    fn check(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for host in &self.hosts {
            let fits = !host.name.is_empty()
                && host.name.len() <= 12
                && host.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            ensure!(fits, "host name {:?}: use 1 to 12 lower-case letters and digits", host.name);
            ensure!(names.insert(&host.name), "host {:?} appears twice", host.name);
        }
        let (mut nets, mut pairs) = (BTreeSet::new(), BTreeSet::new());
        for link in &self.links {
            ensure!(nets.insert(link.net), "two links have net = {}", link.net);
            for end in &link.ends {
                ensure!(names.contains(end), "a link ends at {end:?}, which is not a host");
            }
            ensure!(link.ends[0] != link.ends[1], "a link joins {:?} with itself", link.ends[0]);
            let mut pair = link.ends.clone();
            pair.sort();
            ensure!(pairs.insert(pair), "two links join {:?} and {:?}", link.ends[0], link.ends[1]);
            for shape in link.shapes().iter().flatten() {
                shape.check().with_context(|| format!("link with net = {}", link.net))?;
            }
        }
        for host in &self.hosts {
            ensure!(self.address(&host.name).is_some(), "host {:?} has no link", host.name);
            for route in &host.routes {
                if self.link_to(&host.name, &route.via).is_none() {
                    bail!("{:?} routes via {:?}, which is not its neighbour", host.name, route.via);
                }
                ensure!(
                    route.to == "default" || names.contains(&route.to),
                    "route to unknown host {:?}",
                    route.to
                );
            }
            if let Some(resolver) = &host.resolver {
                ensure!(names.contains(resolver), "{:?} names unknown resolver {resolver:?}", host.name);
            }
        }
        Ok(())
    }
}

impl Shape {
    fn check(&self) -> Result<()> {
        let span = 0.0..=60_000.0;
        ensure!(span.contains(&self.delay_ms), "delay_ms must lie between 0 and 60000");
        ensure!(span.contains(&self.jitter_ms), "jitter_ms must lie between 0 and 60000");
        ensure!((0.0..=1.0).contains(&self.loss), "loss is a share between 0 and 1");
        ensure!(
            self.rate_mbit == 0.0 || (0.001..=100_000.0).contains(&self.rate_mbit),
            "rate_mbit is out of range"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_scenarios_are_valid() {
        assert!(Scenario::parse(FIRST_LIGHT).expect("valid").links.iter().all(|l| l.shapes().is_none()));
        let long = Scenario::parse(LONG_WAY).expect("valid");
        assert_eq!(long.links.iter().filter(|l| l.shapes().is_some()).count(), 1);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("hosts = []\nlinks = []\nspeed = 3", "speed"),
            ("hosts = [{ name = \"a\" }]\nlinks = []", "no link"),
            ("hosts = [{ name = \"a\" }]\nlinks = [{ ends = [\"a\", \"b\"], net = 1 }]", "not a host"),
            ("hosts = [{ name = \"a\" }]\nlinks = [{ ends = [\"a\", \"a\"], net = 1 }]", "itself"),
            (
                "hosts = [{ name = \"a\" }, { name = \"b\" }]\nlinks = [{ ends = [\"a\", \"b\"], net = 1, loss = 2.0 }]",
                "share",
            ),
        ] {
            let error = format!("{:#}", Scenario::parse(text).expect_err("wrong scenario"));
            assert!(error.contains(message), "{error}");
        }
    }
}

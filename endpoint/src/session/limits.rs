//! What the controller's certificates allow in this session, as far as this endpoint enforces it (spec
//! `certificates.md` §4).

use std::net::IpAddr;

use pktlab::cert::Network;
use pktlab::wire::Ticks;

/// Limits of one session. [`Limits::default`] allows everything.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Successful NOPENs allowed.
    pub sockets: u32,
    /// One list per certificate that has one; a destination must match an entry of each.
    pub destinations: Vec<Vec<Network>>,
    /// Programs the controller has to supply before START.
    pub monitors: usize,
    /// Moment at which the session must be over.
    pub end: Ticks,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sockets: 65_535, destinations: Vec::new(), monitors: 0, end: Ticks::MAX }
    }
}

impl Limits {
    /// Whether packets may go to `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.destinations.iter().all(|list| list.iter().any(|network| network.contains(&address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, prefix: u8) -> Network {
        Network { addr: text.parse().expect("address"), prefix }
    }

    #[test]
    fn every_list_must_allow_a_destination() {
        let limits = Limits {
            destinations: vec![vec![prefix("10.0.0.0", 8)], vec![prefix("10.1.0.0", 16), prefix("::1", 128)]],
            ..Limits::default()
        };
        assert!(limits.allows("10.1.2.3".parse().expect("address")));
        assert!(!limits.allows("10.2.2.3".parse().expect("address")));
        assert!(!limits.allows("::1".parse().expect("address")));
        assert!(Limits::default().allows("::1".parse().expect("address")));
    }
}

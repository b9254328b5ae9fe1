//! The operator's configuration: one TOML file (`docs` of each key below), read strictly.
//!
//! Keys and certificates are paths or, when the text starts with `-----BEGIN`, the PEM itself.

mod host;
mod places;
mod values;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use pktlab::cert;
use pktlab::vmem::extension;
use serde::Deserialize;

use crate::limits::Store;
use crate::net;
use crate::policy::{Policy, Rules};
use crate::session::SessionConfig;

pub use host::raw_permitted;
pub use values::{Allowed, Burst, Network, Span};

/// Extension bits this endpoint knows.
pub const EXTENSIONS: u32 = extension::BATCHED_RECORDS
    | extension::NOPT
    | extension::NERR
    | extension::LISTEN
    | extension::IPV6
    | extension::NWAIT
    | extension::STAMPS;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub controller: Controller,
    #[serde(default)]
    pub endpoint: Endpoint,
    #[serde(default)]
    pub policy: PolicySection,
    #[serde(default)]
    pub raw: Raw,
    #[serde(default)]
    pub state: State,
}

/// `[controller]`: how this endpoint meets controllers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    /// The endpoint's private key.
    pub key: String,
    /// Certificates that make the key a representative of its operator; any order, several may share one text.
    pub certificates: Vec<String>,
    /// Public keys of the operators whose delegations are honoured. Empty: of any operator.
    #[serde(default)]
    pub roots: Vec<String>,
    /// Where the controller listens in no-subscribe mode, unless the command line says it.
    pub address: Option<String>,
    /// Tells the controller which of its experiments is meant: 1–63 characters of 0–9 a–z.
    pub snikey: Option<String>,
}

/// `[endpoint]`: what controllers get.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoint {
    /// Memory for queued data of a session, bytes.
    pub buf_max: u32,
    pub protocols: Vec<Protocol>,
    /// Exported addresses: "auto", interface names, a.b.c.d/len, IPv6 addresses; preferred first.
    pub addresses: Vec<String>,
    /// Exported resolvers: "system" or a list of addresses.
    pub resolvers: Resolvers,
    /// Free text shown to controllers, at most 255 bytes.
    pub host_id: String,
    /// Offer the extensions of docs/extensions.md to controllers that ask.
    pub extensions: bool,
    /// What a running session is given to come to its end when the endpoint is told to stop.
    pub drain: Span,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    /// Needs CAP_NET_RAW.
    Raw,
}

/// `[policy]`: what controllers may do, whatever their certificates say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySection {
    /// Destinations that are allowed in spite of a wider refusal: networks, "own" (this host), "all".
    pub allow: Vec<Allowed>,
    /// Destinations that are refused.
    pub deny: Vec<Network>,
    /// Private and link-local networks are allowed.
    pub private: bool,
    /// Most bytes sent in any stretch of time, or "none".
    pub burst: Burst,
}

/// What every experiment is limited to unless the operator says otherwise (spec `scheduling.md` §5.1).
pub const BURST: cert::Burst = cert::Burst { count: 12_500_000, window: 10_000_000_000 };

impl Default for PolicySection {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), private: false, burst: Burst(Some(BURST)) }
    }
}

impl PolicySection {
    fn rules(&self) -> Rules {
        let networks = self.allow.iter().filter_map(|entry| match entry {
            Allowed::Network(network) => Some(*network),
            Allowed::Own | Allowed::All => None,
        });
        Rules {
            allow: networks.collect(),
            deny: self.deny.iter().map(|network| network.0).collect(),
            allow_all: self.allow.contains(&Allowed::All),
            allow_own: self.allow.contains(&Allowed::Own),
            private: self.private,
        }
    }
}

/// `[raw]`: raw sockets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// Captured packets are withheld from this host (spec `raw.md` §5).
    pub steal: bool,
    /// Memory of the kernel for each capture, bytes.
    pub ring: u32,
}

impl Raw {
    /// Below, a burst of full packets is lost; above, 256 captures could take the memory of a small host.
    const RING: std::ops::RangeInclusive<u32> = 1024 * 1024..=64 * 1024 * 1024;
}

impl Default for Raw {
    fn default() -> Self {
        Self { steal: false, ring: 4 * 1024 * 1024 }
    }
}

/// `[state]`: what the endpoint keeps.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Remember across sessions and restarts how much of a certificate's limits is used.
    pub persist: bool,
    /// Where; unless said, the usual place of this user or service.
    pub directory: Option<PathBuf>,
    /// The socket of `pktendpt status`; unless said, in the usual place.
    pub socket: Option<PathBuf>,
}

impl Default for State {
    fn default() -> Self {
        Self { persist: true, directory: None, socket: None }
    }
}

impl State {
    /// Where the use of limits is remembered; `None`: it is not.
    ///
    /// # Errors
    /// It shall be, and neither the configuration nor the environment says where.
    pub fn directory(&self) -> anyhow::Result<Option<PathBuf>> {
        if !self.persist {
            return Ok(None);
        }
        self.place()
            .context("no place for the state: set `directory` in [state], or HOME, or `persist = false`")
            .map(Some)
    }

    /// The socket at which the running endpoint answers `pktendpt status`; `None`: nothing says where.
    pub fn socket(&self) -> Option<PathBuf> {
        self.socket.clone().or_else(|| places::Surroundings::here().socket(self.place()))
    }

    fn place(&self) -> Option<PathBuf> {
        self.directory.clone().or_else(|| places::Surroundings::here().state())
    }

    /// Relative paths are relative to the file's folder.
    fn anchor(&mut self, file: &Path) {
        let folder = file.parent().unwrap_or(Path::new("."));
        for path in [&mut self.directory, &mut self.socket].into_iter().flatten() {
            *path = anchored_path(path, folder);
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "resolvers must be \"system\" or a list of addresses")]
pub enum Resolvers {
    List(Vec<IpAddr>),
    Named(System),
}

/// The word `system`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    System,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            buf_max: 8 * 1024 * 1024,
            protocols: vec![Protocol::Tcp, Protocol::Udp],
            addresses: vec!["auto".into()],
            resolvers: Resolvers::Named(System::System),
            host_id: String::new(),
            extensions: true,
            drain: Span(Duration::from_secs(10)),
        }
    }
}

impl Config {
    /// Reads a file; its relative paths are relative to its folder.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read the configuration {}; write one (docs/operator.md) or convert one with --import",
                path.display()
            )
        })?;
        let mut config = Self::parse(&text).with_context(|| format!("in {}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.controller.key = anchored(&config.controller.key, folder);
        for text in config.controller.certificates.iter_mut().chain(&mut config.controller.roots) {
            *text = anchored(text, folder);
        }
        config.state.anchor(path);
        Ok(config)
    }

    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        ensure!(
            !config.endpoint.protocols.is_empty(),
            "`protocols` in [endpoint] is empty: name some of \"tcp\", \"udp\" and \"raw\""
        );
        ensure!(
            Raw::RING.contains(&config.raw.ring),
            "`ring` in [raw] must be {} to {} bytes",
            Raw::RING.start(),
            Raw::RING.end()
        );
        ensure!(
            !config.raw.steal || config.endpoint.protocols.contains(&Protocol::Raw),
            "`steal` in [raw] needs \"raw\" among the `protocols` in [endpoint]"
        );
        ensure!(
            config.endpoint.host_id.len() <= 255 && !config.endpoint.host_id.contains('\0'),
            "`host_id` in [endpoint] must have at most 255 bytes and no NUL"
        );
        ensure!(
            !config.controller.certificates.is_empty(),
            "`certificates` in [controller] is empty: name the subcmd certificate of the key and the delegations above it"
        );
        Ok(config)
    }

    /// What holds for one session: addresses, resolvers and permissions as they are now.
    ///
    /// `resolv_conf` is where `resolvers = "system"` looks.
    pub fn session(&self, resolv_conf: &Path) -> anyhow::Result<SessionConfig> {
        let endpoint = &self.endpoint;
        let addresses = net::exported(&endpoint.addresses)?;
        if addresses.is_empty() {
            bail!("no address to export: name interfaces or addresses in `addresses` in [endpoint]");
        }
        let resolvers = self.resolvers(resolv_conf);
        let policy = Policy::new(&self.policy.rules(), &host::own(&addresses)?, &resolvers);
        Ok(SessionConfig {
            buf_max: endpoint.buf_max,
            tcp: endpoint.protocols.contains(&Protocol::Tcp),
            udp: endpoint.protocols.contains(&Protocol::Udp),
            // A protocol that cannot work is not offered; `pktendpt check` says why.
            raw: endpoint.protocols.contains(&Protocol::Raw) && raw_permitted().is_ok(),
            steal: self.raw.steal,
            ring: self.raw.ring as usize,
            addresses,
            resolvers,
            host_id: endpoint.host_id.clone(),
            extensions: if endpoint.extensions { EXTENSIONS } else { 0 },
            policy,
            burst: self.policy.burst.0,
        })
    }

    /// Opens the place where the use of limits is remembered; `None`: it is not.
    pub fn store(&self) -> anyhow::Result<Option<Store>> {
        let Some(folder) = self.state.directory()? else { return Ok(None) };
        Store::open(&folder.join("limits.redb")).map(Some)
    }

    /// The exported resolvers.
    pub fn resolvers(&self, resolv_conf: &Path) -> Vec<IpAddr> {
        match &self.endpoint.resolvers {
            Resolvers::List(list) => list.clone(),
            Resolvers::Named(System::System) => net::resolv_conf(resolv_conf),
        }
    }
}

/// The socket of the endpoint with this configuration, which may be wrong in everything but `[state]`: a running endpoint
/// keeps an older one. `None`: the socket of an endpoint whose configuration says nothing about it.
pub fn status_socket(path: Option<&Path>) -> anyhow::Result<PathBuf> {
    /// The part that matters here.
    #[derive(Default, Deserialize)]
    struct Part {
        #[serde(default)]
        state: State,
    }

    let mut part = Part::default();
    if let Some(path) = path {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        part = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        part.state.anchor(path);
    }
    part.state.socket().context("no place to ask: name the configuration with -c FILE")
}

/// The text of a key or certificate entry.
pub fn pem(entry: &str) -> anyhow::Result<String> {
    if is_inline(entry) {
        return Ok(entry.to_owned());
    }
    std::fs::read_to_string(entry).with_context(|| format!("cannot read {entry}, named in [controller]"))
}

fn is_inline(entry: &str) -> bool {
    entry.trim_start().starts_with("-----BEGIN")
}

fn anchored(entry: &str, folder: &Path) -> String {
    if is_inline(entry) {
        return entry.to_owned();
    }
    anchored_path(Path::new(entry), folder).to_string_lossy().into_owned()
}

fn anchored_path(path: &Path, folder: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => folder.join(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[controller]\nkey = \"ep\"\ncertificates = [\"subcmd.cert\"]\n";

    #[test]
    fn defaults_serve_tcp_and_udp() {
        let config = Config::parse(LEAST).expect("valid");
        let session = config.session(Path::new("/nonexistent")).expect("addresses");
        assert!(session.tcp && session.udp);
        assert_eq!(session.buf_max, 8 << 20);
        assert_eq!(session.extensions, EXTENSIONS);
        assert!(session.resolvers.is_empty());
        assert!(!session.raw && !session.steal);
        assert_eq!(session.ring, 4 << 20);
        assert_eq!(session.burst, Some(BURST));
        let private = "192.168.3.4".parse().expect("address");
        assert!(session.policy.allows(private).is_err());
        assert!(session.policy.allows("192.0.2.1".parse().expect("address")).is_ok());
        // Whatever addresses this host has: a controller does not get at the host itself.
        for (address, _) in &session.addresses {
            assert!(session.policy.allows(*address).is_err(), "{address}");
        }
        assert_eq!(config.endpoint.drain, Span(Duration::from_secs(10)));
    }

    #[test]
    fn the_operator_decides_about_destinations_and_bursts() {
        let text = "[policy]\nallow = [\"127.0.0.0/8\", \"own\"]\ndeny = [\"192.168.9.0/24\"]\n\
                    private = true\nburst = \"1000/1s\"\n";
        let config = Config::parse(&format!("{LEAST}{text}")).expect("valid");
        let session = config.session(Path::new("/nonexistent")).expect("addresses");
        assert_eq!(session.burst, Some(cert::Burst { count: 1_000, window: 1_000_000_000 }));
        let judged = |text: &str| session.policy.allows(text.parse().expect("address")).is_ok();
        assert!(judged("127.0.0.1") && judged("10.0.0.1") && judged("::1"));
        assert!(!judged("192.168.9.1") && !judged("224.0.0.1"));
        let all = Config::parse(&format!("{LEAST}[policy]\nallow = [\"all\"]\nburst = \"none\"\n"));
        let session = all.expect("valid").session(Path::new("/nonexistent")).expect("addresses");
        assert_eq!(session.burst, None);
        assert!(session.policy.allows("255.255.255.255".parse().expect("address")).is_ok());
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let unknown = Config::parse(&format!("{LEAST}[endpoint]\nbufmax = 1\n")).expect_err("unknown key");
        assert!(unknown.to_string().contains("bufmax"), "{unknown}");
        let resolvers =
            Config::parse(&format!("{LEAST}[endpoint]\nresolvers = \"systm\"\n")).expect_err("bad word");
        assert!(resolvers.to_string().contains("system"), "{resolvers}");
        let none = Config::parse(&format!("{LEAST}[endpoint]\nprotocols = []\n")).expect_err("no protocol");
        assert!(none.to_string().contains("protocols"), "{none}");
        for (section, word) in [
            ("[policy]\nallow = [\"10.0.0.0/33\"]", "10.0.0.0/33"),
            ("[policy]\ndeny = [\"own\"]", "own"),
            ("[policy]\nburst = \"12500000\"", "12500000/10s"),
            ("[raw]\nring = 1000", "ring"),
            ("[raw]\nsteal = true", "steal"),
            ("[endpoint]\ndrain = 10", "drain"),
            ("[state]\nfolder = \"/x\"", "folder"),
            ("[endpoint]\nprotocols = [\"icmp\"]", "icmp"),
        ] {
            let error = Config::parse(&format!("{LEAST}{section}\n")).expect_err(section);
            assert!(format!("{error:#}").contains(word), "{section}: {error:#}");
        }
    }

    #[test]
    fn paths_follow_the_file_and_pem_stays() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("endpt.toml");
        let text = "[controller]\nkey = \"-----BEGIN PRIVATE KEY-----\"\ncertificates = [\"a.cert\"]\n\
                    [state]\ndirectory = \"state\"\nsocket = \"/run/x.sock\"\n";
        std::fs::write(&path, text).expect("written");
        let mut config = Config::load(&path).expect("valid");
        assert!(config.controller.key.starts_with("-----BEGIN"));
        assert_eq!(Path::new(&config.controller.certificates[0]), dir.path().join("a.cert"));
        assert_eq!(config.state.directory().expect("a place"), Some(dir.path().join("state")));
        assert_eq!(config.state.socket().as_deref(), Some(Path::new("/run/x.sock")));
        config.state.persist = false;
        assert_eq!(config.state.directory().expect("no place needed"), None);
    }
}

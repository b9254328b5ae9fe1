//! The operator's configuration: one TOML file (`docs` of each key below), read strictly.
//!
//! Keys and certificates are paths or, when the text starts with `-----BEGIN`, the PEM itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use pktlab::vmem::extension;
use serde::Deserialize;

use crate::net;
use crate::session::SessionConfig;

/// Extension bits this endpoint knows.
pub const EXTENSIONS: u32 = extension::BATCHED_RECORDS | extension::NERR;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub controller: Controller,
    #[serde(default)]
    pub endpoint: Endpoint,
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
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
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
        Ok(config)
    }

    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        ensure!(
            !config.endpoint.protocols.is_empty(),
            "`protocols` in [endpoint] is empty: name \"tcp\", \"udp\" or both"
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

    /// Evaluates addresses and resolvers as they are now.
    ///
    /// `resolv_conf` is where `resolvers = "system"` looks.
    pub fn session(&self, resolv_conf: &Path) -> anyhow::Result<SessionConfig> {
        let endpoint = &self.endpoint;
        let addresses = net::exported(&endpoint.addresses)?;
        if addresses.is_empty() {
            bail!("no address to export: name interfaces or addresses in `addresses` in [endpoint]");
        }
        let resolvers = match &endpoint.resolvers {
            Resolvers::List(list) => list.clone(),
            Resolvers::Named(System::System) => net::resolv_conf(resolv_conf),
        };
        Ok(SessionConfig {
            buf_max: endpoint.buf_max,
            tcp: endpoint.protocols.contains(&Protocol::Tcp),
            udp: endpoint.protocols.contains(&Protocol::Udp),
            addresses,
            resolvers,
            host_id: endpoint.host_id.clone(),
            extensions: if endpoint.extensions { EXTENSIONS } else { 0 },
        })
    }
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
    let path: PathBuf = match (entry.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => folder.join(entry),
    };
    path.to_string_lossy().into_owned()
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
        assert_eq!(session.extensions, 0b101);
        assert!(session.resolvers.is_empty());
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
    }

    #[test]
    fn paths_follow_the_file_and_pem_stays() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("endpt.toml");
        let text = "[controller]\nkey = \"-----BEGIN PRIVATE KEY-----\"\ncertificates = [\"a.cert\"]\n";
        std::fs::write(&path, text).expect("written");
        let config = Config::load(&path).expect("valid");
        assert!(config.controller.key.starts_with("-----BEGIN"));
        assert_eq!(Path::new(&config.controller.certificates[0]), dir.path().join("a.cert"));
    }
}

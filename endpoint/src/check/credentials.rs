//! Key, certificates and roots: whether controllers can be convinced with them, and for how long.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pktlab::cert::{Certificate, Mode, Verified, verify};
use pktlab::session::ClientConfig;
use pktlab::wire::Ticks;

use super::Finding;
use crate::config::Config;
use crate::status::moment;
use crate::{dial, net};

/// An end this near is worth a warning, ns.
const SOON: Ticks = 14 * 24 * 3_600 * 1_000_000_000;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(readable(&config.controller.key));
    let client = match dial::credentials(config) {
        Ok(client) => client,
        Err(error) => {
            let remedy = "see [controller] in the configuration and the files it names";
            findings.push(Finding::missing("credentials", format!("{error:#}"), remedy));
            return findings;
        }
    };
    findings.push(chain(&client, net::now()));
    findings.push(roots(&client));
    findings
}

/// A key that others can read is not only this endpoint's.
fn readable(key: &str) -> Option<Finding> {
    let mode = Path::new(key).metadata().ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        let text = format!("{key} can be read by others (mode {:o})", mode & 0o777);
        Finding::warning("key", text, format!("chmod 600 {key}"))
    })
}

fn chain(client: &ClientConfig, now: Ticks) -> Finding {
    let certificates = client.identity.as_ref().map(|identity| identity.chain()).unwrap_or_default();
    let offered: Vec<&[u8]> = certificates.iter().map(Certificate::der).collect();
    match verify(Mode::ControllerAuthEndpoint, &offered, &[], now) {
        Ok(chain) => valid(client, &chain, now),
        Err(error) => {
            let remedy =
                "ask the endpoint's operator for new certificates of this key; no controller accepts these";
            Finding::missing("certificates", format!("{error}"), remedy)
        }
    }
}

fn valid(client: &ClientConfig, chain: &Verified, now: Ticks) -> Finding {
    let end = chain.not_after();
    let top = chain.certs.last().map(|cert| cert.authority_id).unwrap_or_default();
    let operator = match client.roots.iter().any(|root| root.key_id() == top) {
        true => "from an operator that is among the roots",
        false => "from an operator that is not among the roots",
    };
    let text = format!("{} in the chain, valid until {}, {operator}", chain.certs.len(), moment(end));
    if end.saturating_sub(now) < SOON {
        return Finding::warning("certificates", text, "ask the endpoint's operator for new ones in time");
    }
    Finding::ok("certificates", text)
}

fn roots(client: &ClientConfig) -> Finding {
    match client.roots.len() {
        0 => Finding::warning(
            "roots",
            "none: experimenters of every operator are served",
            "name the public keys of the operators you trust as `roots` in [controller]",
        ),
        count => Finding::ok("roots", format!("trusted operators: {count}")),
    }
}

#[cfg(test)]
mod tests {
    use pktlab::cert::{CertType, Issue, PrivateKey};
    use pktlab::session::Identity;

    use super::super::Verdict;
    use super::*;

    const END: Ticks = 2_000_000_000_000_000_000;

    fn client(roots: bool) -> ClientConfig {
        let [operator, endpoint] = [1, 2].map(|seed| PrivateKey::from_seed([seed; 32]).expect("key"));
        let issue =
            Issue { not_before: 0, not_after: (END / 1_000_000_000) as i64, ..Issue::new(CertType::SubCmd) };
        let subcmd = issue.sign(&operator, &endpoint.public_key()).expect("signed");
        ClientConfig {
            identity: Some(Identity::new(endpoint, vec![subcmd]).expect("identity")),
            mode: Mode::EndpointAuthController,
            roots: roots.then(|| operator.public_key()).into_iter().collect(),
            snikey: None,
        }
    }

    #[test]
    fn an_end_is_seen_coming() {
        let client = client(true);
        let at = |now| chain(&client, now);
        assert_eq!(at(END - 2 * SOON).verdict, Verdict::Ok);
        assert_eq!(at(END - SOON / 2).verdict, Verdict::Warning);
        let over = at(END + 1);
        assert_eq!(over.verdict, Verdict::Missing);
        assert!(over.text.contains("expired"), "{}", over.text);
    }

    #[test]
    fn roots_are_counted_and_compared() {
        assert!(chain(&client(true), 0).text.contains("is among the roots"));
        assert!(chain(&client(false), 0).text.contains("is not among the roots"));
        assert_eq!(roots(&client(true)).verdict, Verdict::Ok);
        assert_eq!(roots(&client(false)).verdict, Verdict::Warning);
    }

    #[test]
    fn an_open_key_file_is_told() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("key");
        std::fs::write(&path, "x").expect("written");
        let judged = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
            readable(&path.to_string_lossy())
        };
        assert!(judged(0o640).expect("told").remedy.expect("remedy").contains("chmod 600"));
        assert!(judged(0o600).is_none());
        assert!(readable("-----BEGIN PRIVATE KEY-----").is_none());
    }
}

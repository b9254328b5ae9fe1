//! Meets controllers: over an inherited connection, or at an address, again and again (no-subscribe mode).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use pktlab::cert::{Certificate, Mode, PrivateKey, PublicKey};
use pktlab::session::{ClientConfig, Identity, Snikey};
use pktlab::wire::MAX_BODY;
use tokio::net::TcpStream;

use crate::config::{self, Config};
use crate::driver::{self, Outcome};
use crate::session::{End, SessionConfig};
use crate::{chain, net};

/// Controllers listen here unless the address says otherwise.
pub const DEFAULT_PORT: u16 = 20_556;
/// For the connect to one address.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Pause after all addresses failed, and after a session.
const RETRY: Duration = Duration::from_secs(1);
/// The pause grows to this while sessions keep failing.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A session of this length shows that the controller is in order.
const HEALTHY: Duration = Duration::from_secs(10);

/// Loads key, certificates and roots.
pub fn credentials(config: &Config) -> anyhow::Result<ClientConfig> {
    let controller = &config.controller;
    let key = config::pem(&controller.key)?;
    let key = PrivateKey::from_pem(&key, None)
        .context("`key` in [controller] is not a usable Ed25519 private key without passphrase")?;
    let mut certificates = Vec::new();
    for entry in &controller.certificates {
        let text = config::pem(entry)?;
        for block in blocks(&text) {
            certificates.push(
                Certificate::from_pem(block)
                    .with_context(|| format!("certificate {} in [controller]", name(entry)))?,
            );
        }
    }
    let identity = Identity::new(key, certificates)
        .context("`certificates` in [controller] do not fit `key`; add the subcmd certificate of this key")?;
    let mut roots = Vec::new();
    for entry in &controller.roots {
        let text = config::pem(entry)?;
        roots.push(
            PublicKey::from_pem(&text).with_context(|| format!("root {} in [controller]", name(entry)))?,
        );
    }
    let snikey = match &controller.snikey {
        Some(text) => Some(Snikey::try_from(text.as_str()).context("`snikey` in [controller]")?),
        None => None,
    };
    Ok(ClientConfig { identity: Some(identity), mode: Mode::EndpointAuthController, roots, snikey })
}

/// One session on a connected stream, from the handshake to the end.
pub async fn session(
    stream: TcpStream,
    client: &ClientConfig,
    config: SessionConfig,
) -> anyhow::Result<Outcome> {
    let mut session =
        pktlab::session::connect(stream, client).await.context("no session with the controller")?;
    let Some(peer) = session.peer.take() else { bail!("the controller presented no certificates") };
    let limits = chain::limits(&peer)?;
    tracing::info!("session with a controller");
    let (reader, writer) = session.split(MAX_BODY);
    let outcome = driver::serve(reader, writer, config, limits).await?;
    match &outcome {
        Outcome::Closed => tracing::info!("the controller closed the session"),
        Outcome::Ended(end) => tracing::info!("the session ended: {}", reason(end)),
    }
    Ok(outcome)
}

fn reason(end: &End) -> &'static str {
    match end {
        End::Yield { .. } => "the controller gave way",
        End::Malformed => "the controller sent a malformed message",
        End::Refused => "its certificates demand monitors",
        End::SetupTimeout => "the controller did not start within 10 s",
        End::Expired => "the controller's certificates ran out",
    }
}

/// Serves the controller at `address` for ever. `settings` is asked before each session.
pub async fn forever(
    address: &str,
    client: &ClientConfig,
    settings: impl Fn() -> anyhow::Result<SessionConfig>,
) -> anyhow::Result<()> {
    let (host, port) = host_port(address)?;
    let mut pause = RETRY;
    loop {
        let mut resume = None;
        match connect(&host, port).await {
            Ok(stream) => {
                let began = tokio::time::Instant::now();
                match session(stream, client, settings()?).await {
                    Ok(Outcome::Ended(End::Yield { resume: time })) => resume = Some(time),
                    Ok(_) => {}
                    Err(error) => tracing::warn!("{error:#}"),
                }
                pause = if began.elapsed() >= HEALTHY { RETRY } else { (pause * 2).min(RETRY_MAX) };
            }
            Err(error) => {
                tracing::warn!("{error:#}; trying again");
                pause = RETRY;
            }
        }
        let hint =
            resume.map_or(Duration::ZERO, |time| Duration::from_nanos(time.saturating_sub(net::now())));
        tokio::time::sleep(pause.max(hint)).await;
    }
}

async fn connect(host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .with_context(|| format!("cannot find the controller {host}"))?
        .collect();
    let mut last = None;
    for address in found {
        match tokio::time::timeout(CONNECT_TIME, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(format!("{address}: {error}")),
            Err(_) => last = Some(format!("{address}: no answer within 3 s")),
        }
    }
    bail!("cannot reach the controller {host}: {}", last.as_deref().unwrap_or("it has no address"))
}

/// Splits `HOST`, `HOST:PORT`, `[IPv6]`, `[IPv6]:PORT` or a bare IPv6 address.
pub fn host_port(text: &str) -> anyhow::Result<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').with_context(|| format!("`{text}`: the ] is missing"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => bail!("`{text}`: only :PORT may follow the ]"),
        };
        (host, port)
    } else if text.matches(':').count() > 1 {
        (text, None)
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    if host.is_empty() {
        bail!("`{text}` names no host; write HOST:PORT, for example 192.0.2.1:{DEFAULT_PORT}");
    }
    let port = match port {
        Some(port) => port.parse().with_context(|| format!("`{text}`: `{port}` is no port number"))?,
        None => DEFAULT_PORT,
    };
    Ok((host.to_owned(), port))
}

/// The PEM blocks of a text, one slice each.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    const BEGIN: &str = "-----BEGIN";
    text.match_indices(BEGIN).map(move |(start, _)| {
        let rest = &text[start + BEGIN.len()..];
        let end = rest.find(BEGIN).map_or(text.len(), |next| start + BEGIN.len() + next);
        &text[start..end]
    })
}

/// How to speak of an entry: inline text would fill the screen.
fn name(entry: &str) -> &str {
    if entry.contains("-----BEGIN") { "(inline)" } else { entry }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_all_forms_are_split() {
        for (text, host, port) in [
            ("host", "host", 20_556),
            ("host:1", "host", 1),
            ("192.0.2.1:2", "192.0.2.1", 2),
            ("[::1]:3", "::1", 3),
            ("[::1]", "::1", 20_556),
            ("2001:db8::1", "2001:db8::1", 20_556),
        ] {
            assert_eq!(host_port(text).expect(text), (host.to_owned(), port));
        }
        for text in ["", ":1", "[::1", "[::1]x", "host:port", "host:70000"] {
            assert!(host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn several_blocks_in_one_text_are_told_apart() {
        let text = "junk -----BEGIN A\n1\n-----BEGIN B\n2\n";
        assert_eq!(blocks(text).collect::<Vec<_>>(), ["-----BEGIN A\n1\n", "-----BEGIN B\n2\n"]);
    }
}

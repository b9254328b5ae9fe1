//! Meets controllers: over an inherited connection, or at an address, again and again (no-subscribe mode).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use pktlab::cert::{Certificate, Mode, PrivateKey, PublicKey};
use pktlab::session::{ClientConfig, Identity, Snikey};
use pktlab::wire::MAX_BODY;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tracing::Instrument;

use crate::account;
use crate::config::{self, Config};
use crate::driver::{self, Attendance, Outcome, Setup};
use crate::limits::{self, Store};
use crate::net;
use crate::service::{Current, Loaded};
use crate::session::{End, SessionConfig};
use crate::status::{Board, Holder, Running, SessionReport, State};
use crate::steal::Connection;
use crate::stop::Stop;

/// Controllers listen here unless the address says otherwise.
pub const DEFAULT_PORT: u16 = 20_556;
/// For the search of the controller's addresses.
const RESOLVE_TIME: Duration = Duration::from_secs(10);
/// For the connect to one address, and how many are tried: names are answered by strangers.
const CONNECT_TIME: Duration = Duration::from_secs(3);
const ADDRESSES_MAX: usize = 8;
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

/// The endpoint was told to stop before the session came to its own end.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint was told to stop")]
pub struct Stopped;

/// What sessions share.
#[derive(Clone)]
pub struct Surroundings {
    pub board: Board,
    pub stop: Stop,
    /// Where the use of limits is remembered.
    pub store: Option<Store>,
}

/// One session on a connected stream, from the handshake to the end. Told to stop, it begins no session, and ends one
/// when the grace is over.
pub async fn session(
    stream: TcpStream,
    client: &ClientConfig,
    config: SessionConfig,
    surroundings: &Surroundings,
) -> anyhow::Result<Outcome> {
    let Surroundings { board, stop, store } = surroundings;
    let control = stream.local_addr().ok().zip(stream.peer_addr().ok());
    let control = control.map(|(local, remote)| Connection { local, remote });
    let controller = stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |peer| peer.to_string());
    board.state(State::Handshake);
    // Best effort: without it a dead controller is noticed later.
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive());
    let handshake = pktlab::session::connect(stream, client);
    let mut session = tokio::select! {
        session = handshake => session.context("no session with the controller")?,
        () = stop.asked() => return Err(Stopped.into()),
    };
    let Some(peer) = session.peer.take() else { bail!("the controller presented no certificates") };
    limits::warn_unknown(&peer);
    let (ledger, account) = account::open(store.as_ref(), &peer, config.burst, net::now()).await?;
    let holder = Holder::new(controller, &peer);
    let (controller, experimenter) = (holder.controller.clone(), holder.name());
    let allowed = holder.allowed.join("; ");
    let running = board.begin(holder);
    let span = tracing::info_span!("session", number = running.number(), controller, experimenter);
    let serving = async {
        tracing::info!(allowed, "the session begins");
        let (reader, writer) = session.split(MAX_BODY);
        let attendance = Attendance { running: &running, stop, account };
        let outcome = driver::serve(reader, writer, Setup { config, ledger, control }, attendance).await;
        let outcome = outcome.map_err(anyhow::Error::from);
        finish(running, &outcome);
        match outcome {
            Ok(Outcome::Ended(End::Suspended)) => Err(Stopped.into()),
            outcome => outcome,
        }
    };
    serving.instrument(span).await
}

/// One line about the end, with the totals.
fn finish(running: Running, outcome: &anyhow::Result<Outcome>) {
    let reason = match outcome {
        Ok(Outcome::Closed) => "the controller closed it".to_owned(),
        Ok(Outcome::Ended(end)) => reason(end).to_owned(),
        Err(error) => format!("{error:#}"),
    };
    let past = running.end(&reason);
    let seconds = past.as_ref().map_or(0, |past| past.seconds);
    match past.and_then(|past| past.report) {
        Some(SessionReport { sent, received, dropped, sockets_opened, refused, .. }) => tracing::info!(
            reason,
            seconds,
            sockets_opened,
            sent_packets = sent.packets,
            sent_bytes = sent.bytes,
            received_packets = received.packets,
            received_bytes = received.bytes,
            dropped_packets = dropped.packets,
            dropped_bytes = dropped.bytes,
            refused,
            "the session ended"
        ),
        None => tracing::info!(reason, seconds, "the session ended"),
    }
}

fn reason(end: &End) -> &'static str {
    match end {
        End::Yield { .. } => "the controller gave way",
        End::Malformed => "the controller sent a malformed message",
        End::Refused => "its certificates demand monitors",
        End::SetupTimeout => "the controller did not start within 10 s",
        End::Expired => "the controller's certificates or its run time ran out",
        End::Suspended => "the endpoint stops",
    }
}

/// A controller whose host died without a word is noticed within two minutes; the system's own settings take two hours.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6)
}

/// Serves the controller of the configuration, as it is at each attempt, until told to stop.
pub async fn forever(current: &Current, surroundings: &Surroundings) {
    let Surroundings { board, stop, .. } = surroundings;
    let mut pause = RETRY;
    while !stop.is_asked() {
        let mut changes = current.changes();
        let loaded = current.loaded();
        board.controller(&loaded.controller);
        board.state(State::Connecting);
        let connected = tokio::select! {
            connected = connect(&loaded.controller) => connected,
            () = stop.asked() => return,
        };
        let mut hint = Duration::ZERO;
        match connected {
            Ok(stream) => {
                let began = tokio::time::Instant::now();
                match serve(stream, &loaded, surroundings).await {
                    Ok(Outcome::Ended(End::Yield { resume })) => {
                        hint = Duration::from_nanos(resume.saturating_sub(net::now()));
                    }
                    Ok(_) => {}
                    Err(error) if error.is::<Stopped>() => return,
                    Err(error) => failed(board, &error),
                }
                pause = if began.elapsed() >= HEALTHY { RETRY } else { (pause * 2).min(RETRY_MAX) };
            }
            Err(error) => {
                failed(board, &error);
                pause = RETRY;
            }
        }
        board.state(State::Waiting);
        tokio::select! {
            () = tokio::time::sleep(pause.max(hint)) => {}
            // Another configuration deserves an attempt at once.
            () = changed(&mut changes) => pause = RETRY,
            () = stop.asked() => {}
        }
    }
}

async fn serve(stream: TcpStream, loaded: &Loaded, surroundings: &Surroundings) -> anyhow::Result<Outcome> {
    session(stream, &loaded.client, loaded.settings()?, surroundings).await
}

fn failed(board: &Board, error: &anyhow::Error) {
    let text = format!("{error:#}");
    tracing::warn!("{text}; trying again");
    board.failed(text);
}

async fn changed(changes: &mut tokio::sync::watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let (host, port) = host_port(address)?;
    let mut last = None;
    for address in resolve(&host, port).await?.into_iter().take(ADDRESSES_MAX) {
        match tokio::time::timeout(CONNECT_TIME, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(format!("{address}: {error}")),
            Err(_) => last = Some(format!("{address}: no answer within {} s", CONNECT_TIME.as_secs())),
        }
    }
    bail!("cannot reach the controller {host}: {}", last.as_deref().unwrap_or("it has no address"))
}

/// The addresses of a controller.
pub async fn resolve(host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let found = tokio::time::timeout(RESOLVE_TIME, tokio::net::lookup_host((host, port))).await;
    let found = found.with_context(|| {
        format!(
            "cannot find the controller {host}: no name server answered within {} s",
            RESOLVE_TIME.as_secs()
        )
    })?;
    Ok(found.with_context(|| format!("cannot find the controller {host}"))?.collect())
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

//! The endpoint that pktwrap starts itself: a `pktendpt` child with keys and certificates made for this run only, joined
//! over loopback TCP and TLS. The same protocol as with an endpoint far away.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use pktlab::cert::{self, Certificate, Mode};
use pktlab::controller::Controller;
use pktlab::session::{Acceptor, Entry, Identity};
use serde::Serialize;
use tokio::process::{Child, Command};

/// The endpoint's program, and the variable that names another file.
const PROGRAM: &str = "pktendpt";
const ENV_PROGRAM: &str = "PKTENDPT";
/// What the child logs, as its own documentation says.
const ENV_LOG: &str = "PKTENDPT_LOG";
/// Memory of one endpoint session for queued data, bytes.
const BUFFER: u32 = 16 << 20;
/// A broken connection may be the first that is seen of a child that ends.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Makes sessions with endpoints on this machine. The children end with their sessions, at the latest with pktwrap.
pub struct Embedded {
    program: PathBuf,
    netns: Option<String>,
    verbose: bool,
    config: String,
    acceptor: Acceptor,
    children: Mutex<Vec<Child>>,
}

/// What the child reads as its configuration.
#[derive(Serialize)]
struct Config {
    controller: ControllerPart,
    endpoint: EndpointPart,
    policy: PolicyPart,
    state: StatePart,
}

#[derive(Serialize)]
struct ControllerPart {
    key: String,
    certificates: Vec<String>,
    roots: Vec<String>,
}

#[derive(Serialize)]
struct EndpointPart {
    buf_max: u32,
    host_id: String,
    protocols: [&'static str; 3],
}

/// The endpoint serves the user it runs as, who can do all of this without it.
#[derive(Serialize)]
struct PolicyPart {
    allow: [&'static str; 1],
    burst: &'static str,
}

#[derive(Serialize)]
struct StatePart {
    persist: bool,
}

impl Embedded {
    /// Makes the credentials. `netns`: the network namespace of the endpoint's measurement sockets.
    pub fn new(netns: Option<String>, verbose: bool) -> anyhow::Result<Embedded> {
        let program = crate::program::beside(PROGRAM, ENV_PROGRAM)?;
        let credentials = cert::ephemeral(unix_now()).context("cannot make keys and certificates")?;
        let config = Config {
            controller: ControllerPart {
                key: credentials.endpoint_key.to_pem(),
                certificates: credentials.endpoint_chain.iter().map(Certificate::to_pem).collect(),
                roots: vec![credentials.operator.public_key().to_pem()],
            },
            endpoint: EndpointPart {
                buf_max: BUFFER,
                host_id: netns.clone().unwrap_or_else(|| "local".to_owned()),
                // An endpoint that may not open raw sockets does not offer them.
                protocols: ["tcp", "udp", "raw"],
            },
            policy: PolicyPart { allow: ["all"], burst: "none" },
            state: StatePart { persist: false },
        };
        let identity = Identity::new(credentials.controller_key, credentials.controller_chain)?;
        let entry = Entry {
            snikey: None,
            default: true,
            identity,
            mode: Mode::ControllerAuthEndpoint,
            roots: vec![credentials.operator.public_key()],
        };
        Ok(Embedded {
            program,
            netns,
            verbose,
            config: toml::to_string(&config)?,
            acceptor: Acceptor::new(vec![entry])?,
            children: Mutex::new(Vec::new()),
        })
    }

    /// Starts one more endpoint and its session.
    pub async fn session(&self) -> anyhow::Result<Controller> {
        let (ours, theirs) = tcp_pair().context("cannot make a loopback connection to the endpoint")?;
        let mut child = self.start(theirs)?;
        let session = async {
            let session = self.acceptor.accept(ours).await?;
            anyhow::Ok(Controller::start(session).await?)
        };
        // A child that cannot start says why on stderr itself; the handshake's error would only hide it.
        let session = tokio::select! {
            biased;
            status = child.wait() => bail!("the endpoint ended at once ({})", status?),
            session = session => session,
        };
        let session = match session {
            Ok(session) => session,
            Err(error) => match tokio::time::timeout(LAST_WORDS, child.wait()).await {
                Ok(status) => bail!("the endpoint ended at once ({})", status?),
                Err(_) => return Err(error.context("cannot talk to the endpoint")),
            },
        };
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        Ok(session)
    }

    fn start(&self, control: OwnedFd) -> anyhow::Result<Child> {
        let (reader, mut writer) = std::io::pipe().context("cannot make a pipe")?;
        // A few KiB: they fit into the pipe before anybody reads.
        std::io::Write::write_all(&mut writer, self.config.as_bytes())
            .context("cannot pass the configuration")?;
        drop(writer);
        let reader = OwnedFd::from(reader);
        let mut command = Command::new(&self.program);
        command.arg("--control-fd").arg(control.as_raw_fd().to_string());
        command.arg("--credentials-fd").arg(reader.as_raw_fd().to_string());
        if let Some(netns) = &self.netns {
            command.arg("--netns").arg(netns);
        }
        if !self.verbose && std::env::var_os(ENV_LOG).is_none() {
            command.env(ENV_LOG, "error");
        }
        // In a process group of its own, so that the terminal's ^C reaches the program and not the endpoint.
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
        crate::sys::inherit(&mut command, vec![control, reader]);
        command.spawn().with_context(|| format!("cannot start {}", self.program.display()))
    }

    /// The sessions were closed: waits for the children, then ends those that are left.
    pub async fn end(&self, limit: Duration) {
        let children = std::mem::take(&mut *self.children.lock().unwrap_or_else(PoisonError::into_inner));
        let deadline = tokio::time::Instant::now() + limit;
        for mut child in children {
            if tokio::time::timeout_at(deadline, child.wait()).await.is_err() {
                tracing::debug!("the endpoint did not end by itself");
                let _ = child.kill().await;
            }
        }
    }
}

/// Seconds since the Unix epoch.
pub fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Both ends of a TCP connection over loopback; nobody else's, should somebody connect in between.
fn tcp_pair() -> std::io::Result<(tokio::net::TcpStream, OwnedFd)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let theirs = TcpStream::connect(listener.local_addr()?)?;
    let expected = theirs.local_addr()?;
    loop {
        let (ours, peer) = listener.accept()?;
        if peer == expected {
            ours.set_nodelay(true)?;
            theirs.set_nodelay(true)?;
            ours.set_nonblocking(true)?;
            return Ok((tokio::net::TcpStream::from_std(ours)?, theirs.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pair_is_connected() {
        use tokio::io::AsyncReadExt;
        let (mut ours, theirs) = tcp_pair().expect("pair");
        std::io::Write::write_all(&mut TcpStream::from(theirs), b"hello").expect("written");
        let mut text = String::new();
        ours.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "hello");
    }
}

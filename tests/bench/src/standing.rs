//! A standing `pktendpt` process on loopback, and the controller it comes to.
//!
//! Used by the benchmark and by the soak: its configuration, what /proc says about it, what it logs.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use pktendpt::status::Status;
use pktlab::cert::{self, Certificate, Credentials, Mode};
use pktlab::session::{Acceptor, Entry, Identity, Session};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;

use crate::program;

/// For an endpoint to come, which waits 1 s between attempts.
const PATIENCE: Duration = Duration::from_secs(30);
/// Log lines kept for a report of what went wrong.
const LINES: usize = 40;

/// Where the endpoint finds its controller.
pub struct Meeting {
    pub credentials: Credentials,
    listener: TcpListener,
    acceptor: Acceptor,
}

impl Meeting {
    /// Fresh keys and a free port.
    pub async fn new() -> Result<Meeting> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let credentials = cert::ephemeral(now as i64)?;
        let identity =
            Identity::new(credentials.controller_key.clone(), credentials.controller_chain.clone())?;
        let roots = vec![credentials.operator.public_key()];
        let mode = Mode::ControllerAuthEndpoint;
        let acceptor = Acceptor::new(vec![Entry { snikey: None, default: true, identity, mode, roots }])?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Meeting { credentials, listener, acceptor })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// The next connection, as soon as it is there.
    pub async fn connection(&self) -> Result<tokio::net::TcpStream> {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        Ok(accepted.context("the endpoint does not come")??.0)
    }

    /// The TLS handshake on a connection.
    pub async fn handshake(&self, stream: tokio::net::TcpStream) -> Result<Session> {
        Ok(self.acceptor.accept(stream).await?)
    }

    /// The next session, before START.
    pub async fn session(&self) -> Result<Session> {
        self.handshake(self.connection().await?).await
    }
}

/// The process; killed when dropped.
pub struct Standing {
    child: Child,
    home: tempfile::TempDir,
    log: Arc<Mutex<Log>>,
}

/// What it said.
#[derive(Default)]
pub struct Log {
    /// Lines of level ERROR, and panics.
    pub errors: Vec<String>,
    pub warnings: u64,
    pub last: VecDeque<String>,
}

impl Standing {
    /// Starts it without limits of the operator, toward `controller`. It keeps what it keeps by default.
    pub fn start(credentials: &Credentials, controller: SocketAddr) -> Result<Standing> {
        let home = tempfile::tempdir()?;
        let certificates: String = credentials.endpoint_chain.iter().map(Certificate::to_pem).collect();
        let config = format!(
            "[controller]\nkey = '''{}'''\ncertificates = ['''{certificates}''']\nroots = ['''{}''']\n\
             address = \"{controller}\"\n\
             [endpoint]\nprotocols = [\"tcp\", \"udp\", \"raw\"]\naddresses = [\"lo\"]\nresolvers = []\n\
             [policy]\nallow = [\"all\"]\nburst = \"none\"\n\
             [state]\ndirectory = \"state\"\nsocket = \"status.sock\"\n",
            credentials.endpoint_key.to_pem(),
            credentials.operator.public_key().to_pem()
        );
        std::fs::write(home.path().join("endpoint.toml"), config)?;
        let mut child = Command::new(program("pktendpt")?)
            .arg("-c")
            .arg(home.path().join("endpoint.toml"))
            .args(["--log-format", "json"])
            .env_remove("PKTENDPT_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start pktendpt")?;
        let log = Arc::new(Mutex::new(Log::default()));
        if let Some(lines) = child.stderr.take() {
            let log = log.clone();
            std::thread::spawn(move || follow(lines, &log));
        }
        Ok(Standing { child, home, log })
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it read its configuration again, which ends its pause between two sessions.
    pub fn hurry(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::HUP)?)
    }

    /// An error with its last words if the process is gone.
    pub fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the endpoint ended: {status}; its last words: {:#?}", self.log().last);
        }
        Ok(())
    }

    /// Resident memory, bytes.
    pub fn rss(&self) -> Result<u64> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(self.proc("fd"))?.count())
    }

    /// What `pktendpt status --json` prints.
    pub async fn status(&self) -> Result<Status> {
        let output = tokio::process::Command::new(program("pktendpt")?)
            .arg("-c")
            .arg(self.home.path().join("endpoint.toml"))
            .args(["status", "--json"])
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(output.status.success(), "no status: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn proc(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.child.id()).into()
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(lines: ChildStderr, log: &Mutex<Log>) {
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let level = serde_json::from_str::<serde_json::Value>(&line).ok();
        match level.as_ref().and_then(|line| line["level"].as_str()) {
            Some("ERROR") => log.errors.push(line.clone()),
            Some("WARN") => log.warnings += 1,
            Some(_) => {}
            // Not a log line: a panic, for example.
            None => log.errors.push(line.clone()),
        }
        if log.last.len() == LINES {
            log.last.pop_front();
        }
        log.last.push_back(line);
    }
}

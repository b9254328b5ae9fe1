//! A standing endpoint: signals, reloading, the status socket, and what the service manager is told.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use pktlab::session::ClientConfig;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Config, Protocol};
use crate::dial::{self, Surroundings};
use crate::session::SessionConfig;
use crate::status::{Board, Server, Status};
use crate::stop::Stopper;

/// Where the configuration comes from, for the first and every later reading.
#[derive(Clone, Debug)]
pub struct Source {
    /// `None`: it cannot be read again.
    pub file: Option<PathBuf>,
    /// The controller of the command line, which stands above the file's.
    pub controller: Option<String>,
    /// Where `resolvers = "system"` looks.
    pub resolv_conf: PathBuf,
}

/// A configuration with its credentials, found usable.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub client: ClientConfig,
    pub controller: String,
    resolv_conf: PathBuf,
}

impl Loaded {
    /// # Errors
    /// Whatever would make every session fail: credentials, addresses, no controller.
    pub fn new(config: Config, source: &Source) -> anyhow::Result<Loaded> {
        let client = dial::credentials(&config)?;
        let controller = source.controller.clone().or_else(|| config.controller.address.clone());
        let controller = controller
            .context("no controller: name one on the command line or as `address` in [controller]")?;
        dial::host_port(&controller)?;
        let loaded = Loaded { config, client, controller, resolv_conf: source.resolv_conf.clone() };
        let settings = loaded.settings()?;
        if loaded.config.endpoint.protocols.contains(&Protocol::Raw) && !settings.raw {
            tracing::warn!(
                "raw sockets are not permitted and not offered; `pktendpt check` says how to grant them"
            );
        }
        Ok(loaded)
    }

    /// For one session, evaluated now.
    pub fn settings(&self) -> anyhow::Result<SessionConfig> {
        self.config.session(&self.resolv_conf)
    }
}

/// The configuration that holds for the next session.
#[derive(Debug)]
pub struct Current {
    loaded: Mutex<Arc<Loaded>>,
    changes: watch::Sender<u64>,
}

impl Current {
    pub fn new(loaded: Loaded) -> Current {
        Current { loaded: Mutex::new(Arc::new(loaded)), changes: watch::Sender::new(0) }
    }

    pub fn loaded(&self) -> Arc<Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn replace(&self, loaded: Loaded) {
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Follows [`Current::replace`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A second signal while the endpoint was coming to its end.
#[derive(Debug, thiserror::Error)]
#[error("stopped at once by a second signal")]
pub struct Impatient;

/// Serves controllers until a signal says that it is enough. `loaded` is the first reading of `source`.
pub async fn run(source: Source, loaded: Loaded) -> anyhow::Result<()> {
    let board = Board::new();
    let server = match loaded.config.state.socket().map(|path| Server::bind(&path)) {
        Some(Ok(server)) => Some(server),
        Some(Err(error)) => {
            tracing::warn!("`pktendpt status` will not work: {error:#}");
            None
        }
        None => None,
    };
    let (stopper, stop) = Stopper::new();
    let store = loaded.config.store()?;
    let current = Arc::new(Current::new(loaded));
    let signals = Signals::new()?;
    // Tasks of their own, so that a busy session does not poll them at every packet.
    let answering = tokio::spawn({
        let board = board.clone();
        async move {
            match &server {
                Some(server) => server.run(&board).await,
                None => std::future::pending().await,
            }
        }
    });
    let telling = tokio::spawn(tell(board.clone()));
    let watchdog = tokio::spawn(watchdog());
    notify(&[NotifyState::Ready]);
    let supervising = tokio::spawn(signals.supervise(source, current.clone(), board.clone(), stopper));
    let surroundings = Surroundings { board, stop, store };
    let outcome = tokio::select! {
        () = dial::forever(&current, &surroundings) => Ok(()),
        _ = supervising => Err(Impatient.into()),
    };
    for task in [answering, telling, watchdog] {
        task.abort();
        // Its end is awaited for the socket's file to be gone with the program.
        let _ = task.await;
    }
    tracing::info!("the endpoint ends");
    outcome
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Signals {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    /// Returns at the second signal to stop.
    async fn supervise(mut self, source: Source, current: Arc<Current>, board: Board, stopper: Stopper) {
        let mut stopping = false;
        loop {
            let name = tokio::select! {
                _ = self.hangup.recv() => {
                    if !stopping {
                        reload(&source, &current, &board);
                    }
                    continue;
                }
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            };
            if stopping {
                tracing::warn!("{name} again: ending at once");
                return;
            }
            stopping = true;
            let grace = current.loaded().config.endpoint.drain.0;
            tracing::info!("{name}: no new session; a running one may take another {grace:?}");
            notify(&[NotifyState::Stopping]);
            board.stopping();
            stopper.stop(Instant::now() + grace);
        }
    }
}

/// Reads configuration and credentials again, for the next session. What cannot be used changes nothing.
fn reload(source: &Source, current: &Current, board: &Board) {
    let Some(file) = &source.file else {
        tracing::warn!("SIGHUP: the configuration did not come from a file and cannot be read again");
        return;
    };
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("no clock for the service manager: {error}"),
    }
    match Config::load(file).and_then(|config| Loaded::new(config, source)) {
        Ok(loaded) => {
            let (old, new) = (current.loaded().config.state.clone(), loaded.config.state.clone());
            if old != new {
                tracing::warn!("changes of [state] take effect when the endpoint is started again");
            }
            current.replace(loaded);
            tracing::info!("SIGHUP: read {}; it holds from the next session on", file.display());
        }
        Err(error) => {
            let text = format!("the configuration was not taken over, the old one holds: {error:#}");
            tracing::error!("SIGHUP: {text}");
            board.failed(text);
        }
    }
    notify(&[NotifyState::Ready]);
}

/// Keeps the service manager's line about this service true.
async fn tell(board: Board) {
    let mut changes = board.changes();
    loop {
        notify(&[NotifyState::Status(&summary(&board.status()))]);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn summary(status: &Status) -> String {
    let what = match &status.session {
        Some(session) => format!("session {} for {}", session.number, session.holder.name()),
        None => status.state.words().to_owned(),
    };
    if status.stopping { format!("told to stop; {what}") } else { what }
}

/// Shows that the runtime turns, if the service manager wants to know.
async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("cannot tell the service manager: {error}");
    }
}

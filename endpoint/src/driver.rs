//! Joins one session to the world: the control stream's two halves, the epoll of the measurement sockets and the timer,
//! all in one task of a current-thread runtime. The decisions are made in [`crate::session`].

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use pktlab::vmem::extension;
use pktlab::wire::{EncodeError, Encoded, MessageReader, MessageWriter, ReadError, Ticks, WriteError};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::net::{self, Sockets};
use crate::session::{End, Limits, Net, Output, Session, SessionConfig};
use crate::sys;

/// The timer wakes this long before a deadline, ns; the rest is spent polling, so that a send is punctual.
const GUARD: Ticks = 150_000;
/// Outputs written together at most, and the payload bytes after which a batch is full.
const BATCH: (usize, usize) = (64, 192 * 1024);
/// How long a finished session may still write to a controller that reads slowly.
const LINGER: Duration = Duration::from_secs(5);

/// How a session came to its end.
#[derive(Debug)]
pub enum Outcome {
    /// The controller closed in an orderly way.
    Closed,
    /// The state machine ended it.
    Ended(End),
}

/// A session that broke.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error("cannot read from the controller: {0}")]
    Read(#[from] ReadError),
    #[error("cannot write to the controller: {0}")]
    Write(#[from] WriteError),
    #[error("cannot wait for sockets: {0}")]
    Sockets(#[from] std::io::Error),
}

struct Core {
    session: Session,
    sockets: Sockets,
}

impl Core {
    /// Puts the timer where the session wants it.
    fn arm(&mut self) -> std::io::Result<()> {
        let deadline = self.session.deadline();
        self.sockets.set_timer(deadline.map(|time| time.saturating_sub(GUARD)))
    }
}

struct Driver {
    core: RefCell<Core>,
    /// Something to write, or nothing more to come.
    output: Notify,
    /// Room for requests again.
    drained: Notify,
}

/// Serves one controller whose TLS handshake just ended, until either side ends the session. Measurement sockets are made
/// in the network namespace of the calling thread.
pub async fn serve<R, W>(
    mut reader: MessageReader<R>,
    mut writer: MessageWriter<W>,
    config: SessionConfig,
    limits: Limits,
) -> Result<Outcome, DriveError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let sockets = Sockets::new()?;
    let watched = sys::watch_readable(sockets.epoll().try_clone_to_owned()?)?;
    let mut core = Core { session: Session::new(config, limits, net::now()), sockets };
    core.arm()?;
    let driver = Driver { core: RefCell::new(core), output: Notify::new(), drained: Notify::new() };
    let outcome = {
        let mut writing = pin!(driver.write(&mut writer));
        let serving = async {
            tokio::select! {
                outcome = driver.read(&mut reader) => outcome,
                outcome = driver.measure(&watched) => outcome,
            }
        };
        tokio::select! {
            outcome = serving => {
                if !matches!(outcome, Ok(Outcome::Ended(_))) {
                    driver.core.borrow_mut().session.discard_output();
                } else if tokio::time::timeout(LINGER, &mut writing).await.is_err() {
                    tracing::debug!("the controller did not read the last messages");
                }
                outcome
            }
            outcome = &mut writing => outcome.map(|()| match driver.ended() {
                Some(end) => Outcome::Ended(end),
                None => Outcome::Closed,
            }),
        }
    };
    // Best effort: the controller may be gone already.
    let _ = tokio::time::timeout(Duration::from_secs(1), writer.shutdown()).await;
    outcome
}

impl Driver {
    fn ended(&self) -> Option<End> {
        self.core.borrow().session.ended()
    }

    async fn read<R: AsyncRead + Unpin>(&self, reader: &mut MessageReader<R>) -> Result<Outcome, DriveError> {
        loop {
            if let Some(end) = self.ended() {
                return Ok(Outcome::Ended(end));
            }
            if !self.core.borrow().session.wants_request() {
                self.drained.notified().await;
                continue;
            }
            let Some(frame) = reader.next().await? else { return Ok(Outcome::Closed) };
            let core = &mut *self.core.borrow_mut();
            core.session.request(frame, &mut core.sockets);
            core.arm()?;
            self.output.notify_one();
        }
    }

    async fn measure(&self, watched: &AsyncFd<OwnedFd>) -> Result<Outcome, DriveError> {
        loop {
            let idle = {
                let core = &mut *self.core.borrow_mut();
                let ready = core.sockets.poll()?;
                let due = core.session.deadline();
                let now = core.sockets.now();
                if due.is_some_and(|due| due <= now) {
                    core.session.timer(&mut core.sockets);
                }
                for (id, interest) in &ready.sockets {
                    core.session.ready(*id, *interest, &mut core.sockets);
                }
                if let Some(end) = core.session.ended() {
                    self.output.notify_one();
                    return Ok(Outcome::Ended(end));
                }
                if core.session.queued() > 0 {
                    self.output.notify_one();
                }
                let near = core.session.deadline().is_some_and(|due| due.saturating_sub(now) <= GUARD);
                if !near {
                    core.arm()?;
                }
                ready.sockets.is_empty() && !ready.timer && !near
            };
            if idle {
                let mut guard = watched.readable().await?;
                // Looked again after the wake-up, before the readiness is given up: see the loop's start.
                if self.core.borrow().sockets.is_quiet()? {
                    guard.clear_ready();
                }
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut MessageWriter<W>) -> Result<(), DriveError> {
        loop {
            let (batch, enabled, ended) = {
                let session = &mut self.core.borrow_mut().session;
                (session.take_batch(BATCH.0, BATCH.1), session.enabled(), session.ended().is_some())
            };
            if batch.is_empty() {
                if ended {
                    return Ok(());
                }
                self.output.notified().await;
                continue;
            }
            let encoded: Vec<Encoded> =
                batch.iter().map(encode).collect::<Result<_, _>>().map_err(WriteError::from)?;
            drop(batch);
            writer.set_batching(enabled & extension::BATCHED_RECORDS != 0);
            writer.send_batch(&encoded).await?;
            drop(encoded);
            let core = &mut *self.core.borrow_mut();
            core.session.sent(&mut core.sockets);
            if core.session.wants_request() {
                self.drained.notify_one();
            }
        }
    }
}

fn encode(output: &Output) -> Result<Encoded, EncodeError> {
    match output {
        Output::Message(message) => message.encode(),
        Output::NErr(error) => error.encode(),
    }
}

//! Joins one session to the world: the control stream's two halves and the epoll of the measurement sockets, the timer and
//! timed sends, all in one task of a current-thread runtime. The decisions are made in [`crate::session`].

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use pktlab::vmem::extension;
use pktlab::wire::{EncodeError, Encoded, MessageReader, MessageWriter, ReadError, WriteError};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::account::Account;
use crate::limits::{Ledger, StoreError, Usage};
use crate::net::{self, CaptureOptions, Sockets};
use crate::session::{End, Net, Output, Session, SessionConfig};
use crate::status::{Running, SessionReport};
use crate::steal::Connection;
use crate::stop::Stop;
use crate::sys;

/// Looks at the sockets before time may act although some are still ready: what arrived first is told first, and a busy
/// socket cannot stop the clock.
const LOOKS: u32 = 8;
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
    #[error("what the session uses cannot be recorded: {0}")]
    Account(#[from] StoreError),
}

struct Core {
    session: Session,
    sockets: Sockets,
}

impl Core {
    /// Puts the timer where the session wants it.
    fn arm(&mut self) -> std::io::Result<()> {
        let deadline = self.session.deadline();
        self.sockets.set_timer(deadline)
    }

    /// Nothing is sent or received any more.
    fn close(&mut self) {
        self.session.close(&mut self.sockets);
    }
}

struct Driver {
    core: RefCell<Core>,
    /// Something to write, or nothing more to come.
    output: Notify,
    /// Room for requests again.
    drained: Notify,
}

/// What one session is given.
#[derive(Debug)]
pub struct Setup {
    pub config: SessionConfig,
    pub ledger: Ledger,
    /// The connection to the controller, which is never withheld from the host.
    pub control: Option<Connection>,
}

/// Those who follow a session while it runs.
pub struct Attendance<'a> {
    pub running: &'a Running,
    pub stop: &'a Stop,
    pub account: Option<Account>,
}

/// How often the session is charged to its account.
const CHARGE: Duration = Duration::from_secs(1);

/// Serves one controller whose TLS handshake just ended, until either side ends the session. Measurement sockets are made
/// in the network namespace of the calling thread.
pub async fn serve<R, W>(
    mut reader: MessageReader<R>,
    mut writer: MessageWriter<W>,
    setup: Setup,
    mut attendance: Attendance<'_>,
) -> Result<Outcome, DriveError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Setup { config, ledger, control } = setup;
    let steal = config.steal.then(|| control.into_iter().collect());
    let sockets = Sockets::new(CaptureOptions { ring: config.ring, steal })?;
    let watched = sys::watch_readable(sockets.epoll().try_clone_to_owned()?)?;
    let mut core = Core { session: Session::new(config, ledger, net::now()), sockets };
    core.arm()?;
    let driver = Driver { core: RefCell::new(core), output: Notify::new(), drained: Notify::new() };
    let outcome = {
        let mut writing = pin!(driver.write(&mut writer));
        let serving = async {
            tokio::select! {
                outcome = driver.read(&mut reader) => outcome,
                outcome = driver.measure(&watched) => outcome,
                outcome = driver.attend(&mut attendance) => outcome,
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
    driver.core.borrow_mut().close();
    let last = driver.last(&mut attendance).await;
    // Best effort: the controller may be gone already.
    let _ = tokio::time::timeout(Duration::from_secs(1), writer.shutdown()).await;
    last.and(outcome)
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
        let mut overdue = 0;
        loop {
            let idle = {
                let core = &mut *self.core.borrow_mut();
                let polled = core.sockets.poll()?;
                if polled.made {
                    core.sockets.hear();
                }
                while let Some((id, outcome)) = core.sockets.next_made() {
                    core.session.made(id, outcome, &mut core.sockets);
                }
                for (id, ready) in &polled.sockets {
                    core.session.ready(*id, *ready, &mut core.sockets);
                }
                let now = core.sockets.now();
                if core.session.deadline().is_some_and(|due| due <= now) {
                    overdue += 1;
                    if polled.sockets.is_empty() || overdue >= LOOKS {
                        overdue = 0;
                        core.session.timer(&mut core.sockets);
                    }
                }
                if let Some(end) = core.session.ended() {
                    self.output.notify_one();
                    return Ok(Outcome::Ended(end));
                }
                if core.session.queued() > 0 {
                    self.output.notify_one();
                }
                core.arm()?;
                polled.is_empty() && overdue == 0
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

    /// Reports, charges, and ends the session when the endpoint has to stop.
    async fn attend(&self, attendance: &mut Attendance<'_>) -> Result<Outcome, DriveError> {
        let Attendance { running, stop, account } = attendance;
        let mut second = tokio::time::interval(CHARGE);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = second.tick(), if account.is_some() => {
                    let used = self.used();
                    if let Some(account) = account {
                        account.charge(used).await?;
                    }
                }
                () = running.wanted() => running.report(self.report()),
                () = stop.due() => {
                    let core = &mut *self.core.borrow_mut();
                    core.session.suspend(&mut core.sockets);
                    self.output.notify_one();
                    return Ok(Outcome::Ended(End::Suspended));
                }
            }
        }
    }

    /// The last report and the last charge.
    async fn last(&self, attendance: &mut Attendance<'_>) -> Result<(), DriveError> {
        attendance.running.report(self.report());
        let used = self.used();
        if let Some(account) = &mut attendance.account {
            account.charge(used).await?;
        }
        Ok(())
    }

    fn report(&self) -> SessionReport {
        self.core.borrow().session.report(net::now())
    }

    fn used(&self) -> Usage {
        self.core.borrow().session.ledger().used(net::now())
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
        Output::Extension(note) => note.encode(),
    }
}

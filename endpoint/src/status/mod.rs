//! What the endpoint is doing, for its operator: kept on a [`Board`], asked over a unix socket, printed by
//! `pktendpt status`.
//!
//! | file | job |
//! |---|---|
//! | `report` | the answer's format |
//! | `holder` | certificates in words |
//! | `server`, `client` | both ends of the socket |

mod client;
mod holder;
mod report;
mod server;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

pub use client::{ask, text};
pub use report::{
    CertificateReport, Failure, Holder, Left, Past, Session, SessionReport, State, Status, Traffic, VERSION,
    moment,
};
pub use server::Server;

use crate::net;

/// How long an answer waits for a report of the running session.
const REPORT_TIME: Duration = Duration::from_millis(500);

/// The endpoint's state, shared by everybody who changes or reads it.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Somebody wants a report.
    wanted: Notify,
    /// Counts changes of state, for those who follow it.
    changes: watch::Sender<u64>,
    /// Counts reports.
    reports: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    status: Status,
    began: Option<Instant>,
}

impl Board {
    pub fn new() -> Board {
        let board = Board::default();
        board.lock().status = Status {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            since: moment(net::now()),
            ..Status::default()
        };
        board
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
        self.0.changes.send_modify(|count| *count += 1);
    }

    pub fn state(&self, state: State) {
        self.change(|status| status.state = state);
    }

    /// The controller as configured.
    pub fn controller(&self, name: &str) {
        self.change(|status| status.controller = Some(name.to_owned()));
    }

    pub fn stopping(&self) {
        self.change(|status| status.stopping = true);
    }

    /// Keeps what went wrong.
    pub fn failed(&self, text: String) {
        self.change(|status| status.last_error = Some(Failure { time: moment(net::now()), text }));
    }

    /// A session begins; it is over when the result is dropped.
    pub fn begin(&self, holder: Holder) -> Running {
        let mut inner = self.lock();
        inner.began = Some(Instant::now());
        let status = &mut inner.status;
        status.sessions += 1;
        status.state = State::Session;
        let number = status.sessions;
        let since = moment(net::now());
        status.session = Some(Session { number, since, seconds: 0, holder, report: None });
        drop(inner);
        self.0.changes.send_modify(|count| *count += 1);
        Running { board: self.clone(), number }
    }

    /// Follows changes of state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// What is known now.
    pub fn status(&self) -> Status {
        let inner = self.lock();
        let mut status = inner.status.clone();
        if let (Some(session), Some(began)) = (&mut status.session, inner.began) {
            session.seconds = began.elapsed().as_secs();
        }
        status
    }

    /// As [`Board::status`], with a new report of the running session if it gives one in time.
    pub async fn fresh(&self) -> Status {
        if self.lock().status.session.is_some() {
            let mut reports = self.0.reports.subscribe();
            self.0.wanted.notify_one();
            // Without one the last report, or none, is what there is.
            let _ = tokio::time::timeout(REPORT_TIME, reports.changed()).await;
        }
        self.status()
    }
}

/// The running session's hold on the [`Board`].
#[derive(Debug)]
pub struct Running {
    board: Board,
    number: u64,
}

impl Running {
    /// Counted from 1 at the start of the program.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits until somebody wants [`Running::report`]. Costs nothing while nobody does; safe to drop and call again.
    pub async fn wanted(&self) {
        self.board.0.wanted.notified().await;
    }

    /// Where the session stands. Due when [`Running::wanted`] returns, and once at the session's end for its totals.
    pub fn report(&self, report: SessionReport) {
        if let Some(session) = &mut self.board.lock().status.session {
            session.report = Some(report);
        }
        self.board.0.reports.send_modify(|count| *count += 1);
    }

    /// Ends it; what is remembered of it.
    pub fn end(self, reason: &str) -> Option<Past> {
        self.finish(reason)
    }

    fn finish(&self, reason: &str) -> Option<Past> {
        let session = self.board.status().session.filter(|session| session.number == self.number)?;
        let past = Past {
            number: session.number,
            controller: session.holder.controller,
            experimenter: session.holder.experimenter,
            ended: moment(net::now()),
            seconds: session.seconds,
            reason: reason.to_owned(),
            report: session.report,
        };
        self.board.change(|status| {
            status.session = None;
            status.state = State::Waiting;
            status.last_session = Some(past.clone());
        });
        Some(past)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.finish("it was broken off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder { controller: "192.0.2.1:9".into(), experimenter: "ab".repeat(32), ..Holder::default() }
    }

    #[tokio::test]
    async fn a_session_reports_when_asked() {
        let board = Board::new();
        let running = board.begin(holder());
        assert_eq!(running.number(), 1);
        let asking = tokio::spawn({
            let board = board.clone();
            async move { board.fresh().await }
        });
        running.wanted().await;
        running.report(SessionReport { sockets_open: 3, ..SessionReport::default() });
        let status = asking.await.expect("status");
        let session = status.session.expect("a session");
        assert_eq!(session.report.expect("a report").sockets_open, 3);
        assert_eq!(status.state, State::Session);
        let past = running.end("the test is over").expect("past");
        assert_eq!((past.number, past.reason.as_str()), (1, "the test is over"));
        let status = board.fresh().await;
        assert_eq!((status.session, status.state), (None, State::Waiting));
        assert_eq!(status.last_session, Some(past));
    }

    #[tokio::test]
    async fn a_session_that_does_not_answer_is_still_shown() {
        let board = Board::new();
        let _running = board.begin(holder());
        let status = board.fresh().await;
        assert_eq!(status.session.expect("a session").report, None);
    }

    #[test]
    fn a_session_that_is_dropped_is_over() {
        let board = Board::new();
        drop(board.begin(holder()));
        drop(board.begin(holder()));
        let status = board.status();
        assert_eq!((status.sessions, status.session), (2, None));
        assert_eq!(status.last_session.map(|past| past.number), Some(2));
    }

    #[test]
    fn times_are_calendar_times() {
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(2_000_000_000_000_000_000), "2033-05-18T03:33:20Z");
        assert_eq!(moment(u64::MAX), "never");
    }
}

//! The sessions with the endpoint: one to begin with, another when its sockets are used up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pktlab::controller::{Controller, EndpointInfo, Totals};

use crate::embedded::Embedded;

pub struct Pool {
    info: EndpointInfo,
    sessions: Mutex<Vec<Controller>>,
    /// Makes further sessions; `None` for an endpoint that somebody else runs.
    source: Option<Arc<Embedded>>,
    growing: tokio::sync::Mutex<()>,
}

impl Pool {
    pub fn new(first: Controller, source: Option<Arc<Embedded>>) -> Pool {
        let info = first.info().clone();
        watch(&first);
        Pool { info, sessions: Mutex::new(vec![first]), source, growing: tokio::sync::Mutex::new(()) }
    }

    /// What the endpoint exports.
    pub fn info(&self) -> &EndpointInfo {
        &self.info
    }

    /// A session that can open another socket, or the errno for whoever wanted one.
    pub async fn session(&self) -> Result<Controller, i32> {
        if let Some(session) = self.with_room()? {
            return Ok(session);
        }
        let Some(source) = &self.source else { return Err(libc::ENFILE) };
        let _growing = self.growing.lock().await;
        // Somebody else may have grown the pool while this one waited.
        if let Some(session) = self.with_room()? {
            return Ok(session);
        }
        match source.session().await {
            Ok(session) => {
                watch(&session);
                self.lock().push(session.clone());
                Ok(session)
            }
            Err(error) => {
                tracing::warn!("cannot start another endpoint session: {error:#}");
                Err(libc::ENFILE)
            }
        }
    }

    /// ENETDOWN when no session is alive.
    fn with_room(&self) -> Result<Option<Controller>, i32> {
        let sessions = self.lock();
        if sessions.iter().all(|session| session.end_reason().is_some()) {
            return Err(libc::ENETDOWN);
        }
        Ok(sessions.iter().find(|session| session.has_room()).cloned())
    }

    /// Sum over all sessions.
    pub fn totals(&self) -> Totals {
        self.lock().iter().map(Controller::totals).fold(Totals::default(), |sum, part| Totals {
            sockets: sum.sockets + part.sockets,
            bytes_out: sum.bytes_out + part.bytes_out,
            messages_out: sum.messages_out + part.messages_out,
            bytes_in: sum.bytes_in + part.bytes_in,
            messages_in: sum.messages_in + part.messages_in,
        })
    }

    /// Ends all sessions in good order, which may take `limit`.
    pub async fn close(&self, limit: Duration) {
        let sessions = std::mem::take(&mut *self.lock());
        let closing = async {
            for session in &sessions {
                session.close(CLOSED);
            }
            for session in &sessions {
                session.finished().await;
            }
        };
        if tokio::time::timeout(limit, closing).await.is_err() {
            tracing::debug!("the endpoint did not close its side");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Controller>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CLOSED: &str = "pktwrap is done";

/// Tells the user when a session is lost.
fn watch(session: &Controller) {
    let session = session.clone();
    tokio::spawn(async move {
        let reason = session.ended().await;
        if &*reason != CLOSED {
            eprintln!("pktwrap: the endpoint session is lost: {reason}");
        }
    });
}

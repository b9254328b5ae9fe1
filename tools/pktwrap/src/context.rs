//! What every listener and flow of a supervisor shares.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pktwrap_link::Token;
use pktwrap_link::page::Page;
use tokio::sync::watch;

use crate::page::SharedPage;
use crate::pool::Pool;

pub struct Context {
    pub shared: SharedPage,
    /// The secret in every first message.
    pub token: Token,
    pub pool: Pool,
    /// Loopback destinations are served at the endpoint.
    pub loopback_at_endpoint: bool,
    exiting: watch::Sender<bool>,
    busy: Arc<watch::Sender<usize>>,
}

/// Held by a flow that must be finished before pktwrap may exit.
pub struct Busy(Arc<watch::Sender<usize>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Context {
    pub fn new(shared: SharedPage, token: Token, pool: Pool, loopback_at_endpoint: bool) -> Context {
        Context {
            shared,
            token,
            pool,
            loopback_at_endpoint,
            exiting: watch::Sender::new(false),
            busy: Arc::new(watch::Sender::new(0)),
        }
    }

    pub fn page(&self) -> &'static Page {
        self.shared.page()
    }

    /// Whether a destination is served on this machine. An exported resolver at a loopback address is the endpoint's.
    pub fn is_local(&self, remote: &SocketAddr) -> bool {
        remote.ip().is_loopback()
            && !self.loopback_at_endpoint
            && !(remote.port() == 53 && self.pool.info().resolvers.contains(&remote.ip()))
    }

    pub fn busy(&self) -> Busy {
        self.busy.send_modify(|count| *count += 1);
        Busy(self.busy.clone())
    }

    /// Completes when the program has ended.
    pub async fn exiting(&self) {
        // An error means that the context is going away, which comes later than exiting.
        let _ = self.exiting.subscribe().wait_for(|exiting| *exiting).await;
    }

    /// The program has ended: waits until what its sockets had sent is delivered, at most `limit`.
    pub async fn finish(&self, limit: Duration) {
        self.exiting.send_replace(true);
        let mut busy = self.busy.subscribe();
        if tokio::time::timeout(limit, busy.wait_for(|count| *count == 0)).await.is_err() {
            tracing::warn!("gave up delivering what the program had sent after {limit:?}");
        }
    }
}

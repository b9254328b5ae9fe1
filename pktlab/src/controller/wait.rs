//! The endpoint's clock: reading it, and waiting for it (the NWAIT extension where the endpoint has it).

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::{Controller, Error};
use crate::vmem::{extension, system};
use crate::wire::{ErrId, ExtRequest, NWait, Ticks};

/// A wait is left to the endpoint only this close to its end: the endpoint keeps 1,024 of them and none can be withdrawn, so a
/// program's time-outs of an hour that are never reached must not pile up there.
const NEAR: Duration = Duration::from_secs(2);
/// Farther away it is slept through here, and the endpoint's clock looked at this often in case it was set.
const LOOK: Duration = Duration::from_secs(30);

/// A registered token; gives it back when the wait is dropped.
struct Token {
    shared: Arc<Shared>,
    number: u32,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.shared.forget_wait(self.number);
    }
}

impl Controller {
    /// The endpoint's clock while it handled the request: ns since the Unix epoch.
    pub fn time(&self) -> impl Future<Output = Result<Ticks, Error>> + use<> {
        let answer = self.mread(system::TIME, 8);
        let shared = self.shared.clone();
        async move {
            let mut time = [0; 8];
            time.copy_from_slice(&answer.await?[..8]);
            let time = Ticks::from_be_bytes(time);
            shared.set_clock(time);
            Ok(time)
        }
    }

    /// Waits until the endpoint's clock has passed `time` and gives what it showed. Every event that the endpoint noticed
    /// before is in its socket's queue by then: a receiver with a deadline looks there first
    /// ([`RecvHalf::try_recv`](super::RecvHalf::try_recv)). Without the extension the clock is read until it is late enough,
    /// which makes the wait longer by up to a round trip of the session.
    pub fn wait_until(&self, time: Ticks) -> impl Future<Output = Result<Ticks, Error>> + use<> {
        let controller = self.clone();
        async move { controller.wait(time).await }
    }

    async fn wait(&self, time: Ticks) -> Result<Ticks, Error> {
        while let Some((left, age)) = self.shared.clock_left(time)
            && left > NEAR
        {
            // There is time for a round trip, and what is known may be from before the clock was set.
            if age < LOOK {
                self.pause(left - NEAR / 2).await?;
            }
            self.time().await?;
        }
        if self.extension(extension::NWAIT) {
            match self.notified(time).await {
                // Too many are pending, or a monitor is loaded.
                Err(error) if matches!(error.errid(), Some(ErrId::ESYSNOBUFS | ErrId::ECTLNOTSUP)) => {}
                outcome => return outcome,
            }
        }
        loop {
            let now = self.time().await?;
            if now >= time {
                return Ok(now);
            }
            self.pause(Duration::from_nanos(time - now)).await?;
        }
    }

    /// Sleeps for `long` or until it is time to look at the clock again; the end of the session is an error at once.
    async fn pause(&self, long: Duration) -> Result<(), Error> {
        tokio::select! {
            () = tokio::time::sleep(long.min(LOOK)) => Ok(()),
            _ = self.shared.wait_ended() => Err(self.shared.ended_error()),
        }
    }

    /// One NWAIT and its NTIME.
    async fn notified(&self, time: Ticks) -> Result<Ticks, Error> {
        let (number, passed) = self.shared.wait_for();
        let _token = Token { shared: self.shared.clone(), number };
        self.request_extension(&ExtRequest::NWait(NWait { token: number, time }))?.success().await?;
        passed.await.map_err(|_| self.shared.ended_error())
    }
}

//! How an endpoint that is told to stop tells its session: first "begin nothing new", then, after a grace, "end now".

use tokio::sync::watch;
use tokio::time::Instant;

/// The side that is told.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Until when a running session may go on.
    end: watch::Receiver<Option<Instant>>,
}

/// The side that tells.
#[derive(Debug)]
pub struct Stopper {
    end: watch::Sender<Option<Instant>>,
}

impl Stopper {
    pub fn new() -> (Stopper, Stop) {
        let (sender, receiver) = watch::channel(None);
        (Stopper { end: sender }, Stop { end: receiver })
    }

    /// No session begins from now on; a running one may go on until `end`.
    pub fn stop(&self, end: Instant) {
        self.end.send_replace(Some(end));
    }
}

impl Stop {
    /// Nobody will ever ask.
    pub fn never() -> Stop {
        Stopper::new().1
    }

    pub fn is_asked(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Waits until nothing new is to be begun.
    pub async fn asked(&self) {
        self.end().await;
    }

    /// Waits until the running session has to end: the grace after [`Stop::asked`] is over.
    pub async fn due(&self) {
        let end = self.end().await;
        tokio::time::sleep_until(end).await;
    }

    async fn end(&self) -> Instant {
        let mut receiver = self.end.clone();
        let asked = receiver.wait_for(Option::is_some).await.ok().and_then(|end| *end);
        match asked {
            Some(end) => end,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn asked_comes_before_due() {
        let (stopper, stop) = Stopper::new();
        tokio::select! {
            biased;
            () = stop.asked() => panic!("nobody asked"),
            () = std::future::ready(()) => assert!(!stop.is_asked()),
        }
        let end = Instant::now() + Duration::from_millis(100);
        stopper.stop(end);
        drop(stopper);
        stop.asked().await;
        assert!(stop.is_asked());
        stop.due().await;
        assert!(Instant::now() >= end);
    }

    #[tokio::test]
    async fn never_is_never() {
        let wait = tokio::time::timeout(Duration::from_millis(50), async {
            let stop = Stop::never();
            tokio::select! { () = stop.asked() => {}, () = stop.due() => {} }
        });
        assert!(wait.await.is_err());
    }
}

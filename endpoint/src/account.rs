//! The budgets that a session is charged to while it runs.

use anyhow::Context;
use pktlab::cert::{Burst, Verified};
use pktlab::wire::Ticks;
use tokio::task::JoinHandle;

use crate::limits::{Charge, Ledger, Store, StoreError, Usage, keys};

/// Writes to the store away from the thread that serves the session.
pub struct Account {
    store: Store,
    /// Where the next charge begins.
    charge: Charge,
    /// A charge whose caller did not wait for its end.
    pending: Option<JoinHandle<Result<Charge, StoreError>>>,
}

/// Limits of a session that begins now, and what to charge it to: nothing without a store.
///
/// # Errors
/// The store does not say what is left, so that the session must not begin.
pub async fn open(
    store: Option<&Store>,
    chain: &Verified,
    builtin: Option<Burst>,
    now: Ticks,
) -> anyhow::Result<(Ledger, Option<Account>)> {
    let keys = keys(chain);
    let Some(store) = store.cloned() else {
        return Ok((Ledger::new(chain, &vec![None; keys.len()], builtin, now), None));
    };
    let reading = tokio::task::spawn_blocking(move || {
        store.expire(now)?;
        let remembered = store.read(&keys)?;
        Ok::<_, StoreError>((store, remembered))
    });
    let (store, remembered) =
        reading.await?.context("what is left of the controller's limits cannot be told")?;
    let ledger = Ledger::new(chain, &remembered, builtin, now);
    Ok((ledger, Some(Account { store, charge: Charge::new(chain, &remembered), pending: None })))
}

impl Account {
    /// Records what the session used since its start. A call that is dropped is made all the same; the next one waits for it.
    pub async fn charge(&mut self, used: Usage) -> Result<(), StoreError> {
        self.settle().await?;
        let (store, mut charge) = (self.store.clone(), self.charge.clone());
        let write = move || store.charge(&mut charge, &used).map(|()| charge);
        self.pending = Some(tokio::task::spawn_blocking(write));
        self.settle().await
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let outcome = pending.await;
        self.pending = None;
        match outcome {
            Ok(charge) => self.charge = charge?,
            // Not begun, because the runtime ends: nothing is lost that the next session could use.
            Err(error) if error.is_cancelled() => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        Ok(())
    }
}

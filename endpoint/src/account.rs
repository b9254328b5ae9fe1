//! The budgets that a session is charged to while it runs.

use anyhow::Context;
use pktlab::cert::{Burst, Verified};
use pktlab::wire::Ticks;

use crate::limits::{Charge, Ledger, Store, StoreError, Usage, keys};

/// Writes to the store away from the thread that serves the session.
pub struct Account {
    store: Store,
    charge: Charge,
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
    Ok((ledger, Some(Account { store, charge: Charge::new(chain, &remembered) })))
}

impl Account {
    /// Records what the session used since its start. A call that is dropped is made all the same, and the next one counts
    /// from the same point, so that an interruption can only charge too much.
    pub async fn charge(&mut self, used: Usage) -> Result<(), StoreError> {
        let (store, mut charge) = (self.store.clone(), self.charge.clone());
        let writing = tokio::task::spawn_blocking(move || store.charge(&mut charge, &used).map(|()| charge));
        match writing.await {
            Ok(charged) => self.charge = charged?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        Ok(())
    }
}

//! What the certificates of a controller's chain allow in its session, and what is remembered of it between sessions
//! (spec `scheduling.md` §5).
//!
//! * [`Ledger`]: the limits of one session and what it has used; no I/O, no clock.
//! * [`Store`]: what is left of each certificate's own budgets, on disk.
//!
//! A session reads the store once, at its start, with the [`keys`] of its chain, and charges it with what it used, every
//! second and at its end.

mod amounts;
mod ledger;
mod record;
mod store;
mod window;

#[cfg(test)]
mod tests;

use std::fmt;

use pktlab::cert::{CertType, Certificate, KeyId, Verified};

pub use amounts::{Remaining, Usage};
pub use ledger::{Admit, Ledger};
pub use store::{Charge, Store, StoreError};

/// Names of unknown limits in one warning: a certificate has room for thousands.
const NAMED: usize = 8;

/// Identity of a certificate in the store (spec `scheduling.md` §5.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertKey {
    /// Key identifier of the signer.
    pub authority: KeyId,
    /// Serial number, big-endian, without leading zeros.
    pub serial: Vec<u8>,
}

impl CertKey {
    /// The key of this certificate's record.
    pub fn of(cert: &Certificate) -> CertKey {
        CertKey { authority: cert.authority_id, serial: cert.serial.clone() }
    }

    fn bytes(&self) -> Vec<u8> {
        [self.authority.as_slice(), &self.serial].concat()
    }
}

impl fmt::Display for CertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("serial ")?;
        self.serial.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(" signed by ")?;
        self.authority.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The certificates that carry limits, leaf side first.
fn privileges(chain: &Verified) -> impl Iterator<Item = &Certificate> {
    chain.certs.iter().filter(|cert| matches!(cert.cert_type, CertType::ExpPriv | CertType::DelPriv))
}

/// Keys of the privilege certificates, in chain order: what [`Store::read`] is asked for.
pub fn keys(chain: &Verified) -> Vec<CertKey> {
    privileges(chain).map(CertKey::of).collect()
}

/// Names of limits that their issuer did not mark as optional and that mean nothing here. They have no effect, as in the
/// reference (spec `certificates.md` §4): the operator should hear of them.
pub fn unknown(chain: &Verified) -> Vec<&str> {
    let fields = privileges(chain).flat_map(|cert| &cert.limits.unknown);
    let mut names: Vec<&str> =
        fields.filter(|(_, _, optional)| !optional).map(|(name, ..)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Says in one line of the log which limits of the chain have no effect, if any.
pub fn warn_unknown(chain: &Verified) {
    let names = unknown(chain);
    if names.is_empty() {
        return;
    }
    let shown = names[..names.len().min(NAMED)].join("`, `");
    let more = names.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    tracing::warn!(
        "limits of the controller's certificates that are unknown here and have no effect: `{shown}`{rest}"
    );
}

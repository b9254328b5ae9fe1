//! Combination rules, burst windows, and the store between sessions.

mod bursts;
mod kill;
mod ledger;
mod store;

use pktlab::cert::{CertType, Certificate, Issue, PrivateKey, Verified};
use pktlab::wire::Ticks;

use super::{Ledger, Remaining};

const SECOND: Ticks = 1_000_000_000;
const START: Ticks = 1_000 * SECOND;

/// A certificate with these limits, valid until `not_after` in Unix seconds.
fn certificate(kind: CertType, limits: &str, not_after: i64) -> Certificate {
    let key = PrivateKey::from_seed([1; 32]).expect("key");
    let mut issue = Issue::new(kind);
    issue.rights.experiment = kind == CertType::DelPriv;
    issue.not_after = not_after;
    issue.limits = limits
        .split_terminator(';')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    issue.sign(&key, &key.public_key()).expect("signed")
}

/// A chain of a leaf, delegations with all but the last of these limits, and a right to experiment with the last.
fn chain(limits: &[&str]) -> Verified {
    let mut certs = vec![certificate(CertType::PubCmd, "", 1_000_000)];
    for (i, limits) in limits.iter().enumerate().rev() {
        let kind = if i == 0 { CertType::ExpPriv } else { CertType::DelPriv };
        certs.push(certificate(kind, limits, 2_000_000));
    }
    Verified { order: (0..certs.len()).collect(), root: Some(0), certs }
}

fn ledger(limits: &[&str]) -> Ledger {
    Ledger::new(&chain(limits), &[], None, START)
}

fn left(fields: [u64; 5]) -> Remaining {
    let [send_packets, send_bytes, receive_packets, receive_bytes, run_time] = fields;
    Remaining { send_packets, send_bytes, receive_packets, receive_bytes, run_time }
}

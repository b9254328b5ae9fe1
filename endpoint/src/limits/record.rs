//! The record of one certificate in the store.
//!
//! | bytes | content, numbers big-endian |
//! |---|---|
//! | 0 | version, 1 |
//! | 1–8 | end of validity, ns since the epoch |
//! | 9–48 | left: send packets, receive packets, send bytes, receive bytes, run time in ns; 2^64−1 is unlimited |

use pktlab::wire::Ticks;

use super::Remaining;

const VERSION: u8 = 1;
pub(super) const LEN: usize = 49;

/// What is left of a certificate's budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The record may be deleted after this.
    pub expiry: Ticks,
    pub left: Remaining,
}

impl Record {
    pub fn emit(&self) -> [u8; LEN] {
        let mut out = [VERSION; LEN];
        let numbers = std::iter::once(self.expiry).chain(self.left.fields());
        for (cell, number) in out[1..].chunks_exact_mut(8).zip(numbers) {
            cell.copy_from_slice(&number.to_be_bytes());
        }
        out
    }

    /// `None`: not a record of this version.
    pub fn parse(bytes: &[u8]) -> Option<Record> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let (version, numbers) = bytes.split_first()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|number| u64::from_be_bytes(*number));
        let expiry = numbers.next()?;
        let mut fields = [0; 5];
        for field in &mut fields {
            *field = numbers.next()?;
        }
        (*version == VERSION).then_some(Record { expiry, left: Remaining::from_fields(fields) })
    }
}

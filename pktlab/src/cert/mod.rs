//! Keys and certificates (spec `certificates.md`).
//!
//! [`Certificate`] decodes one certificate, [`verify`] finds and checks a chain in one of three [`Mode`]s, [`Issue`]
//! signs new ones, [`ephemeral`] makes a whole throw-away set.

mod certificate;
mod issue;
mod keys;
mod limits;
mod text;
mod verify;

pub use certificate::{CertError, CertType, Certificate, Rights};
pub use issue::{Credentials, Issue, IssueError, ephemeral};
pub use keys::{KeyError, PrivateKey, PublicKey};
pub use limits::{Burst, Limits, Network};
pub use verify::{ChainError, Mode, Verified, verify};

/// SHA-256 of a raw public key; also the name of the key's private channel.
pub type KeyId = [u8; 32];

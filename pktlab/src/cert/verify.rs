//! Chain verification (spec `certificates.md` §5).

use std::fmt;

use super::{CertError, CertType, Certificate, KeyId, PublicKey};
use crate::wire::Ticks;

/// Who checks whom (spec `certificates.md` §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// subcmd, then delprivs with the reppriv right.
    ControllerAuthEndpoint,
    /// pubcmd, then delprivs with the exppriv right, then one exppriv.
    EndpointAuthController,
    /// One agent certificate.
    AuthAgent,
}

/// Why no valid chain was found; names as in spec `certificates.md` §5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("certificate {index} does not decode: {cause}")]
    Undecodable { index: usize, cause: CertError },
    #[error("certificate {index} is not signed by the key it names as its signer's (tampered with?)")]
    BadSignature { index: usize },
    #[error("{found} certificates presented, at least {needed} are needed")]
    NotEnoughCert { found: usize, needed: usize },
    #[error("{found} certificates presented, only one is allowed")]
    TooManyCert { found: usize },
    #[error("certificate {index} is of type {found}, which does not belong there")]
    UnexpectedCert { index: usize, found: CertType },
    #[error("certificate {index} is outside its validity period (expired or not yet valid)")]
    ExpiredCert { index: usize },
    #[error("no certificate and no trusted key signed certificate {index} (unknown root)")]
    NoMatchingSignKey { index: usize },
    #[error("certificate {index} allows fewer certificates below it than there are")]
    PathlenExceeded { index: usize },
    #[error("the chain goes on after certificate {index}, where it must end")]
    EndOfPhases { index: usize },
}

impl ChainError {
    /// Result name of the reference.
    pub fn name(&self) -> &'static str {
        match self {
            ChainError::Undecodable { .. } | ChainError::BadSignature { .. } => "BAD_CERT",
            ChainError::NotEnoughCert { .. } => "NOT_ENOUGH_CERT",
            ChainError::TooManyCert { .. } => "TOO_MANY_CERT",
            ChainError::UnexpectedCert { .. } => "UNEXPECTED_CERT",
            ChainError::ExpiredCert { .. } => "EXPIRED_CERT",
            ChainError::NoMatchingSignKey { .. } => "NO_MATCHING_SIGN_KEY",
            ChainError::PathlenExceeded { .. } => "PATHLEN_EXCEEDED",
            ChainError::EndOfPhases { .. } => "END_OF_PHASES",
        }
    }
}

impl fmt::Display for CertType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A chain that was found valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Indices into the offered list, leaf first.
    pub order: Vec<usize>,
    /// Index of the root that signed the last one; `None` when any root was accepted.
    pub root: Option<usize>,
    /// The used certificates, leaf first.
    pub certs: Vec<Certificate>,
}

impl Verified {
    /// Channels the holder may use (spec §5.5): a representation chain has one for every used certificate, an experiment
    /// chain the operator's only.
    pub fn channels(&self) -> Vec<KeyId> {
        let mut channels = self.certs.iter().map(|cert| cert.authority_id);
        match self.certs.first().map(|leaf| leaf.cert_type) {
            Some(CertType::PubCmd) => channels.next_back().into_iter().collect(),
            _ => channels.collect(),
        }
    }

    /// Earliest end of validity of the used certificates, ns since the epoch.
    pub fn not_after(&self) -> Ticks {
        self.certs.iter().map(|cert| cert.not_after).min().unwrap_or(0)
    }
}

/// A part of a mode's pattern, leaf first.
struct Part {
    fits: fn(&Certificate) -> bool,
    repeats: bool,
    may_end: bool,
}

const LEAF: fn(CertType, bool) -> Part = |cert_type, may_end| Part {
    fits: match cert_type {
        CertType::SubCmd => |c| c.cert_type == CertType::SubCmd,
        CertType::PubCmd => |c| c.cert_type == CertType::PubCmd,
        _ => |c| c.cert_type == CertType::Agent,
    },
    repeats: false,
    may_end,
};

fn pattern(mode: Mode) -> (usize, Vec<Part>) {
    let delegation = |fits, may_end| Part { fits, repeats: true, may_end };
    match mode {
        Mode::ControllerAuthEndpoint => {
            let run = delegation(|c| c.cert_type == CertType::DelPriv && c.rights.represent, true);
            (1, vec![LEAF(CertType::SubCmd, true), run])
        }
        Mode::EndpointAuthController => {
            let run = delegation(|c| c.cert_type == CertType::DelPriv && c.rights.experiment, false);
            let end = Part { fits: |c| c.cert_type == CertType::ExpPriv, repeats: false, may_end: true };
            (2, vec![LEAF(CertType::PubCmd, false), run, end])
        }
        Mode::AuthAgent => (1, vec![LEAF(CertType::Agent, true)]),
    }
}

/// Finds the chain in `certs` (DER, as received; the first is the leaf, the rest in any order) that ends at one of `roots`
/// (empty: at any, and then the top signature goes unchecked). `now` in ns since the epoch.
pub fn verify(
    mode: Mode,
    certs: &[impl AsRef<[u8]>],
    roots: &[PublicKey],
    now: Ticks,
) -> Result<Verified, ChainError> {
    let (needed, parts) = pattern(mode);
    if certs.len() < needed {
        return Err(ChainError::NotEnoughCert { found: certs.len(), needed });
    }
    if mode == Mode::AuthAgent && certs.len() > 1 {
        return Err(ChainError::TooManyCert { found: certs.len() });
    }
    let decoded: Vec<Certificate> = certs
        .iter()
        .enumerate()
        .map(|(index, der)| {
            Certificate::from_der(der.as_ref()).map_err(|cause| ChainError::Undecodable { index, cause })
        })
        .collect::<Result<_, _>>()?;

    let mut walk = Walk { certs: &decoded, roots, now, order: Vec::new(), found: None };
    let stopped = walk.run(&parts);
    match walk.found {
        Some((len, root)) => {
            walk.order.truncate(len);
            let certs = walk.order.iter().map(|&i| decoded[i].clone()).collect();
            Ok(Verified { order: walk.order, root, certs })
        }
        None => Err(stopped),
    }
}

struct Walk<'a> {
    certs: &'a [Certificate],
    roots: &'a [PublicKey],
    now: Ticks,
    /// Used so far, leaf first.
    order: Vec<usize>,
    /// Length and root of the longest valid chain seen.
    found: Option<(usize, Option<usize>)>,
}

impl Walk<'_> {
    /// Goes up from the leaf and remembers valid ends in `found`; returns why it stopped (meaningful if there was none).
    fn run(&mut self, parts: &[Part]) -> ChainError {
        let (mut index, mut part) = (0, 0);
        // A trusted root's key identifier under a wrong signature says more than "nobody else signed it either".
        let mut forged = None;
        loop {
            match self.check(index, parts, &mut part) {
                Ok(()) => self.order.push(index),
                Err(stop) => return stop,
            }
            let cert = &self.certs[index];
            let last = part + 1 == parts.len() && !parts[part].repeats;
            if parts[part].may_end {
                match self.root_of(index) {
                    Ok(root) => self.found = Some((self.order.len(), root)),
                    Err(stop) if last => return stop,
                    Err(stop @ ChainError::BadSignature { .. }) => forged = Some(stop),
                    Err(_) => {}
                }
            }
            if last {
                // The remembered result is this very end.
                return ChainError::EndOfPhases { index };
            }
            if !parts[part].repeats {
                part += 1;
            }
            let next = (1..self.certs.len())
                .find(|i| !self.order.contains(i) && self.certs[*i].subject_id == cert.authority_id);
            match next {
                Some(i) => index = i,
                None => return forged.unwrap_or(ChainError::NoMatchingSignKey { index }),
            }
        }
    }

    /// Steps 4 and 5 of the algorithm; moves `part` past a repeatable part that does not fit.
    fn check(&self, index: usize, parts: &[Part], part: &mut usize) -> Result<(), ChainError> {
        let cert = &self.certs[index];
        if !cert.valid_at(self.now) {
            return Err(ChainError::ExpiredCert { index });
        }
        while !(parts[*part].fits)(cert) {
            if !parts[*part].repeats {
                return Err(ChainError::UnexpectedCert { index, found: cert.cert_type });
            }
            if *part + 1 == parts.len() {
                return Err(ChainError::EndOfPhases { index });
            }
            *part += 1;
        }
        let Some(&below) = self.order.last() else { return Ok(()) };
        if cert.path_len.is_some_and(|allowed| self.order.len() - 1 > allowed as usize) {
            return Err(ChainError::PathlenExceeded { index });
        }
        if !self.certs[below].signed_by(&cert.key) {
            return Err(ChainError::BadSignature { index: below });
        }
        Ok(())
    }

    fn root_of(&self, index: usize) -> Result<Option<usize>, ChainError> {
        if self.roots.is_empty() {
            return Ok(None);
        }
        let cert = &self.certs[index];
        let root = self.roots.iter().position(|root| root.key_id() == cert.authority_id);
        let root = root.ok_or(ChainError::NoMatchingSignKey { index })?;
        if !cert.signed_by(&self.roots[root]) {
            return Err(ChainError::BadSignature { index });
        }
        Ok(Some(root))
    }
}

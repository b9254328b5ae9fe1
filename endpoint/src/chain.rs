//! From a controller's verified certificate chain to the limits of its session.

use pktlab::cert::{CertType, Certificate, Verified};

use crate::session::Limits;

/// A chain this endpoint must not serve, because it could not keep a limit in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the controller's certificates carry `{limit}`, which this endpoint cannot enforce yet; \
     issue the delegation without it or use an endpoint that can"
)]
pub struct Unenforceable {
    pub limit: &'static str,
}

/// Combines the limits of all certificates that carry some (spec `certificates.md` §4.2).
pub fn limits(chain: &Verified) -> Result<Limits, Unenforceable> {
    crate::limits::warn_unknown(chain);
    combine(&chain.certs)
}

fn combine(certs: &[Certificate]) -> Result<Limits, Unenforceable> {
    let mut all = Limits::default();
    for cert in certs.iter().filter(|cert| matches!(cert.cert_type, CertType::ExpPriv | CertType::DelPriv)) {
        let own = &cert.limits;
        let unenforceable = [
            ("max_exp_period", own.max_exp_period.is_some()),
            ("max_send_byte", own.max_send_byte.is_some()),
            ("max_recv_byte", own.max_recv_byte.is_some()),
            ("max_send_pkt", own.max_send_pkt.is_some()),
            ("max_recv_pkt", own.max_recv_pkt.is_some()),
            ("max_burst_rate_byte", !own.max_burst_rate_byte.is_empty()),
            ("max_burst_rate_pkt", !own.max_burst_rate_pkt.is_empty()),
        ];
        if let Some((limit, _)) = unenforceable.into_iter().find(|(_, present)| *present) {
            return Err(Unenforceable { limit });
        }
        if let Some(count) = own.max_socket_count {
            all.sockets = all.sockets.min(u32::try_from(count).unwrap_or(u32::MAX));
        }
        if let Some(networks) = &own.valid_dest {
            all.destinations.push(networks.clone());
        }
        all.monitors += own.monitors.len();
        all.end = all.end.min(cert.not_after);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use pktlab::cert::{Issue, PrivateKey};

    use super::*;

    fn certificate(kind: CertType, limits: &str) -> Certificate {
        let key = PrivateKey::from_seed([1; 32]).expect("key");
        let mut issue = Issue::new(kind);
        issue.not_after = 2_000;
        issue.limits = limits
            .split_terminator(';')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        issue.sign(&key, &key.public_key()).expect("signed")
    }

    #[test]
    fn limits_of_a_chain_add_up() {
        let certs = [
            certificate(CertType::ExpPriv, "max_socket_count=5;valid_dest=10.0.0.0/8;max_num_priority=3;"),
            certificate(CertType::ExpPriv, "max_socket_count=7;valid_dest=10.1.0.0/16,::1;"),
        ];
        let limits = combine(&certs).expect("enforceable");
        assert_eq!(limits.sockets, 5);
        assert_eq!(limits.end, 2_000_000_000_000);
        assert!(limits.allows("10.1.0.1".parse().expect("address")));
        assert!(!limits.allows("10.2.0.1".parse().expect("address")));
    }

    #[test]
    fn limits_that_cannot_be_kept_are_refused() {
        for limit in ["max_exp_period", "max_send_byte", "max_recv_byte", "max_send_pkt", "max_recv_pkt"] {
            let cert = certificate(CertType::ExpPriv, &format!("{limit}=1;"));
            assert_eq!(combine(&[cert]).expect_err("refused"), Unenforceable { limit });
        }
        let burst = certificate(CertType::ExpPriv, "max_burst_rate_pkt=1/2;");
        assert!(combine(&[burst]).is_err());
    }

    #[test]
    fn monitors_are_counted() {
        let cert = certificate(CertType::ExpPriv, &format!("monitor={};", "ab".repeat(64)));
        assert_eq!(combine(&[cert]).expect("enforceable").monitors, 2);
    }
}

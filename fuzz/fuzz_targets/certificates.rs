//! Certificates and chains as a TLS peer presents them, before its signature is known to be good. Input: one DER
//! certificate, or several one behind the other as their own length fields divide them.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pktlab::cert::{Certificate, Mode, PublicKey, verify};

/// The time at which the vectors' verdicts hold, in ns.
const NOW: u64 = 1_795_407_900_000_000_000;

/// Signs the chains among the seeds.
static OPERATOR: LazyLock<PublicKey> = LazyLock::new(|| {
    let pem = include_str!("../../pktlab/tests/vectors/chains/keys/k_eop.pub");
    PublicKey::from_pem(pem).expect("a public key in PEM")
});

fuzz_target!(|data: &[u8]| {
    let list = split(data);
    for der in &list {
        if let Ok(certificate) = Certificate::from_der(der) {
            assert_eq!(certificate.der(), *der);
            let again = Certificate::from_pem(&certificate.to_pem()).expect("what was decoded decodes again");
            assert_eq!(again.der(), *der);
            certificate.signed_by(&certificate.key);
        }
    }
    let roots = [*OPERATOR];
    for mode in [Mode::ControllerAuthEndpoint, Mode::EndpointAuthController, Mode::AuthAgent] {
        for roots in [&roots[..0], &roots[..]] {
            if let Ok(verified) = verify(mode, &list, roots, NOW) {
                assert_eq!(verified.order.len(), verified.certs.len());
                assert_eq!(
                    verified.order.first(),
                    Some(&0),
                    "the chain starts at the peer's own certificate"
                );
                assert!(verified.not_after() >= NOW);
                verified.channels();
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Certificate::from_pem(text);
        let _ = PublicKey::from_pem(text);
    }
});

/// Cuts at every DER SEQUENCE with a two-byte length, the size of all certificates; what does not fit is one last piece.
fn split(mut data: &[u8]) -> Vec<&[u8]> {
    let mut list = Vec::new();
    while let [0x30, 0x82, high, low, ..] = *data {
        let len = 4 + usize::from(u16::from_be_bytes([high, low]));
        let Some((first, rest)) = data.split_at_checked(len) else { break };
        list.push(first);
        data = rest;
    }
    if !data.is_empty() || list.is_empty() {
        list.push(data);
    }
    list
}

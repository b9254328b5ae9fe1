//! A controller's certificate chain in words an operator understands.

use std::fmt::Write;

use pktlab::cert::{Burst, CertType, Certificate, KeyId, Limits, Verified};

use super::report::{CertificateReport, Holder, moment};

/// Characters of a certificate's description that are shown; the rest is the peer's to fill.
const DESCRIPTION_MAX: usize = 200;

impl Holder {
    /// `controller`: where it is connected from.
    pub fn new(controller: String, chain: &Verified) -> Holder {
        let experimenter = chain.certs.first().map(|leaf| leaf.authority_id);
        let granted = chain.certs.iter().find(|cert| Some(cert.subject_id) == experimenter);
        Holder {
            controller,
            experimenter: experimenter.map(hex).unwrap_or_default(),
            description: granted.and_then(description),
            allowed: allowed(chain),
            certificates: chain.certs.iter().map(certificate).collect(),
        }
    }

    /// The experimenter in one short name.
    pub fn name(&self) -> String {
        let id = self.experimenter.get(..16).unwrap_or(&self.experimenter);
        match &self.description {
            Some(description) => format!("{description} ({id})"),
            None => id.to_owned(),
        }
    }
}

fn allowed(chain: &Verified) -> Vec<String> {
    let mut sentences = Vec::with_capacity(chain.certs.len());
    for (place, cert) in chain.certs.iter().enumerate().rev() {
        let mut text = String::new();
        let signer = short(&cert.authority_id);
        let subject = short(&cert.subject_id);
        // Writing to a String cannot fail.
        let _ = match (place + 1 == chain.certs.len(), chain.root) {
            (true, Some(_)) => write!(text, "operator {signer}, one of the configured roots, "),
            (true, None) => {
                write!(text, "{signer}, an operator nobody checked because no roots are configured, ")
            }
            (false, _) => write!(text, "{signer} "),
        };
        let _ = match cert.cert_type {
            CertType::ExpPriv => write!(text, "lets {subject} experiment"),
            CertType::DelPriv => write!(text, "lets {subject} delegate experiments"),
            CertType::PubCmd => write!(text, "lets the controller with key {subject} act in its name"),
            other => write!(text, "signed a {other} certificate for {subject}"),
        };
        if let Some(description) = description(cert) {
            let _ = write!(text, " (\"{description}\")");
        }
        let _ = write!(text, " until {}", moment(cert.not_after));
        let limits = limits(&cert.limits);
        if !limits.is_empty() {
            let _ = write!(text, ", with {}", limits.join(", "));
        }
        sentences.push(text);
    }
    sentences
}

fn certificate(cert: &Certificate) -> CertificateReport {
    CertificateReport {
        kind: cert.cert_type.name().to_owned(),
        description: description(cert),
        subject: hex(cert.subject_id),
        signer: hex(cert.authority_id),
        serial: hex(&cert.serial),
        not_after: moment(cert.not_after),
        limits: limits(&cert.limits),
    }
}

/// Without characters that would break the line it stands in.
fn description(cert: &Certificate) -> Option<String> {
    let text = cert.description.as_deref()?;
    Some(text.chars().take(DESCRIPTION_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
}

/// The limits of one certificate, one phrase each.
pub fn limits(limits: &Limits) -> Vec<String> {
    let mut words = Vec::new();
    for (count, what) in [
        (limits.max_socket_count, "sockets"),
        (limits.max_send_pkt, "packets sent"),
        (limits.max_send_byte, "bytes sent"),
        (limits.max_recv_pkt, "packets received"),
        (limits.max_recv_byte, "bytes received"),
    ] {
        words.extend(count.map(|count| format!("at most {count} {what}")));
    }
    words.extend(limits.max_exp_period.map(|ns| format!("at most {} s connected", ns / 1_000_000_000)));
    words.extend(limits.max_num_priority.map(|priority| format!("priority up to {priority}")));
    let burst = |burst: &Burst, what| {
        format!("at most {} {what} in any {} ms", burst.count, burst.window.div_ceil(1_000_000))
    };
    words.extend(limits.max_burst_rate_byte.iter().map(|entry| burst(entry, "bytes")));
    words.extend(limits.max_burst_rate_pkt.iter().map(|entry| burst(entry, "packets")));
    if let Some(networks) = &limits.valid_dest {
        let list: Vec<_> = networks.iter().map(|net| format!("{}/{}", net.addr, net.prefix)).collect();
        words.push(format!("destinations {} only", list.join(" ")));
    }
    if !limits.monitors.is_empty() {
        words.push(format!("{} monitors", limits.monitors.len()));
    }
    if limits.src_ip_spoofing == Some(true) {
        words.push("foreign source addresses".to_owned());
    }
    words
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Enough of a key identifier to tell keys apart.
fn short(id: &KeyId) -> String {
    hex(&id[..8])
}

#[cfg(test)]
mod tests {
    use pktlab::cert::{Issue, Mode, PrivateKey, verify};

    use super::*;

    fn chain(roots: bool) -> (Verified, [PrivateKey; 3]) {
        let keys = [1, 2, 3].map(|seed| PrivateKey::from_seed([seed; 32]).expect("key"));
        let issue = |kind, description: &str, limits: &[(&str, &str)]| Issue {
            not_before: 0,
            not_after: 2_000_000_000,
            description: Some(description.to_owned()),
            limits: limits.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Issue::new(kind)
        };
        let limits = [("max_socket_count", "5"), ("valid_dest", "192.0.2.0/24")];
        let exppriv = issue(CertType::ExpPriv, "Study of\tpaths", &limits)
            .sign(&keys[0], &keys[1].public_key())
            .expect("signed");
        let pubcmd =
            issue(CertType::PubCmd, "run 7", &[]).sign(&keys[1], &keys[2].public_key()).expect("signed");
        let roots: Vec<_> = roots.then(|| keys[0].public_key()).into_iter().collect();
        let now = 1_900_000_000_000_000_000;
        let offered = [pubcmd.der(), exppriv.der()];
        (verify(Mode::EndpointAuthController, &offered, &roots, now).expect("valid"), keys)
    }

    #[test]
    fn a_chain_is_told_from_the_operator_down() {
        let (chain, keys) = chain(true);
        let holder = Holder::new("192.0.2.1:5".into(), &chain);
        assert_eq!(holder.experimenter, hex(keys[1].public_key().key_id()));
        assert_eq!(holder.description.as_deref(), Some("Study of\u{fffd}paths"));
        assert_eq!(holder.allowed.len(), 2);
        let [grant, act] = [&holder.allowed[0], &holder.allowed[1]];
        for words in
            ["one of the configured roots", "at most 5 sockets", "192.0.2.0/24", "2033-05-18T03:33:20Z"]
        {
            assert!(grant.contains(words), "{words}: {grant}");
        }
        assert!(grant.contains(&short(&keys[0].public_key().key_id())), "{grant}");
        assert!(act.contains("in its name") && act.contains("run 7"), "{act}");
        assert_eq!(holder.certificates[0].kind, "pubcmd");
        assert!(holder.name().starts_with("Study of"));
    }

    #[test]
    fn missing_roots_are_told() {
        let (chain, _) = chain(false);
        let holder = Holder::new(String::new(), &chain);
        assert!(holder.allowed[0].contains("no roots are configured"), "{:?}", holder.allowed);
    }
}

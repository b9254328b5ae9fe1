//! Signing certificates with PPKSMan's profile (spec `certificates.md` §2).

use rcgen::{CustomExtension, DistinguishedName, DnType, KeyUsagePurpose, PublicKeyData, SerialNumber};
use time::OffsetDateTime;

use super::{CertError, CertType, Certificate, KeyError, PrivateKey, PublicKey, Rights};

/// Why a certificate could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("validity does not fit a certificate's years")]
    Validity,
    #[error("cannot encode the certificate: {0}")]
    Encoding(#[from] rcgen::Error),
    #[error("such a certificate would be refused by every verifier: {0}")]
    Refused(#[from] CertError),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A certificate to be.
#[derive(Clone, Debug)]
pub struct Issue {
    pub cert_type: CertType,
    /// For delpriv.
    pub rights: Rights,
    pub description: Option<String>,
    /// Pairs of the limitation extension, in this order; none: no such extension.
    pub limits: Vec<(String, String)>,
    pub path_len: Option<u32>,
    /// Unix seconds, both inclusive.
    pub not_before: i64,
    pub not_after: i64,
}

impl Issue {
    /// A certificate of this type without limits, valid from the epoch to 2038 as the reference's installation script
    /// makes them.
    pub fn new(cert_type: CertType) -> Issue {
        Issue {
            cert_type,
            rights: Rights::default(),
            description: None,
            limits: Vec::new(),
            path_len: None,
            not_before: 0,
            not_after: i64::from(i32::MAX),
        }
    }

    /// Signs it. The serial number is random, 126 bits, never 0. What comes out was decoded again, so it obeys the profile.
    pub fn sign(&self, signer: &PrivateKey, subject: &PublicKey) -> Result<Certificate, IssueError> {
        let mut params = rcgen::CertificateParams::default();
        let time = |s| OffsetDateTime::from_unix_timestamp(s).map_err(|_| IssueError::Validity);
        params.not_before = time(self.not_before)?;
        params.not_after = time(self.not_after)?;
        params.serial_number = Some(SerialNumber::from(serial()?.to_vec()));
        params.distinguished_name = blank_name();
        params.key_usages = vec![if self.cert_type.signs() {
            KeyUsagePurpose::KeyCertSign
        } else {
            KeyUsagePurpose::DigitalSignature
        }];
        params.custom_extensions = self.extensions(signer, subject);

        let mut issuer_params = rcgen::CertificateParams::default();
        issuer_params.distinguished_name = blank_name();
        issuer_params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = rcgen::Issuer::new(issuer_params, Signer(signer));
        let certificate = params.signed_by(&Subject(*subject), &issuer)?;
        Ok(Certificate::from_der(certificate.der())?)
    }

    /// Everything but key usage; written here because rcgen would shorten key identifiers and spell out `cA FALSE`.
    fn extensions(&self, signer: &PrivateKey, subject: &PublicKey) -> Vec<CustomExtension> {
        let authority = signer.public_key().key_id();
        let mut extensions = vec![
            extension(&[2, 5, 29, 35], false, tlv(0x30, &tlv(0x80, &authority))),
            extension(&[2, 5, 29, 14], false, tlv(0x04, &subject.key_id())),
            extension(&[2, 5, 29, 19], true, self.basic_constraints()),
            extension(&[1, 2, 3, 1], true, tlv(0x04, self.info_text().as_bytes())),
        ];
        if !self.limits.is_empty() {
            let text: String = self.limits.iter().map(|(n, v)| format!("{n}={v};")).collect();
            extensions.push(extension(&[1, 2, 3, 3], true, tlv(0x04, text.as_bytes())));
        }
        extensions
    }

    fn basic_constraints(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.cert_type.signs() {
            body.extend([0x01, 0x01, 0xff]);
        }
        if let Some(len) = self.path_len {
            let bytes = u64::from(len).to_be_bytes();
            let mut number: Vec<u8> = bytes.iter().copied().skip_while(|&b| b == 0).collect();
            if number.first().is_none_or(|b| b & 0x80 != 0) {
                number.insert(0, 0);
            }
            body.extend(tlv(0x02, &number));
        }
        tlv(0x30, &body)
    }

    fn info_text(&self) -> String {
        let mut text = format!("cert_type={};", self.cert_type.name());
        if self.cert_type == CertType::DelPriv {
            let rights = [(self.rights.experiment, "exppriv"), (self.rights.represent, "reppriv")];
            let rights: Vec<_> = rights.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
            text += &format!("del_type={};", rights.join(","));
        }
        if let Some(description) = &self.description {
            text += &format!("cert_desc={description};");
        }
        text
    }
}

fn extension(oid: &[u64], critical: bool, content: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content);
    extension.set_criticality(critical);
    extension
}

/// One DER element of up to 64 KiB.
fn tlv(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match body.len() {
        len @ 0..=0x7F => out.push(len as u8),
        len @ 0x80..=0xFF => out.extend([0x81, len as u8]),
        len => out.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    out.extend_from_slice(body);
    out
}

fn blank_name() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, " ");
    name
}

fn serial() -> Result<[u8; 16], KeyError> {
    let mut serial = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut serial)
        .map_err(|_| KeyError::Random)?;
    // Positive, and as many bytes as ever.
    serial[0] = serial[0] & 0x3F | 0x40;
    Ok(serial)
}

struct Signer<'a>(&'a PrivateKey);
struct Subject(PublicKey);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.raw_public()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).to_vec())
    }
}

/// Keys and certificates of a whole small world: one operator, one endpoint, one experimenter with one controller.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub operator: PrivateKey,
    pub endpoint_key: PrivateKey,
    /// subcmd.
    pub endpoint_chain: Vec<Certificate>,
    pub controller_key: PrivateKey,
    /// pubcmd, exppriv.
    pub controller_chain: Vec<Certificate>,
}

/// Fresh keys and certificates, valid from an hour ago to 30 days from `now` (Unix seconds).
pub fn ephemeral(now: i64) -> Result<Credentials, IssueError> {
    let (operator, experimenter) = (PrivateKey::generate()?, PrivateKey::generate()?);
    let (endpoint_key, controller_key) = (PrivateKey::generate()?, PrivateKey::generate()?);
    let issue = |cert_type| Issue {
        not_before: now - 3600,
        not_after: now + 30 * 24 * 3600,
        ..Issue::new(cert_type)
    };
    let subcmd = issue(CertType::SubCmd).sign(&operator, &endpoint_key.public_key())?;
    let exppriv = issue(CertType::ExpPriv).sign(&operator, &experimenter.public_key())?;
    let pubcmd = issue(CertType::PubCmd).sign(&experimenter, &controller_key.public_key())?;
    Ok(Credentials {
        operator,
        endpoint_key,
        endpoint_chain: vec![subcmd],
        controller_key,
        controller_chain: vec![pubcmd, exppriv],
    })
}

//! One certificate: decoding and the profile's demands (spec `certificates.md` §2, §5.4).

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Extension, X509Version};

use super::limits::Limits;
use super::{KeyId, PublicKey, text};
use crate::wire::Ticks;

pub(super) const OID_INFO: &str = "1.2.3.1";
pub(super) const OID_LIMIT: &str = "1.2.3.3";
const OID_ED25519: &str = "1.3.101.112";
const OID_AKI: &str = "2.5.29.35";
const OID_SKI: &str = "2.5.29.14";
const OID_KEY_USAGE: &str = "2.5.29.15";
const OID_BASIC_CONSTRAINTS: &str = "2.5.29.19";
/// Revocation and information access: tolerated and ignored.
const TOLERATED: [&str; 4] = ["2.5.29.31", "2.5.29.46", "1.3.6.1.5.5.7.1.1", "1.3.6.1.5.5.7.1.11"];

/// Why a certificate does not decode; names and order of checks as in spec `certificates.md` §5.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    #[error("no PEM block CERTIFICATE found")]
    NoPem,
    #[error("not an X.509 certificate (broken DER)")]
    Der,
    #[error("signature algorithm is not Ed25519")]
    BadSigalg,
    #[error("not an X.509 v3 certificate")]
    BadX509Ver,
    #[error("an X.509 field or extension that PacketLab does not use")]
    UsingUnusedField,
    #[error("cert_type missing or unknown")]
    BadCertType,
    #[error("key usage missing or wrong for the certificate's type")]
    BadKeyusage,
    #[error("serial number unusable")]
    BadSerial,
    #[error("validity unreadable")]
    BadValidity,
    #[error("subject key is not Ed25519")]
    BadSubjPubkey,
    #[error("authority key identifier missing or wrong")]
    BadAid,
    #[error("subject key identifier missing or not that of the key")]
    BadSid,
    #[error("basic constraints missing or wrong for the certificate's type")]
    BadBc,
    #[error("PacketLab information extension missing or broken")]
    BadCertInfo,
    #[error("PacketLab limitation extension broken, or in a leaf certificate")]
    BadCertLimit,
    #[error("max_num_priority is not a number")]
    BadMaxNumPriority,
    #[error("monitor digests unreadable")]
    BadMonitorDigests,
    #[error("del_type missing, unknown or misplaced")]
    BadDelType,
    #[error("valid_dest unreadable")]
    BadValidDest,
    #[error("src_ip_spoofing is neither 0 nor 1")]
    BadSrcIpSpoofing,
    #[error("max_burst_rate unreadable")]
    BadMaxBurstRate,
    #[error("max_socket_count is not a number")]
    BadMaxSocketCount,
    #[error("max_exp_period is not a number")]
    BadMaxExpPeriod,
    #[error("max_send_byte is not a number")]
    BadMaxSendByte,
    #[error("max_send_pkt is not a number")]
    BadMaxSendPkt,
    #[error("max_recv_byte is not a number")]
    BadMaxRecvByte,
    #[error("max_recv_pkt is not a number")]
    BadMaxRecvPkt,
}

/// What a certificate is for (spec `certificates.md` §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertType {
    SubCmd,
    PubCmd,
    ExpPriv,
    DelPriv,
    Agent,
}

impl CertType {
    pub const ALL: [CertType; 5] =
        [CertType::SubCmd, CertType::PubCmd, CertType::ExpPriv, CertType::DelPriv, CertType::Agent];

    /// As written in `cert_type`.
    pub fn name(self) -> &'static str {
        match self {
            CertType::SubCmd => "subcmd",
            CertType::PubCmd => "pubcmd",
            CertType::ExpPriv => "exppriv",
            CertType::DelPriv => "delpriv",
            CertType::Agent => "agent",
        }
    }

    /// Certificates of this type sign others.
    pub fn signs(self) -> bool {
        matches!(self, CertType::ExpPriv | CertType::DelPriv)
    }
}

/// Rights a delpriv hands on; both false for other types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    pub experiment: bool,
    pub represent: bool,
}

/// A decoded certificate that obeys the profile. Its signature is not checked here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    pub cert_type: CertType,
    pub rights: Rights,
    pub description: Option<String>,
    /// All pairs of the information extension, in written order.
    pub info: Vec<(String, String)>,
    pub limits: Limits,
    pub key: PublicKey,
    pub subject_id: KeyId,
    /// Key identifier of the signer.
    pub authority_id: KeyId,
    /// Big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// First and last valid instant, ns since the epoch, clamped to what fits.
    pub not_before: Ticks,
    pub not_after: Ticks,
    pub path_len: Option<u32>,
    signed_part: std::ops::Range<usize>,
    signature: [u8; 64],
}

impl Certificate {
    /// Reads a `*.cert` file: the first PEM block `CERTIFICATE`.
    pub fn from_pem(text: &str) -> Result<Certificate, CertError> {
        let blocks = pem::parse_many(text).map_err(|_| CertError::NoPem)?;
        let block = blocks.iter().find(|b| b.tag() == "CERTIFICATE").ok_or(CertError::NoPem)?;
        Certificate::from_der(block.contents())
    }

    pub fn from_der(der: &[u8]) -> Result<Certificate, CertError> {
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| CertError::Der)?;
        if !rest.is_empty() {
            return Err(CertError::Der);
        }
        decode(der, &x509)
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub fn to_pem(&self) -> String {
        pem::encode_config(
            &pem::Pem::new("CERTIFICATE", self.der.clone()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        )
    }

    /// Is this certificate signed by `key`?
    pub fn signed_by(&self, key: &PublicKey) -> bool {
        key.verify(&self.der[self.signed_part.clone()], &self.signature)
    }

    /// notBefore ≤ now ≤ notAfter, in ns.
    pub fn valid_at(&self, now: Ticks) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

fn decode(der: &[u8], x509: &X509Certificate<'_>) -> Result<Certificate, CertError> {
    let tbs = &x509.tbs_certificate;
    if x509.signature_algorithm.algorithm.to_id_string() != OID_ED25519
        || tbs.signature.algorithm.to_id_string() != OID_ED25519
    {
        return Err(CertError::BadSigalg);
    }
    if tbs.version != X509Version::V3 {
        return Err(CertError::BadX509Ver);
    }
    let extensions = Extensions::sort(tbs.extensions())?;
    if tbs.issuer_uid.is_some() || tbs.subject_uid.is_some() {
        return Err(CertError::UsingUnusedField);
    }

    let info = extensions.info.ok_or(CertError::BadCertInfo)?;
    let info = private_text(info, false).ok_or(CertError::BadCertInfo)?;
    let field = |name: &str| info.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let cert_type = field("cert_type").and_then(|v| CertType::ALL.into_iter().find(|t| t.name() == v));
    let cert_type = cert_type.ok_or(CertError::BadCertType)?;

    check_key_usage(extensions.key_usage, cert_type)?;
    let serial: Vec<u8> = tbs.raw_serial().iter().copied().skip_while(|&b| b == 0).collect();
    if serial.is_empty() || tbs.raw_serial()[0] & 0x80 != 0 {
        return Err(CertError::BadSerial);
    }
    let (not_before, not_after) = (ticks(tbs.validity.not_before), ticks(tbs.validity.not_after));
    let key = subject_key(x509).ok_or(CertError::BadSubjPubkey)?;
    let authority_id = authority_id(extensions.aki).ok_or(CertError::BadAid)?;
    let subject_id = subject_id(extensions.ski).ok_or(CertError::BadSid)?;
    if subject_id != key.key_id() {
        return Err(CertError::BadSid);
    }
    let path_len = basic_constraints(extensions.basic_constraints, cert_type)?;
    let limit_pairs = match extensions.limit {
        None => Vec::new(),
        Some(_) if !cert_type.signs() => return Err(CertError::BadCertLimit),
        Some(extension) => private_text(extension, true).ok_or(CertError::BadCertLimit)?,
    };
    let rights = rights(field("del_type"), cert_type)?;
    let limits = Limits::parse(&limit_pairs)?;

    let start = tbs.as_ref().as_ptr() as usize - der.as_ptr() as usize;
    let signature = x509.signature_value.data.as_ref().try_into().map_err(|_| CertError::BadSigalg)?;
    let description = field("cert_desc").map(str::to_owned);
    Ok(Certificate {
        der: der.to_vec(),
        cert_type,
        rights,
        description,
        info,
        limits,
        key,
        subject_id,
        authority_id,
        serial,
        not_before,
        not_after,
        path_len,
        signed_part: start..start + tbs.as_ref().len(),
        signature,
    })
}

/// The extensions of a certificate by their role.
#[derive(Default)]
struct Extensions<'a> {
    info: Option<&'a X509Extension<'a>>,
    limit: Option<&'a X509Extension<'a>>,
    aki: Option<&'a X509Extension<'a>>,
    ski: Option<&'a X509Extension<'a>>,
    key_usage: Option<&'a X509Extension<'a>>,
    basic_constraints: Option<&'a X509Extension<'a>>,
}

impl<'a> Extensions<'a> {
    fn sort(all: &'a [X509Extension<'a>]) -> Result<Extensions<'a>, CertError> {
        let mut sorted = Extensions::default();
        if all.is_empty() {
            return Err(CertError::UsingUnusedField);
        }
        for extension in all {
            let place = match extension.oid.to_id_string().as_str() {
                OID_INFO => &mut sorted.info,
                OID_LIMIT => &mut sorted.limit,
                OID_AKI => &mut sorted.aki,
                OID_SKI => &mut sorted.ski,
                OID_KEY_USAGE => &mut sorted.key_usage,
                OID_BASIC_CONSTRAINTS => &mut sorted.basic_constraints,
                oid if TOLERATED.contains(&oid) => continue,
                _ => return Err(CertError::UsingUnusedField),
            };
            if place.replace(extension).is_some() {
                return Err(CertError::UsingUnusedField);
            }
        }
        Ok(sorted)
    }
}

/// The text of a private extension: critical, and a second OCTET STRING that fills the first.
fn private_text(extension: &X509Extension<'_>, limits: bool) -> Option<Vec<(String, String)>> {
    use x509_parser::der_parser::asn1_rs::{FromDer as _, OctetString};
    if !extension.critical {
        return None;
    }
    let (rest, inner) = OctetString::from_der(extension.value).ok()?;
    if !rest.is_empty() {
        return None;
    }
    text::pairs(std::str::from_utf8(inner.as_ref()).ok()?, limits)
}

fn check_key_usage(extension: Option<&X509Extension<'_>>, cert_type: CertType) -> Result<(), CertError> {
    const DIGITAL_SIGNATURE: u16 = 1;
    const KEY_CERT_SIGN: u16 = 1 << 5;
    const CRL_SIGN: u16 = 1 << 6;
    let Some(ParsedExtension::KeyUsage(usage)) = extension.map(X509Extension::parsed_extension) else {
        return Err(CertError::BadKeyusage);
    };
    let fits = match usage.flags {
        DIGITAL_SIGNATURE => !cert_type.signs(),
        KEY_CERT_SIGN => cert_type.signs(),
        flags => flags == KEY_CERT_SIGN | CRL_SIGN && cert_type.signs(),
    };
    if fits { Ok(()) } else { Err(CertError::BadKeyusage) }
}

fn subject_key(x509: &X509Certificate<'_>) -> Option<PublicKey> {
    let spki = x509.public_key();
    if spki.algorithm.algorithm.to_id_string() != OID_ED25519 {
        return None;
    }
    spki.subject_public_key.data.as_ref().try_into().ok().map(PublicKey)
}

fn authority_id(extension: Option<&X509Extension<'_>>) -> Option<KeyId> {
    let extension = extension.filter(|e| !e.critical)?;
    let ParsedExtension::AuthorityKeyIdentifier(aki) = extension.parsed_extension() else { return None };
    aki.key_identifier.as_ref()?.0.try_into().ok()
}

fn subject_id(extension: Option<&X509Extension<'_>>) -> Option<KeyId> {
    let extension = extension.filter(|e| !e.critical)?;
    let ParsedExtension::SubjectKeyIdentifier(ski) = extension.parsed_extension() else { return None };
    ski.0.try_into().ok()
}

fn basic_constraints(
    extension: Option<&X509Extension<'_>>,
    cert_type: CertType,
) -> Result<Option<u32>, CertError> {
    let extension = extension.filter(|e| e.critical).ok_or(CertError::BadBc)?;
    let ParsedExtension::BasicConstraints(bc) = extension.parsed_extension() else {
        return Err(CertError::BadBc);
    };
    if bc.ca != cert_type.signs() || (!bc.ca && bc.path_len_constraint.is_some()) {
        return Err(CertError::BadBc);
    }
    Ok(bc.path_len_constraint)
}

fn rights(del_type: Option<&str>, cert_type: CertType) -> Result<Rights, CertError> {
    let mut rights = Rights::default();
    let Some(list) = del_type.filter(|_| cert_type == CertType::DelPriv) else {
        let fits = del_type.is_none() && cert_type != CertType::DelPriv;
        return if fits { Ok(rights) } else { Err(CertError::BadDelType) };
    };
    for right in list.split(',') {
        match right {
            "exppriv" => rights.experiment = true,
            "reppriv" => rights.represent = true,
            _ => return Err(CertError::BadDelType),
        }
    }
    Ok(rights)
}

/// Seconds to ns, clamped at both ends (spec `certificates.md` §9.9: never wrap).
fn ticks(time: ASN1Time) -> Ticks {
    u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1_000_000_000)
}

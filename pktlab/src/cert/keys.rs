//! Ed25519 keys and their files (spec `certificates.md` §1).

use std::fmt;

use pkcs8::der::{Decode, Encode};
use pkcs8::{EncryptedPrivateKeyInfo, PrivateKeyInfo};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::KeyId;

const ED25519_OID: pkcs8::ObjectIdentifier = pkcs8::ObjectIdentifier::new_unwrap("1.3.101.112");
/// SubjectPublicKeyInfo of an Ed25519 key up to the raw key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "no PEM block {0} found; give a key file as PPKSMan or `openssl genpkey -algorithm ed25519` writes it"
    )]
    NoPem(&'static str),
    #[error("the private key is encrypted; a passphrase is needed")]
    Encrypted,
    #[error("cannot decrypt the private key; the passphrase is probably wrong")]
    Passphrase,
    #[error("not an Ed25519 key; PacketLab uses no other algorithm")]
    Algorithm,
    #[error("the key's encoding is broken: {0}")]
    Encoding(String),
    #[error("the system's random number generator failed")]
    Random,
}

/// A raw Ed25519 public key, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Key identifier: SHA-256 over the raw key.
    pub fn key_id(&self) -> KeyId {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        let mut id = [0; 32];
        id.copy_from_slice(digest.as_ref());
        id
    }

    /// Reads a `NAME.pub` file: PEM `PUBLIC KEY`.
    pub fn from_pem(text: &str) -> Result<PublicKey, KeyError> {
        let block = find_pem(text, |tag| tag == "PUBLIC KEY").ok_or(KeyError::NoPem("PUBLIC KEY"))?;
        let raw = block.contents().strip_prefix(&SPKI_PREFIX).ok_or(KeyError::Algorithm)?;
        raw.try_into().map(PublicKey).map_err(|_| KeyError::Encoding("wrong length".into()))
    }

    pub fn to_pem(&self) -> String {
        pem::encode_config(
            &pem::Pem::new("PUBLIC KEY", [&SPKI_PREFIX[..], &self.0].concat()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        )
    }

    /// Is `signature` (64 bytes) this key's over `message`?
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", hex::encode(self.0))
    }
}

/// An Ed25519 private key; never printed.
pub struct PrivateKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl PrivateKey {
    pub fn generate() -> Result<PrivateKey, KeyError> {
        let mut seed = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed)
            .map_err(|_| KeyError::Random)?;
        PrivateKey::from_seed(seed)
    }

    pub fn from_seed(seed: [u8; 32]) -> Result<PrivateKey, KeyError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|e| KeyError::Encoding(e.to_string()))?;
        Ok(PrivateKey { seed, pair })
    }

    /// Reads a key file: PEM `PRIVATE KEY` (PKCS#8) or, with the passphrase, `ENCRYPTED PRIVATE KEY` (PBES2).
    pub fn from_pem(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
        let block =
            find_pem(text, |tag| tag.ends_with("PRIVATE KEY")).ok_or(KeyError::NoPem("PRIVATE KEY"))?;
        let encoding = |e: pkcs8::der::Error| KeyError::Encoding(e.to_string());
        match block.tag() {
            "PRIVATE KEY" => {
                PrivateKey::from_info(PrivateKeyInfo::from_der(block.contents()).map_err(encoding)?)
            }
            "ENCRYPTED PRIVATE KEY" => {
                let passphrase = passphrase.ok_or(KeyError::Encrypted)?;
                let locked = EncryptedPrivateKeyInfo::from_der(block.contents()).map_err(encoding)?;
                let open = locked.decrypt(passphrase).map_err(|_| KeyError::Passphrase)?;
                PrivateKey::from_info(
                    PrivateKeyInfo::from_der(open.as_bytes()).map_err(|_| KeyError::Passphrase)?,
                )
            }
            _ => Err(KeyError::Algorithm),
        }
    }

    fn from_info(info: PrivateKeyInfo<'_>) -> Result<PrivateKey, KeyError> {
        if info.algorithm.oid != ED25519_OID {
            return Err(KeyError::Algorithm);
        }
        // RFC 8410: an OCTET STRING of 32 bytes inside the PKCS#8 octet string.
        let seed = info.private_key.strip_prefix(&[0x04, 0x20]).and_then(|raw| raw.try_into().ok());
        PrivateKey::from_seed(seed.ok_or_else(|| KeyError::Encoding("wrong length".into()))?)
    }

    /// PKCS#8 v1, DER, not encrypted.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        let algorithm = pkcs8::AlgorithmIdentifierRef { oid: ED25519_OID, parameters: None };
        let wrapped = [&[0x04, 0x20], &self.seed[..]].concat();
        PrivateKeyInfo::new(algorithm, &wrapped).to_der().expect("48 bytes of fixed shape encode")
    }

    /// PEM `PRIVATE KEY`, not encrypted.
    pub fn to_pem(&self) -> String {
        pem::encode_config(
            &pem::Pem::new("PRIVATE KEY", self.to_pkcs8()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        )
    }

    /// PEM `ENCRYPTED PRIVATE KEY` as PPKSMan writes it: PBES2 with PBKDF2-HMAC-SHA256 and AES-256-CBC.
    pub fn to_encrypted_pem(&self, passphrase: &str) -> Result<String, KeyError> {
        const ROUNDS: u32 = 2048;
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        let random = ring::rand::SystemRandom::new();
        for bytes in [&mut salt, &mut iv] {
            ring::rand::SecureRandom::fill(&random, bytes).map_err(|_| KeyError::Random)?;
        }
        let encoding = |e: &dyn fmt::Display| KeyError::Encoding(e.to_string());
        let parameters = pkcs8::pkcs5::pbes2::Parameters::pbkdf2_sha256_aes256cbc(ROUNDS, &salt, &iv)
            .map_err(|e| encoding(&e))?;
        let plain = self.to_pkcs8();
        let info = PrivateKeyInfo::from_der(&plain).map_err(|e| encoding(&e))?;
        let locked = info.encrypt_with_params(parameters, passphrase).map_err(|e| encoding(&e))?;
        Ok(pem::encode_config(
            &pem::Pem::new("ENCRYPTED PRIVATE KEY", locked.as_bytes()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        ))
    }

    pub fn public_key(&self) -> PublicKey {
        let mut raw = [0; 32];
        raw.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(raw)
    }

    pub(super) fn raw_public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// 64-byte signature over `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

impl Clone for PrivateKey {
    fn clone(&self) -> PrivateKey {
        PrivateKey::from_seed(self.seed).expect("the seed made a key before")
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", hex::encode(self.public_key().0))
    }
}

fn find_pem(text: &str, wanted: impl Fn(&str) -> bool) -> Option<pem::Pem> {
    pem::parse_many(text).ok()?.into_iter().find(|block| wanted(block.tag()))
}

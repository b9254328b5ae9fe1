//! What a party presents, and the server name it asks for.

use std::fmt;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cert::{Certificate, PrivateKey};

/// Why an identity or a server name is unusable; found before any byte is sent.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "none of the certificates belongs to the private key; the chain must hold the certificate of that key"
    )]
    NoCertificateForKey,
    #[error("the private key cannot sign: {0}")]
    Key(rustls::Error),
    #[error("a snikey has 1 to 63 characters out of 0-9 and a-z; {0:?} is none")]
    Snikey(String),
    #[error(
        "the TLS library cannot carry the snikey {0:?} because it has digits only; use one with a letter in it"
    )]
    DigitsOnly(String),
}

/// A private key and the certificates to present with it, the key's own first.
#[derive(Clone)]
pub struct Identity {
    key: PrivateKey,
    chain: Vec<Certificate>,
}

impl Identity {
    /// Moves the certificate of `key` to the front; the order of the others stays.
    pub fn new(key: PrivateKey, mut chain: Vec<Certificate>) -> Result<Identity, IdentityError> {
        let public = key.public_key();
        let own =
            chain.iter().position(|cert| cert.key == public).ok_or(IdentityError::NoCertificateForKey)?;
        chain[..=own].rotate_right(1);
        Ok(Identity { key, chain })
    }

    /// The certificates in the order they are sent.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    pub(super) fn resolver(&self) -> Result<Resolver, IdentityError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.to_pkcs8()));
        let key = rustls::crypto::ring::sign::any_eddsa_type(match &der {
            PrivateKeyDer::Pkcs8(der) => der,
            _ => unreachable!("made two lines above"),
        })
        .map_err(IdentityError::Key)?;
        let certs = self.chain.iter().map(|cert| CertificateDer::from(cert.der().to_vec())).collect();
        // Not `from_der`: that would parse the certificate by rules it does not obey; the key was compared in `new`.
        Ok(Resolver(Arc::new(CertifiedKey::new(certs, key))))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, {} certificates)", self.key.public_key(), self.chain.len())
    }
}

/// Presents the same certificates whatever is asked.
#[derive(Debug)]
pub(super) struct Resolver(Arc<CertifiedKey>);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Selects an experiment at a controller: 1–63 characters out of `0-9 a-z` (spec `session.md` §5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snikey(String);

impl Snikey {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn server_name(&self) -> Result<ServerName<'static>, IdentityError> {
        DnsName::try_from(self.0.clone())
            .map(ServerName::DnsName)
            .map_err(|_| IdentityError::DigitsOnly(self.0.clone()))
    }
}

impl TryFrom<&str> for Snikey {
    type Error = IdentityError;

    fn try_from(text: &str) -> Result<Snikey, IdentityError> {
        let legal = |c: u8| c.is_ascii_digit() || c.is_ascii_lowercase();
        if (1..=63).contains(&text.len()) && text.bytes().all(legal) {
            Ok(Snikey(text.to_owned()))
        } else {
            Err(IdentityError::Snikey(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::cert::{Mode, ephemeral};
    use crate::session::{Acceptor, ClientConfig, Entry, connect};
    use crate::wire::MessageReader;

    /// Somebody presents the chain of another without holding its key: only CertificateVerify can tell.
    #[tokio::test]
    async fn a_stolen_chain_is_refused_on_both_sides() {
        let c = ephemeral((crate::session::now() / 1_000_000_000) as i64).expect("credentials");
        let roots = vec![c.operator.public_key()];
        for (client_lies, server_lies) in [(false, false), (true, false), (false, true)] {
            let thief = || PrivateKey::generate().expect("a key");
            let key = if client_lies { thief() } else { c.endpoint_key.clone() };
            let client = ClientConfig {
                identity: Some(Identity { key, chain: c.endpoint_chain.clone() }),
                mode: Mode::EndpointAuthController,
                roots: roots.clone(),
                snikey: None,
            };
            let key = if server_lies { thief() } else { c.controller_key.clone() };
            let identity = Identity { key, chain: c.controller_chain.clone() };
            let mode = Mode::ControllerAuthEndpoint;
            let entry = Entry { snikey: None, default: true, identity, mode, roots: roots.clone() };
            let acceptor = Acceptor::new(vec![entry]).expect("one entry");
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("its address");
            let serve = async { acceptor.accept(listener.accept().await.expect("a client").0).await };
            let ask =
                async { connect(TcpStream::connect(address).await.expect("a connection"), &client).await };
            let (served, asked) = tokio::join!(serve, ask);
            match (client_lies, server_lies) {
                (true, _) => {
                    let error = served.expect_err("the client lied").to_string();
                    assert!(error.contains("BadSignature"), "{error}");
                    // The client learns it at its first read.
                    let mut reader: MessageReader<_> = asked.expect("too early to know").split(1024).0;
                    assert!(reader.next().await.is_err());
                }
                (_, true) => {
                    let error = asked.expect_err("the server lied").to_string();
                    assert!(error.contains("BadSignature"), "{error}");
                    assert!(served.is_err());
                }
                _ => assert!(served.is_ok() && asked.is_ok()),
            }
        }
    }
}

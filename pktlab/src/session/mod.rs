//! TLS sessions between PacketLab programs (spec `session.md`).
//!
//! [`connect`] is the TLS client (endpoints; agents toward brokers and proxies), [`Acceptor`] the TLS server. Both end in a
//! [`Session`]: the verified peer and a message stream. The stock path validation of the TLS library is replaced, see
//! `verifier`.

mod identity;
mod verifier;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::{CertificateError, SupportedCipherSuite};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream};

pub use identity::{Identity, IdentityError, Snikey};

use crate::cert::{ChainError, Mode, PublicKey, Verified, verify};
use crate::wire::{MessageReader, MessageWriter, Ticks};

/// Time a peer has for the whole TLS handshake; the reference waits for ever (spec `session.md` §10.1).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Plaintext the TLS layer may hold back before a write waits; one full NDATA and its header fit.
const TLS_BUFFER: usize = 256 * 1024;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the connection failed during the TLS handshake: {0}")]
    Io(std::io::Error),
    #[error("the peer did not finish the TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error("refused the peer: {0}")]
    Chain(ChainError),
    #[error("refused the peer: it presented no certificate, and trusted operators are configured")]
    NoCertificate,
    #[error(
        "the peer refused our certificate or broke off the handshake ({0}); compare keys, validity and roots"
    )]
    PeerRefused(String),
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    #[error("no experiment entry for the server name {0:?}")]
    UnknownSnikey(Option<String>),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl SessionError {
    fn from_io(error: std::io::Error) -> SessionError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => SessionError::from_tls(tls.clone()),
            None => SessionError::Io(error),
        }
    }

    fn from_tls(error: rustls::Error) -> SessionError {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<ChainError>() {
                    Some(chain) => SessionError::Chain(*chain),
                    None => {
                        SessionError::Tls(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                    }
                }
            }
            rustls::Error::NoCertificatesPresented => SessionError::NoCertificate,
            rustls::Error::AlertReceived(alert) => SessionError::PeerRefused(format!("alert {alert:?}")),
            other => SessionError::Tls(other),
        }
    }
}

/// A TLS client's side.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// What to present; `None`: nothing.
    pub identity: Option<Identity>,
    /// How the server is verified.
    pub mode: Mode,
    /// Trusted keys; empty: any root.
    pub roots: Vec<PublicKey>,
    pub snikey: Option<Snikey>,
}

/// One experiment of a TLS server.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The server name that selects it.
    pub snikey: Option<Snikey>,
    /// Serves clients that send no server name; one entry at most.
    pub default: bool,
    pub identity: Identity,
    /// How clients are verified.
    pub mode: Mode,
    /// Trusted keys; empty: any root, and a client without certificate is accepted in
    /// [`Mode::ControllerAuthEndpoint`].
    pub roots: Vec<PublicKey>,
}

/// An established session.
#[derive(Debug)]
pub struct Session {
    /// The peer's verified chain; `None` when it presented none and was allowed to.
    pub peer: Option<Verified>,
    /// Index of the server's entry; 0 on a client.
    pub entry: usize,
    stream: TlsStream<TcpStream>,
}

/// The receiving half of a session.
pub type SessionReader = MessageReader<ReadHalf<TlsStream<TcpStream>>>;
/// The sending half of a session.
pub type SessionWriter = MessageWriter<WriteHalf<TlsStream<TcpStream>>>;

impl Session {
    /// `max_body`: largest message body accepted from the peer, in bytes.
    pub fn split(self, max_body: usize) -> (SessionReader, SessionWriter) {
        let (read, write) = tokio::io::split(self.stream);
        (MessageReader::new(read, max_body), MessageWriter::new(write))
    }

    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0
    }
}

/// TLS handshake as client on a connected socket. Success does not mean that the server accepted our certificate: that
/// shows in the first answer (spec `session.md` §4.1).
pub async fn connect(tcp: TcpStream, config: &ClientConfig) -> Result<Session, SessionError> {
    prepare(&tcp).map_err(SessionError::Io)?;
    let verifier = Arc::new(verifier::PeerVerifier::new(config.mode, config.roots.clone()));
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(SessionError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut tls = match &config.identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.resolver()?)),
        None => builder.with_no_client_auth(),
    };
    tls.resumption = Resumption::disabled();
    let name = match &config.snikey {
        Some(key) => key.server_name()?,
        // An address makes the library send no server name at all, which is what the protocol wants.
        None => ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST)),
    };
    let handshake = TlsConnector::from(Arc::new(tls)).connect(name, tcp);
    let mut stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| SessionError::Timeout)?
        .map_err(SessionError::from_io)?;
    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
    let peer = peer_chain(stream.get_ref().1.peer_certificates(), config.mode, &config.roots)?;
    Ok(Session { peer, entry: 0, stream: stream.into() })
}

/// A TLS server with one configuration for each experiment entry.
pub struct Acceptor {
    entries: Vec<(Entry, Arc<rustls::ServerConfig>)>,
}

impl Acceptor {
    pub fn new(entries: Vec<Entry>) -> Result<Acceptor, SessionError> {
        let entries = entries
            .into_iter()
            .map(|entry| server_config(&entry).map(|tls| (entry, Arc::new(tls))))
            .collect::<Result<_, _>>()?;
        Ok(Acceptor { entries })
    }

    /// TLS handshake as server on an accepted connection.
    pub async fn accept(&self, tcp: TcpStream) -> Result<Session, SessionError> {
        prepare(&tcp).map_err(SessionError::Io)?;
        tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(tcp))
            .await
            .map_err(|_| SessionError::Timeout)?
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<Session, SessionError> {
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp)
            .await
            .map_err(SessionError::from_io)?;
        let name = hello.client_hello().server_name().map(str::to_owned);
        let index = self.select(name.as_deref()).ok_or(SessionError::UnknownSnikey(name))?;
        let (entry, tls) = &self.entries[index];
        let mut stream = hello.into_stream(tls.clone()).await.map_err(SessionError::from_io)?;
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        let peer = peer_chain(stream.get_ref().1.peer_certificates(), entry.mode, &entry.roots)?;
        Ok(Session { peer, entry: index, stream: stream.into() })
    }

    /// Spec `session.md` §5: no name takes the default entry, a name must be registered.
    fn select(&self, name: Option<&str>) -> Option<usize> {
        self.entries.iter().position(|(entry, _)| match name {
            None => entry.default,
            Some(name) => entry.snikey.as_ref().is_some_and(|key| key.as_str() == name),
        })
    }
}

fn server_config(entry: &Entry) -> Result<rustls::ServerConfig, SessionError> {
    let verifier = verifier::PeerVerifier::new(entry.mode, entry.roots.clone());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(SessionError::Tls)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(entry.identity.resolver()?));
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(tls)
}

/// The chain the verifier accepted during the handshake, in verified order.
fn peer_chain(
    presented: Option<&[rustls::pki_types::CertificateDer<'_>]>,
    mode: Mode,
    roots: &[PublicKey],
) -> Result<Option<Verified>, SessionError> {
    match presented {
        None | Some([]) => Ok(None),
        Some(certs) => verify(mode, certs, roots, now()).map(Some).map_err(SessionError::Chain),
    }
}

/// ring, with AES-128-GCM first: on processors with AES instructions it is the fastest suite.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    use rustls::crypto::ring::{cipher_suite, default_provider};
    let suites: Vec<SupportedCipherSuite> = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(rustls::crypto::CryptoProvider { cipher_suites: suites, ..default_provider() })
}

/// No delay for small messages, and a notice when the peer's host vanishes (spec `session.md` §6).
fn prepare(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    socket2::SockRef::from(tcp).set_keepalive(true)
}

/// Wall clock in ns since the epoch.
pub(crate) fn now() -> Ticks {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as u64)
}

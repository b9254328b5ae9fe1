//! TLS sessions between PacketLab programs (spec `session.md`).
//!
//! [`connect`] is the TLS client (endpoints; agents toward brokers and proxies), [`Acceptor`] the TLS server. Both end in a
//! [`Session`]: the verified peer and a message stream. The stock path validation of the TLS library is replaced, see
//! `verifier`.

mod hello;
mod identity;
mod transport;
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

use hello::HelloName;
pub use identity::{Identity, IdentityError, Snikey};
pub use transport::Transport;

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
    #[error("the client's server name is not one snikey of 1 to 63 characters out of 0-9 and a-z")]
    MalformedSnikey,
    #[error("the snikey {0:?} belongs to two entries; give each entry its own")]
    DuplicateSnikey(String),
    #[error("two entries are the default for clients without server name; mark only one")]
    TwoDefaults,
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
    stream: TlsStream<Transport>,
}

/// The receiving half of a session.
pub type SessionReader = MessageReader<ReadHalf<TlsStream<Transport>>>;
/// The sending half of a session.
pub type SessionWriter = MessageWriter<WriteHalf<TlsStream<Transport>>>;

impl Session {
    /// `max_body`: largest message body accepted from the peer, in bytes.
    pub fn split(self, max_body: usize) -> (SessionReader, SessionWriter) {
        let (read, write) = tokio::io::split(self.stream);
        (MessageReader::new(read, max_body), MessageWriter::new(write))
    }

    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0.tcp()
    }
}

/// TLS handshake as client on a connected socket. Success does not mean that the server accepted our certificate: that
/// shows in the first answer (spec `session.md` §4.1).
pub async fn connect(tcp: TcpStream, config: &ClientConfig) -> Result<Session, SessionError> {
    let peer = tcp.peer_addr();
    open(tcp, config).await.inspect_err(|error| log(&peer, error))
}

async fn open(tcp: TcpStream, config: &ClientConfig) -> Result<Session, SessionError> {
    let transport = Transport::new(tcp, false).map_err(SessionError::Io)?;
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
    let handshake = TlsConnector::from(Arc::new(tls)).connect(name, transport);
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
    /// # Errors
    /// Two entries with the same snikey, two defaults, or a key that cannot sign.
    pub fn new(entries: Vec<Entry>) -> Result<Acceptor, SessionError> {
        if entries.iter().filter(|entry| entry.default).count() > 1 {
            return Err(SessionError::TwoDefaults);
        }
        let mut keys = std::collections::HashSet::new();
        if let Some(twice) = entries.iter().filter_map(|e| e.snikey.as_ref()).find(|key| !keys.insert(*key)) {
            return Err(SessionError::DuplicateSnikey(twice.as_str().to_owned()));
        }
        let entries = entries
            .into_iter()
            .map(|entry| server_config(&entry).map(|tls| (entry, Arc::new(tls))))
            .collect::<Result<_, _>>()?;
        Ok(Acceptor { entries })
    }

    /// TLS handshake as server on an accepted connection.
    pub async fn accept(&self, tcp: TcpStream) -> Result<Session, SessionError> {
        let peer = tcp.peer_addr();
        let result = match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(tcp)).await {
            Ok(result) => result,
            Err(_) => Err(SessionError::Timeout),
        };
        result.inspect_err(|error| log(&peer, error))
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<Session, SessionError> {
        let transport = Transport::new(tcp, true).map_err(SessionError::Io)?;
        let mut hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), transport)
            .await
            .map_err(SessionError::from_io)?;
        let index = self.select(&hello::server_name(&hello.io.take_recorded()))?;
        let (entry, tls) = &self.entries[index];
        let mut stream = hello.into_stream(tls.clone()).await.map_err(SessionError::from_io)?;
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        let peer = peer_chain(stream.get_ref().1.peer_certificates(), entry.mode, &entry.roots)?;
        Ok(Session { peer, entry: index, stream: stream.into() })
    }

    /// Spec `session.md` §5: no name takes the default entry, a name must be registered, anything else fails.
    fn select(&self, name: &HelloName) -> Result<usize, SessionError> {
        let (index, asked) = match name {
            HelloName::Malformed => return Err(SessionError::MalformedSnikey),
            HelloName::Absent => (self.entries.iter().position(|(entry, _)| entry.default), None),
            HelloName::Key(key) => {
                let index = self.entries.iter().position(|(entry, _)| entry.snikey.as_ref() == Some(key));
                (index, Some(key.as_str().to_owned()))
            }
        };
        index.ok_or(SessionError::UnknownSnikey(asked))
    }
}

/// The one line that says who was refused, or who refused us.
fn log(peer: &std::io::Result<std::net::SocketAddr>, error: &SessionError) {
    match peer {
        Ok(peer) => tracing::warn!("no session with {peer}: {error}"),
        Err(_) => tracing::warn!("no session: {error}"),
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

/// Wall clock in ns since the epoch.
pub(crate) fn now() -> Ticks {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as u64)
}

//! A bare TLS 1.3 connection over loopback, without messages: what the endpoint's streams are compared with.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Which side of TLS sends.
#[derive(Clone, Copy, Debug)]
pub enum Sender {
    Client,
    Server,
}

/// Bytes per second of `total` bytes in writes of `piece`. Each side has a thread of its own.
pub async fn rate(sender: Sender, total: u64, piece: usize) -> Result<f64> {
    let (client, server) = configurations()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let other = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let stream = TlsConnector::from(client).connect(ServerName::try_from("localhost")?, tcp).await?;
            match sender {
                Sender::Client => send(stream, total, piece).await.map(|()| None),
                Sender::Server => receive(stream, total).await.map(Some),
            }
        })
    });
    let (tcp, _) = listener.accept().await?;
    tcp.set_nodelay(true)?;
    let stream = TlsAcceptor::from(server).accept(tcp).await?;
    let own = match sender {
        Sender::Client => Some(receive(stream, total).await?),
        Sender::Server => send(stream, total, piece).await.map(|()| None)?,
    };
    let seconds = other.await??.or(own).context("nobody received")?;
    Ok(total as f64 / seconds)
}

fn configurations() -> Result<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..default_provider()
    });
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone())?;
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)?;
    // A client that only sends would close with its tickets unread, which resets the connection.
    server.send_tls13_tickets = 0;
    Ok((Arc::new(client), Arc::new(server)))
}

async fn send(mut stream: impl AsyncWrite + Unpin, total: u64, piece: usize) -> Result<()> {
    let data = vec![b'x'; piece];
    let mut left = total;
    while left > 0 {
        let count = left.min(piece as u64) as usize;
        stream.write_all(&data[..count]).await?;
        left -= count as u64;
    }
    Ok(stream.shutdown().await?)
}

/// Seconds from the first byte to the last.
async fn receive(mut stream: impl AsyncRead + Unpin, total: u64) -> Result<f64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut got = stream.read(&mut buffer).await? as u64;
    let begun = Instant::now();
    while got < total {
        let count = stream.read(&mut buffer).await?;
        anyhow::ensure!(count > 0, "the stream ended early");
        got += count as u64;
    }
    let seconds = begun.elapsed().as_secs_f64();
    // Closed with its close_notify unread, the sender would see a reset.
    while stream.read(&mut buffer).await? > 0 {}
    Ok(seconds)
}

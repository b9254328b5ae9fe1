//! Whom the endpoint talks to: servers on loopback, and the places where nobody is.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Bytes that the source sends to everyone.
pub const SOURCE: usize = 2 << 20;
/// The resetting server takes so much first.
const TASTE: usize = 1_000;

/// Their addresses.
#[derive(Clone, Copy, Debug)]
pub struct Servers {
    /// Sends back what comes.
    pub udp_echo: SocketAddr,
    pub tcp_echo: SocketAddr,
    /// Reads slowly and says nothing.
    pub slow: SocketAddr,
    /// Sends [`SOURCE`] bytes, each as [`pattern`] says.
    pub source: SocketAddr,
    /// Takes a little and resets the connection.
    pub reset: SocketAddr,
    /// Nobody.
    pub closed: SocketAddr,
}

/// The byte at a place of a stream.
pub fn pattern(place: usize) -> u8 {
    (place ^ (place >> 8) ^ (place >> 16)) as u8
}

/// A stretch of it.
pub fn stretch(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(pattern).collect()
}

impl Servers {
    /// They end with the runtime.
    pub async fn start() -> Result<Servers> {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let udp_echo = udp.local_addr()?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                if let Ok((count, from)) = udp.recv_from(&mut buffer).await {
                    let _ = udp.send_to(&buffer[..count], from).await;
                }
            }
        });
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?;
        Ok(Servers {
            udp_echo,
            tcp_echo: serve(echo).await?,
            slow: serve(slow).await?,
            source: serve(source).await?,
            reset: serve(reset).await?,
            closed: nobody,
        })
    }
}

async fn serve<F>(work: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Result<SocketAddr>
where
    F: Future<Output = std::io::Result<()>> + Send,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let work = Arc::new(work);
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let work = work.clone();
                // Errors are the other side's doing.
                tokio::spawn(async move { drop(work(stream).await) });
            }
        }
    });
    Ok(address)
}

/// Also the far side of connections to listening sockets.
pub async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

async fn slow(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while stream.read(&mut buffer).await? > 0 {
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    Ok(())
}

async fn source(mut stream: TcpStream) -> std::io::Result<()> {
    for from in (0..SOURCE).step_by(32 * 1024) {
        stream.write_all(&stretch(from, 32 * 1024)).await?;
    }
    stream.shutdown().await
}

async fn reset(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; TASTE];
    let _ = stream.read(&mut buffer).await?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

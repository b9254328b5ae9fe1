//! Connections to loopback addresses, made on this machine.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::tcp::{Flow, SLAB};
use crate::addr;
use crate::context::Busy;

/// Connects here; `Err` is the system's errno.
pub async fn connect(local: Option<SocketAddr>, remote: SocketAddr) -> Result<TcpStream, i32> {
    let attempt = async {
        let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(local) = local.filter(|local| *local != addr::any(remote.ip())) {
            socket.bind(local)?;
        }
        let stream = socket.connect(remote).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    attempt.await.map_err(|error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// Relays until both sides are done. `Err` is the errno of a reset.
pub async fn relay(flow: &Flow<'_>, tcp: TcpStream, busy: Busy) -> Result<(), i32> {
    let (mut from, mut to) = tcp.into_split();
    let upward = async {
        let mut slab = BytesMut::new();
        loop {
            let data = flow.read(&mut slab, SLAB).await?;
            if data.is_empty() {
                // Fails when the peer reset; the other direction reports that.
                let _ = to.shutdown().await;
                flow.gone().await;
                return Ok(());
            }
            if let Err(error) = to.write_all(&data).await {
                return Err(error.raw_os_error().unwrap_or(libc::EPIPE));
            }
        }
    };
    let downward = async {
        use tokio::io::AsyncReadExt;
        let mut buffer = vec![0; SLAB];
        let mut reading = true;
        loop {
            match from.read(&mut buffer).await {
                Ok(0) => {
                    flow.peer_finished();
                    std::future::pending::<()>().await;
                }
                Ok(n) => reading = reading && flow.write(&buffer[..n]).await,
                Err(error) => return error.raw_os_error().unwrap_or(libc::ECONNRESET),
            }
        }
    };
    tokio::select! {
        outcome = upward => outcome,
        errno = downward => Err(errno),
        () = flow.excuse(busy) => Ok(()),
    }
}

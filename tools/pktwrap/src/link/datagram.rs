//! Connections to the datagram listener: read the hello, start the flow.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pktwrap_link::Plain;
use pktwrap_link::datagram::DatagramHello;
use pktwrap_link::names::Kind;

use super::seqpacket::Seqpacket;
use super::{HELLO_TIMEOUT, is_ours};
use crate::context::{Busy, Context};
use crate::flow::udp;

pub async fn serve(context: Arc<Context>, fd: OwnedFd, busy: Busy) {
    let socket = match Seqpacket::new(fd) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!("cannot serve a socket of the program: {error}"),
    };
    let mut bytes = [0; size_of::<DatagramHello>() + 1];
    let received = match tokio::time::timeout(HELLO_TIMEOUT, socket.recv(&mut bytes)).await {
        Ok(Ok(n)) => &bytes[..n],
        Ok(Err(_)) | Err(_) => return,
    };
    let Some(hello) = DatagramHello::from_bytes(received) else { return };
    if !is_ours(&context, hello.version, &hello.token) {
        return;
    }
    if hello.kind != Kind::Udp as u8 || !matches!(hello.family, 4 | 6) {
        return tracing::warn!(
            kind = hello.kind,
            family = hello.family,
            "sockets of this kind are not served"
        );
    }
    udp::run(context, socket, hello, busy).await;
}

//! Connections to the stream listener: read the header, start the flow.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pktwrap_link::Plain;
use pktwrap_link::stream::StreamHeader;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::{HELLO_TIMEOUT, is_ours};
use crate::context::{Busy, Context};
use crate::flow::tcp;

pub async fn serve(context: Arc<Context>, fd: OwnedFd, busy: Busy) {
    let mut stream = match UnixStream::from_std(fd.into()) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!("cannot serve a connection of the program: {error}"),
    };
    let mut bytes = [0; size_of::<StreamHeader>()];
    match tokio::time::timeout(HELLO_TIMEOUT, stream.read_exact(&mut bytes)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return tracing::debug!("a connection ended before its header"),
    }
    let Some(header) = StreamHeader::from_bytes(&bytes) else { return };
    if is_ours(&context, header.version, &header.token) {
        tcp::run(context, stream, header, busy).await;
    }
}

//! The two tasks of a session: one writes what is queued, one reads and routes.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::shared::Shared;
use crate::wire::{Encoded, ExtNote, Frame, MessageReader, MessageWriter};

/// Bytes gathered for one write; more would only delay the first of them.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_MESSAGES: usize = 64;
/// How long a peer may refuse to take the last bytes of an ending session.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) enum Outgoing {
    Message(Encoded),
    /// The peer drains its buffered plaintext, so several messages may share a TLS record.
    Batching,
}

pub(super) async fn write<W>(
    writer: MessageWriter<W>,
    queue: mpsc::UnboundedReceiver<Outgoing>,
    shared: Arc<Shared>,
) where
    W: AsyncWrite + Unpin,
{
    deliver(writer, queue, &shared).await;
    shared.task_done();
}

async fn deliver<W>(
    mut writer: MessageWriter<W>,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
    shared: &Shared,
) where
    W: AsyncWrite + Unpin,
{
    let mut batch = Vec::new();
    while let Some(first) = queue.recv().await {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(outgoing) = next {
            match outgoing {
                Outgoing::Batching => writer.set_batching(true),
                Outgoing::Message(encoded) => {
                    bytes += encoded.head.len() + encoded.payload.len();
                    batch.push(encoded);
                }
            }
            next = if bytes < BATCH_BYTES && batch.len() < BATCH_MESSAGES {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        let sent = async {
            writer.send_batch(&batch).await?;
            writer.flush().await
        };
        if let Err(error) = sent.await {
            shared.end(&format!("cannot send to the endpoint: {error}"));
            return;
        }
        batch.clear();
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, writer.shutdown()).await;
}

pub(super) async fn read<R>(mut reader: MessageReader<R>, shared: Arc<Shared>)
where
    R: AsyncRead + Unpin,
{
    let reason = tokio::select! {
        reason = route(&mut reader, &shared) => Some(reason),
        _ = shared.wait_ended() => None,
    };
    match reason {
        Some(reason) => shared.end(&reason),
        // Closed from this side. What still comes is of no interest, but a connection dropped with unread bytes is reset,
        // and the peer would take that for a failure.
        None => {
            let rest = async { while let Ok(Some(_)) = reader.next().await {} };
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, rest).await;
        }
    }
    shared.task_done();
}

async fn route<R: AsyncRead + Unpin>(reader: &mut MessageReader<R>, shared: &Shared) -> String {
    loop {
        match reader.next().await {
            Ok(Some(Frame::Message(message))) => {
                if let Err(reason) = shared.dispatch(message) {
                    return reason.to_owned();
                }
            }
            Ok(Some(Frame::Unknown { code, raw })) => match ExtNote::decode(code, &raw) {
                Some(Ok(note)) => shared.dispatch_extension(note),
                Some(Err(reason)) => return malformed(code, reason),
                None => tracing::debug!(code, "unknown message ignored"),
            },
            Ok(Some(Frame::Malformed { code, reason, .. })) => return malformed(code, reason),
            Ok(None) => return "the endpoint closed the connection".to_owned(),
            Err(error) => return format!("cannot read from the endpoint: {error}"),
        }
    }
}

fn malformed(code: u8, reason: &str) -> String {
    format!("the endpoint sent a malformed message (type 0x{code:02x}): {reason}")
}

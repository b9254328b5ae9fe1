//! Messages into a byte stream.

use std::io::IoSlice;

use bytes::Buf;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{EncodeError, Encoded, Message};

/// Largest joined write while batching: four full TLS records.
const BATCH: usize = 64 * 1024;

/// Why a message was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Writes messages so that every one starts in a write of its own, hence in a TLS record of its own: a reference peer
/// overlooks a second message in a record (spec `endpoint.md` §3). Batching, an extension, joins them.
#[derive(Debug)]
pub struct MessageWriter<W> {
    stream: W,
    batching: bool,
    joined: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> MessageWriter<W> {
    pub fn new(stream: W) -> MessageWriter<W> {
        MessageWriter { stream, batching: false, joined: Vec::new() }
    }

    /// Allows several messages in a TLS record; only toward a peer that declared extension bit 0.
    pub fn set_batching(&mut self, on: bool) {
        self.batching = on;
    }

    /// Encodes, writes and flushes one message.
    pub async fn send(&mut self, message: &Message) -> Result<(), WriteError> {
        self.send_encoded(&message.encode()?).await?;
        self.flush().await
    }

    /// Writes one message; the caller flushes when it has no more.
    pub async fn send_encoded(&mut self, message: &Encoded) -> Result<(), WriteError> {
        let (mut head, mut payload) = (&message.head[..], &message.payload[..]);
        while !head.is_empty() || !payload.is_empty() {
            let written = self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(payload)]).await?;
            if written == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
            let of_head = written.min(head.len());
            head.advance(of_head);
            payload.advance(written - of_head);
        }
        Ok(())
    }

    /// Writes several messages, small neighbours in one record if batching is on, and flushes.
    pub async fn send_batch(&mut self, messages: &[Encoded]) -> Result<(), WriteError> {
        let mut rest = messages;
        while let Some(first) = rest.first() {
            let mut count = 1;
            let mut len = first.len();
            while self.batching && count < rest.len() && len + rest[count].len() <= BATCH {
                len += rest[count].len();
                count += 1;
            }
            if count == 1 {
                self.send_encoded(first).await?;
            } else {
                self.joined.clear();
                for message in &rest[..count] {
                    self.joined.extend_from_slice(&message.head);
                    self.joined.extend_from_slice(&message.payload);
                }
                self.stream.write_all(&self.joined).await?;
            }
            rest = &rest[count..];
        }
        self.flush().await
    }

    pub async fn flush(&mut self) -> Result<(), WriteError> {
        Ok(self.stream.flush().await?)
    }

    /// Orderly end: over TLS, close_notify and then FIN.
    pub async fn shutdown(&mut self) -> Result<(), WriteError> {
        Ok(self.stream.shutdown().await?)
    }
}

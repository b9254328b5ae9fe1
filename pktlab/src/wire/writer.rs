//! Messages into a byte stream.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Buf;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{EncodeError, Encoded, Message};

/// Most messages joined in one write while batching.
const GATHER: usize = 32;

/// Why a message was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The message is at fault; the stream is as before.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Writes messages so that every one starts in a write of its own, hence in a TLS record of its own: a reference peer
/// overlooks a second message in a record (spec `endpoint.md` §3). Batching, an extension, joins them.
///
/// What a cancelled call left unwritten is kept and goes out first with the next call: the stream never loses its framing,
/// and a message is sent even if the call that brought it was dropped.
#[derive(Debug)]
pub struct MessageWriter<W> {
    stream: W,
    batching: bool,
    /// Taken from the caller and not yet by the stream; the first may be partly written.
    queue: VecDeque<Encoded>,
}

impl<W: AsyncWrite + Unpin> MessageWriter<W> {
    pub fn new(stream: W) -> MessageWriter<W> {
        MessageWriter { stream, batching: false, queue: VecDeque::new() }
    }

    /// Allows several messages in a TLS record; only toward a peer that declared extension bit 0.
    pub fn set_batching(&mut self, on: bool) {
        self.batching = on;
    }

    /// The byte stream below.
    pub fn get_ref(&self) -> &W {
        &self.stream
    }

    /// Encodes, writes and flushes one message.
    pub async fn send(&mut self, message: &Message) -> Result<(), WriteError> {
        self.queue.push_back(message.encode()?);
        self.flush().await
    }

    /// Writes one message; the caller flushes when it has no more.
    pub async fn send_encoded(&mut self, message: &Encoded) -> Result<(), WriteError> {
        self.queue.push_back(message.clone());
        self.drain().await
    }

    /// Writes several messages, together if batching is on, and flushes.
    pub async fn send_batch(&mut self, messages: &[Encoded]) -> Result<(), WriteError> {
        self.queue.extend(messages.iter().cloned());
        self.flush().await
    }

    /// Hands everything to the stream and empties the stream's own buffers.
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        self.drain().await?;
        Ok(self.stream.flush().await?)
    }

    /// Orderly end: over TLS, close_notify and then FIN.
    pub async fn shutdown(&mut self) -> Result<(), WriteError> {
        self.drain().await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn drain(&mut self) -> Result<(), WriteError> {
        while !self.queue.is_empty() {
            let written = self.write_some().await?;
            if written == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
            self.consume(written);
        }
        Ok(())
    }

    /// One vectored write from the front of the queue.
    async fn write_some(&mut self) -> std::io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); 2 * GATHER];
        let mut used = 0;
        for message in self.queue.iter().take(if self.batching { GATHER } else { 1 }) {
            for part in [&message.head, &message.payload] {
                if !part.is_empty() {
                    slices[used] = IoSlice::new(part);
                    used += 1;
                }
            }
        }
        self.stream.write_vectored(&slices[..used]).await
    }

    fn consume(&mut self, mut written: usize) {
        while let Some(front) = self.queue.front_mut() {
            for part in [&mut front.head, &mut front.payload] {
                let taken = written.min(part.len());
                part.advance(taken);
                written -= taken;
            }
            if !front.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
    }
}

//! Messages out of a byte stream.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::codec::header;
use super::{Frame, HEADER_LEN, Message};

/// Room for one read of a stream; several small messages, or a large one's start, arrive at once.
const CHUNK: usize = 128 * 1024;
/// A body grows by what arrived, not by what its header announced: a peer must send the bytes it makes us hold.
const GROWTH: usize = 256 * 1024;

/// Why no further message can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("the stream ended inside a message (broken pipe)")]
    Truncated,
    #[error("message of type 0x{code:02x} announces {len} body bytes, more than the {max} accepted here")]
    TooLarge { code: u8, len: usize, max: usize },
}

/// Splits a stream into messages; accepts any division into reads (spec `messages.md` §1).
#[derive(Debug)]
pub struct MessageReader<R> {
    stream: R,
    buffer: BytesMut,
    max_body: usize,
}

impl<R> MessageReader<R> {
    /// `max_body`: largest body accepted, in bytes; a larger one ends the session before it is stored.
    pub fn new(stream: R, max_body: usize) -> MessageReader<R> {
        MessageReader { stream, buffer: BytesMut::with_capacity(CHUNK), max_body }
    }

    /// A message out of the bytes already here; `None`: more are needed.
    pub fn try_next(&mut self) -> Result<Option<Frame>, ReadError> {
        let Some(head) = self.buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let (code, len) = header(*head);
        if len > self.max_body {
            return Err(ReadError::TooLarge { code, len, max: self.max_body });
        }
        if self.buffer.len() < HEADER_LEN + len {
            return Ok(None);
        }
        Ok(Some(Message::decode(self.take(HEADER_LEN + len))))
    }

    /// Cuts the first `len` bytes off. Small messages are copied, so that one of them kept for long does not keep a whole
    /// chunk alive.
    fn take(&mut self, len: usize) -> Bytes {
        const SMALL: usize = 1024;
        if len <= SMALL {
            let message = Bytes::copy_from_slice(&self.buffer[..len]);
            self.buffer.advance(len);
            message
        } else {
            self.buffer.split_to(len).freeze()
        }
    }

    /// Bytes the message at the front still lacks, 0 if nothing is known of it.
    fn missing(&self) -> usize {
        match self.buffer.first_chunk::<HEADER_LEN>() {
            Some(head) => (HEADER_LEN + header(*head).1).saturating_sub(self.buffer.len()),
            None => 0,
        }
    }
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    /// The next message; `None` at an end of stream between two messages. Cancel-safe: a dropped future loses no bytes.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = self.try_next()? {
                return Ok(Some(frame));
            }
            let room = self.missing().min(GROWTH);
            if self.buffer.capacity() - self.buffer.len() < room.max(HEADER_LEN) {
                self.buffer.reserve(room.max(CHUNK));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ReadError::Truncated) };
            }
        }
    }
}

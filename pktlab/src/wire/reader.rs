//! Messages out of a byte stream.
//!
//! Small messages are cut out of a shared chunk; a large one is read straight into an allocation of its own, so that
//! after the transport nobody copies its payload. Every byte taken from the transport lands in a buffer the reader owns,
//! one read per wait: a dropped [`MessageReader::next`] loses nothing.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::codec::header;
use super::{Frame, HEADER_LEN, Message};

/// Size of the shared chunk, and so of one read.
const CHUNK: usize = 64 * 1024;
/// A message of this size or more that is still incomplete when its header is seen gets an allocation of its own.
const LARGE: usize = 8 * 1024;
/// Largest allocation on the word of a header alone; beyond it a peer must send the bytes it makes us hold.
const UPFRONT: usize = 1024 * 1024;
/// Buffers of large messages that are kept for the next ones, and the largest kept: an allocation of this size costs a page
/// fault for each of its pages, since the allocator gives the pages back to the system when the last message is dropped.
const SPARE_COUNT: usize = 16;
const SPARE_SIZE: usize = 128 * 1024;
/// Messages up to this size are copied out of the chunk: cheaper than sharing it, and one that is kept for long does not
/// keep a whole chunk alive.
const SMALL: usize = 1024;
/// What is read where a large message is expected: header and fixed part, so that the rest goes where it belongs.
const PEEK: usize = 64;

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
    max_body: usize,
    /// Bytes received and not handed out.
    chunk: BytesMut,
    /// A large message under way and its full size; the chunk is empty meanwhile.
    large: Option<(Vec<u8>, usize)>,
    spare: Spare,
    /// The last message was large, so the next one probably is.
    bulk: bool,
}

/// Buffers that come back when the last part of their message is dropped.
#[derive(Clone, Debug, Default)]
struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// An empty buffer with room for `size` bytes.
    fn buffer(&self, size: usize) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept.filter(|kept| kept.capacity() >= size) {
            Some(kept) => kept,
            None => Vec::with_capacity(size),
        }
    }

    fn lend(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() > SPARE_SIZE {
            return buffer.into();
        }
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }
}

/// A buffer on its way through the program.
struct Lent {
    buffer: Vec<u8>,
    home: Spare,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < SPARE_COUNT {
            self.buffer.clear();
            kept.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl<R> MessageReader<R> {
    /// `max_body`: largest body accepted, in bytes; a larger one ends the session before anything is stored for it.
    pub fn new(stream: R, max_body: usize) -> MessageReader<R> {
        MessageReader {
            stream,
            max_body,
            chunk: BytesMut::new(),
            large: None,
            spare: Spare::default(),
            bulk: false,
        }
    }

    /// The byte stream below.
    pub fn get_ref(&self) -> &R {
        &self.stream
    }

    /// A message out of the bytes already here; `None`: more are needed. Never waits and never reads.
    pub fn try_next(&mut self) -> Result<Option<Frame>, ReadError> {
        if let Some((message, total)) = &mut self.large {
            if message.len() < *total {
                return Ok(None);
            }
            let raw = self.spare.lend(std::mem::take(message));
            self.large = None;
            self.bulk = true;
            return Ok(Some(Message::decode(raw)));
        }
        let Some(head) = self.chunk.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let (code, len) = header(*head);
        if len > self.max_body {
            return Err(ReadError::TooLarge { code, len, max: self.max_body });
        }
        let total = HEADER_LEN + len;
        if self.chunk.len() >= total {
            self.bulk = total >= LARGE;
            return Ok(Some(Message::decode(self.cut(total))));
        }
        if total >= LARGE {
            let mut own = self.spare.buffer(total.min(UPFRONT));
            own.extend_from_slice(&self.chunk);
            self.chunk.clear();
            self.large = Some((own, total));
        }
        Ok(None)
    }

    /// Takes the first `total` bytes off the chunk.
    fn cut(&mut self, total: usize) -> Bytes {
        if total > SMALL {
            return self.chunk.split_to(total).freeze();
        }
        let message = Bytes::copy_from_slice(&self.chunk[..total]);
        self.chunk.advance(total);
        message
    }

    /// What an end of the stream means here.
    fn at_end(&self) -> Result<Option<Frame>, ReadError> {
        if self.large.is_none() && self.chunk.is_empty() { Ok(None) } else { Err(ReadError::Truncated) }
    }
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    /// The next message; `None` at an end of stream between two messages. Cancel-safe: a dropped future loses no bytes.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = self.try_next()? {
                return Ok(Some(frame));
            }
            match self.fill().await {
                Ok(0) => return self.at_end(),
                Ok(_) => {}
                // TLS without close_notify. A message cut short is noticed here anyway, so it is an end like any other
                // (spec `session.md` §6).
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return self.at_end(),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// One read, to where the next bytes belong. Never reads into no room, so 0 always means the end.
    async fn fill(&mut self) -> std::io::Result<usize> {
        if let Some((message, total)) = &mut self.large {
            let missing = *total - message.len();
            if message.len() == message.capacity() {
                message.reserve(missing.min(message.len()));
            }
            return self.stream.read_buf(&mut message.limit(missing)).await;
        }
        // What lies in the chunk is less than LARGE, else it would be a message or a large one's start.
        let free = self.chunk.capacity() - self.chunk.len();
        if free < LARGE {
            let size = CHUNK.min(self.max_body.saturating_add(HEADER_LEN)).max(2 * LARGE);
            self.chunk.reserve(size - self.chunk.len());
        }
        let limit = if self.bulk && self.chunk.len() < HEADER_LEN { PEEK } else { CHUNK };
        self.stream.read_buf(&mut (&mut self.chunk).limit(limit)).await
    }
}

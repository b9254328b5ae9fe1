//! TCP as TLS sees it: reads go through a buffer, so that several records cost one system call.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Size of the read buffer of an idle session; thousands of them must stay cheap.
const FIRST_SIZE: usize = 4 * 1024;
/// Size it grows to while data fills it.
const LAST_SIZE: usize = 128 * 1024;
/// Most bytes kept of a ClientHello; TLS itself takes no longer handshake message.
const MAX_RECORDED: usize = 72 * 1024;

/// A TCP connection with a growing read buffer.
#[derive(Debug)]
pub struct Transport {
    tcp: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Everything read so far, while somebody wants it.
    recorded: Option<Vec<u8>>,
}

impl Transport {
    /// Takes the connection over: no Nagle delay, keepalive on.
    pub(super) fn new(tcp: TcpStream, record: bool) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        socket2::SockRef::from(&tcp).set_keepalive(true)?;
        Ok(Self { tcp, buffer: vec![0; FIRST_SIZE], start: 0, end: 0, recorded: record.then(Vec::new) })
    }

    /// Ends the recording and returns it.
    pub(super) fn take_recorded(&mut self) -> Vec<u8> {
        self.recorded.take().unwrap_or_default()
    }

    /// The TCP connection.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start == this.end {
            let mut free = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut free))?;
            (this.start, this.end) = (0, free.filled().len());
        }
        let count = (this.end - this.start).min(out.remaining());
        let bytes = &this.buffer[this.start..this.start + count];
        out.put_slice(bytes);
        if let Some(recorded) = &mut this.recorded {
            let room = MAX_RECORDED.saturating_sub(recorded.len());
            recorded.extend_from_slice(&bytes[..count.min(room)]);
        }
        this.start += count;
        if this.start == this.end && this.end == this.buffer.len() && this.end < LAST_SIZE {
            this.buffer = vec![0; this.end * 2];
            (this.start, this.end) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

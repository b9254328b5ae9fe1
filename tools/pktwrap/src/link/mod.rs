//! The supervisor's side of the link with the shim: three listeners on abstract names.
//!
//! Whoever connects must begin with the session's token and the link's version; everything read is bounded in size and
//! time.

pub mod call;
pub mod datagram;
pub mod seqpacket;
pub mod stream;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use pktwrap_link::names::{self, Listener as Which};
use pktwrap_link::{Token, VERSION};
use rustix::net::SocketType;

use crate::context::{Busy, Context};
use seqpacket::Listener;

/// How long a new connection may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// The bound listeners, not served yet.
pub struct Listeners {
    call: Listener,
    stream: Listener,
    datagram: Listener,
}

impl Listeners {
    pub fn bind(session: u64) -> io::Result<Listeners> {
        let bind = |which, kind| Listener::bind(kind, names::listener(session, which).as_bytes());
        Ok(Listeners {
            call: bind(Which::Call, SocketType::SEQPACKET)?,
            stream: bind(Which::Stream, SocketType::STREAM)?,
            datagram: bind(Which::Datagram, SocketType::SEQPACKET)?,
        })
    }

    /// Serves all three until the program has ended and nothing waits to be accepted.
    pub fn serve(self, context: &Arc<Context>) {
        tokio::spawn(accept(self.call, context.clone(), |context, fd, busy| {
            tokio::spawn(call::serve(context, fd, busy));
        }));
        tokio::spawn(accept(self.stream, context.clone(), |context, fd, busy| {
            tokio::spawn(stream::serve(context, fd, busy));
        }));
        tokio::spawn(accept(self.datagram, context.clone(), |context, fd, busy| {
            tokio::spawn(datagram::serve(context, fd, busy));
        }));
    }
}

async fn accept(listener: Listener, context: Arc<Context>, serve: impl Fn(Arc<Context>, OwnedFd, Busy)) {
    // What the program did just before it ended still counts, so exiting waits for this loop too.
    let _busy = context.busy();
    loop {
        tokio::select! {
            fd = listener.accept() => serve(context.clone(), fd, context.busy()),
            () = context.exiting() => break,
        }
    }
    while let Some(fd) = listener.try_accept() {
        serve(context.clone(), fd, context.busy());
    }
}

/// Whether a first message is from a shim of this build under this supervisor.
fn is_ours(context: &Context, version: u32, token: &Token) -> bool {
    if *token != context.token {
        tracing::warn!("refused a connection with a wrong token");
        return false;
    }
    if version != VERSION {
        tracing::warn!(version, "refused a shim of another version; is an old libpktwrap.so in use?");
        return false;
    }
    true
}

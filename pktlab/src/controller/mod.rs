//! The controller's side of an endpoint session.
//!
//! [`Controller::start`] takes a fresh session through SETUP, reads what the endpoint says about itself and hands out a
//! cloneable handle. Requests are queued at the call and answered by order, so callers pipeline by calling first and
//! awaiting later. Two tasks run beneath it: one writes, one reads and routes notifications by socket number.
//!
//! | file | what lives there |
//! |---|---|
//! | `shared` | the state both tasks and all handles share: pending answers, sockets, windows |
//! | `tasks` | reader and writer |
//! | `open` | opening sockets, waiting for a connect |
//! | `socket`, `event` | measurement sockets: sending under the flow window, receiving, closing |
//! | `raw`, `listen`, `option` | capture, connections from outside, socket options |
//! | `wait` | the endpoint's clock |
//! | `info` | what an endpoint exports (addresses, resolvers, buffer size, extensions) |

mod event;
mod info;
mod listen;
mod open;
mod option;
mod raw;
mod shared;
mod socket;
mod tasks;
#[cfg(test)]
mod tests;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

pub use event::{Event, Received, Tagged};
pub use info::EndpointInfo;
pub use listen::Listener;
pub use open::{ConnectFailure, Connected, Connecting, Opening};
pub use raw::{Change, HeaderChanges};
pub use shared::Totals;
pub use socket::{RecvHalf, SendHalf, Socket, SocketOptions};

use crate::session::Session;
use crate::wire::{ErrId, ExtRequest, MAX_BODY, Message, MessageReader, MessageWriter, Outcome};
use shared::Shared;

/// How long START and the first reads may take. The endpoint itself allows 10 s from the handshake to START.
const SETUP_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a request has no good answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The session is over; the text says why.
    #[error("the endpoint session ended: {0}")]
    Ended(Arc<str>),
    /// The endpoint answered with an error.
    #[error("the endpoint refused {request}: {outcome:?}")]
    Refused { request: &'static str, outcome: Outcome },
    /// The endpoint's answer does not fit the request.
    #[error(
        "the endpoint answered {request} with a message of another kind; it does not follow the protocol"
    )]
    Unexpected { request: &'static str },
    /// All 256 socket numbers are in use, or the session's socket budget is spent.
    #[error("this session has no socket left; use another session")]
    NoSocket,
    /// The request cannot be encoded.
    #[error("the request cannot be encoded: {0}")]
    Encode(String),
    /// The endpoint does not offer the extension this needs; nothing was sent.
    #[error("the endpoint does not offer {0}")]
    Unsupported(&'static str),
    /// Set-up took too long.
    #[error("the endpoint did not answer START within {0:?}; is it a PacketLab endpoint?")]
    SetupTimeout(Duration),
}

impl Error {
    /// The error id when the endpoint refused, `None` for every other error.
    pub fn errid(&self) -> Option<ErrId> {
        match self {
            Error::Refused { outcome: Outcome::Plain(errid), .. } => Some(*errid),
            _ => None,
        }
    }
}

/// A handle on one started session; clones share it. The session ends when [`Controller::close`] is called or the endpoint
/// ends it.
#[derive(Clone)]
pub struct Controller {
    shared: Arc<Shared>,
}

/// An answer that has not come yet; made by [`Controller::request`]. Dropping it only forgets the answer.
pub struct Answer {
    receiver: oneshot::Receiver<Message>,
    shared: Arc<Shared>,
    request: &'static str,
}

impl Answer {
    /// Waits for the answer, whatever it is.
    pub async fn message(self) -> Result<Message, Error> {
        let Answer { receiver, shared, .. } = self;
        receiver.await.map_err(|_| shared.ended_error())
    }

    /// Waits for RESULT success; every other RESULT is [`Error::Refused`].
    pub async fn success(mut self) -> Result<(), Error> {
        self.outcome().await
    }

    /// As [`Answer::success`], once; cancel-safe.
    async fn outcome(&mut self) -> Result<(), Error> {
        let request = self.request;
        match (&mut self.receiver).await.map_err(|_| self.shared.ended_error())? {
            Message::Result(Outcome::Plain(ErrId::SUCCESS)) => Ok(()),
            Message::Result(outcome) => Err(Error::Refused { request, outcome }),
            _ => Err(Error::Unexpected { request }),
        }
    }

    /// Waits for MDATA of at least `len` bytes.
    async fn data(self, len: usize) -> Result<Bytes, Error> {
        let request = self.request;
        match self.message().await? {
            Message::MData { data, .. } if data.len() >= len => Ok(data),
            Message::Result(outcome) => Err(Error::Refused { request, outcome }),
            _ => Err(Error::Unexpected { request }),
        }
    }
}

impl Controller {
    /// Starts a session whose TLS handshake is done: START without programs, the endpoint's self-description, and the
    /// extensions both sides know. Fails when the endpoint refuses START or does not answer in 15 s.
    pub async fn start(session: Session) -> Result<Controller, Error> {
        let (reader, writer) = session.split(MAX_BODY);
        Controller::start_on(reader, writer).await
    }

    /// As [`Controller::start`] on any framed byte stream.
    pub async fn start_on<R, W>(
        reader: MessageReader<R>,
        writer: MessageWriter<W>,
    ) -> Result<Controller, Error>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (shared, outgoing) = Shared::new();
        tokio::spawn(tasks::write(writer, outgoing, shared.clone()));
        tokio::spawn(tasks::read(reader, shared.clone()));
        let controller = Controller { shared };
        match tokio::time::timeout(SETUP_TIMEOUT, info::set_up(&controller)).await {
            Ok(Ok(())) => Ok(controller),
            Ok(Err(error)) => {
                controller.close("set-up failed");
                Err(error)
            }
            Err(_) => {
                controller.close("set-up took too long");
                Err(Error::SetupTimeout(SETUP_TIMEOUT))
            }
        }
    }

    /// Queues a request now; the answer is awaited separately.
    pub fn request(&self, message: &Message) -> Result<Answer, Error> {
        self.shared.ask(message.encode(), request_name(message))
    }

    /// As [`Controller::request`], out of the private range: only toward an endpoint whose extension bit is enabled, others
    /// answer ECTLNOTSUP.
    pub fn request_extension(&self, request: &ExtRequest) -> Result<Answer, Error> {
        self.shared.extension_request(request)
    }

    /// Whether these [`extension`](crate::vmem::extension) bits are all enabled in this session.
    pub fn extension(&self, bits: u32) -> bool {
        self.shared.extension(bits)
    }

    /// Reads `len` bytes of endpoint memory (1–65535; spec `vmem.md`).
    pub fn mread(&self, addr: u32, len: u16) -> impl Future<Output = Result<Bytes, Error>> + use<> {
        let answer = self.request(&Message::MRead { addr, len });
        async move { answer?.data(usize::from(len)).await }
    }

    /// Writes endpoint memory. Bytes at read-only addresses are ignored by the endpoint.
    pub fn mwrite(&self, addr: u32, data: Bytes) -> impl Future<Output = Result<(), Error>> + use<> {
        let answer = self.request(&Message::MWrite { addr, data });
        async move { answer?.success().await }
    }

    /// What the endpoint said about itself when the session started.
    pub fn info(&self) -> &EndpointInfo {
        self.shared.info()
    }

    /// Whether another socket can be opened in this session (numbers and budget).
    pub fn has_room(&self) -> bool {
        self.shared.has_room()
    }

    /// What went through measurement sockets so far.
    pub fn totals(&self) -> Totals {
        self.shared.totals()
    }

    /// Ends the session: what is queued is sent, then close_notify. Everything pending fails with `reason`.
    pub fn close(&self, reason: &str) {
        self.shared.end(reason);
    }

    /// Waits until the session is over and says why.
    pub async fn ended(&self) -> Arc<str> {
        self.shared.wait_ended().await
    }

    /// Waits until the connection itself is gone: after [`Controller::close`] what was queued is sent and the endpoint may
    /// take a few seconds to close its side.
    pub async fn finished(&self) {
        self.shared.wait_finished().await;
    }

    /// Why the session is over, `None` while it runs.
    pub fn end_reason(&self) -> Option<Arc<str>> {
        self.shared.end_reason()
    }
}

fn request_name(message: &Message) -> &'static str {
    match message {
        Message::CData { .. } => "CDATA",
        Message::Start => "START",
        Message::Yield { .. } => "YIELD",
        Message::MRead { .. } => "MREAD",
        Message::MWrite { .. } => "MWRITE",
        Message::NOpen(_) => "NOPEN",
        Message::NClose { .. } => "NCLOSE",
        Message::NSend(_) => "NSEND",
        Message::NCap(_) => "NCAP",
        Message::NCtl(_) => "NCTL",
        _ => "a request",
    }
}

//! The state that the reader, the writer and all handles of a session share.
//!
//! One lock, held for a few instructions at a time and never across an await. Queueing a message and noting what its answer
//! belongs to happen under it together, which is what makes matching by order right.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::info::EndpointInfo;
use super::socket::Event;
use super::{Error, tasks::Outgoing};
use crate::vmem::{extension, mask as bit, socket as block};
use crate::wire::{ErrId, Message, NErr, Outcome, SocketId};

/// What one NSEND takes from the endpoint's budget beside its payload; the reference needs 133–139 bytes.
const SEND_OVERHEAD: usize = 192;
/// Socket budget of a session unless a certificate lowers it (spec `endpoint.md` §5.2).
const SOCKET_BUDGET: u32 = 65_535;
/// Bytes a consumer may leave unread before the endpoint is asked to hold NDATA back, and where it may go on.
const HIGH_WATER: usize = 1 << 20;
const LOW_WATER: usize = 512 << 10;
/// NOTIFMASK bits. NSTAT is held with NDATA: an unheld "peer closed" would overtake held data.
const HOLD_STAT: u16 = bit::NSTAT;
const HOLD_STAT_DATA: u16 = bit::NSTAT | bit::NDATA;
const HOLD_ALL: u16 = bit::NTAG | bit::NSTAT | bit::NDATA | bit::NDROP | bit::NBLOCK;

/// What went through a session's measurement sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sockets opened.
    pub sockets: u64,
    /// Payload bytes and NSENDs accepted for sending.
    pub bytes_out: u64,
    pub messages_out: u64,
    /// Payload bytes and NDATAs received.
    pub bytes_in: u64,
    pub messages_in: u64,
}

/// Whom the next answer belongs to.
pub(super) enum Pending {
    Reply(oneshot::Sender<Message>),
    /// An NSEND under the flow window, with its cost.
    Send {
        socket: SocketId,
        cost: usize,
    },
    /// The MWRITE that holds everything back before an NCLOSE toward a peer that cannot close with NDATA in its queue.
    CloseBarrier(SocketId),
    Close(SocketId),
    Ignored,
}

/// One socket number in use.
pub(super) struct Entry {
    events: mpsc::UnboundedSender<Event>,
    hold: bool,
    tags: bool,
    held: bool,
    /// Payload bytes given to the consumer's queue and not yet taken.
    queued: usize,
    /// Cost of NSENDs whose RESULT or NTAG is still to come, and of those accepted, oldest first.
    used: usize,
    accepted: VecDeque<usize>,
    /// Receive budget granted with NOPEN.
    granted: usize,
    closing: bool,
}

struct State {
    outgoing: Option<mpsc::UnboundedSender<Outgoing>>,
    pending: VecDeque<Pending>,
    sockets: HashMap<SocketId, Entry>,
    /// Free numbers, next one last.
    free: Vec<SocketId>,
    opened: u32,
    budget: u32,
    send_window: usize,
    send_free: usize,
    receive_free: usize,
    receive_least: usize,
    totals: Totals,
}

pub(super) struct Shared {
    state: Mutex<State>,
    info: OnceLock<EndpointInfo>,
    /// Told whenever send credit came back or the session ended.
    pub(super) credit: Notify,
    ended: watch::Sender<Option<Arc<str>>>,
    /// Tasks still running.
    tasks: watch::Sender<usize>,
}

impl Shared {
    pub(super) fn new() -> (Arc<Shared>, mpsc::UnboundedReceiver<Outgoing>) {
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let state = State {
            outgoing: Some(outgoing),
            pending: VecDeque::new(),
            sockets: HashMap::new(),
            free: (0..=255).rev().collect(),
            opened: 0,
            budget: SOCKET_BUDGET,
            send_window: 0,
            send_free: 0,
            receive_free: 0,
            receive_least: 0,
            totals: Totals::default(),
        };
        let shared = Shared {
            state: Mutex::new(state),
            info: OnceLock::new(),
            credit: Notify::new(),
            ended: watch::Sender::new(None),
            tasks: watch::Sender::new(2),
        };
        (Arc::new(shared), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn info(&self) -> &EndpointInfo {
        static NOT_STARTED: OnceLock<EndpointInfo> = OnceLock::new();
        self.info.get().unwrap_or_else(|| NOT_STARTED.get_or_init(EndpointInfo::default))
    }

    /// Divides the endpoint's buffer: half for NSENDs, a quarter granted generously to the first sockets' receive
    /// budgets, a quarter as a small sure share of each of the 256. The sum never exceeds it, so NSEND never meets
    /// ESYSNOBUFS through our own doing.
    pub(super) fn started(&self, info: EndpointInfo) {
        let mut state = self.lock();
        let buffer = info.buffer as usize;
        state.send_window = buffer / 2;
        state.send_free = state.send_window;
        state.receive_free = buffer / 4;
        state.receive_least = buffer / 4 / 256;
        if info.extensions & extension::BATCHED_RECORDS != 0
            && let Some(outgoing) = &state.outgoing
        {
            let _ = outgoing.send(Outgoing::Batching);
        }
        let _ = self.info.set(info);
    }

    pub(super) fn ended_error(&self) -> Error {
        Error::Ended(self.end_reason().unwrap_or_else(|| "closed".into()))
    }

    pub(super) fn end_reason(&self) -> Option<Arc<str>> {
        self.ended.borrow().clone()
    }

    pub(super) async fn wait_ended(&self) -> Arc<str> {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| "closed".into()),
            Err(_) => "closed".into(),
        }
    }

    pub(super) fn task_done(&self) {
        self.tasks.send_modify(|count| *count = count.saturating_sub(1));
    }

    pub(super) async fn wait_finished(&self) {
        // The sender lives in self: waiting cannot fail.
        let _ = self.tasks.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Ends the session once; later reasons are ignored. Pending answers and all sockets learn of it.
    pub(super) fn end(&self, reason: &str) {
        let first = self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert_with(|| reason.into());
            first
        });
        if !first {
            return;
        }
        let (pending, sockets) = {
            let mut state = self.lock();
            state.outgoing = None;
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.sockets))
        };
        drop(pending);
        for entry in sockets.into_values() {
            let _ = entry.events.send(Event::Ended);
        }
        self.credit.notify_waiters();
    }

    pub(super) fn send(&self, message: &Message, pending: Pending) -> Result<(), Error> {
        self.lock().send(message, pending).map_err(|error| error.unwrap_or_else(|| self.ended_error()))
    }

    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        state.outgoing.is_some() && !state.free.is_empty() && state.opened < state.budget
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().totals
    }

    /// Takes a socket number and a receive budget.
    pub(super) fn reserve(
        &self,
        hold: bool,
        tags: bool,
        most: usize,
    ) -> Result<(SocketId, u32, mpsc::UnboundedReceiver<Event>), Error> {
        let mut state = self.lock();
        if state.outgoing.is_none() {
            drop(state);
            return Err(self.ended_error());
        }
        if state.opened >= state.budget {
            return Err(Error::NoSocket);
        }
        let id = state.free.pop().ok_or(Error::NoSocket)?;
        state.opened += 1;
        state.totals.sockets += 1;
        let granted = (state.receive_free / 2).min(most);
        state.receive_free -= granted;
        let rbufsz = granted.max(state.receive_least).max(1);
        let (events, receiver) = mpsc::unbounded_channel();
        let entry = Entry {
            events,
            hold,
            tags,
            held: false,
            queued: 0,
            used: 0,
            accepted: VecDeque::new(),
            granted,
            closing: false,
        };
        state.sockets.insert(id, entry);
        Ok((id, u32::try_from(rbufsz).unwrap_or(u32::MAX), receiver))
    }

    /// The endpoint said that the budget is spent (ENORES): no further NOPEN in this session.
    pub(super) fn exhausted(&self) {
        let mut state = self.lock();
        state.budget = state.opened;
    }

    /// Payload bytes one NSEND should not exceed so that several fit into the window.
    pub(super) fn chunk(&self) -> usize {
        (self.lock().send_window / 4).saturating_sub(SEND_OVERHEAD).clamp(512, 65_536)
    }

    /// Sends an NSEND if the window has room. One socket may use as much as is left free (so a single busy one gets half
    /// and stalled ones never starve the others).
    pub(super) fn try_send(&self, socket: SocketId, len: usize, message: &Message) -> Result<bool, Error> {
        let mut state = self.lock();
        let window = state.send_window;
        let cost = (len + SEND_OVERHEAD).min(window);
        let free = state.send_free;
        let Some(entry) = state.sockets.get_mut(&socket) else {
            drop(state);
            return Err(self.ended_error());
        };
        if cost > free || (entry.used > 0 && entry.used + cost > free) {
            return Ok(false);
        }
        entry.used += cost;
        state.send_free -= cost;
        state.totals.bytes_out += len as u64;
        state.totals.messages_out += 1;
        match state.send(message, Pending::Send { socket, cost }) {
            Ok(()) => Ok(true),
            Err(error) => {
                drop(state);
                Err(error.unwrap_or_else(|| self.ended_error()))
            }
        }
    }

    /// Whether all NSENDs of the socket have left the endpoint's queue (or the session is over).
    pub(super) fn is_flushed(&self, socket: SocketId) -> bool {
        self.lock().sockets.get(&socket).is_none_or(|entry| entry.used == 0)
    }

    /// The consumer took `len` payload bytes; releases held notifications below the low-water mark. Two writes, since
    /// one that clears both bits would release NSTAT before NDATA.
    pub(super) fn taken(&self, socket: SocketId, len: usize) {
        let mut state = self.lock();
        let Some(entry) = state.sockets.get_mut(&socket) else { return };
        entry.queued = entry.queued.saturating_sub(len);
        if entry.held && entry.queued < LOW_WATER && !entry.closing {
            entry.held = false;
            let _ = state.send(&mask(socket, HOLD_STAT), Pending::Ignored);
            let _ = state.send(&mask(socket, 0), Pending::Ignored);
        }
    }

    /// Starts closing a socket; its number is free again after NCLOSE's RESULT. A reference peer aborts when NDATA of
    /// the socket is in its queue at NCLOSE, so it is first told to hold everything back; that RESULT comes after all NDATA.
    pub(super) fn close_socket(&self, socket: SocketId) {
        let extended = self.info().extended;
        let mut state = self.lock();
        let Some(entry) = state.sockets.get_mut(&socket) else { return };
        if entry.closing {
            return;
        }
        entry.closing = true;
        let _ = if extended {
            state.send(&Message::NClose { socket }, Pending::Close(socket))
        } else {
            state.send(&mask(socket, HOLD_ALL), Pending::CloseBarrier(socket))
        };
    }

    /// One message from the endpoint. An error ends the session.
    pub(super) fn dispatch(&self, message: Message) -> Result<(), &'static str> {
        match message {
            Message::Result(_) | Message::MData { .. } => return self.answer(message),
            Message::NData(data) => {
                let mut state = self.lock();
                let len = data.data.len();
                state.totals.bytes_in += len as u64;
                state.totals.messages_in += 1;
                let Some(entry) = state.sockets.get_mut(&data.socket) else { return Ok(()) };
                let socket = data.socket;
                entry.queued += len;
                let _ = entry.events.send(Event::Data(data));
                if entry.hold && !entry.held && !entry.closing && entry.queued > HIGH_WATER {
                    entry.held = true;
                    let _ = state.send(&mask(socket, HOLD_STAT_DATA), Pending::Ignored);
                }
            }
            Message::NTag(tag) => {
                let mut state = self.lock();
                let Some(entry) = state.sockets.get_mut(&tag.socket) else { return Ok(()) };
                let cost = entry.accepted.pop_front().unwrap_or(0);
                entry.used -= cost;
                if entry.tags {
                    let _ = entry.events.send(Event::Tag(tag));
                }
                state.send_free += cost;
                drop(state);
                self.credit.notify_waiters();
            }
            Message::NStat(stat) => self.route(stat.socket, Event::Stat(stat)),
            Message::NDrop(drop) => tracing::debug!(?drop, "the endpoint dropped received data"),
            Message::NBlock(block) => {
                tracing::debug!(?block, "a monitor of the endpoint refused received data")
            }
            Message::LInfo { name, info, .. } => tracing::info!(
                name = %String::from_utf8_lossy(&name).escape_debug(),
                info = %String::from_utf8_lossy(&info).escape_debug(),
                "the endpoint runs a monitor"
            ),
            Message::Suspd => {
                return Err("the endpoint suspended this experiment for one of higher priority");
            }
            other => tracing::debug!(?other, "message without a meaning for a controller, ignored"),
        }
        Ok(())
    }

    /// A private-range message.
    pub(super) fn dispatch_extension(&self, error: NErr) {
        self.route(error.socket, Event::Error(error));
    }

    fn route(&self, socket: SocketId, event: Event) {
        if let Some(entry) = self.lock().sockets.get(&socket) {
            let _ = entry.events.send(event);
        }
    }

    fn answer(&self, message: Message) -> Result<(), &'static str> {
        let mut state = self.lock();
        let pending = state.pending.pop_front().ok_or("the endpoint sent an answer without a request")?;
        let success = matches!(message, Message::Result(Outcome::Plain(ErrId::SUCCESS)));
        match pending {
            Pending::Reply(sender) => {
                let _ = sender.send(message);
            }
            Pending::Send { socket, cost } => {
                let Some(entry) = state.sockets.get_mut(&socket) else { return Ok(()) };
                if success {
                    entry.accepted.push_back(cost);
                    return Ok(());
                }
                entry.used -= cost;
                if let Message::Result(outcome) = message {
                    let _ = entry.events.send(Event::SendRefused(outcome));
                }
                state.send_free += cost;
                drop(state);
                self.credit.notify_waiters();
            }
            Pending::CloseBarrier(socket) => {
                let _ = state.send(&Message::NClose { socket }, Pending::Close(socket));
            }
            Pending::Close(socket) => {
                if let Some(entry) = state.sockets.remove(&socket) {
                    state.receive_free += entry.granted;
                    // The reference never gives back the budget of NSENDs it discards at NCLOSE.
                    if self.info().extended {
                        state.send_free += entry.used;
                    } else {
                        let unsent: usize = entry.accepted.iter().sum();
                        state.send_free += entry.used - unsent.min(entry.used);
                    }
                    state.free.insert(0, socket);
                }
                drop(state);
                self.credit.notify_waiters();
            }
            Pending::Ignored => {
                if !success && let Message::Result(outcome) = message {
                    tracing::debug!(?outcome, "unobserved request refused");
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// Queues a message and its answer's owner. `Err(None)`: the session is over.
    fn send(&mut self, message: &Message, pending: Pending) -> Result<(), Option<Error>> {
        let Some(outgoing) = &self.outgoing else { return Err(None) };
        let encoded = message.encode().map_err(|error| Some(Error::Encode(error.to_string())))?;
        outgoing.send(Outgoing::Message(encoded)).map_err(|_| None)?;
        self.pending.push_back(pending);
        Ok(())
    }
}

fn mask(socket: SocketId, bits: u16) -> Message {
    Message::MWrite {
        addr: block::block(socket) + block::NOTIFMASK,
        data: Bytes::copy_from_slice(&bits.to_be_bytes()),
    }
}

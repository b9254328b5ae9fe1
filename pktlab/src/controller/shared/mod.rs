//! The state that the reader, the writer and all handles of a session share.
//!
//! One lock, held for a few instructions at a time and never across an await. Queueing a message and noting what its answer
//! belongs to happen under it together, which is what makes matching by order right. [`dispatch`] is what comes in.

mod dispatch;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::event::Event;
use super::info::EndpointInfo;
use super::{Answer, Error, tasks::Outgoing};
use crate::vmem::{extension, mask as bit, socket as block};
use crate::wire::{EncodeError, Encoded, ExtRequest, Message, NAccpt, SocketId, Ticks};

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
    /// Of a listener: connections that wait.
    accepts: Option<mpsc::UnboundedSender<NAccpt>>,
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
    /// Who waits for the NTIME of a token.
    waits: HashMap<u32, oneshot::Sender<Ticks>>,
    next_token: u32,
    /// The endpoint's clock as last read, and when that answer came.
    clock: Option<(Ticks, Instant)>,
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
            waits: HashMap::new(),
            next_token: 0,
            clock: None,
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
        let (pending, sockets, waits) = {
            let mut state = self.lock();
            state.outgoing = None;
            (
                std::mem::take(&mut state.pending),
                std::mem::take(&mut state.sockets),
                std::mem::take(&mut state.waits),
            )
        };
        drop((pending, waits));
        for entry in sockets.into_values() {
            let _ = entry.events.send(Event::Ended);
        }
        self.credit.notify_waiters();
    }

    pub(super) fn send(&self, message: &Message, pending: Pending) -> Result<(), Error> {
        self.lock().send(message, pending).map_err(|error| error.unwrap_or_else(|| self.ended_error()))
    }

    /// Queues a request; its answer goes to whoever holds the [`Answer`].
    pub(super) fn ask(
        self: &Arc<Shared>,
        encoded: Result<Encoded, EncodeError>,
        request: &'static str,
    ) -> Result<Answer, Error> {
        let encoded = encoded.map_err(|error| Error::Encode(error.to_string()))?;
        let (sender, receiver) = oneshot::channel();
        if self.lock().push(encoded, Pending::Reply(sender)).is_none() {
            return Err(self.ended_error());
        }
        Ok(Answer { receiver, shared: self.clone(), request })
    }

    pub(super) fn extension_request(self: &Arc<Shared>, request: &ExtRequest) -> Result<Answer, Error> {
        let name = match request {
            ExtRequest::NOpt(_) => "NOPT",
            ExtRequest::NWait(_) => "NWAIT",
            ExtRequest::NTake(_) => "NTAKE",
        };
        self.ask(request.encode(), name)
    }

    /// Whether these extension bits are all enabled.
    pub(super) fn extension(&self, bits: u32) -> bool {
        self.info().extensions & bits == bits
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
            accepts: None,
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

    /// Where the NACCPTs of a listener's number arrive, from now on.
    pub(super) fn accepts(&self, listener: SocketId) -> mpsc::UnboundedReceiver<NAccpt> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(entry) = self.lock().sockets.get_mut(&listener) {
            entry.accepts = Some(sender);
        }
        receiver
    }

    /// A token for an NWAIT and what its NTIME completes.
    pub(super) fn wait_for(&self) -> (u32, oneshot::Receiver<Ticks>) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        let token = state.next_token;
        state.next_token = token.wrapping_add(1);
        state.waits.insert(token, sender);
        (token, receiver)
    }

    pub(super) fn forget_wait(&self, token: u32) {
        self.lock().waits.remove(&token);
    }

    /// Notes what the endpoint's clock shows now.
    pub(super) fn set_clock(&self, time: Ticks) {
        self.lock().clock = Some((time, Instant::now()));
    }

    /// How far the endpoint's clock is from `time` at least, going by when it was last read, and how long ago that was. Two
    /// clocks may drift by 1,000 ppm here, twice what is allowed where one of them is slewed.
    pub(super) fn clock_left(&self, time: Ticks) -> Option<(Duration, Duration)> {
        let (read, at) = self.lock().clock?;
        let age = at.elapsed();
        Some((Duration::from_nanos(time.saturating_sub(read)).saturating_sub(age + age / 1000), age))
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
    pub(super) fn try_send(&self, socket: SocketId, len: usize, encoded: &Encoded) -> Result<bool, Error> {
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
        if state.push(encoded.clone(), Pending::Send { socket, cost }).is_none() {
            drop(state);
            return Err(self.ended_error());
        }
        Ok(true)
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
}

impl State {
    /// Queues a message and its answer's owner. `Err(None)`: the session is over.
    fn send(&mut self, message: &Message, pending: Pending) -> Result<(), Option<Error>> {
        let encoded = message.encode().map_err(|error| Some(Error::Encode(error.to_string())))?;
        self.push(encoded, pending).ok_or(None)
    }

    /// As [`State::send`]; `None`: the session is over.
    fn push(&mut self, encoded: Encoded, pending: Pending) -> Option<()> {
        self.outgoing.as_ref()?.send(Outgoing::Message(encoded)).ok()?;
        self.pending.push_back(pending);
        Some(())
    }
}

fn mask(socket: SocketId, bits: u16) -> Message {
    Message::MWrite {
        addr: block::block(socket) + block::NOTIFMASK,
        data: Bytes::copy_from_slice(&bits.to_be_bytes()),
    }
}

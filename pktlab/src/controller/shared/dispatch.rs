//! What comes from the endpoint: answers to whom they belong, notifications to their sockets, credit back to the window.

use super::{HIGH_WATER, HOLD_STAT_DATA, Pending, Shared, mask};
use crate::controller::event::{Event, Received, Tagged};
use crate::wire::{ErrId, ExtNote, Message, NDatx, Outcome, SocketId};

impl Shared {
    /// One message from the endpoint. An error ends the session.
    pub(in crate::controller) fn dispatch(&self, message: Message) -> Result<(), &'static str> {
        match message {
            Message::Result(_) | Message::MData { .. } => return self.answer(message),
            Message::NData(data) => {
                self.received(data.socket, Received::plain(data.time, data.remote, data.data))
            }
            Message::NTag(tag) => self.tagged(
                tag.socket,
                Tagged { tag: tag.tag, time: tag.time, kernel_time: false, errid: tag.errid },
            ),
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

    /// One notification of the private range.
    pub(in crate::controller) fn dispatch_extension(&self, note: ExtNote) {
        match note {
            ExtNote::NErr(error) => {
                let mut state = self.lock();
                let Some(entry) = state.sockets.get_mut(&error.socket) else { return };
                // Quoted payload waits for the consumer as received data does.
                entry.queued += error.data.len();
                let _ = entry.events.send(Event::Error(error));
            }
            ExtNote::NAccpt(waiting) => {
                if let Some(entry) = self.lock().sockets.get(&waiting.listener)
                    && let Some(accepts) = &entry.accepts
                {
                    let _ = accepts.send(waiting);
                }
            }
            ExtNote::NTime(time) => {
                self.set_clock(time.time);
                // Nobody waits any more when the wait was dropped.
                if let Some(waiting) = self.lock().waits.remove(&time.token) {
                    let _ = waiting.send(time.time);
                }
            }
            ExtNote::NDatx(data) => {
                let NDatx { socket, time, kernel_time, ttl, tos, truncated, local, remote, data, .. } = data;
                let facts = Received { time, remote, data, kernel_time, ttl, tos, local, truncated };
                self.received(socket, facts);
            }
            ExtNote::NTagx(tag) => self.tagged(
                tag.socket,
                Tagged { tag: tag.tag, time: tag.time, kernel_time: tag.kernel_time, errid: tag.errid },
            ),
        }
    }

    fn received(&self, socket: SocketId, received: Received) {
        let mut state = self.lock();
        let len = received.data.len();
        state.totals.bytes_in += len as u64;
        state.totals.messages_in += 1;
        let Some(entry) = state.sockets.get_mut(&socket) else { return };
        entry.queued += len;
        let _ = entry.events.send(Event::Data(received));
        if entry.hold && !entry.held && !entry.closing && entry.queued > HIGH_WATER {
            entry.held = true;
            let _ = state.send(&mask(socket, HOLD_STAT_DATA), Pending::Ignored);
        }
    }

    fn tagged(&self, socket: SocketId, tagged: Tagged) {
        let mut state = self.lock();
        let Some(entry) = state.sockets.get_mut(&socket) else { return };
        let cost = entry.accepted.pop_front().unwrap_or(0);
        entry.used -= cost;
        if entry.tags {
            let _ = entry.events.send(Event::Tag(tagged));
        }
        state.send_free += cost;
        drop(state);
        self.credit.notify_waiters();
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

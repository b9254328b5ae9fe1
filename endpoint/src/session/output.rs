//! The one output FIFO, the notifications held back by masks, and the buffer budget they occupy (spec `endpoint.md`
//! §3, §6.1, §7).

use std::collections::VecDeque;

use pktlab::vmem::{extension, mask};
use pktlab::wire::{ErrId, ExtNote, Message, NTag, NTagx, Outcome, Proto, SocketId, Ticks};

use super::Session;
use super::net::Net;

/// Charged for a held notification without payload, so that a mask cannot make the endpoint hoard without bound.
pub const HELD_COST: u64 = 128;
/// Requests are not read while this many messages wait (spec §3.5).
pub const FIFO_FULL: usize = 100;

/// What goes to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Message(Message),
    /// Only while its extension is enabled.
    Extension(ExtNote),
}

/// An output with the budget it occupies until it is sent.
#[derive(Debug)]
pub struct Queued {
    pub output: Output,
    pub share: Share,
    /// NOTIFMASK bit of its kind; 0 cannot be held.
    pub kind: u16,
}

/// Budget occupied by one queued output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// Of BUFUSED.
    pub cost: u64,
    /// Of the socket's RBUFUSED.
    pub payload: u64,
    /// The opening the payload is charged to.
    pub owner: Option<(SocketId, u64)>,
}

/// How and when an NSEND left its queue.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    pub errid: ErrId,
    pub time: Ticks,
    /// `time` is the kernel's transmit stamp.
    pub kernel_time: bool,
}

impl Left {
    pub fn unsent(time: Ticks) -> Self {
        Self { errid: ErrId::EPKTNOTSENT, time, kernel_time: false }
    }
}

impl Session {
    /// Removes up to `messages` outputs, at least one when there is one, stopping beyond `bytes` of payload. They count as
    /// queued until [`Session::sent`].
    pub fn take_batch(&mut self, messages: usize, bytes: usize) -> Vec<Output> {
        let mut batch = Vec::new();
        let mut size = 0;
        while batch.len() < messages.max(1) && size < bytes.max(1) {
            let Some(next) = self.fifo.pop_front() else { break };
            size += payload_len(&next.output);
            self.in_flight.push(next.share);
            batch.push(next.output);
        }
        batch
    }

    /// The outputs taken so far are written: their budgets become free again.
    pub fn sent(&mut self, net: &mut impl Net) {
        for share in std::mem::take(&mut self.in_flight) {
            self.buf_used -= share.cost;
            if let Some((id, generation)) = share.owner
                && let Some(slot) = self.slots[usize::from(id)].as_mut()
                && slot.generation == generation
            {
                slot.rbufused -= share.payload;
            }
        }
        self.watch_all(net);
    }

    /// Messages that wait or are being written.
    pub fn queued(&self) -> usize {
        self.fifo.len() + self.in_flight.len()
    }

    /// Forgets what waits, for a controller that is gone.
    pub fn discard_output(&mut self) {
        for queued in self.fifo.drain(..) {
            self.buf_used -= queued.share.cost;
        }
    }

    pub(super) fn result(&mut self, errid: ErrId) {
        self.answer(Message::Result(Outcome::Plain(errid)));
    }

    pub(super) fn answer(&mut self, message: Message) {
        self.fifo.push_back(Queued { output: Output::Message(message), share: Share::default(), kind: 0 });
    }

    /// Queues a notification of an open socket, or holds it.
    pub(super) fn notify(&mut self, id: SocketId, kind: u16, output: Output, mut share: Share) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        let held = slot.mask & kind != 0;
        if held && share.cost == 0 {
            share.cost = HELD_COST;
        }
        self.buf_used += share.cost;
        slot.rbufused += share.payload;
        let queued = Queued { output, share, kind };
        if held {
            slot.held_payload += share.payload;
            slot.held.push_back(queued);
        } else {
            self.fifo.push_back(queued);
        }
    }

    /// Queues the NTAG of an NSEND that left its queue at `time`, when it is wanted.
    pub(super) fn tag(&mut self, id: SocketId, tag: u16, left: Left) {
        let Some(slot) = &self.slots[usize::from(id)] else { return };
        if tag == 0 {
            return;
        }
        let Left { errid, time, kernel_time } = left;
        let output = if self.enabled & extension::STAMPS != 0 && slot.proto != Proto::Tcp {
            Output::Extension(ExtNote::NTagx(NTagx { socket: id, tag, time, kernel_time, errid }))
        } else {
            Output::Message(Message::NTag(NTag { socket: id, tag, time, errid }))
        };
        self.notify(id, mask::NTAG, output, Share::default());
    }

    /// Moves what a new mask no longer holds to the FIFO, kind by kind.
    pub(super) fn release_held(&mut self, id: SocketId) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        for kind in [mask::NTAG, mask::NSTAT, mask::NDATA, mask::NDROP, mask::NBLOCK] {
            if slot.mask & kind != 0 || slot.held.is_empty() {
                continue;
            }
            let (free, kept): (VecDeque<Queued>, _) =
                std::mem::take(&mut slot.held).into_iter().partition(|held| held.kind == kind);
            slot.held = kept;
            slot.held_payload -= free.iter().map(|queued| queued.share.payload).sum::<u64>();
            self.fifo.extend(free);
        }
    }
}

fn payload_len(output: &Output) -> usize {
    match output {
        Output::Message(Message::NData(data)) => data.data.len(),
        Output::Message(Message::MData { data, .. }) => data.len(),
        Output::Extension(ExtNote::NDatx(data)) => data.data.len(),
        Output::Extension(ExtNote::NErr(error)) => error.data.len(),
        Output::Message(_) | Output::Extension(_) => 0,
    }
}

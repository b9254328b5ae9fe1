//! Transmit queues: what leaves them when, and the end of the sending side (spec `endpoint.md` §5.4, §5.6).
//!
//! A message that is due is sent here. One whose time is to come is handed over (see [`Net::hand_over`]), and so is what
//! stands behind it, because a queue is not sorted by time.

use pktlab::vmem::{SocketState, extension, send_error};
use pktlab::wire::{ErrId, Proto, SocketId, Ticks};

use super::Session;
use super::net::{Errno, Net, Sent, Timed};
use super::output::Left;
use super::slot::{AHEAD, Pending};
use crate::limits::Admit;

/// Messages sent before another socket has its turn.
const TURN: usize = 32;
/// Messages of a socket that are handed over at once.
const HANDED_MAX: usize = 64;

/// What can be done with a queue now.
enum Step {
    Nothing,
    Finish,
    Send,
    HandOver,
    /// Limits are used up for good.
    Exhausted,
}

impl Session {
    /// Sends or hands over what can be, in queue order, and shuts the sending side when that is due.
    pub(super) fn transmit(&mut self, id: SocketId, net: &mut impl Net) {
        for _ in 0..TURN {
            let now = net.now();
            match self.step(id, now) {
                Step::Nothing => return,
                Step::Finish => return self.finish(id, net),
                Step::Exhausted => return self.drop_queue(id, net),
                Step::HandOver => self.hand_over(id, net),
                Step::Send => self.send_head(id, net),
            }
        }
        // The turn is over; readiness brings the next one. What is handed over brings its own.
        if let Some(slot) = self.slots[usize::from(id)].as_mut() {
            slot.blocked = !slot.tx.is_empty() && slot.handed == 0;
        }
    }

    fn step(&mut self, id: SocketId, now: Ticks) -> Step {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return Step::Nothing };
        if !slot.can_send() {
            return Step::Nothing;
        }
        let next = slot.tx.get(slot.handed);
        if let Some(fin) = slot.fin
            && next.is_none_or(|next| next.time >= fin)
        {
            return if fin <= now && slot.handed == 0 { Step::Finish } else { Step::Nothing };
        }
        let Some(next) = next else { return Step::Nothing };
        if slot.blocked {
            return Step::Nothing;
        }
        let due = next.started || next.time <= now;
        let alone = slot.handed == 0;
        // The rest of a stream message can be sent once its first bytes are, and only then the next message.
        let full = slot.handed >= if slot.proto == Proto::Tcp { 1 } else { HANDED_MAX };
        if full || next.time > now.saturating_add(AHEAD) {
            return Step::Nothing;
        }
        slot.not_before = None;
        slot.after_others = false;
        // Asked about the present: what was sent lately must not be forgotten for what may leave later.
        match self.ledger.admit(now, next.rest().len() as u64) {
            Admit::Now if due && alone => Step::Send,
            Admit::Now => Step::HandOver,
            Admit::At(time) if time <= next.time => Step::HandOver,
            // With something handed over, the next look comes with its outcome.
            _ if !alone => Step::Nothing,
            Admit::AfterSettle => {
                slot.after_others = true;
                Step::Nothing
            }
            Admit::At(time) => {
                slot.not_before = Some(time);
                Step::Nothing
            }
            Admit::Exhausted => Step::Exhausted,
        }
    }

    fn send_head(&mut self, id: SocketId, net: &mut impl Net) {
        let Some(head) = self.slots[usize::from(id)].as_mut().and_then(|slot| slot.tx.front()) else {
            return;
        };
        let outcome = match head.remote {
            Some(remote) => net.send_to(id, head.rest(), remote, head.tag != 0),
            None if head.rest().is_empty() => Ok(Sent { bytes: 0, time: net.now(), kernel_time: false }),
            None => net.send(id, head.rest()),
        };
        self.outcome(id, outcome, net);
    }

    fn hand_over(&mut self, id: SocketId, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        let Some(next) = slot.tx.get(slot.handed) else { return };
        slot.handed += 1;
        self.ledger.reserve(next.rest().len() as u64);
        let data = next.data.slice(next.sent..);
        // The stamp of a socket that somebody waits on wakes that thread while the packet is on its way out, which made timed
        // datagrams 3 to 10 µs later. A raw socket is only sent on.
        let stamp = next.tag != 0 && slot.proto == Proto::Raw;
        net.hand_over(id, Timed { time: next.time, data, remote: next.remote, stamp });
    }

    /// A send handed over was made, or failed.
    pub fn made(&mut self, id: SocketId, outcome: Result<Sent, Errno>, net: &mut impl Net) {
        self.settle(id, outcome, net);
        self.transmit(id, net);
        self.watch(id, net);
        self.send_freed(net);
    }

    /// Looks again at what waited for reserved sends, once some of them came to their end.
    pub(super) fn send_freed(&mut self, net: &mut impl Net) {
        while std::mem::take(&mut self.freed) {
            for id in 0..=SocketId::MAX {
                if self.slots[usize::from(id)].as_ref().is_some_and(|slot| slot.after_others) {
                    self.transmit(id, net);
                    self.watch(id, net);
                }
            }
        }
    }

    /// Everything that happened to what was handed over has been looked at, and nothing is handed over any more.
    pub(super) fn recall(&mut self, id: SocketId, net: &mut impl Net) {
        if self.slots[usize::from(id)].as_ref().is_none_or(|slot| slot.handed == 0) {
            return;
        }
        for outcome in net.take_back(id) {
            self.settle(id, outcome, net);
        }
        self.unreserve(id);
    }

    /// Nothing counts as handed over any more.
    fn unreserve(&mut self, id: SocketId) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        let handed = std::mem::take(&mut slot.handed);
        self.freed |= handed > 0;
        for pending in slot.tx.iter().take(handed) {
            self.ledger.settle(pending.rest().len() as u64, None, 0);
        }
    }

    /// The outcome of the first send handed over.
    fn settle(&mut self, id: SocketId, outcome: Result<Sent, Errno>, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut().filter(|slot| slot.handed > 0) else { return };
        let Some(head) = slot.tx.front() else { return };
        slot.handed -= 1;
        self.freed = true;
        self.ledger.settle(head.rest().len() as u64, None, 0);
        if outcome.is_err() {
            // What follows was not made either: it waits for the same reason, or falls with the socket.
            net.take_back(id);
            self.unreserve(id);
        }
        self.outcome(id, outcome, net);
    }

    /// What a send of the head of the queue led to.
    fn outcome(&mut self, id: SocketId, outcome: Result<Sent, Errno>, net: &mut impl Net) {
        let told = self.enabled & extension::NERR != 0;
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        let Some(head) = slot.tx.front_mut() else { return };
        match outcome {
            Ok(sent) => {
                head.started = true;
                head.sent += sent.bytes;
                self.ledger.sent(sent.time, sent.bytes as u64);
                if head.rest().is_empty() {
                    let (tag, cost) = (head.tag, head.cost);
                    slot.tx.pop_front();
                    self.buf_used -= cost;
                    let Sent { time, kernel_time, .. } = sent;
                    self.tag(id, tag, Left { errid: ErrId::SUCCESS, time, kernel_time });
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => slot.blocked = true,
            Err(errno) if slot.proto == Proto::Raw => self.packet_fault(id, errno, net),
            Err(errno) if slot.proto == Proto::Udp && told => self.datagram_fault(id, errno, net),
            Err(errno) => {
                let tag = head.tag;
                self.fault(id, errno, Some(tag), net);
            }
        }
    }

    /// Executes NCTL FIN (spec §5.6).
    fn finish(&mut self, id: SocketId, net: &mut impl Net) {
        let outcome = net.shut_write(id);
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        slot.fin = None;
        slot.send_error = send_error::WRITE_SHUT;
        slot.state = match (outcome, slot.state) {
            (Ok(()), SocketState::Eof) => SocketState::End,
            (Ok(()), _) => SocketState::Wfin,
            (Err(_), _) => SocketState::UnkFault,
        };
        if slot.state == SocketState::UnkFault {
            net.close(id);
        }
        self.drop_queue(id, net);
    }
}

impl Pending {
    /// What the operating system has not taken yet.
    pub fn rest(&self) -> &[u8] {
        &self.data[self.sent..]
    }
}

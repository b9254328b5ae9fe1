//! Transmit queues: what leaves them when, and the end of the sending side (spec `endpoint.md` §5.4, §5.6).

use pktlab::vmem::{SocketState, send_error};
use pktlab::wire::{ErrId, SocketId};

use super::Session;
use super::net::{Errno, Net};

/// Messages sent before another socket has its turn.
const TURN: usize = 32;

impl Session {
    /// Sends what is due, in queue order, and shuts the sending side when that is due.
    pub(super) fn transmit(&mut self, id: SocketId, net: &mut impl Net) {
        for _ in 0..TURN {
            let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
            if !slot.can_send() {
                return;
            }
            let now = net.now();
            if let Some(fin) = slot.fin
                && fin <= now
                && slot.tx.front().is_none_or(|head| head.time >= fin)
            {
                return self.finish(id, net);
            }
            let Some(head) = slot.tx.front_mut() else { return };
            if slot.blocked || (!head.started && head.time > now) {
                return;
            }
            let rest = &head.data[head.sent..];
            let outcome = match head.remote {
                Some(remote) => net.send_to(id, rest, remote).map(|()| rest.len()),
                None if rest.is_empty() => Ok(0),
                None => net.send(id, rest),
            };
            match outcome {
                Ok(sent) => {
                    head.started = true;
                    head.sent += sent;
                    if head.sent >= head.data.len() {
                        let (tag, cost) = (head.tag, head.cost);
                        slot.tx.pop_front();
                        self.buf_used -= cost;
                        self.tag(id, tag, ErrId::SUCCESS, net);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    slot.blocked = true;
                    return;
                }
                Err(errno) => {
                    let tag = head.tag;
                    return self.fault(id, errno, Some(tag), net);
                }
            }
        }
        // The turn is over; readiness brings the next one.
        if let Some(slot) = self.slots[usize::from(id)].as_mut() {
            slot.blocked = !slot.tx.is_empty();
        }
    }

    /// Executes NCTL FIN (spec §5.6).
    pub(super) fn finish(&mut self, id: SocketId, net: &mut impl Net) {
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

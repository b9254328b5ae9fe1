//! From the sockets to the controller: receive budgets, truncation, drop counting (spec `endpoint.md` §6, §7).

use pktlab::vmem::{SocketState, extension, mask};
use pktlab::wire::{ExtNote, Family, Message, NData, NDatx, NStat, Proto, SocketId, StatEvent};

use super::Session;
use super::net::{Datagram, Errno, Net};
use super::output::{Output, Share};

/// Most bytes of one NDATA (spec §6).
pub const NDATA_MAX: u64 = 65_536;
/// Accounting bytes of an NDATA beside its payload (spec §7).
const NDATA_TCP: u64 = 124;
const NDATA_UDP_V4: u64 = 130;
const NDATA_UDP_V6: u64 = 142;

/// Datagrams taken before another socket has its turn.
const TURN: usize = 32;
/// A stream is read again only when this much room is free, as long as room is about to come back: fewer, larger NDATA.
const READ_MIN: u64 = 32 * 1024;

impl Session {
    pub(super) fn receive_stream(&mut self, id: SocketId, net: &mut impl Net) {
        let Some(room) = self.stream_room(id) else { return };
        let left = self.ledger.left();
        if left.receive_bytes == 0 || left.receive_packets == 0 {
            // A stream that went on with a hole would be taken for what the remote sent.
            tracing::info!("socket {id}: closed, the receive limit of the certificates is used up");
            return self.fault(id, Errno::DQUOT, None, net);
        }
        let received = net.receive(id, room.min(left.receive_bytes) as usize);
        let time = net.now();
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        match received {
            Ok(data) if data.is_empty() => {
                slot.state =
                    if slot.state == SocketState::Wfin { SocketState::End } else { SocketState::Eof };
                self.stat(id, StatEvent::Code(NStat::PEER_CLOSED), net);
                self.transmit(id, net);
            }
            Ok(data) => {
                let payload = data.len() as u64;
                self.ledger.receive(payload);
                let share = Share { cost: NDATA_TCP + payload, payload, owner: Some((id, slot.generation)) };
                let family = slot.family.octet();
                let message = NData { socket: id, family, proto: Proto::Tcp, time, remote: None, data };
                self.notify(id, mask::NDATA, Output::Message(Message::NData(message)), share);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => self.fault(id, errno, None, net),
        }
    }

    /// Bytes a stream may be read for now.
    pub(super) fn stream_room(&self, id: SocketId) -> Option<u64> {
        let slot = self.slots[usize::from(id)].as_ref()?;
        let budget = self.buf_room().saturating_sub(NDATA_TCP);
        let room = slot.room().min(budget).min(NDATA_MAX);
        let coming_back = slot.rbufused > slot.held_payload;
        let enough = if coming_back { READ_MIN.min(u64::from(slot.rbufsz)) } else { 1 };
        (room >= enough && room > 0).then_some(room)
    }

    pub(super) fn receive_datagrams(&mut self, id: SocketId, net: &mut impl Net) {
        for _ in 0..TURN {
            let received = match net.receive_from(id) {
                Ok(received) => received,
                Err(Errno::AGAIN) => return,
                // A receive error changes nothing (spec §8): it tells of an earlier datagram.
                Err(_) => continue,
            };
            let Datagram { data, remote, time, kernel_time, ttl, tos, local } = received;
            let Some(slot) = &self.slots[usize::from(id)] else { return };
            let family = slot.family;
            let overhead = if family == Family::V4 { NDATA_UDP_V4 } else { NDATA_UDP_V6 };
            let note = NDatx {
                socket: id,
                family,
                proto: Proto::Udp,
                time,
                kernel_time,
                ttl,
                tos,
                truncated: false,
                local,
                remote: Some(remote),
                data,
            };
            self.deliver(note, overhead);
        }
    }

    /// Queues a datagram or packet as far as the budgets have room and the limits allow; `overhead` are its accounting bytes
    /// beside the payload.
    pub(super) fn deliver(&mut self, mut note: NDatx, overhead: u64) {
        let (id, len) = (note.socket, note.data.len());
        let buf_room = self.buf_room();
        let Some(slot) = &self.slots[usize::from(id)] else { return };
        let owner = Some((id, slot.generation));
        let room = slot.room().min(buf_room.saturating_sub(overhead));
        let payload = room.min(len as u64);
        // An empty datagram needs no payload budget, only its place in the queue.
        if (room == 0 && len > 0) || buf_room < overhead || !self.ledger.receive(payload) {
            return self.count_drop(id, 1, len);
        }
        note.truncated = payload < len as u64;
        if note.truncated {
            self.count_drop(id, 1, len - payload as usize);
            note.data.truncate(payload as usize);
        }
        let output = if self.enabled & extension::STAMPS != 0 {
            Output::Extension(ExtNote::NDatx(note))
        } else {
            let NDatx { socket, family, proto, time, remote, data, .. } = note;
            Output::Message(Message::NData(NData {
                socket,
                family: family.octet(),
                proto,
                time,
                remote,
                data,
            }))
        };
        self.notify(id, mask::NDATA, output, Share { cost: overhead + payload, payload, owner });
    }
}

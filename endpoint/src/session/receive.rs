//! From the sockets to the controller: receive budgets, truncation, drop counting (spec `endpoint.md` §6, §7).

use pktlab::vmem::{SocketState, mask};
use pktlab::wire::{Family, Message, NData, NStat, Proto, SocketId, StatEvent};

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
        let received = net.receive(id, room as usize);
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
            let Datagram { mut data, remote, time, .. } = match net.receive_from(id) {
                Ok(received) => received,
                // A receive error changes nothing (spec §8), and an interrupted call is repeated by readiness.
                Err(_) => return,
            };
            let buf_room = self.buf_room();
            let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
            let overhead = if slot.family == Family::V4 { NDATA_UDP_V4 } else { NDATA_UDP_V6 };
            let room = slot.room().min(buf_room.saturating_sub(overhead));
            // An empty datagram needs no payload budget, only its place in the queue.
            if (room == 0 && !data.is_empty()) || buf_room < overhead {
                slot.count_drop(data.len());
                continue;
            }
            if data.len() as u64 > room {
                slot.count_drop(data.len() - room as usize);
                data.truncate(room as usize);
            }
            let payload = data.len() as u64;
            let share = Share { cost: overhead + payload, payload, owner: Some((id, slot.generation)) };
            let message = NData {
                socket: id,
                family: slot.family.octet(),
                proto: Proto::Udp,
                time,
                remote: Some(remote),
                data,
            };
            self.notify(id, mask::NDATA, Output::Message(Message::NData(message)), share);
        }
    }
}

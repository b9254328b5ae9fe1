//! What happens at the sockets: readiness, receive budgets, transmit queues, faults (spec `endpoint.md` §5.4, §5.6, §6–8).

use pktlab::vmem::{SocketState, extension, mask, send_error};
use pktlab::wire::{ErrId, Family, Message, NData, NErr, NStat, Proto, SocketId, StatEvent};

use super::net::{Errno, Interest, Net};
use super::output::{Output, Share};
use super::{Phase, Session};

/// Most bytes of one NDATA (spec §6).
pub const NDATA_MAX: u64 = 65_536;
/// Accounting bytes of an NDATA beside its payload (spec §7).
const NDATA_TCP: u64 = 124;
const NDATA_UDP_V4: u64 = 130;
const NDATA_UDP_V6: u64 = 142;
/// Datagrams taken, or messages sent, before another socket has its turn.
const TURN: usize = 32;
/// A stream is read again only when this much room is free, as long as room is about to come back: fewer, larger NDATA.
const READ_MIN: u64 = 32 * 1024;

impl Session {
    /// A watched socket became ready. Errors count as both.
    pub fn ready(&mut self, id: SocketId, ready: Interest, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        if slot.state == SocketState::Opening {
            if ready.write || ready.read {
                self.connected(id, net);
            }
        } else {
            let watched = slot.watched;
            if ready.write {
                slot.blocked = false;
            }
            if ready.read && watched.read {
                match slot.proto {
                    Proto::Udp => self.receive_datagrams(id, net),
                    _ => self.receive_stream(id, net),
                }
            }
            if ready.write {
                self.transmit(id, net);
            }
        }
        self.watch(id, net);
    }

    fn connected(&mut self, id: SocketId, net: &mut impl Net) {
        let outcome = net.finish_connect(id);
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        match outcome {
            Ok(None) => {}
            Ok(Some((peer, local))) => {
                slot.state = SocketState::Open;
                slot.local = local;
                self.stat(id, StatEvent::Established(peer), net);
                self.transmit(id, net);
            }
            Err(errno) => self.connect_failed(id, errno, net),
        }
    }

    /// The queue of a failed connect is kept and never sent (spec §8).
    pub(super) fn connect_failed(&mut self, id: SocketId, errno: Errno, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        slot.state = match errno {
            Errno::CONNREFUSED => SocketState::Refused,
            Errno::TIMEDOUT => SocketState::TimedOut,
            Errno::HOSTUNREACH => SocketState::Unreach,
            _ => SocketState::UnkFault,
        };
        let (family, remote) = (slot.family.octet(), slot.remote);
        net.close(id);
        if self.enabled & extension::NERR != 0 {
            let error = NErr {
                socket: id,
                family,
                proto: Proto::Tcp.octet(),
                time: net.now(),
                errno: u16::try_from(errno.raw_os_error()).unwrap_or(0),
                origin: 0,
                icmp_type: 0,
                icmp_code: 0,
                info: 0,
                offender: None,
                remote,
                data: bytes::Bytes::new(),
            };
            self.notify(id, mask::NSTAT, Output::NErr(error), Share::default());
        }
    }

    fn receive_stream(&mut self, id: SocketId, net: &mut impl Net) {
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
    fn stream_room(&self, id: SocketId) -> Option<u64> {
        let slot = self.slots[usize::from(id)].as_ref()?;
        let budget = self.buf_room().saturating_sub(NDATA_TCP);
        let room = slot.room().min(budget).min(NDATA_MAX);
        let coming_back = slot.rbufused > slot.held_payload;
        let enough = if coming_back { READ_MIN.min(u64::from(slot.rbufsz)) } else { 1 };
        (room >= enough && room > 0).then_some(room)
    }

    fn receive_datagrams(&mut self, id: SocketId, net: &mut impl Net) {
        for _ in 0..TURN {
            let (mut data, remote) = match net.receive_from(id) {
                Ok(received) => received,
                // A receive error changes nothing (spec §8), and an interrupted call is repeated by readiness.
                Err(_) => return,
            };
            let time = net.now();
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

    /// A read (`failing` is `None`) or the write of an NSEND with tag `failing` broke the socket.
    fn fault(&mut self, id: SocketId, errno: Errno, failing: Option<u16>, net: &mut impl Net) {
        let (state, code, error) = match errno {
            Errno::TIMEDOUT => (SocketState::TimedOut, NStat::TIMEOUT, send_error::TIMED_OUT),
            Errno::CONNRESET => (SocketState::Reset, NStat::RESET, send_error::RESET),
            Errno::NETUNREACH | Errno::HOSTUNREACH => {
                (SocketState::Unreach, NStat::UNKNOWN, send_error::UNREACHABLE)
            }
            _ => (SocketState::UnkFault, NStat::UNKNOWN, send_error::OTHER),
        };
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        slot.state = state;
        if let Some(tag) = failing {
            slot.send_error = error;
            slot.send_error_tag = tag;
        }
        net.close(id);
        self.stat(id, StatEvent::Code(code), net);
        self.drop_queue(id, net);
    }

    /// Discards every NSEND that still waits, telling those that asked.
    fn drop_queue(&mut self, id: SocketId, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        for pending in std::mem::take(&mut slot.tx) {
            self.buf_used -= pending.cost;
            self.tag(id, pending.tag, ErrId::EPKTNOTSENT, net);
        }
    }

    fn stat(&mut self, id: SocketId, event: StatEvent, net: &mut impl Net) {
        let Some(slot) = &self.slots[usize::from(id)] else { return };
        let stat = NStat {
            socket: id,
            family: slot.family.octet(),
            proto: slot.proto.octet(),
            time: net.now(),
            event,
        };
        self.notify(id, mask::NSTAT, Output::Message(Message::NStat(stat)), Share::default());
    }

    /// Tells the outside which readiness of a socket is of use now.
    pub(super) fn watch(&mut self, id: SocketId, net: &mut impl Net) {
        let room = self.stream_room(id).is_some();
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        let read = match (slot.proto, slot.state) {
            (Proto::Udp, SocketState::Open) => true,
            (Proto::Tcp, SocketState::Open | SocketState::Wfin) => room,
            _ => false,
        };
        let write =
            slot.state == SocketState::Opening || (slot.can_send() && slot.blocked && !slot.tx.is_empty());
        let wanted = Interest { read, write };
        if wanted != slot.watched {
            slot.watched = wanted;
            if !slot.state.is_error() {
                net.watch(id, wanted);
            }
        }
    }

    /// The same for all sockets, after a shared budget changed.
    pub(super) fn watch_all(&mut self, net: &mut impl Net) {
        if self.phase == Phase::Run {
            for id in 0..=SocketId::MAX {
                self.watch(id, net);
            }
        }
    }
}

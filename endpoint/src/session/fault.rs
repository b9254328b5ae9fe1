//! Sockets that break: error mapping and what the controller is told (spec `endpoint.md` §8).

use std::net::SocketAddr;

use bytes::Bytes;
use pktlab::vmem::{SocketState, extension, mask, send_error};
use pktlab::wire::{ExtNote, Message, NErr, NStat, SocketId, StatEvent, Ticks};

use super::Session;
use super::net::{Errno, Net, Reported};
use super::output::{Left, Output, Share};

/// Reported errors passed on before another socket has its turn.
const TURN: usize = 32;
/// Accounting bytes of a NERR of a UDP socket beside what it quotes.
const NERR: u64 = 142;

impl Session {
    /// The queue of a failed connect is kept and never sent (spec §8).
    pub(super) fn connect_failed(&mut self, id: SocketId, errno: Errno, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        slot.state = match errno {
            Errno::CONNREFUSED => SocketState::Refused,
            Errno::TIMEDOUT => SocketState::TimedOut,
            Errno::HOSTUNREACH => SocketState::Unreach,
            _ => SocketState::UnkFault,
        };
        let remote = slot.remote;
        net.close(id);
        self.report_error(id, failed_call(errno, remote, net.now()), Share::default());
    }

    /// Passes on what the network reported about datagrams of a UDP socket.
    pub(super) fn receive_errors(&mut self, id: SocketId, net: &mut impl Net) {
        for _ in 0..TURN {
            let Some(reported) = net.reported(id) else { return };
            self.report_datagram(id, reported);
        }
    }

    /// A NERR of a UDP socket takes its place in both budgets as an NDATA would.
    fn report_datagram(&mut self, id: SocketId, reported: Reported) {
        let buf_room = self.buf_room();
        let Some(slot) = &self.slots[usize::from(id)] else { return };
        if self.enabled & extension::NERR == 0 {
            return;
        }
        let payload = reported.data.len() as u64;
        let cost = NERR + payload;
        if payload > slot.room() || cost > buf_room {
            return self.count_drop(id, 1, reported.data.len());
        }
        let owner = Some((id, slot.generation));
        self.report_error(id, reported, Share { cost, payload, owner });
    }

    fn report_error(&mut self, id: SocketId, reported: Reported, share: Share) {
        let Some(slot) = &self.slots[usize::from(id)] else { return };
        if self.enabled & extension::NERR == 0 {
            return;
        }
        let Reported { errno, origin, icmp_type, icmp_code, info, offender, remote, time, data } = reported;
        let (family, proto) = (slot.family.octet(), slot.proto.octet());
        let error = NErr {
            socket: id,
            family,
            proto,
            time,
            errno,
            origin,
            icmp_type,
            icmp_code,
            info,
            offender,
            remote,
            data,
        };
        self.notify(id, mask::NSTAT, Output::Extension(ExtNote::NErr(error)), share);
    }

    /// A read (`failing` is `None`) or the write of an NSEND with tag `failing` broke the socket.
    pub(super) fn fault(&mut self, id: SocketId, errno: Errno, failing: Option<u16>, net: &mut impl Net) {
        // A send that was handed over may have met the same error before, which is then told already.
        self.recall(id, net);
        if self.slots[usize::from(id)].as_ref().is_none_or(|slot| slot.state.is_error()) {
            return;
        }
        let (state, code, error) = match errno {
            Errno::TIMEDOUT => (SocketState::TimedOut, NStat::TIMEOUT, send_error::TIMED_OUT),
            Errno::CONNRESET => (SocketState::Reset, NStat::RESET, send_error::RESET),
            Errno::NETUNREACH | Errno::HOSTUNREACH => {
                (SocketState::Unreach, NStat::UNKNOWN, send_error::UNREACHABLE)
            }
            _ => (SocketState::UnkFault, NStat::UNKNOWN, send_error::OTHER),
        };
        self.break_socket(id, state, net);
        if let (Some(slot), Some(tag)) = (self.slots[usize::from(id)].as_mut(), failing) {
            slot.send_error = error;
            slot.send_error_tag = tag;
        }
        self.stat(id, StatEvent::Code(code), net);
        self.drop_queue(id, net);
    }

    /// The operating system refused the raw packet at the head of the queue: a bad one falls alone.
    pub(super) fn packet_fault(&mut self, id: SocketId, errno: Errno, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        let Some(head) = slot.tx.front() else { return };
        slot.send_error_tag = head.tag;
        match errno {
            Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::MSGSIZE => {
                slot.send_error = send_error::BAD_PACKET;
                let (tag, cost) = (head.tag, head.cost);
                slot.tx.pop_front();
                self.buf_used -= cost;
                self.totals.unsent += 1;
                self.tag(id, tag, Left::unsent(net.now()));
            }
            _ => {
                slot.send_error = match errno {
                    Errno::NOBUFS | Errno::NOMEM => send_error::NO_RESOURCES,
                    _ => send_error::OTHER,
                };
                self.break_socket(id, SocketState::UnkFault, net);
                self.drop_queue(id, net);
            }
        }
    }

    /// The operating system refused the datagram at the head of the queue, and the controller understands NERR: the datagram
    /// falls, the socket stays. Without NERR the controller could not tell that from a socket that works.
    pub(super) fn datagram_fault(&mut self, id: SocketId, errno: Errno, net: &mut impl Net) {
        let now = net.now();
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        let Some(head) = slot.tx.pop_front() else { return };
        slot.send_error = send_error::OTHER;
        slot.send_error_tag = head.tag;
        self.buf_used -= head.cost;
        self.totals.unsent += 1;
        self.receive_errors(id, net);
        self.report_datagram(id, failed_call(errno, head.remote, now));
        self.tag(id, head.tag, Left::unsent(now));
    }

    /// Enters a state that only NCLOSE leaves.
    pub(super) fn break_socket(&mut self, id: SocketId, state: SocketState, net: &mut impl Net) {
        self.recall(id, net);
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        slot.state = state;
        slot.capture = None;
        net.close(id);
    }

    /// Discards every NSEND that still waits, telling those that asked.
    pub(super) fn drop_queue(&mut self, id: SocketId, net: &mut impl Net) {
        self.recall(id, net);
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        slot.not_before = None;
        for pending in std::mem::take(&mut slot.tx) {
            self.buf_used -= pending.cost;
            self.totals.unsent += 1;
            self.tag(id, pending.tag, Left::unsent(net.now()));
        }
    }

    pub(super) fn stat(&mut self, id: SocketId, event: StatEvent, net: &mut impl Net) {
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
}

/// A call that failed, as NERR tells it.
fn failed_call(errno: Errno, remote: Option<SocketAddr>, time: Ticks) -> Reported {
    Reported {
        errno: u16::try_from(errno.raw_os_error()).unwrap_or(0),
        origin: 0,
        icmp_type: 0,
        icmp_code: 0,
        info: 0,
        offender: None,
        remote,
        time,
        data: Bytes::new(),
    }
}

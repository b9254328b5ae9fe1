//! Sockets that break: error mapping and what the controller is told (spec `endpoint.md` §8).

use pktlab::vmem::{SocketState, extension, mask, send_error};
use pktlab::wire::{ErrId, Message, NErr, NStat, Proto, SocketId, StatEvent};

use super::Session;
use super::net::{Errno, Net};
use super::output::{Output, Share};

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

    /// A read (`failing` is `None`) or the write of an NSEND with tag `failing` broke the socket.
    pub(super) fn fault(&mut self, id: SocketId, errno: Errno, failing: Option<u16>, net: &mut impl Net) {
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
    pub(super) fn drop_queue(&mut self, id: SocketId, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        for pending in std::mem::take(&mut slot.tx) {
            self.buf_used -= pending.cost;
            self.tag(id, pending.tag, ErrId::EPKTNOTSENT, net);
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

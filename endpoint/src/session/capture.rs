//! NCAP: checks, the filter in force, and what it captures (spec `endpoint.md` §5.5, `raw.md` §4).

use pktlab::program::Program;
use pktlab::vmem::SocketState;
use pktlab::wire::{ErrId, NCap, NDatx, Proto, SocketId, Ticks};

use super::Session;
use super::net::Net;
use super::request::matches;
use super::slot::CAPTURE_DELAY;
use crate::filter::Filter;

/// Longest NCAP program, encoded bytes.
const FILTER_MAX: usize = 65_536;
/// Accounting bytes of a captured packet beside its payload (spec `endpoint.md` §7).
const NDATA_RAW: u64 = 124;
/// Captures of a session at a time: each has memory of the kernel that no other budget counts.
const CAPTURES_MAX: usize = 16;
/// Packets taken before another socket has its turn.
const TURN: usize = 64;

impl Session {
    pub(super) fn capture(&mut self, capture: &NCap, net: &mut impl Net) {
        let errid = self.try_capture(capture, net).err().unwrap_or(ErrId::SUCCESS);
        self.result(errid);
        self.watch(capture.socket, net);
    }

    fn try_capture(&mut self, capture: &NCap, net: &mut impl Net) -> Result<(), ErrId> {
        let id = capture.socket;
        let slot = self.slots[usize::from(id)].as_mut().ok_or(ErrId::ESKTNOTOPEN)?;
        if !matches!(slot.state, SocketState::Opening | SocketState::Open) {
            return Err(ErrId::ESKTNOTOPEN);
        }
        if !matches(slot, capture.family, capture.proto) {
            return Err(ErrId::ESKTNOMATCH);
        }
        if capture.filter.len() > FILTER_MAX {
            return Err(ErrId::ESKTBADFILT);
        }
        // A filter on a stream or datagram socket has no meaning; the socket is left alone.
        if slot.proto != Proto::Raw {
            return Err(ErrId::EUNKFAULT);
        }
        // A capture that runs goes on when the new program is refused.
        let program = Program::decode(capture.filter.clone()).map_err(|_| ErrId::ESKTBADFILT)?;
        let filter = Filter::load(&program).map_err(|refused| {
            tracing::debug!("socket {id}: filter refused: {refused}");
            ErrId::ESKTBADFILT
        })?;
        let running = slot.capture.is_some();
        let others = self.slots.iter().flatten().filter(|slot| slot.capture.is_some()).count();
        if !running && others >= CAPTURES_MAX {
            return Err(ErrId::ESYSNOBUFS);
        }
        self.count_losses(id, net);
        slot_capture(self, id, None);
        let begun = capture.end > net.now();
        if let Err(errno) = net.capture(id, begun.then_some(&filter), capture.end) {
            tracing::warn!("socket {id}: cannot capture: {errno}");
            self.break_socket(id, SocketState::UnkFault, net);
            self.drop_queue(id, net);
            return Err(ErrId::EUNKFAULT);
        }
        slot_capture(self, id, begun.then_some(capture.end));
        Ok(())
    }

    /// Ends a capture whose time is over, with what arrived in time.
    pub(super) fn end_capture(&mut self, id: SocketId, now: Ticks, net: &mut impl Net) {
        let over =
            |slot: &super::Slot| slot.capture.is_some_and(|end| now >= end.saturating_add(CAPTURE_DELAY));
        if !self.slots[usize::from(id)].as_deref().is_some_and(over) {
            return;
        }
        while self.receive_packets(id, net) {}
        // Stopping can fail only where nothing is captured any more.
        let _ = net.capture(id, None, 0);
        slot_capture(self, id, None);
    }

    /// Whether any socket captures: packets may then rest in the kernel for a while.
    pub(super) fn captures(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.capture.is_some())
    }

    /// Passes on what was captured; true when more of it may wait.
    pub(super) fn receive_packets(&mut self, id: SocketId, net: &mut impl Net) -> bool {
        let mut more = true;
        for _ in 0..TURN {
            let Ok(packet) = net.receive_packet(id) else {
                more = false;
                break;
            };
            let Some(slot) = &self.slots[usize::from(id)] else { return false };
            if slot.capture.is_none_or(|end| packet.time > end) {
                more = false;
                continue;
            }
            let note = NDatx {
                socket: id,
                family: slot.family,
                proto: Proto::Raw,
                time: packet.time,
                kernel_time: true,
                ttl: None,
                tos: None,
                truncated: false,
                local: None,
                remote: None,
                data: packet.data,
            };
            self.deliver(note, NDATA_RAW);
        }
        self.count_losses(id, net);
        more
    }

    /// Adds what the kernel and the filter lost to the counters of a raw socket.
    pub(super) fn count_losses(&mut self, id: SocketId, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut().filter(|slot| slot.capture.is_some()) else {
            return;
        };
        let losses = net.losses(id);
        if losses.faults > 0 && slot.filter_faults == 0 {
            tracing::info!("socket {id}: the filter failed on a packet, which was not delivered");
        }
        slot.filter_faults = slot.filter_faults.saturating_add(losses.faults);
        self.totals.filter_faults += u64::from(losses.faults);
        self.count_drop(id, losses.kernel, 0);
    }
}

fn slot_capture(session: &mut Session, id: SocketId, end: Option<Ticks>) {
    if let Some(slot) = session.slots[usize::from(id)].as_mut() {
        slot.capture = end;
    }
}

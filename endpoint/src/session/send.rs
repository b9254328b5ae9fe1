//! NSEND: the checks and the place in the queue (spec `endpoint.md` §5.4).

use std::net::SocketAddr;

use bytes::Bytes;
use pktlab::vmem::SocketState;
use pktlab::wire::{ErrId, NSend};

use super::Session;
use super::net::Net;
use super::slot::Pending;

/// Accounting bytes of an NSEND beside its payload, by protocol (spec §7).
const NSEND_TCP: u64 = 133;
const NSEND_UDP_V4: u64 = 139;
const NSEND_UDP_V6: u64 = 151;
/// A queued payload shorter than this is copied, so that it does not pin the larger buffer it arrived in.
const PIN_MIN: usize = 64 * 1024;

impl Session {
    pub(super) fn send(&mut self, send: NSend, net: &mut impl Net) {
        let id = send.socket;
        let outcome = self.try_send(send);
        self.result(outcome.err().unwrap_or(ErrId::SUCCESS));
        if outcome.is_ok() {
            self.transmit(id, net);
            if let Some(slot) = self.slots[usize::from(id)].as_mut()
                && let Some(last) = slot.tx.back_mut()
                && last.data.len() < PIN_MIN
            {
                last.data = Bytes::copy_from_slice(&last.data);
            }
            self.watch(id, net);
        }
    }

    fn try_send(&mut self, send: NSend) -> Result<(), ErrId> {
        let room = self.buf_room();
        let slot = self.slots[usize::from(send.socket)].as_mut().ok_or(ErrId::ESKTNOTOPEN)?;
        if !matches!(slot.state, SocketState::Opening | SocketState::Open | SocketState::Eof) {
            return Err(ErrId::ESKTNOTOPEN);
        }
        if send.proto != slot.proto || send.family != slot.family.octet() {
            return Err(ErrId::ESKTNOMATCH);
        }
        if let Some(remote) = &send.remote
            && !self.limits.allows(remote.ip())
        {
            return Err(ErrId::ESKTPKTDENY);
        }
        let overhead = match send.remote {
            None => NSEND_TCP,
            Some(SocketAddr::V4(_)) => NSEND_UDP_V4,
            Some(SocketAddr::V6(_)) => NSEND_UDP_V6,
        };
        let cost = overhead + send.data.len() as u64;
        if cost > room {
            return Err(ErrId::ESYSNOBUFS);
        }
        self.buf_used += cost;
        slot.tx.push_back(Pending {
            data: send.data,
            sent: 0,
            started: false,
            time: send.time,
            tag: send.tag,
            remote: send.remote,
            cost,
        });
        Ok(())
    }
}

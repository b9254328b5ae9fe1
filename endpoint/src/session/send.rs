//! NSEND: the checks and the place in the queue (spec `endpoint.md` §5.4).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use pktlab::vmem::SocketState;
use pktlab::wire::{ErrId, Family, NSend, Proto};

use super::Session;
use super::net::Net;
use super::slot::Pending;

/// Accounting bytes of an NSEND beside its payload, by protocol (spec §7).
const NSEND_TCP: u64 = 133;
const NSEND_UDP_V4: u64 = 139;
const NSEND_UDP_V6: u64 = 151;
const NSEND_RAW: u64 = 134;
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
                && slot.handed < slot.tx.len()
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
        let connected = matches!(slot.state, SocketState::Opening | SocketState::Open | SocketState::Eof);
        if !connected || slot.listener.is_some() {
            return Err(ErrId::ESKTNOTOPEN);
        }
        if send.proto != slot.proto || send.family != slot.family.octet() {
            return Err(ErrId::ESKTNOMATCH);
        }
        let remote = match send.proto {
            Proto::Raw => Some(self.raw_destination(&send)?),
            _ => send.remote,
        };
        if let Some(remote) = remote {
            self.allowed(remote).map_err(|()| ErrId::ESKTPKTDENY)?;
        }
        if self.ledger.never(send.data.len() as u64) {
            return Err(ErrId::ESKTPKTDENY);
        }
        let overhead = match (send.proto, send.remote) {
            (Proto::Raw, _) => NSEND_RAW,
            (_, None) => NSEND_TCP,
            (_, Some(SocketAddr::V4(_))) => NSEND_UDP_V4,
            (_, Some(SocketAddr::V6(_))) => NSEND_UDP_V6,
        };
        let cost = overhead + send.data.len() as u64;
        if cost > room {
            return Err(ErrId::ESYSNOBUFS);
        }
        self.buf_used += cost;
        let pending = Pending {
            data: send.data,
            sent: 0,
            started: false,
            time: send.time,
            tag: send.tag,
            remote,
            cost,
        };
        if let Some(slot) = self.slots[usize::from(send.socket)].as_mut() {
            slot.tx.push_back(pending);
        }
        Ok(())
    }

    /// Whether certificates and operator let packets go to `remote`. Port 0 stands for a protocol without ports.
    pub(super) fn allowed(&mut self, remote: SocketAddr) -> Result<(), ()> {
        let policy = &self.config.policy;
        let denied = match remote.port() {
            0 => policy.allows(remote.ip()).err(),
            _ => policy.allows_port(remote).err(),
        };
        if let Some(denied) = denied {
            tracing::debug!("{denied}");
            self.totals.refused += 1;
            return Err(());
        }
        if self.ledger.allows(remote.ip()) { Ok(()) } else { Err(()) }
    }

    /// Where a raw packet goes, unless its header or its source is none to send (spec `endpoint.md` §5.4 rows 3 and 4).
    fn raw_destination(&self, send: &NSend) -> Result<SocketAddr, ErrId> {
        let family = Family::from_octet(send.family).ok_or(ErrId::ESKTNOMATCH)?;
        let (source, destination) = inspect(&send.data, family).ok_or(ErrId::ESKTPKTDENY)?;
        let exported = |source: &IpAddr| self.config.addresses.iter().any(|(own, _)| own == source);
        if !source.is_unspecified() && !exported(&source) && !self.ledger.spoofing() {
            return Err(ErrId::ESKTPKTDENY);
        }
        Ok(SocketAddr::new(destination, 0))
    }
}

/// Source and destination of a raw packet, if its shape is in order (spec `raw.md` §3).
fn inspect(data: &[u8], family: Family) -> Option<(IpAddr, IpAddr)> {
    match family {
        Family::V4 if data.len() >= 20 && data[0] >> 4 == 4 => {
            let octets = |at: usize| <[u8; 4]>::try_from(&data[at..at + 4]).ok();
            Some((octets(12)?.into(), octets(16)?.into()))
        }
        Family::V6 if data.len() >= 40 && data[0] >> 4 == 6 => {
            let octets = |at: usize| <[u8; 16]>::try_from(&data[at..at + 16]).ok();
            Some((octets(8)?.into(), octets(24)?.into()))
        }
        _ => None,
    }
}

//! One measurement socket of a session: its cells, its transmit queue and its held notifications.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use pktlab::vmem::{SocketState, socket as cell};
use pktlab::wire::{Family, Proto, Ticks};

use super::net::{Accepted, Interest};
use super::output::Queued;

/// How long a captured packet may rest in the kernel before it can be read, ns.
pub const CAPTURE_DELAY: Ticks = 2_000_000;

/// Sends are handed over this long before they are due, ns, and not earlier: they hold what limits allow, which others may
/// need meanwhile.
pub const AHEAD: Ticks = 1_000_000_000;

/// An accepted NSEND that is not completely sent.
#[derive(Debug)]
pub struct Pending {
    pub data: Bytes,
    /// Bytes the operating system has taken (TCP).
    pub sent: usize,
    pub started: bool,
    pub time: Ticks,
    /// 0: no NTAG wanted.
    pub tag: u16,
    /// Destination (UDP, raw).
    pub remote: Option<SocketAddr>,
    /// Share of BUFUSED.
    pub cost: u64,
}

/// An occupied slot of the socket table.
#[derive(Debug)]
pub struct Slot {
    pub state: SocketState,
    pub family: Family,
    pub proto: Proto,
    pub local: SocketAddr,
    pub remote: Option<SocketAddr>,
    /// Tells notifications of this opening from those of an earlier one with the same id.
    pub generation: u64,
    pub rbufsz: u32,
    /// Payload bytes of NDATA not yet handed to the writer, held ones included.
    pub rbufused: u64,
    /// The part of `rbufused` that NOTIFMASK holds back.
    pub held_payload: u64,
    pub drop_bytes: u32,
    pub drop_units: u32,
    pub send_error: i8,
    pub send_error_tag: u16,
    pub mask: u16,
    pub scratch: [u8; cell::CTFL_LEN],
    pub tx: VecDeque<Pending>,
    /// How many of the first of `tx` are handed over to be made at their times.
    pub handed: usize,
    /// Limits let nothing leave before this time.
    pub not_before: Option<Ticks>,
    /// Limits let nothing leave before an outcome of what is handed over is known.
    pub after_others: bool,
    /// The operating system refused more data; wait for writability.
    pub blocked: bool,
    pub fin: Option<Ticks>,
    /// Raw: packets are captured until this time.
    pub capture: Option<Ticks>,
    /// Packets on which the filter failed.
    pub filter_faults: u32,
    /// TCP that listens: connections that wait to be taken.
    pub listener: Option<Vec<Accepted>>,
    pub held: VecDeque<Queued>,
    pub watched: Interest,
}

impl Slot {
    pub fn new(
        local: SocketAddr,
        remote: Option<SocketAddr>,
        proto: Proto,
        rbufsz: u32,
        generation: u64,
    ) -> Self {
        Self {
            state: SocketState::Open,
            family: if local.is_ipv4() { Family::V4 } else { Family::V6 },
            proto,
            local,
            remote,
            generation,
            rbufsz,
            rbufused: 0,
            held_payload: 0,
            drop_bytes: 0,
            drop_units: 0,
            send_error: 0,
            send_error_tag: 0,
            mask: 0,
            scratch: [0; cell::CTFL_LEN],
            tx: VecDeque::new(),
            handed: 0,
            not_before: None,
            after_others: false,
            blocked: false,
            fin: None,
            capture: None,
            filter_faults: 0,
            listener: None,
            held: VecDeque::new(),
            watched: Interest::default(),
        }
    }

    /// NSENDs can leave the queue.
    pub fn can_send(&self) -> bool {
        matches!(self.state, SocketState::Open | SocketState::Eof) && self.listener.is_none()
    }

    /// Receive budget left, payload bytes.
    pub fn room(&self) -> u64 {
        u64::from(self.rbufsz).saturating_sub(self.rbufused)
    }

    /// Next moment at which time alone lets something happen.
    pub fn deadline(&self) -> Option<Ticks> {
        let capture = self.capture.map(|end| end.saturating_add(CAPTURE_DELAY));
        [self.sending_deadline(), capture].into_iter().flatten().min()
    }

    /// What is handed over needs no clock of the session's.
    fn sending_deadline(&self) -> Option<Ticks> {
        if !self.can_send() || self.blocked || self.after_others || self.handed > 0 {
            return None;
        }
        // What is not before the FIN never leaves.
        let head = self.tx.front().filter(|head| self.fin.is_none_or(|fin| head.time < fin));
        let head = head.map(|head| head.time.saturating_sub(AHEAD).max(self.not_before.unwrap_or(0)));
        head.or(self.fin)
    }

    /// Counts datagrams that lost `bytes` together.
    pub fn count_drop(&mut self, units: u32, bytes: usize) {
        self.drop_units = self.drop_units.saturating_add(units);
        self.drop_bytes = self.drop_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

//! What the operator is shown of a session.

use pktlab::wire::Ticks;

use super::Session;
use crate::status::{Left, SessionReport, Traffic, moment};

/// What has no other place to be counted. All numbers begin with the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Received and discarded.
    pub dropped: Traffic,
    /// NSENDs accepted and given up.
    pub unsent: u64,
    /// Packets on which a filter failed.
    pub filter_faults: u64,
    /// Requests refused by the operator's policy.
    pub refused: u64,
}

impl Session {
    pub fn report(&self, now: Ticks) -> SessionReport {
        let used = self.ledger.used(now);
        let left = self.ledger.left();
        let limited = |left: u64| (left != u64::MAX).then_some(left);
        SessionReport {
            started: self.started,
            sockets_open: self.slots.iter().flatten().count() as u32,
            sockets_opened: u64::from(self.ledger.sockets() - self.opens_left),
            captures: self.slots.iter().flatten().filter(|slot| slot.capture.is_some()).count() as u32,
            sent: Traffic { packets: used.send_packets, bytes: used.send_bytes },
            unsent: self.totals.unsent,
            received: Traffic { packets: used.receive_packets, bytes: used.receive_bytes },
            dropped: self.totals.dropped,
            filter_faults: self.totals.filter_faults,
            refused: self.totals.refused,
            buffer_used: self.buf_used,
            buffer_size: u64::from(self.config.buf_max),
            extensions: self.enabled,
            left: Left {
                sockets: Some(u64::from(self.opens_left)),
                send_packets: limited(left.send_packets),
                send_bytes: limited(left.send_bytes),
                receive_packets: limited(left.receive_packets),
                receive_bytes: limited(left.receive_bytes),
                end: limited(self.ledger.end()).map(moment),
            },
        }
    }
}

//! The five totals of a certificate that live longer than a session: what is left of them and what was used.

use pktlab::cert::Limits;

/// What may still be used. `u64::MAX` is "unlimited" and never shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Write calls.
    pub send_packets: u64,
    /// Bytes given to write calls.
    pub send_bytes: u64,
    /// Receives.
    pub receive_packets: u64,
    /// Bytes received.
    pub receive_bytes: u64,
    /// Time with a session, ns.
    pub run_time: u64,
}

/// What a session used so far, in the units of [`Remaining`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub send_packets: u64,
    pub send_bytes: u64,
    pub receive_packets: u64,
    pub receive_bytes: u64,
    /// ns.
    pub run_time: u64,
}

impl Remaining {
    pub const UNLIMITED: Remaining = Remaining {
        send_packets: u64::MAX,
        send_bytes: u64::MAX,
        receive_packets: u64::MAX,
        receive_bytes: u64::MAX,
        run_time: u64::MAX,
    };

    /// The budgets a certificate starts with.
    pub fn of(limits: &Limits) -> Remaining {
        Remaining {
            send_packets: limits.max_send_pkt.unwrap_or(u64::MAX),
            send_bytes: limits.max_send_byte.unwrap_or(u64::MAX),
            receive_packets: limits.max_recv_pkt.unwrap_or(u64::MAX),
            receive_bytes: limits.max_recv_byte.unwrap_or(u64::MAX),
            run_time: limits.max_exp_period.unwrap_or(u64::MAX),
        }
    }

    /// The smaller one of each total.
    pub fn min(self, other: Remaining) -> Remaining {
        self.with(other.fields(), u64::min)
    }

    /// What is left after `used`: not below 0, and unlimited stays unlimited.
    pub fn less(self, used: &Usage) -> Remaining {
        self.with(used.fields(), |left, used| if left == u64::MAX { left } else { left.saturating_sub(used) })
    }

    /// Whether `used` takes something from a total that has an end.
    pub(super) fn touched_by(self, used: &Usage) -> bool {
        self.fields().iter().zip(used.fields()).any(|(left, used)| *left != u64::MAX && used > 0)
    }

    /// In the order of the record.
    pub(super) fn fields(self) -> [u64; 5] {
        [self.send_packets, self.receive_packets, self.send_bytes, self.receive_bytes, self.run_time]
    }

    pub(super) fn from_fields(fields: [u64; 5]) -> Remaining {
        let [send_packets, receive_packets, send_bytes, receive_bytes, run_time] = fields;
        Remaining { send_packets, send_bytes, receive_packets, receive_bytes, run_time }
    }

    fn with(self, other: [u64; 5], join: impl Fn(u64, u64) -> u64) -> Remaining {
        let mut fields = self.fields();
        for (own, other) in fields.iter_mut().zip(other) {
            *own = join(*own, other);
        }
        Remaining::from_fields(fields)
    }
}

impl Usage {
    /// The larger one of each.
    pub fn max(&self, other: &Usage) -> Usage {
        Usage {
            send_packets: self.send_packets.max(other.send_packets),
            send_bytes: self.send_bytes.max(other.send_bytes),
            receive_packets: self.receive_packets.max(other.receive_packets),
            receive_bytes: self.receive_bytes.max(other.receive_bytes),
            run_time: self.run_time.max(other.run_time),
        }
    }

    /// What was used after the moment of `earlier`.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            send_packets: self.send_packets.saturating_sub(earlier.send_packets),
            send_bytes: self.send_bytes.saturating_sub(earlier.send_bytes),
            receive_packets: self.receive_packets.saturating_sub(earlier.receive_packets),
            receive_bytes: self.receive_bytes.saturating_sub(earlier.receive_bytes),
            run_time: self.run_time.saturating_sub(earlier.run_time),
        }
    }

    fn fields(&self) -> [u64; 5] {
        [self.send_packets, self.receive_packets, self.send_bytes, self.receive_bytes, self.run_time]
    }
}

//! One controller session as a state machine without I/O and without a clock (spec `endpoint.md`).
//!
//! Inputs: [`Session::request`], [`Session::ready`], [`Session::timer`], [`Session::sent`]. Outputs: the FIFO
//! ([`Session::take_batch`]), readiness wishes (through [`Net::watch`]), [`Session::deadline`] and [`Session::ended`].
//!
//! | file | job |
//! |---|---|
//! | `request`, `send`, `capture` | what each request does |
//! | `ready` | what the readiness of a socket leads to |
//! | `receive`, `transmit`, `fault` | from the sockets, to the sockets, sockets that break |
//! | `memory` | MREAD and MWRITE |
//! | `output` | the FIFO, held notifications, budgets |
//! | `slot`, `limits`, `net` | one socket, certificate limits, the outside world |

mod capture;
mod fault;
mod limits;
mod memory;
mod net;
mod output;
mod ready;
mod receive;
mod request;
mod send;
mod slot;
#[cfg(test)]
mod tests;
mod transmit;

use std::collections::VecDeque;
use std::net::IpAddr;

use pktlab::cert::Burst;
use pktlab::wire::{ErrId, Frame, SocketId, Ticks};

pub use limits::Limits;
pub use net::{Connecting, Datagram, Errno, Interest, Net, OpenFault};
pub use output::{FIFO_FULL, Output};

use crate::policy::Policy;

use output::{Queued, Share};
use slot::Slot;

/// START must have succeeded this long after the TLS handshake, ns (spec §2).
pub const SETUP_TIME: Ticks = 10_000_000_000;

/// What the operator configured, fixed for one session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Budget for queued NSENDs and NDATAs, accounting bytes.
    pub buf_max: u32,
    pub tcp: bool,
    pub udp: bool,
    /// Raw sockets are offered; the process may open them.
    pub raw: bool,
    /// Captured packets are withheld from the host (spec `raw.md` §5).
    pub steal: bool,
    /// Kernel memory for each capture, bytes.
    pub ring: usize,
    /// Exported addresses with prefix lengths, most preferred first.
    pub addresses: Vec<(IpAddr, u8)>,
    pub resolvers: Vec<IpAddr>,
    pub host_id: String,
    /// Extension bits offered.
    pub extensions: u32,
    /// Destinations the operator allows, for every protocol.
    pub policy: Policy,
    /// Most bytes sent in any window, beside the limits of certificates.
    pub burst: Option<Burst>,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The controller gave way; it does not want to be contacted before this time.
    Yield { resume: Ticks },
    /// A request could not be decoded.
    Malformed,
    /// START was refused.
    Refused,
    /// No START in time.
    SetupTimeout,
    /// The controller's certificates run out.
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Setup { until: Ticks },
    Run,
    Over(End),
}

/// See the module text.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    limits: Limits,
    phase: Phase,
    slots: Vec<Option<Box<Slot>>>,
    /// NOPENs still allowed.
    opens_left: u32,
    openings: u64,
    /// BUFUSED, accounting bytes.
    buf_used: u64,
    fifo: VecDeque<Queued>,
    in_flight: Vec<Share>,
    enabled: u32,
}

impl Session {
    /// A session whose TLS handshake ended `now`.
    pub fn new(config: SessionConfig, limits: Limits, now: Ticks) -> Self {
        Self {
            opens_left: limits.sockets,
            config,
            limits,
            phase: Phase::Setup { until: now.saturating_add(SETUP_TIME) },
            slots: std::iter::repeat_with(|| None).take(256).collect(),
            openings: 0,
            buf_used: 0,
            fifo: VecDeque::new(),
            in_flight: Vec::new(),
            enabled: 0,
        }
    }

    /// Handles one message of the controller.
    pub fn request(&mut self, frame: Frame, net: &mut impl Net) {
        match self.phase {
            Phase::Over(_) => {}
            _ if matches!(frame, Frame::Malformed { .. }) => {
                self.result(ErrId::ECTLBADMSG);
                self.end(End::Malformed, net);
            }
            Phase::Setup { .. } => self.set_up(frame, net),
            Phase::Run => self.run(frame, net),
        }
    }

    /// Requests may be read now.
    pub fn wants_request(&self) -> bool {
        !matches!(self.phase, Phase::Over(_)) && self.queued() < FIFO_FULL
    }

    /// Set once; from then on only the output remains to be written.
    pub fn ended(&self) -> Option<End> {
        match self.phase {
            Phase::Over(end) => Some(end),
            _ => None,
        }
    }

    /// Extension bits the controller enabled.
    pub fn enabled(&self) -> u32 {
        self.enabled
    }

    /// When [`Session::timer`] wants to be called next.
    pub fn deadline(&self) -> Option<Ticks> {
        // The last moment itself is still valid.
        let expiry = self.limits.end.saturating_add(1);
        let phase = match self.phase {
            Phase::Setup { until } => until.min(expiry),
            Phase::Run => expiry,
            Phase::Over(_) => return None,
        };
        let sockets = self.slots.iter().flatten().filter_map(|slot| slot.deadline()).min();
        let next = sockets.map_or(phase, |next| next.min(phase));
        (next != Ticks::MAX).then_some(next)
    }

    /// Does everything that is due.
    pub fn timer(&mut self, net: &mut impl Net) {
        let now = net.now();
        match self.phase {
            Phase::Over(_) => return,
            _ if now > self.limits.end => return self.end(End::Expired, net),
            Phase::Setup { until } if now >= until => return self.end(End::SetupTimeout, net),
            _ => {}
        }
        for id in 0..=SocketId::MAX {
            if self.slots[usize::from(id)]
                .as_ref()
                .and_then(|slot| slot.deadline())
                .is_some_and(|due| due <= now)
            {
                self.transmit(id, net);
                self.watch(id, net);
            }
        }
    }

    fn end(&mut self, end: End, net: &mut impl Net) {
        self.phase = Phase::Over(end);
        for id in 0..=SocketId::MAX {
            if self.slots[usize::from(id)].take().is_some() {
                net.close(id);
            }
        }
    }

    /// Accounting bytes left of BUFMAX.
    fn buf_room(&self) -> u64 {
        u64::from(self.config.buf_max).saturating_sub(self.buf_used)
    }
}

//! One controller session as a state machine without I/O and without a clock (spec `endpoint.md`).
//!
//! Inputs: [`Session::request`], [`Session::ready`], [`Session::made`], [`Session::timer`], [`Session::sent`]. Outputs: the
//! FIFO ([`Session::take_batch`]), readiness wishes (through [`Net::watch`]), [`Session::deadline`] and [`Session::ended`].
//!
//! | file | job |
//! |---|---|
//! | `request`, `send`, `capture`, `extension` | what each request does |
//! | `ready` | what the readiness of a socket leads to |
//! | `receive`, `transmit`, `fault` | from the sockets, to the sockets, sockets that break |
//! | `memory` | MREAD and MWRITE |
//! | `output` | the FIFO, held notifications, budgets |
//! | `report` | what the operator sees |
//! | `slot`, `net` | one socket, the outside world |

mod capture;
mod extension;
mod fault;
mod memory;
mod net;
mod output;
mod ready;
mod receive;
mod report;
mod request;
mod send;
mod slot;
#[cfg(test)]
mod tests;
mod transmit;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use pktlab::cert::Burst;
use pktlab::wire::{ErrId, Frame, Message, SocketId, Ticks};

pub use net::{
    Accepted, Connecting, Datagram, Errno, Interest, Losses, Net, OpenFault, Packet, Ready, Reported, Sent,
    Timed,
};
pub use output::{FIFO_FULL, Output};

use crate::limits::Ledger;
use crate::policy::Policy;

use output::{Queued, Share};
use report::Totals;
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
    /// The endpoint needs itself for something else.
    Suspended,
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
    ledger: Ledger,
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
    /// Tokens of pending NWAITs by time and order.
    waits: BTreeMap<(Ticks, u64), u32>,
    wait_count: u64,
    totals: Totals,
    /// START succeeded.
    started: bool,
    /// Limits may let more leave than when [`Slot::after_others`] was set.
    freed: bool,
}

impl Session {
    /// A session whose TLS handshake ended `now`.
    pub fn new(config: SessionConfig, ledger: Ledger, now: Ticks) -> Self {
        Self {
            opens_left: ledger.sockets(),
            config,
            ledger,
            phase: Phase::Setup { until: now.saturating_add(SETUP_TIME) },
            slots: std::iter::repeat_with(|| None).take(256).collect(),
            openings: 0,
            buf_used: 0,
            fifo: VecDeque::new(),
            in_flight: Vec::new(),
            enabled: 0,
            waits: BTreeMap::new(),
            wait_count: 0,
            totals: Totals::default(),
            started: false,
            freed: false,
        }
    }

    /// Handles one message of the controller.
    pub fn request(&mut self, frame: Frame, net: &mut impl Net) {
        match self.phase {
            Phase::Over(_) => {}
            _ if matches!(frame, Frame::Malformed { .. }) => {
                self.end_with(ErrId::ECTLBADMSG, End::Malformed, net);
            }
            Phase::Setup { .. } => self.set_up(frame, net),
            Phase::Run => self.run(frame, net),
        }
        self.send_freed(net);
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
        let expiry = self.ledger.end().saturating_add(1);
        let phase = match self.phase {
            Phase::Setup { until } => until.min(expiry),
            Phase::Run => expiry,
            Phase::Over(_) => return None,
        };
        let sockets = self.slots.iter().flatten().filter_map(|slot| slot.deadline()).min();
        let next = [sockets, self.wait_deadline()].into_iter().flatten().fold(phase, Ticks::min);
        (next != Ticks::MAX).then_some(next)
    }

    /// Does everything that is due.
    pub fn timer(&mut self, net: &mut impl Net) {
        let now = net.now();
        match self.phase {
            Phase::Over(_) => return,
            _ if now > self.ledger.end() => return self.end(End::Expired, net),
            Phase::Setup { until } if now >= until => return self.end(End::SetupTimeout, net),
            _ => {}
        }
        for id in 0..=SocketId::MAX {
            if self.slots[usize::from(id)]
                .as_ref()
                .and_then(|slot| slot.deadline())
                .is_some_and(|due| due <= now)
            {
                self.end_capture(id, now, net);
                self.transmit(id, net);
                self.watch(id, net);
            }
        }
        self.end_waits(net);
        self.send_freed(net);
    }

    /// Ends the session with SUSPD: the endpoint has something more important to do.
    pub fn suspend(&mut self, net: &mut impl Net) {
        if self.ended().is_none() {
            self.recall_all(net);
            self.answer(Message::Suspd);
            self.end(End::Suspended, net);
        }
    }

    /// What the session may still do and has done.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Counts datagrams that arrived at a socket and lost `bytes` together.
    fn count_drop(&mut self, id: SocketId, units: u32, bytes: usize) {
        self.totals.dropped.packets += u64::from(units);
        self.totals.dropped.bytes += bytes as u64;
        if let Some(slot) = self.slots[usize::from(id)].as_mut() {
            slot.count_drop(units, bytes);
        }
    }

    fn end(&mut self, end: End, net: &mut impl Net) {
        self.phase = Phase::Over(end);
        self.close(net);
    }

    /// Ends the session with a RESULT behind which nothing follows.
    fn end_with(&mut self, errid: ErrId, end: End, net: &mut impl Net) {
        self.recall_all(net);
        self.result(errid);
        self.end(end, net);
    }

    /// What was sent meanwhile is told before the last message.
    fn recall_all(&mut self, net: &mut impl Net) {
        for id in 0..=SocketId::MAX {
            self.recall(id, net);
        }
    }

    /// Closes all sockets. What is queued for the controller stays.
    pub fn close(&mut self, net: &mut impl Net) {
        self.recall_all(net);
        for id in 0..=SocketId::MAX {
            self.remove(id, net);
        }
    }

    /// Frees a slot: unsent NSENDs and held notifications are discarded, the socket and what waits at it are closed.
    fn remove(&mut self, id: SocketId, net: &mut impl Net) -> bool {
        let Some(slot) = self.slots[usize::from(id)].take() else { return false };
        for waiting in slot.listener.iter().flatten() {
            net.refuse(waiting.handle);
        }
        self.totals.unsent += slot.tx.len() as u64;
        self.buf_used -= slot.tx.iter().map(|pending| pending.cost).sum::<u64>();
        self.buf_used -= slot.held.iter().map(|held| held.share.cost).sum::<u64>();
        net.close(id);
        true
    }

    /// Accounting bytes left of BUFMAX.
    fn buf_room(&self) -> u64 {
        u64::from(self.config.buf_max).saturating_sub(self.buf_used)
    }
}

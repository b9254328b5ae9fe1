//! The limits of one session, combined over its certificates, and what the session has used (spec `scheduling.md`
//! §5.1–5.3).

use std::net::IpAddr;

use pktlab::cert::{Burst, Network, Verified};
use pktlab::wire::Ticks;

use super::window::Window;
use super::{Remaining, Usage, privileges};

/// Successful NOPENs of a session when no certificate says less (spec §5.1).
const SOCKETS: u32 = 65_535;

/// Whether something may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Yes; report it with [`Ledger::sent`] or claim it with [`Ledger::reserve`].
    Now,
    /// The burst limits hold it back. Ask again at this time, ns since the epoch; it is later than the time asked about.
    At(Ticks),
    /// It fits only if reserved sends come to nothing. Ask again after the next [`Ledger::settle`].
    AfterSettle,
    /// Never again in this session.
    Exhausted,
}

/// What one session may do and has done. Times are ns since the epoch.
///
/// Every byte and packet is counted once: by [`sent`](Ledger::sent), or by a reservation that is settled, or by
/// [`receive`](Ledger::receive).
#[derive(Clone, Debug)]
pub struct Ledger {
    sockets: u32,
    priority: u64,
    monitors: Vec<[u8; 32]>,
    spoofing: bool,
    /// One list per certificate that has one.
    destinations: Vec<Vec<Network>>,
    start: Ticks,
    end: Ticks,
    /// What was left when the session began.
    granted: Remaining,
    /// Without the run time.
    used: Usage,
    reserved_packets: u64,
    reserved_bytes: u64,
    byte_bursts: Vec<Window>,
    packet_bursts: Vec<Window>,
}

impl Ledger {
    /// No limit but the socket count. Run time is not counted.
    pub fn unlimited() -> Ledger {
        Ledger {
            sockets: SOCKETS,
            priority: u64::MAX,
            monitors: Vec::new(),
            spoofing: false,
            destinations: Vec::new(),
            start: Ticks::MAX,
            end: Ticks::MAX,
            granted: Remaining::UNLIMITED,
            used: Usage::default(),
            reserved_packets: 0,
            reserved_bytes: 0,
            byte_bursts: Vec::new(),
            packet_bursts: Vec::new(),
        }
    }

    /// The limits of a session that starts at `now`.
    ///
    /// `remembered[i]` is the store's record of the i-th privilege certificate of the chain, in the order of
    /// [`keys`](super::keys); a certificate without one has its own budgets. `builtin` is the operator's byte burst, which
    /// applies beside those of the certificates.
    pub fn new(
        chain: &Verified,
        remembered: &[Option<Remaining>],
        builtin: Option<Burst>,
        now: Ticks,
    ) -> Ledger {
        let mut ledger = Ledger { start: now, ..Ledger::unlimited() };
        let mut spoofing = None;
        for (i, cert) in privileges(chain).enumerate() {
            let own = &cert.limits;
            if let Some(count) = own.max_socket_count {
                ledger.sockets = ledger.sockets.min(u32::try_from(count).unwrap_or(u32::MAX));
            }
            if let Some(priority) = own.max_num_priority {
                ledger.priority = ledger.priority.min(priority);
            }
            ledger.monitors.extend_from_slice(&own.monitors);
            let spoofs = own.src_ip_spoofing == Some(true);
            spoofing = Some(spoofing.unwrap_or(true) && spoofs);
            ledger.destinations.extend(own.valid_dest.clone());
            ledger.end = ledger.end.min(cert.not_after);
            ledger.granted = ledger.granted.min(Remaining::of(own));
            if let Some(remembered) = remembered.get(i).copied().flatten() {
                ledger.granted = ledger.granted.min(remembered);
            }
        }
        ledger.spoofing = spoofing.unwrap_or(false);
        ledger.end = ledger.end.min(now.saturating_add(ledger.granted.run_time));
        let bytes = privileges(chain).flat_map(|cert| &cert.limits.max_burst_rate_byte).copied();
        ledger.byte_bursts = Window::all(bytes.chain(builtin));
        let packets = privileges(chain).flat_map(|cert| &cert.limits.max_burst_rate_pkt).copied();
        ledger.packet_bursts = Window::all(packets);
        ledger
    }

    /// Successful NOPENs allowed; NCLOSE gives none back.
    pub fn sockets(&self) -> u32 {
        self.sockets
    }

    /// The largest priority an experiment may have.
    pub fn priority(&self) -> u64 {
        self.priority
    }

    /// Digests of the monitors the controller must supply, in chain order, with repetitions.
    pub fn monitors(&self) -> &[[u8; 32]] {
        &self.monitors
    }

    /// Whether raw packets may have foreign source addresses: only if every certificate says so.
    pub fn spoofing(&self) -> bool {
        self.spoofing
    }

    /// Whether packets may go to `destination`: it matches an entry of each list. An IPv4 address in IPv6 clothes is judged
    /// as the IPv4 address it reaches.
    pub fn allows(&self, destination: IpAddr) -> bool {
        let destination = destination.to_canonical();
        self.destinations.iter().all(|list| list.iter().any(|network| network.contains(&destination)))
    }

    /// When the session must be over: certificates expire or the run time is used up.
    pub fn end(&self) -> Ticks {
        self.end
    }

    /// Whether a message of `bytes` can never be sent (check 6 of NSEND, spec `endpoint.md` §5.4). Reservations do not count:
    /// they may come to nothing.
    pub fn never(&self, bytes: u64) -> bool {
        let left = self.granted.less(&self.used);
        left.send_packets == 0
            || bytes > left.send_bytes
            || self.byte_bursts.iter().any(|burst| bytes > burst.count())
            || self.packet_bursts.iter().any(|burst| burst.count() == 0)
    }

    /// Whether one write of `bytes` may be made at `time`: now, or later for one that is then reserved and not made earlier.
    pub fn admit(&mut self, time: Ticks, bytes: u64) -> Admit {
        if self.never(bytes) {
            return Admit::Exhausted;
        }
        let packets = self.reserved_packets.saturating_add(1);
        let bytes = self.reserved_bytes.saturating_add(bytes);
        let left = self.granted.less(&self.used);
        if packets > left.send_packets || bytes > left.send_bytes {
            return Admit::AfterSettle;
        }
        let byte_times = self.byte_bursts.iter_mut().map(|burst| burst.earliest(time, bytes));
        let packet_times = self.packet_bursts.iter_mut().map(|burst| burst.earliest(time, packets));
        // The latest of all; None as soon as one has no room even when empty.
        match byte_times.chain(packet_times).try_fold(time, |latest, free| Some(latest.max(free?))) {
            None => Admit::AfterSettle,
            Some(free) if free > time => Admit::At(free),
            Some(_) => Admit::Now,
        }
    }

    /// Counts one successful write call of `bytes`.
    pub fn sent(&mut self, now: Ticks, bytes: u64) {
        self.used.send_packets = self.used.send_packets.saturating_add(1);
        self.used.send_bytes = self.used.send_bytes.saturating_add(bytes);
        for burst in &mut self.byte_bursts {
            burst.record(now, bytes);
        }
        for burst in &mut self.packet_bursts {
            burst.record(now, 1);
        }
    }

    /// Claims one admitted write of `bytes` that another thread makes later: until it is settled it counts against the totals
    /// and in every window.
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved_packets = self.reserved_packets.saturating_add(1);
        self.reserved_bytes = self.reserved_bytes.saturating_add(bytes);
    }

    /// Ends a reservation of `reserved` bytes: `bytes` were sent at `sent_at`, or nothing was. The time is read after the
    /// write call, like that of [`sent`](Ledger::sent).
    pub fn settle(&mut self, reserved: u64, sent_at: Option<Ticks>, bytes: u64) {
        self.reserved_packets = self.reserved_packets.saturating_sub(1);
        self.reserved_bytes = self.reserved_bytes.saturating_sub(reserved);
        if let Some(time) = sent_at {
            self.sent(time, bytes);
        }
    }

    /// Counts one receive. False: it exceeds a limit, so it is not counted and its data must be discarded.
    pub fn receive(&mut self, bytes: u64) -> bool {
        let left = self.granted.less(&self.used);
        let fits = left.receive_packets > 0 && bytes <= left.receive_bytes;
        if fits {
            self.used.receive_packets = self.used.receive_packets.saturating_add(1);
            self.used.receive_bytes = self.used.receive_bytes.saturating_add(bytes);
        }
        fits
    }

    /// What is left of the totals. The run time is that of the session's start; see [`Ledger::end`].
    pub fn left(&self) -> Remaining {
        self.granted.less(&self.used)
    }

    /// What the session used from its start until `now`. Reservations count when they are settled.
    pub fn used(&self, now: Ticks) -> Usage {
        Usage { run_time: now.saturating_sub(self.start), ..self.used }
    }
}

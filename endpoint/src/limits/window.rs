//! One sliding burst window: at most `count` in any time of `window` ns (spec `scheduling.md` §5.3).

use std::collections::VecDeque;

use pktlab::cert::Burst;
use pktlab::wire::Ticks;

/// Sends remembered one by one; with more, those of the same cell of time become one.
const SENDS: usize = 1_024;
/// Cells of time that a window is divided into when that happens.
const CELLS: u64 = 510;
/// Windows of one kind. What a certificate has beyond that is joined to stricter ones.
const WINDOWS: usize = 32;
/// Sends this far ahead of the clock mean that the clock was set back, ns. Below that, another thread read it later.
const AHEAD: Ticks = 1_000_000_000;

/// A burst limit and the sends that count against it.
///
/// A send is never forgotten before `window` has passed since it was made, so whatever is coalesced or arrives out of order,
/// sends can only wait longer than the limit demands (by up to a 510th of the window), not shorter.
#[derive(Clone, Debug)]
pub(super) struct Window {
    count: u64,
    window: u64,
    /// Time of a send and its amount, oldest first.
    sends: VecDeque<(Ticks, u64)>,
    /// Of all amounts in `sends`.
    sum: u128,
}

impl Window {
    fn new(burst: Burst) -> Window {
        Window { count: burst.count, window: burst.window.max(1), sends: VecDeque::new(), sum: 0 }
    }

    /// Windows that together hold every entry of `bursts`. Entries that another one implies need none.
    pub fn all(bursts: impl Iterator<Item = Burst>) -> Vec<Window> {
        let mut sorted: Vec<Burst> = bursts.collect();
        sorted.sort_unstable_by_key(|burst| (std::cmp::Reverse(burst.window), burst.count));
        let mut strict: Vec<Burst> = Vec::new();
        for burst in sorted {
            if strict.last().is_none_or(|longer| burst.count < longer.count) {
                strict.push(burst);
            }
        }
        // Longest window and smallest count of neighbours: stricter than each of them.
        let group = strict.len().div_ceil(WINDOWS).max(1);
        let joined = strict.chunks(group).filter_map(|group| {
            let (longest, smallest) = (group.first()?, group.last()?);
            Some(Burst { count: smallest.count, window: longest.window })
        });
        joined.map(Window::new).collect()
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The earliest time, not before `time`, at which `amount` more fits. `None`: not even into an empty window. `time` may
    /// be ahead of the clock, so nothing is forgotten here: other sends may come before it.
    pub fn earliest(&mut self, time: Ticks, amount: u64) -> Option<Ticks> {
        if amount > self.count {
            return None;
        }
        self.follow_clock(time);
        let mut over = (self.sum + u128::from(amount)).saturating_sub(u128::from(self.count));
        let mut free = time;
        for (sent_at, sent) in &self.sends {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(u128::from(*sent));
            free = free.max(sent_at.saturating_add(self.window));
        }
        Some(free)
    }

    /// Counts a send. One that is reported late counts as if made at the latest one known.
    pub fn record(&mut self, time: Ticks, amount: u64) {
        if amount == 0 {
            return;
        }
        if let Some((latest, sent)) = self.sends.back_mut()
            && *latest >= time
        {
            let before = *sent;
            *sent = before.saturating_add(amount);
            self.sum += u128::from(*sent - before);
            return;
        }
        self.forget(time);
        if self.sends.len() >= SENDS {
            self.coalesce();
        }
        self.sends.push_back((time, amount));
        self.sum += u128::from(amount);
    }

    /// A clock set back would make the sends count for as long as it was set back: their ages are kept instead.
    fn follow_clock(&mut self, now: Ticks) {
        if let Some((latest, _)) = self.sends.back()
            && *latest > now.saturating_add(AHEAD)
        {
            let step = latest - now;
            for (time, _) in &mut self.sends {
                *time = time.saturating_sub(step);
            }
        }
    }

    /// Drops what no longer counts at `time`, which must not be ahead of the clock.
    fn forget(&mut self, time: Ticks) {
        while let Some((sent_at, sent)) = self.sends.front()
            && sent_at.saturating_add(self.window) <= time
        {
            self.sum -= u128::from(*sent);
            self.sends.pop_front();
        }
    }

    /// Makes room: at most `CELLS` + 2 entries are left, each as late as its latest send.
    fn coalesce(&mut self) {
        let cell = self.window / CELLS + 1;
        let mut kept: VecDeque<(Ticks, u64)> = VecDeque::with_capacity(SENDS);
        for (time, sent) in self.sends.drain(..) {
            match kept.back_mut() {
                Some(last) if last.0 / cell == time / cell => {
                    *last = (time, last.1.saturating_add(sent));
                }
                _ => kept.push_back((time, sent)),
            }
        }
        self.sum = kept.iter().map(|(_, sent)| u128::from(*sent)).sum();
        self.sends = kept;
    }

    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.sends.len()
    }
}

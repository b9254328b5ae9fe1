//! What a link does to packets in one direction: a state machine of (time, packet), without a clock of its own.

use std::collections::VecDeque;

use crate::scenario::Shape;

/// Packets on their way through one direction of a link. Times are nanoseconds of any one clock.
#[derive(Debug)]
pub struct Shaper {
    delay: u64,
    jitter: u64,
    loss: f64,
    /// Nanoseconds a byte takes on the line; zero without a rate.
    ns_per_byte: f64,
    limit_bytes: u64,
    random: u64,
    line_free: u64,
    last_due: u64,
    queued_bytes: usize,
    queue: VecDeque<(u64, Vec<u8>)>,
    /// Packets lost on purpose.
    pub lost: u64,
    /// Packets dropped because the line's queue or the memory bound was full.
    pub overflowed: u64,
}

/// Bound on the bytes under way, whatever the delay and rate.
const MEMORY: usize = 64 << 20;

impl Shaper {
    /// An empty direction.
    pub fn new(shape: &Shape) -> Shaper {
        let ns = |ms: f64| (ms * 1e6) as u64;
        Shaper {
            delay: ns(shape.delay_ms),
            jitter: ns(shape.jitter_ms),
            loss: shape.loss,
            ns_per_byte: if shape.rate_mbit > 0.0 { 8000.0 / shape.rate_mbit } else { 0.0 },
            limit_bytes: if shape.limit_bytes > 0 { shape.limit_bytes } else { 256 << 10 },
            // xorshift must not start at zero.
            random: shape.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            line_free: 0,
            last_due: 0,
            queued_bytes: 0,
            queue: VecDeque::new(),
            lost: 0,
            overflowed: 0,
        }
    }

    /// A packet that arrived at `stamp`. Returns whether it goes on.
    pub fn push(&mut self, stamp: u64, packet: &[u8]) -> bool {
        if self.loss > 0.0 && self.next_share() < self.loss {
            self.lost += 1;
            return false;
        }
        let start = stamp.max(self.line_free);
        let waiting = (start - stamp) as f64 / self.ns_per_byte.max(f64::MIN_POSITIVE);
        if (self.ns_per_byte > 0.0 && waiting > self.limit_bytes as f64)
            || self.queued_bytes + packet.len() > MEMORY
        {
            self.overflowed += 1;
            return false;
        }
        let sent = start + (packet.len() as f64 * self.ns_per_byte) as u64;
        self.line_free = sent;
        let jitter = if self.jitter > 0 { (self.next_share() * self.jitter as f64) as u64 } else { 0 };
        let due = (sent + self.delay + jitter).max(self.last_due);
        self.last_due = due;
        self.queued_bytes += packet.len();
        self.queue.push_back((due, packet.to_vec()));
        true
    }

    /// When the next packet is due.
    pub fn next_due(&self) -> Option<u64> {
        self.queue.front().map(|(due, _)| *due)
    }

    /// The next packet, if it is due at `now`.
    pub fn pop(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.next_due()? > now {
            return None;
        }
        let (_, packet) = self.queue.pop_front()?;
        self.queued_bytes -= packet.len();
        Some(packet)
    }

    /// Even between 0 and 1 (xorshift64*).
    fn next_share(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn delay_counts_from_the_receive_stamp() {
        let mut shaper = Shaper::new(&Shape { delay_ms: 5.0, ..Shape::default() });
        assert!(shaper.push(10 * MS, b"one"));
        assert_eq!(shaper.next_due(), Some(15 * MS));
        assert_eq!(shaper.pop(15 * MS - 1), None);
        assert_eq!(shaper.pop(15 * MS).as_deref(), Some(&b"one"[..]));
        assert_eq!(shaper.next_due(), None);
    }

    #[test]
    fn rate_spaces_packets_and_bounds_the_queue() {
        // 8 Mbit/s is 1 byte a microsecond.
        let mut shaper = Shaper::new(&Shape { rate_mbit: 8.0, limit_bytes: 2500, ..Shape::default() });
        let packet = [0u8; 1000];
        let passed = (0..10).filter(|_| shaper.push(0, &packet)).count();
        assert_eq!((passed, shaper.overflowed), (3, 7));
        assert_eq!(shaper.next_due(), Some(MS));
        assert!(shaper.pop(MS).is_some());
        assert_eq!(shaper.next_due(), Some(2 * MS));
    }

    #[test]
    fn loss_is_near_its_share_and_repeats_with_the_seed() {
        let lost = |seed| {
            let mut shaper = Shaper::new(&Shape { loss: 0.1, seed, ..Shape::default() });
            (0..10_000).map(|i| !shaper.push(i, b"x")).collect::<Vec<_>>()
        };
        let count = lost(1).iter().filter(|l| **l).count();
        assert!((800..1200).contains(&count), "{count}");
        assert_eq!(lost(1), lost(1));
        assert_ne!(lost(1), lost(2));
    }

    #[test]
    fn jitter_keeps_the_order() {
        let mut shaper = Shaper::new(&Shape { delay_ms: 1.0, jitter_ms: 3.0, seed: 4, ..Shape::default() });
        for i in 0..100u8 {
            assert!(shaper.push(u64::from(i), &[i]));
        }
        let mut last = 0;
        for i in 0..100u8 {
            let due = shaper.next_due().expect("queued");
            assert!(due >= last && (MS..=4 * MS + 100).contains(&due));
            last = due;
            assert_eq!(shaper.pop(due), Some(vec![i]));
        }
    }
}

//! The relay: a link with delay, loss or a rate, between two devices of a middle namespace.
//!
//! Packets are timed from the kernel's receive stamps, so the relay's own wake-up latency before reading does not add up;
//! it sleeps until shortly before a packet is due and spins the rest, but never more than a share of the time: a real-time
//! thread that always spins is stopped by the kernel for 50 ms in every second.

use std::io::Result;

use crate::scenario::Shape;
use crate::shaper::Shaper;
use crate::sys::{PacketSocket, now, offloads_off, punctual, wait};

/// Spin this long before a packet is due (ns).
const SPIN: u64 = 100_000;
/// Window of the spin budget and the budget (ns).
const WINDOW: u64 = 100_000_000;
const BUDGET: u64 = 30_000_000;
/// Largest frame read; offloads are off, so the device's MTU and header is all that comes.
const FRAME: usize = 9216;

/// Relays between two devices of this namespace until killed. Prints one line when it is ready.
pub fn run(devices: [&str; 2], shapes: &[Shape; 2]) -> Result<()> {
    for device in devices {
        offloads_off(device)?;
    }
    let sockets = [PacketSocket::open(devices[0])?, PacketSocket::open(devices[1])?];
    let mut ways = [Shaper::new(&shapes[0]), Shaper::new(&shapes[1])];
    println!("relay ready, {} scheduling", if punctual() { "real-time" } else { "normal" });
    let mut buffer = vec![0; FRAME];
    let mut spin = SpinBudget { window: now(), spent: 0 };
    loop {
        for (from, way) in ways.iter_mut().enumerate() {
            // Bounded, so that one busy direction does not hold up the other.
            for _ in 0..64 {
                let Some((length, stamp)) = sockets[from].receive(&mut buffer)? else { break };
                way.push(stamp, &buffer[..length]);
            }
            while let Some(frame) = way.pop(now()) {
                sockets[1 - from].send(&frame);
            }
        }
        let due = ways.iter().filter_map(Shaper::next_due).min();
        let Some(due) = due else {
            wait(&[&sockets[0], &sockets[1]], None)?;
            continue;
        };
        let left = due.saturating_sub(now());
        if left > SPIN {
            wait(&[&sockets[0], &sockets[1]], Some(left - SPIN))?;
        } else if spin.allows(now()) {
            spin.spend(spin_until(due));
        } else if left > 0 {
            wait(&[&sockets[0], &sockets[1]], Some(left))?;
        }
    }
}

/// Spins until a time; returns how long that took.
fn spin_until(due: u64) -> u64 {
    let start = now();
    loop {
        let time = now();
        // A clock set back must not hang the relay.
        if time >= due || time < start {
            return time.saturating_sub(start);
        }
        std::hint::spin_loop();
    }
}

struct SpinBudget {
    window: u64,
    spent: u64,
}

impl SpinBudget {
    fn allows(&mut self, now: u64) -> bool {
        if now.abs_diff(self.window) > WINDOW {
            *self = SpinBudget { window: now, spent: 0 };
        }
        self.spent < BUDGET
    }

    fn spend(&mut self, time: u64) {
        self.spent += time;
    }
}

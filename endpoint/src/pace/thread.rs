//! The thread itself: it sleeps until shortly before a send is due and spins the rest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Weak;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use pktlab::wire::Ticks;
use rustix::net::SendFlags;

use super::{Done, News, Reports, Shared, sys};
use crate::net::message;
use crate::net::now;
use crate::session::Errno;

/// Spun before a send, ns: a processor that slept needs longer to come back.
const LEAD: Ticks = 100_000;
const LEAD_COLD: Ticks = 200_000;
/// Without a send for this time the processor counts as cold, ns.
const COLD: Ticks = 5_000_000;
/// Of each window so much may be spun: more would meet the kernel's limit for real-time threads, and the host has other work.
const SPIN_WINDOW: Ticks = 100_000_000;
const SPIN_MAX: Ticks = 30_000_000;
/// Longest sleep, so that a step of the clock is noticed, ns.
const SLEEP_MAX: Ticks = 500_000_000;
/// While it is spun, a send is rehearsed at once, and again with so much left that the rehearsal cannot make it late, ns.
const REHEARSE: Ticks = 40_000;
const REHEARSE_MIN: Ticks = 20_000;
/// `MSG_PROBE`: the system goes the whole way of a datagram or raw packet, up to where it would be made, and makes none.
const PROBE: SendFlags = SendFlags::from_bits_retain(0x10);
/// Sends of one lane before others have their turn.
const TURN: usize = 32;
/// Entries of the heap from which on those of lanes recalled meanwhile are looked for.
const SWEEP_MIN: usize = 1_024;

/// A lane in the heap: when its head is due.
struct Due {
    time: Ticks,
    /// Equal times in order of arrival.
    order: u64,
    epoch: u64,
    lane: Weak<Shared>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.order) == (other.time, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.order).cmp(&(other.time, other.order))
    }
}

/// How much was spun lately.
#[derive(Default)]
struct Spin {
    window: Ticks,
    spun: Ticks,
    last_send: Ticks,
}

impl Spin {
    /// What may be spun before the next send, ns.
    fn lead(&mut self, now: Ticks) -> Ticks {
        if now.abs_diff(self.window) >= SPIN_WINDOW {
            (self.window, self.spun) = (now, 0);
        }
        let wanted = if now.abs_diff(self.last_send) < COLD { LEAD } else { LEAD_COLD };
        if self.spun + wanted <= SPIN_MAX { wanted } else { 0 }
    }
}

struct Schedule {
    heap: BinaryHeap<Reverse<Due>>,
    order: u64,
    /// The heap is swept when it is this large.
    sweep: usize,
}

impl Schedule {
    fn new() -> Self {
        Self { heap: BinaryHeap::new(), order: 0, sweep: SWEEP_MIN }
    }

    fn hear(&mut self, news: News) {
        let News { lane, time, epoch } = news;
        self.order += 1;
        self.heap.push(Reverse(Due { time, order: self.order, epoch, lane }));
        if self.heap.len() >= self.sweep {
            // A controller that has its sends recalled again and again must not fill the memory.
            self.heap
                .retain(|Reverse(due)| due.lane.upgrade().is_some_and(|lane| lane.lock().epoch == due.epoch));
            self.sweep = SWEEP_MIN.max(2 * self.heap.len());
        }
    }

    /// Brings what the next send needs back into the caches of a processor that did other things since the last one. A stream
    /// has no such flag: its bytes would be sent.
    fn rehearse(&self) {
        let lane = self.heap.peek().and_then(|Reverse(due)| due.lane.upgrade());
        let Some(lane) = lane else { return };
        let queue = lane.lock();
        if let Some(job) = queue.jobs.front()
            && let Some(remote) = &job.remote
        {
            // What is wrong with the send shows when it is made.
            let _ = rustix::net::sendto(&*lane.channel, &job.data, PROBE | SendFlags::DONTWAIT, remote);
        }
    }

    fn next(&self) -> Option<Ticks> {
        self.heap.peek().map(|Reverse(due)| due.time)
    }
}

/// Runs until the sending side of `news` is gone.
pub(super) fn run(news: &Receiver<News>, reports: &Reports) {
    sys::be_punctual();
    let mut schedule = Schedule::new();
    let mut spin = Spin::default();
    loop {
        let Some(time) = schedule.next() else {
            match news.recv() {
                Ok(first) => schedule.hear(first),
                Err(_) => return,
            }
            continue;
        };
        let time_now = now();
        if time <= time_now {
            if let Some(Reverse(due)) = schedule.heap.pop() {
                spin.last_send = time_now;
                serve(due, &mut schedule, reports);
            }
            // What was put in meanwhile may be due before the rest.
            for more in news.try_iter() {
                schedule.hear(more);
            }
            continue;
        }
        let lead = spin.lead(time_now);
        let wait = time - time_now;
        if wait > lead {
            let sleep = Duration::from_nanos((wait - lead).min(SLEEP_MAX));
            match news.recv_timeout(sleep) {
                Ok(more) => schedule.hear(more),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            continue;
        }
        let (mut at, mut heard) = (time_now, None);
        let mut rehearse = lead;
        while at < time && heard.is_none() {
            if (REHEARSE_MIN..=rehearse).contains(&(time - at)) {
                schedule.rehearse();
                rehearse = if rehearse > REHEARSE { REHEARSE } else { 0 };
            }
            std::hint::spin_loop();
            heard = news.try_recv().ok();
            at = now();
        }
        spin.spun += at.saturating_sub(time_now).min(SPIN_MAX);
        if let Some(more) = heard {
            schedule.hear(more);
        }
    }
}

/// Makes the sends of a lane that are due.
fn serve(due: Due, schedule: &mut Schedule, reports: &Reports) {
    let Some(lane) = due.lane.upgrade() else { return };
    let mut queue = lane.lock();
    if queue.epoch != due.epoch {
        return;
    }
    for _ in 0..TURN {
        let Some(job) = queue.jobs.front() else { break };
        if job.time > now() {
            break;
        }
        let mut found = Vec::new();
        let outcome = message::send(&lane.channel, &job.data, job.remote.as_ref(), job.stamp, &mut found);
        if matches!(outcome, Err(Errno::INTR)) {
            continue;
        }
        queue.jobs.pop_front();
        queue.stalled = outcome.is_err();
        let (socket, generation) = (lane.socket, lane.generation);
        // Before the lock is given back: whoever recalls the lane then finds every outcome.
        reports.send(Done { socket, generation, outcome, reports: found });
        if queue.stalled {
            break;
        }
    }
    match queue.jobs.front().filter(|_| !queue.stalled).map(|job| job.time) {
        Some(time) => {
            drop(queue);
            // Behind the lanes that are due already, however old its head is.
            schedule.hear(News { lane: due.lane, time: time.max(now()), epoch: due.epoch });
        }
        None => queue.known = false,
    }
}

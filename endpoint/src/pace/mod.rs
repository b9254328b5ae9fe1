//! Sends at their times: one thread that does nothing else, so that neither requests nor received data make a send late
//! (spec `timing.md` §2; the numbers behind the constants are in `docs/architecture.md`).
//!
//! Each measurement socket has a [`Lane`], a queue that is never sorted. The session puts sends in and takes back what was
//! not made; [`thread`] takes them out at their times and reports outcomes. A lane's lock is held while its head is sent and
//! its outcome reported, so after [`Pacer::recall`] everything is known: what came back was not sent, all else was.

mod sys;
mod thread;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use pktlab::wire::{SocketId, Ticks};
use rustix::event::{EventfdFlags, eventfd};

use crate::net::message::Channel;
use crate::session::{Errno, Reported, Sent};

/// Stack of the thread, bytes.
const STACK: usize = 128 * 1024;

/// A send and its time.
#[derive(Debug)]
pub struct Job {
    /// Not before this moment of the endpoint's clock.
    pub time: Ticks,
    pub data: Bytes,
    pub remote: Option<SocketAddr>,
    /// The kernel's transmit stamp is wanted.
    pub stamp: bool,
}

/// What became of a job.
#[derive(Debug)]
pub struct Done {
    pub socket: SocketId,
    pub generation: u64,
    /// After an error the lane stands still until it is recalled.
    pub outcome: Result<Sent, Errno>,
    /// What the network reported of earlier datagrams, found on the way.
    pub reports: Vec<Reported>,
}

/// The queue of one measurement socket. Clones share it.
#[derive(Clone)]
pub struct Lane(Arc<Shared>);

struct Shared {
    socket: SocketId,
    generation: u64,
    channel: Arc<Channel>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Counts recalls: what the thread knew before no longer holds.
    epoch: u64,
    /// The thread knows of the jobs.
    known: bool,
    /// The head failed.
    stalled: bool,
}

impl Lane {
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane with something new at its head. It does not keep the lane, so that a socket closed long before its sends were due
/// is really closed.
struct News {
    lane: Weak<Shared>,
    time: Ticks,
    epoch: u64,
}

/// Outcomes on their way back.
#[derive(Clone)]
struct Reports {
    sender: Sender<Done>,
    wake: Arc<OwnedFd>,
    /// The descriptor was made readable and not cleared since.
    awake: Arc<AtomicBool>,
}

impl Reports {
    fn send(&self, done: Done) {
        // Nobody listens any more when the session is over.
        let _ = self.sender.send(done);
        if !self.awake.swap(true, Ordering::AcqRel) {
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// See the module text. The thread begins with the first job and ends when this is dropped.
pub struct Pacer {
    /// Dropped first, which ends the thread.
    news: Option<Sender<News>>,
    /// Until the thread begins.
    start: Option<(Receiver<News>, Reports)>,
    thread: Option<JoinHandle<()>>,
    done: Receiver<Done>,
    wake: Arc<OwnedFd>,
    awake: Arc<AtomicBool>,
}

impl Pacer {
    pub fn new() -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let awake = Arc::new(AtomicBool::new(false));
        let (news, heard) = unbounded();
        let (sender, done) = unbounded();
        let reports = Reports { sender, wake: wake.clone(), awake: awake.clone() };
        Ok(Self { news: Some(news), start: Some((heard, reports)), thread: None, done, wake, awake })
    }

    /// A queue for a socket; outcomes carry `generation`.
    pub fn lane(&self, socket: SocketId, generation: u64, channel: Arc<Channel>) -> Lane {
        Lane(Arc::new(Shared { socket, generation, channel, queue: Mutex::default() }))
    }

    /// Puts a send behind those of its lane, whatever their times.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn submit(&mut self, lane: &Lane, job: Job) -> io::Result<()> {
        if let Some((heard, reports)) = self.start.take() {
            let thread = std::thread::Builder::new().name("timed sends".into()).stack_size(STACK);
            self.thread = Some(thread.spawn(move || thread::run(&heard, &reports))?);
        }
        let mut queue = lane.lock();
        let time = job.time;
        queue.jobs.push_back(job);
        if !queue.known && !queue.stalled {
            queue.known = true;
            let news = News { lane: Arc::downgrade(&lane.0), time, epoch: queue.epoch };
            if let Some(sender) = &self.news {
                sender.send(news).map_err(|_| io::Error::other("the thread of timed sends is gone"))?;
            }
        }
        Ok(())
    }

    /// Takes back everything of a lane that was not made; none of it can be made afterwards. Outcomes of the rest wait at
    /// [`Pacer::done`].
    pub fn recall(&self, lane: &Lane) -> VecDeque<Job> {
        let mut queue = lane.lock();
        queue.epoch += 1;
        queue.known = false;
        queue.stalled = false;
        std::mem::take(&mut queue.jobs)
    }

    /// The next outcome, in order of sending.
    pub fn done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Readable once outcomes came after the last [`Pacer::clear`].
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// To be called before [`Pacer::done`] is asked for all there is.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // Empty already is as good.
        let _ = rustix::io::read(&*self.wake, &mut count);
        self.awake.store(false, Ordering::Release);
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.news = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;

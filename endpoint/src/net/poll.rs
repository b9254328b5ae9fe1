//! The epoll of all sockets, captures, the timer and the outcomes of timed sends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pktlab::wire::{SocketId, Ticks};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventFlags};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec};

use super::Sockets;
use crate::session::{Errno, Interest, Ready};

/// What an event belongs to. A socket's is its number.
pub(super) mod token {
    use super::SocketId;

    /// The capture of a raw socket.
    pub const fn ring(id: SocketId) -> u64 {
        RING | id as u64
    }

    pub const RING: u64 = 0x100;
    pub const TIMER: u64 = 0x200;
    pub const PACER: u64 = 0x201;
}

/// What one look at the epoll found.
#[derive(Debug, Default)]
pub struct Polled {
    pub timer: bool,
    /// Timed sends were made.
    pub made: bool,
    /// In ascending order of ids.
    pub sockets: Vec<(SocketId, Ready)>,
}

impl Polled {
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty() && !self.timer && !self.made
    }
}

impl Sockets {
    /// Readable while anything is ready.
    pub fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Nothing is ready now.
    pub fn is_quiet(&self) -> std::io::Result<bool> {
        let mut fds = [rustix::event::PollFd::new(&self.epoll, rustix::event::PollFlags::IN)];
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(self.with_reports().next().is_none() && rustix::event::poll(&mut fds, Some(&zero))? == 0)
    }

    /// Whatever is ready now.
    pub fn poll(&mut self) -> std::io::Result<Polled> {
        self.events.clear();
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&zero)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut polled = Polled::default();
        for event in &self.events {
            match event.data.u64() {
                token::TIMER => {
                    polled.timer = true;
                    let mut expirations = [0; 8];
                    // Nothing to read means that it was set anew in between.
                    let _ = rustix::io::read(&self.timer, &mut expirations);
                    self.armed = 0;
                }
                token::PACER => polled.made = true,
                number => polled.sockets.push((number as SocketId, readiness(event.flags))),
            }
        }
        let error = Ready { error: true, ..Ready::default() };
        polled.sockets.extend(self.with_reports().map(|id| (id, error)));
        polled.sockets.sort_unstable_by_key(|(id, _)| *id);
        Ok(polled)
    }

    /// Makes the epoll readable at `time` of the endpoint's clock; `None`: never.
    pub fn set_timer(&mut self, time: Option<Ticks>) -> std::io::Result<()> {
        // The zero time would switch the timer off.
        let time = time.map_or(0, |time| time.max(1));
        if time == self.armed {
            return Ok(());
        }
        self.armed = time;
        let value = Timespec {
            tv_sec: i64::try_from(time / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (time % 1_000_000_000) as i64,
        };
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        Ok(())
    }
}

fn readiness(flags: EventFlags) -> Ready {
    let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
    Ready {
        read: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
        write: broken || flags.contains(EventFlags::OUT),
        error: flags.contains(EventFlags::ERR),
    }
}

/// Changes what is reported of a descriptor. One without any interest leaves the epoll, which would report errors and
/// hang-ups all the same.
pub(super) fn watch(
    epoll: &OwnedFd,
    fd: BorrowedFd<'_>,
    token: u64,
    before: Interest,
    interest: Interest,
) -> Result<(), Errno> {
    let mut flags = EventFlags::empty();
    if interest.read {
        flags |= EventFlags::IN;
    }
    if interest.write {
        flags |= EventFlags::OUT;
    }
    let data = epoll::EventData::new_u64(token);
    match (before == Interest::default(), flags.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => epoll::add(epoll, fd, data, flags),
        (false, true) => epoll::delete(epoll, fd),
        (false, false) => epoll::modify(epoll, fd, data, flags),
    }
}

/// The same for a descriptor that is only read, whatever was reported of it before.
pub(super) fn rewatch(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: u64, read: bool) -> Result<(), Errno> {
    let data = epoll::EventData::new_u64(token);
    let outcome = if read { epoll::add(epoll, fd, data, EventFlags::IN) } else { epoll::delete(epoll, fd) };
    match outcome {
        Err(Errno::EXIST | Errno::NOENT) => Ok(()),
        other => other,
    }
}

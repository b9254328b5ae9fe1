//! The epoll of all sockets and the timer.

use std::os::fd::{AsFd, BorrowedFd};

use pktlab::wire::{SocketId, Ticks};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec};

use super::Sockets;
use crate::session::{Errno, Interest};

/// What one look at the epoll found.
#[derive(Debug, Default)]
pub struct Ready {
    pub timer: bool,
    /// In ascending order of ids.
    pub sockets: Vec<(SocketId, Interest)>,
}

impl Sockets {
    /// Readable while a socket or the timer is ready.
    pub fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Nothing is ready now.
    pub fn is_quiet(&self) -> std::io::Result<bool> {
        let mut fds = [rustix::event::PollFd::new(&self.epoll, rustix::event::PollFlags::IN)];
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(rustix::event::poll(&mut fds, Some(&zero))? == 0)
    }

    /// Whatever is ready now.
    pub fn poll(&mut self) -> std::io::Result<Ready> {
        self.events.clear();
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&zero)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = Ready::default();
        for event in &self.events {
            let token = event.data.u64();
            let Ok(id) = SocketId::try_from(token) else {
                ready.timer = true;
                let mut expirations = [0; 8];
                // Nothing to read means that it was set anew in between.
                let _ = rustix::io::read(&self.timer, &mut expirations);
                self.armed = 0;
                continue;
            };
            let flags = event.flags;
            let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            let interest = Interest {
                read: broken || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
                write: broken || flags.contains(epoll::EventFlags::OUT),
            };
            ready.sockets.push((id, interest));
        }
        ready.sockets.sort_unstable_by_key(|(id, _)| *id);
        Ok(ready)
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

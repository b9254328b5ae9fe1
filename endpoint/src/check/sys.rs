//! Two questions to the kernel that no safe library asks.

use std::io;

/// What the kernel knows about its clock.
pub(super) struct Clock {
    pub synchronised: bool,
    /// Largest error, us; a day counts as unknown.
    pub error: i64,
}

pub(super) fn clock() -> io::Result<Clock> {
    // SAFETY: all fields of a timex are integers, for which zero is a value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is valid for reading and writing; without modes the call only reads the clock's state.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let synchronised = answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0;
    Ok(Clock { synchronised, error: state.maxerror })
}

/// Whether a thread may have real-time priority: one tries and ends.
pub(super) fn real_time() -> io::Result<()> {
    let attempt = std::thread::spawn(|| {
        // SAFETY: all fields of a sched_param are integers, for which zero is a value.
        let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
        parameters.sched_priority = 1;
        // SAFETY: `parameters` is valid for reading; 0 is the calling thread, which ends with this closure.
        match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    });
    attempt.join().unwrap_or_else(|_| Err(io::Error::other("the trying thread broke")))
}

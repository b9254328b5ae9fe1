//! The two steps that need `unsafe`: descriptors handed over by number, and registration with tokio.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Takes over a descriptor inherited under a number the parent told us. Call it once per number, before anything else
/// opens descriptors.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "numbers 0 to 2 are the standard streams"));
    }
    // Fails for a number that is not open, so that only real descriptors are taken.
    std::fs::symlink_metadata(format!("/proc/self/fd/{number}"))?;
    // SAFETY: the number is open, is none of the standard streams, and the parent gave it to this process for this use;
    // nothing else in the process owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Lets the tokio runtime report when `fd` is readable.
pub fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let number = fd.as_raw_fd();
    // SAFETY: `fd` owns its descriptor and lives, unchanged and open, inside the AsyncFd until that deregisters it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(|error| io::Error::other(format!("cannot watch descriptor {number}: {error}")))
}

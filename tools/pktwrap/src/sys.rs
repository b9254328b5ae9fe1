//! The unsafe parts: mapping the shared page and preparing children between fork and exec.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use pktwrap_link::page::{PAGE_BYTES, Page};
use rustix::mm::{MapFlags, ProtFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Maps `memfd`, which must be [`PAGE_BYTES`] long, for the rest of the process's life.
pub fn map_page(memfd: BorrowedFd<'_>) -> io::Result<&'static Page> {
    // SAFETY: a fresh shared mapping of the whole file at an address the kernel chooses; nothing is overlaid.
    let address = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            PAGE_BYTES,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            memfd,
            0,
        )?
    };
    // SAFETY: the mapping is page-aligned, PAGE_BYTES long, never unmapped; Page consists of atomics, for which every
    // bit pattern other processes may write is valid.
    Ok(unsafe { &*address.cast::<Page>() })
}

/// Keeps `fds` open in the child and ends the child when this process dies, so that no endpoint outlives its
/// supervisor.
pub fn inherit(command: &mut tokio::process::Command, fds: Vec<OwnedFd>) {
    let parent = std::process::id();
    // SAFETY: the closure only makes async-signal-safe system calls and touches memory that exists before the fork.
    unsafe {
        command.pre_exec(move || {
            for fd in &fds {
                if libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Died between fork and prctl: nobody would ever signal this child.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Registers a descriptor with the runtime.
pub fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd moved into the AsyncFd always gives the same descriptor and stays open until it is dropped there.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

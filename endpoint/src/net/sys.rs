//! Socket options for which no safe crate has a function.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void, socklen_t};

/// Types that any bytes make a value of, so that the kernel may write them.
pub(super) trait Plain: Copy {}

impl Plain for c_int {}
impl Plain for libc::linger {}
impl Plain for libc::tpacket_req3 {}
impl Plain for libc::tpacket_stats_v3 {}

/// Sets the option `(level, name)`.
pub(super) fn set<T: Plain>(fd: BorrowedFd<'_>, (level, name): (c_int, c_int), value: &T) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which lives through the call; the kernel only reads it.
    let outcome = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast::<c_void>(),
            size_of::<T>() as socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads the option `(level, name)`.
pub(super) fn get<T: Plain>(fd: BorrowedFd<'_>, (level, name): (c_int, c_int)) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: the pointer and length describe `value`; the kernel writes at most so many bytes.
    let outcome = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast::<c_void>(), &mut len)
    };
    // SAFETY: zeroed before, and any bytes the kernel wrote make a value of a `Plain` type.
    if outcome == 0 { Ok(unsafe { value.assume_init() }) } else { Err(io::Error::last_os_error()) }
}

//! System calls without libc in between: they cannot be interposed (not even by this library), touch no `errno` and
//! are no cancellation points. Every function returns the kernel's answer: `-errno` for an error.

use core::arch::asm;
use libc::{c_int, c_long, c_void, iovec, msghdr};

/// # Safety
/// As the system call.
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn call(nr: c_long, a: [usize; 6]) -> isize {
    let result: isize;
    asm!(
        "syscall",
        inlateout("rax") nr as isize => result,
        in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
        lateout("rcx") _, lateout("r11") _,
        options(nostack)
    );
    result
}

/// # Safety
/// As the system call.
#[cfg(target_arch = "aarch64")]
#[inline]
pub unsafe fn call(nr: c_long, a: [usize; 6]) -> isize {
    let result: isize;
    asm!(
        "svc 0",
        in("x8") nr,
        inlateout("x0") a[0] as isize => result,
        in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
        options(nostack)
    );
    result
}

/// Sets `errno` and returns -1, the way a hook reports an error.
#[cold]
pub fn fail(errno: c_int) -> c_int {
    set_errno(errno);
    -1
}

pub fn set_errno(errno: c_int) {
    // SAFETY: errno is thread-local and always writable.
    unsafe { *libc::__errno_location() = errno }
}

pub fn errno() -> c_int {
    // SAFETY: errno is thread-local and always readable.
    unsafe { *libc::__errno_location() }
}

/// Turns a kernel answer into libc's convention.
pub fn answer(result: isize) -> isize {
    if (-4095..0).contains(&result) { fail(-result as c_int) as isize } else { result }
}

/// A unix socket; `extra` may hold SOCK_CLOEXEC and SOCK_NONBLOCK.
pub fn unix_socket(kind: c_int, extra: c_int) -> c_int {
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_socket, [libc::AF_UNIX as usize, (kind | extra) as usize, 0, 0, 0, 0]) as c_int }
}

pub fn close(fd: c_int) {
    // SAFETY: callers close only descriptors they made.
    unsafe {
        call(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]);
    }
}

/// An abstract unix address.
pub struct UnixName {
    raw: libc::sockaddr_un,
    len: libc::socklen_t,
}

impl UnixName {
    pub fn new(name: &[u8]) -> UnixName {
        // SAFETY: sockaddr_un is integers only, for which zero is valid.
        let mut raw: libc::sockaddr_un = unsafe { core::mem::zeroed() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in raw.sun_path[1..].iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        UnixName { raw, len: (3 + name.len()) as libc::socklen_t }
    }
}

pub fn bind(fd: c_int, name: &UnixName) -> isize {
    // SAFETY: the address lives through the call and is at least as long as its length.
    unsafe { call(libc::SYS_bind, [fd as usize, &raw const name.raw as usize, name.len as usize, 0, 0, 0]) }
}

/// Connects to a listener of the supervisor; waits (bounded) while its backlog is full, also on a non-blocking
/// socket.
pub fn connect(fd: c_int, name: &UnixName) -> isize {
    for _ in 0..5000 {
        // SAFETY: as in bind().
        let result = unsafe {
            call(libc::SYS_connect, [fd as usize, &raw const name.raw as usize, name.len as usize, 0, 0, 0])
        };
        match -result as c_int {
            libc::EAGAIN => pause_ms(1),
            libc::EINTR => {}
            _ => return result,
        }
    }
    -libc::ENETDOWN as isize
}

pub fn pause_ms(ms: i64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 };
    // SAFETY: the timespec lives through the call.
    unsafe {
        call(libc::SYS_nanosleep, [&raw const time as usize, 0, 0, 0, 0, 0]);
    }
}

/// Status flags (O_NONBLOCK…) or `-errno`.
pub fn status_flags(fd: c_int) -> isize {
    fcntl(fd, libc::F_GETFL, 0)
}

pub fn fcntl(fd: c_int, command: c_int, arg: usize) -> isize {
    // SAFETY: only commands with integer arguments are used here.
    unsafe { call(libc::SYS_fcntl, [fd as usize, command as usize, arg, 0, 0, 0]) }
}

pub fn dup3(from: c_int, to: c_int, flags: c_int) -> isize {
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_dup3, [from as usize, to as usize, flags as usize, 0, 0, 0]) }
}

/// Sends the pieces as one message; restarts after a signal.
pub fn send(fd: c_int, pieces: &[iovec], flags: c_int) -> isize {
    // SAFETY: msghdr is integers and pointers, for which zero is valid.
    let mut message: msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = pieces.as_ptr().cast_mut();
    message.msg_iovlen = pieces.len();
    loop {
        // SAFETY: the pieces describe memory the caller vouches for.
        let result = unsafe {
            call(
                libc::SYS_sendmsg,
                [fd as usize, &raw const message as usize, (flags | libc::MSG_NOSIGNAL) as usize, 0, 0, 0],
            )
        };
        if result != -libc::EINTR as isize {
            return result;
        }
    }
}

/// One receive; `-EINTR` is handed back.
///
/// # Safety
/// As recvmsg(2).
pub unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> isize {
    call(libc::SYS_recvmsg, [fd as usize, message as usize, flags as usize, 0, 0, 0])
}

pub fn set_option_int(fd: c_int, level: c_int, name: c_int, value: c_int) -> isize {
    // SAFETY: the value lives through the call, its size is given.
    unsafe {
        call(
            libc::SYS_setsockopt,
            [fd as usize, level as usize, name as usize, &raw const value as usize, size_of::<c_int>(), 0],
        )
    }
}

/// Copies one option from a socket to another (timeouts, when a socket is replaced).
pub fn copy_option(from: c_int, to: c_int, level: c_int, name: c_int) {
    let mut value = [0u8; 16];
    let mut len: libc::socklen_t = 16;
    // SAFETY: buffer and length live through the calls.
    unsafe {
        let at = [
            from as usize,
            level as usize,
            name as usize,
            value.as_mut_ptr() as usize,
            &raw mut len as usize,
            0,
        ];
        if call(libc::SYS_getsockopt, at) == 0 {
            let at = [to as usize, level as usize, name as usize, value.as_ptr() as usize, len as usize, 0];
            call(libc::SYS_setsockopt, at);
        }
    }
}

/// What libc does for a program that writes to a closed connection.
pub fn raise_sigpipe() {
    // SAFETY: no pointers.
    unsafe {
        let pid = call(libc::SYS_getpid, [0; 6]);
        let tid = call(libc::SYS_gettid, [0; 6]);
        call(libc::SYS_tgkill, [pid as usize, tid as usize, libc::SIGPIPE as usize, 0, 0, 0]);
    }
}

pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec lives through the call.
    unsafe {
        call(libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC as usize, &raw mut time as usize, 0, 0, 0, 0]);
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// One line on standard error, written at once.
pub fn complain(parts: &[&[u8]]) {
    let empty = iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
    let mut pieces = [empty; 8];
    let mut count = 0;
    for part in [b"pktwrap: ".as_slice()].iter().chain(parts.iter().take(6)).chain([b"\n".as_slice()].iter())
    {
        pieces[count] = piece(part);
        count += 1;
    }
    // SAFETY: the pieces are slices that live through the call.
    unsafe {
        call(libc::SYS_writev, [2, pieces.as_ptr() as usize, count, 0, 0, 0]);
    }
}

/// A slice as an iovec for sending.
pub fn piece(bytes: &[u8]) -> iovec {
    iovec { iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: bytes.len() }
}

/// A buffer as an iovec for receiving.
pub fn space(bytes: &mut [u8]) -> iovec {
    iovec { iov_base: bytes.as_mut_ptr().cast::<c_void>(), iov_len: bytes.len() }
}

//! What the library knows about its session: nothing but the environment and the shared page. Set once, before any
//! hook does anything.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use pktwrap_link::call::{Reply, Request, op};
use pktwrap_link::page::{MAGIC, PAGE_BYTES, Page};
use pktwrap_link::{ENV_LINK, Plain, Token, VERSION, names};

use crate::sys;

/// How far this process is under a supervisor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not wrapped: every hook calls the real function.
    Inert,
    /// Wrapped.
    Live,
    /// Wrapped, but the supervisor cannot be reached: no IP sockets at all.
    Dead,
}

const FRESH: u8 = 0;
const INERT: u8 = 1;
const LIVE: u8 = 2;
const DEAD: u8 = 3;

static MODE: AtomicU8 = AtomicU8::new(FRESH);
static PAGE: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());
static SESSION: AtomicU64 = AtomicU64::new(0);
static TOKEN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
/// PKTWRAP_TEST_PANIC: the hook that is to panic (for the test that a panic aborts).
static PANIC: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static PANIC_LEN: AtomicUsize = AtomicUsize::new(0);

/// The constructor has run long before this in nearly every case; a library whose own constructor runs earlier and
/// opens a socket finds the state made here instead.
pub fn mode() -> Mode {
    match MODE.load(Ordering::Acquire) {
        LIVE => Mode::Live,
        INERT => Mode::Inert,
        DEAD => Mode::Dead,
        _ => init(),
    }
}

/// The shared page of a live session.
pub fn page() -> Option<&'static Page> {
    if mode() != Mode::Live {
        return None;
    }
    // SAFETY: null or a mapping that is never unmapped; the page is made of atomics.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

pub fn session() -> u64 {
    SESSION.load(Ordering::Relaxed)
}

pub fn token() -> Token {
    let mut token = [0; 16];
    token[..8].copy_from_slice(&TOKEN[0].load(Ordering::Relaxed).to_ne_bytes());
    token[8..].copy_from_slice(&TOKEN[1].load(Ordering::Relaxed).to_ne_bytes());
    token
}

#[inline]
pub fn panic_if_asked(hook: &str) {
    let asked = PANIC.load(Ordering::Relaxed);
    if asked.is_null() {
        return;
    }
    // SAFETY: points into the environment block as it was at start, PANIC_LEN bytes.
    let asked = unsafe { core::slice::from_raw_parts(asked, PANIC_LEN.load(Ordering::Relaxed)) };
    if asked == hook.as_bytes() {
        panic!("asked for by PKTWRAP_TEST_PANIC");
    }
}

/// Reads the environment, fetches the page. Two threads doing this at once (before `main`) store the same values.
pub fn init() -> Mode {
    let mode = match variable(ENV_LINK.as_bytes()).and_then(names::parse_env) {
        None => INERT,
        Some((session, token)) => {
            SESSION.store(session, Ordering::Relaxed);
            for (cell, half) in TOKEN.iter().zip(token.chunks_exact(8)) {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(half);
                cell.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            }
            match fetch_page() {
                Some(page) => {
                    PAGE.store(page, Ordering::Release);
                    LIVE
                }
                None => DEAD,
            }
        }
    };
    if mode != INERT
        && let Some(hook) = variable(b"PKTWRAP_TEST_PANIC")
    {
        PANIC_LEN.store(hook.len(), Ordering::Relaxed);
        PANIC.store(hook.as_ptr().cast_mut(), Ordering::Relaxed);
    }
    MODE.store(mode, Ordering::Release);
    match mode {
        LIVE => Mode::Live,
        INERT => Mode::Inert,
        _ => Mode::Dead,
    }
}

/// A panic must not reach redhook's fallback, which calls the real function and so the local network.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or("?", |l| l.file());
        let mut digits = [0; 10];
        let line = decimal(info.location().map_or(0, |l| l.line()), &mut digits);
        let text = info.payload().downcast_ref::<&str>().copied().unwrap_or("");
        sys::complain(&[
            b"panic in a hook, program ended: ",
            text.as_bytes(),
            b" at ",
            place.as_bytes(),
            b":",
            line,
        ]);
        // SAFETY: ends the process.
        unsafe { libc::abort() }
    }));
}

fn decimal(mut value: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

unsafe extern "C" {
    static environ: *const *const libc::c_char;
}

/// An environment variable, without libc's lock.
fn variable(name: &[u8]) -> Option<&'static [u8]> {
    // SAFETY: environ is a NULL-terminated list of strings; read once at start, before the program could change it.
    unsafe {
        let mut entry = environ;
        if entry.is_null() {
            return None;
        }
        while !(*entry).is_null() {
            let text = core::ffi::CStr::from_ptr(*entry).to_bytes();
            if text.len() > name.len() && text.starts_with(name) && text[name.len()] == b'=' {
                return Some(&text[name.len() + 1..]);
            }
            entry = entry.add(1);
        }
    }
    None
}

/// Opens a call to the supervisor and sends the request; the descriptor or `-errno`.
pub fn call(op: u32, args: [u32; 4], payload: &[u8]) -> i32 {
    let fd = sys::unix_socket(libc::SOCK_SEQPACKET, libc::SOCK_CLOEXEC);
    if fd < 0 {
        return fd;
    }
    let name = names::listener(session(), names::Listener::Call);
    let mut result = sys::connect(fd, &sys::UnixName::new(name.as_bytes()));
    if result >= 0 {
        // SAFETY: no pointers.
        let pid = unsafe { sys::call(libc::SYS_getpid, [0; 6]) } as u32;
        let request = Request { version: VERSION, op, token: token(), args, len: payload.len() as u32, pid };
        result = sys::send(fd, &[sys::piece(request.as_bytes()), sys::piece(payload)], 0);
    }
    if result < 0 {
        sys::close(fd);
        return result as i32;
    }
    fd
}

/// A whole control call: the reply, and how many bytes of `answer` were filled. `None`: no supervisor.
pub fn ask(op: u32, args: [u32; 4], payload: &[u8], answer: &mut [u8]) -> Option<(Reply, usize)> {
    let fd = call(op, args, payload);
    if fd < 0 {
        return None;
    }
    let mut head = [0u8; size_of::<Reply>()];
    let mut pieces = [sys::space(&mut head), sys::space(answer)];
    // SAFETY: msghdr is integers and pointers; the pieces live through the call.
    let received = unsafe {
        let mut message: libc::msghdr = core::mem::zeroed();
        message.msg_iov = pieces.as_mut_ptr();
        message.msg_iovlen = pieces.len();
        loop {
            let result = sys::recvmsg(fd, &mut message, 0);
            if result != -libc::EINTR as isize {
                break result;
            }
        }
    };
    sys::close(fd);
    let filled = usize::try_from(received).ok()?.checked_sub(head.len())?;
    let reply = Reply::from_bytes(&head)?;
    Some((reply, filled.min(reply.len as usize)))
}

fn fetch_page() -> Option<*mut Page> {
    let fd = call(op::PAGE, [0; 4], &[]);
    if fd < 0 {
        return None;
    }
    let mut reply = [0u8; size_of::<Reply>()];
    let mut pieces = [sys::space(&mut reply)];
    // One cmsghdr and one descriptor.
    let mut control = [0u64; 4];
    // SAFETY: msghdr is integers and pointers; everything it points to lives through the calls.
    let page = unsafe {
        let mut message: libc::msghdr = core::mem::zeroed();
        message.msg_iov = pieces.as_mut_ptr();
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let received = loop {
            let result = sys::recvmsg(fd, &mut message, libc::MSG_CMSG_CLOEXEC);
            if result != -libc::EINTR as isize {
                break result;
            }
        };
        sys::close(fd);
        let first = libc::CMSG_FIRSTHDR(&message);
        if received < size_of::<Reply>() as isize || first.is_null() {
            return None;
        }
        if (*first).cmsg_level != libc::SOL_SOCKET || (*first).cmsg_type != libc::SCM_RIGHTS {
            return None;
        }
        let memory = libc::CMSG_DATA(first).cast::<libc::c_int>().read_unaligned();
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let at = sys::call(
            libc::SYS_mmap,
            [0, PAGE_BYTES, protection, libc::MAP_SHARED as usize, memory as usize, 0],
        );
        // A shorter file would end the program with SIGBUS at some later access.
        let size = Reply::from_bytes(&reply).map_or(0, |r| r.args[0] as usize);
        sys::close(memory);
        if (-4095..0).contains(&at) || size < PAGE_BYTES {
            return None;
        }
        at as *mut Page
    };
    // SAFETY: a shared mapping of PAGE_BYTES bytes, never unmapped.
    let header = unsafe { &(*page).header };
    let known =
        header.magic.load(Ordering::Acquire) == MAGIC && header.version.load(Ordering::Acquire) == VERSION;
    known.then_some(page)
}

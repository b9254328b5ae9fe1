//! gethostbyname, gethostbyaddr and their `_r` and `2` forms: a `hostent` laid out in the caller's buffer, or in a
//! static one as libc does.

use core::ffi::CStr;
use core::ptr;

use libc::{c_char, c_int, c_void, hostent, size_t, socklen_t};
use pktwrap_link::Addr;

use super::wrapped;
use crate::hook::blocking;
use crate::lookup::{self, EAI_NODATA, Found, MAX_NAME};

const HOST_NOT_FOUND: c_int = 1;
const TRY_AGAIN: c_int = 2;
const NO_RECOVERY: c_int = 3;
const NO_DATA: c_int = 4;

unsafe extern "C" {
    fn __h_errno_location() -> *mut c_int;
}

pub fn set_h_errno(value: c_int) {
    // SAFETY: thread-local and always writable.
    unsafe { *__h_errno_location() = value }
}

fn h_error(code: i32) -> c_int {
    match code {
        libc::EAI_NONAME => HOST_NOT_FOUND,
        EAI_NODATA => NO_DATA,
        libc::EAI_AGAIN | libc::EAI_SYSTEM => TRY_AGAIN,
        _ => NO_RECOVERY,
    }
}

/// Takes pieces off a buffer.
struct Room {
    at: *mut u8,
    left: usize,
}

impl Room {
    /// `size` bytes, aligned for pointers.
    fn take(&mut self, size: usize) -> Option<*mut u8> {
        let skip = self.at.align_offset(align_of::<*mut c_char>());
        let need = size.checked_add(skip)?;
        if need > self.left {
            return None;
        }
        // SAFETY: within the buffer, by the check above.
        let (piece, next) = unsafe { (self.at.add(skip), self.at.add(need)) };
        self.at = next;
        self.left -= need;
        Some(piece)
    }
}

/// Lays a hostent out; `None` when the buffer is too small.
unsafe fn lay_out(
    name: &[u8],
    family: c_int,
    addrs: &[Addr],
    out: *mut hostent,
    room: &mut Room,
) -> Option<()> {
    let size: usize = if family == libc::AF_INET { 4 } else { 16 };
    let pointer = size_of::<*mut c_char>();
    let aliases = room.take(pointer)?.cast::<*mut c_char>();
    *aliases = ptr::null_mut();
    let list = room.take(pointer * (addrs.len() + 1))?.cast::<*mut c_char>();
    for (i, addr) in addrs.iter().enumerate() {
        let place = room.take(size)?;
        ptr::copy_nonoverlapping(addr.ip.as_ptr(), place, size);
        *list.add(i) = place.cast();
    }
    *list.add(addrs.len()) = ptr::null_mut();
    let text = room.take(name.len() + 1)?;
    ptr::copy_nonoverlapping(name.as_ptr(), text, name.len());
    *text.add(name.len()) = 0;
    out.write(hostent {
        h_name: text.cast(),
        h_aliases: aliases,
        h_addrtype: family,
        h_length: size as c_int,
        h_addr_list: list,
    });
    Some(())
}

/// What a look-up of the `_r` kind says: (return value, h_errno).
type Outcome = (c_int, c_int);

unsafe fn by_name(name: *const c_char, family: c_int, out: *mut hostent, room: &mut Room) -> Outcome {
    let number = match family {
        libc::AF_INET => 4,
        libc::AF_INET6 => 6,
        _ => return (libc::EAFNOSUPPORT, NO_RECOVERY),
    };
    let name = CStr::from_ptr(name);
    let mut found = Found::EMPTY;
    let mut binary = Addr { family: number, ..Addr::NONE };
    if inet_pton(family, name.as_ptr(), binary.ip.as_mut_ptr().cast()) == 1 {
        found.addrs[0] = binary;
        found.count = 1;
    } else if let Err(code) = lookup::resolve(name.to_bytes(), number, true, &mut found) {
        return (0, h_error(code));
    }
    let text =
        if found.canonical_len > 0 { &found.canonical[..found.canonical_len] } else { name.to_bytes() };
    match lay_out(text, family, &found.addrs[..found.count], out, room) {
        Some(()) => (0, 0),
        None => (libc::ERANGE, -1),
    }
}

unsafe extern "C" {
    fn inet_pton(family: c_int, text: *const c_char, out: *mut c_void) -> c_int;
}

unsafe fn by_addr(
    data: *const c_void,
    len: socklen_t,
    family: c_int,
    out: *mut hostent,
    room: &mut Room,
) -> Outcome {
    let (number, size) = match family {
        libc::AF_INET if len >= 4 => (4, 4),
        libc::AF_INET6 if len >= 16 => (6, 16),
        _ => return (libc::EINVAL, NO_RECOVERY),
    };
    let mut addr = Addr { family: number, ..Addr::NONE };
    ptr::copy_nonoverlapping(data.cast::<u8>(), addr.ip.as_mut_ptr(), size);
    let mut name = [0u8; MAX_NAME];
    match lookup::reverse(&addr, &mut name) {
        Err(code) => (0, h_error(code)),
        Ok(used) => match lay_out(&name[..used], family, &[addr], out, room) {
            Some(()) => (0, 0),
            None => (libc::ERANGE, -1),
        },
    }
}

/// Ends a `_r` call.
unsafe fn finish(
    (result, h): Outcome,
    out: *mut hostent,
    answer: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    *answer = if result == 0 && h == 0 { out } else { ptr::null_mut() };
    if !h_errno.is_null() {
        *h_errno = h;
    }
    result
}

/// What the calls without a buffer return; one for the whole process, as in libc.
struct Shared {
    entry: core::cell::UnsafeCell<core::mem::MaybeUninit<hostent>>,
    buffer: core::cell::UnsafeCell<[u64; 512]>,
}

// SAFETY: these calls are documented as not thread-safe; the program orders them.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared {
    entry: core::cell::UnsafeCell::new(core::mem::MaybeUninit::uninit()),
    buffer: core::cell::UnsafeCell::new([0; 512]),
};

unsafe fn shared(look: impl FnOnce(*mut hostent, &mut Room) -> Outcome) -> *mut hostent {
    let entry = SHARED.entry.get().cast::<hostent>();
    let mut room = Room { at: SHARED.buffer.get().cast(), left: 4096 };
    match look(entry, &mut room) {
        (0, 0) => entry,
        (result, h) => {
            if result != 0 {
                crate::sys::set_errno(result);
            }
            set_h_errno(h);
            ptr::null_mut()
        }
    }
}

blocking! {
    fn gethostbyname(name: *const c_char) -> *mut hostent {
        if !wrapped() {
            return gethostbyname::real()(name);
        }
        shared(|out, room| by_name(name, libc::AF_INET, out, room))
    }
}

blocking! {
    fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
        if !wrapped() {
            return gethostbyname2::real()(name, family);
        }
        shared(|out, room| by_name(name, family, out, room))
    }
}

blocking! {
    fn gethostbyname_r(
        name: *const c_char, out: *mut hostent, buffer: *mut c_char, size: size_t, answer: *mut *mut hostent,
        h_errno: *mut c_int,
    ) -> c_int {
        if !wrapped() {
            return gethostbyname_r::real()(name, out, buffer, size, answer, h_errno);
        }
        let mut room = Room { at: buffer.cast(), left: size };
        finish(by_name(name, libc::AF_INET, out, &mut room), out, answer, h_errno)
    }
}

blocking! {
    fn gethostbyname2_r(
        name: *const c_char, family: c_int, out: *mut hostent, buffer: *mut c_char, size: size_t,
        answer: *mut *mut hostent, h_errno: *mut c_int,
    ) -> c_int {
        if !wrapped() {
            return gethostbyname2_r::real()(name, family, out, buffer, size, answer, h_errno);
        }
        let mut room = Room { at: buffer.cast(), left: size };
        finish(by_name(name, family, out, &mut room), out, answer, h_errno)
    }
}

blocking! {
    fn gethostbyaddr(data: *const c_void, len: socklen_t, family: c_int) -> *mut hostent {
        if !wrapped() {
            return gethostbyaddr::real()(data, len, family);
        }
        shared(|out, room| by_addr(data, len, family, out, room))
    }
}

blocking! {
    fn gethostbyaddr_r(
        data: *const c_void, len: socklen_t, family: c_int, out: *mut hostent, buffer: *mut c_char, size: size_t,
        answer: *mut *mut hostent, h_errno: *mut c_int,
    ) -> c_int {
        if !wrapped() {
            return gethostbyaddr_r::real()(data, len, family, out, buffer, size, answer, h_errno);
        }
        let mut room = Room { at: buffer.cast(), left: size };
        finish(by_addr(data, len, family, out, &mut room), out, answer, h_errno)
    }
}

/// Finds the real functions that exist.
pub fn prepare() {
    gethostbyname::prepare();
    gethostbyname2::prepare();
    gethostbyname_r::prepare();
    gethostbyname2_r::prepare();
    gethostbyaddr::prepare();
    gethostbyaddr_r::prepare();
}

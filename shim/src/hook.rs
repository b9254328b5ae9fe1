//! How a hook is declared.
//!
//! [`plain!`] uses redhook and is for functions that are in every libc and never block. [`blocking!`] is for the rest,
//! for two reasons: a hook of redhook catches unwinding, and a thread cancelled inside it (`pthread_cancel` unwinds
//! through `recv`, `connect`, `getaddrinfo`…) would abort the program; and redhook panics when the real function does
//! not exist, while names like `__open64_2` or `res_nsend` may be missing or come from a library loaded later.
//!
//! In both, a panic never gets as far as unwinding: the panic hook set by `state` ends the program.

use core::ffi::CStr;
use core::sync::atomic::{AtomicPtr, Ordering};
use libc::c_void;

/// `plain! { fn name(arg: Type) -> Type => hook_name { body } }`; `redhook::real!(name)` is the real function.
macro_rules! plain {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty => $hook:ident $body:block) => {
        redhook::hook! {
            unsafe fn $name($($arg: $ty),*) -> $ret => $hook {
                $crate::state::panic_if_asked(stringify!($name));
                $body
            }
        }
    };
}

/// `blocking! { fn name(arg: Type) -> Type { body } }`; `name::real()` is the real function.
macro_rules! blocking {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty $body:block) => {
        #[allow(unused_imports, dead_code)]
        pub mod $name {
            use super::*;
            use core::sync::atomic::AtomicPtr;

            static REAL: AtomicPtr<libc::c_void> = AtomicPtr::new(core::ptr::null_mut());
            const NAME: &core::ffi::CStr = match core::ffi::CStr::from_bytes_with_nul(
                concat!(stringify!($name), "\0").as_bytes(),
            ) {
                Ok(name) => name,
                Err(_) => c"",
            };

            pub fn real() -> unsafe extern "C-unwind" fn($($ty),*) -> $ret {
                let found = $crate::hook::require(&REAL, NAME);
                // SAFETY: libc's function of this name has this signature on every Linux target.
                unsafe { core::mem::transmute::<*mut libc::c_void, unsafe extern "C-unwind" fn($($ty),*) -> $ret>(found) }
            }

            pub fn prepare() {
                $crate::hook::find(&REAL, NAME);
            }
        }

        $(#[$doc])*
        /// # Safety
        /// As the function of the same name in libc.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> $ret {
            $crate::state::panic_if_asked(stringify!($name));
            $body
        }
    };
}

pub(crate) use {blocking, plain};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const libc::c_char) -> *mut c_void;
}

/// Looks the next definition of `name` up; null when there is none (now).
pub fn find(cell: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = cell.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    let saved = crate::sys::errno();
    // SAFETY: dlsym reads the name only.
    let found = unsafe { dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    crate::sys::set_errno(saved);
    cell.store(found, Ordering::Relaxed);
    found
}

/// As [`find`]; a program that calls what no library defines is ended.
pub fn require(cell: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let found = find(cell, name);
    if found.is_null() {
        crate::sys::complain(&[b"no library defines ", name.to_bytes()]);
        // SAFETY: ends the process.
        unsafe { libc::abort() }
    }
    found
}

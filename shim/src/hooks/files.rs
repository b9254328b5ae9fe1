//! /etc/resolv.conf names the endpoint's resolvers; every other file is the program's own.

use core::ffi::CStr;

use libc::{FILE, c_char, c_int, mode_t};

use crate::hook::blocking;
use crate::state;

/// The path to open instead.
unsafe fn path(asked: *const c_char) -> *const c_char {
    if asked.is_null() || CStr::from_ptr(asked) != c"/etc/resolv.conf" {
        return asked;
    }
    match state::page() {
        Some(page) if page.header.resolv_conf[0].load(core::sync::atomic::Ordering::Acquire) != 0 => {
            page.header.resolv_conf.as_ptr().cast()
        }
        _ => asked,
    }
}

macro_rules! opening {
    ($($name:ident ( $($before:ident : $bt:ty),* ; $($after:ident : $at:ty),* ) -> $ret:ty;)*) => {
        $(blocking! {
            fn $name($($before: $bt,)* file: *const c_char $(, $after: $at)*) -> $ret {
                $name::real()($($before,)* path(file) $(, $after)*)
            }
        })*

        /// Finds all real functions.
        pub fn prepare() {
            $($name::prepare();)*
        }
    };
}

opening! {
    open(; flags: c_int, mode: mode_t) -> c_int;
    open64(; flags: c_int, mode: mode_t) -> c_int;
    __open_2(; flags: c_int) -> c_int;
    __open64_2(; flags: c_int) -> c_int;
    openat(dir: c_int; flags: c_int, mode: mode_t) -> c_int;
    openat64(dir: c_int; flags: c_int, mode: mode_t) -> c_int;
    __openat_2(dir: c_int; flags: c_int) -> c_int;
    __openat64_2(dir: c_int; flags: c_int) -> c_int;
    fopen(; mode: *const c_char) -> *mut FILE;
    fopen64(; mode: *const c_char) -> *mut FILE;
}

//! res_query and its family: DNS messages answered by the endpoint's resolvers.

use core::ffi::CStr;

use libc::{c_char, c_int, c_uchar, c_void};

use super::hostent::set_h_errno;
use super::wrapped;
use crate::hook::blocking;
use crate::lookup;
use crate::sys;

const HOST_NOT_FOUND: c_int = 1;
const TRY_AGAIN: c_int = 2;
const NO_RECOVERY: c_int = 3;
const NO_DATA: c_int = 4;

/// Length of the answer, or -1 with h_errno.
unsafe fn ask(name: *const c_char, class: c_int, kind: c_int, answer: *mut c_uchar, room: c_int) -> c_int {
    let (Ok(room), false, false) = (usize::try_from(room), name.is_null(), answer.is_null()) else {
        set_h_errno(NO_RECOVERY);
        return -1;
    };
    let mut message = [0u8; 300];
    let id = sys::now_ns() as u16;
    let Some(len) =
        lookup::question(CStr::from_ptr(name).to_bytes(), class as u16, kind as u16, id, &mut message)
    else {
        set_h_errno(NO_RECOVERY);
        return -1;
    };
    let answer = core::slice::from_raw_parts_mut(answer, room);
    let Some(len) = lookup::query(&message[..len], answer) else {
        set_h_errno(TRY_AGAIN);
        return -1;
    };
    if len < 12 || room < 12 {
        set_h_errno(NO_RECOVERY);
        return -1;
    }
    let answers = u16::from_be_bytes([answer[6], answer[7]]);
    let failure = match answer[3] & 15 {
        0 if answers > 0 => return len as c_int,
        0 => NO_DATA,
        2 => TRY_AGAIN,
        3 => HOST_NOT_FOUND,
        _ => NO_RECOVERY,
    };
    set_h_errno(failure);
    -1
}

macro_rules! asking {
    ($($name:ident ( $($state:ident)? );)*) => {
        $(blocking! {
            fn $name(
                $($state: *mut c_void,)? name: *const c_char, class: c_int, kind: c_int, answer: *mut c_uchar,
                room: c_int,
            ) -> c_int {
                if wrapped() {
                    return ask(name, class, kind, answer, room);
                }
                $name::real()($($state,)? name, class, kind, answer, room)
            }
        })*

        fn prepare_asking() {
            $($name::prepare();)*
        }
    };
}

asking! {
    res_query();
    res_search();
    __res_query();
    __res_search();
    res_nquery(state);
    res_nsearch(state);
    __res_nquery(state);
    __res_nsearch(state);
}

macro_rules! sending {
    ($($name:ident ( $($state:ident)? );)*) => {
        $(blocking! {
            fn $name(
                $($state: *mut c_void,)? message: *const c_uchar, len: c_int, answer: *mut c_uchar, room: c_int,
            ) -> c_int {
                if !wrapped() {
                    return $name::real()($($state,)? message, len, answer, room);
                }
                let (Ok(len), Ok(room)) = (usize::try_from(len), usize::try_from(room)) else {
                    return sys::fail(libc::EINVAL);
                };
                let message = core::slice::from_raw_parts(message, len);
                let answer = core::slice::from_raw_parts_mut(answer, room);
                match lookup::query(message, answer) {
                    Some(len) => len as c_int,
                    None => sys::fail(libc::ETIMEDOUT),
                }
            }
        })*

        fn prepare_sending() {
            $($name::prepare();)*
        }
    };
}

sending! {
    res_send();
    __res_send();
    res_nsend(state);
    __res_nsend(state);
}

/// Finds the real functions that exist.
pub fn prepare() {
    prepare_asking();
    prepare_sending();
}

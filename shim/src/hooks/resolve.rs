//! Name resolution at the endpoint: getaddrinfo, getnameinfo and res_*; `hostent` holds the older calls.

pub mod hostent;
pub mod raw;

use core::ffi::CStr;
use core::ptr;

use libc::{addrinfo, c_char, c_int, c_void, sockaddr, sockaddr_storage, socklen_t};

use crate::hook::blocking;
use crate::lookup::{self, EAI_ADDRFAMILY, Found, MAX_NAME};
use crate::state::{self, Mode};
use crate::{addr, sys};

unsafe extern "C" {
    fn freeaddrinfo(list: *mut addrinfo);
}

const AI_CANONNAME: c_int = libc::AI_CANONNAME;

/// Inert processes and dead ones differ: without a supervisor no name may be looked up here.
pub fn wrapped() -> bool {
    state::mode() != Mode::Inert
}

blocking! {
    fn getaddrinfo(
        node: *const c_char, service: *const c_char, hints: *const addrinfo, out: *mut *mut addrinfo,
    ) -> c_int {
        if !wrapped() || node.is_null() {
            return getaddrinfo::real()(node, service, hints, out);
        }
        let mut own: addrinfo = core::mem::zeroed();
        if hints.is_null() {
            own.ai_flags = libc::AI_V4MAPPED | libc::AI_ADDRCONFIG;
        } else {
            own = *hints;
        }
        let wanted = own.ai_flags;
        // The interfaces of this machine say nothing about the endpoint's.
        own.ai_flags &= !libc::AI_ADDRCONFIG;
        let mut numeric = own;
        numeric.ai_flags |= libc::AI_NUMERICHOST;
        let result = getaddrinfo::real()(node, service, &numeric, out);
        if result != libc::EAI_NONAME || wanted & libc::AI_NUMERICHOST != 0 {
            return result;
        }
        // Not a number. The real function turns the service into ports and checks the hints.
        let mut any = own;
        any.ai_family = libc::AF_INET;
        any.ai_flags &= libc::AI_NUMERICSERV;
        if !matches!(own.ai_family, libc::AF_UNSPEC | libc::AF_INET | libc::AF_INET6) {
            return libc::EAI_FAMILY;
        }
        let port = if service.is_null() { c"0".as_ptr() } else { service };
        let mut kinds: *mut addrinfo = ptr::null_mut();
        let result = getaddrinfo::real()(ptr::null(), port, &any, &mut kinds);
        if result != 0 {
            return result;
        }
        let result = by_name(CStr::from_ptr(node).to_bytes(), own.ai_family, wanted, kinds, out);
        freeaddrinfo(kinds);
        result
    }
}

#[inline(never)]
unsafe fn by_name(
    name: &[u8],
    family: c_int,
    flags: c_int,
    kinds: *const addrinfo,
    out: *mut *mut addrinfo,
) -> c_int {
    let mut found = Found::EMPTY;
    let canonical = flags & AI_CANONNAME != 0;
    let number = match family {
        libc::AF_INET => 4,
        libc::AF_INET6 => 6,
        _ => 0,
    };
    let mut result = lookup::resolve(name, number, canonical, &mut found);
    let mapped = family == libc::AF_INET6 && flags & libc::AI_V4MAPPED != 0;
    if mapped && (result.is_err() || flags & libc::AI_ALL != 0) {
        let mut four = Found::EMPTY;
        if lookup::resolve(name, 4, canonical, &mut four).is_ok() {
            if result.is_err() {
                found.count = 0;
                found.canonical = four.canonical;
                found.canonical_len = four.canonical_len;
            }
            for addr in &four.addrs[..four.count] {
                if found.count < found.addrs.len() {
                    found.addrs[found.count] = *addr;
                    found.count += 1;
                }
            }
            result = Ok(());
        }
    }
    if let Err(code) = result {
        return if code == EAI_ADDRFAMILY { lookup::EAI_NODATA } else { code };
    }
    let name = if found.canonical_len > 0 { &found.canonical[..found.canonical_len] } else { name };
    let mut first: *mut addrinfo = ptr::null_mut();
    let mut last: *mut *mut addrinfo = &mut first;
    for addr in &found.addrs[..found.count] {
        let mut kind = kinds;
        while !kind.is_null() {
            let six = addr.family == 6 || family == libc::AF_INET6;
            let mut addr = *addr;
            addr.port = u16::from_be((*(*kind).ai_addr.cast::<libc::sockaddr_in>()).sin_port);
            let item = one(&addr, if six { 6 } else { 4 }, &*kind, flags);
            if item.is_null() {
                freeaddrinfo(first);
                return libc::EAI_MEMORY;
            }
            *last = item;
            last = &mut (*item).ai_next;
            kind = (*kind).ai_next;
        }
    }
    if canonical && !first.is_null() {
        let text = libc::malloc(name.len() + 1).cast::<u8>();
        if text.is_null() {
            freeaddrinfo(first);
            return libc::EAI_MEMORY;
        }
        ptr::copy_nonoverlapping(name.as_ptr(), text, name.len());
        *text.add(name.len()) = 0;
        (*first).ai_canonname = text.cast();
    }
    *out = first;
    0
}

/// One entry the way glibc makes it: the address in the same block, behind the entry.
unsafe fn one(addr: &pktwrap_link::Addr, family: u8, kind: &addrinfo, flags: c_int) -> *mut addrinfo {
    let mut storage: sockaddr_storage = core::mem::zeroed();
    let size = addr::write(addr, family, &mut storage);
    let item = libc::malloc(size_of::<addrinfo>() + size).cast::<addrinfo>();
    if item.is_null() {
        return item;
    }
    let address = item.add(1).cast::<sockaddr>();
    ptr::copy_nonoverlapping((&raw const storage).cast::<u8>(), address.cast::<u8>(), size);
    item.write(addrinfo {
        ai_flags: flags,
        ai_family: if family == 4 { libc::AF_INET } else { libc::AF_INET6 },
        ai_socktype: kind.ai_socktype,
        ai_protocol: kind.ai_protocol,
        ai_addrlen: size as socklen_t,
        ai_addr: address,
        ai_canonname: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    });
    item
}

blocking! {
    /// Would look names up in a thread of libc's own, at this machine.
    fn getaddrinfo_a(mode: c_int, list: *mut c_void, count: c_int, event: *mut c_void) -> c_int {
        if !wrapped() {
            return getaddrinfo_a::real()(mode, list, count, event);
        }
        sys::set_errno(libc::ENOSYS);
        libc::EAI_SYSTEM
    }
}

blocking! {
    fn getnameinfo(
        sa: *const sockaddr, len: socklen_t, host: *mut c_char, host_len: socklen_t,
        service: *mut c_char, service_len: socklen_t, flags: c_int,
    ) -> c_int {
        let by_number = flags & libc::NI_NUMERICHOST != 0 || host.is_null() || host_len == 0;
        let parsed = addr::parse(sa, len);
        let (false, true, Ok(addr)) = (by_number, wrapped(), parsed) else {
            return getnameinfo::real()(sa, len, host, host_len, service, service_len, flags);
        };
        // The real function does the service and the number, neither of which needs the network.
        let number = flags & !libc::NI_NAMEREQD | libc::NI_NUMERICHOST;
        if !service.is_null() && service_len > 0 {
            let result = getnameinfo::real()(sa, len, ptr::null_mut(), 0, service, service_len, number);
            if result != 0 {
                return result;
            }
        }
        let mut name = [0u8; MAX_NAME];
        match lookup::reverse(&addr, &mut name) {
            Ok(used) if used >= host_len as usize => libc::EAI_OVERFLOW,
            Ok(used) => {
                ptr::copy_nonoverlapping(name.as_ptr(), host.cast::<u8>(), used);
                *host.add(used) = 0;
                0
            }
            Err(code) if flags & libc::NI_NAMEREQD != 0 => code,
            Err(_) => getnameinfo::real()(sa, len, host, host_len, ptr::null_mut(), 0, number),
        }
    }
}

/// Finds the real functions that exist.
pub fn prepare() {
    getaddrinfo::prepare();
    getaddrinfo_a::prepare();
    getnameinfo::prepare();
    hostent::prepare();
    raw::prepare();
}

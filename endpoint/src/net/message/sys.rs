//! `sendmsg` and `recvmsg` with control data, which no safe crate does for all kinds needed here.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void};
use rustix::io::Errno;

use crate::net::open::errno_of;

/// Room for an address of any family, aligned as the kernel wants it.
const NAME: usize = size_of::<libc::sockaddr_storage>();
/// Room for the control data of one message.
const CONTROL: usize = 512;

/// Buffers of one call. The kernel reads and writes control data at addresses aligned for its headers.
#[repr(align(8))]
pub struct Control {
    bytes: [u8; CONTROL],
    len: usize,
    name: [u8; NAME],
    name_len: usize,
}

impl Control {
    pub fn new() -> Self {
        Self { bytes: [0; CONTROL], len: 0, name: [0; NAME], name_len: 0 }
    }

    /// The sender's address as the system has it.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.name_len.min(NAME)]
    }

    /// The control messages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.min(CONTROL)]
    }
}

fn result(outcome: isize) -> Result<usize, Errno> {
    usize::try_from(outcome).map_err(|_| errno_of(&std::io::Error::last_os_error()))
}

/// Receives one message behind what `buffer` holds, into its spare capacity; returns the flags of the message.
pub fn receive(
    fd: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    control: &mut Control,
    flags: c_int,
) -> Result<c_int, Errno> {
    let filled = buffer.len();
    let spare: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    let mut part = libc::iovec { iov_base: spare.as_mut_ptr().cast::<c_void>(), iov_len: spare.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    head.msg_name = control.name.as_mut_ptr().cast::<c_void>();
    head.msg_namelen = NAME as libc::socklen_t;
    head.msg_iov = &mut part;
    head.msg_iovlen = 1;
    head.msg_control = control.bytes.as_mut_ptr().cast::<c_void>();
    head.msg_controllen = CONTROL as _;
    // SAFETY: every pointer of the header leads to a buffer that lives through the call, with its length.
    let len = result(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut head, flags) })?;
    control.name_len = head.msg_namelen as usize;
    control.len = head.msg_controllen as usize;
    // SAFETY: the kernel initialised so many bytes of the spare capacity; it never returns more than there was without
    // MSG_TRUNC among `flags`, and the minimum holds in any case.
    unsafe { buffer.set_len(filled + len.min(part.iov_len)) };
    Ok(head.msg_flags)
}

/// Sends one message with at most one control message of one integer.
pub fn send(
    fd: BorrowedFd<'_>,
    data: &[u8],
    remote: &socket2::SockAddr,
    control: Option<(c_int, c_int, u32)>,
) -> Result<usize, Errno> {
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast::<c_void>(), iov_len: data.len() };
    let mut buffer = Control::new();
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    head.msg_name = remote.as_ptr().cast_mut().cast::<c_void>();
    head.msg_namelen = remote.len();
    head.msg_iov = &mut part;
    head.msg_iovlen = 1;
    if let Some((level, kind, value)) = control {
        const HEAD: usize = size_of::<libc::cmsghdr>();
        let len = HEAD + size_of::<u32>();
        buffer.bytes[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
        buffer.bytes[HEAD - 8..HEAD - 4].copy_from_slice(&level.to_ne_bytes());
        buffer.bytes[HEAD - 4..HEAD].copy_from_slice(&kind.to_ne_bytes());
        buffer.bytes[HEAD..len].copy_from_slice(&value.to_ne_bytes());
        head.msg_control = buffer.bytes.as_mut_ptr().cast::<c_void>();
        head.msg_controllen = len.next_multiple_of(size_of::<usize>()) as _;
    }
    // SAFETY: every pointer of the header leads to a buffer that lives through the call, with its length; the kernel only
    // reads the payload and the address.
    result(unsafe { libc::sendmsg(fd.as_raw_fd(), &head, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) })
}

//! The system's side of a capture ring: binding to an interface, and the memory shared with the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Offset of `block_status` in a block: behind version and offset_to_priv.
const STATUS: usize = 8;

/// Starts reception of all protocols on one interface.
pub fn bind(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = ifindex as libc::c_int;
    // SAFETY: pointer and length describe `address`.
    let outcome = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(&address).cast::<libc::sockaddr>(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The ring's memory, shared with the kernel block by block: a block belongs to one side at a time, as its status says.
pub struct Map {
    start: NonNull<u8>,
    block: usize,
    count: usize,
    /// Keeps the ring alive as long as its memory is mapped.
    socket: OwnedFd,
}

// SAFETY: the mapping belongs to this value alone and is not bound to a thread.
unsafe impl Send for Map {}

impl Map {
    /// Maps the ring of `count` blocks of `block` bytes that was set up on `socket`.
    pub fn new(socket: OwnedFd, block: usize, count: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address the kernel chooses; it touches no memory of ours.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                block * count,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                &socket,
                0,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, block, count, socket })
    }

    pub fn count(&self) -> usize {
        self.count
    }

    fn status(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.count, "block of the ring");
        // SAFETY: inside the mapping by the assertion, aligned because blocks are whole pages, and both sides access the
        // status as an integer of 32 bits.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(index * self.block + STATUS).cast()) }
    }

    /// The bytes of a block that belongs to us; `None` while the kernel fills it.
    pub fn ready(&self, index: usize) -> Option<&[u8]> {
        if self.status(index).load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: inside the mapping (see `status`); the kernel does not write a block that is ours, and `release`, which
        // gives it back, borrows the map mutably, so no slice outlives our turn.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(index * self.block), self.block) })
    }

    /// Gives a block back to the kernel.
    pub fn release(&mut self, index: usize) {
        self.status(index).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping made in `new`, and no slice of it outlives `self`. A failure would leave it mapped.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.block * self.count) };
    }
}

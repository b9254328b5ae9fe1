//! The page shared with all wrapped programs: made here, mapped for the supervisor's whole life.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pktwrap_link::page::{MAGIC, PAGE_BYTES, PATH_MAX, Page, SLOTS, SocketKey, state};

/// The mapped page and the descriptor that programs get.
pub struct SharedPage {
    page: &'static Page,
    memfd: OwnedFd,
}

impl SharedPage {
    /// Makes the page. `mode` are bits of [`pktwrap_link::page::mode`].
    pub fn new(mode: u32, resolv_conf: &Path) -> io::Result<SharedPage> {
        let memfd = rustix::fs::memfd_create("pktwrap", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&memfd, PAGE_BYTES as u64)?;
        let page = crate::sys::map_page(memfd.as_fd())?;
        let path = resolv_conf.as_os_str().as_bytes();
        if path.len() >= PATH_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path of the temporary folder is too long",
            ));
        }
        let header = &page.header;
        for (cell, &byte) in header.resolv_conf.iter().zip(path) {
            cell.store(byte, Ordering::Relaxed);
        }
        header.slots.store(SLOTS as u32, Ordering::Relaxed);
        header.next_id.store(1, Ordering::Relaxed);
        header.mode.store(mode, Ordering::Relaxed);
        header.supervisor_pid.store(std::process::id(), Ordering::Relaxed);
        header.version.store(pktwrap_link::VERSION, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        Ok(SharedPage { page, memfd })
    }

    pub fn page(&self) -> &'static Page {
        self.page
    }

    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

/// How long a slot outlives a connection whose program may still hold its end.
const AFTERLIFE: Duration = Duration::from_secs(5);

/// The program's last descriptor of this socket is gone: its slot may be claimed again.
pub fn release(page: &Page, id: SocketKey) {
    if let Some(slot) = page.slot(id) {
        slot.publish(state::CLOSED);
    }
}

/// As [`release`] where closing cannot be told from shutting down: the program gets time to ask about its socket.
pub fn release_later(page: &'static Page, id: SocketKey) {
    tokio::spawn(async move {
        tokio::time::sleep(AFTERLIFE).await;
        release(page, id);
    });
}

//! The page shared by a supervisor and all programs under it: one header, then one slot per socket.
//!
//! Every field is an atomic: both sides write, neither trusts the other with more than its own behaviour. Addresses
//! are written by the supervisor only (the program's bind excepted) and published by a store to `state` or `answered`.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::Addr;

/// A socket's number within a session, never reused; its slot is `id % SLOTS`.
pub type SocketKey = u64;

/// Slots in a page; a power of two. 65 536 × 256 bytes = 16 MiB of sparse memory.
pub const SLOTS: usize = 65536;

/// Room for the text programs see as `/etc/resolv.conf`.
pub const PATH_MAX: usize = 256;

pub const MAGIC: u64 = 0x706b_7477_7261_7031; // "pktwrap1"

/// A socket address both sides may read while the other writes; a torn read is possible and harmless (it is published
/// by another field's store before anyone may rely on it).
#[repr(C)]
pub struct SharedAddr {
    family: AtomicU8,
    reserved: AtomicU8,
    port: AtomicU16,
    scope: AtomicU32,
    ip: [AtomicU64; 2],
}

impl SharedAddr {
    pub fn store(&self, addr: &Addr) {
        self.port.store(addr.port, Ordering::Relaxed);
        self.scope.store(addr.scope, Ordering::Relaxed);
        let mut half = [0; 8];
        for (i, cell) in self.ip.iter().enumerate() {
            half.copy_from_slice(&addr.ip[8 * i..8 * i + 8]);
            cell.store(u64::from_ne_bytes(half), Ordering::Relaxed);
        }
        self.family.store(addr.family, Ordering::Release);
    }

    pub fn load(&self) -> Addr {
        let family = self.family.load(Ordering::Acquire);
        let mut ip = [0; 16];
        for (i, cell) in self.ip.iter().enumerate() {
            ip[8 * i..8 * i + 8].copy_from_slice(&cell.load(Ordering::Relaxed).to_ne_bytes());
        }
        Addr {
            family,
            reserved: 0,
            port: self.port.load(Ordering::Relaxed),
            scope: self.scope.load(Ordering::Relaxed),
            ip,
        }
    }
}

/// Values of [`Slot::state`]. 0 in a fresh page means "unused".
pub mod state {
    pub const UNUSED: u32 = 0;
    /// socket() was called.
    pub const NEW: u32 = 1;
    /// connect() was called, the endpoint has not answered.
    pub const CONNECTING: u32 = 2;
    /// TCP: established.
    pub const CONNECTED: u32 = 3;
    /// TCP: the connect failed, `errno` says why (0 once SO_ERROR took it).
    pub const FAILED: u32 = 4;
    pub const LISTENING: u32 = 5;
    /// The supervisor saw the socket's last descriptor go away; the slot may be claimed again.
    pub const CLOSED: u32 = 6;
}

/// Bits of [`Slot::flags`].
pub mod flag {
    /// The peer sent FIN; an end of file is genuine.
    pub const PEER_FIN: u32 = 1;
    /// The connection was reset; `errno` holds what is to be reported once.
    pub const RESET: u32 = 2;
    /// The program shut down its receiving side itself.
    pub const LOCAL_RDSHUT: u32 = 4;
    /// Served on the local machine (loopback destination), not at the endpoint.
    pub const LOCAL: u32 = 8;
    /// The failure in `errno` of a FAILED connect was already reported to the program.
    pub const REPORTED: u32 = 16;
    /// The program asked for a local address with bind().
    pub const BOUND: u32 = 32;
}

/// Number of option cells in a slot; the shim decides what each holds.
pub const OPTIONS: usize = 24;

#[repr(C, align(64))]
pub struct Slot {
    /// Whose slot this is; 0 = nobody's.
    pub id: AtomicU64,
    /// [`state`]. Also a futex word: the supervisor wakes all waiters after each change.
    pub state: AtomicU32,
    /// [`flag`] bits.
    pub flags: AtomicU32,
    /// Pending error, what SO_ERROR returns and clears.
    pub errno: AtomicU32,
    /// TCP: bytes of cork the shim wrote; valid once `corked` is 1.
    pub cork: AtomicU32,
    pub corked: AtomicU32,
    /// Futex word: the highest datagram ticket answered.
    pub answered: AtomicU32,
    /// errno of that answer, 0 = success.
    pub answer_errno: AtomicU32,
    /// Last ticket handed out.
    pub tickets: AtomicU32,
    /// [`crate::names::Kind`] letter, and family 4 or 6.
    pub kind: AtomicU8,
    pub family: AtomicU8,
    /// Protocol given to socket().
    pub protocol: AtomicU16,
    pub reserved: AtomicU32,
    pub local: SharedAddr,
    pub remote: SharedAddr,
    pub options: [AtomicU32; OPTIONS],
    pub spare: [AtomicU32; 8],
}

const _: () = assert!(size_of::<Slot>() == 256);

/// Bits of [`Header::mode`].
pub mod mode {
    /// Loopback destinations are served at the endpoint too (`--loopback endpoint`).
    pub const LOOPBACK_AT_ENDPOINT: u32 = 1;
    /// One line on stderr for each unusual thing a hook does (`--verbose`).
    pub const VERBOSE: u32 = 2;
}

#[repr(C, align(64))]
pub struct Header {
    pub magic: AtomicU64,
    pub version: AtomicU32,
    pub slots: AtomicU32,
    /// Next socket id; starts at 1.
    pub next_id: AtomicU64,
    /// The timeline's hidden time H in ns (design: a wrapped program's clock reads real − H). 0 until a later release
    /// fills it.
    pub hidden: AtomicU64,
    pub mode: AtomicU32,
    /// Datagram sockets made so far in this session: 0 lets read()/write() hooks pass everything through.
    pub datagrams: AtomicU32,
    pub supervisor_pid: AtomicU32,
    pub reserved: AtomicU32,
    /// Path of the file to open instead of /etc/resolv.conf, NUL-terminated.
    pub resolv_conf: [AtomicU8; PATH_MAX],
}

const _: () = assert!(size_of::<Header>() == 320);

#[repr(C)]
pub struct Page {
    pub header: Header,
    pub slots: [Slot; SLOTS],
}

/// Bytes of the memfd.
pub const PAGE_BYTES: usize = size_of::<Page>();

impl Page {
    /// The slot of this id if it still is this id's.
    pub fn slot(&self, id: SocketKey) -> Option<&Slot> {
        let slot = &self.slots[id as usize % SLOTS];
        (slot.id.load(Ordering::Acquire) == id).then_some(slot)
    }

    /// Takes a fresh id and its slot. Slots of sockets that are in use are passed over; after `SLOTS` sockets that were
    /// made and dropped without ever talking to the supervisor (nobody can tell that they are gone) their slots, state NEW,
    /// are taken over, oldest first.
    pub fn claim(&self) -> (SocketKey, &Slot) {
        let mut tries = 0;
        loop {
            let id = self.header.next_id.fetch_add(1, Ordering::Relaxed);
            let slot = &self.slots[id as usize % SLOTS];
            let owner = slot.id.load(Ordering::Acquire);
            let free = owner == 0
                || matches!(slot.state.load(Ordering::Acquire), state::CLOSED | state::UNUSED | state::NEW)
                || tries > 2 * SLOTS;
            if free && slot.id.compare_exchange(owner, id, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                slot.reset();
                return (id, slot);
            }
            tries += 1;
        }
    }
}

impl Slot {
    fn reset(&self) {
        for cell in [
            &self.flags,
            &self.errno,
            &self.cork,
            &self.corked,
            &self.answered,
            &self.answer_errno,
            &self.tickets,
        ] {
            cell.store(0, Ordering::Relaxed);
        }
        for cell in self.options.iter().chain(&self.spare) {
            cell.store(0, Ordering::Relaxed);
        }
        self.local.store(&Addr::NONE);
        self.remote.store(&Addr::NONE);
        self.state.store(state::NEW, Ordering::Release);
    }

    pub fn has(&self, flag: u32) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    pub fn set(&self, flag: u32) {
        self.flags.fetch_or(flag, Ordering::AcqRel);
    }

    /// Publishes a new state and wakes everyone who waits for one.
    pub fn publish(&self, new: u32) {
        self.state.store(new, Ordering::Release);
        futex_wake(&self.state);
    }

    /// Publishes the answer to a datagram ticket and wakes its waiter.
    pub fn answer(&self, ticket: u32, errno: u32) {
        self.answer_errno.store(errno, Ordering::Relaxed);
        self.answered.store(ticket, Ordering::Release);
        futex_wake(&self.answered);
    }
}

/// Wakes all waiters on a word of a shared page, in any process.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE only uses the address as a key.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}

/// Waits until `word` differs from `value`, a wake-up, a signal or the time-out (ns; `None` waits for ever). Returns 0 or the
/// errno (EAGAIN: differs already, EINTR, ETIMEDOUT); callers look at the word again whatever it says.
pub fn futex_wait(word: &AtomicU32, value: u32, timeout: Option<u64>) -> i32 {
    let timespec = timeout.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let pointer = timespec.as_ref().map_or(core::ptr::null(), |t| t as *const libc::timespec);
    // SAFETY: the word outlives the call (a shared reference to mapped memory); the timespec lives on this stack.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, pointer) };
    if result == 0 {
        return 0;
    }
    // SAFETY: errno is thread-local and always readable.
    unsafe { *libc::__errno_location() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Box<Page> {
        // SAFETY: Page is made of atomics only, for which zero bytes are valid.
        let page: Box<Page> = unsafe { Box::<Page>::new_zeroed().assume_init() };
        page.header.next_id.store(1, Ordering::Relaxed);
        page
    }

    #[test]
    fn a_slot_in_use_is_passed_over_and_a_closed_one_comes_back() {
        let page = page();
        let (first, slot) = page.claim();
        slot.publish(state::CONNECTED);
        let (closed, slot) = page.claim();
        slot.publish(state::CLOSED);
        page.header.next_id.store(first + SLOTS as u64, Ordering::Relaxed);
        let (next, _) = page.claim();
        assert_eq!(next as usize % SLOTS, closed as usize % SLOTS);
        assert!(page.slot(first).is_some(), "still the first socket's");
        assert!(page.slot(closed).is_none(), "taken over");
    }

    #[test]
    fn addresses_come_back() {
        let page = page();
        let (_, slot) = page.claim();
        let addr = Addr::from_std(&"[2001:db8::7]:443".parse().expect("address"));
        slot.remote.store(&addr);
        assert_eq!(slot.remote.load(), addr);
    }
}

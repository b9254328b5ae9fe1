//! The system interface the standard library lacks. All `unsafe` of the laboratory is here.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Result};
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

fn check(result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Runs `work` on a thread of its own inside a network namespace (a file of `/run/netns`).
pub fn in_namespace<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> Result<T> {
    let fd = netns.as_raw_fd();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: setns takes an open descriptor and a flag; it changes only this thread, which ends here.
            check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) })?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Index of a network device in the thread's namespace.
pub fn device_index(name: &str) -> Result<i32> {
    let name = CString::new(name)?;
    // SAFETY: the name is a terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(Error::last_os_error()),
        index => Ok(index as i32),
    }
}

/// Turns off checksum and segmentation offloads of a device in the thread's namespace. Without that a packet socket sees
/// unfinished checksums and oversized frames, and what it forwards is dropped at the far side.
pub fn offloads_off(device: &str) -> Result<()> {
    // Set commands of ethtool: rx and tx checksums, scatter/gather, TSO, GSO, GRO.
    const COMMANDS: [u32; 6] = [0x15, 0x17, 0x19, 0x1f, 0x24, 0x2c];
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    // SAFETY: socket makes a new descriptor, owned from here on.
    let socket = unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?)
    };
    for command in COMMANDS {
        let mut value = Value { command, data: 0 };
        // SAFETY: ifreq is plain data; all zeros is valid.
        let mut request: libc::ifreq = unsafe { zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: SIOCETHTOOL reads the name and an ethtool_value behind ifru_data; both live here.
        let result =
            check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) });
        match result {
            Err(e) if e.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// A packet socket on one device: whole Ethernet frames, kernel receive stamps, without what is sent on the device.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens it on a device of the thread's namespace.
    pub fn open(device: &str) -> Result<PacketSocket> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0 receives nothing until bind names the device.
        // SAFETY: socket makes a new descriptor, owned from here on.
        let socket =
            PacketSocket(unsafe { OwnedFd::from_raw_fd(check(libc::socket(libc::AF_PACKET, kind, 0))?) });
        socket.set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        // The send buffer and the forced receive buffer need privilege over the machine; a smaller one works too.
        for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
            if socket.set(libc::SOL_SOCKET, option, 16 << 20).is_err() {
                let plain = if option == libc::SO_RCVBUFFORCE { libc::SO_RCVBUF } else { libc::SO_SNDBUF };
                socket.set(libc::SOL_SOCKET, plain, 16 << 20)?;
            }
        }
        // SAFETY: sockaddr_ll is plain data; all zeros is valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = device_index(device)?;
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the address is a sockaddr_ll of the stated length.
        check(unsafe { libc::bind(socket.0.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(socket)
    }

    fn set(&self, level: i32, option: i32, value: i32) -> Result<()> {
        let length = size_of::<i32>() as u32;
        // SAFETY: the value is an int of the stated length.
        check(unsafe {
            libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const value).cast(), length)
        })?;
        Ok(())
    }

    /// The next frame's length and receive stamp (CLOCK_REALTIME, ns); `None` when none waits.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<(usize, u64)>> {
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut control = [0u64; 16];
        // SAFETY: msghdr is plain data; all zeros is valid.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the header points at buffers that live through the call, with their true lengths.
        let got = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        if got < 0 {
            let error = Error::last_os_error();
            return match error.raw_os_error() {
                // ENETDOWN is told once when a device goes down; the next call is fine.
                Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN) => Ok(None),
                _ => Err(error),
            };
        }
        let mut stamp = now();
        // SAFETY: the macros walk the control buffer the kernel filled, within msg_controllen.
        unsafe {
            let mut item = libc::CMSG_FIRSTHDR(&raw const message);
            while !item.is_null() {
                if (*item).cmsg_level == libc::SOL_SOCKET && (*item).cmsg_type == libc::SCM_TIMESTAMPNS {
                    let time: libc::timespec = std::ptr::read_unaligned(libc::CMSG_DATA(item).cast());
                    stamp = nanoseconds(&time);
                }
                item = libc::CMSG_NXTHDR(&raw const message, item);
            }
        }
        Ok(Some((got as usize, stamp)))
    }

    /// Sends a frame; false when the device would not take it.
    pub fn send(&self, frame: &[u8]) -> bool {
        // SAFETY: the frame is a readable buffer of the stated length.
        unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT) >= 0 }
    }
}

/// Waits until one of the sockets has a frame or `timeout` (ns) has passed; forever without.
pub fn wait(sockets: &[&PacketSocket; 2], timeout: Option<u64>) -> Result<()> {
    let mut polled = sockets.map(|s| libc::pollfd { fd: s.0.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let time = timeout
        .map(|ns| libc::timespec { tv_sec: (ns / 1_000_000_000) as _, tv_nsec: (ns % 1_000_000_000) as _ });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: two pollfds and, if any, a timespec that live through the call; no signal mask.
    match check(unsafe { libc::ppoll(polled.as_mut_ptr(), 2, time, std::ptr::null()) }) {
        Err(e) if e.raw_os_error() != Some(libc::EINTR) => Err(e),
        _ => Ok(()),
    }
}

fn nanoseconds(time: &libc::timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CLOCK_REALTIME in nanoseconds, the clock of the kernel's receive stamps.
pub fn now() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: clock_gettime fills the timespec; CLOCK_REALTIME always exists.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, time.as_mut_ptr());
        time.assume_init()
    };
    nanoseconds(&time)
}

/// Asks for punctual scheduling: timers without slack, and a real-time priority if permitted. Returns whether it was.
pub fn punctual() -> bool {
    let priority = libc::sched_param { sched_priority: 10 };
    // SAFETY: both calls concern this thread only; the parameter lives through the call.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0);
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) == 0
    }
}

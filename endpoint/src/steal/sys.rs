//! The bpf(2) system call: the few commands that stealing needs, with lengths checked before the kernel sees a pointer.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const MAP_CREATE: c_long = 0;
const MAP_UPDATE_ELEM: c_long = 2;
const MAP_DELETE_ELEM: c_long = 3;
const PROG_LOAD: c_long = 5;
const BTF_LOAD: c_long = 18;
const LINK_CREATE: c_long = 28;

const PROG_TYPE_SCHED_CLS: u32 = 3;
const ATTACH_TCX_INGRESS: u32 = 46;
/// Without another program named beside it: before all of them (BPF_F_BEFORE).
const FIRST: u32 = 1 << 3;
/// The verifier's log, bytes; it is read after a refusal only.
const LOG_LEN: usize = 1 << 20;
/// Bytes of the log's end that an error shows: the reason stands there.
const LOG_SHOWN: usize = 1500;

/// Kinds of maps in use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MapKind {
    Hash = 1,
    Array = 2,
    PerCpuArray = 6,
    ArrayOfMaps = 12,
}

/// A map of the kernel; it lives as long as the descriptor or a program that uses it.
#[derive(Debug)]
pub(super) struct Map {
    pub fd: OwnedFd,
    kind: MapKind,
    key_len: usize,
    /// Bytes of one value as system calls carry it.
    value_len: usize,
}

// The attributes as the kernel lays them out. Each begins a larger union; the kernel takes what is not passed as zero.

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
}

#[repr(C)]
struct Element {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BtfLoad {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    _padding: u32,
}

#[repr(C)]
struct ProgLoad {
    kind: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
    btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    _line_info_rec_size: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
/// Every address in `attr` must point to as many bytes as `command` makes the kernel read or write there.
unsafe fn bpf<T>(command: c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is valid for its own size, and the caller vouches for the addresses in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// # Safety
/// As for [`bpf`]; `command` must be one that returns a new descriptor.
unsafe fn bpf_fd<T>(command: c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for the addresses.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the command succeeded and returned a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

impl Map {
    /// Makes a map. Maps of maps need an example of what they will hold.
    pub fn create(
        kind: MapKind,
        key_len: u32,
        value_len: u32,
        entries: u32,
        example: Option<&Map>,
    ) -> io::Result<Map> {
        // Hash tables would otherwise allocate all entries at once (BPF_F_NO_PREALLOC).
        let flags = if kind == MapKind::Hash { 1 } else { 0 };
        let mut attr = MapCreate {
            kind: kind as u32,
            key_size: key_len,
            value_size: value_len,
            max_entries: entries,
            flags,
            inner_map_fd: example.map_or(0, |map| number(&map.fd)),
        };
        // SAFETY: the attributes hold no address.
        let fd = unsafe { bpf_fd(MAP_CREATE, &mut attr)? };
        Ok(Map { fd, kind, key_len: key_len as usize, value_len: value_len as usize })
    }

    fn element(&self, key: &[u8], value: &[u8]) -> Element {
        Element { map_fd: number(&self.fd), _padding: 0, key: address(key), value: address(value), flags: 0 }
    }

    /// Sets one entry.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        // The kernel would read one value for each CPU.
        assert_ne!(self.kind, MapKind::PerCpuArray, "per-CPU values are larger than they say");
        assert_eq!((key.len(), value.len()), (self.key_len, self.value_len), "sizes of key and value");
        let mut attr = self.element(key, value);
        // SAFETY: the kernel reads a key and a value of exactly the sizes the map was made with.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr)? };
        Ok(())
    }

    /// Puts a map into a map of maps. When this returns, no running program uses the one that was there.
    pub fn update_map(&self, key: &[u8], inner: &Map) -> io::Result<()> {
        self.update(key, &number(&inner.fd).to_ne_bytes())
    }

    /// Removes one entry; one that is not there is no error.
    pub fn delete(&self, key: &[u8]) -> io::Result<()> {
        assert_eq!(key.len(), self.key_len, "size of key");
        // The kernel insists that what a command does not use is 0.
        let mut attr = Element { value: 0, ..self.element(key, &[]) };
        // SAFETY: the kernel reads a key of exactly the size the map was made with, and no value.
        match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Loads type information, which the kernel demands for functions that helpers call.
pub(super) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attr =
        BtfLoad { btf: address(btf), log: 0, size: btf.len() as u32, log_size: 0, log_level: 0, _padding: 0 };
    // SAFETY: the kernel reads `size` bytes at `btf` and, with level 0, has no log to write.
    unsafe { bpf_fd(BTF_LOAD, &mut attr) }
}

/// Loads a classifier. `functions` are pairs of instruction number and type number. A refusal carries the end of the
/// verifier's log.
pub(super) fn load_program(code: &[u8], btf: &OwnedFd, functions: &[[u32; 2]]) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        kind: PROG_TYPE_SCHED_CLS,
        insn_cnt: (code.len() / 8) as u32,
        insns: address(code),
        license: c"Apache-2.0 OR MIT".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        name: *b"pktendpt_steal\0\0",
        ifindex: 0,
        expected_attach_type: ATTACH_TCX_INGRESS,
        btf_fd: number(btf),
        func_info_rec_size: size_of::<[u32; 2]>() as u32,
        func_info: functions.as_ptr() as u64,
        func_info_cnt: functions.len() as u32,
        _line_info_rec_size: 0,
    };
    // SAFETY: the kernel reads `insn_cnt` instructions of 8 bytes, `func_info_cnt` records of the given size, and a
    // terminated string; with level 0 it has no log to write.
    let error = match unsafe { bpf_fd(PROG_LOAD, &mut attr) } {
        // The verifier's own refusals are EACCES or EINVAL; EPERM never got that far.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EINVAL)) => error,
        other => return other,
    };
    let mut log = vec![0u8; LOG_LEN];
    attr.log_level = 1;
    attr.log_size = LOG_LEN as u32;
    attr.log_buf = log.as_mut_ptr() as u64;
    // SAFETY: as above, and the kernel writes at most `log_size` bytes to `log_buf`.
    let _ = unsafe { bpf_fd(PROG_LOAD, &mut attr) };
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[end.saturating_sub(LOG_SHOWN)..end]);
    Err(io::Error::new(
        error.kind(),
        format!("the kernel refused the program: {error}; its log ends: {text}"),
    ))
}

/// Attaches before what is already there: the first program that lets a packet pass ends the chain, and one behind it
/// would never see the packet. The kernel detaches when the last descriptor of the link is closed.
pub(super) fn attach(program: &OwnedFd, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attr =
        LinkCreate { prog_fd: number(program), ifindex, attach_type: ATTACH_TCX_INGRESS, flags: FIRST };
    // SAFETY: the attributes hold no address.
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
}

#[cfg(test)]
pub(super) mod testing {
    //! Runs of a program without packets from outside, and a look into its per-CPU state.

    use super::*;

    const MAP_LOOKUP_ELEM: c_long = 1;
    const PROG_TEST_RUN: c_long = 10;

    #[repr(C)]
    struct TestRun {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }

    /// What the program returned for a frame, and nanoseconds per run.
    pub(in crate::steal) fn run(program: &OwnedFd, frame: &[u8], repeat: u32) -> io::Result<(i32, u32)> {
        let mut attr = TestRun {
            prog_fd: number(program),
            retval: 0,
            data_size_in: frame.len() as u32,
            data_size_out: 0,
            data_in: address(frame),
            data_out: 0,
            repeat,
            duration: 0,
        };
        // SAFETY: the kernel reads `data_size_in` bytes at `data_in`; without `data_out` it writes none.
        unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
        Ok((attr.retval as i32, attr.duration))
    }

    fn possible_cpus() -> usize {
        let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").expect("sysfs");
        let last = text.trim().rsplit([',', '-']).next().expect("a list has a last number");
        last.parse::<usize>().expect("a number") + 1
    }

    /// Entry 0 of a per-CPU array, one value for each CPU.
    pub(in crate::steal) fn per_cpu(map: &Map) -> io::Result<Vec<Vec<u8>>> {
        let stride = map.value_len.next_multiple_of(8);
        let mut raw = vec![0u8; stride * possible_cpus()];
        let key = 0u32.to_ne_bytes();
        let mut attr = map.element(&key, &[]);
        attr.value = raw.as_mut_ptr() as u64;
        // SAFETY: the kernel reads a key of 4 bytes and writes one padded value for each possible CPU.
        unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr)? };
        Ok(raw.chunks(stride).map(<[u8]>::to_vec).collect())
    }

    /// Clears entry 0 of a per-CPU array on all CPUs.
    pub(in crate::steal) fn clear_per_cpu(map: &Map) -> io::Result<()> {
        let raw = vec![0u8; map.value_len.next_multiple_of(8) * possible_cpus()];
        let key = 0u32.to_ne_bytes();
        let mut attr = map.element(&key, &raw);
        // SAFETY: the kernel reads a key of 4 bytes and one padded value for each possible CPU.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr)? };
        Ok(())
    }

    /// Opens a network device without link header, made before in this namespace. What is written to it arrives there.
    pub(in crate::steal) fn open_tun(name: &str) -> io::Result<std::fs::File> {
        let device = std::fs::File::options().read(true).write(true).open("/dev/net/tun")?;
        // A struct ifreq: the name, then flags (IFF_TUN, IFF_NO_PI).
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[16..18].copy_from_slice(&0x1001u16.to_ne_bytes());
        // SAFETY: TUNSETIFF reads and writes one struct ifreq of 40 bytes.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(device) }
    }
}

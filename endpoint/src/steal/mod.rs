//! Withholding captured packets from the host's own network stack, without a kernel module (spec `raw.md` §5–§6).
//!
//! | module | what lives there |
//! |---|---|
//! | `program` | the kernel program: the way of a packet, the layout of maps and state |
//! | `interpreter` | its loop: one operation of a filter |
//! | `exempt` | what is never withheld |
//! | `btf` | the type information that the kernel demands |
//! | `asm` | kernel instructions with labels |
//! | `sys` | bpf(2) |
//!
//! A fixed program sits on the interface's traffic-control ingress, behind the packet sockets and before everything else.
//! It interprets the active filter, which is data in a map. The attachment is a link that dies with the process.

mod asm;
mod btf;
mod exempt;
mod interpreter;
mod program;
mod sys;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::filter::Filter;
use crate::filter::op::{Code, Op};
use program::{Maps, filter, state};
use sys::{Map, MapKind};

/// Connections that one [`Steal`] can exempt.
pub const EXEMPT_MAX: usize = 256;
const KEY: [u8; 4] = [0; 4];

/// A TCP connection of the endpoint itself, to a controller or broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// Packets of one interface are withheld as long as this lives. Several on one interface make a union.
#[derive(Debug)]
pub struct Steal {
    loaded: Loaded,
    _link: OwnedFd,
}

/// The program and its maps, attached to nothing.
#[derive(Debug)]
struct Loaded {
    /// One entry: the active filter, or nothing.
    filters: Map,
    exempt: Map,
    program: OwnedFd,
    #[cfg(test)]
    states: Map,
}

impl Steal {
    /// Attaches to the interface in the current network namespace, stealing nothing yet. Packets of `exempt` connections
    /// are never withheld.
    pub fn attach(ifindex: u32, exempt: &[Connection]) -> io::Result<Steal> {
        let loaded = Loaded::new()?;
        for connection in exempt {
            loaded.exempt(connection)?;
        }
        let link = sys::attach(&loaded.program, ifindex)
            .map_err(|error| explained(error, "cannot attach to the interface's ingress"))?;
        Ok(Steal { loaded, _link: link })
    }

    /// One more connection that is never withheld, for instance to a broker that came back.
    pub fn exempt(&mut self, connection: &Connection) -> io::Result<()> {
        self.loaded.exempt(connection)
    }

    /// From the return on, packets accepted by `filter` are withheld until `until` (CLOCK_MONOTONIC ns, inclusive;
    /// `u64::MAX` for no end). Each packet meets the old filter or the new one, never something between. After an error
    /// the old one stays. Waits some milliseconds (RCU) until no packet is with the old one.
    pub fn set(&mut self, filter: &Filter, until: u64) -> io::Result<()> {
        self.loaded.set(filter, until)
    }

    /// From the return on nothing is withheld. Waits as [`Steal::set`] does.
    pub fn clear(&mut self) -> io::Result<()> {
        self.loaded.filters.delete(&KEY)
    }
}

impl Loaded {
    fn new() -> io::Result<Loaded> {
        let map = |kind, key, value: usize, entries, example: Option<&Map>| {
            Map::create(kind, key, value as u32, entries, example)
                .map_err(|error| explained(error, "cannot make a map of the kernel"))
        };
        let example = map(MapKind::Array, 4, filter::LEN, 1, None)?;
        let filters = map(MapKind::ArrayOfMaps, 4, 4, 1, Some(&example))?;
        // Four entries a connection, see `exempt::keys`.
        let exempt = map(MapKind::Hash, exempt::KEY_LEN as u32, 4, 4 * EXEMPT_MAX as u32, None)?;
        let states = map(MapKind::PerCpuArray, 4, state::LEN as usize, 1, None)?;
        let maps = Maps {
            states: states.fd.as_raw_fd(),
            filters: filters.fd.as_raw_fd(),
            exempt: exempt.fd.as_raw_fd(),
        };
        let (code, step) = program::build(maps);
        let types = sys::load_btf(&btf::build())
            .map_err(|error| explained(error, "the kernel refused the program's type information"))?;
        let functions = [[0, btf::MAIN], [step, btf::STEP]];
        let program = sys::load_program(&code, &types, &functions)
            .map_err(|error| explained(error, "cannot load the program that withholds packets"))?;
        Ok(Loaded {
            filters,
            exempt,
            program,
            #[cfg(test)]
            states,
        })
    }

    fn exempt(&self, connection: &Connection) -> io::Result<()> {
        for key in exempt::keys(connection) {
            self.exempt.update(&key, &1u32.to_ne_bytes())?;
        }
        Ok(())
    }

    /// A new map for each filter, so that the exchange is one pointer.
    fn set(&self, filter: &Filter, until: u64) -> io::Result<()> {
        let map = Map::create(MapKind::Array, 4, filter::LEN as u32, 1, None)?;
        map.update(&KEY, &value(filter.ops(), until))?;
        self.filters.update_map(&KEY, &map)
    }
}

/// A filter as the kernel program reads it, see [`program::filter`].
fn value(ops: &[Op], until: u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(filter::LEN);
    let stack_used = ops.iter().any(|op| (Code::Load8..=Code::Store64).contains(&op.code));
    value.extend(until.to_ne_bytes());
    value.extend(u64::from(stack_used).to_ne_bytes());
    for op in ops {
        value.extend([op.code as u8, op.dst, op.src, op.flags]);
        value.extend(op.off.to_ne_bytes());
        value.extend(op.imm.to_ne_bytes());
    }
    value.resize(filter::LEN, 0);
    value
}

/// Whether this process can withhold packets. The error says what is missing. Nothing is attached.
pub fn check() -> io::Result<()> {
    let loaded = Loaded::new()?;
    // No interface has number 0. A kernel that knows the hook says so, an older one does not get that far.
    match sys::attach(&loaded.program, 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let text = "the kernel has no TCX ingress hook, which came with Linux 6.6";
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
        Err(error) => Err(explained(error, "cannot attach to an interface's ingress")),
        Ok(_) => Ok(()),
    }
}

/// Capabilities by bit number. CAP_SYS_ADMIN (21) stands for each of them.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];

/// Says what was tried and which capabilities are missing, if any; then the error is one of permission.
fn explained(error: io::Error, what: &str) -> io::Error {
    let missing = missing_capabilities();
    let (kind, hint) = if !missing.is_empty() {
        (io::ErrorKind::PermissionDenied, format!("; missing: {}", missing.join(", ")))
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        (error.kind(), "; the capabilities must be those of the initial user namespace".to_owned())
    } else {
        (error.kind(), String::new())
    };
    io::Error::new(kind, format!("{what}: {error}{hint}"))
}

fn missing_capabilities() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return vec![];
    };
    let has = |bit: u32| effective & (1 << bit | 1 << 21) != 0;
    CAPABILITIES.iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| *name).collect()
}

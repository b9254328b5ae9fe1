//! MREAD and MWRITE: the mapped cells are produced on demand (spec `vmem.md`). A range may touch many regions; each puts
//! its overlap into a zeroed answer, so holes read as zero wherever the range starts.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use pktlab::vmem::{extension, socket as cell, system};
use pktlab::wire::{Family, Proto, SocketId, Ticks};

use super::Session;
use super::net::Net;
use super::slot::Slot;

/// What the operating system does to the fields of a raw IPv4 header: total length and checksum are always written,
/// identification and source address when they are zero (spec `raw.md` §3).
const IP4HDRMOD: [u8; 12] = [0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0];

/// The bytes of one request, seen as a window on the address space.
struct Window {
    start: u32,
    bytes: Vec<u8>,
}

impl Window {
    /// Puts a region's bytes at `address` as far as they fall inside.
    fn put(&mut self, address: u32, region: &[u8]) {
        let (from, to) = overlap(self.start, self.bytes.len(), address, region.len());
        if from < to {
            let (own, other) = (from - u64::from(self.start), from - u64::from(address));
            let len = (to - from) as usize;
            self.bytes[own as usize..][..len].copy_from_slice(&region[other as usize..][..len]);
        }
    }

    fn touches(&self, address: u32, len: usize) -> bool {
        let (from, to) = overlap(self.start, self.bytes.len(), address, len);
        from < to
    }
}

fn overlap(start: u32, len: usize, address: u32, region: usize) -> (u64, u64) {
    let (start, address) = (u64::from(start), u64::from(address));
    (start.max(address), (start + len as u64).min(address + region as u64))
}

impl Session {
    pub(super) fn memory_read(&self, addr: u32, len: u16, now: Ticks) -> Bytes {
        let mut window = Window { start: addr, bytes: vec![0; usize::from(len)] };
        if window.touches(0x1000_0000, 0x0004_0010) {
            self.read_system(&mut window, now);
        }
        for id in blocks(addr, usize::from(len)) {
            if let Some(slot) = &self.slots[usize::from(id)] {
                window.put(cell::block(id), &block(slot));
            }
        }
        window.bytes.into()
    }

    /// Brings counters up to date that a read is about to show.
    pub(super) fn refresh(&mut self, addr: u32, len: u16, net: &mut impl Net) {
        for id in blocks(addr, usize::from(len)) {
            self.count_losses(id, net);
        }
    }

    fn read_system(&self, window: &mut Window, now: Ticks) {
        let config = &self.config;
        let v4 = config.addresses.iter().filter(|(address, _)| address.is_ipv4()).take(system::ADDRESSES);
        let v6 = config.addresses.iter().filter(|(address, _)| address.is_ipv6()).take(system::ADDRESSES);
        window.put(system::IP4NO, &[v4.clone().count().min(255) as u8]);
        window.put(system::IP6NO, &[v6.clone().count().min(255) as u8]);
        for (index, (address, bits)) in v4.enumerate() {
            if let IpAddr::V4(address) = address {
                let netmask = u32::MAX.checked_shl(32 - u32::from((*bits).min(32))).unwrap_or(0);
                let at = system::IP4LS + 8 * index as u32;
                window.put(at, &address.octets());
                window.put(at + 4, &netmask.to_be_bytes());
            }
        }
        for (index, (address, _)) in v6.enumerate() {
            window.put(system::IP6LS + 16 * index as u32, &padded(*address));
        }
        let mut protocols = 0;
        if config.tcp {
            protocols |= system::TRANS_TCP;
        }
        if config.udp {
            protocols |= system::TRANS_UDP;
        }
        if config.raw {
            protocols |= system::TRANS_RAW;
        }
        window.put(system::TRANSSUP, &protocols.to_be_bytes());
        window.put(system::BUFMAX_COPY, &config.buf_max.to_be_bytes());
        window.put(system::BUFMAX, &config.buf_max.to_be_bytes());
        window.put(system::BUFUSED, &u32::try_from(self.buf_used).unwrap_or(u32::MAX).to_be_bytes());
        window.put(system::TIME, &now.to_be_bytes());
        let (mut v4, mut v6) = (0u8, 0u8);
        for address in &config.resolvers {
            let (count, list, len) = match address {
                IpAddr::V4(_) => (&mut v4, system::IP4DNSLS, 4),
                IpAddr::V6(_) => (&mut v6, system::IP6DNSLS, 16),
            };
            if usize::from(*count) < system::RESOLVERS {
                window.put(list + len * u32::from(*count), &padded(*address)[..len as usize]);
                *count += 1;
            }
        }
        window.put(system::IP4DNSNO, &[v4]);
        window.put(system::IP6DNSNO, &[v6]);
        // Packets over IPv6 go out as they are, so the cells of IP6HDRMOD are zero.
        window.put(system::IP4HDRMOD, &IP4HDRMOD);
        let host = config.host_id.as_bytes();
        window.put(system::HOSTID, &host[..host.len().min(system::HOSTID_LEN - 1)]);
        window.put(extension::CELL, &extension::MAGIC);
        window.put(extension::CELL + 4, &config.extensions.to_be_bytes());
        window.put(extension::ENABLED, &self.enabled.to_be_bytes());
    }

    /// Writes what is writable and ignores the rest; may release held notifications.
    pub(super) fn memory_write(&mut self, addr: u32, data: &[u8], net: &mut impl Net) {
        let mut enabled = self.enabled.to_be_bytes();
        if overlay(&mut enabled, extension::ENABLED, addr, data) {
            self.enabled = u32::from_be_bytes(enabled) & self.config.extensions;
        }
        for id in blocks(addr, data.len()) {
            let Some(slot) = self.slots[usize::from(id)].as_mut() else { continue };
            if slot.state.is_error() {
                continue;
            }
            let base = cell::block(id);
            let mut rbufsz = slot.rbufsz.to_be_bytes();
            overlay(&mut rbufsz, base + cell::RBUFSZ, addr, data);
            slot.rbufsz = u32::from_be_bytes(rbufsz);
            let mut error = slot.send_error.to_be_bytes();
            overlay(&mut error, base + cell::NSENDERR, addr, data);
            slot.send_error = i8::from_be_bytes(error);
            let mut tag = slot.send_error_tag.to_be_bytes();
            overlay(&mut tag, base + cell::NSENDERRTAG, addr, data);
            slot.send_error_tag = u16::from_be_bytes(tag);
            overlay(&mut slot.scratch, base + cell::CTFL, addr, data);
            let mut mask = slot.mask.to_be_bytes();
            if overlay(&mut mask, base + cell::NOTIFMASK, addr, data) {
                slot.mask = u16::from_be_bytes(mask);
                self.release_held(id);
            }
            self.watch(id, net);
        }
    }
}

/// Ids whose blocks overlap the range.
fn blocks(addr: u32, len: usize) -> impl Iterator<Item = SocketId> {
    let (from, to) = overlap(addr, len, cell::BASE, 256 * cell::BLOCK as usize);
    let base = u64::from(cell::BASE);
    let block = u64::from(cell::BLOCK);
    let ids = if from < to { (from - base) / block..(to - base).div_ceil(block) } else { 0..0 };
    ids.map(|id| id as SocketId)
}

/// Copies the part of `data` (a write at `addr`) that falls on a field at `address`; true when any byte did.
fn overlay(field: &mut [u8], address: u32, addr: u32, data: &[u8]) -> bool {
    let mut window = Window { start: address, bytes: field.to_vec() };
    if !window.touches(addr, data.len()) {
        return false;
    }
    window.put(addr, data);
    field.copy_from_slice(&window.bytes);
    true
}

fn padded(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    bytes
}

fn block(slot: &Slot) -> [u8; cell::BLOCK as usize] {
    let mut bytes = [0; cell::BLOCK as usize];
    let mut put = |offset: u32, value: &[u8]| {
        bytes[offset as usize..][..value.len()].copy_from_slice(value);
    };
    put(cell::FAMILY, &[if slot.family == Family::V4 { 4 } else { 6 }]);
    put(
        cell::PROTO,
        &[match slot.proto {
            Proto::Raw => 0,
            Proto::Tcp => 6,
            Proto::Udp => 0x11,
        }],
    );
    put(cell::STAT, &[slot.state.to_octet()]);
    put(cell::LADDR, &padded(slot.local.ip()));
    put(cell::LPORT, &slot.local.port().to_be_bytes());
    if let Some(remote) = slot.remote.as_ref().map(SocketAddr::ip) {
        put(cell::RADDR, &padded(remote));
    }
    put(cell::RPORT, &slot.remote.map_or(0, |remote| remote.port()).to_be_bytes());
    put(cell::RBUFSZ, &slot.rbufsz.to_be_bytes());
    put(cell::RBUFUSED, &u32::try_from(slot.rbufused).unwrap_or(u32::MAX).to_be_bytes());
    put(cell::DROP_BYTES, &slot.drop_bytes.to_be_bytes());
    put(cell::DROP_UNITS, &slot.drop_units.to_be_bytes());
    put(cell::FILTER_FAULTS, &slot.filter_faults.to_be_bytes());
    put(cell::NSENDERR, &slot.send_error.to_be_bytes());
    put(cell::NSENDERRTAG, &slot.send_error_tag.to_be_bytes());
    put(cell::NOTIFMASK, &slot.mask.to_be_bytes());
    put(cell::CTFL, &slot.scratch);
    bytes
}

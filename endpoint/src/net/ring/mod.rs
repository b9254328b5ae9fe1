//! A capture ring: an `AF_PACKET` socket whose packets the kernel writes into shared blocks (TPACKET_V3). Packets begin at
//! the network header, and only those that come in are seen (spec `raw.md` §4).

mod sys;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use pktlab::wire::Ticks;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::sys::{get, set};

/// Bytes of one block: the longest IP packet with its headers must fit.
const BLOCK: usize = 128 * 1024;
/// Fewer blocks would lose packets while one of them is being read.
const BLOCKS_MIN: usize = 8;
const BLOCKS_MAX: usize = 512;
/// A block that is not full is handed over after this time, ms.
const RETIRE: u32 = 1;

/// Field offsets of `tpacket_block_desc`.
mod block {
    pub const PACKETS: usize = 12;
    pub const FIRST: usize = 16;
}

/// Field offsets of `tpacket3_hdr`, and of the `sockaddr_ll` behind it.
mod head {
    pub const NEXT: usize = 0;
    pub const SECONDS: usize = 4;
    pub const NANOSECONDS: usize = 8;
    pub const CAPTURED: usize = 12;
    pub const LENGTH: usize = 16;
    pub const NET: usize = 26;
    pub const PROTOCOL: usize = 48 + 2;
    pub const INTERFACE: usize = 48 + 4;
    pub const KIND: usize = 48 + 10;
}

/// A packet in the ring.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// From the network header on.
    pub data: &'a [u8],
    /// Length on the wire, bytes.
    pub len: u32,
    /// When the kernel got it, ns since the epoch.
    pub time: Ticks,
    pub ethertype: u16,
    pub ifindex: u32,
    /// `PACKET_HOST`, `PACKET_BROADCAST` …
    pub kind: u8,
}

/// See the module text.
pub struct Ring {
    map: sys::Map,
    /// The block to read next.
    current: usize,
    /// Where to go on in it: packets left and the offset of the next one.
    inside: Option<(u32, usize)>,
}

impl Ring {
    /// Captures what arrives on an interface in about `bytes` of kernel memory.
    pub fn new(ifindex: u32, bytes: usize) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let fd = socket.as_fd();
        set(
            fd,
            (libc::SOL_PACKET, libc::PACKET_VERSION),
            &(libc::tpacket_versions::TPACKET_V3 as libc::c_int),
        )?;
        set(fd, (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING), &1)?;
        // Packets then carry the time at which they entered the stack and not that of the copy.
        set(fd, (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS), &1)?;
        let count = (bytes / BLOCK).clamp(BLOCKS_MIN, BLOCKS_MAX);
        let frame = 2048;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK as u32,
            tp_block_nr: count as u32,
            tp_frame_size: frame,
            tp_frame_nr: (BLOCK * count) as u32 / frame,
            tp_retire_blk_tov: RETIRE,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(fd, (libc::SOL_PACKET, libc::PACKET_RX_RING), &request)?;
        let map = sys::Map::new(socket, BLOCK, count)?;
        // Last: nothing is received before the ring stands.
        sys::bind(map.as_fd(), ifindex)?;
        Ok(Self { map, current: 0, inside: None })
    }

    /// Shows the next packets to `take`, in order of arrival, until it returns false or none is left; returns whether some
    /// may be left.
    pub fn read(&mut self, mut take: impl FnMut(Captured<'_>) -> bool) -> bool {
        loop {
            let Some(bytes) = self.map.ready(self.current) else { return false };
            let (mut left, mut at) = self
                .inside
                .unwrap_or_else(|| (u32_at(bytes, block::PACKETS), u32_at(bytes, block::FIRST) as usize));
            while left > 0 {
                let next = u32_at(bytes, at + head::NEXT) as usize;
                let wanted = packet(bytes, at).is_none_or(&mut take);
                left -= 1;
                at += next;
                if !wanted {
                    self.inside = Some((left, at));
                    return true;
                }
            }
            self.inside = None;
            self.map.release(self.current);
            self.current = (self.current + 1) % self.map.count();
        }
    }

    /// Packets lost since the last call because the ring was full.
    pub fn losses(&self) -> u32 {
        let stats = get::<libc::tpacket_stats_v3>(self.as_fd(), (libc::SOL_PACKET, libc::PACKET_STATISTICS));
        stats.map_or(0, |stats| stats.tp_drops)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

fn packet(bytes: &[u8], at: usize) -> Option<Captured<'_>> {
    let net = at + usize::from(u16_at(bytes, at + head::NET));
    let captured = u32_at(bytes, at + head::CAPTURED) as usize;
    let seconds = Ticks::from(u32_at(bytes, at + head::SECONDS));
    Some(Captured {
        data: bytes.get(net..net.checked_add(captured)?)?,
        len: u32_at(bytes, at + head::LENGTH),
        time: seconds * 1_000_000_000 + Ticks::from(u32_at(bytes, at + head::NANOSECONDS)),
        ethertype: u16::from_be(u16_at(bytes, at + head::PROTOCOL)),
        ifindex: u32_at(bytes, at + head::INTERFACE),
        kind: bytes.get(at + head::KIND).copied()?,
    })
}

/// The kernel's numbers are in host order; one outside of the block reads as 0.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_ne_bytes(*four))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |two| u16::from_ne_bytes(*two))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn offsets_are_those_of_the_system() {
        use std::mem::offset_of;
        assert_eq!(head::NEXT, offset_of!(libc::tpacket3_hdr, tp_next_offset));
        assert_eq!(head::SECONDS, offset_of!(libc::tpacket3_hdr, tp_sec));
        assert_eq!(head::NANOSECONDS, offset_of!(libc::tpacket3_hdr, tp_nsec));
        assert_eq!(head::CAPTURED, offset_of!(libc::tpacket3_hdr, tp_snaplen));
        assert_eq!(head::LENGTH, offset_of!(libc::tpacket3_hdr, tp_len));
        assert_eq!(head::NET, offset_of!(libc::tpacket3_hdr, tp_net));
        let address = size_of::<libc::tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
        assert_eq!(head::PROTOCOL, address + offset_of!(libc::sockaddr_ll, sll_protocol));
        assert_eq!(head::INTERFACE, address + offset_of!(libc::sockaddr_ll, sll_ifindex));
        assert_eq!(head::KIND, address + offset_of!(libc::sockaddr_ll, sll_pkttype));
        let inner = offset_of!(libc::tpacket_block_desc, hdr);
        assert_eq!(block::PACKETS, inner + offset_of!(libc::tpacket_hdr_v1, num_pkts));
        assert_eq!(block::FIRST, inner + offset_of!(libc::tpacket_hdr_v1, offset_to_first_pkt));
    }

    /// 5,000 datagrams over loopback, read in pieces of 7.
    #[test]
    fn packets_come_in_order_with_their_time_and_none_is_lost() {
        let ring = match Ring::new(1, 4 << 20) {
            Ok(ring) => ring,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                println!("skipped: no permission for packet sockets here");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let mut ring = ring;
        let sink = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let port = sink.local_addr().expect("address").port();
        let source = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let before = crate::net::now();
        let mut found: Vec<u32> = Vec::new();
        let mut last = before;
        let started = Instant::now();
        for number in 0..5_000u32 {
            source.send_to(&number.to_be_bytes(), ("127.0.0.1", port)).expect("sent");
            if number % 500 < 499 {
                continue;
            }
            while (found.len() as u32) <= number && started.elapsed() < Duration::from_secs(20) {
                let mut turn = 7;
                ring.read(|packet| {
                    turn -= 1;
                    let ports = packet.data.get(22..24).map(|b| u16::from_be_bytes([b[0], b[1]]));
                    if packet.ethertype == 0x0800 && packet.data[9] == 17 && ports == Some(port) {
                        assert_eq!(packet.data.len(), 32);
                        assert_eq!((packet.len, packet.ifindex), (32, 1));
                        assert!(packet.time >= last && packet.time <= crate::net::now());
                        last = packet.time;
                        found.push(u32_at(packet.data, 28).to_be());
                    }
                    turn > 0
                });
            }
        }
        assert_eq!(found, (0..5_000).collect::<Vec<_>>());
        assert_eq!(ring.losses(), 0);
    }
}

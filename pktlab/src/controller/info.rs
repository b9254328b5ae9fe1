//! What an endpoint says about itself (spec `vmem.md` §3), and the extensions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::raw::HeaderChanges;
use super::{Controller, Error};
use crate::vmem::{extension, system};
use crate::wire::{Message, Proto};

/// Extensions this controller uses.
const WANTED: u32 = extension::BATCHED_RECORDS
    | extension::NOPT
    | extension::NERR
    | extension::LISTEN
    | extension::IPV6
    | extension::NWAIT
    | extension::STAMPS;
/// Bytes read at once: TIME and BUFMAX; the counts and lists of resolvers, then both HDRMODs.
const CLOCK_LEN: u16 = 0x14;
const DNS_LEN: u16 = 0x218;

/// An endpoint's self-description, read once when the session starts.
#[derive(Clone, Debug, Default)]
pub struct EndpointInfo {
    /// The operator's name for the endpoint, may be empty.
    pub host_id: String,
    /// Buffer budget in bytes that queued NSENDs and unsent NDATAs share.
    pub buffer: u32,
    /// Exported addresses with their netmasks, most preferred first.
    pub ipv4: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Exported addresses, most preferred first.
    pub ipv6: Vec<Ipv6Addr>,
    /// Exported resolvers, IPv4 ones first.
    pub resolvers: Vec<IpAddr>,
    /// Bit 0 raw, bit 1 TCP, bit 2 UDP; see [`EndpointInfo::supports`].
    pub transports: u32,
    /// What the endpoint's system changes in the headers of raw packets.
    pub header_changes: HeaderChanges,
    /// Whether the endpoint has the extension cell, so is not the reference implementation.
    pub extended: bool,
    /// [`extension`] bits enabled for this session.
    pub extensions: u32,
}

impl EndpointInfo {
    /// Whether the endpoint exports addresses of this family.
    pub fn exports(&self, addr: &IpAddr) -> bool {
        match addr {
            IpAddr::V4(_) => !self.ipv4.is_empty(),
            IpAddr::V6(_) => !self.ipv6.is_empty(),
        }
    }

    /// Whether the operator enabled this protocol.
    pub fn supports(&self, proto: Proto) -> bool {
        let bit = match proto {
            Proto::Raw => system::TRANS_RAW,
            Proto::Tcp => system::TRANS_TCP,
            Proto::Udp => system::TRANS_UDP,
        };
        self.transports & bit != 0
    }
}

/// START and the reads go out together: requests are handled strictly in order, so the reads meet the RUN phase, and
/// set-up costs one round trip (two when there are extensions to enable).
pub(super) async fn set_up(controller: &Controller) -> Result<(), Error> {
    let start = controller.request(&Message::Start)?;
    let counts = controller.mread(system::IP4NO, 6);
    let ipv4 = controller.mread(system::IP4LS, 0x800);
    let ipv6 = controller.mread(system::IP6LS, 0x1000);
    let clock = controller.mread(system::TIME, CLOCK_LEN);
    let dns = controller.mread(system::IP4DNSNO, DNS_LEN);
    let host_id = controller.mread(system::HOSTID, 0x100);
    let cell = controller.mread(extension::CELL, extension::LEN);

    start.success().await?;
    let counts = counts.await?;
    let (ipv4, ipv6, clock) = (ipv4.await?, ipv6.await?, clock.await?);
    controller.shared.set_clock(u64::from(be32(&clock, 0)) << 32 | u64::from(be32(&clock, 4)));
    let dns = dns.await?;
    let host_id = host_id.await?;
    let mut info = EndpointInfo {
        host_id: text(&host_id),
        buffer: be32(&clock, 0x10),
        ipv4: take(&ipv4, 8, counts[0]).map(|e| (v4(e), v4(&e[4..]))).collect(),
        ipv6: take(&ipv6, 16, counts[1]).map(v6).collect(),
        resolvers: take(&dns[0x10..0x50], 4, dns[0])
            .map(|e| IpAddr::V4(v4(e)))
            .chain(take(&dns[0x100..0x200], 16, dns[1]).map(|e| IpAddr::V6(v6(e))))
            .collect(),
        transports: be32(&counts, 2),
        header_changes: HeaderChanges::read(&dns[0x200..]),
        extended: false,
        extensions: 0,
    };
    let cell = cell.await?;
    if cell.starts_with(&extension::MAGIC) {
        info.extended = true;
        info.extensions = be32(&cell, 4) & WANTED;
        let enabled = Bytes::copy_from_slice(&info.extensions.to_be_bytes());
        controller.mwrite(extension::ENABLED, enabled).await?;
    }
    tracing::debug!(?info, "endpoint session started");
    controller.shared.started(info);
    Ok(())
}

/// The first `count` entries of `size` bytes that `list` really holds.
fn take(list: &[u8], size: usize, count: u8) -> impl Iterator<Item = &[u8]> {
    list.chunks_exact(size).take(usize::from(count))
}

fn v4(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

fn v6(bytes: &[u8]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[..16]);
    octets.into()
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Zero-padded text; characters that could disturb a terminal are replaced.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

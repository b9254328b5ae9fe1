//! Limitation fields (spec `certificates.md` §4), read strictly as §4.1 recommends.

use std::net::{IpAddr, Ipv6Addr};

use super::certificate::CertError;

/// At most `count` bytes or packets in any window of `window` ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    pub count: u64,
    pub window: u64,
}

/// An address range, host bits kept as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub addr: IpAddr,
    pub prefix: u8,
}

impl Network {
    /// Is `ip` in this range? Host bits of the range are ignored; `0.0.0.0/0` holds every IPv4 address.
    pub fn contains(&self, ip: &IpAddr) -> bool {
        match (self.addr, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                u32::from(net) & mask == u32::from(*ip) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = self.mask6();
                u128::from(net) & mask == u128::from(*ip) & mask
            }
            _ => false,
        }
    }

    fn mask6(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// Address and netmask as the vectors and the wire have them, 4 or 16 bytes each.
    pub fn octets(&self) -> (Vec<u8>, Vec<u8>) {
        match self.addr {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                (ip.octets().to_vec(), mask.to_be_bytes().to_vec())
            }
            IpAddr::V6(ip) => (ip.octets().to_vec(), Ipv6Addr::from(self.mask6()).octets().to_vec()),
        }
    }
}

/// What one privilege certificate limits; `None` or empty: it does not limit that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Digests of monitors the controller must supply, in written order.
    pub monitors: Vec<[u8; 32]>,
    pub max_num_priority: Option<u64>,
    pub max_socket_count: Option<u64>,
    /// ns.
    pub max_exp_period: Option<u64>,
    pub max_send_byte: Option<u64>,
    pub max_recv_byte: Option<u64>,
    pub max_send_pkt: Option<u64>,
    pub max_recv_pkt: Option<u64>,
    pub max_burst_rate_byte: Vec<Burst>,
    pub max_burst_rate_pkt: Vec<Burst>,
    /// `None`: any destination.
    pub valid_dest: Option<Vec<Network>>,
    pub src_ip_spoofing: Option<bool>,
    /// Fields this implementation does not know: name without `*`, value, whether it was marked optional.
    pub unknown: Vec<(String, String, bool)>,
}

impl Limits {
    /// Reads well-formed pairs. `*name` of a known name is treated as `name`.
    pub(super) fn parse(pairs: &[(String, String)]) -> Result<Limits, CertError> {
        let mut limits = Limits::default();
        for (marked, value) in pairs {
            let name = marked.strip_prefix('*').unwrap_or(marked);
            let number = |error| number(value).map(Some).ok_or(error);
            match name {
                "monitor" => limits.monitors = digests(value).ok_or(CertError::BadMonitorDigests)?,
                "max_num_priority" => limits.max_num_priority = number(CertError::BadMaxNumPriority)?,
                "max_socket_count" => limits.max_socket_count = number(CertError::BadMaxSocketCount)?,
                "max_exp_period" => limits.max_exp_period = number(CertError::BadMaxExpPeriod)?,
                "max_send_byte" => limits.max_send_byte = number(CertError::BadMaxSendByte)?,
                "max_recv_byte" => limits.max_recv_byte = number(CertError::BadMaxRecvByte)?,
                "max_send_pkt" => limits.max_send_pkt = number(CertError::BadMaxSendPkt)?,
                "max_recv_pkt" => limits.max_recv_pkt = number(CertError::BadMaxRecvPkt)?,
                "max_burst_rate_byte" => {
                    limits.max_burst_rate_byte = bursts(value).ok_or(CertError::BadMaxBurstRate)?;
                }
                "max_burst_rate_pkt" => {
                    limits.max_burst_rate_pkt = bursts(value).ok_or(CertError::BadMaxBurstRate)?;
                }
                "valid_dest" => {
                    limits.valid_dest = Some(networks(value).ok_or(CertError::BadValidDest)?);
                }
                "src_ip_spoofing" => {
                    limits.src_ip_spoofing = match value.as_str() {
                        "0" => Some(false),
                        "1" => Some(true),
                        _ => return Err(CertError::BadSrcIpSpoofing),
                    }
                }
                _ => limits.unknown.push((name.to_owned(), value.clone(), marked.starts_with('*'))),
            }
        }
        Ok(limits)
    }
}

/// 1–20 digits, no more than 2^64−1.
fn number(text: &str) -> Option<u64> {
    let digits = (1..=20).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn digests(text: &str) -> Option<Vec<[u8; 32]>> {
    let bytes = hex::decode(text).ok()?;
    let (digests, rest) = bytes.as_chunks::<32>();
    rest.is_empty().then(|| digests.to_vec())
}

fn bursts(text: &str) -> Option<Vec<Burst>> {
    text.split(',')
        .map(|entry| {
            let (count, window) = entry.split_once('/')?;
            let burst = Burst { count: number(count)?, window: number(window)? };
            (burst.window > 0).then_some(burst)
        })
        .collect()
}

fn networks(text: &str) -> Option<Vec<Network>> {
    text.split(',')
        .map(|entry| {
            let (addr, prefix) = match entry.split_once('/') {
                Some((addr, prefix)) => (addr, Some(number(prefix)?)),
                None => (entry, None),
            };
            let addr: IpAddr = addr.parse().ok()?;
            let full = if addr.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.unwrap_or(full);
            (prefix <= full).then_some(Network { addr, prefix: prefix as u8 })
        })
        .collect()
}

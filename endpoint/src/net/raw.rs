//! Raw sockets: one that sends packets with their headers, and a capture on the interface (spec `raw.md`).

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use pktlab::wire::Ticks;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::addresses::interface_of;
use super::open::errno_of;
use super::ring::Ring;
use crate::filter::{self, Filter, Verdict};
use crate::session::{Errno, Losses, OpenFault, Packet};

/// IPPROTO_RAW: the header comes with the packet, and nothing is received.
const WITH_HEADER: i32 = 255;

/// A socket to send from `local`, and the interface that owns that address.
pub fn open(local: IpAddr) -> Result<(OwnedFd, u32), OpenFault> {
    let ifindex = interface_of(local).ok_or(OpenFault::Bind(Errno::ADDRNOTAVAIL))?;
    let domain = if local.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let kind = Type::RAW.nonblocking().cloexec();
    let socket = Socket::new(domain, kind, Some(Protocol::from(WITH_HEADER)))
        .map_err(|error| OpenFault::Socket(errno_of(&error)))?;
    let local = SockAddr::from(std::net::SocketAddr::new(local, 0));
    socket.bind(&local).map_err(|error| OpenFault::Bind(errno_of(&error)))?;
    Ok((socket.into(), ifindex))
}

/// What a raw socket captures.
pub struct Capture {
    ring: Ring,
    filter: Filter,
    /// Packets that were in the ring before the filter are not for it.
    since: Ticks,
    faults: u32,
}

impl Capture {
    pub fn new(ifindex: u32, bytes: usize, filter: Filter) -> std::io::Result<Self> {
        Ok(Self { ring: Ring::new(ifindex, bytes)?, filter, since: 0, faults: 0 })
    }

    pub fn replace(&mut self, filter: Filter, now: Ticks) {
        self.filter = filter;
        self.since = now;
    }

    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The next packet the filter accepts.
    pub fn next(&mut self) -> Option<Packet> {
        let mut found = None;
        let (filter, since, faults) = (&self.filter, self.since, &mut self.faults);
        self.ring.read(|captured| {
            if captured.time < since {
                return true;
            }
            let packet = filter::Packet {
                data: captured.data,
                len: captured.len,
                ethertype: captured.ethertype,
                ifindex: captured.ifindex,
                pkt_type: captured.kind,
            };
            match filter.run(&packet) {
                Verdict::Ignore => {}
                Verdict::Fault(_) => *faults = faults.saturating_add(1),
                Verdict::Deliver(len) => {
                    let data = &captured.data[..captured.data.len().min(len as usize)];
                    found = Some(Packet { data: Bytes::copy_from_slice(data), time: captured.time });
                }
            }
            found.is_none()
        });
        found
    }

    pub fn losses(&mut self) -> Losses {
        Losses { kernel: self.ring.losses(), faults: std::mem::take(&mut self.faults) }
    }
}

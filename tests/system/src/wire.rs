//! What arrives at a host of the laboratory, seen by the kernel: a packet socket of the test itself.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netlab::Lab;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

use crate::endpoint::SOON;
use crate::packet::{Parsed, parse};

/// A packet that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The kernel's receive stamp: CLOCK_REALTIME, ns, one clock for all hosts of the laboratory.
    pub time: u64,
    /// From the network header on.
    pub data: Vec<u8>,
}

/// Collects what arrives at a host since it was made.
pub struct Wire {
    socket: OwnedFd,
    /// Everything so far, in order.
    pub seen: Vec<Seen>,
}

impl Wire {
    /// Watches all devices of a host.
    pub fn tap(lab: &Lab, host: &str) -> Result<Wire> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let open = || socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll);
        let socket = lab.inside(host, open)?.context("cannot open a packet socket")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        // Best effort: in a user namespace the plain limit holds.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20));
        Ok(Wire { socket, seen: Vec::new() })
    }

    /// Takes what has arrived.
    pub fn look(&mut self) -> Result<()> {
        let mut buffer = vec![0; 65536];
        loop {
            let mut control = nix::cmsg_space!(TimeSpec);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let got = recvmsg::<LinkAddr>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::empty(),
            );
            let (length, time, outgoing) = match got {
                Err(Errno::EAGAIN) => return Ok(()),
                // Told once when a device goes down.
                Err(Errno::ENETDOWN) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(message) => {
                    let stamp = message.cmsgs()?.find_map(|item| match item {
                        ControlMessageOwned::ScmTimestampns(time) => Some(time),
                        _ => None,
                    });
                    let stamp = stamp.context("a packet without stamp")?;
                    let time = stamp.tv_sec() as u64 * 1_000_000_000 + stamp.tv_nsec() as u64;
                    let kind = message.address.map_or(0, |address| address.pkttype());
                    (message.bytes, time, kind == nix::libc::PACKET_OUTGOING)
                }
            };
            if !outgoing {
                self.seen.push(Seen { time, data: buffer[..length].to_vec() });
            }
        }
    }

    /// Those seen so far that are IP packets and of which it holds.
    pub fn matching(&mut self, holds: impl Fn(&Parsed) -> bool) -> Result<Vec<(Seen, Parsed)>> {
        self.look()?;
        let parsed = self.seen.iter().filter_map(|seen| Some((seen.clone(), parse(&seen.data).ok()?)));
        Ok(parsed.filter(|(_, packet)| holds(packet)).collect())
    }

    /// Waits until so many have arrived.
    pub async fn wait(
        &mut self,
        count: usize,
        holds: impl Fn(&Parsed) -> bool,
    ) -> Result<Vec<(Seen, Parsed)>> {
        let start = std::time::Instant::now();
        loop {
            let found = self.matching(&holds)?;
            if found.len() >= count {
                return Ok(found);
            }
            ensure!(
                start.elapsed() < SOON,
                "{} of {count} packets arrived; all: {:#?}",
                found.len(),
                self.seen.iter().map(|seen| parse(&seen.data)).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

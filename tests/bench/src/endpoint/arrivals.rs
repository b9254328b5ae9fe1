//! A UDP socket that is read only at the end: the kernel notes when each datagram arrived.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use pktlab::wire::Ticks;

/// Bytes of a datagram; the first four are its number.
pub const SIZE: usize = 32;
/// Room for all datagrams of a run, bytes.
const BUFFER: usize = 64 << 20;

pub struct Arrivals(UdpSocket);

impl Arrivals {
    pub fn new() -> Result<Arrivals> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            // As much as an ordinary user gets.
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
        }
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        Ok(Arrivals(socket))
    }

    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Arrival times by number, ns since the epoch. An error when one of `count` is missing.
    pub fn take(&self, count: usize) -> Result<Vec<Ticks>> {
        let mut times = vec![0; count];
        let mut buffer = [0; SIZE];
        let mut control = cmsg_space!(TimeSpec);
        loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message =
                match recvmsg::<SockaddrIn>(self.0.as_raw_fd(), &mut slices, Some(&mut control), flags) {
                    Ok(message) => message,
                    Err(Errno::EAGAIN) => break,
                    Err(errno) => return Err(errno.into()),
                };
            let stamp = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(time) => Some(time),
                _ => None,
            });
            let stamp = stamp.context("a datagram without a time stamp")?;
            let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
            let place = times.get_mut(number as usize).context("a datagram of somebody else")?;
            *place = stamp.tv_sec() as Ticks * 1_000_000_000 + stamp.tv_nsec() as Ticks;
        }
        let missing = times.iter().filter(|time| **time == 0).count();
        ensure!(
            missing == 0,
            "{missing} of {count} datagrams are missing; net.core.rmem_max may be too small"
        );
        Ok(times)
    }
}

/// The datagram with this number.
pub fn datagram(number: usize) -> [u8; SIZE] {
    let mut data = [0; SIZE];
    data[..4].copy_from_slice(&(number as u32).to_be_bytes());
    data
}

//! The endpoint's memory map as a controller sees it (spec `vmem.md`): addresses, layouts, socket states, mask bits and
//! the extension cell of `docs/extensions.md`. Numbers only; the endpoint produces the bytes, the controller reads them.
//!
//! All multi-byte cells are big-endian.

use crate::wire::SocketId;

/// System parameters, spec §3. Absolute addresses.
pub mod system {
    /// Number of exported IPv4 addresses, u8.
    pub const IP4NO: u32 = 0x1000_0000;
    /// Number of exported IPv6 addresses, u8.
    pub const IP6NO: u32 = 0x1000_0001;
    /// Enabled protocols, u32 of [`TRANS_RAW`], [`TRANS_TCP`], [`TRANS_UDP`].
    pub const TRANSSUP: u32 = 0x1000_0002;
    /// Copy of [`BUFMAX`], u32.
    pub const BUFMAX_COPY: u32 = 0x1000_0006;
    /// Exported IPv4 addresses: 4 address and 4 netmask bytes each, most preferred first.
    pub const IP4LS: u32 = 0x1000_0100;
    /// Entries of [`IP4LS`] and [`IP6LS`].
    pub const ADDRESSES: usize = 256;
    /// Exported IPv6 addresses, 16 bytes each.
    pub const IP6LS: u32 = 0x1000_1000;
    /// Endpoint clock, u64 ns since the Unix epoch.
    pub const TIME: u32 = 0x1001_0000;
    /// Buffer budget, u32 bytes.
    pub const BUFMAX: u32 = 0x1001_0010;
    /// Buffer budget in use, u32 bytes.
    pub const BUFUSED: u32 = 0x1001_0014;
    /// Number of exported IPv4 resolvers, u8.
    pub const IP4DNSNO: u32 = 0x1002_0000;
    /// Number of exported IPv6 resolvers, u8.
    pub const IP6DNSNO: u32 = 0x1002_0001;
    /// Resolvers, 4 bytes each.
    pub const IP4DNSLS: u32 = 0x1002_0010;
    /// Resolvers, 16 bytes each.
    pub const IP6DNSLS: u32 = 0x1002_0100;
    /// Entries of each resolver list.
    pub const RESOLVERS: usize = 16;
    /// Raw IPv4 header rewriting, 12 × u8.
    pub const IP4HDRMOD: u32 = 0x1002_0200;
    /// Raw IPv6 header rewriting, 8 × u8.
    pub const IP6HDRMOD: u32 = 0x1002_0210;
    /// Configured host id, zero-padded text of at most 255 bytes.
    pub const HOSTID: u32 = 0x1003_0000;
    /// Bytes of [`HOSTID`].
    pub const HOSTID_LEN: usize = 0x100;

    pub const TRANS_RAW: u32 = 1;
    pub const TRANS_TCP: u32 = 2;
    pub const TRANS_UDP: u32 = 4;
}

/// Socket blocks, spec §4. Offsets into a block; [`socket::block`] gives its address.
pub mod socket {
    use super::SocketId;

    pub const BASE: u32 = 0x2000_0000;
    /// Bytes of one block.
    pub const BLOCK: u32 = 0x400;
    pub const FAMILY: u32 = 0x00;
    pub const PROTO: u32 = 0x01;
    /// [`super::SocketState`], i8.
    pub const STAT: u32 = 0x02;
    /// Local address, 16 bytes, IPv4 in the first four.
    pub const LADDR: u32 = 0x10;
    /// Remote address of a TCP connect, 16 bytes.
    pub const RADDR: u32 = 0x20;
    pub const LPORT: u32 = 0x30;
    pub const RPORT: u32 = 0x32;
    /// Receive budget, u32 payload bytes, writable.
    pub const RBUFSZ: u32 = 0x40;
    pub const RBUFUSED: u32 = 0x44;
    /// Dropped bytes, u32 saturating.
    pub const DROP_BYTES: u32 = 0x50;
    /// Dropped or truncated datagrams, u32 saturating.
    pub const DROP_UNITS: u32 = 0x54;
    /// Packets on which the capture filter failed, u32 saturating; not in the reference, which reads 0.
    pub const FILTER_FAULTS: u32 = 0x58;
    /// Last send error, i8, values of [`super::send_error`], writable.
    pub const NSENDERR: u32 = 0x60;
    /// Tag of the failing NSEND, u16, writable.
    pub const NSENDERRTAG: u32 = 0x61;
    /// Hold-back mask, u16 of [`super::mask`] bits, writable.
    pub const NOTIFMASK: u32 = 0x70;
    /// Scratch bytes of the controller, writable.
    pub const CTFL: u32 = 0x100;
    /// Bytes of [`CTFL`].
    pub const CTFL_LEN: usize = 0x80;

    /// Address of the block of socket `id`.
    pub const fn block(id: SocketId) -> u32 {
        BASE + id as u32 * BLOCK
    }
}

/// NOTIFMASK bits, spec `endpoint.md` §6.1: a set bit holds that kind back.
pub mod mask {
    pub const NTAG: u16 = 0x0002;
    pub const NSTAT: u16 = 0x0004;
    pub const NDATA: u16 = 0x0008;
    pub const NDROP: u16 = 0x0010;
    pub const NBLOCK: u16 = 0x0020;
}

/// Values of NSENDERR, spec §4.
pub mod send_error {
    pub const NO_RESOURCES: i8 = 1;
    pub const BAD_PACKET: i8 = 2;
    pub const TIMED_OUT: i8 = 3;
    pub const RESET: i8 = 4;
    pub const UNREACHABLE: i8 = 5;
    pub const WRITE_SHUT: i8 = 6;
    pub const OTHER: i8 = 127;
}

/// The extension cell, `docs/extensions.md` §1.
pub mod extension {
    /// Address of the cell.
    pub const CELL: u32 = 0x1004_0000;
    /// Bytes of the cell: magic, offered u32, enabled u32, zero u32.
    pub const LEN: u16 = 16;
    pub const MAGIC: [u8; 4] = *b"PLX1";
    /// Address of the enabled bits, u32, writable.
    pub const ENABLED: u32 = CELL + 8;
    /// Several messages may share a TLS record, both ways.
    pub const BATCHED_RECORDS: u32 = 1 << 0;
    /// The endpoint understands NOPT.
    pub const NOPT: u32 = 1 << 1;
    /// The endpoint sends NERR.
    pub const NERR: u32 = 1 << 2;
    /// TCP sockets that listen: NOPEN's listen form, NACCPT, NTAKE.
    pub const LISTEN: u32 = 1 << 3;
    /// Raw sockets over IPv6.
    pub const IPV6: u32 = 1 << 4;
    /// The endpoint understands NWAIT and answers with NTIME.
    pub const NWAIT: u32 = 1 << 5;
    /// NDATX and NTAGX in place of NDATA and NTAG of UDP and raw sockets.
    pub const STAMPS: u32 = 1 << 6;
}

/// State of a socket slot, spec `endpoint.md` §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum SocketState {
    Free = 0,
    /// TCP connect in progress.
    Opening = 1,
    Open = 2,
    /// TCP: the peer shut its side, sending is still possible.
    Eof = 3,
    /// TCP: our side is shut, the peer is still open.
    Wfin = 4,
    /// TCP: both directions finished.
    End = 5,
    Refused = -1,
    Reset = -2,
    TimedOut = -3,
    Unreach = -4,
    UnkFault = -128,
}

impl SocketState {
    /// The byte in memory.
    pub const fn to_octet(self) -> u8 {
        self as i8 as u8
    }

    /// `None` for a value the protocol does not define.
    pub const fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet as i8 {
            0 => Self::Free,
            1 => Self::Opening,
            2 => Self::Open,
            3 => Self::Eof,
            4 => Self::Wfin,
            5 => Self::End,
            -1 => Self::Refused,
            -2 => Self::Reset,
            -3 => Self::TimedOut,
            -4 => Self::Unreach,
            -128 => Self::UnkFault,
            _ => return None,
        })
    }

    /// Terminal fault: only NCLOSE leaves it.
    pub const fn is_error(self) -> bool {
        (self as i8) < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_its_octet() {
        let mut known = 0;
        for octet in 0..=255u8 {
            if let Some(state) = SocketState::from_octet(octet) {
                assert_eq!(state.to_octet(), octet);
                assert_eq!(state.is_error(), octet >= 0x80);
                known += 1;
            }
        }
        assert_eq!(known, 11);
    }

    #[test]
    fn blocks_are_contiguous() {
        assert_eq!(socket::block(0), 0x2000_0000);
        assert_eq!(socket::block(255) + socket::BLOCK, 0x2004_0000);
    }
}

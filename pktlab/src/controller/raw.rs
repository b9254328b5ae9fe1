//! Raw sockets: packets in and out as they are, and the filter that says which come in (spec `raw.md`).

use std::net::IpAddr;

use bytes::Bytes;

use super::open::Opening;
use super::socket::{SendHalf, Socket, SocketOptions};
use super::{Controller, Error};
use crate::program::{Program, ProgramKind};
use crate::vmem::extension;
use crate::wire::{Message, NCap, OpenAddress, Proto, Ticks};

/// A time that has passed on every clock and is not "at once".
const LONG_AGO: Ticks = 1;
/// eBPF `r0 = 0; exit`, byte order of the wire: accepts nothing.
const NOTHING: &[u8] = &[0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// What the endpoint's system does to a header field of a raw packet that it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
    /// Sent as given.
    #[default]
    Never,
    Always,
    /// Filled in when given as zero.
    WhenZero,
    /// A code that the protocol does not define.
    Unknown(u8),
}

/// Header rewriting as the endpoint announces it (spec `vmem.md` §3, IP4HDRMOD and IP6HDRMOD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Version, header length, type of service, total length, identification, flags, fragment offset, time to live,
    /// protocol, header checksum, source address, destination address.
    pub ipv4: [Change; 12],
    /// Version, traffic class, flow label, payload length, next header, hop limit, source address, destination address.
    pub ipv6: [Change; 8],
}

impl HeaderChanges {
    /// Indices into [`HeaderChanges::ipv4`] that controllers ask for.
    pub const IPV4_IDENTIFICATION: usize = 4;
    pub const IPV4_CHECKSUM: usize = 9;
    pub const IPV4_SOURCE: usize = 10;
    /// Index into [`HeaderChanges::ipv6`].
    pub const IPV6_SOURCE: usize = 6;

    /// Out of memory from IP4HDRMOD on, 0x18 bytes.
    pub(super) fn read(memory: &[u8]) -> HeaderChanges {
        let change = |at: usize| match memory.get(at).copied().unwrap_or(0) {
            0 => Change::Never,
            1 => Change::Always,
            2 => Change::WhenZero,
            code => Change::Unknown(code),
        };
        HeaderChanges {
            ipv4: std::array::from_fn(change),
            ipv6: std::array::from_fn(|field| change(0x10 + field)),
        }
    }
}

impl Controller {
    /// Opens a raw socket on the interface that owns `local`, an exported address; the unspecified address stands for the
    /// most preferred one, and [`Opening::local`] tells which that is. It receives nothing before [`SendHalf::capture`].
    /// IPv6 needs the extension. A reference endpoint has one raw socket per interface.
    pub fn open_raw(&self, local: IpAddr, options: SocketOptions) -> Result<(Socket, Opening), Error> {
        if local.is_ipv6() && !self.extension(extension::IPV6) {
            return Err(Error::Unsupported("raw sockets over IPv6"));
        }
        self.open(OpenAddress::Raw { local }, options)
    }
}

impl SendHalf {
    /// Raw sockets: from now on, packets that the eBPF program `filter` accepts arrive, until the endpoint's clock reaches
    /// `end` (`Ticks::MAX`: no end). What the endpoint had captured and not yet read is discarded. Queued at the call; the
    /// filter works when the future is done.
    pub fn capture(&self, filter: &Program, end: Ticks) -> impl Future<Output = Result<(), Error>> + use<> {
        let answer = if self.core.proto != Proto::Raw {
            // A reference endpoint breaks a TCP or UDP socket over this.
            Err(Error::Encode("only raw sockets capture".to_owned()))
        } else if filter.kind != ProgramKind::Ebpf {
            Err(Error::Encode("a capture filter is an eBPF program".to_owned()))
        } else {
            let capture = NCap {
                socket: self.core.id,
                family: self.core.family.octet(),
                proto: self.core.proto.octet(),
                end,
                filter: filter.encode(),
            };
            self.core.shared.ask(Message::NCap(capture).encode(), "NCAP")
        };
        async move { answer?.success().await }
    }

    /// Ends the capture. Packets that the endpoint had read before still arrive.
    pub fn stop_capture(&self) -> impl Future<Output = Result<(), Error>> + use<> {
        // An end in the past, since a reference endpoint refuses an empty program and captures on.
        let nothing = Program { kind: ProgramKind::Ebpf, body: Bytes::from_static(NOTHING) };
        self.capture(&nothing, LONG_AGO)
    }
}

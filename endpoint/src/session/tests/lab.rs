//! A session in a scripted world, and the requests of the tests.

use bytes::Bytes;
use pktlab::cert::{Burst, CertType, Issue, PrivateKey, Verified};
use pktlab::vmem::{SocketState, extension, socket as cell, system};
use pktlab::wire::{
    ErrId, ExtNote, ExtRequest, Frame, Message, NCap, NCtl, NData, NOpen, NSend, OpenAddress, Outcome, Proto,
    SocketId, Ticks,
};

use super::super::{Output, Ready, Session, SessionConfig};
pub use super::world::{World, address};
use crate::limits::Ledger;

pub const SECOND: Ticks = 1_000_000_000;
pub const START: Ticks = 1_000 * SECOND;

pub fn config() -> SessionConfig {
    SessionConfig {
        buf_max: 100_000,
        tcp: true,
        udp: true,
        raw: false,
        steal: false,
        ring: 1 << 20,
        addresses: vec![(address("192.0.2.1:0").ip(), 24), (address("[2001:db8::1]:0").ip(), 64)],
        resolvers: vec![address("192.0.2.53:0").ip(), address("[2001:db8::53]:0").ip()],
        host_id: "lab".into(),
        extensions: 0b101,
        policy: crate::policy::Policy::unrestricted(),
        burst: None,
    }
}

/// Limits of a session whose one certificate has these, such as `max_socket_count=2;`, and lasts until `end`.
pub fn limited(limits: &str, end: Ticks) -> Ledger {
    limited_also(limits, end, None)
}

/// The same with a burst limit of the operator.
pub fn limited_also(limits: &str, end: Ticks, builtin: Option<Burst>) -> Ledger {
    let key = PrivateKey::from_seed([1; 32]).expect("key");
    let mut issue = Issue::new(CertType::ExpPriv);
    issue.not_before = 0;
    issue.not_after = (end / SECOND) as i64;
    issue.limits = limits
        .split_terminator(';')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let cert = issue.sign(&key, &key.public_key()).expect("signed");
    let chain = Verified { order: vec![0], root: None, certs: vec![cert] };
    Ledger::new(&chain, &[None], builtin, START)
}

/// Long enough for every test.
pub const LATE: Ticks = 100_000 * SECOND;

/// Every extension bit.
pub const ALL: u32 = 0x7f;

/// A session and its world.
pub struct Lab {
    pub session: Session,
    pub world: World,
}

impl Lab {
    /// Still in the set-up phase.
    pub fn fresh(config: SessionConfig, ledger: Ledger) -> Self {
        let world = World { now: START, ..World::default() };
        Self { session: Session::new(config, ledger, START), world }
    }

    /// Started.
    pub fn new() -> Self {
        Self::with(config(), Ledger::unlimited())
    }

    pub fn with(config: SessionConfig, ledger: Ledger) -> Self {
        let mut lab = Self::fresh(config, ledger);
        assert_eq!(lab.ask(Message::Start), [ok()]);
        lab
    }

    /// One request; everything the session says afterwards.
    pub fn ask(&mut self, message: Message) -> Vec<Message> {
        self.frame(Frame::Message(message))
    }

    pub fn frame(&mut self, frame: Frame) -> Vec<Message> {
        self.session.request(frame, &mut self.world);
        self.said()
    }

    /// The error of the one RESULT a request got.
    pub fn errid(&mut self, message: Message) -> u16 {
        match &self.ask(message)[..] {
            [Message::Result(Outcome::Plain(errid))] => errid.0,
            other => panic!("expected one RESULT, got {other:?}"),
        }
    }

    /// Writes everything out; what is not of an extension.
    pub fn said(&mut self) -> Vec<Message> {
        let mut said = Vec::new();
        loop {
            let batch = self.session.take_batch(10, usize::MAX);
            if batch.is_empty() {
                return said;
            }
            self.session.sent(&mut self.world);
            said.extend(batch.into_iter().map(|output| match output {
                Output::Message(message) => message,
                Output::Extension(note) => panic!("unexpected {note:?}"),
            }));
        }
    }

    /// Writes everything out; what is of an extension.
    pub fn notes(&mut self) -> Vec<ExtNote> {
        let batch = self.session.take_batch(usize::MAX, usize::MAX);
        self.session.sent(&mut self.world);
        batch
            .into_iter()
            .filter_map(|output| match output {
                Output::Extension(note) => Some(note),
                Output::Message(_) => None,
            })
            .collect()
    }

    pub fn readable(&mut self, id: SocketId) {
        self.session.ready(id, Ready { read: true, ..Ready::default() }, &mut self.world);
    }

    pub fn writable(&mut self, id: SocketId) {
        self.session.ready(id, Ready { write: true, ..Ready::default() }, &mut self.world);
    }

    /// Lets time pass; the timer acts as often as it wants, and what was handed over is sent at its time.
    pub fn advance(&mut self, time: Ticks) {
        let target = self.world.now + time;
        loop {
            let timer = self.session.deadline().map(|due| (due, None));
            let handed = self.world.next_handed().map(|(due, id)| (due, Some(id)));
            let Some((due, lane)) =
                [timer, handed].into_iter().flatten().min().filter(|next| next.0 <= target)
            else {
                break;
            };
            self.world.now = self.world.now.max(due);
            match lane {
                None => self.session.timer(&mut self.world),
                Some(id) => {
                    self.world.make(id);
                    self.tell();
                }
            }
        }
        self.world.now = target;
    }

    /// Tells the session what became of the sends handed over.
    pub fn tell(&mut self) {
        while let Some((id, outcome)) = self.world.untold.pop_front() {
            self.session.made(id, outcome, &mut self.world);
        }
    }

    /// All extensions offered and enabled.
    pub fn extended() -> Self {
        Self::extended_with(config(), Ledger::unlimited())
    }

    pub fn extended_with(config: SessionConfig, ledger: Ledger) -> Self {
        let mut lab = Self::with(SessionConfig { extensions: ALL, raw: true, ..config }, ledger);
        lab.enable(ALL);
        lab
    }

    pub fn enable(&mut self, bits: u32) {
        assert_eq!(self.write(extension::ENABLED, &bits.to_be_bytes()), [ok()]);
    }

    /// With raw sockets.
    pub fn raw(ledger: Ledger) -> Self {
        Self::with(SessionConfig { raw: true, ..config() }, ledger)
    }

    /// A request of an extension; everything the session says afterwards, extensions included.
    pub fn extend(&mut self, request: &ExtRequest) -> Vec<Output> {
        let raw = Bytes::from(request.encode().expect("encodes").to_vec());
        self.session.request(Frame::Unknown { code: request.code(), raw }, &mut self.world);
        self.outputs()
    }

    /// Writes everything out.
    pub fn outputs(&mut self) -> Vec<Output> {
        let batch = self.session.take_batch(usize::MAX, usize::MAX);
        self.session.sent(&mut self.world);
        batch
    }

    pub fn set_mask(&mut self, id: SocketId, bits: u16) -> Vec<Message> {
        self.write(cell::block(id) + cell::NOTIFMASK, &bits.to_be_bytes())
    }

    pub fn datagram(&mut self, id: SocketId, data: &str) {
        self.world.datagrams.push_back((data.as_bytes().to_vec(), address("192.0.2.53:53")));
        self.readable(id);
    }

    pub fn buf_used(&mut self) -> u32 {
        u32::from_be_bytes(self.read(system::BUFUSED, 4).try_into().expect("four bytes"))
    }

    pub fn read(&mut self, addr: u32, len: u16) -> Vec<u8> {
        match &self.ask(Message::MRead { addr, len })[..] {
            [Message::MData { addr: echoed, data }] if *echoed == addr => data.to_vec(),
            other => panic!("expected MDATA, got {other:?}"),
        }
    }

    pub fn cell(&mut self, id: SocketId, offset: u32, len: u16) -> Vec<u8> {
        self.read(cell::block(id) + offset, len)
    }

    pub fn number(&mut self, id: SocketId, offset: u32) -> u32 {
        let bytes = self.cell(id, offset, 4);
        u32::from_be_bytes(bytes.try_into().expect("four bytes"))
    }

    pub fn write(&mut self, addr: u32, data: &[u8]) -> Vec<Message> {
        self.ask(Message::MWrite { addr, data: Bytes::copy_from_slice(data) })
    }

    pub fn state(&mut self, id: SocketId) -> SocketState {
        SocketState::from_octet(self.cell(id, cell::STAT, 1)[0]).expect("a defined state")
    }

    /// Opens TCP to 192.0.2.80:80 and completes the connect.
    pub fn tcp(&mut self, id: SocketId, rbufsz: u32) {
        assert_eq!(self.errid(tcp(id, rbufsz)), 0);
        self.writable(id);
        assert_eq!(self.said().len(), 1, "established");
    }

    pub fn udp(&mut self, id: SocketId, rbufsz: u32) {
        assert_eq!(self.errid(udp(id, rbufsz)), 0);
    }
}

pub fn ok() -> Message {
    result(ErrId::SUCCESS)
}

pub fn result(errid: ErrId) -> Message {
    Message::Result(Outcome::Plain(errid))
}

pub fn tcp(socket: SocketId, rbufsz: u32) -> Message {
    let (local, remote) = (address("0.0.0.0:0"), address("192.0.2.80:80"));
    Message::NOpen(NOpen { socket, rbufsz, address: OpenAddress::TcpConnect { local, remote } })
}

pub fn udp(socket: SocketId, rbufsz: u32) -> Message {
    Message::NOpen(NOpen { socket, rbufsz, address: OpenAddress::Udp { local: address("0.0.0.0:0") } })
}

pub fn send(socket: SocketId, time: Ticks, tag: u16, data: &str) -> Message {
    let data = Bytes::copy_from_slice(data.as_bytes());
    Message::NSend(NSend { socket, family: 4, proto: Proto::Tcp, time, tag, remote: None, data })
}

pub fn send_to(socket: SocketId, time: Ticks, tag: u16, data: &[u8]) -> Message {
    let (data, remote) = (Bytes::copy_from_slice(data), Some(address("192.0.2.53:53")));
    Message::NSend(NSend { socket, family: 4, proto: Proto::Udp, time, tag, remote, data })
}

pub fn fin(socket: SocketId, time: Ticks) -> Message {
    Message::NCtl(NCtl { socket, family: 4, time, command: NCtl::FIN })
}

pub fn raw(socket: SocketId, local: &str, rbufsz: u32) -> Message {
    let local = local.parse().expect("address in a test");
    Message::NOpen(NOpen { socket, rbufsz, address: OpenAddress::Raw { local } })
}

pub fn send_raw(socket: SocketId, time: Ticks, tag: u16, packet: &[u8]) -> Message {
    let family = if packet.first().is_some_and(|first| first >> 4 == 6) { 6 } else { 4 };
    let data = Bytes::copy_from_slice(packet);
    Message::NSend(NSend { socket, family, proto: Proto::Raw, time, tag, remote: None, data })
}

/// An IPv4 packet of `len` bytes.
pub fn packet(from: [u8; 4], to: [u8; 4], len: usize) -> Vec<u8> {
    let mut packet = vec![0; len.max(20)];
    packet[0] = 0x45;
    packet[12..16].copy_from_slice(&from);
    packet[16..20].copy_from_slice(&to);
    packet.truncate(len);
    packet
}

/// A filter that delivers everything: `r0 = -1; exit`.
pub const EVERYTHING: &[u8] = b"\0\xb7\0\0\0\xff\xff\xff\xff\x95\0\0\0\0\0\0\0";

pub fn capture(socket: SocketId, end: Ticks, filter: &[u8]) -> Message {
    Message::NCap(NCap { socket, family: 4, proto: 0, end, filter: Bytes::copy_from_slice(filter) })
}

pub fn close(socket: SocketId) -> Message {
    Message::NClose { socket }
}

/// The payloads of NDATA, anything else in debug form.
pub fn shape(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|message| match message {
            Message::NData(NData { data, .. }) => format!("data {}", String::from_utf8_lossy(data)),
            Message::NTag(tag) => format!("tag {} {:#x}", tag.tag, tag.errid.0),
            Message::NStat(stat) => format!("stat {:?}", stat.event),
            Message::Result(Outcome::Plain(errid)) => format!("result {:#x}", errid.0),
            Message::MData { addr, data } => {
                let bytes: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("memory {addr:08x} {bytes}")
            }
            other => format!("{other:?}"),
        })
        .collect()
}

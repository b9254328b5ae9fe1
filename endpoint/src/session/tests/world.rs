//! The scripted world and a session in it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use pktlab::vmem::{SocketState, socket as cell};
use pktlab::wire::{
    ErrId, Frame, Message, NCtl, NData, NOpen, NSend, OpenAddress, Outcome, Proto, SocketId, Ticks,
};

use super::super::{
    Connecting, Datagram, Errno, Interest, Limits, Net, OpenFault, Output, Session, SessionConfig,
};

pub const SECOND: Ticks = 1_000_000_000;
pub const START: Ticks = 1_000 * SECOND;

/// What a stream read finds: `Ok` of at most the asked length, or an error.
pub type Read = Result<Vec<u8>, Errno>;

#[derive(Default)]
pub struct World {
    pub now: Ticks,
    /// Answers to opens, in order; then success.
    pub opens: VecDeque<Result<bool, OpenFault>>,
    pub connects: VecDeque<Result<(), Errno>>,
    pub reads: VecDeque<Read>,
    pub datagrams: VecDeque<(Vec<u8>, SocketAddr)>,
    /// Answers to sends: bytes taken at most, or an error; then everything is taken.
    pub sends: VecDeque<Result<usize, Errno>>,
    pub shut: Option<Errno>,
    /// What happened: `send 3 abc`, `shut 3`, `close 3`.
    pub log: Vec<String>,
    pub watched: BTreeMap<SocketId, Interest>,
    /// The lengths asked for by stream reads.
    pub asked: Vec<usize>,
}

impl Net for World {
    fn now(&mut self) -> Ticks {
        self.now
    }

    fn open_udp(&mut self, _: SocketId, mut local: SocketAddr) -> Result<SocketAddr, OpenFault> {
        self.opens.pop_front().unwrap_or(Ok(true))?;
        if local.port() == 0 {
            local.set_port(40_000);
        }
        Ok(local)
    }

    fn open_tcp(&mut self, _: SocketId, local: SocketAddr, _: SocketAddr) -> Result<Connecting, OpenFault> {
        let established = self.opens.pop_front().unwrap_or(Ok(false))?;
        Ok(Connecting { local, established })
    }

    fn finish_connect(&mut self, _: SocketId) -> Result<Option<(SocketAddr, SocketAddr)>, Errno> {
        self.connects.pop_front().unwrap_or(Ok(()))?;
        Ok(Some((address("192.0.2.80:80"), address("192.0.2.1:40001"))))
    }

    fn receive(&mut self, _: SocketId, max: usize) -> Result<Bytes, Errno> {
        self.asked.push(max);
        let mut data = self.reads.pop_front().unwrap_or(Err(Errno::AGAIN))?;
        if data.len() > max {
            self.reads.push_front(Ok(data.split_off(max)));
        }
        Ok(data.into())
    }

    fn receive_from(&mut self, _: SocketId) -> Result<Datagram, Errno> {
        let (data, remote) = self.datagrams.pop_front().ok_or(Errno::AGAIN)?;
        Ok(Datagram { data: data.into(), remote, time: self.now, ttl: None, tos: None, local: None })
    }

    fn send(&mut self, id: SocketId, data: &[u8]) -> Result<usize, Errno> {
        let taken = self.sends.pop_front().unwrap_or(Ok(usize::MAX))?.min(data.len());
        self.log.push(format!("send {id} {}", String::from_utf8_lossy(&data[..taken])));
        Ok(taken)
    }

    fn send_to(&mut self, id: SocketId, data: &[u8], remote: SocketAddr) -> Result<(), Errno> {
        self.sends.pop_front().unwrap_or(Ok(0))?;
        self.log.push(format!("send {id} {} to {remote}", String::from_utf8_lossy(data)));
        Ok(())
    }

    fn shut_write(&mut self, id: SocketId) -> Result<(), Errno> {
        self.log.push(format!("shut {id}"));
        self.shut.map_or(Ok(()), Err)
    }

    fn watch(&mut self, id: SocketId, interest: Interest) {
        self.watched.insert(id, interest);
    }

    fn close(&mut self, id: SocketId) {
        self.log.push(format!("close {id}"));
        self.watched.remove(&id);
    }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("address in a test")
}

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

/// A session and its world.
pub struct Lab {
    pub session: Session,
    pub world: World,
}

impl Lab {
    /// Still in the set-up phase.
    pub fn fresh(config: SessionConfig, limits: Limits) -> Self {
        let world = World { now: START, ..World::default() };
        Self { session: Session::new(config, limits, START), world }
    }

    /// Started.
    pub fn new() -> Self {
        Self::with(config(), Limits::default())
    }

    pub fn with(config: SessionConfig, limits: Limits) -> Self {
        let mut lab = Self::fresh(config, limits);
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

    /// Writes everything out.
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
                Output::NErr(error) => panic!("unexpected {error:?}"),
            }));
        }
    }

    pub fn readable(&mut self, id: SocketId) {
        self.session.ready(id, Interest { read: true, write: false }, &mut self.world);
    }

    pub fn writable(&mut self, id: SocketId) {
        self.session.ready(id, Interest { read: false, write: true }, &mut self.world);
    }

    /// Lets time pass and the timer act, as often as it wants.
    pub fn advance(&mut self, time: Ticks) {
        let target = self.world.now + time;
        while let Some(due) = self.session.deadline().filter(|due| *due <= target) {
            self.world.now = self.world.now.max(due);
            self.session.timer(&mut self.world);
        }
        self.world.now = target;
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

/// The payloads of NDATA, anything else in debug form.
pub fn shape(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|message| match message {
            Message::NData(NData { data, .. }) => format!("data {}", String::from_utf8_lossy(data)),
            Message::NTag(tag) => format!("tag {} {:#x}", tag.tag, tag.errid.0),
            Message::NStat(stat) => format!("stat {:?}", stat.event),
            Message::Result(Outcome::Plain(errid)) => format!("result {:#x}", errid.0),
            other => format!("{other:?}"),
        })
        .collect()
}

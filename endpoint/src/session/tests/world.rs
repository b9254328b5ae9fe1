//! The scripted world and a session in it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use pktlab::cert::{Burst, CertType, Issue, PrivateKey, Verified};
use pktlab::vmem::{SocketState, socket as cell};
use pktlab::wire::{
    ErrId, ExtNote, Frame, Message, NCtl, NData, NOpen, NSend, OpenAddress, Outcome, Proto, SockOpt,
    SocketId, Ticks,
};

use super::super::{
    Accepted, Connecting, Datagram, Errno, Interest, Losses, Net, OpenFault, Output, Packet, Ready, Reported,
    Sent, Session, SessionConfig, Timed,
};
use crate::filter::Filter;
use crate::limits::Ledger;

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
    pub packets: VecDeque<(Vec<u8>, Ticks)>,
    pub losses: Losses,
    /// Outcome of the next captures, then success.
    pub captures: VecDeque<Result<(), Errno>>,
    pub accepts: VecDeque<Accepted>,
    pub reports: VecDeque<Reported>,
    pub options: BTreeMap<(SocketId, u8), u32>,
    /// Sends that wait for their times.
    pub handed: BTreeMap<SocketId, VecDeque<Timed>>,
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

    fn open_raw(&mut self, id: SocketId, local: IpAddr) -> Result<(), OpenFault> {
        self.opens.pop_front().unwrap_or(Ok(true))?;
        self.log.push(format!("raw {id} {local}"));
        Ok(())
    }

    fn listen(&mut self, _: SocketId, mut local: SocketAddr) -> Result<SocketAddr, OpenFault> {
        self.opens.pop_front().unwrap_or(Ok(true))?;
        if local.port() == 0 {
            local.set_port(40_002);
        }
        Ok(local)
    }

    fn accept(&mut self, _: SocketId) -> Result<Accepted, Errno> {
        self.accepts.pop_front().ok_or(Errno::AGAIN)
    }

    fn take(&mut self, id: SocketId, handle: u32) {
        self.log.push(format!("take {id} {handle}"));
    }

    fn refuse(&mut self, handle: u32) {
        self.log.push(format!("refuse {handle}"));
    }

    fn receive_from(&mut self, _: SocketId) -> Result<Datagram, Errno> {
        let (data, remote) = self.datagrams.pop_front().ok_or(Errno::AGAIN)?;
        Ok(Datagram {
            data: data.into(),
            remote,
            time: self.now,
            kernel_time: true,
            ttl: Some(61),
            tos: Some(0),
            local: Some(address("192.0.2.1:0").ip()),
        })
    }

    fn receive_packet(&mut self, _: SocketId) -> Result<Packet, Errno> {
        let (data, time) = self.packets.pop_front().ok_or(Errno::AGAIN)?;
        Ok(Packet { data: data.into(), time })
    }

    fn capture(&mut self, id: SocketId, filter: Option<&Filter>, _: Ticks) -> Result<(), Errno> {
        self.log.push(format!("capture {id} {}", if filter.is_some() { "on" } else { "off" }));
        self.captures.pop_front().unwrap_or(Ok(()))
    }

    fn losses(&mut self, _: SocketId) -> Losses {
        std::mem::take(&mut self.losses)
    }

    fn reported(&mut self, _: SocketId) -> Option<Reported> {
        self.reports.pop_front()
    }

    fn send(&mut self, id: SocketId, data: &[u8]) -> Result<Sent, Errno> {
        let taken = self.sends.pop_front().unwrap_or(Ok(usize::MAX))?.min(data.len());
        self.log.push(format!("send {id} {}", String::from_utf8_lossy(&data[..taken])));
        Ok(Sent { bytes: taken, time: self.now, kernel_time: false })
    }

    fn send_to(&mut self, id: SocketId, data: &[u8], remote: SocketAddr, stamp: bool) -> Result<Sent, Errno> {
        self.sends.pop_front().unwrap_or(Ok(0))?;
        self.log.push(format!("send {id} {} to {remote}", String::from_utf8_lossy(data)));
        Ok(Sent { bytes: data.len(), time: self.now, kernel_time: stamp })
    }

    fn hand_over(&mut self, id: SocketId, send: Timed) {
        self.handed.entry(id).or_default().push_back(send);
    }

    fn take_back(&mut self, id: SocketId) -> Vec<Result<Sent, Errno>> {
        self.handed.remove(&id);
        Vec::new()
    }

    fn set_option(&mut self, id: SocketId, option: SockOpt, value: u32) -> Result<(), Errno> {
        self.options.insert((id, option.octet()), value);
        Ok(())
    }

    fn option(&mut self, id: SocketId, option: SockOpt) -> Result<u32, Errno> {
        self.options.get(&(id, option.octet())).copied().ok_or(Errno::NOTCONN)
    }

    fn shut_write(&mut self, id: SocketId) -> Result<(), Errno> {
        self.log.push(format!("shut {id}"));
        self.shut.map_or(Ok(()), Err)
    }

    fn watch(&mut self, id: SocketId, interest: Interest) {
        self.watched.insert(id, interest);
    }

    fn close(&mut self, id: SocketId) {
        self.handed.remove(&id);
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

impl World {
    /// The next send that waits, and when it is due.
    fn next_handed(&self) -> Option<(Ticks, SocketId)> {
        self.handed.iter().filter_map(|(id, lane)| Some((lane.front()?.time, *id))).min()
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
                    let timed =
                        self.world.handed.get_mut(&id).and_then(VecDeque::pop_front).expect("handed over");
                    let outcome = match timed.remote {
                        Some(remote) => self.world.send_to(id, &timed.data, remote, timed.stamp),
                        None => self.world.send(id, &timed.data),
                    };
                    self.session.made(id, outcome, &mut self.world);
                }
            }
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

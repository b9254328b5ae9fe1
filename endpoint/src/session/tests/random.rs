//! Whatever well-formed requests a controller sends and whatever the network does meanwhile: one answer each, budgets that
//! add up after every step, and every accepted NSEND accounted for.

use std::net::SocketAddr;

use bytes::Bytes;
use pktlab::vmem::{extension, socket as cell, system};
use pktlab::wire::{
    ErrId, ExtNote, ExtRequest, Frame, Message, NCap, NCtl, NOpen, NOpt, NSend, NTag, NTagx, NTake, NWait,
    OpenAddress, Outcome, Proto, SocketId, Ticks,
};
use proptest::prelude::*;

use super::super::output::HELD_COST;
use super::super::{Accepted, Errno, FIFO_FULL, Losses, OpenFault, Output, Ready, Reported, SessionConfig};
use super::lab::{ALL, EVERYTHING, LATE, Lab, START, address, config, limited, packet};

/// Small enough that random sequences fill it.
const BUF_MAX: u32 = 3_000;
const IDS: SocketId = 4;
const ERRORS: [Errno; 9] = [
    Errno::AGAIN,
    Errno::INTR,
    Errno::CONNRESET,
    Errno::TIMEDOUT,
    Errno::HOSTUNREACH,
    Errno::PIPE,
    Errno::MSGSIZE,
    Errno::NOBUFS,
    Errno::CONNREFUSED,
];

#[derive(Clone, Debug)]
enum Step {
    Request(Message),
    Extension(ExtRequest),
    Ready(SocketId, bool, bool, bool),
    /// Time passes, and the timer acts or not.
    Pass(Ticks, bool),
    /// Sends handed over are made when they are due, and told or not.
    Make(bool),
    /// So many outputs are written.
    Write(usize),
    Opens(Result<bool, OpenFault>),
    Connects(Option<Errno>),
    Reads(Result<usize, Errno>),
    Sends(Result<usize, Errno>),
    Shut(Option<Errno>),
    Datagram(usize),
    Packet(usize, Ticks),
    Accept,
    Report(usize),
    Losses(u32),
}

#[derive(Clone, Copy, Debug)]
enum Last {
    CloseAll,
    Yield,
    Malformed,
    Suspend,
}

fn id() -> impl Strategy<Value = SocketId> {
    0..IDS
}

fn errno() -> impl Strategy<Value = Errno> {
    (0..ERRORS.len()).prop_map(|index| ERRORS[index])
}

/// At once, soon, or far away.
fn time() -> impl Strategy<Value = Ticks> {
    prop_oneof![Just(0), START..START + 3_000, Just(START + 1_000_000_000), Just(Ticks::MAX)]
}

fn open() -> impl Strategy<Value = Message> {
    let any4 = address("0.0.0.0:0");
    let any6 = address("[::]:0");
    let form = prop_oneof![
        Just(OpenAddress::Udp { local: any4 }),
        Just(OpenAddress::Udp { local: any6 }),
        Just(OpenAddress::TcpConnect { local: any4, remote: address("192.0.2.80:80") }),
        Just(OpenAddress::TcpListen { local: any4 }),
        Just(OpenAddress::Raw { local: any4.ip() }),
        Just(OpenAddress::Raw { local: any6.ip() }),
    ];
    (id(), prop_oneof![Just(0), 1..2_000u32], form)
        .prop_map(|(socket, rbufsz, address)| Message::NOpen(NOpen { socket, rbufsz, address }))
}

fn nsend() -> impl Strategy<Value = Message> {
    let kind = prop_oneof![
        Just((4, Proto::Tcp, None)),
        Just((4, Proto::Udp, Some(address("192.0.2.53:53")))),
        Just((6, Proto::Udp, Some(address("[2001:db8::53]:53")))),
        Just((4, Proto::Raw, None)),
    ];
    (id(), kind, time(), 1..=u16::MAX, 0..400usize).prop_map(|(socket, kind, time, tag, len)| {
        let (family, proto, remote): (u8, Proto, Option<SocketAddr>) = kind;
        let data = if proto == Proto::Raw { packet([0; 4], [192, 0, 2, 9], len) } else { vec![0; len] };
        Message::NSend(NSend { socket, family, proto, time, tag, remote, data: data.into() })
    })
}

fn write() -> impl Strategy<Value = Message> {
    let place = prop_oneof![
        (id(), 0..0x80u32).prop_map(|(id, offset)| cell::block(id) + offset),
        id().prop_map(|id| cell::block(id) + cell::NOTIFMASK),
        id().prop_map(|id| cell::block(id) + cell::RBUFSZ),
        Just(extension::ENABLED),
        any::<u32>().prop_map(|addr| addr & 0x7fff_ffff),
    ];
    (place, prop::collection::vec(any::<u8>(), 0..8))
        .prop_map(|(addr, data)| Message::MWrite { addr, data: data.into() })
}

fn request() -> impl Strategy<Value = Step> {
    let message = prop_oneof![
        4 => open(),
        2 => id().prop_map(|socket| Message::NClose { socket }),
        8 => nsend(),
        1 => (id(), time(), any::<bool>()).prop_map(|(socket, end, good)| {
            let filter = if good { Bytes::from_static(EVERYTHING) } else { Bytes::from_static(b"\x01x") };
            Message::NCap(NCap { socket, family: 4, proto: 0, end, filter })
        }),
        1 => (id(), time(), 0..3u8)
            .prop_map(|(socket, time, command)| Message::NCtl(NCtl { socket, family: 4, time, command })),
        3 => write(),
        1 => (id(), 1..0x400u16).prop_map(|(id, len)| Message::MRead { addr: cell::block(id), len }),
        1 => Just(Message::MRead { addr: system::BUFUSED, len: 4 }),
        1 => Just(Message::Start),
    ];
    message.prop_map(Step::Request)
}

fn extension() -> impl Strategy<Value = Step> {
    prop_oneof![
        (id(), 0..16u8, prop::option::of(any::<u32>())).prop_map(|(socket, option, value)| {
            ExtRequest::NOpt(NOpt { socket, family: 4, proto: 0x11, option, value })
        }),
        (any::<u32>(), time()).prop_map(|(token, time)| ExtRequest::NWait(NWait { token, time })),
        (id(), id(), 1..6u32).prop_map(|(socket, listener, handle)| {
            ExtRequest::NTake(NTake { socket, listener, handle, rbufsz: 100 })
        }),
    ]
    .prop_map(Step::Extension)
}

fn world() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        errno().prop_map(OpenFault::Socket),
        errno().prop_map(OpenFault::Bind),
        errno().prop_map(OpenFault::Connect)
    ];
    let outcome = || prop_oneof![3 => (0..500usize).prop_map(Ok), 1 => errno().prop_map(Err)];
    prop_oneof![
        8 => (id(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(id, r, w, e)| Step::Ready(id, r, w, e)),
        4 => (0..3_000u64, any::<bool>()).prop_map(|(time, timer)| Step::Pass(time, timer)),
        4 => any::<bool>().prop_map(Step::Make),
        4 => (0..20usize).prop_map(Step::Write),
        1 => prop_oneof![any::<bool>().prop_map(Ok), fault.prop_map(Err)].prop_map(Step::Opens),
        1 => prop::option::of(errno()).prop_map(Step::Connects),
        2 => outcome().prop_map(Step::Reads),
        2 => outcome().prop_map(Step::Sends),
        1 => prop::option::of(errno()).prop_map(Step::Shut),
        2 => (0..600usize).prop_map(Step::Datagram),
        2 => (0..600usize, time()).prop_map(|(len, time)| Step::Packet(len, time)),
        1 => Just(Step::Accept),
        1 => (0..200usize).prop_map(Step::Report),
        1 => any::<u32>().prop_map(Step::Losses),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(prop_oneof![6 => request(), 1 => extension(), 6 => world()], 1..150)
}

fn limits() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        3 => Just(""),
        2 => Just("max_send_pkt=2;max_recv_byte=900;"),
        1 => Just("max_send_byte=1500;max_burst_rate_byte=400/1000;max_burst_rate_pkt=3/700;"),
    ]
}

/// A session under observation.
struct Watched {
    lab: Lab,
    handles: u32,
    accepted: usize,
    /// NTAGs of success that were written out, and that NCLOSE discarded while held.
    told: usize,
    discarded: usize,
}

fn sent(output: &Output) -> bool {
    let errid = match output {
        Output::Message(Message::NTag(NTag { errid, .. }))
        | Output::Extension(ExtNote::NTagx(NTagx { errid, .. })) => *errid,
        _ => return false,
    };
    errid == ErrId::SUCCESS
}

fn is_answer(output: &Output) -> bool {
    matches!(output, Output::Message(Message::Result(_) | Message::MData { .. }))
}

impl Watched {
    fn answers(&self) -> usize {
        self.lab.session.fifo.iter().filter(|queued| is_answer(&queued.output)).count()
    }

    fn held(&self, id: SocketId) -> usize {
        let slot = self.lab.session.slots[usize::from(id)].as_ref();
        slot.map_or(0, |slot| slot.held.iter().filter(|held| sent(&held.output)).count())
    }

    fn step(&mut self, step: Step) {
        let before = self.answers();
        let mut asked = 0;
        let lab = &mut self.lab;
        match step {
            Step::Request(_) | Step::Extension(_) if !lab.session.wants_request() => {}
            Step::Request(message) => {
                asked = 1;
                self.request(message);
            }
            Step::Extension(request) => {
                asked = 1;
                let raw = Bytes::from(request.encode().expect("encodes").to_vec());
                lab.session.request(Frame::Unknown { code: request.code(), raw }, &mut lab.world);
            }
            Step::Ready(id, read, write, error) => {
                lab.session.ready(id, Ready { read, write, error }, &mut lab.world);
            }
            Step::Pass(time, timer) => {
                lab.world.now += time;
                if timer {
                    lab.session.timer(&mut lab.world);
                }
            }
            Step::Make(tell) => {
                while let Some((_, id)) = lab.world.next_handed().filter(|(due, _)| *due <= lab.world.now) {
                    lab.world.make(id);
                }
                if tell {
                    lab.tell();
                }
            }
            Step::Write(count) => return self.write(count),
            Step::Opens(outcome) => lab.world.opens.push_back(outcome),
            Step::Connects(outcome) => lab.world.connects.push_back(outcome.map_or(Ok(()), Err)),
            Step::Reads(outcome) => lab.world.reads.push_back(outcome.map(|len| vec![0; len])),
            Step::Sends(outcome) => lab.world.sends.push_back(outcome.map(|len| len.max(1))),
            Step::Shut(outcome) => lab.world.shut = outcome,
            Step::Datagram(len) => lab.world.datagrams.push_back((vec![0; len], address("192.0.2.53:53"))),
            Step::Packet(len, time) => lab.world.packets.push_back((vec![0; len], time)),
            Step::Accept => {
                self.handles += 1;
                let (remote, local) = (address("198.51.100.9:9"), address("192.0.2.1:40002"));
                lab.world.accepts.push_back(Accepted { handle: self.handles, remote, local });
            }
            Step::Report(len) => lab.world.reports.push_back(Reported {
                errno: 111,
                origin: (len % 3) as u8,
                icmp_type: 3,
                icmp_code: 3,
                info: 0,
                offender: None,
                remote: None,
                time: START,
                data: vec![0; len].into(),
            }),
            Step::Losses(count) => lab.world.losses = Losses { kernel: count, faults: count / 2 },
        }
        assert_eq!(self.answers() - before, asked, "one answer to one request");
        self.add_up();
    }

    fn request(&mut self, message: Message) {
        let lab = &mut self.lab;
        let sends = matches!(message, Message::NSend(_));
        let reads = match &message {
            Message::MRead { addr, .. } => Some(*addr),
            _ => None,
        };
        if let Message::NClose { socket } = message {
            // A held tag that NCLOSE itself brings to light would be counted by nobody.
            lab.tell();
            self.discarded += self.held(socket);
        }
        let lab = &mut self.lab;
        let place = lab.session.fifo.len();
        lab.session.request(Frame::Message(message), &mut lab.world);
        let answer = lab.session.fifo.iter().skip(place).find(|queued| is_answer(&queued.output));
        match (reads, answer.map(|queued| &queued.output)) {
            (Some(asked), Some(Output::Message(Message::MData { addr, .. }))) => assert_eq!(*addr, asked),
            (None, Some(Output::Message(Message::Result(Outcome::Plain(errid))))) => {
                self.accepted += usize::from(sends && *errid == ErrId::SUCCESS);
            }
            (_, other) => panic!("{other:?}"),
        }
    }

    fn write(&mut self, count: usize) {
        let lab = &mut self.lab;
        let batch = if count == 0 { Vec::new() } else { lab.session.take_batch(count, usize::MAX) };
        self.told += batch.iter().filter(|output| sent(output)).count();
        lab.session.sent(&mut lab.world);
        self.add_up();
    }

    /// What the session believes of its budgets is what lies in its queues.
    fn add_up(&self) {
        let session = &self.lab.session;
        let slots = || session.slots.iter().flatten();
        let written = session.fifo.iter().map(|queued| &queued.share).chain(&session.in_flight);
        let held = slots().flat_map(|slot| slot.held.iter().map(|held| &held.share));
        let shares: Vec<_> = written.chain(held).collect();
        let waiting: u64 = slots().flat_map(|slot| &slot.tx).map(|pending| pending.cost).sum();
        let cost: u64 = shares.iter().map(|share| share.cost).sum();
        assert_eq!(session.buf_used, cost + waiting);
        let unaccounted = HELD_COST * FIFO_FULL as u64;
        assert!(session.buf_used <= u64::from(BUF_MAX) + unaccounted, "{}", session.buf_used);
        for (id, slot) in (0..=SocketId::MAX).zip(&session.slots) {
            let Some(slot) = slot else { continue };
            let own = shares.iter().filter(|share| share.owner == Some((id, slot.generation)));
            assert_eq!(slot.rbufused, own.map(|share| share.payload).sum::<u64>());
            assert_eq!(slot.held_payload, slot.held.iter().map(|held| held.share.payload).sum::<u64>());
            assert!(slot.handed <= slot.tx.len());
            let lane = self.lab.world.handed.get(&id).map_or(0, |lane| lane.len());
            let untold = self.lab.world.untold.iter().filter(|(of, _)| *of == id).count();
            assert_eq!(slot.handed, lane + untold, "socket {id}");
        }
        let queued = session.fifo.iter().filter(|queued| sent(&queued.output)).count();
        let held: usize = (0..IDS).map(|id| self.held(id)).sum();
        let waiting: usize = slots().map(|slot| slot.tx.len()).sum();
        let unsent = session.totals.unsent as usize;
        assert_eq!(self.told + queued + held + self.discarded + unsent + waiting, self.accepted);
    }

    /// With a willing network and enough time nothing that can be sent stays in a queue.
    fn come_to_rest(&mut self) {
        let lab = &mut self.lab;
        lab.world.sends.clear();
        lab.tell();
        lab.advance(20_000_000_000);
        while let Some(id) = lab.world.watched.iter().find(|(_, wanted)| wanted.write).map(|(id, _)| *id) {
            lab.writable(id);
            lab.advance(20_000_000_000);
        }
        let now = lab.world.now;
        for slot in lab.session.slots.iter().flatten().filter(|slot| slot.can_send()) {
            let stuck = slot.tx.front().filter(|head| head.time <= now).map(|head| (head.tag, head.time));
            assert_eq!(stuck, None, "handed {}, {:?}", slot.handed, slot.not_before);
        }
        self.add_up();
    }

    fn finish(mut self, last: Last) {
        match last {
            Last::CloseAll => {
                self.come_to_rest();
                for id in 0..IDS {
                    self.write(usize::MAX);
                    self.step(Step::Request(Message::NClose { socket: id }));
                }
                self.write(usize::MAX);
                assert_eq!(self.lab.session.buf_used, 0);
                assert!(self.lab.world.open.is_empty());
                return;
            }
            Last::Yield => {
                self.lab.session.request(Frame::Message(Message::Yield { resume: 0 }), &mut self.lab.world);
            }
            Last::Malformed => {
                let malformed = Frame::Malformed { code: 0x2a, raw: Bytes::new(), reason: "test" };
                self.lab.session.request(malformed, &mut self.lab.world);
            }
            Last::Suspend => self.lab.session.suspend(&mut self.lab.world),
        }
        let Lab { mut session, mut world } = self.lab;
        assert!(session.ended().is_some() && world.open.is_empty());
        // A stray wake-up, an outcome, or time change nothing any more.
        for id in 0..IDS {
            session.ready(id, Ready { read: true, write: true, error: true }, &mut world);
            session.made(id, Err(Errno::PIPE), &mut world);
        }
        world.now = Ticks::MAX;
        session.timer(&mut world);
        let outputs = session.take_batch(usize::MAX, usize::MAX);
        session.sent(&mut world);
        let word = outputs.last().expect("a last word");
        assert!(is_answer(word) || *word == Output::Message(Message::Suspd), "{word:?}");
        assert_eq!((session.buf_used, session.deadline()), (0, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_events_adds_up(
        steps in steps(),
        limits in limits(),
        enabled in prop_oneof![Just(0), Just(ALL), any::<u32>()],
        last in prop_oneof![2 => Just(Last::CloseAll), 1 => Just(Last::Yield), 1 => Just(Last::Malformed), 1 => Just(Last::Suspend)],
    ) {
        let config = SessionConfig { buf_max: BUF_MAX, raw: true, extensions: ALL, ..config() };
        let mut lab = Lab::with(config, limited(limits, LATE));
        lab.enable(enabled);
        let mut watched = Watched { lab, handles: 0, accepted: 0, told: 0, discarded: 0 };
        for step in steps {
            watched.step(step);
        }
        watched.finish(last);
    }
}

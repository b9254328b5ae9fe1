//! The scripted world.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use pktlab::wire::{SockOpt, SocketId, Ticks};

use super::super::{
    Accepted, Connecting, Datagram, Errno, Interest, Losses, Net, OpenFault, Packet, Reported, Sent, Timed,
};
use crate::filter::Filter;

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
    /// Outcomes of handed-over sends that were not told yet.
    pub untold: VecDeque<(SocketId, Result<Sent, Errno>)>,
    /// Lanes that stand still after an error.
    pub stalled: BTreeSet<SocketId>,
    /// What the next change of an option meets.
    pub option_fault: Option<Errno>,
    /// Sockets that are open.
    pub open: BTreeSet<SocketId>,
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

    fn open_udp(&mut self, id: SocketId, mut local: SocketAddr) -> Result<SocketAddr, OpenFault> {
        self.opens.pop_front().unwrap_or(Ok(true))?;
        self.opened(id);
        if local.port() == 0 {
            local.set_port(40_000);
        }
        Ok(local)
    }

    fn open_tcp(&mut self, id: SocketId, local: SocketAddr, _: SocketAddr) -> Result<Connecting, OpenFault> {
        let established = self.opens.pop_front().unwrap_or(Ok(false))?;
        self.opened(id);
        Ok(Connecting { local, established })
    }

    fn finish_connect(&mut self, id: SocketId) -> Result<Option<(SocketAddr, SocketAddr)>, Errno> {
        self.lives(id);
        self.connects.pop_front().unwrap_or(Ok(()))?;
        Ok(Some((address("192.0.2.80:80"), address("192.0.2.1:40001"))))
    }

    fn receive(&mut self, id: SocketId, max: usize) -> Result<Bytes, Errno> {
        self.lives(id);
        self.asked.push(max);
        let mut data = self.reads.pop_front().unwrap_or(Err(Errno::AGAIN))?;
        if data.len() > max {
            self.reads.push_front(Ok(data.split_off(max)));
        }
        Ok(data.into())
    }

    fn open_raw(&mut self, id: SocketId, local: IpAddr) -> Result<(), OpenFault> {
        self.opens.pop_front().unwrap_or(Ok(true))?;
        self.opened(id);
        self.log.push(format!("raw {id} {local}"));
        Ok(())
    }

    fn listen(&mut self, id: SocketId, mut local: SocketAddr) -> Result<SocketAddr, OpenFault> {
        self.opens.pop_front().unwrap_or(Ok(true))?;
        self.opened(id);
        if local.port() == 0 {
            local.set_port(40_002);
        }
        Ok(local)
    }

    fn accept(&mut self, id: SocketId) -> Result<Accepted, Errno> {
        self.lives(id);
        self.accepts.pop_front().ok_or(Errno::AGAIN)
    }

    fn take(&mut self, id: SocketId, handle: u32) {
        self.opened(id);
        self.log.push(format!("take {id} {handle}"));
    }

    fn refuse(&mut self, handle: u32) {
        self.log.push(format!("refuse {handle}"));
    }

    fn receive_from(&mut self, id: SocketId) -> Result<Datagram, Errno> {
        self.lives(id);
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

    fn receive_packet(&mut self, id: SocketId) -> Result<Packet, Errno> {
        self.lives(id);
        let (data, time) = self.packets.pop_front().ok_or(Errno::AGAIN)?;
        Ok(Packet { data: data.into(), time })
    }

    fn capture(&mut self, id: SocketId, filter: Option<&Filter>, _: Ticks) -> Result<(), Errno> {
        self.lives(id);
        self.log.push(format!("capture {id} {}", if filter.is_some() { "on" } else { "off" }));
        if filter.is_none() {
            self.losses = Losses::default();
        }
        self.captures.pop_front().unwrap_or(Ok(()))
    }

    fn losses(&mut self, _: SocketId) -> Losses {
        std::mem::take(&mut self.losses)
    }

    fn reported(&mut self, _: SocketId) -> Option<Reported> {
        self.reports.pop_front()
    }

    fn send(&mut self, id: SocketId, data: &[u8]) -> Result<Sent, Errno> {
        self.lives(id);
        let taken = self.sends.pop_front().unwrap_or(Ok(usize::MAX))?.min(data.len());
        self.log.push(format!("send {id} {}", String::from_utf8_lossy(&data[..taken])));
        Ok(Sent { bytes: taken, time: self.now, kernel_time: false })
    }

    fn send_to(&mut self, id: SocketId, data: &[u8], remote: SocketAddr, stamp: bool) -> Result<Sent, Errno> {
        self.lives(id);
        self.sends.pop_front().unwrap_or(Ok(0))?;
        self.log.push(format!("send {id} {} to {remote}", String::from_utf8_lossy(data)));
        Ok(Sent { bytes: data.len(), time: self.now, kernel_time: stamp })
    }

    fn hand_over(&mut self, id: SocketId, send: Timed) {
        self.lives(id);
        self.handed.entry(id).or_default().push_back(send);
    }

    fn take_back(&mut self, id: SocketId) -> Vec<Result<Sent, Errno>> {
        self.handed.remove(&id);
        self.stalled.remove(&id);
        let (own, others) =
            std::mem::take(&mut self.untold).into_iter().partition::<VecDeque<_>, _>(|(of, _)| *of == id);
        self.untold = others;
        own.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn set_option(&mut self, id: SocketId, option: SockOpt, value: u32) -> Result<(), Errno> {
        self.lives(id);
        self.options.insert((id, option.octet()), value);
        self.option_fault.take().map_or(Ok(()), Err)
    }

    fn option(&mut self, id: SocketId, option: SockOpt) -> Result<u32, Errno> {
        self.options.get(&(id, option.octet())).copied().ok_or(Errno::NOTCONN)
    }

    fn shut_write(&mut self, id: SocketId) -> Result<(), Errno> {
        self.lives(id);
        self.log.push(format!("shut {id}"));
        self.shut.map_or(Ok(()), Err)
    }

    fn watch(&mut self, id: SocketId, interest: Interest) {
        self.lives(id);
        self.watched.insert(id, interest);
    }

    fn close(&mut self, id: SocketId) {
        self.take_back(id);
        self.open.remove(&id);
        self.log.push(format!("close {id}"));
        self.watched.remove(&id);
    }
}

impl World {
    fn opened(&mut self, id: SocketId) {
        assert!(self.open.insert(id), "socket {id} was open already");
    }

    fn lives(&self, id: SocketId) {
        assert!(self.open.contains(&id), "socket {id} is not open");
    }

    /// The next send that waits, and when it is due.
    pub fn next_handed(&self) -> Option<(Ticks, SocketId)> {
        let moving = self.handed.iter().filter(|(id, _)| !self.stalled.contains(id));
        moving.filter_map(|(id, lane)| Some((lane.front()?.time, *id))).min()
    }

    /// Makes the first send of a lane. The session is not told yet.
    pub fn make(&mut self, id: SocketId) {
        let Some(timed) = self.handed.get_mut(&id).and_then(VecDeque::pop_front) else { return };
        let outcome = match timed.remote {
            Some(remote) => self.send_to(id, &timed.data, remote, timed.stamp),
            None => self.send(id, &timed.data),
        };
        if outcome.is_err() {
            self.stalled.insert(id);
        }
        self.untold.push_back((id, outcome));
    }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("address in a test")
}

//! Requests of the private range and what they lead to (`docs/extensions.md`): options, waits, incoming connections.

use bytes::Bytes;
use pktlab::vmem::{extension, mask};
use pktlab::wire::{
    ErrId, ExtNote, ExtRequest, Message, NAccpt, NOpt, NTake, NTime, NWait, Proto, SockOpt, SocketId, Ticks,
};

use super::net::{Errno, Net};
use super::output::{Output, Queued, Share};
use super::request::matches;
use super::slot::{CAPTURE_DELAY, Slot};
use super::{End, Session};

/// NWAITs that may be pending.
const WAITS_MAX: usize = 1_024;
/// Connections of one listening socket that may wait to be taken; the kernel's queue holds more.
const PENDING_MAX: usize = 128;

impl Session {
    pub(super) fn run_extension(&mut self, code: u8, raw: &Bytes, net: &mut impl Net) {
        let needed = match code {
            NOpt::CODE => extension::NOPT,
            NWait::CODE => extension::NWAIT,
            NTake::CODE => extension::LISTEN,
            _ => 0,
        };
        if self.enabled & needed == 0 {
            return self.result(ErrId::ECTLNOTSUP);
        }
        match ExtRequest::decode(code, raw) {
            Some(Ok(ExtRequest::NOpt(option))) => self.socket_option(option, net),
            Some(Ok(ExtRequest::NWait(wait))) => self.wait(wait),
            Some(Ok(ExtRequest::NTake(take))) => self.take(take, net),
            Some(Err(_)) => {
                self.end_with(ErrId::ECTLBADMSG, End::Malformed, net);
            }
            None => self.result(ErrId::ECTLNOTSUP),
        }
    }

    fn socket_option(&mut self, request: NOpt, net: &mut impl Net) {
        let option = match self.option_of(&request) {
            Ok(option) => option,
            Err(errid) => return self.result(errid),
        };
        let id = request.socket;
        let outcome = match request.value {
            Some(value) => net.set_option(id, option, value).map(|()| None),
            None => net.option(id, option).map(Some),
        };
        match outcome {
            Ok(None) => self.result(ErrId::SUCCESS),
            Ok(Some(value)) => {
                let data = Bytes::copy_from_slice(&value.to_be_bytes());
                self.answer(Message::MData { addr: u32::from(request.option), data });
            }
            Err(Errno::NOPROTOOPT | Errno::OPNOTSUPP) => self.result(ErrId::ECTLNOTSUP),
            Err(_) => self.result(ErrId::EUNKFAULT),
        }
    }

    fn option_of(&self, request: &NOpt) -> Result<SockOpt, ErrId> {
        let slot = self.slots[usize::from(request.socket)].as_ref().ok_or(ErrId::ESKTNOTOPEN)?;
        if slot.state.is_error() {
            return Err(ErrId::ESKTNOTOPEN);
        }
        if !matches(slot, request.family, request.proto) {
            return Err(ErrId::ESKTNOMATCH);
        }
        let option = SockOpt::from_octet(request.option).ok_or(ErrId::ECTLNOTSUP)?;
        let stream = matches!(
            option,
            SockOpt::NoDelay | SockOpt::KeepAlive | SockOpt::Linger | SockOpt::MaxSegment | SockOpt::QuickAck
        );
        let datagram = matches!(option, SockOpt::Broadcast | SockOpt::MulticastTtl | SockOpt::MulticastLoop);
        let read_only = option == SockOpt::PathMtu;
        let foreign = match slot.proto {
            Proto::Tcp => datagram,
            Proto::Udp => stream,
            // Their packets carry their own headers.
            Proto::Raw => true,
        };
        if foreign || (read_only && request.value.is_some()) {
            return Err(ErrId::ECTLNOTSUP);
        }
        Ok(option)
    }

    fn wait(&mut self, wait: NWait) {
        if self.waits.len() >= WAITS_MAX {
            return self.result(ErrId::ESYSNOBUFS);
        }
        self.wait_count += 1;
        self.waits.insert((wait.time, self.wait_count), wait.token);
        self.result(ErrId::SUCCESS);
    }

    /// When the first NTIME is due. A captured packet that came before may still rest in the kernel.
    pub(super) fn wait_deadline(&self) -> Option<Ticks> {
        let ((time, _), _) = self.waits.first_key_value()?;
        let delay = if self.captures() { CAPTURE_DELAY } else { 0 };
        // The clock must have passed the time, not only reached it.
        Some(time.saturating_add(delay).saturating_add(1))
    }

    pub(super) fn end_waits(&mut self, net: &mut impl Net) {
        while self.wait_deadline().is_some_and(|due| due <= net.now()) {
            let Some((_, token)) = self.waits.pop_first() else { return };
            let note = ExtNote::NTime(NTime { token, time: net.now() });
            let output = Output::Extension(note);
            self.fifo.push_back(Queued { output, share: Share::default(), kind: 0 });
        }
    }

    /// Connections that arrived at a listening socket are announced.
    pub(super) fn accept(&mut self, id: SocketId, net: &mut impl Net) {
        while self.slots[usize::from(id)].as_ref().is_some_and(|slot| slot.accepts()) {
            let Ok(accepted) = net.accept(id) else { return };
            let Some(waiting) = self.slots[usize::from(id)].as_mut().and_then(|slot| slot.listener.as_mut())
            else {
                return;
            };
            waiting.push(accepted);
            let note = ExtNote::NAccpt(NAccpt {
                listener: id,
                time: net.now(),
                handle: accepted.handle,
                remote: accepted.remote,
                local: accepted.local,
            });
            self.notify(id, mask::NSTAT, Output::Extension(note), Share::default());
        }
    }

    fn take(&mut self, take: NTake, net: &mut impl Net) {
        let errid = self.try_take(take, net).err().unwrap_or(ErrId::SUCCESS);
        self.result(errid);
        self.watch(take.listener, net);
        if errid == ErrId::SUCCESS {
            self.watch(take.socket, net);
        }
    }

    fn try_take(&mut self, take: NTake, net: &mut impl Net) -> Result<(), ErrId> {
        if self.opens_left == 0 {
            return Err(ErrId::ENORES);
        }
        if self.slots[usize::from(take.socket)].is_some() {
            return Err(ErrId::ESKTINUSE);
        }
        let listener = self.slots[usize::from(take.listener)].as_mut();
        let waiting = listener.and_then(|slot| slot.listener.as_mut()).ok_or(ErrId::ESKTNOTOPEN)?;
        let place = waiting.iter().position(|one| one.handle == take.handle).ok_or(ErrId::ESKTNOTOPEN)?;
        let accepted = waiting.swap_remove(place);
        if self.allowed(accepted.remote).is_err() {
            net.refuse(accepted.handle);
            return Err(ErrId::ESKTOPNDENY);
        }
        net.take(take.socket, accepted.handle);
        self.opens_left -= 1;
        let slot = self.slot(accepted.local, Some(accepted.remote), Proto::Tcp, take.rbufsz);
        self.slots[usize::from(take.socket)] = Some(Box::new(slot));
        Ok(())
    }
}

impl Slot {
    /// A listening socket may accept another connection. Those announced to a controller that does not take them, or does
    /// not read, stay in the kernel.
    pub fn accepts(&self) -> bool {
        self.listener.as_ref().is_some_and(|waiting| waiting.len() < PENDING_MAX)
    }
}

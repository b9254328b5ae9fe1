//! What each request does (spec `endpoint.md` §2 and §5).

use super::net::{Errno, Net, OpenFault};
use super::slot::Slot;
use super::{End, Phase, Session};
use pktlab::vmem::{SocketState, extension};
use pktlab::wire::{ErrId, Family, Frame, Message, NCtl, NOpen, OpenAddress, Outcome, Proto, SocketId};
use std::net::{IpAddr, SocketAddr};

impl Session {
    pub(super) fn set_up(&mut self, frame: Frame, net: &mut impl Net) {
        match frame {
            Frame::Message(Message::CData { hint, .. }) => {
                let errid = match &hint[..] {
                    // No monitor of a certificate can be loaded by this endpoint, and no digest of a filter is ever
                    // required, so every well-named program is one nobody asked for.
                    b"monitor" | b"filter" => ErrId::ECRTBADHDAT,
                    _ => ErrId::ECRTBADHINT,
                };
                self.result(errid);
            }
            Frame::Message(Message::Start) if !self.ledger.monitors().is_empty() => {
                tracing::warn!(
                    "refused the controller: its certificates demand {} monitor(s), which this endpoint cannot run",
                    self.ledger.monitors().len()
                );
                self.end_with(ErrId::ECRTNOHDAT, End::Refused, net);
            }
            Frame::Message(Message::Start) => {
                self.phase = Phase::Run;
                self.started = true;
                self.answer(Message::Result(Outcome::Plain(ErrId::SUCCESS)));
            }
            _ => self.result(ErrId::ECTLNOTSUP),
        }
    }

    pub(super) fn run(&mut self, frame: Frame, net: &mut impl Net) {
        let message = match frame {
            Frame::Message(message) => message,
            Frame::Unknown { code, raw } => return self.run_extension(code, &raw, net),
            Frame::Malformed { .. } => return self.result(ErrId::ECTLNOTSUP),
        };
        match message {
            Message::MRead { addr, len } => {
                self.refresh(addr, len, net);
                let data = self.memory_read(addr, len, net.now());
                self.answer(Message::MData { addr, data });
            }
            Message::MWrite { addr, data } => {
                self.memory_write(addr, &data, net);
                self.result(ErrId::SUCCESS);
            }
            Message::NOpen(open) => self.open(open, net),
            Message::NClose { socket } => self.close_socket(socket, net),
            Message::NSend(send) => self.send(send, net),
            Message::NCap(capture) => self.capture(&capture, net),
            Message::NCtl(control) => self.control(&control, net),
            Message::Yield { resume } => {
                self.end_with(ErrId::SUCCESS, End::Yield { resume }, net);
            }
            _ => self.result(ErrId::ECTLNOTSUP),
        }
    }

    fn open(&mut self, open: NOpen, net: &mut impl Net) {
        match self.try_open(&open, net) {
            Ok(failed) => {
                self.result(ErrId::SUCCESS);
                if let Some(errno) = failed {
                    self.connect_failed(open.socket, errno, net);
                }
                self.watch(open.socket, net);
            }
            Err(errid) => self.result(errid),
        }
    }

    /// Opens, or says why not; success carries the error of a connect that failed at once and is reported by NERR.
    fn try_open(&mut self, open: &NOpen, net: &mut impl Net) -> Result<Option<Errno>, ErrId> {
        let id = open.socket;
        if self.opens_left == 0 {
            return Err(ErrId::ENORES);
        }
        if self.slots[usize::from(id)].is_some() {
            return Err(ErrId::ESKTINUSE);
        }
        let v4 = open.address.family() == Family::V4;
        if !self.config.addresses.iter().any(|(address, _)| address.is_ipv4() == v4) {
            return Err(ErrId::ESKTNOPRFAM);
        }
        let mut failed = None;
        let slot = match open.address {
            OpenAddress::Udp { local } if self.config.udp => {
                let local = net.open_udp(id, local).map_err(|fault| open_error(fault, ErrId::EUDPNOPORT))?;
                self.slot(local, None, Proto::Udp, open.rbufsz)
            }
            OpenAddress::TcpConnect { local, remote } if self.config.tcp => {
                self.allowed(remote).map_err(|()| ErrId::ESKTOPNDENY)?;
                match net.open_tcp(id, local, remote) {
                    Ok(started) => {
                        let mut slot = self.slot(started.local, Some(remote), Proto::Tcp, open.rbufsz);
                        if !started.established {
                            slot.state = SocketState::Opening;
                        }
                        slot
                    }
                    // Toward a controller that understands NERR a connect fails in one way only, with its number.
                    Err(OpenFault::Connect(errno)) if self.enabled & extension::NERR != 0 => {
                        failed = Some(errno);
                        self.slot(local, Some(remote), Proto::Tcp, open.rbufsz)
                    }
                    Err(fault) => return Err(open_error(fault, ErrId::ETCPNOPORT)),
                }
            }
            OpenAddress::TcpListen { local } if self.config.tcp => {
                if self.enabled & extension::LISTEN == 0 {
                    return Err(ErrId::ECTLNOTSUP);
                }
                let local = net.listen(id, local).map_err(|fault| open_error(fault, ErrId::ETCPNOPORT))?;
                let mut slot = self.slot(local, None, Proto::Tcp, open.rbufsz);
                slot.listener = Some(Vec::new());
                slot
            }
            OpenAddress::Raw { local } if self.config.raw => self.open_raw(id, local, open.rbufsz, net)?,
            _ => return Err(ErrId::ESKTNOPROTO),
        };
        self.opens_left -= 1;
        self.slots[usize::from(id)] = Some(Box::new(slot));
        Ok(failed)
    }

    /// An unspecified address stands for the first exported one of its family (spec `raw.md` §1).
    fn open_raw(
        &mut self,
        id: SocketId,
        local: IpAddr,
        rbufsz: u32,
        net: &mut impl Net,
    ) -> Result<Slot, ErrId> {
        if local.is_ipv6() && self.enabled & extension::IPV6 == 0 {
            return Err(ErrId::EUNKFAULT);
        }
        let mut exported = self.config.addresses.iter().map(|(address, _)| *address);
        let same = |address: &IpAddr| {
            if local.is_unspecified() { address.is_ipv4() == local.is_ipv4() } else { *address == local }
        };
        let local = exported.find(same).ok_or(ErrId::ESKTNOADDR)?;
        net.open_raw(id, local).map_err(|fault| {
            tracing::warn!(
                "cannot open a raw socket on {local}: {fault:?}; `pktendpt check` says what is missing"
            );
            ErrId::EUNKFAULT
        })?;
        Ok(self.slot(SocketAddr::new(local, 0), None, Proto::Raw, rbufsz))
    }

    pub(super) fn slot(
        &mut self,
        local: SocketAddr,
        remote: Option<SocketAddr>,
        proto: Proto,
        rbufsz: u32,
    ) -> Slot {
        self.openings += 1;
        Slot::new(local, remote, proto, rbufsz, self.openings)
    }

    fn close_socket(&mut self, id: SocketId, net: &mut impl Net) {
        // What was sent meanwhile is told before the RESULT.
        self.recall(id, net);
        if !self.remove(id, net) {
            return self.result(ErrId::ESKTNOTOPEN);
        }
        self.result(ErrId::SUCCESS);
        self.watch_all(net);
    }

    fn control(&mut self, control: &NCtl, net: &mut impl Net) {
        let id = control.socket;
        let errid = match self.slots[usize::from(id)].as_mut() {
            Some(slot) if matches(slot, control.family, Proto::Tcp.octet()) => {
                if slot.state.is_error() || slot.listener.is_some() {
                    ErrId::ESKTNOTOPEN
                } else if control.command != NCtl::FIN {
                    ErrId::ECTLBADMSG
                } else {
                    if !matches!(slot.state, SocketState::Wfin | SocketState::End) {
                        slot.fin.get_or_insert(control.time);
                    }
                    ErrId::SUCCESS
                }
            }
            _ => ErrId::ESKTNOMATCH,
        };
        self.result(errid);
        if errid == ErrId::SUCCESS {
            // What must not precede the FIN may be handed over already.
            self.recall(id, net);
            self.transmit(id, net);
            self.watch(id, net);
        }
    }
}

/// The family and protocol of a request are those of its socket.
pub(super) fn matches(slot: &Slot, family: u8, proto: u8) -> bool {
    slot.family.octet() == family && slot.proto.octet() == proto
}

fn open_error(fault: OpenFault, in_use: ErrId) -> ErrId {
    match fault {
        OpenFault::Socket(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => ErrId::ENORES,
        OpenFault::Socket(Errno::AFNOSUPPORT) => ErrId::ESKTNOPRFAM,
        OpenFault::Bind(Errno::ADDRNOTAVAIL) => ErrId::ESKTNOADDR,
        OpenFault::Bind(Errno::ADDRINUSE) => in_use,
        OpenFault::Socket(_) | OpenFault::Bind(_) | OpenFault::Connect(_) => ErrId::EUNKFAULT,
    }
}

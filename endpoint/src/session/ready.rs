//! Readiness of the sockets: what a wake-up leads to, and which wake-ups are wanted.

use pktlab::vmem::SocketState;
use pktlab::wire::{Proto, SocketId, StatEvent};

use super::net::{Interest, Net, Ready};
use super::{Phase, Session};

impl Session {
    /// A watched socket became ready.
    pub fn ready(&mut self, id: SocketId, ready: Ready, net: &mut impl Net) {
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        if slot.state == SocketState::Opening {
            if ready.write || ready.read {
                self.connected(id, net);
            }
        } else {
            let watched = slot.watched;
            if ready.write {
                slot.blocked = false;
            }
            let (proto, listens) = (slot.proto, slot.listener.is_some());
            if ready.error && proto != Proto::Tcp {
                self.receive_errors(id, net);
            }
            if ready.read && watched.read {
                match proto {
                    Proto::Udp => self.receive_datagrams(id, net),
                    Proto::Raw => {
                        self.receive_packets(id, net);
                    }
                    Proto::Tcp if listens => self.accept(id, net),
                    Proto::Tcp => self.receive_stream(id, net),
                }
            }
            if ready.write {
                self.transmit(id, net);
            }
        }
        self.watch(id, net);
        self.send_freed(net);
    }

    fn connected(&mut self, id: SocketId, net: &mut impl Net) {
        let outcome = net.finish_connect(id);
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        match outcome {
            Ok(None) => {}
            Ok(Some((peer, local))) => {
                slot.state = SocketState::Open;
                slot.local = local;
                self.stat(id, StatEvent::Established(peer), net);
                self.transmit(id, net);
            }
            Err(errno) => self.connect_failed(id, errno, net),
        }
    }

    /// Tells the outside which readiness of a socket is of use now.
    pub(super) fn watch(&mut self, id: SocketId, net: &mut impl Net) {
        let room = self.stream_room(id).is_some();
        let Some(slot) = self.slots[usize::from(id)].as_mut() else { return };
        let read = match (slot.proto, slot.state) {
            (Proto::Udp, SocketState::Open) => true,
            (Proto::Raw, SocketState::Open) => slot.capture.is_some(),
            (Proto::Tcp, SocketState::Open) if slot.listener.is_some() => slot.accepts(),
            (Proto::Tcp, SocketState::Open | SocketState::Wfin) => room,
            _ => false,
        };
        let write =
            slot.state == SocketState::Opening || (slot.can_send() && slot.blocked && !slot.tx.is_empty());
        let wanted = Interest { read, write };
        if wanted != slot.watched {
            slot.watched = wanted;
            if !slot.state.is_error() {
                net.watch(id, wanted);
            }
        }
    }

    /// The same for all sockets, after a shared budget changed.
    pub(super) fn watch_all(&mut self, net: &mut impl Net) {
        if self.phase == Phase::Run {
            for id in 0..=SocketId::MAX {
                self.watch(id, net);
            }
        }
    }
}

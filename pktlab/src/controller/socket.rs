//! Measurement sockets at the endpoint: sending under the flow window, receiving, closing.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Error;
use super::event::Event;
use super::shared::{Pending, Shared};
use crate::vmem::socket as block;
use crate::wire::{Family, Message, NCtl, NSend, Proto, SocketId, Ticks};

/// Tag of every NSEND that goes under the flow window without one of the caller's: its NTAG is the acknowledgement.
const FLOW_TAG: u16 = 1;

/// How a socket is to be run.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Most receive budget to ask for, in payload bytes.
    pub receive: usize,
    /// Ask the endpoint to hold data back while more than 1 MiB waits for the consumer.
    pub hold: bool,
    /// Deliver NTAGs as events.
    pub tags: bool,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions { receive: 1 << 20, hold: true, tags: false }
    }
}

/// An open or opening socket. Dropping both halves closes it.
pub struct Socket {
    pub send: SendHalf,
    pub receive: RecvHalf,
}

/// What the halves share; the last one to go closes the socket.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) id: SocketId,
    pub(super) family: Family,
    pub(super) proto: Proto,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.shared.close_socket(self.id);
    }
}

/// Sending side; clones share the socket.
#[derive(Clone)]
pub struct SendHalf {
    pub(super) core: Arc<Core>,
}

/// Receiving side.
pub struct RecvHalf {
    core: Arc<Core>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Socket {
    /// Takes a number and a receive budget (payload bytes) for a socket that is about to be opened.
    pub(super) fn reserve(
        shared: &Arc<Shared>,
        family: Family,
        proto: Proto,
        options: SocketOptions,
    ) -> Result<(Socket, u32), Error> {
        let (id, rbufsz, events) = shared.reserve(options.hold, options.tags, options.receive)?;
        let core = Arc::new(Core { shared: shared.clone(), id, family, proto });
        Ok((Socket { send: SendHalf { core: core.clone() }, receive: RecvHalf { core, events } }, rbufsz))
    }

    pub(super) fn id(&self) -> SocketId {
        self.send.core.id
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        self.send.core.family
    }
}

impl SendHalf {
    /// Payload bytes one NSEND of a stream should not exceed.
    pub fn chunk(&self) -> usize {
        self.core.shared.chunk()
    }

    /// Queues one NSEND to be sent at once; waits while the flow window is full. `remote` exactly for UDP; the data of a raw
    /// socket is one packet from its network header on. An `Ok` means queued here: what the endpoint did with it comes as
    /// events.
    pub async fn send(&self, data: Bytes, remote: Option<SocketAddr>) -> Result<(), Error> {
        self.send_at(data, remote, 0, FLOW_TAG).await
    }

    /// As [`SendHalf::send`], not before `time`, with the caller's tag, which must not be 0.
    pub async fn send_at(
        &self,
        data: Bytes,
        remote: Option<SocketAddr>,
        time: Ticks,
        tag: u16,
    ) -> Result<(), Error> {
        let core = &self.core;
        let len = data.len();
        let message = Message::NSend(NSend {
            socket: core.id,
            family: core.family.octet(),
            proto: core.proto,
            time,
            tag,
            remote,
            data,
        });
        let encoded = message.encode().map_err(|error| Error::Encode(error.to_string()))?;
        loop {
            let credit = core.shared.credit.notified();
            tokio::pin!(credit);
            credit.as_mut().enable();
            if core.shared.try_send(core.id, len, &encoded)? {
                return Ok(());
            }
            credit.await;
        }
    }

    /// TCP: shuts down the sending side after everything sent so far.
    pub fn finish(&self) -> Result<(), Error> {
        // Time 1 is after the time 0 of all queued NSENDs and long past: the FIN follows them at once.
        let fin =
            NCtl { socket: self.core.id, family: self.core.family.octet(), time: 1, command: NCtl::FIN };
        self.core.shared.send(&Message::NCtl(fin), Pending::Ignored)
    }

    /// Waits until the endpoint's operating system has everything sent so far (or the session is over).
    pub async fn flushed(&self) {
        loop {
            let credit = self.core.shared.credit.notified();
            tokio::pin!(credit);
            credit.as_mut().enable();
            if self.core.shared.is_flushed(self.core.id) {
                return;
            }
            credit.await;
        }
    }

    /// The socket's block of endpoint memory (spec `vmem.md` §4).
    pub fn block_addr(&self) -> u32 {
        block::block(self.core.id)
    }
}

impl RecvHalf {
    /// The next event; `None` after [`Event::Ended`]. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event> {
        self.events.recv().await.inspect(|event| self.note(event))
    }

    /// The next event if one is there.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.events.try_recv().ok().inspect(|event| self.note(event))
    }

    fn note(&self, event: &Event) {
        let len = match event {
            Event::Data(received) => received.data.len(),
            Event::Error(error) => error.data.len(),
            Event::Stat(_) | Event::Tag(_) | Event::SendRefused(_) | Event::Ended => return,
        };
        self.core.shared.taken(self.core.id, len);
    }
}

//! A measurement socket whose every NSEND is followed to its end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pktlab::controller::{Controller, Error, Event, Received, Socket};
use pktlab::vmem::socket as block;
use pktlab::wire::{ErrId, Message, SocketId, Ticks};
use tokio::time::Instant;

use super::servers::Servers;
use super::tally::Tally;

/// Why an actor stops.
#[derive(Debug)]
pub enum Stop {
    /// The session is over.
    Ended,
    /// Something happened that must not.
    Wrong(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        match error {
            Error::Ended(_) => Stop::Ended,
            other => Stop::Wrong(other.to_string()),
        }
    }
}

/// One session and its books.
pub struct Lent {
    pub controller: Controller,
    pub servers: Servers,
    tally: Mutex<Tally>,
}

impl Lent {
    pub fn new(controller: Controller, servers: Servers) -> Lent {
        Lent { controller, servers, tally: Mutex::default() }
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Ward<'a> {
    pub socket: Socket,
    lent: &'a Lent,
    stream: bool,
    /// Payload bytes of NSENDs without an NTAG, by tag.
    waiting: HashMap<u16, usize>,
    refused: u64,
    tag: u16,
}

impl<'a> Ward<'a> {
    pub fn new(lent: &'a Lent, socket: Socket, stream: bool) -> Ward<'a> {
        if stream {
            lent.tally().streams = true;
        }
        Ward { socket, lent, stream, waiting: HashMap::new(), refused: 0, tag: 0 }
    }

    pub fn number(&self) -> SocketId {
        ((self.socket.send.block_addr() - block::BASE) / block::BLOCK) as SocketId
    }

    pub async fn send(&mut self, data: Bytes, remote: Option<SocketAddr>, time: Ticks) -> Result<(), Stop> {
        self.tag = self.tag.wrapping_add(1).max(1);
        let len = data.len();
        self.waiting.insert(self.tag, len);
        {
            let mut tally = self.lent.tally();
            tally.asked += 1;
            tally.asked_bytes += len as u64;
        }
        // A session that ends in here was asked for more than the endpoint saw, which a cut one may.
        Ok(self.socket.send.send_at(data, remote, time, self.tag).await?)
    }

    /// As [`Ward::send`] on a stream, unless the flow window is full for so long; false: nothing was sent.
    pub async fn send_within(&mut self, data: Bytes, until: Instant) -> Result<bool, Stop> {
        let len = data.len();
        if let Ok(outcome) = tokio::time::timeout_at(until, self.send(data, None, 0)).await {
            return outcome.map(|()| true);
        }
        self.waiting.remove(&self.tag);
        let mut tally = self.lent.tally();
        tally.asked -= 1;
        tally.asked_bytes -= len as u64;
        Ok(false)
    }

    /// The next event that is no outcome of an NSEND; `None` when the time is over.
    pub async fn event(&mut self, until: Instant) -> Result<Option<Event>, Stop> {
        loop {
            match tokio::time::timeout_at(until, self.socket.receive.recv()).await {
                Err(_) => return Ok(None),
                Ok(Some(Event::Ended) | None) => return Err(Stop::Ended),
                Ok(Some(event)) => {
                    if let Some(event) = self.note(event)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// The next data; `None` when the time is over or the stream is.
    pub async fn data(&mut self, until: Instant) -> Result<Option<Received>, Stop> {
        loop {
            match self.event(until).await? {
                Some(Event::Data(received)) => return Ok(Some(received)),
                Some(Event::Stat(_)) | None => return Ok(None),
                Some(_) => {}
            }
        }
    }

    fn note(&mut self, event: Event) -> Result<Option<Event>, Stop> {
        match event {
            Event::Tag(tagged) => {
                let Some(len) = self.waiting.remove(&tagged.tag) else {
                    return Err(Stop::Wrong(format!("NTAG for no NSEND: {tagged:?}")));
                };
                let mut tally = self.lent.tally();
                match tagged.errid {
                    ErrId::SUCCESS => {
                        tally.sent += 1;
                        tally.sent_bytes += len as u64;
                    }
                    ErrId::EPKTNOTSENT => {
                        tally.failed += 1;
                        tally.partial_bytes += if self.stream { len as u64 } else { 0 };
                    }
                    other => return Err(Stop::Wrong(format!("NTAG with {other}"))),
                }
                Ok(None)
            }
            Event::SendRefused(_) => {
                self.refused += 1;
                Ok(None)
            }
            other => Ok(Some(other)),
        }
    }

    /// Waits until every NSEND has its outcome, for a while.
    pub async fn settle(&mut self, longest: Duration) -> Result<(), Stop> {
        let until = Instant::now() + longest;
        while self.waiting.len() as u64 > self.refused && self.event(until).await?.is_some() {}
        Ok(())
    }

    /// NCLOSE, and the books closed: what the endpoint says before its RESULT counts.
    pub async fn close(mut self) -> Result<(), Stop> {
        let number = self.number();
        let answer = self.lent.controller.request(&Message::NClose { socket: number })?.success().await;
        match answer {
            // It was never opened.
            Err(error) if error.errid() == Some(ErrId::ESKTNOTOPEN) => {}
            outcome => outcome?,
        }
        while let Some(event) = self.socket.receive.try_recv() {
            self.note(event)?;
        }
        let mut tally = self.lent.tally();
        tally.refused += self.refused;
        let Some(lost) = (self.waiting.len() as u64).checked_sub(self.refused) else {
            return Err(Stop::Wrong("more NSENDs refused than made".to_owned()));
        };
        tally.lost += lost;
        if self.stream {
            tally.partial_bytes += self.waiting.values().map(|len| *len as u64).sum::<u64>();
        }
        Ok(())
        // The library sends another NCLOSE when the socket is dropped, which finds nothing and frees the number.
    }
}

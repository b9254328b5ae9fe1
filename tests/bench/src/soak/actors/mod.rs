//! What a controller does with an endpoint: each actor does one random thing after another until its time is over.

mod datagrams;
mod packets;
mod streams;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use pktlab::controller::SocketOptions;
use pktlab::vmem::socket as block;
use pktlab::wire::{ErrId, Message, NSend, Proto};
use tokio::time::Instant;

use super::ward::{Lent, Stop, Ward};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a session does.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Streams, too: then packets sent are not NSENDs.
    pub streams: bool,
    pub raw: bool,
}

/// Until the time is over, then returns with all its sockets closed.
pub async fn act(lent: &Lent, mut dice: Rng, scope: Scope, until: Instant) -> Result<(), Stop> {
    while Instant::now() < until {
        match dice.u8(..if scope.streams { 14 } else { 8 }) {
            0 | 1 => datagrams::echoed(lent, &mut dice).await?,
            2 => datagrams::timed(lent, &mut dice).await?,
            3 => datagrams::held(lent, &mut dice).await?,
            4 => datagrams::broken(lent, &mut dice).await?,
            5 | 6 if scope.raw => packets::captured(lent, &mut dice).await?,
            5..=7 => requests(lent, &mut dice).await?,
            8 | 9 => streams::echoed(lent, &mut dice).await?,
            10 => streams::failed(lent, &mut dice).await?,
            11 => streams::slow(lent, &mut dice).await?,
            12 => streams::downloaded(lent, &mut dice).await?,
            _ => streams::accepted(lent, &mut dice).await?,
        }
        if dice.bool() {
            tokio::time::sleep(Duration::from_millis(dice.u64(..120))).await;
        }
    }
    Ok(())
}

fn options(dice: &mut Rng) -> SocketOptions {
    SocketOptions { receive: dice.usize(4_096..1 << 20), hold: dice.bool(), tags: true }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Wrong(text.into()))
}

/// The value of a private cell of the socket's block is what was written; a mask is written in pieces.
async fn scratch(ward: &Ward<'_>, lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let at = ward.socket.send.block_addr() + block::CTFL + dice.u32(..64);
    let data: Bytes = (0..dice.usize(1..64)).map(|_| dice.u8(..)).collect();
    let written = lent.controller.mwrite(at, data.clone());
    let read = lent.controller.mread(at, data.len() as u16);
    written.await?;
    if read.await? != data {
        return wrong("memory does not hold what was written");
    }
    lent.tally().others += 2;
    Ok(())
}

/// Requests without a socket.
async fn requests(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let controller = &lent.controller;
    let now = controller.time().await?;
    let reads: Vec<_> = (0..dice.usize(1..200))
        .map(|_| controller.mread(0x1000_0000 + dice.u32(..0x4_0000), dice.u16(1..2_048)))
        .collect();
    for read in reads {
        match read.await {
            Err(error) if error.errid() == Some(ErrId::EMEMBADADR) => {}
            outcome => drop(outcome?),
        }
    }
    let target = now + dice.u64(..100_000_000);
    if controller.wait_until(target).await? < target {
        return wrong("NTIME came before its time");
    }
    // No socket has this family, and most numbers have no socket.
    let stranger = NSend {
        socket: dice.u8(..),
        family: 5,
        proto: Proto::Tcp,
        time: 0,
        tag: 7,
        remote: None,
        data: Bytes::from_static(b"stranger"),
    };
    match controller.request(&Message::NSend(stranger))?.success().await {
        Err(error) if matches!(error.errid(), Some(ErrId::ESKTNOTOPEN | ErrId::ESKTNOMATCH)) => {}
        Err(error) => return Err(error.into()),
        Ok(()) => return wrong("an NSEND to no socket was accepted"),
    }
    lent.tally().others += 3;
    Ok(())
}

//! UDP sockets.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use pktlab::controller::Event;
use pktlab::vmem::{mask, socket as block};
use pktlab::wire::{Family, SockOpt};
use tokio::time::Instant;

use super::super::servers::stretch;
use super::super::ward::{Lent, Stop, Ward};
use super::{ANY, options, scratch, wrong};

const REFUSED: i32 = rustix::io::Errno::CONNREFUSED.raw_os_error();
/// An hour, ns.
const LATER: u64 = 3_600_000_000_000;

async fn open<'a>(lent: &'a Lent, dice: &mut Rng) -> Result<Ward<'a>, Stop> {
    let (socket, opening) = lent.controller.open_udp(ANY, options(dice))?;
    let ward = Ward::new(lent, socket, false);
    opening.local(Family::V4).await?;
    Ok(ward)
}

/// The first two bytes are the length, so that a mix-up shows.
fn datagram(dice: &mut Rng) -> Bytes {
    let len = if dice.u8(..10) == 0 { dice.usize(2..9_000) } else { dice.usize(2..1_400) };
    let mut data = stretch(0, len);
    data[..2].copy_from_slice(&(len as u16).to_be_bytes());
    data.into()
}

fn check(data: &[u8]) -> Result<(), Stop> {
    let len = data.first_chunk().map_or(0, |len| usize::from(u16::from_be_bytes(*len)));
    // A receive budget that is nearly used up truncates.
    if data.len() > len || data.get(2..) != stretch(0, data.len()).get(2..) {
        return wrong("an echo is not what was sent");
    }
    Ok(())
}

/// Sent at once, sent back, options changed meanwhile.
pub async fn echoed(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let mut ward = open(lent, dice).await?;
    if dice.bool() {
        let option = if dice.bool() { SockOpt::Ttl } else { SockOpt::Tos };
        let value = dice.u32(1..64) * 4;
        ward.socket.send.set_option(option, value).await?;
        if ward.socket.send.option(option).await? != value {
            return wrong("an option is not what was set");
        }
    }
    for _ in 0..dice.usize(1..40) {
        ward.send(datagram(dice), Some(lent.servers.udp_echo), 0).await?;
    }
    let until = Instant::now() + Duration::from_millis(dice.u64(..200));
    while let Some(received) = ward.data(until).await? {
        check(&received.data)?;
    }
    if dice.bool() {
        scratch(&ward, lent, dice).await?;
    }
    ward.close().await
}

/// Sent at its time, or never because the socket is closed before.
pub async fn timed(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let mut ward = open(lent, dice).await?;
    let mut time = lent.controller.time().await?;
    for _ in 0..dice.usize(1..60) {
        time += dice.u64(..3_000_000);
        ward.send(datagram(dice), Some(lent.servers.udp_echo), time).await?;
    }
    if dice.bool() {
        for _ in 0..dice.usize(1..10) {
            ward.send(datagram(dice), Some(lent.servers.udp_echo), time + LATER).await?;
        }
        ward.settle(Duration::from_millis(dice.u64(..200))).await?;
    } else {
        ward.settle(Duration::from_secs(5)).await?;
    }
    ward.close().await
}

/// Notifications held back and let go, or lost with the socket.
pub async fn held(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let mut ward = open(lent, dice).await?;
    let cell = ward.socket.send.block_addr() + block::NOTIFMASK;
    let write = |bits: u16| lent.controller.mwrite(cell, Bytes::copy_from_slice(&bits.to_be_bytes()));
    write(mask::NDATA | mask::NDROP).await?;
    for _ in 0..dice.usize(1..40) {
        ward.send(datagram(dice), Some(lent.servers.udp_echo), 0).await?;
    }
    let until = Instant::now() + Duration::from_millis(dice.u64(..100));
    if ward.data(until).await?.is_some() {
        return wrong("data came through a mask");
    }
    if dice.bool() {
        write(0).await?;
        let until = Instant::now() + Duration::from_millis(50);
        while let Some(received) = ward.data(until).await? {
            check(&received.data)?;
        }
    } else {
        lent.tally().held = true;
    }
    ward.close().await
}

/// A port where nobody is, and a datagram that no system takes.
pub async fn broken(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let mut ward = open(lent, dice).await?;
    for _ in 0..dice.usize(1..5) {
        ward.send(datagram(dice), Some(lent.servers.closed), 0).await?;
    }
    let until = Instant::now() + Duration::from_millis(200);
    while let Some(event) = ward.event(until).await? {
        match event {
            Event::Error(error) if i32::from(error.errno) == REFUSED => break,
            Event::Error(error) => return wrong(format!("an unexpected error: {error:?}")),
            _ => {}
        }
    }
    if dice.bool() {
        ward.send(stretch(0, 65_530).into(), Some(lent.servers.udp_echo), 0).await?;
        ward.send(datagram(dice), Some(lent.servers.udp_echo), 0).await?;
        ward.settle(Duration::from_millis(100)).await?;
    }
    ward.close().await
}

//! TCP sockets.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use pktlab::controller::{ConnectFailure, Connected};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::servers::{SOURCE, echo, stretch};
use super::super::ward::{Lent, Stop, Ward};
use super::{LOOPBACK, options, scratch, wrong};

/// For something that should happen at once, over a link that stalls.
const SOON: Duration = Duration::from_secs(60);

async fn connect<'a>(lent: &'a Lent, to: std::net::SocketAddr, dice: &mut Rng) -> Result<Ward<'a>, Stop> {
    lent.tally().streams = true;
    match lent.controller.connect_tcp(None, to, options(dice))?.established().await {
        Ok(Connected { socket, .. }) => Ok(Ward::new(lent, socket, true)),
        Err(ConnectFailure::Request(error)) => Err(error.into()),
        Err(failure) => wrong(format!("no connection to {to}: {failure:?}")),
    }
}

/// All of it comes back, unless the socket is closed before.
pub async fn echoed(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let mut ward = connect(lent, lent.servers.tcp_echo, dice).await?;
    converse(lent, &mut ward, dice).await?;
    ward.close().await
}

async fn converse(lent: &Lent, ward: &mut Ward<'_>, dice: &mut Rng) -> Result<(), Stop> {
    let hasty = dice.u8(..4) == 0;
    let (mut given, mut got) = (0, 0);
    for _ in 0..dice.usize(1..12) {
        let len = dice.usize(1..40_000);
        ward.send(stretch(given, len).into(), None, 0).await?;
        given += len;
        if hasty {
            continue;
        }
        let until = Instant::now() + SOON;
        while got < given {
            let Some(received) = ward.data(until).await? else {
                return wrong(format!("{got} of {given} bytes came back"));
            };
            if received.data != stretch(got, received.data.len()) {
                return wrong("what came back is not what was sent");
            }
            got += received.data.len();
        }
    }
    if dice.bool() {
        scratch(ward, lent, dice).await?;
    }
    if hasty {
        // Data that the library has the endpoint hold back is lost with the socket.
        lent.tally().held = true;
        return Ok(());
    }
    ward.socket.send.finish()?;
    if ward.data(Instant::now() + SOON).await?.is_some() {
        return wrong("data after all data");
    }
    Ok(())
}

/// Nobody there, or somebody who resets the connection.
pub async fn failed(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    if dice.bool() {
        let connecting = lent.controller.connect_tcp(None, lent.servers.closed, options(dice))?;
        return match connecting.established().await {
            Err(ConnectFailure::Request(error)) => Err(error.into()),
            Err(_) => Ok(()),
            Ok(_) => wrong("a connection to nobody"),
        };
    }
    let mut ward = connect(lent, lent.servers.reset, dice).await?;
    for _ in 0..dice.usize(1..30) {
        ward.send(stretch(0, dice.usize(1..20_000)).into(), None, 0).await?;
    }
    ward.settle(Duration::from_millis(300)).await?;
    ward.close().await
}

/// More than the far side takes before the socket is closed.
pub async fn slow(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let mut ward = connect(lent, lent.servers.slow, dice).await?;
    let data = Bytes::from(stretch(0, dice.usize(1_000..65_536)));
    let until = Instant::now() + Duration::from_millis(dice.u64(50..1_000));
    let mut given = 0;
    while Instant::now() < until && given < 8 << 20 {
        if !ward.send_within(data.clone(), until).await? {
            break;
        }
        given += data.len();
    }
    ward.close().await
}

/// From a server that sends and closes; sometimes left in the middle.
pub async fn downloaded(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let mut ward = connect(lent, lent.servers.source, dice).await?;
    let wanted = if dice.bool() { SOURCE } else { dice.usize(..SOURCE) };
    let (mut got, until) = (0, Instant::now() + SOON);
    while got < wanted {
        let Some(received) = ward.data(until).await? else {
            return wrong(format!("{got} of {wanted} bytes arrived"));
        };
        if received.data != stretch(got, received.data.len()) {
            return wrong("what arrived is not what was sent");
        }
        got += received.data.len();
    }
    if wanted < SOURCE {
        lent.tally().held = true;
    }
    ward.close().await
}

/// Somebody connects to a listening socket.
pub async fn accepted(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    lent.tally().streams = true;
    let mut listener = lent.controller.listen(LOOPBACK, options(dice)).await?;
    for _ in 0..dice.usize(1..4) {
        let address = listener.local();
        let caller = tokio::spawn(async move { echo(TcpStream::connect(address).await?).await });
        let connected = listener.accept().await?;
        let mut ward = Ward::new(lent, connected.socket, true);
        converse(lent, &mut ward, dice).await?;
        ward.close().await?;
        caller.abort();
    }
    Ok(())
}

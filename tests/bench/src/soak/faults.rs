//! What lies between the endpoint and its controller: a relay that delays, splits, stalls and cuts, as its dice say.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// For an endpoint to come.
const PATIENCE: Duration = Duration::from_secs(90);
const READ: usize = 32 * 1024;

/// What one connection has to suffer.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Most bytes passed on at once.
    pub piece: usize,
    /// Longest delay of a piece.
    pub delay: Duration,
    /// One piece in so many is held up for a time that is random up to `stall_most`.
    pub stall_each: u32,
    pub stall_most: Duration,
    /// The connection's end.
    pub cut: Option<Cut>,
}

#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub after: Duration,
    /// With a reset, else by closing both sides as if nothing had happened.
    pub reset: bool,
}

impl Faults {
    /// For a session that is to last `length`.
    pub fn throw(dice: &mut Rng, length: Duration) -> Faults {
        let nothing = dice.u8(..4) == 0;
        let piece = if dice.bool() || nothing { READ } else { dice.usize(16..4_096) };
        let delay = if dice.bool() || nothing { 0 } else { dice.u64(1..8) };
        let stall_each = if dice.u8(..3) > 0 || nothing { u32::MAX } else { dice.u32(20..2_000) };
        let cut = (dice.u8(..5) < 2).then(|| Cut {
            // Some already in the handshake.
            after: if dice.u8(..4) == 0 {
                Duration::from_millis(dice.u64(..30))
            } else {
                length.mul_f64(dice.f64())
            },
            reset: dice.bool(),
        });
        Faults {
            piece,
            delay: Duration::from_millis(delay),
            stall_each,
            stall_most: Duration::from_millis(dice.u64(200..3_000)),
            cut,
        }
    }
}

/// Where the endpoint connects to.
pub struct Relay {
    listener: TcpListener,
    controller: SocketAddr,
}

impl Relay {
    pub async fn new(controller: SocketAddr) -> Result<Relay> {
        Ok(Relay { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?, controller })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Joins the next connection of the endpoint to the controller. The task ends when the connection has.
    pub async fn next(&self, faults: Faults, dice: Rng) -> Result<JoinHandle<()>> {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (endpoint, _) = accepted.context("the endpoint does not come back")??;
        let controller = TcpStream::connect(self.controller).await?;
        endpoint.set_nodelay(true)?;
        controller.set_nodelay(true)?;
        Ok(tokio::spawn(relay(endpoint, controller, faults, dice)))
    }
}

async fn relay(mut endpoint: TcpStream, mut controller: TcpStream, faults: Faults, mut dice: Rng) {
    if faults.cut.is_some_and(|cut| cut.reset) {
        for stream in [&endpoint, &controller] {
            // Then it ends with a reset, not a FIN, when it is dropped.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
    // Owned halves would send a FIN before the reset.
    let (from_endpoint, to_endpoint) = endpoint.split();
    let (from_controller, to_controller) = controller.split();
    let passing = async {
        tokio::join!(
            pass(from_endpoint, to_controller, &faults, dice.fork()),
            pass(from_controller, to_endpoint, &faults, dice.fork())
        )
    };
    match faults.cut {
        Some(cut) => drop(tokio::time::timeout(cut.after, passing).await),
        None => drop(passing.await),
    }
}

async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, faults: &Faults, mut dice: Rng) {
    let mut buffer = vec![0; READ];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let (piece, more) =
                rest.split_at(dice.usize(1..=faults.piece).max(faults.piece / 2).min(rest.len()));
            if !faults.delay.is_zero() && dice.u8(..8) == 0 {
                tokio::time::sleep(faults.delay.mul_f64(dice.f64())).await;
            }
            if faults.stall_each != u32::MAX && dice.u32(..faults.stall_each) == 0 {
                tokio::time::sleep(faults.stall_most.mul_f64(dice.f64())).await;
            }
            if to.write_all(piece).await.is_err() {
                return;
            }
            rest = more;
        }
    }
    let _ = to.shutdown().await;
}

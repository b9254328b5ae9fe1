//! Round trips, starts of sessions, memory.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pktlab::controller::{Controller, SocketOptions};
use pktlab::vmem::system;
use pktlab::wire::{ErrId, Family, Frame, MAX_BODY, Message, Outcome};
use serde_json::{Map, Value, json};

use super::percentile;
use crate::median;
use crate::standing::{Meeting, Standing};

const READS: usize = 2_000;
const STARTS: usize = 50;
const SOCKETS: usize = 256;

/// MREADs of 8 bytes, one after the other.
pub async fn round_trips(controller: &Controller) -> Result<Map<String, Value>> {
    eprintln!("round trips");
    let mut times = Vec::with_capacity(READS);
    for _ in 0..READS {
        let begun = Instant::now();
        controller.mread(system::TIME, 8).await?;
        times.push(begun.elapsed().as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (percentile(&times, 0.5), percentile(&times, 0.99));
    println!("MREAD of 8 bytes: p50 {:.1} µs, p99 {:.1} µs", p50 / 1e3, p99 / 1e3);
    let mut figures = Map::new();
    figures.insert("mread_p50_ns".into(), json!(p50 as u64));
    figures.insert("mread_p99_ns".into(), json!(p99 as u64));
    Ok(figures)
}

/// From the connection to the answer of START.
pub async fn starts(meeting: &Meeting, endpoint: &Standing) -> Result<Map<String, Value>> {
    eprintln!("starts of {STARTS} sessions");
    let mut times = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        endpoint.hurry()?;
        let stream = meeting.connection().await?;
        let begun = Instant::now();
        let (mut reader, mut writer) = meeting.handshake(stream).await?.split(MAX_BODY);
        writer.send(&Message::Start).await?;
        let answer = reader.next().await?.context("the endpoint closed the connection")?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        match answer {
            Frame::Message(Message::Result(Outcome::Plain(ErrId::SUCCESS))) => {}
            other => bail!("START was answered with {other:?}"),
        }
        writer.shutdown().await?;
        while reader.next().await?.is_some() {}
    }
    let middle = median(&times)?;
    println!("session start: {middle:.2} ms");
    let mut figures = Map::new();
    figures.insert("session_start_ms".into(), json!((middle * 1000.0).round() / 1000.0));
    Ok(figures)
}

/// Resident memory of a fresh endpoint: without a controller, in a session, with all sockets open.
pub async fn memory() -> Result<Map<String, Value>> {
    eprintln!("memory");
    let meeting = Meeting::new().await?;
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let alone = Standing::start(&meeting.credentials, nobody)?;
    // Two attempts have failed by then.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let idle = alone.rss()?;
    drop(alone);

    let endpoint = Standing::start(&meeting.credentials, meeting.address()?)?;
    let controller = Controller::start(meeting.session().await?).await?;
    let session = endpoint.rss()?;
    let options = SocketOptions { receive: 1 << 20, hold: true, tags: false };
    let mut sockets = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        let (socket, opening) = controller.open_udp((Ipv4Addr::UNSPECIFIED, 0).into(), options)?;
        opening.local(Family::V4).await?;
        sockets.push(socket);
    }
    let open = endpoint.rss()?;
    let mib = |bytes: u64| bytes as f64 / 1048576.0;
    println!(
        "resident memory: {:.1} MiB waiting, {:.1} MiB in a session, {:.1} MiB with {SOCKETS} sockets",
        mib(idle),
        mib(session),
        mib(open)
    );
    let mut figures = Map::new();
    figures.insert("rss_idle_bytes".into(), json!(idle));
    figures.insert("rss_session_bytes".into(), json!(session));
    figures.insert("rss_256_bytes".into(), json!(open));
    Ok(figures)
}

//! How late timed sends are: the endpoint's, those of a tokio timer and those of an absolute sleep, all to the same kind of
//! receiver in the same run.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use pktendpt::net::now;
use pktlab::controller::{Controller, SocketOptions};
use pktlab::wire::{Family, Ticks};
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use super::arrivals::{Arrivals, datagram};
use super::load::Hogs;
use super::percentile;
use crate::median;

const COUNT: usize = 2_000;
const INTERVAL: Ticks = 1_000_000;
/// From the first request to the first send: all requests are at the endpoint by then.
const HEAD_START: Ticks = 300_000_000;
const REPETITIONS: usize = 5;
const CONDITIONS: [&str; 2] = ["quiet", "hogs"];
const SENDERS: [&str; 3] = ["endpoint", "tokio", "nanosleep"];
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];

/// One repetition of one sender, ns.
struct Run {
    quantiles: [f64; 3],
    early: u64,
}

/// Prints a table; the figures of the JSON line.
pub async fn measure(controller: &Controller) -> Result<Map<String, Value>> {
    let mut runs: [[Vec<Run>; SENDERS.len()]; CONDITIONS.len()] = Default::default();
    for repetition in 1..=REPETITIONS {
        for (condition, name) in CONDITIONS.iter().enumerate() {
            eprintln!("timed sends, repetition {repetition} of {REPETITIONS}: {name}");
            let _hogs = if *name == "hogs" { Some(Hogs::start()?) } else { None };
            for (sender, name) in SENDERS.iter().enumerate() {
                let run = run(sender, controller).await.with_context(|| format!("sender {name}"))?;
                runs[condition][sender].push(run);
            }
        }
    }
    let mut figures = Map::new();
    println!("timed sends, 1 ms x {COUNT}, late by (medians of {REPETITIONS} interleaved repetitions):");
    let mut worst = [[f64::MIN; QUANTILES.len()]; SENDERS.len()];
    for (sender, name) in SENDERS.iter().enumerate() {
        for (condition, runs) in CONDITIONS.iter().zip(&runs) {
            let runs = &runs[sender];
            let mut line = format!("  {name:<10} {condition:<6}");
            for (at, (quantile, _)) in QUANTILES.iter().enumerate() {
                let samples: Vec<f64> = runs.iter().map(|run| run.quantiles[at]).collect();
                let middle = median(&samples)?;
                let least = samples.iter().copied().fold(f64::MAX, f64::min);
                let most = samples.iter().copied().fold(f64::MIN, f64::max);
                worst[sender][at] = worst[sender][at].max(middle);
                figures.insert(format!("{name}_{condition}_{quantile}_ns"), json!(middle as i64));
                let micros = [middle, least, most].map(|ns| ns / 1e3);
                line += &format!("  {quantile} {:7.1} µs ({:.1}-{:.1})", micros[0], micros[1], micros[2]);
            }
            println!("{line}");
        }
    }
    let early: u64 = runs.iter().flat_map(|senders| &senders[0]).map(|run| run.early).sum();
    println!("  sends of the endpoint before their time: {early}");
    figures.insert("send_early".into(), json!(early));
    for (at, (quantile, _)) in QUANTILES.iter().enumerate() {
        for (prefix, worst) in ["send", "tokio", "nanosleep"].iter().zip(&worst) {
            figures.insert(format!("{prefix}_{quantile}_ns"), json!(worst[at] as i64));
        }
    }
    Ok(figures)
}

async fn run(sender: usize, controller: &Controller) -> Result<Run> {
    let arrivals = Arrivals::new()?;
    let to = arrivals.address()?;
    let begin = match sender {
        0 => endpoint(controller, to).await?,
        1 => apart(move || tokio_timer(to)).await?,
        _ => apart(move || nanosleep(to)).await?,
    };
    let times = arrivals.take(COUNT)?;
    let mut late: Vec<f64> = times
        .iter()
        .enumerate()
        // Subtracted as integers: a float has no room for nanoseconds since the epoch.
        .map(|(number, time)| (*time as i64 - target(begin, number) as i64) as f64)
        .collect();
    late.sort_by(f64::total_cmp);
    let early = late.iter().filter(|late| **late < 0.0).count() as u64;
    Ok(Run { quantiles: QUANTILES.map(|(_, quantile)| percentile(&late, quantile)), early })
}

fn target(begin: Ticks, number: usize) -> Ticks {
    begin + number as Ticks * INTERVAL
}

/// All sends are at the endpoint before the first is due.
async fn endpoint(controller: &Controller, to: SocketAddr) -> Result<Ticks> {
    let options = SocketOptions { receive: 0, hold: false, tags: false };
    let (socket, opening) = controller.open_udp((Ipv4Addr::UNSPECIFIED, 0).into(), options)?;
    opening.local(Family::V4).await?;
    let begin = now() + HEAD_START;
    for number in 0..COUNT {
        let data = Bytes::copy_from_slice(&datagram(number));
        socket.send.send_at(data, Some(to), target(begin, number), 1).await?;
    }
    socket.send.flushed().await;
    Ok(begin)
}

/// On a thread of its own.
async fn apart(work: impl FnOnce() -> Result<Ticks> + Send + 'static) -> Result<Ticks> {
    tokio::task::spawn_blocking(work).await?
}

fn tokio_timer(to: SocketAddr) -> Result<Ticks> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (instant, clock) = (Instant::now(), now());
        let begin = clock + HEAD_START;
        for number in 0..COUNT {
            sleep_until(instant + Duration::from_nanos(target(begin, number) - clock)).await;
            socket.send_to(&datagram(number), to)?;
        }
        Ok(begin)
    })
}

fn nanosleep(to: SocketAddr) -> Result<Ticks> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let begin = now() + HEAD_START;
    for number in 0..COUNT {
        let target = target(begin, number);
        let until =
            Timespec { tv_sec: (target / 1_000_000_000) as i64, tv_nsec: (target % 1_000_000_000) as _ };
        while clock_nanosleep_absolute(ClockId::Realtime, &until) == Err(rustix::io::Errno::INTR) {}
        socket.send_to(&datagram(number), to)?;
    }
    Ok(begin)
}

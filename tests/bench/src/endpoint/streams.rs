//! TCP through the endpoint, both ways, against the bare pipe.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use pktlab::controller::{Connected, Controller, Event, SocketOptions};
use serde_json::{Map, Value, json};

use super::pipe::{self, Sender};
use super::ratio;
use crate::median;

const TOTAL: u64 = 1 << 30;
const LONGEST: Duration = Duration::from_secs(10);
const REPETITIONS: usize = 5;
/// Bytes of one write, and most bytes of one NSEND and NDATA.
const PIECE: usize = 64 * 1024;

pub async fn measure(controller: &Controller) -> Result<Map<String, Value>> {
    let mut samples: [Vec<f64>; 4] = Default::default();
    for repetition in 1..=REPETITIONS {
        eprintln!("streams, repetition {repetition} of {REPETITIONS}");
        samples[0].push(download(controller).await.context("download")?);
        // The endpoint is the TLS client.
        samples[1].push(pipe::rate(Sender::Client, TOTAL, PIECE).await.context("pipe down")?);
        samples[2].push(upload(controller).await.context("upload")?);
        samples[3].push(pipe::rate(Sender::Server, TOTAL, PIECE).await.context("pipe up")?);
    }
    let mut rates = [0.0; 4];
    for (rate, samples) in rates.iter_mut().zip(&samples) {
        *rate = median(samples)?;
    }
    let mib = rates.map(|rate| (rate / 1048576.0).round());
    println!(
        "TCP down {:.0} MiB/s, bare TLS {:.0} MiB/s; up {:.0} MiB/s, bare TLS {:.0} MiB/s",
        mib[0], mib[1], mib[2], mib[3]
    );
    let mut figures = Map::new();
    figures.insert("tcp_down_vs_tls".into(), json!(ratio(rates[0], rates[1])));
    figures.insert("tcp_up_vs_tls".into(), json!(ratio(rates[2], rates[3])));
    for (name, mib) in ["tcp_down", "tls_down", "tcp_up", "tls_up"].iter().zip(mib) {
        figures.insert(format!("{name}_mib_per_s"), json!(mib));
    }
    Ok(figures)
}

async fn connect(controller: &Controller, listener: &TcpListener) -> Result<Connected> {
    let connecting = controller.connect_tcp(None, listener.local_addr()?, SocketOptions::default())?;
    connecting.established().await.map_err(|failure| anyhow!("no connection: {failure:?}"))
}

/// Bytes per second out of the controller API.
async fn download(controller: &Controller) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let source = listener.try_clone()?;
    let source = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = source.accept()?;
        let data = vec![b'x'; PIECE];
        for _ in 0..TOTAL / PIECE as u64 {
            // An error: the other side has enough.
            if stream.write_all(&data).is_err() {
                break;
            }
        }
        Ok(())
    });
    let mut connected = connect(controller, &listener).await?;
    let (mut got, mut begun) = (0, None);
    while got < TOTAL {
        match connected.socket.receive.recv().await {
            Some(Event::Data(received)) => got += received.data.len() as u64,
            Some(Event::Ended) | None => bail!("the session ended in a download"),
            Some(Event::Stat(stat)) => ensure!(got == TOTAL, "the download ended early: {stat:?}"),
            Some(_) => {}
        }
        if begun.get_or_insert_with(Instant::now).elapsed() > LONGEST {
            break;
        }
    }
    let seconds = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
    drop(connected);
    source.join().map_err(|_| anyhow!("the source panicked"))??;
    Ok(got as f64 / seconds)
}

/// Bytes per second into the controller API and out of the endpoint.
async fn upload(controller: &Controller) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sink = listener.try_clone()?;
    let sink = tokio::task::spawn_blocking(move || -> std::io::Result<(u64, Instant)> {
        let (mut stream, _) = sink.accept()?;
        let mut buffer = vec![0; 4 * PIECE];
        let mut got = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok((got, Instant::now())),
                count => got += count as u64,
            }
        }
    });
    let connected = connect(controller, &listener).await?;
    let send = &connected.socket.send;
    let data = Bytes::from(vec![b'x'; PIECE.min(send.chunk())]);
    let (begun, mut given) = (Instant::now(), 0);
    while given < TOTAL && begun.elapsed() < LONGEST {
        send.send(data.clone(), None).await?;
        given += data.len() as u64;
    }
    send.finish()?;
    let (got, ended) = sink.await??;
    ensure!(got == given, "{got} of {given} bytes of an upload arrived");
    Ok(got as f64 / (ended - begun).as_secs_f64())
}

//! Raw packets per second through the endpoint, against a loop of `sendto` in this process.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use pktlab::controller::{Controller, SocketOptions};
use pktlab::vmem::socket::block;
use pktlab::wire::{Family, Message, NSend, Proto, SocketId};
use serde_json::{Map, Value, json};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::ratio;
use crate::median;

const REPETITIONS: usize = 5;
const LENGTH: Duration = Duration::from_secs(1);
const PACKET: usize = 64;
/// NSENDs whose RESULT is awaited.
const AHEAD: usize = 512;

pub async fn measure(controller: &Controller) -> Result<Map<String, Value>> {
    let mut figures = Map::new();
    if !controller.info().supports(Proto::Raw) {
        println!("raw packets: not permitted here");
        figures.insert("raw_vs_sendto".into(), Value::Null);
        return Ok(figures);
    }
    // Takes what comes until its small buffer is full; the rest is discarded without an answer.
    let discard = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket2::SockRef::from(&discard).set_recv_buffer_size(2048)?;
    let SocketAddr::V4(to) = discard.local_addr()? else { unreachable!("bound to IPv4") };
    let packet = packet(to.port());
    let mut samples: [Vec<f64>; 3] = Default::default();
    for repetition in 1..=REPETITIONS {
        eprintln!("raw packets, repetition {repetition} of {REPETITIONS}");
        samples[0].push(untagged(controller, &packet).await?);
        samples[1].push(tagged(controller, &packet).await?);
        let (to, packet) = (to.into(), packet.clone());
        samples[2].push(tokio::task::spawn_blocking(move || bare(to, &packet)).await??);
    }
    let (untagged, tagged, bare) = (median(&samples[0])?, median(&samples[1])?, median(&samples[2])?);
    println!("raw packets per second: {untagged:.0} untagged, {tagged:.0} tagged, {bare:.0} by sendto");
    figures.insert("raw_vs_sendto".into(), json!(ratio(untagged, bare)));
    figures.insert("raw_tagged_vs_sendto".into(), json!(ratio(tagged, bare)));
    figures.insert("raw_per_s".into(), json!(untagged.round()));
    figures.insert("sendto_per_s".into(), json!(bare.round()));
    Ok(figures)
}

/// An IPv4 packet with a UDP datagram to this port of loopback. The kernel fills in length, identification and checksum;
/// the datagram has none, which is allowed.
fn packet(port: u16) -> Bytes {
    let mut packet = vec![0; PACKET];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(PACKET as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    packet[16..20].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    packet[20..22].copy_from_slice(&9u16.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..26].copy_from_slice(&(PACKET as u16 - 20).to_be_bytes());
    packet.into()
}

/// NSENDs at once without a tag. The last one has a tag, so that all have left before the clock is stopped.
async fn untagged(controller: &Controller, packet: &Bytes) -> Result<f64> {
    let options = SocketOptions { receive: 0, hold: false, tags: false };
    let (socket, opening) = controller.open_raw(Ipv4Addr::LOCALHOST.into(), options)?;
    opening.local(Family::V4).await?;
    let number = (0..=SocketId::MAX).find(|number| block(*number) == socket.send.block_addr());
    let message = Message::NSend(NSend {
        socket: number.context("a socket has a number")?,
        family: Family::V4.octet(),
        proto: Proto::Raw,
        time: 0,
        tag: 0,
        remote: None,
        data: packet.clone(),
    });
    let mut ahead = VecDeque::with_capacity(AHEAD);
    let (begun, mut count) = (Instant::now(), 0u64);
    while begun.elapsed() < LENGTH {
        if ahead.len() == AHEAD {
            // Half of them at a time, or each answer would wake us for a single request.
            for answer in ahead.drain(..AHEAD / 2) {
                pktlab::controller::Answer::success(answer).await?;
                count += 1;
            }
        }
        ahead.push_back(controller.request(&message)?);
    }
    for answer in ahead {
        answer.success().await?;
        count += 1;
    }
    socket.send.send(packet.clone(), None).await?;
    socket.send.flushed().await;
    Ok((count + 1) as f64 / begun.elapsed().as_secs_f64())
}

/// As programs send: under the flow window, each with a tag and its kernel stamp.
async fn tagged(controller: &Controller, packet: &Bytes) -> Result<f64> {
    let options = SocketOptions { receive: 0, hold: false, tags: false };
    let (socket, opening) = controller.open_raw(Ipv4Addr::LOCALHOST.into(), options)?;
    opening.local(Family::V4).await?;
    let (begun, mut count) = (Instant::now(), 0u64);
    while begun.elapsed() < LENGTH {
        socket.send.send(packet.clone(), None).await?;
        count += 1;
        if count.is_multiple_of(64) {
            // The tasks of the session share this thread.
            tokio::task::yield_now().await;
        }
    }
    socket.send.flushed().await;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn bare(to: SocketAddr, packet: &[u8]) -> Result<f64> {
    // IPPROTO_RAW: the header comes from the caller.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    let to = SockAddr::from(SocketAddr::new(to.ip(), 0));
    let (begun, mut count) = (Instant::now(), 0u64);
    while begun.elapsed() < LENGTH {
        match socket.send_to(packet, &to) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

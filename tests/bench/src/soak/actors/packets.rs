//! Raw sockets: packets made by hand, and captures.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use pktlab::program::{Instruction, Program, ProgramKind};
use pktlab::wire::{Family, Ticks};
use tokio::time::Instant;

use super::super::ward::{Lent, Stop, Ward};
use super::{options, wrong};

/// Discard: nobody listens, and no echo comes back.
const PORT: u16 = 9;

const fn ins(opcode: u8, dst: u8, offset: i16, imm: i32) -> Instruction {
    Instruction { opcode, dst, src: if opcode == 0xBF { 1 } else { 0 }, offset, imm }
}

/// UDP whose source port is `port`: what this socket sends, and nothing of the others.
fn filter(port: u16) -> Program {
    let instructions = [
        ins(0xBF, 6, 0, 0),
        ins(0x30, 0, 0, 9),
        ins(0x55, 0, 4, 17),
        ins(0x28, 0, 0, 20),
        ins(0x55, 0, 2, i32::from(port)),
        ins(0xB7, 0, 0, -1),
        ins(0x95, 0, 0, 0),
        ins(0xB7, 0, 0, 0),
        ins(0x95, 0, 0, 0),
    ];
    let body: Vec<u8> = instructions.iter().flat_map(Instruction::encode).collect();
    Program { kind: ProgramKind::Ebpf, body: body.into() }
}

fn packet(port: u16, len: usize) -> Vec<u8> {
    let mut packet = vec![0; 28 + len];
    let total = packet.len() as u16;
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..16].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    packet[16..20].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&PORT.to_be_bytes());
    packet[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    packet
}

/// Sends packets over loopback and captures them there.
pub async fn captured(lent: &Lent, dice: &mut Rng) -> Result<(), Stop> {
    let (socket, opening) = lent.controller.open_raw(Ipv4Addr::LOCALHOST.into(), options(dice))?;
    let mut ward = Ward::new(lent, socket, false);
    let local: SocketAddr = opening.local(Family::V4).await?;
    if local.ip() != Ipv4Addr::LOCALHOST {
        return wrong("a raw socket has another address than asked for");
    }
    let now = lent.controller.time().await?;
    // Sometimes its time is over before the socket's.
    let end = if dice.bool() { Ticks::MAX } else { now + dice.u64(..200_000_000) };
    let port = dice.u16(1_024..);
    ward.socket.send.capture(&filter(port), end).await?;
    for _ in 0..dice.usize(1..50) {
        let time = if dice.bool() { 0 } else { now + dice.u64(..60_000_000) };
        let mut packet = packet(port, dice.usize(..1_200));
        if dice.u8(..20) == 0 {
            // Refused: no IPv4 header.
            packet[0] = 0x15;
        }
        ward.send(packet.into(), None, time).await?;
    }
    let until = Instant::now() + Duration::from_millis(dice.u64(..250));
    while let Some(received) = ward.data(until).await? {
        if received.data.get(20..22) != Some(&port.to_be_bytes()[..]) {
            return wrong("a packet got past its filter");
        }
    }
    if dice.bool() {
        ward.socket.send.stop_capture().await?;
    }
    ward.close().await
}

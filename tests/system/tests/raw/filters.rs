//! Filters that mean harm, and floods (spec `filters-monitors.md` §1, `endpoint.md` §7).

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use pktlab::controller::{Controller, Event, Socket};
use pktlab::program::Instruction;
use pktlab::vmem::{SocketState, socket as cell};
use pktlab::wire::{ErrId, Message, NCap, Outcome, Ticks};
use rustix::process::Signal;
use system_tests::endpoint::{Options, Rig, SOON, data, raw};
use system_tests::filter::{self, EXIT, accept, byte, half, instruction, program};
use system_tests::packet;
use system_tests::wire::Wire;

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const SET_0: Instruction = instruction(0xb7, 0, 0, 0, 0);
const SET_1: Instruction = instruction(0xb7, 0, 0, 0, 1);

/// The answer to an NCAP with these bytes for a program.
async fn capture(controller: &Controller, socket: &Socket, filter: impl Into<Bytes>) -> Result<ErrId> {
    let socket = ((socket.send.block_addr() - cell::BASE) / cell::BLOCK) as u8;
    let capture = NCap { socket, family: 4, proto: 0, end: Ticks::MAX, filter: filter.into() };
    match controller.request(&Message::NCap(capture))?.message().await? {
        Message::Result(Outcome::Plain(errid)) => Ok(errid),
        other => anyhow::bail!("unexpected {other:?}"),
    }
}

async fn number(controller: &Controller, socket: &Socket, field: u32) -> Result<u32> {
    let bytes = controller.mread(socket.send.block_addr() + field, 4).await?;
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// A probe whose answer the filter in force sees.
async fn probe(rig: &Rig, socket: &mut Socket, wire: &mut Wire) -> Result<()> {
    let before = wire.matching(|packet| packet.icmp() == Some((0, 0)))?.len();
    let request = packet::echo(ANY, rig.lab.v4("target")?.into(), 64, 1, 1, b"")?;
    socket.send.send(request.into(), None).await?;
    wire.wait(before + 1, |packet| packet.icmp() == Some((0, 0))).await?;
    Ok(())
}

async fn hostile(options: &Options) -> Result<()> {
    let mut rig = Rig::up(options)?;
    let controller = rig.meet().await?;
    let mut wire = Wire::tap(&rig.lab, "endpoint")?;
    let (mut socket, own) = raw(&controller, ANY).await?;
    socket.send.capture(&filter::echo_replies(1), Ticks::MAX).await?;
    let ja = |offset| instruction(5, 0, 0, offset, 0);
    let long = [vec![SET_0; 8191], vec![EXIT]].concat();
    let refused: [(&str, Bytes); 12] = [
        ("for(;;)", program(&[ja(-1)]).encode()),
        ("for(;;) behind something", program(&[SET_0, ja(-2), EXIT]).encode()),
        ("no end", program(&[SET_0]).encode()),
        ("a jump to nowhere", program(&[ja(100), EXIT]).encode()),
        ("an unset register", program(&[instruction(0xbf, 0, 3, 0, 0), EXIT]).encode()),
        ("an unknown operation", program(&[instruction(0xff, 0, 0, 0, 0), EXIT]).encode()),
        ("a helper", program(&[instruction(0x85, 0, 0, 0, 6), EXIT]).encode()),
        ("no instruction", vec![0].into()),
        ("a piece of an instruction", vec![0; 12].into()),
        ("an unknown kind", vec![7; 17].into()),
        ("WebAssembly", b"\x01\0asm\x01\0\0\0".to_vec().into()),
        ("more than 64 KiB", program(&long).encode()),
    ];
    for (name, filter) in refused {
        assert_eq!(capture(&controller, &socket, filter).await?, ErrId::ESKTBADFILT, "{name}");
    }
    // The same sequence each time; what is accepted of it may do what it wants with the packets.
    let mut seed = 0x9e37_79b9_u32;
    for round in 0..50usize {
        let garbage: Vec<u8> = (0..round * 8 + 9)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        let errid = capture(&controller, &socket, [vec![0], garbage[1..].to_vec()].concat()).await?;
        assert!([ErrId::SUCCESS, ErrId::ESKTBADFILT].contains(&errid), "round {round}: {errid}");
    }
    socket.send.capture(&filter::echo_replies(1), Ticks::MAX).await?;
    probe(&rig, &mut socket, &mut wire).await?;
    data(&mut socket.receive).await?;

    let faulty: [(&str, Vec<Instruction>); 6] = [
        ("a loop that a register ends", vec![SET_1, instruction(0x55, 0, 0, -1, 0), EXIT]),
        ("8191 instructions", [vec![SET_1; 8190], vec![EXIT]].concat()),
        ("a read above the stack", vec![instruction(0x79, 0, 10, 8, 0), EXIT]),
        ("a read below the stack", vec![instruction(0x79, 0, 10, -520, 0), EXIT]),
        ("a write into the context", vec![SET_1, instruction(0x7b, 1, 0, 0, 0), EXIT]),
        ("a read from anywhere", vec![SET_1, instruction(0x79, 0, 0, 0, 0), EXIT]),
    ];
    let mut faults = number(&controller, &socket, cell::FILTER_FAULTS).await?;
    for (name, filter) in faulty {
        match capture(&controller, &socket, program(&filter).encode()).await? {
            ErrId::ESKTBADFILT => println!("refused: {name}"),
            ErrId::SUCCESS => {
                probe(&rig, &mut socket, &mut wire).await?;
                let start = Instant::now();
                while number(&controller, &socket, cell::FILTER_FAULTS).await? == faults {
                    ensure!(start.elapsed() < SOON, "{name}: the fault is not counted");
                }
                faults = number(&controller, &socket, cell::FILTER_FAULTS).await?;
            }
            other => anyhow::bail!("{name}: {other}"),
        }
        let events = std::iter::from_fn(|| socket.receive.try_recv());
        assert_eq!(events.filter(|event| matches!(event, Event::Data(_))).count(), 0, "{name}");
        // Nothing is withheld either: the host answers.
        let connect = || TcpStream::connect_timeout(&(own, 1).into(), SOON);
        let error = rig.lab.inside("target", connect)?.err().map(|error| error.kind());
        assert_eq!(error, Some(ErrorKind::ConnectionRefused), "{name}");
    }
    // And a good one works as ever.
    socket.send.capture(&filter::echo_replies(1), Ticks::MAX).await?;
    probe(&rig, &mut socket, &mut wire).await?;
    data(&mut socket.receive).await?;
    let state = controller.mread(socket.send.block_addr() + cell::STAT, 1).await?[0];
    assert_eq!(SocketState::from_octet(state), Some(SocketState::Open));
    Ok(())
}

#[tokio::test]
async fn hostile_filters_are_refused_or_bounded() -> Result<()> {
    hostile(&Options::default()).await
}

#[tokio::test]
async fn hostile_filters_are_refused_or_bounded_while_stealing() -> Result<()> {
    if !crate::permitted() {
        return Ok(());
    }
    hostile(&Options { steal: true, ..Options::default() }).await
}

#[tokio::test]
async fn what_the_kernel_loses_is_counted() -> Result<()> {
    const PORT: u16 = 9999;
    const SIZE: usize = 1000;
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let (mut socket, own) = raw(&controller, ANY).await?;
    let flood = accept(&[&[byte(0, 0x45), byte(9, 17), half(22, PORT)]]);
    socket.send.capture(&flood, Ticks::MAX).await?;
    let received = |rig: &Rig| Ok::<_, anyhow::Error>(rig.lab.counters("endpoint")?["r2"].rx_packets);
    let before = received(&rig)?;
    // An endpoint that cannot read: its ring of 1 MiB must overflow.
    rig.signal(Signal::STOP)?;
    rig.lab.inside("target", || -> Result<()> {
        let sender = UdpSocket::bind("0.0.0.0:0")?;
        for number in 0..4000u32 {
            let mut data = [0; SIZE];
            data[..4].copy_from_slice(&number.to_be_bytes());
            sender.send_to(&data, SocketAddr::new(own, PORT))?;
            if number % 100 == 99 {
                // Queues on the way are shorter than the flood.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    })??;
    rig.signal(Signal::CONT)?;
    let arrived = received(&rig)? - before;
    let (mut delivered, mut next) = (0u64, 0);
    let start = Instant::now();
    loop {
        while let Some(event) = socket.receive.try_recv() {
            let Event::Data(received) = event else { continue };
            let datagram = packet::parse(&received.data)?;
            assert_eq!(datagram.payload.len(), 8 + SIZE);
            let number = u32::from(datagram.half(8)) << 16 | u32::from(datagram.half(10));
            assert!(number >= next, "in order");
            next = number + 1;
            delivered += 1;
        }
        let lost = u64::from(number(&controller, &socket, cell::DROP_UNITS).await?);
        if delivered + lost == arrived {
            println!("{arrived} arrived, {delivered} were delivered, {lost} were lost");
            assert!(delivered > 100 && lost > 100);
            break;
        }
        ensure!(start.elapsed() < SOON, "{arrived} arrived, {delivered} were delivered, {lost} were lost");
    }
    assert_eq!(
        number(&controller, &socket, cell::DROP_BYTES).await?,
        0,
        "nothing was lost for want of budget"
    );
    // The ring has room again.
    probe_flood(&rig, own, PORT)?;
    let again = packet::parse(&data(&mut socket.receive).await?.data)?;
    assert_eq!(again.payload.len(), 8 + 4);
    Ok(())
}

fn probe_flood(rig: &Rig, to: IpAddr, port: u16) -> Result<()> {
    rig.lab.inside("target", || UdpSocket::bind("0.0.0.0:0")?.send_to(b"last", (to, port)))??;
    Ok(())
}

//! Echo probes as in spec `raw.md` §7: what goes out, what comes back, and when.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};
use netlab::scenario::LONG_WAY;
use pktlab::controller::{Change, Controller, Event, HeaderChanges, Received, Socket, SocketOptions, Tagged};
use pktlab::wire::{ErrId, Ticks};
use system_tests::endpoint::{NET_RAW_ONLY, Options, Rig, data, event, raw, tag};
use system_tests::wire::Wire;
use system_tests::{filter, packet};

const ID: u16 = 0x4711;

/// Sends a packet; the NTAG and the answer, in whatever order they come.
async fn probe(socket: &mut Socket, probe: Vec<u8>, number: u16) -> Result<(Tagged, Received)> {
    socket.send.send_at(probe.into(), None, 0, number).await?;
    let (mut sent, mut answer) = (None, None);
    loop {
        match event(&mut socket.receive).await? {
            Event::Tag(tagged) => ensure!(sent.replace(tagged).is_none(), "a second NTAG: {tagged:?}"),
            Event::Data(data) => ensure!(answer.replace(data).is_none(), "a second answer"),
            other => bail!("unexpected {other:?}"),
        }
        if let (Some(sent), Some(answer)) = (sent, &answer) {
            return Ok((sent, answer.clone()));
        }
    }
}

/// Probes `target` from a raw socket on `local`, five times. Returns the shortest round trip by the kernel's stamps.
async fn ping(controller: &Controller, local: IpAddr, target: IpAddr) -> Result<Ticks> {
    let (mut socket, own) = raw(controller, local).await?;
    let filter = if local.is_ipv4() { filter::echo_replies(ID) } else { filter::echo_replies_v6(ID) };
    socket.send.capture(&filter, Ticks::MAX).await?;
    // The checksum of ICMPv6 covers the source, which the system does not fill in there.
    let from = if local.is_ipv4() { local } else { own };
    let mut best = Ticks::MAX;
    for number in 1..=5 {
        let request = packet::echo(from, target, 64, ID, number, &number.to_be_bytes().repeat(16))?;
        let (sent, answer) = probe(&mut socket, request.clone(), number).await?;
        assert_eq!((sent.errid, sent.tag), (ErrId::SUCCESS, number));
        assert!(sent.kernel_time && answer.kernel_time, "both times are the kernel's: {sent:?} {answer:?}");
        assert!(sent.time < answer.time, "{sent:?} {answer:?}");
        best = best.min(answer.time - sent.time);
        let reply = packet::parse(&answer.data)?;
        assert_eq!((reply.from, reply.to, reply.ttl), (target, own, 63), "one router between");
        let head = request.len() - reply.payload.len();
        assert_eq!(reply.half(4), ID);
        assert_eq!(reply.payload[6..], request[head + 6..], "sequence number and data come back");
    }
    assert!(socket.receive.try_recv().is_none(), "nothing but the answers");
    Ok(best)
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// Between controller and endpoint; probes never cross that link, so no round trip of theirs can take as long.
const CONTROL_RTT: Ticks = 50_000_000;

#[tokio::test]
async fn an_echo_shows_the_endpoints_round_trip_and_not_the_controllers() -> Result<()> {
    let mut rig = Rig::in_scenario(LONG_WAY, &Options::default())?;
    let controller = rig.meet().await?;
    let best = ping(&controller, V4, rig.lab.v4("target")?.into()).await?;
    let best_v6 = ping(&controller, V6, rig.lab.v6("target")?.into()).await?;
    println!("round trips: {best} ns, {best_v6} ns over IPv6");
    assert!(best < CONTROL_RTT && best_v6 < CONTROL_RTT, "{best} {best_v6}");
    Ok(())
}

#[tokio::test]
async fn headers_are_finished_as_announced() -> Result<()> {
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let HeaderChanges { ipv4, ipv6 } = controller.info().header_changes;
    let mut announced = [Change::Never; 12];
    announced[3] = Change::Always;
    announced[HeaderChanges::IPV4_IDENTIFICATION] = Change::WhenZero;
    announced[HeaderChanges::IPV4_CHECKSUM] = Change::Always;
    announced[HeaderChanges::IPV4_SOURCE] = Change::WhenZero;
    assert_eq!((ipv4, ipv6), (announced, [Change::Never; 8]));

    let target = rig.lab.v4("target")?.into();
    let mut wire = Wire::tap(&rig.lab, "target")?;
    let (mut socket, own) = raw(&controller, V4).await?;
    let plain = |number: u16| packet::echo(V4, target, 9, ID, number, b"some data");
    // Wrong length, wrong checksum, no source; TOS and identification of ours, then none and DF clear.
    let mut marked = plain(1)?;
    marked[1] = 0xb8;
    marked[2..4].copy_from_slice(&[0, 99]);
    marked[4..6].copy_from_slice(&[0x12, 0x34]);
    marked[10..12].copy_from_slice(&[0xde, 0xad]);
    let mut blank = plain(2)?;
    blank[4..8].fill(0);
    for (number, packet) in [(1, marked), (2, blank)] {
        socket.send.send_at(packet.into(), None, 0, number).await?;
        assert_eq!(tag(&mut socket.receive).await?.errid, ErrId::SUCCESS);
    }
    let seen = wire.wait(2, |packet| packet.icmp() == Some((8, 0))).await?;
    for (index, (seen, parsed)) in seen.iter().enumerate() {
        assert_eq!((parsed.from, parsed.to, parsed.ttl), (own, target, 8));
        let head = &seen.data[..20];
        assert_eq!(u16::from_be_bytes([head[2], head[3]]), 20 + 8 + 9, "the true length");
        // A header with its checksum sums up to all ones.
        let sum: u32 = head.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{head:02x?}");
        let identification = u16::from_be_bytes([head[4], head[5]]);
        match index {
            0 => assert_eq!((parsed.tos, identification), (0xb8, 0x1234)),
            _ => assert!(parsed.tos == 0 && identification != 0, "{head:02x?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn bad_headers_cost_their_packet_and_not_the_socket() -> Result<()> {
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let target = rig.lab.v4("target")?.into();
    let (mut socket, _) = raw(&controller, V4).await?;
    socket.send.capture(&filter::echo_replies(ID), Ticks::MAX).await?;
    let good = packet::echo(V4, target, 64, ID, 7, b"")?;
    let mut short = good.clone();
    short[0] = 0x44;
    let mut long = good.clone();
    long[0] = 0x4f;
    let oversized = packet::echo(V4, target, 64, ID, 7, &[0; 2000])?;
    for (number, bad) in [(1, short), (2, long), (3, oversized)] {
        socket.send.send_at(bad.into(), None, 0, number).await?;
        let tagged = tag(&mut socket.receive).await?;
        assert_eq!((tagged.tag, tagged.errid), (number, ErrId::EPKTNOTSENT));
        let block = controller.mread(socket.send.block_addr(), 0x64).await?;
        assert_eq!((block[2], block[0x60]), (2, 2), "OPEN, NSENDERR 2");
    }
    let (sent, answer) = probe(&mut socket, good, 4).await?;
    assert_eq!((sent.errid, packet::parse(&answer.data)?.half(6)), (ErrId::SUCCESS, 7));
    Ok(())
}

#[tokio::test]
async fn one_capability_is_enough() -> Result<()> {
    if !crate::permitted() {
        return Ok(());
    }
    let mut rig = Rig::up(&Options { before: NET_RAW_ONLY, ..Options::default() })?;
    let controller = rig.meet().await?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.pid()?))?;
    for line in ["Uid:\t65534", "CapPrm:\t0000000000002000", "CapEff:\t0000000000002000"] {
        assert!(status.contains(line), "{status}");
    }
    ping(&controller, V4, rig.lab.v4("target")?.into()).await?;
    ping(&controller, V6, rig.lab.v6("target")?.into()).await?;
    Ok(())
}

#[tokio::test]
async fn timed_packets_are_never_early() -> Result<()> {
    const STEP: Ticks = 2_000_000;
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let target = rig.lab.v4("target")?.into();
    let mut wire = Wire::tap(&rig.lab, "target")?;
    let (mut socket, _) = raw(&controller, V4).await?;
    let begin = controller.time().await? + 100_000_000;
    let due = |number: u16| begin + Ticks::from(number) * STEP;
    for number in 1..=20 {
        let request = packet::echo(V4, target, 64, ID, number, b"")?;
        socket.send.send_at(request.into(), None, due(number), number).await?;
    }
    let mut sent = Vec::new();
    for number in 1..=20 {
        let tagged = tag(&mut socket.receive).await?;
        assert_eq!((tagged.tag, tagged.errid, tagged.kernel_time), (number, ErrId::SUCCESS, true));
        sent.push(tagged.time);
    }
    let seen = wire.wait(20, |packet| packet.icmp() == Some((8, 0))).await?;
    for (number, (sent, (seen, packet))) in (1..=20).zip(sent.iter().zip(&seen)) {
        assert_eq!(packet.half(6), number, "in order");
        // Stamps of one clock, taken on the way out of one host and into another.
        assert!(due(number) <= *sent && *sent <= seen.time, "{number}: {} {sent} {}", due(number), seen.time);
    }
    let worst = (1..=20).zip(&seen).map(|(number, (seen, _))| seen.time - due(number)).max();
    println!("at most {} ns late at the target", worst.context("20 packets")?);
    Ok(())
}

#[tokio::test]
async fn each_socket_gets_what_its_own_filter_accepts() -> Result<()> {
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let target = rig.lab.v4("target")?.into();
    let mut sockets = Vec::new();
    for id in 1..=4 {
        let (socket, _) = raw(&controller, V4).await?;
        socket.send.capture(&filter::echo_replies(id), Ticks::MAX).await?;
        sockets.push(socket);
    }
    // Any socket's probes answer to whom the filter says.
    for (id, sequence) in [(3, 1), (1, 2), (4, 3), (2, 4), (1, 5)] {
        let request = packet::echo(V4, target, 64, id, sequence, b"")?;
        sockets[0].send.send(request.into(), None).await?;
        let answer = data(&mut sockets[usize::from(id) - 1].receive).await?;
        let answer = packet::parse(&answer.data)?;
        assert_eq!((answer.half(4), answer.half(6)), (id, sequence));
    }
    // The family of a socket does not matter for what it sees.
    let (mut any, own) = raw(&controller, V6).await?;
    any.send.capture(&filter::everything(), Ticks::MAX).await?;
    let request = packet::echo(own, rig.lab.v6("target")?.into(), 64, 9, 1, b"")?;
    any.send.send(request.into(), None).await?;
    let first = data(&mut any.receive).await?;
    assert_eq!(packet::parse(&first.data)?.icmp(), Some((129, 0)), "and its own probe comes back to nobody");
    for (index, socket) in sockets.iter_mut().enumerate() {
        let more = std::iter::from_fn(|| socket.receive.try_recv());
        assert_eq!(more.filter(|event| matches!(event, Event::Data(_))).count(), 0, "socket {index}");
    }
    Ok(())
}

#[tokio::test]
async fn a_capture_ends_at_its_end_and_at_the_word() -> Result<()> {
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let target = rig.lab.v4("target")?.into();
    let options = SocketOptions { tags: true, ..SocketOptions::default() };
    let (mut socket, opening) = controller.open_raw(V4, options)?;
    opening.local(socket.family()).await?;
    let silent = |events: &mut Socket| {
        let events = std::iter::from_fn(|| events.receive.try_recv());
        events.filter(|event| matches!(event, Event::Data(_))).count() == 0
    };
    let mut wire = Wire::tap(&rig.lab, "endpoint")?;
    let mut answered = 0;
    // Nothing before the first NCAP.
    for step in ["no capture", "until the end", "past the end", "stopped"] {
        let soon = controller.time().await? + 200_000_000;
        match step {
            "until the end" => socket.send.capture(&filter::echo_replies(ID), soon).await?,
            "past the end" => drop(controller.wait_until(soon + 10_000_000).await?),
            "stopped" => {
                socket.send.capture(&filter::echo_replies(ID), Ticks::MAX).await?;
                socket.send.stop_capture().await?;
            }
            _ => {}
        }
        answered += 1;
        let request = packet::echo(V4, target, 64, ID, answered, b"")?;
        socket.send.send_at(request.into(), None, 0, answered).await?;
        wire.wait(answered.into(), |packet| packet.icmp() == Some((0, 0))).await?;
        if step == "until the end" {
            data(&mut socket.receive).await?;
        }
        // What the endpoint had noticed is here after another answer of it, the ring's delay included.
        controller.wait_until(controller.time().await? + 20_000_000).await?;
        assert!(silent(&mut socket), "{step}");
    }
    Ok(())
}

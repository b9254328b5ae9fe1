//! What certificates and operator allow holds for raw packets as for the others, and across a kill.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pktlab::controller::{ConnectFailure, Controller, Event, Socket, SocketOptions};
use pktlab::wire::{ErrId, Outcome};
use system_tests::endpoint::{Options, Rig, event, raw};
use system_tests::packet;
use system_tests::wire::Wire;

const TAGS: SocketOptions = SocketOptions { receive: 1 << 20, hold: true, tags: true };

fn any(like: IpAddr) -> SocketAddr {
    if like.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() }
}

async fn udp(controller: &Controller, like: IpAddr) -> Result<Socket> {
    let (socket, opening) = controller.open_udp(any(like), TAGS)?;
    opening.local(socket.family()).await?;
    Ok(socket)
}

/// What an NSEND leads to: success, a refusal, or an NTAG with an error.
async fn send(socket: &mut Socket, data: Vec<u8>, remote: Option<SocketAddr>) -> Result<ErrId> {
    socket.send.send_at(data.into(), remote, 0, 7).await?;
    loop {
        match event(&mut socket.receive).await? {
            Event::Tag(tagged) => return Ok(tagged.errid),
            Event::SendRefused(Outcome::Plain(errid)) => return Ok(errid),
            Event::Data(_) | Event::Error(_) => {}
            other => anyhow::bail!("unexpected {other:?}"),
        }
    }
}

/// The answers to a raw packet, a datagram and a TCP connect to this address.
async fn attempts(controller: &Controller, to: IpAddr) -> Result<[ErrId; 3]> {
    let (mut socket, own) = raw(controller, any(to).ip()).await?;
    let raw = send(&mut socket, packet::echo(own, to, 3, 1, 1, b"raw")?, None).await?;
    let mut socket = udp(controller, to).await?;
    let udp = send(&mut socket, b"datagram".to_vec(), Some(SocketAddr::new(to, 7))).await?;
    let connecting = controller.connect_tcp(None, SocketAddr::new(to, 7), SocketOptions::default())?;
    let tcp = match connecting.established().await {
        Ok(_) => ErrId::SUCCESS,
        Err(ConnectFailure::Request(error)) => error.errid().unwrap_or(ErrId::EUNKFAULT),
        Err(other) => anyhow::bail!("connect to {to}: {other:?}"),
    };
    Ok([raw, udp, tcp])
}

const DENIED: [ErrId; 3] = [ErrId::ESKTPKTDENY, ErrId::ESKTPKTDENY, ErrId::ESKTOPNDENY];

#[tokio::test]
async fn denied_destinations_are_denied_to_every_protocol() -> Result<()> {
    let policy = "deny = [\"10.91.66.0/24\", \"fd91:0:0:66::/64\"]";
    let mut rig = Rig::up(&Options { policy, ..Options::default() })?;
    let controller = rig.meet().await?;
    let mut wire = Wire::tap(&rig.lab, "endpoint")?;
    let addresses = [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.91.2.2",
        "10.91.3.1",
        "10.91.66.66",
        "10.91.3.255",
        "255.255.255.255",
        "224.0.0.1",
        "::1",
        "::",
        "fd91:0:0:2::2",
        "fd91:0:0:3::1",
        "fd91:0:0:66::66",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.91.66.66",
    ];
    for text in addresses {
        assert_eq!(attempts(&controller, text.parse()?).await?, DENIED, "{text}");
    }
    // What was denied did not reach any device, the loopback included.
    let own = [IpAddr::from([127, 0, 0, 1]), "10.91.3.1".parse()?, "fd91:0:0:3::1".parse()?, "::1".parse()?];
    let inside = wire.matching(|packet| own.contains(&packet.from))?;
    assert!(inside.is_empty(), "{inside:#?}");
    for target in [rig.lab.v4("target")?.into(), rig.lab.v6("target")?.into()] {
        assert_eq!(attempts(&controller, target).await?, [ErrId::SUCCESS; 3], "{target}");
    }
    Ok(())
}

#[tokio::test]
async fn certificates_bound_destination_and_source_of_raw_packets() -> Result<()> {
    let limits = vec![("valid_dest", "10.91.4.0/24,fd91:0:0:4::/64".to_owned())];
    let mut rig = Rig::up(&Options { limits, ..Options::default() })?;
    let controller = rig.meet().await?;
    for host in ["r2", "target"] {
        let expected = if host == "r2" { DENIED } else { [ErrId::SUCCESS; 3] };
        for address in [rig.lab.v4(host)?.into(), rig.lab.v6(host)?.into()] {
            // The router has no echo server; what matters is whether one may try.
            assert_eq!(attempts(&controller, address).await?, expected, "{host}");
        }
    }
    let target = rig.lab.v4("target")?.into();
    let (mut socket, own) = raw(&controller, any(target).ip()).await?;
    let foreign = packet::echo([192, 0, 2, 1].into(), target, 3, 1, 1, b"")?;
    assert_eq!(send(&mut socket, foreign, None).await?, ErrId::ESKTPKTDENY);
    let other_family =
        packet::echo(rig.lab.v6("endpoint")?.into(), rig.lab.v6("target")?.into(), 3, 1, 1, b"")?;
    assert_eq!(send(&mut socket, other_family, None).await?, ErrId::ESKTPKTDENY);
    let good = packet::echo(own, target, 3, 1, 1, b"")?;
    assert_eq!(send(&mut socket, good[..19].to_vec(), None).await?, ErrId::ESKTPKTDENY);
    assert_eq!(send(&mut socket, good, None).await?, ErrId::SUCCESS);
    Ok(())
}

/// Sends packets, every second one by UDP; the answers.
async fn spend(rig: &Rig, controller: &Controller, count: usize) -> Result<Vec<ErrId>> {
    let target = IpAddr::from(rig.lab.v4("target")?);
    let (mut raw, own) = raw(controller, any(target).ip()).await?;
    let mut udp = udp(controller, target).await?;
    let mut answers = Vec::new();
    for number in 0..count {
        answers.push(match number % 2 {
            0 => send(&mut raw, packet::echo(own, target, 64, 1, number as u16, b"")?, None).await?,
            _ => send(&mut udp, b"datagram".to_vec(), Some(SocketAddr::new(target, 7))).await?,
        });
    }
    Ok(answers)
}

#[tokio::test]
async fn packets_that_were_sent_stay_counted_after_a_kill() -> Result<()> {
    let limits = vec![("max_send_pkt", "10".to_owned())];
    let mut rig = Rig::up(&Options { limits, ..Options::default() })?;
    let mut wire = Wire::tap(&rig.lab, "target")?;
    let controller = rig.meet().await?;
    assert_eq!(spend(&rig, &controller, 6).await?, [ErrId::SUCCESS; 6]);
    // Only the last second may be forgotten.
    tokio::time::sleep(Duration::from_secs(3)).await;
    rig.kill()?;
    rig.start()?;
    let controller = rig.meet().await?;
    let answers = spend(&rig, &controller, 7).await?;
    assert_eq!(answers[..4], [ErrId::SUCCESS; 4]);
    assert_eq!(answers[4..], [ErrId::ESKTPKTDENY; 3]);
    let ours = |packet: &packet::Parsed| packet.protocol == 17 || packet.icmp() == Some((8, 0));
    assert_eq!(wire.wait(10, ours).await?.len(), 10);
    Ok(())
}

#[tokio::test]
async fn run_time_stays_counted_after_a_kill() -> Result<()> {
    const PERIOD: Duration = Duration::from_secs(12);
    let limits = vec![("max_exp_period", PERIOD.as_nanos().to_string())];
    let mut rig = Rig::up(&Options { limits, ..Options::default() })?;
    let controller = rig.meet().await?;
    let began = Instant::now();
    tokio::time::sleep(PERIOD / 2).await;
    assert!(controller.end_reason().is_none());
    rig.kill()?;
    let first = began.elapsed();
    rig.start()?;
    let controller = rig.meet().await?;
    let began = Instant::now();
    controller.ended().await;
    let second = began.elapsed();
    println!("the first session took {first:?}, the second {second:?}");
    // From the handshake to here is some time, and the last second of the first session may be forgotten.
    let left = PERIOD - first;
    ensure!(second + Duration::from_secs(2) > left, "{second:?} of {left:?}");
    ensure!(second < PERIOD - Duration::from_secs(2), "as if nothing had been used: {second:?}");
    // Nothing is left now.
    let began = Instant::now();
    if let Ok(controller) = rig.meet().await {
        controller.ended().await;
    }
    ensure!(began.elapsed() < PERIOD / 2, "a third session ran for {:?}", began.elapsed());
    Ok(())
}

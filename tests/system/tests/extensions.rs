//! The extensions of the protocol (`docs/extensions.md`) end to end: a real endpoint, real hosts and routers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, bail};
use bytes::Bytes;
use netlab::scenario::LONG_WAY;
use pktlab::controller::{Connected, Controller, Error, Event, Received, Socket, SocketOptions};
use pktlab::wire::{ErrId, NErr, NStat, SockOpt, StatEvent};
use system_tests::endpoint::{Options, Rig, SOON, data, event};
use system_tests::packet::Parsed;
use system_tests::wire::Wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ECHO: u16 = 7;
const CLOSED: u16 = 9;
const ICMP: u8 = 2;
const ICMP6: u8 = 3;
/// Linux errnos.
const ECONNREFUSED: u16 = 111;
const EHOSTUNREACH: u16 = 113;

fn any(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

async fn udp(controller: &Controller, like: IpAddr) -> Result<(Socket, u16)> {
    let options = SocketOptions { tags: true, ..SocketOptions::default() };
    let (socket, opening) = controller.open_udp(any(like), options)?;
    let port = opening.local(socket.family()).await?.port();
    Ok((socket, port))
}

/// The addresses of a host, IPv4 and IPv6.
fn addresses(rig: &Rig, host: &str) -> Result<[IpAddr; 2]> {
    Ok([rig.lab.v4(host)?.into(), rig.lab.v6(host)?.into()])
}

/// The next NERR; nothing but NTAGs may come before.
async fn error(socket: &mut Socket) -> Result<NErr> {
    loop {
        match event(&mut socket.receive).await? {
            Event::Error(error) => return Ok(error),
            Event::Tag(_) => {}
            other => bail!("unexpected {other:?}"),
        }
    }
}

#[tokio::test]
async fn options_of_a_socket_are_seen_by_the_receiver() -> Result<()> {
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let mut wire = Wire::tap(&rig.lab, "target")?;
    for target in addresses(&rig, "target")? {
        let (socket, port) = udp(&controller, target).await?;
        let to = Some(SocketAddr::new(target, CLOSED));
        let ours = |packet: &Parsed| packet.protocol == 17 && packet.ports() == (port, CLOSED);
        socket.send.send(Bytes::from_static(b"plain"), to).await?;
        socket.send.set_option(SockOpt::Ttl, 9).await?;
        socket.send.set_option(SockOpt::Tos, 0xb8).await?;
        assert_eq!(
            (socket.send.option(SockOpt::Ttl).await?, socket.send.option(SockOpt::Tos).await?),
            (9, 0xb8)
        );
        socket.send.send(Bytes::from_static(b"marked"), to).await?;
        let seen = wire.wait(2, ours).await?;
        let heads: Vec<_> = seen.iter().map(|(_, packet)| (packet.ttl, packet.tos)).collect();
        assert_eq!(heads, [(63, 0), (8, 0xb8)], "one router between");
    }
    Ok(())
}

#[tokio::test]
async fn errors_of_the_network_come_with_who_and_why() -> Result<()> {
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let routers = addresses(&rig, "r2")?;
    for (target, router) in addresses(&rig, "target")?.into_iter().zip(routers) {
        let v4 = target.is_ipv4();
        let (mut socket, _) = udp(&controller, target).await?;
        let closed = SocketAddr::new(target, CLOSED);
        socket.send.send(Bytes::from_static(b"is somebody there"), Some(closed)).await?;
        let refused = error(&mut socket).await?;
        let origin = if v4 { ICMP } else { ICMP6 };
        let kind = if v4 { (3, 3) } else { (1, 4) };
        assert_eq!((refused.errno, refused.origin), (ECONNREFUSED, origin));
        assert_eq!((refused.icmp_type, refused.icmp_code), kind);
        assert_eq!((refused.offender, refused.remote), (Some(target), Some(closed)));
        assert_eq!(&refused.data[..], b"is somebody there");

        socket.send.set_option(SockOpt::Ttl, 1).await?;
        let open = SocketAddr::new(target, ECHO);
        socket.send.send(Bytes::from_static(b"too short a life"), Some(open)).await?;
        let expired = error(&mut socket).await?;
        let kind = if v4 { (11, 0) } else { (3, 0) };
        assert_eq!((expired.errno, expired.icmp_type, expired.icmp_code), (EHOSTUNREACH, kind.0, kind.1));
        assert_eq!((expired.offender, expired.remote), (Some(router), Some(open)));
        assert!(refused.time < expired.time);

        // Errors cost nothing: the socket goes on.
        socket.send.set_option(SockOpt::Ttl, 64).await?;
        socket.send.send(Bytes::from_static(b"hello"), Some(open)).await?;
        assert_eq!(&data(&mut socket.receive).await?.data[..], b"hello");
    }
    Ok(())
}

/// A connection from the target's host.
fn connect(rig: &Rig, address: SocketAddr) -> Result<TcpStream> {
    // Of that host for good; the test need not stay there.
    let stream = rig.lab.inside("target", || std::net::TcpStream::connect_timeout(&address, SOON))??;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream)?)
}

#[tokio::test]
async fn connections_from_outside_are_announced_and_taken() -> Result<()> {
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let own: [IpAddr; 2] = [controller.info().ipv4[0].0.into(), controller.info().ipv6[0].into()];
    for address in own {
        let mut listener = controller.listen(any(address), SocketOptions::default()).await?;
        let to = SocketAddr::new(address, listener.local().port());
        // Two wait; they are taken in order, and each has its own bytes.
        let mut clients = [connect(&rig, to)?, connect(&rig, to)?];
        for (index, client) in clients.iter_mut().enumerate() {
            client.write_all(format!("hello {index}").as_bytes()).await?;
            let Connected { mut socket, local, remote } =
                tokio::time::timeout(SOON, listener.accept()).await??;
            assert_eq!((local, remote), (to, client.local_addr()?));
            assert_eq!(data(&mut socket.receive).await?.data, format!("hello {index}"));
            socket.send.send(Bytes::from_static(b"welcome"), None).await?;
            socket.send.finish()?;
            let mut text = String::new();
            tokio::time::timeout(SOON, client.read_to_string(&mut text)).await??;
            assert_eq!(text, "welcome");
            client.shutdown().await?;
            let Event::Stat(end) = event(&mut socket.receive).await? else { bail!("no end") };
            assert_eq!(end.event, StatEvent::Code(NStat::PEER_CLOSED));
        }
        // Nobody listens any more.
        drop(listener);
        controller.time().await?;
        assert!(connect(&rig, to).is_err());
    }
    Ok(())
}

#[tokio::test]
async fn the_end_of_a_wait_comes_behind_what_happened_before() -> Result<()> {
    // The way to the controller takes 25 ms: what is told late is told late to both.
    let mut rig = Rig::in_scenario(LONG_WAY, &Options::default())?;
    let controller = rig.meet().await?;
    let target = rig.lab.v4("target")?.into();
    let (mut socket, _) = udp(&controller, target).await?;
    let to = Some(SocketAddr::new(target, ECHO));
    let now = controller.time().await?;
    for number in 1..=10u8 {
        let time = now + 60_000_000 + u64::from(number) * 3_000_000;
        socket.send.send_at(Bytes::copy_from_slice(&[number]), to, time, number.into()).await?;
    }
    let deadline = now + 250_000_000;
    let passed = controller.wait_until(deadline).await?;
    assert!(passed >= deadline);
    let events: Vec<Event> = std::iter::from_fn(|| socket.receive.try_recv()).collect();
    let answers = events.iter().filter_map(|event| match event {
        Event::Data(received) => Some((received.data[0], received.time < passed)),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), (1..=10).map(|number| (number, true)).collect::<Vec<_>>());
    let tags = events.iter().filter(|event| matches!(event, Event::Tag(_)));
    assert_eq!(tags.count(), 10);
    // A time that has passed is told at once, and an answer that is still under way is not waited for.
    socket.send.send_at(Bytes::from_static(b"late"), to, passed + 1_000_000_000, 11).await?;
    assert!(controller.wait_until(passed).await? < passed + 1_000_000_000);
    assert!(socket.receive.try_recv().is_none());
    assert_eq!(&data(&mut socket.receive).await?.data[..], b"late");
    Ok(())
}

#[tokio::test]
async fn datagrams_come_with_the_kernels_stamps_and_their_heads() -> Result<()> {
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let own: [IpAddr; 2] = [controller.info().ipv4[0].0.into(), controller.info().ipv6[0].into()];
    let mut wire = Wire::tap(&rig.lab, "target")?;
    for (target, own) in addresses(&rig, "target")?.into_iter().zip(own) {
        let (mut socket, port) = udp(&controller, target).await?;
        socket.send.set_option(SockOpt::Tos, 0x28).await?;
        socket.send.send_at(Bytes::from_static(b"hello"), Some(SocketAddr::new(target, ECHO)), 0, 5).await?;
        let Event::Tag(sent) = event(&mut socket.receive).await? else { bail!("no NTAGX") };
        let received = data(&mut socket.receive).await?;
        let seen = wire.wait(1, |packet| packet.protocol == 17 && packet.ports() == (port, ECHO)).await?;
        let (asked, request) = &seen[0];
        assert_eq!((sent.errid, sent.kernel_time, request.tos), (ErrId::SUCCESS, true, 0x28));
        assert!(sent.time <= asked.time && asked.time < received.time, "{sent:?} {asked:?} {received:?}");
        let Received { remote, data, kernel_time, ttl, tos, local, truncated, .. } = received;
        assert_eq!((remote, &data[..]), (Some(SocketAddr::new(target, ECHO)), &b"hello"[..]));
        assert_eq!((kernel_time, ttl, tos, local, truncated), (true, Some(63), Some(0), Some(own), false));
    }
    Ok(())
}

#[tokio::test]
async fn an_endpoint_without_extensions_speaks_the_plain_protocol() -> Result<()> {
    let mut rig = Rig::up(&Options { endpoint: "extensions = false", ..Options::default() })?;
    let controller = rig.meet().await?;
    assert_eq!(controller.info().extensions, 0);
    let target = rig.lab.v4("target")?.into();
    let (mut socket, _) = udp(&controller, target).await?;
    let unsupported = |outcome: Result<(), Error>| matches!(outcome, Err(Error::Unsupported(_)));
    assert!(unsupported(socket.send.set_option(SockOpt::Ttl, 3).await));
    assert!(unsupported(controller.listen(any(target), SocketOptions::default()).await.map(drop)));
    assert!(unsupported(
        controller.open_raw(any(rig.lab.v6("target")?.into()).ip(), SocketOptions::default()).map(drop)
    ));
    // A closed port is no event, and the echo has nothing but its sender and its time.
    for port in [CLOSED, ECHO] {
        socket.send.send(Bytes::from_static(b"hello"), Some(SocketAddr::new(target, port))).await?;
    }
    let received = data(&mut socket.receive).await?;
    let Received { remote, kernel_time, ttl, tos, local, .. } = received;
    assert_eq!(remote, Some(SocketAddr::new(target, ECHO)));
    assert_eq!((kernel_time, ttl, tos, local), (false, None, None, None));
    let now = controller.time().await?;
    assert!(controller.wait_until(now + 20_000_000).await? >= now + 20_000_000);
    Ok(())
}

//! Captured packets withheld from the endpoint's host (spec `raw.md` §5, §6).

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netlab::Lab;
use pktlab::controller::Controller;
use pktlab::vmem::{SocketState, socket as cell, system};
use pktlab::wire::{ErrId, Ticks};
use system_tests::endpoint::{NET_RAW_ONLY, Options, Rig, SOON, data, raw};
use system_tests::filter::{self, accept, byte, half};
use system_tests::packet::{self, ACK, Parsed, RST, SYN};
use system_tests::wire::Wire;

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const STEAL: Options = Options { steal: true, policy: "", endpoint: "", limits: Vec::new(), before: &[] };
/// A port of the endpoint's own host, for a service that has nothing to do with the endpoint.
const SERVICE: u16 = 2222;
/// How long a connect that nobody answers is waited for.
const SILENCE: Duration = Duration::from_millis(300);

/// A service on the endpoint's host: sends back what it gets. Ends with the test.
fn serve(lab: &Lab) -> Result<()> {
    serve_on(lab, SERVICE)
}

fn serve_on(lab: &Lab, port: u16) -> Result<()> {
    let listener = lab.inside("endpoint", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))??;
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = connection.read(&mut buffer) {
                    if connection.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

/// Asks the service on a new connection from another host, and waits so long for each step.
fn ask_within(lab: &Lab, from: &str, address: SocketAddr, patience: Duration) -> Result<std::io::Result<()>> {
    lab.inside(from, || {
        let mut connection = TcpStream::connect_timeout(&address, patience)?;
        connection.set_read_timeout(Some(patience))?;
        connection.write_all(b"hello")?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer)?;
        assert_eq!(&answer, b"hello");
        Ok(())
    })
}

/// The service answers.
fn ask(lab: &Lab, from: &str, address: SocketAddr) -> Result<()> {
    ask_within(lab, from, address, SOON)?.with_context(|| format!("{address} does not answer {from}"))
}

/// The service does not answer.
fn is_cut_off(lab: &Lab, from: &str, address: SocketAddr) -> Result<()> {
    ensure!(ask_within(lab, from, address, SILENCE)?.is_err(), "{address} answers {from}");
    Ok(())
}

async fn answers(controller: &Controller) -> Result<()> {
    tokio::time::timeout(SOON, controller.mread(system::TIME, 8)).await??;
    Ok(())
}

/// A TCP connection from a raw socket to the target's echo server; RSTs that arrived at the target meanwhile.
async fn handshake(options: &Options) -> Result<usize> {
    const PORT: u16 = 45_678;
    let mut rig = Rig::up(options)?;
    serve(&rig.lab)?;
    let controller = rig.meet().await?;
    let (mut socket, own) = raw(&controller, ANY).await?;
    let (from, to) = (SocketAddr::new(own, PORT), SocketAddr::new(rig.lab.v4("target")?.into(), 7));
    let mut wire = Wire::tap(&rig.lab, "target")?;
    let filter = accept(&[&[byte(0, 0x45), byte(9, 6), half(20, to.port()), half(22, PORT)]]);
    socket.send.capture(&filter, Ticks::MAX).await?;

    let first = 0x1234_5678;
    socket.send.send(packet::tcp(from, to, first, None, b"")?.into(), None).await?;
    let answer = packet::parse(&data(&mut socket.receive).await?.data)?;
    assert_eq!((answer.from, answer.ports(), answer.flags()), (to.ip(), (7, PORT), SYN | ACK));
    let number =
        |packet: &Parsed, at: usize| u32::from(packet.half(at)) << 16 | u32::from(packet.half(at + 2));
    assert_eq!(number(&answer, 8), first + 1);
    let next = number(&answer, 4).wrapping_add(1);
    socket.send.send(packet::tcp(from, to, first + 1, Some(next), b"hello")?.into(), None).await?;
    let sent = |flag: u8| move |packet: &Parsed| packet.ports() == (PORT, 7) && packet.flags() & flag != 0;
    if options.steal {
        let mut echoed = Vec::new();
        while echoed.len() < 5 {
            let answer = packet::parse(&data(&mut socket.receive).await?.data)?;
            assert_eq!(answer.flags() & RST, 0, "the target goes along");
            echoed.extend_from_slice(&answer.payload[usize::from(answer.payload[12] >> 4) * 4..]);
        }
        assert_eq!(echoed, b"hello");
        ask(&rig.lab, "target", SocketAddr::new(own, SERVICE))?;
    } else {
        wire.wait(1, sent(RST)).await?;
    }
    answers(&controller).await?;
    ensure!(wire.wait(1, sent(SYN)).await?.len() == 1, "one SYN of ours");
    Ok(wire.matching(sent(RST))?.len())
}

#[tokio::test]
async fn a_connection_of_its_own_meets_no_reset_of_the_host() -> Result<()> {
    if crate::permitted() {
        assert_eq!(handshake(&STEAL).await?, 0);
    }
    Ok(())
}

#[tokio::test]
async fn without_stealing_the_host_resets_it() -> Result<()> {
    assert!(handshake(&Options::default()).await? > 0);
    Ok(())
}

#[tokio::test]
async fn a_filter_for_everything_cuts_neither_control_nor_neighbours() -> Result<()> {
    if !crate::permitted() {
        return Ok(());
    }
    let mut rig = Rig::up(&STEAL)?;
    serve(&rig.lab)?;
    let controller = rig.meet().await?;
    let near = IpAddr::from(rig.lab.v4("endpoint")?);
    let service = SocketAddr::new(near, SERVICE);
    ask(&rig.lab, "controller", service)?;
    // The interface that the control connection comes in by.
    let (socket, own) = raw(&controller, near).await?;
    assert_eq!(own, near);
    socket.send.capture(&filter::everything(), Ticks::MAX).await?;
    answers(&controller).await?;
    is_cut_off(&rig.lab, "controller", service)?;
    answers(&controller).await?;
    socket.send.stop_capture().await?;
    ask(&rig.lab, "controller", service)?;
    drop(socket);

    // The other interface, where neighbours are to be found by asking, as on an Ethernet.
    let (far, far6) = rig.lab.inside("endpoint", || {
        let own = |to: &str| UdpSocket::bind("[::]:0").and_then(|s| s.connect(to).and(s.local_addr()));
        (own("[::ffff:10.91.4.2]:1"), own("[fd91:0:0:4::2]:1"))
    })?;
    let (far, far6) = (far?.ip().to_canonical(), far6?.ip());
    for (host, device, address) in [("endpoint", "r2", far6), ("r2", "endpoint", rig.lab.v6("r2")?.into())] {
        // The address is given anew because only then its multicast group is joined, to which others send their questions.
        let line = format!(
            "ip link set dev {device} arp on && ip neigh flush nud permanent dev {device} && \
             ip address del {address}/64 dev {device} && ip address add {address}/64 dev {device} nodad"
        );
        let output = rig.lab.run(host, &["sh", "-c", &line])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (socket, own) = raw(&controller, ANY).await?;
    assert_eq!(own, far);
    socket.send.capture(&filter::everything(), Ticks::MAX).await?;
    for address in [far, far6] {
        is_cut_off(&rig.lab, "r2", SocketAddr::new(address, SERVICE))?;
        // "REACHABLE", or a little later "STALE"; without an answer "INCOMPLETE" or "FAILED", and no hardware address.
        let output = rig.lab.run("r2", &["ip", "neigh", "show", "to", &address.to_string()])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("lladdr 02:00:5e"), "{address}: {text:?}");
    }
    socket.send.stop_capture().await?;
    for address in [far, far6] {
        ask(&rig.lab, "r2", SocketAddr::new(address, SERVICE))?;
    }
    Ok(())
}

#[tokio::test]
async fn it_ends_with_the_end_the_socket_and_the_session() -> Result<()> {
    if !crate::permitted() {
        return Ok(());
    }
    let mut rig = Rig::up(&STEAL)?;
    serve(&rig.lab)?;
    let controller = rig.meet().await?;
    for end in ["time", "replaced", "closed", "session"] {
        let (socket, own) = raw(&controller, ANY).await?;
        let service = SocketAddr::new(own, SERVICE);
        let until = if end == "time" { controller.time().await? + 1_000_000_000 } else { Ticks::MAX };
        socket.send.capture(&filter::everything(), until).await?;
        is_cut_off(&rig.lab, "target", service)?;
        match end {
            "time" => drop(controller.wait_until(until + 1_000_000).await?),
            "replaced" => socket.send.capture(&filter::echo_replies(1), Ticks::MAX).await?,
            "session" => {
                controller.close("the test is over");
                controller.finished().await;
            }
            _ => {}
        }
        if end != "replaced" {
            drop(socket);
        }
        if end == "closed" {
            answers(&controller).await?;
        }
        ask(&rig.lab, "target", service).context(end)?;
    }
    Ok(())
}

#[tokio::test]
async fn several_sockets_withhold_what_any_of_them_wants() -> Result<()> {
    if !crate::permitted() {
        return Ok(());
    }
    let mut rig = Rig::up(&STEAL)?;
    let ports = [SERVICE, SERVICE + 1];
    let controller = rig.meet().await?;
    let mut sockets = Vec::new();
    let mut own = ANY;
    for port in ports {
        serve_on(&rig.lab, port)?;
        let (socket, address) = raw(&controller, ANY).await?;
        let filter = accept(&[&[byte(0, 0x45), byte(9, 6), half(22, port)]]);
        socket.send.capture(&filter, Ticks::MAX).await?;
        sockets.push(socket);
        own = address;
    }
    let services = ports.map(|port| SocketAddr::new(own, port));
    for (service, socket) in services.into_iter().zip(&mut sockets) {
        is_cut_off(&rig.lab, "target", service)?;
        let withheld = packet::parse(&data(&mut socket.receive).await?.data)?;
        assert_eq!((withheld.ports().1, withheld.flags()), (service.port(), SYN));
    }
    drop(sockets.remove(0));
    answers(&controller).await?;
    ask(&rig.lab, "target", services[0])?;
    is_cut_off(&rig.lab, "target", services[1])?;
    Ok(())
}

#[tokio::test]
async fn a_capture_that_cannot_withhold_fails() -> Result<()> {
    if !crate::permitted() {
        return Ok(());
    }
    let mut rig = Rig::up(&Options { before: NET_RAW_ONLY, ..STEAL })?;
    let controller = rig.meet().await?;
    let (mut socket, own) = raw(&controller, ANY).await?;
    let refused = socket.send.capture(&filter::everything(), Ticks::MAX).await;
    assert_eq!(refused.err().and_then(|error| error.errid()), Some(ErrId::EUNKFAULT));
    let block = controller.mread(socket.send.block_addr() + cell::STAT, 1).await?;
    assert_eq!(SocketState::from_octet(block[0]), Some(SocketState::UnkFault));
    // It does not observe in silence instead: the host has answered, the answer was there to be seen.
    let probe = || TcpStream::connect_timeout(&(own, 1).into(), SOON).is_err();
    assert!(rig.lab.inside("target", probe)?);
    answers(&controller).await?;
    assert!(socket.receive.try_recv().is_none());
    Ok(())
}

#[tokio::test]
async fn a_killed_endpoint_leaves_nothing_behind() -> Result<()> {
    if !crate::permitted() {
        return Ok(());
    }
    let mut rig = Rig::up(&STEAL)?;
    serve(&rig.lab)?;
    let controller = rig.meet().await?;
    let (socket, own) = raw(&controller, ANY).await?;
    let service = SocketAddr::new(own, SERVICE);
    socket.send.capture(&filter::everything(), Ticks::MAX).await?;
    is_cut_off(&rig.lab, "target", service)?;
    rig.kill()?;
    let killed = Instant::now();
    while ask_within(&rig.lab, "target", service, SILENCE)?.is_err() {
        ensure!(killed.elapsed() < SOON, "the host does not answer again");
    }
    let silent = killed.elapsed();
    println!("the host answered {silent:?} after the end");
    assert!(silent < Duration::from_secs(1), "the host answers again: {silent:?}");

    rig.start()?;
    let controller = rig.meet().await?;
    let (mut socket, _) = raw(&controller, ANY).await?;
    socket.send.capture(&filter::echo_replies(5), Ticks::MAX).await?;
    let request = packet::echo(ANY, rig.lab.v4("target")?.into(), 64, 5, 1, b"")?;
    socket.send.send(request.into(), None).await?;
    data(&mut socket.receive).await?;
    ask(&rig.lab, "target", service)?;
    Ok(())
}

//! Traceroute with UDP probes built in full (spec `raw.md` §7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use pktlab::controller::Controller;
use pktlab::wire::Ticks;
use system_tests::endpoint::{Options, Rig, data, raw};
use system_tests::filter::{accept, byte};
use system_tests::packet::{self, Parsed};

const SOURCE: u16 = 40_000;
/// The port of the first probe; nothing listens on these.
const BASE: u16 = 33_434;

/// Hops to a target, until it answers itself: who answered with what.
async fn trace(controller: &Controller, local: IpAddr, target: IpAddr) -> Result<Vec<(IpAddr, (u8, u8))>> {
    let (mut socket, own) = raw(controller, local).await?;
    let (time_exceeded, unreachable) = if target.is_ipv4() { (11, 3) } else { (3, 1) };
    let case = |kind: u8| match target {
        IpAddr::V4(_) => [byte(0, 0x45), byte(9, 1), byte(20, kind)],
        IpAddr::V6(_) => [byte(0, 0x60), byte(6, 58), byte(40, kind)],
    };
    let filter = accept(&[&case(time_exceeded), &case(unreachable)]);
    socket.send.capture(&filter, Ticks::MAX).await?;
    let mut hops = Vec::new();
    loop {
        let ttl = hops.len() as u8 + 1;
        ensure!(ttl < 10, "the target does not answer: {hops:?}");
        let to = SocketAddr::new(target, BASE + u16::from(ttl));
        let probe = packet::udp(SocketAddr::new(own, SOURCE), to, ttl, b"probe")?;
        socket.send.send_at(probe.into(), None, 0, ttl.into()).await?;
        let answer = packet::parse(&data(&mut socket.receive).await?.data)?;
        let Parsed { from, to: back, .. } = answer;
        assert_eq!(back, own);
        let quoted = answer.quoted()?;
        assert_eq!((quoted.from, quoted.to, quoted.protocol), (own, target, 17));
        assert_eq!(quoted.ports(), (SOURCE, to.port()), "the probe of this hop");
        hops.push((from, answer.icmp().expect("the filter let nothing else pass")));
        if from == target {
            return Ok(hops);
        }
    }
}

#[tokio::test]
async fn hops_come_in_order_with_the_probes_they_answer() -> Result<()> {
    let mut rig = Rig::up(&Options::default())?;
    let controller = rig.meet().await?;
    let lab = &rig.lab;
    let (router, target) = (IpAddr::from(lab.v4("r2")?), IpAddr::from(lab.v4("target")?));
    let hops = trace(&controller, Ipv4Addr::UNSPECIFIED.into(), target).await?;
    assert_eq!(hops, [(router, (11, 0)), (target, (3, 3))]);
    let (router, target) = (IpAddr::from(lab.v6("r2")?), IpAddr::from(lab.v6("target")?));
    let hops = trace(&controller, Ipv6Addr::UNSPECIFIED.into(), target).await?;
    assert_eq!(hops, [(router, (3, 0)), (target, (1, 4))]);
    Ok(())
}

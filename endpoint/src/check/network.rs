//! Addresses, names, raw sockets: everything that meets the network.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};

use super::{Finding, Verdict};
use crate::config::{Config, Protocol, raw_permitted};
use crate::net::interfaces;
use crate::{dial, net};

/// For one answer of a resolver; a second question follows a lost one.
const ANSWER_TIME: Duration = Duration::from_millis(1_500);
const QUESTIONS: u32 = 2;

/// How a capability is given to this program.
fn grant(names: &[&str]) -> String {
    let program = std::env::current_exe().map_or("pktendpt".into(), |path| path.display().to_string());
    let file = names.iter().map(|name| name.to_lowercase()).collect::<Vec<_>>().join(",");
    format!(
        "setcap {file}+ep {program}, or AmbientCapabilities={} in the service unit, or run it as root",
        names.join(" ")
    )
}

pub(super) async fn controller(config: &Config, named: Option<&str>) -> Finding {
    const TOPIC: &str = "controller";
    let Some(name) = named.or(config.controller.address.as_deref()) else {
        return Finding::new(TOPIC, Verdict::Off, "none in the configuration; name one on the command line");
    };
    let remedy = "correct `address` in [controller], or the name servers of this host";
    let (host, port) = match dial::host_port(name) {
        Ok(parts) => parts,
        Err(error) => return Finding::missing(TOPIC, format!("{error:#}"), remedy),
    };
    match dial::resolve(&host, port).await {
        Ok(found) if !found.is_empty() => {
            let list: Vec<_> = found.iter().map(SocketAddr::to_string).collect();
            Finding::ok(TOPIC, format!("{name} is {}", list.join(", ")))
        }
        Ok(_) => Finding::missing(TOPIC, format!("{name} has no address"), remedy),
        Err(error) => Finding::missing(TOPIC, format!("{error:#}"), remedy),
    }
}

/// Each exported address: a measurement socket is bound to it.
pub(super) fn addresses(config: &Config) -> Vec<Finding> {
    const TOPIC: &str = "addresses";
    const REMEDY: &str = "correct `addresses` in [endpoint]; `ip address` lists what this host has";
    let (exported, own) = match (net::exported(&config.endpoint.addresses), interfaces()) {
        (Ok(exported), Ok(own)) => (exported, own),
        (Err(error), _) | (_, Err(error)) => {
            return vec![Finding::missing(TOPIC, format!("{error:#}"), REMEDY)];
        }
    };
    if exported.is_empty() {
        return vec![Finding::missing(TOPIC, "none to export", REMEDY)];
    }
    let judge = |(address, bits): (IpAddr, u8)| {
        let interface = own.iter().find(|own| own.address == address).map(|own| own.name.as_str());
        match (interface, UdpSocket::bind((address, 0))) {
            (Some(name), Ok(_)) => Finding::ok(TOPIC, format!("{address}/{bits} on {name}")),
            (None, _) => Finding::missing(TOPIC, format!("no interface has {address}"), REMEDY),
            (_, Err(error)) => Finding::missing(TOPIC, format!("{address} cannot be used: {error}"), REMEDY),
        }
    };
    exported.into_iter().map(judge).collect()
}

/// Each exported resolver is asked for the name servers of the root.
pub(super) async fn resolvers(config: &Config, resolv_conf: &Path) -> Vec<Finding> {
    const TOPIC: &str = "resolvers";
    const REMEDY: &str = "correct `resolvers` in [endpoint]; controllers resolve names with them";
    let list = config.resolvers(resolv_conf);
    if list.is_empty() {
        let text = "none to export: controllers cannot resolve names here";
        return vec![Finding::warning(TOPIC, text, REMEDY)];
    }
    let mut findings = Vec::with_capacity(list.len());
    for address in list {
        findings.push(match answers(SocketAddr::new(address, 53)).await {
            Ok(()) => Finding::ok(TOPIC, format!("{address} answers")),
            Err(error) => Finding::missing(TOPIC, format!("{address} does not answer: {error}"), REMEDY),
        });
    }
    findings
}

/// Any answer to a question shows a resolver; what it says is the controller's business.
async fn answers(resolver: SocketAddr) -> io::Result<()> {
    let local: SocketAddr = match resolver {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = tokio::net::UdpSocket::bind(local).await?;
    socket.connect(resolver).await?;
    let id = (std::process::id() as u16).to_be_bytes();
    // One question, recursion wanted: the name servers (2) of the root (an empty name) in the Internet's class (1).
    let question = [id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    for _ in 0..QUESTIONS {
        socket.send(&question).await?;
        let mut answer = [0; 4_096];
        match tokio::time::timeout(ANSWER_TIME, socket.recv(&mut answer)).await {
            Ok(Ok(length)) if length >= 12 && answer[..2] == id && answer[2] & 0x80 != 0 => return Ok(()),
            Ok(Ok(_)) => return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is none of DNS")),
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

pub(super) fn policy(config: &Config) -> Finding {
    let policy = &config.policy;
    let private = if policy.private { "private networks allowed" } else { "private networks refused" };
    let burst = match policy.burst.0 {
        Some(burst) => {
            format!("at most {} bytes in any {} ms", burst.count, burst.window.div_ceil(1_000_000))
        }
        None => "no limit of bursts".to_owned(),
    };
    let lists = format!("{} allowed and {} denied by list", policy.allow.len(), policy.deny.len());
    Finding::ok("policy", format!("{private}, {lists}, {burst}"))
}

pub(super) fn raw(config: &Config) -> Finding {
    const TOPIC: &str = "raw sockets";
    let wanted = config.endpoint.protocols.contains(&Protocol::Raw);
    match (raw_permitted(), wanted) {
        (Ok(()), true) => Finding::ok(TOPIC, "a sending and a capturing one could be opened"),
        (Ok(()), false) => Finding::new(TOPIC, Verdict::Off, "possible; \"raw\" in `protocols` offers them"),
        (Err(error), true) => Finding::missing(TOPIC, error.to_string(), grant(&["CAP_NET_RAW"])),
        (Err(error), false) => {
            Finding::new(TOPIC, Verdict::Off, format!("not offered (and not possible: {error})"))
        }
    }
}

pub(super) fn steal(config: &Config) -> Finding {
    const TOPIC: &str = "stealing";
    if !config.raw.steal {
        return Finding::new(TOPIC, Verdict::Off, "captured packets reach this host as well");
    }
    match crate::steal::check() {
        Ok(()) => Finding::ok(TOPIC, "captured packets can be withheld from this host"),
        Err(error) => {
            Finding::missing(TOPIC, error.to_string(), grant(&["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]))
        }
    }
}

/// A datagram to this process itself, for the kernel's time stamp on it.
pub(super) fn stamps() -> Finding {
    const TOPIC: &str = "time stamps";
    match stamped() {
        Ok(true) => Finding::ok(TOPIC, "the kernel stamps what arrives"),
        Ok(false) => Finding::warning(
            TOPIC,
            "a datagram came without the kernel's stamp",
            "arrival times are those of reading; use another kernel for exact ones",
        ),
        Err(error) => Finding::warning(
            TOPIC,
            format!("could not be tried over loopback: {error}"),
            "bring the loopback interface up: ip link set lo up",
        ),
    }
}

fn stamped() -> io::Result<bool> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(ANSWER_TIME))?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    socket.send_to(b"stamp", socket.local_addr()?)?;
    let mut buffer = [0; 16];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let flags = MsgFlags::empty();
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    Ok(message.cmsgs()?.any(|message| matches!(message, ControlMessageOwned::ScmTimestampns(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sections: &str) -> Config {
        Config::parse(&format!("[controller]\nkey = \"k\"\ncertificates = [\"c\"]\n{sections}"))
            .expect("valid")
    }

    #[test]
    fn an_address_nobody_has_is_missing() {
        let findings = addresses(&config("[endpoint]\naddresses = [\"lo\", \"192.0.2.254\"]\n"));
        assert_eq!(findings[0].verdict, Verdict::Ok, "{findings:?}");
        assert!(findings[0].text.contains("on lo"));
        let last = findings.last().expect("a finding");
        assert_eq!(last.verdict, Verdict::Missing);
        assert!(last.text.contains("192.0.2.254"));
    }

    #[tokio::test]
    async fn a_resolver_has_to_answer() {
        let resolver = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let address = resolver.local_addr().expect("address");
        let answering = tokio::spawn(async move {
            let mut question = [0; 512];
            let (length, from) = resolver.recv_from(&mut question).await.expect("a question");
            assert_eq!(length, 17);
            question[2] |= 0x80;
            resolver.send_to(&question[..length], from).await.expect("sent");
        });
        answers(address).await.expect("an answer");
        answering.await.expect("a resolver");
        // The port is closed now, which the kernel reports.
        assert!(answers(address).await.is_err());
    }

    #[tokio::test]
    async fn a_controller_is_looked_for() {
        let found = controller(&config(""), Some("127.0.0.1:7")).await;
        assert_eq!((found.verdict, found.text.contains("127.0.0.1:7")), (Verdict::Ok, true));
        assert_eq!(controller(&config(""), Some("127.0.0.1:port")).await.verdict, Verdict::Missing);
        assert_eq!(controller(&config(""), None).await.verdict, Verdict::Off);
    }

    #[test]
    fn loopback_datagrams_are_stamped() {
        assert!(stamped().expect("loopback"));
    }

    #[test]
    fn what_is_not_asked_for_is_off() {
        assert_eq!(raw(&config("")).verdict, Verdict::Off);
        assert_eq!(steal(&config("")).verdict, Verdict::Off);
        let asked = raw(&config("[endpoint]\nprotocols = [\"raw\"]\n"));
        let expected = if raw_permitted().is_ok() { Verdict::Ok } else { Verdict::Missing };
        assert_eq!(asked.verdict, expected);
    }
}

//! The program itself: an inherited control connection, a configuration from a pipe, a namespace, memory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::program::{acceptor, toml};
use common::{credentials, open_udp};
use pktlab::vmem::{extension, system};
use pktlab::wire::{Frame, MAX_BODY, Message};
use tokio::net::TcpListener;

/// Starts the program with two descriptors, which it inherits.
fn spawn(control: OwnedFd, config: &str, extra: &[&str]) -> Child {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(config.as_bytes()).unwrap();
    drop(writer);
    // One at a time, so that no other child inherits these.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::empty()).unwrap();
    rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_pktendpt"))
        .args(["--control-fd", &control.as_raw_fd().to_string()])
        .args(["--credentials-fd", &reader.as_raw_fd().to_string()])
        .args(extra)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((control, reader));
    child
}

async fn pair() -> (tokio::net::TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    (ours, theirs.into())
}

#[tokio::test]
async fn one_session_over_inherited_descriptors() {
    let credentials = credentials();
    let (ours, theirs) = pair().await;
    let mut child = spawn(theirs, &toml(&credentials), &[]);
    let session = acceptor(&credentials).accept(ours).await.unwrap();
    let (mut reader, mut writer) = session.split(MAX_BODY);
    writer.send(&Message::Start).await.unwrap();
    writer.send(&Message::MRead { addr: system::IP4DNSLS, len: 4 }).await.unwrap();
    assert!(matches!(reader.next().await.unwrap(), Some(Frame::Message(Message::Result(_)))));
    let Some(Frame::Message(Message::MData { data, .. })) = reader.next().await.unwrap() else {
        panic!("MDATA")
    };
    assert_eq!(data[..], [192, 0, 2, 53]);
    writer.shutdown().await.unwrap();
    assert!(reader.next().await.unwrap().is_none());
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_killed_controller_ends_the_program() {
    let credentials = credentials();
    let (ours, theirs) = pair().await;
    let mut child = spawn(theirs, &toml(&credentials), &[]);
    let session = acceptor(&credentials).accept(ours).await.unwrap();
    drop(session);
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap());
    tokio::time::timeout(Duration::from_secs(10), status).await.expect("ended").unwrap();
}

#[tokio::test]
async fn a_wrong_configuration_says_what_to_do() {
    let (_ours, theirs) = pair().await;
    let mut child = spawn(theirs, "[controller]\nkey = 1\n", &[]);
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(text.contains("key"), "{text}");
    let (_ours, theirs) = pair().await;
    let mut child = spawn(theirs, &toml(&credentials()), &["--netns", "no-such-namespace"]);
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(text.contains("no-such-namespace"), "{text}");
}

/// A network namespace with one address of its own, removed at the end.
struct Namespace(String);

impl Namespace {
    /// `None` where namespaces cannot be made.
    fn new() -> Option<Self> {
        let name = format!("pktendpt-test-{}", std::process::id());
        let ip = |arguments: &[&str]| {
            Command::new("ip")
                .args(arguments)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        if !ip(&["netns", "add", &name]) {
            return None;
        }
        let made = Self(name);
        assert!(ip(&["-n", &made.0, "address", "add", "192.0.2.77/24", "dev", "lo"]));
        assert!(ip(&["-n", &made.0, "link", "set", "lo", "up"]));
        Some(made)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[tokio::test]
async fn measurement_sockets_live_in_the_namespace() {
    let Some(namespace) = Namespace::new() else {
        println!("skipped: no permission to make network namespaces here");
        return;
    };
    let credentials = credentials();
    let (ours, theirs) = pair().await;
    let mut child = spawn(theirs, &toml(&credentials), &["--netns", &namespace.0]);
    let session = acceptor(&credentials).accept(ours).await.unwrap();
    let (mut reader, mut writer) = session.split(MAX_BODY);
    writer.send(&Message::Start).await.unwrap();
    writer.send(&Message::MRead { addr: system::IP4LS, len: 16 }).await.unwrap();
    // An address that only the namespace has.
    writer.send(&open_udp(1, 0, "192.0.2.77:0".parse().unwrap())).await.unwrap();
    assert!(matches!(reader.next().await.unwrap(), Some(Frame::Message(Message::Result(_)))));
    let Some(Frame::Message(Message::MData { data, .. })) = reader.next().await.unwrap() else {
        panic!("MDATA")
    };
    assert!(data.chunks(4).any(|address| address == [192, 0, 2, 77]), "{data:?}");
    let Some(Frame::Message(opened)) = reader.next().await.unwrap() else { panic!("RESULT") };
    assert_eq!(opened, Message::Result(pktlab::wire::Outcome::Plain(pktlab::wire::ErrId::SUCCESS)));
    drop((reader, writer));
    let _ = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
}

/// Peak resident memory of a process, bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// What a hostile or merely careless controller does to memory: many tiny sends that wait, each arriving with a large
/// neighbour, held tags, the largest messages, and a controller that reads nothing while a flood arrives.
#[tokio::test]
async fn memory_stays_below_64_mib() {
    let credentials = credentials();
    let (ours, theirs) = pair().await;
    let mut child = spawn(theirs, &toml(&credentials), &[]);
    let session = acceptor(&credentials).accept(ours).await.unwrap();
    let (mut reader, mut writer) = session.split(MAX_BODY);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let reading = tokio::spawn(async move {
        let mut count = 0u64;
        loop {
            tokio::select! {
                frame = reader.next() => match frame { Ok(Some(_)) => count += 1, _ => return (reader, count) },
                _ = &mut stopped => return (reader, count),
            }
        }
    });
    writer.send(&Message::Start).await.unwrap();
    writer
        .send(&Message::MWrite { addr: extension::ENABLED, data: bytes::Bytes::from_static(&[0, 0, 0, 1]) })
        .await
        .unwrap();
    writer.send(&open_udp(1, 8 << 20, "127.0.0.1:0".parse().unwrap())).await.unwrap();
    let mask = bytes::Bytes::from_static(&[0, 2]);
    let notifmask = pktlab::vmem::socket::block(1) + pktlab::vmem::socket::NOTIFMASK;
    writer.send(&Message::MWrite { addr: notifmask, data: mask }).await.unwrap();
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let junk = bytes::Bytes::from(vec![0; 70_000]);
    for _ in 0..2_000 {
        // Two thousand neighbours of 70 kB would be 140 MB.
        writer.send(&Message::MWrite { addr: 0, data: junk.clone() }).await.unwrap();
        writer.send(&common::send_to(1, nowhere, u64::MAX, 1, &[1; 1_100])).await.unwrap();
    }
    let largest = bytes::Bytes::from(vec![0; MAX_BODY - 4]);
    for _ in 0..3 {
        writer.send(&Message::MWrite { addr: 0, data: largest.clone() }).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.send(()).unwrap();
    let (reader, count) = reading.await.unwrap();
    assert!(count > 4_000, "{count} answers");
    let peak = peak(child.id());
    println!("peak {} MiB", peak >> 20);
    assert!(peak < 64 << 20, "{peak} bytes");
    drop((reader, writer));
    let _ = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
}

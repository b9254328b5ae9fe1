//! Controllers that misbehave harm their own session only: real sockets, real TLS.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::program::{self, Home, Running, SOON};
use common::{Peer, config, credentials, meet, open_tcp, open_udp, send_to, start};
use pktendpt::policy::{Policy, Rules};
use pktendpt::session::SessionConfig;
use pktlab::cert::Network;
use pktlab::vmem::{SocketState, system};
use pktlab::wire::{Encoded, ErrId, Frame, MAX_BODY, Message, Outcome};
use tokio::net::{TcpListener, UdpSocket};

const MIB: u32 = 1 << 20;

/// Whatever a broken message says, nothing leaves this host.
fn confined() -> SessionConfig {
    let network = |addr: &str, prefix| Network { addr: addr.parse().unwrap(), prefix };
    let rules = Rules {
        allow: vec![network("127.0.0.0", 8), network("::1", 128)],
        deny: vec![network("0.0.0.0", 0), network("::", 0)],
        ..Rules::default()
    };
    SessionConfig { policy: Policy::new(&rules, &[], &[]), ..config(MIB) }
}

async fn say(peer: &mut Peer, bytes: &[u8]) -> bool {
    let encoded = Encoded { head: Bytes::copy_from_slice(bytes), payload: Bytes::new() };
    peer.writer.send_encoded(&encoded).await.is_ok() && peer.writer.flush().await.is_ok()
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[tokio::test]
async fn garbage_at_any_point_of_the_stream() {
    let sane = [
        open_udp(1, 100, "127.0.0.1:0".parse().unwrap()),
        send_to(1, "127.0.0.1:9".parse().unwrap(), 0, 1, b"payload"),
        Message::MRead { addr: system::TIME, len: 8 },
        Message::MWrite { addr: system::TIME, data: Bytes::from_static(&[0; 9]) },
        Message::NClose { socket: 1 },
    ];
    let sane: Vec<u8> = sane.iter().flat_map(|message| message.encode().unwrap().to_vec()).collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..40 {
        let mut peer = meet(credentials(), confined()).await;
        if round % 4 > 0 {
            peer.ok(Message::Start).await;
        }
        let mut bytes = sane.clone();
        if round % 2 == 0 {
            let len = dice.below(300) + 1;
            bytes = (0..len).map(|_| dice.below(256) as u8).collect();
        } else {
            for _ in 0..=dice.below(4) {
                let place = dice.below(bytes.len());
                bytes[place] = dice.below(256) as u8;
            }
        }
        for piece in bytes.chunks(dice.below(40) + 1) {
            if !say(&mut peer, piece).await {
                break;
            }
        }
        let _ = peer.writer.shutdown().await;
        // However it ends, it ends, and no thread of the endpoint panicked.
        let ended = tokio::time::timeout(Duration::from_secs(20), peer.served).await.expect("in time");
        drop(ended.unwrap());
    }
}

#[tokio::test]
async fn streams_that_break_off() {
    // Between messages, within a header, within a body, before a body of 16 MiB that never comes.
    for bytes in [&b""[..], b"\x28\0", b"\x28\0\0\x06\x10", b"\x29\xff\xff\xff\x10\0\0\0"] {
        let mut peer = start(MIB).await;
        say(&mut peer, bytes).await;
        let Peer { reader, writer, served, .. } = peer;
        // No close_notify: the connection is just gone.
        drop((reader, writer));
        let ended = tokio::time::timeout(Duration::from_secs(20), served).await.expect("in time").unwrap();
        assert_eq!(ended.is_ok(), bytes.is_empty(), "{bytes:?}: {ended:?}");
    }
}

#[tokio::test]
async fn a_controller_that_never_reads_is_not_read() {
    const READS: usize = 500;
    const WRITES: usize = 64;
    let mut peer = start(MIB).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let (count, mut writer) = (sent.clone(), peer.writer);
    let sender = tokio::spawn(async move {
        let data = Bytes::from(vec![0; 1 << 20]);
        for step in 0..READS + WRITES {
            let message = if step < READS {
                Message::MRead { addr: 0x7000_0000 + step as u32, len: 65_535 }
            } else {
                Message::MWrite { addr: 0x7000_0000, data: data.clone() }
            };
            writer.send(&message).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
        writer
    });
    let mut before = usize::MAX;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(before < READS + WRITES, "the endpoint took everything");
    // Nothing was lost meanwhile.
    for step in 0..READS + WRITES {
        let frame = tokio::time::timeout(Duration::from_secs(40), peer.reader.next()).await.unwrap().unwrap();
        match frame {
            Some(Frame::Message(Message::MData { addr, data })) => {
                assert_eq!((addr, data.len()), (0x7000_0000 + step as u32, 65_535));
            }
            Some(Frame::Message(Message::Result(Outcome::Plain(ErrId::SUCCESS)))) => assert!(step >= READS),
            other => panic!("{other:?}"),
        }
    }
    sender.await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn all_256_sockets_open_and_close_and_open() {
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = target.local_addr().unwrap();
    let mut peer = start(MIB).await;
    for round in 0..2 {
        for id in 0..=255 {
            peer.ok(open_udp(id, 100, "127.0.0.1:0".parse().unwrap())).await;
            // One now, one far away.
            peer.ok(send_to(id, to, 0, 0, &[id])).await;
            peer.ok(send_to(id, to, u64::MAX, 1, b"never")).await;
        }
        let mut buffer = [0; 8];
        for id in 0..=255 {
            let len = target.recv(&mut buffer).await.unwrap();
            assert_eq!(buffer[..len], [id], "round {round}");
        }
        for id in 0..=255 {
            peer.ok(Message::NClose { socket: id }).await;
        }
        assert_eq!(&peer.read(system::BUFUSED, 4).await[..], [0; 4]);
    }
    assert!(peer.notes.is_empty());
}

#[tokio::test]
async fn a_flood_of_requests_is_answered_in_order() {
    const SENDS: usize = 20_000;
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = target.local_addr().unwrap();
    let mut peer = start(MIB).await;
    peer.ok(open_udp(1, 0, "127.0.0.1:0".parse().unwrap())).await;
    let mut writer = peer.writer;
    let sender = tokio::spawn(async move {
        for step in 0..SENDS {
            writer.send(&send_to(1, to, 0, 1, b"flood")).await.unwrap();
            writer.send(&Message::MRead { addr: 0x7000_0000 + step as u32, len: 1 }).await.unwrap();
        }
        writer.send(&Message::NClose { socket: 1 }).await.unwrap();
        writer
    });
    let (mut accepted, mut tagged, mut results, mut reads) = (0, 0, 0, 0);
    while results <= SENDS {
        let frame = tokio::time::timeout(Duration::from_secs(40), peer.reader.next()).await.unwrap().unwrap();
        match frame {
            Some(Frame::Message(Message::Result(Outcome::Plain(errid)))) => {
                assert!(errid == ErrId::SUCCESS || errid == ErrId::ESYSNOBUFS, "{errid}");
                accepted += usize::from(errid == ErrId::SUCCESS && results < SENDS);
                results += 1;
            }
            Some(Frame::Message(Message::MData { addr, .. })) => {
                assert_eq!(addr, 0x7000_0000 + reads);
                reads += 1;
            }
            Some(Frame::Message(Message::NTag(tag))) => tagged += usize::from(tag.errid == ErrId::SUCCESS),
            other => panic!("{other:?}"),
        }
    }
    assert!(accepted > 0 && tagged <= accepted, "{tagged} of {accepted}");
    sender.await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn odd_destinations() {
    let mut peer = start(MIB).await;
    peer.ok(open_tcp(1, 0, "127.0.0.1:0".parse().unwrap())).await;
    while peer.state(1).await == SocketState::Opening {}
    assert!(peer.state(1).await.is_error(), "nothing listens at port 0");
    peer.ok(open_udp(2, 0, "127.0.0.1:0".parse().unwrap())).await;
    peer.ok(send_to(2, "127.0.0.1:0".parse().unwrap(), 0, 3, b"x")).await;
    peer.read(system::TIME, 8).await;
    peer.ok(Message::NClose { socket: 2 }).await;
    peer.ok(Message::NClose { socket: 1 }).await;
}

/// Descriptors of a process.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test]
async fn the_next_session_of_an_endpoint_finds_nothing_left_behind() {
    let credentials = credentials();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let home = Home::new(&format!(
        "{}address = \"{}\"\n[endpoint]\naddresses = [\"lo\"]\nresolvers = []\n[policy]\nallow = [\"own\"]\n\
         [state]\npersist = false\nsocket = \"status.sock\"\n",
        program::controller(&credentials),
        listener.local_addr().unwrap()
    ));
    let _endpoint = Running::start(&mut home.command());
    let mut counts = Vec::new();
    for _ in 0..3 {
        let (stream, _) =
            tokio::time::timeout(SOON, listener.accept()).await.expect("it comes again").unwrap();
        let session = program::acceptor(&credentials).accept(stream).await.unwrap();
        let (mut reader, mut writer) = session.split(MAX_BODY);
        let mut ask = async |message: Message| {
            writer.send(&message).await.unwrap();
            tokio::time::timeout(SOON, reader.next()).await.expect("in time").unwrap().unwrap()
        };
        let success = Frame::Message(Message::Result(Outcome::Plain(ErrId::SUCCESS)));
        assert_eq!(ask(Message::Start).await, success);
        let output = home.output(&["status", "--json"]);
        let status: pktendpt::status::Status = serde_json::from_slice(&output.stdout).unwrap();
        let idle = descriptors(status.pid);
        for id in 0..=255 {
            assert_eq!(ask(open_udp(id, 100, "127.0.0.1:0".parse().unwrap())).await, success);
            let far = send_to(id, "127.0.0.1:9".parse().unwrap(), u64::MAX, 1, b"never");
            assert_eq!(ask(far).await, success);
        }
        // The connection that asked for the status may just be closing.
        assert!(descriptors(status.pid) >= idle + 250);
        counts.push(idle);
        // Then the controller is gone without a word.
    }
    assert!(counts.iter().all(|count| *count <= counts[0]), "{counts:?}");
}

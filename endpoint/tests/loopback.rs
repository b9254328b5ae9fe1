//! The endpoint at work: real sockets on loopback, a real TLS session.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{config, credentials, meet, open_tcp, open_udp, send, send_to, start};
use pktendpt::driver::Outcome;
use pktendpt::net;
use pktendpt::session::End;
use pktlab::cert::{CertType, Issue, PrivateKey};
use pktlab::vmem::{SocketState, extension, socket as cell, system};
use pktlab::wire::{ErrId, Message, NCtl, NStat, StatEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

const MIB: u32 = 1 << 20;

#[tokio::test]
async fn a_stream_over_both_families() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(host).await.unwrap();
        let target = listener.local_addr().unwrap();
        let family = if target.is_ipv4() { 4 } else { 6 };
        let mut peer = start(8 * MIB).await;
        peer.connect(3, MIB, target).await;
        peer.ok(send(3, family, 0, 7, b"hello")).await;
        let (mut stream, from) = listener.accept().await.unwrap();
        let Message::NStat(stat) = peer.message().await else { panic!("NSTAT first") };
        assert_eq!((stat.socket, stat.event), (3, StatEvent::Established(target)));
        let Message::NTag(tag) = peer.message().await else { panic!("then NTAG") };
        assert_eq!((tag.tag, tag.errid), (7, ErrId::SUCCESS));
        assert!(tag.time >= stat.time);
        assert_eq!(peer.local_port(3).await, from.port());
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        stream.write_all(b"and back").await.unwrap();
        drop(stream);
        let mut got = Vec::new();
        let end = loop {
            match peer.message().await {
                Message::NData(data) => got.extend_from_slice(&data.data),
                other => break other,
            }
        };
        assert_eq!(got, b"and back");
        let Message::NStat(stat) = end else { panic!("peer closed, got {end:?}") };
        assert_eq!(stat.event, StatEvent::Code(NStat::PEER_CLOSED));
        assert_eq!(peer.state(3).await, SocketState::Eof);
        peer.ok(Message::NClose { socket: 3 }).await;
        peer.writer.shutdown().await.unwrap();
        assert!(matches!(peer.served.await.unwrap().unwrap(), Outcome::Closed));
    }
}

#[tokio::test]
async fn datagrams_over_both_families() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let echo = UdpSocket::bind(host).await.unwrap();
        let target = echo.local_addr().unwrap();
        let mut peer = start(8 * MIB).await;
        peer.ok(open_udp(1, MIB, host.parse().unwrap())).await;
        let port = peer.local_port(1).await;
        assert_ne!(port, 0);
        let mut buffer = vec![0; 65_536];
        for payload in [&b"query"[..], b"", &[7; 60_000]] {
            peer.ok(send_to(1, target, 0, 0, payload)).await;
            let (len, from) = echo.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..len], from.port()), (payload, port));
            echo.send_to(payload, from).await.unwrap();
            let Message::NData(data) = peer.message().await else { panic!("NDATA") };
            assert_eq!((&data.data[..], data.remote), (payload, Some(target)));
        }
        // Too long for any datagram: the socket is lost, as it is with the reference.
        peer.ok(send_to(1, target, 0, 9, &[0; 65_528])).await;
        let Message::NStat(stat) = peer.message().await else { panic!("NSTAT") };
        assert_eq!(stat.event, StatEvent::Code(NStat::UNKNOWN));
        let Message::NTag(tag) = peer.message().await else { panic!("NTAG") };
        assert_eq!((tag.tag, tag.errid), (9, ErrId::EPKTNOTSENT));
        assert_eq!(peer.state(1).await, SocketState::UnkFault);
    }
}

#[tokio::test]
async fn failed_connects_tell_their_number() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut peer = start(MIB).await;
    peer.ok(open_tcp(1, 0, free)).await;
    while peer.state(1).await == SocketState::Opening {}
    assert_eq!(peer.state(1).await, SocketState::Refused);
    assert!(peer.notes.is_empty(), "silent without the extension");
    assert_eq!(&peer.read(extension::CELL, 12).await[..], b"PLX1\0\0\0\x7f\0\0\0\0");
    peer.enable(extension::NERR).await;
    peer.ok(open_tcp(2, 0, free)).await;
    let error = peer.nerr().await;
    assert_eq!((error.socket, error.errno, error.remote), (2, 111, Some(free)));
    // Broadcast is no place to connect to: fails at once.
    peer.ok(open_tcp(3, 0, "255.255.255.255:1".parse().unwrap())).await;
    let error = peer.nerr().await;
    assert_eq!((error.socket, error.errno), (3, 101));
    assert_eq!(peer.state(3).await, SocketState::UnkFault);
    assert_eq!(peer.errid(send(3, 4, 0, 0, b"x")).await, ErrId::ESKTNOTOPEN);
}

#[tokio::test]
async fn ports_and_addresses_that_are_not_there() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut peer = start(MIB).await;
    assert_eq!(peer.errid(open_udp(1, 0, taken.local_addr().unwrap())).await, ErrId::EUDPNOPORT);
    assert_eq!(peer.errid(open_udp(1, 0, "192.0.2.99:0".parse().unwrap())).await, ErrId::ESKTNOADDR);
    peer.ok(open_udp(1, 0, "127.0.0.1:0".parse().unwrap())).await;
    assert_eq!(peer.errid(open_udp(1, 0, "127.0.0.1:0".parse().unwrap())).await, ErrId::ESKTINUSE);
}

#[tokio::test]
async fn scheduled_datagrams_are_never_early() {
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let remote = target.local_addr().unwrap();
    let mut peer = start(MIB).await;
    peer.ok(open_udp(1, MIB, "127.0.0.1:0".parse().unwrap())).await;
    let time = peer.read(system::TIME, 8).await;
    let base = u64::from_be_bytes(time[..].try_into().unwrap()) + 50_000_000;
    for step in 0..20 {
        peer.ok(send_to(1, remote, base + step * 3_000_000, 1 + step as u16, &[step as u8])).await;
    }
    let mut buffer = [0; 16];
    for step in 0..20 {
        let len = target.recv(&mut buffer).await.unwrap();
        assert!(net::now() >= base + step * 3_000_000, "early");
        assert_eq!(&buffer[..len], [step as u8]);
    }
    let mut late = Vec::new();
    for step in 0..20u64 {
        let Message::NTag(tag) = peer.message().await else { panic!("NTAG") };
        assert_eq!(u64::from(tag.tag), step + 1);
        late.push(tag.time - (base + step * 3_000_000));
    }
    late.sort_unstable();
    println!("NTAG - target: p50 {} us, worst {} us", late[10] / 1000, late[19] / 1000);
}

#[tokio::test]
async fn a_slow_controller_stalls_the_remote_and_nothing_is_lost() {
    const TOTAL: usize = 48 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = start(2 * MIB).await;
    peer.enable(extension::BATCHED_RECORDS).await;
    peer.connect(1, MIB, listener.local_addr().unwrap()).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = written.clone();
    let source = tokio::spawn(async move {
        let block: Vec<u8> = (0..251u8).cycle().take(251 * 256).collect();
        let mut left = TOTAL;
        while left > 0 {
            let len = left.min(block.len());
            stream.write_all(&block[..len]).await.unwrap();
            left -= len;
            count.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // The controller reads nothing until the source has stood still for a while.
    let mut before = usize::MAX;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = written.load(std::sync::atomic::Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < TOTAL, "the remote was never stalled");
    let mut got = 0;
    while got < TOTAL {
        if let Message::NData(data) = peer.message().await {
            for (index, byte) in data.data.iter().enumerate() {
                assert_eq!(usize::from(*byte), (got + index) % 251);
            }
            got += data.data.len();
        }
    }
    source.await.unwrap();
    let used = peer.read(cell::block(1) + cell::RBUFUSED, 4).await;
    assert_eq!(&used[..], [0; 4]);
}

#[tokio::test]
async fn uploads_arrive_whole_and_fin_follows_them() {
    const PIECES: usize = 200;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = start(8 * MIB).await;
    peer.enable(extension::BATCHED_RECORDS).await;
    peer.connect(1, MIB, listener.local_addr().unwrap()).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let sink = tokio::spawn(async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    });
    assert!(matches!(peer.message().await, Message::NStat(_)));
    let piece = vec![b'p'; 65_536];
    for _ in 0..PIECES {
        while peer.errid(send(1, 4, 0, 0, &piece)).await == ErrId::ESYSNOBUFS {}
    }
    peer.ok(Message::NCtl(NCtl { socket: 1, family: 4, time: 1, command: NCtl::FIN })).await;
    let all = sink.await.unwrap();
    assert_eq!(all.len(), PIECES * piece.len());
}

#[tokio::test]
async fn malformed_messages_end_the_session_with_a_result() {
    use pktlab::wire::{Encoded, Frame};
    let mut peer = start(MIB).await;
    let raw = bytes::Bytes::from_static(&[0x28, 0, 0, 1, 0]);
    peer.writer.send_encoded(&Encoded { head: raw, payload: bytes::Bytes::new() }).await.unwrap();
    peer.writer.flush().await.unwrap();
    let Some(Frame::Message(Message::Result(answer))) = peer.frame().await else { panic!("RESULT") };
    assert_eq!(answer, pktlab::wire::Outcome::Plain(ErrId::ECTLBADMSG));
    assert!(peer.frame().await.is_none(), "close_notify");
    assert!(matches!(peer.served.await.unwrap().unwrap(), Outcome::Ended(End::Malformed)));
}

#[tokio::test]
async fn yield_is_answered_and_closes() {
    let mut peer = start(MIB).await;
    peer.ok(Message::Yield { resume: 5 }).await;
    assert!(peer.frame().await.is_none());
    assert!(matches!(peer.served.await.unwrap().unwrap(), Outcome::Ended(End::Yield { resume: 5 })));
}

#[tokio::test]
async fn limits_of_a_chain_hold() {
    let mut credentials = credentials();
    let experimenter = PrivateKey::generate().unwrap();
    let mut issue = Issue::new(CertType::ExpPriv);
    issue.limits = vec![("max_send_byte".into(), "5".into())];
    let exppriv = issue.sign(&credentials.operator, &experimenter.public_key()).unwrap();
    let pubcmd =
        Issue::new(CertType::PubCmd).sign(&experimenter, &credentials.controller_key.public_key()).unwrap();
    credentials.controller_chain = vec![pubcmd, exppriv];
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = target.local_addr().unwrap();
    let mut peer = meet(credentials, config(MIB)).await;
    peer.ok(Message::Start).await;
    peer.ok(open_udp(1, MIB, "127.0.0.1:0".parse().unwrap())).await;
    assert_eq!(peer.errid(send_to(1, to, 0, 0, &[0; 6])).await, ErrId::ESKTPKTDENY);
    peer.ok(send_to(1, to, 0, 1, &[0; 3])).await;
    assert_eq!(peer.errid(send_to(1, to, 0, 0, &[0; 3])).await, ErrId::ESKTPKTDENY);
    peer.ok(send_to(1, to, 0, 2, &[0; 2])).await;
    assert_eq!(peer.errid(send_to(1, to, 0, 0, &[0; 1])).await, ErrId::ESKTPKTDENY);
}

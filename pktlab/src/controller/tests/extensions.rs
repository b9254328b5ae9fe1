//! Socket options, kernel stamps and facts about packets, errors of datagrams.

use super::*;
use crate::wire::{Family, NDatx, NErr, NOpt, NTagx, SockOpt};

fn datagram(socket: u8, len: usize) -> NDatx {
    NDatx {
        socket,
        family: Family::V4,
        proto: Proto::Udp,
        time: 5,
        kernel_time: true,
        ttl: Some(64),
        tos: None,
        truncated: false,
        local: Some("192.0.2.1".parse().unwrap()),
        remote: Some(addr("198.51.100.7:53")),
        data: Bytes::from(vec![7; len]),
    }
}

#[tokio::test]
async fn options_are_set_in_line_with_the_data() {
    let (controller, mut peer) = session(Some(extension::NOPT)).await;
    let (socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    let id = peer.open(SocketState::Open).await;
    let nopt = |option, value| ExtRequest::NOpt(NOpt { socket: id, family: 4, proto: 17, option, value });
    // Nothing is awaited between these: they are in order all the same.
    let first = socket.send.set_option(SockOpt::Ttl, 1);
    socket.send.send(Bytes::from_static(b"probe"), Some(addr("192.0.2.9:33434"))).await.unwrap();
    let second = socket.send.set_option(SockOpt::Tos, NOpt::SYSTEM_DEFAULT);
    let mtu = socket.send.option(SockOpt::PathMtu);
    assert_eq!(peer.take_extension().await, nopt(1, Some(1)));
    assert!(matches!(peer.take().await, Message::NSend(_)));
    assert_eq!(peer.take_extension().await, nopt(2, Some(u32::MAX)));
    assert_eq!(peer.take_extension().await, nopt(12, None));
    peer.give(&OK).await;
    peer.give(&OK).await;
    peer.refuse(ErrId::EUNKFAULT).await;
    peer.give(&Message::MData { addr: 12, data: Bytes::from_static(&[0, 0, 5, 0xDC]) }).await;
    first.await.unwrap();
    assert_eq!(second.await.unwrap_err().errid(), Some(ErrId::EUNKFAULT));
    assert_eq!(mtu.await.unwrap(), 1500);
}

#[tokio::test]
async fn without_its_bit_an_option_is_not_asked_for() {
    let (controller, mut peer) = session(Some(0)).await;
    let (socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    peer.open(SocketState::Open).await;
    assert!(matches!(socket.send.set_option(SockOpt::Ttl, 1).await, Err(Error::Unsupported(_))));
    assert!(matches!(socket.send.option(SockOpt::Ttl).await, Err(Error::Unsupported(_))));
    let reading = controller.mread(1, 1);
    peer.answer_read(|_| {}).await;
    reading.await.unwrap();
}

#[tokio::test]
async fn stamps_and_facts_reach_the_consumer() {
    let (controller, mut peer) = session(Some(extension::STAMPS)).await;
    let options = SocketOptions { tags: true, ..SocketOptions::default() };
    let (mut socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), options).unwrap();
    let id = peer.open(SocketState::Open).await;
    peer.note(ExtNote::NDatx(datagram(id, 3))).await;
    let Some(Event::Data(data)) = socket.receive.recv().await else { panic!("no data") };
    let expected = Received {
        time: 5,
        remote: Some(addr("198.51.100.7:53")),
        data: Bytes::from_static(&[7; 3]),
        kernel_time: true,
        ttl: Some(64),
        tos: None,
        local: Some("192.0.2.1".parse().unwrap()),
        truncated: false,
    };
    assert_eq!(data, expected);
    let mut totals = controller.totals();
    assert_eq!((totals.bytes_in, totals.messages_in), (3, 1));
    socket.send.send_at(Bytes::from_static(b"x"), Some(addr("192.0.2.9:9")), 0, 9).await.unwrap();
    peer.take().await;
    peer.give(&OK).await;
    let errid = ErrId::SUCCESS;
    peer.note(ExtNote::NTagx(NTagx { socket: id, tag: 9, time: 6, kernel_time: true, errid })).await;
    let tagged = Tagged { tag: 9, time: 6, kernel_time: true, errid };
    assert!(matches!(socket.receive.recv().await, Some(Event::Tag(tag)) if tag == tagged));
    // The NTAGX gave the window back.
    socket.send.flushed().await;
    totals = controller.totals();
    assert_eq!((totals.bytes_out, totals.messages_out), (1, 1));
}

#[tokio::test]
async fn data_with_facts_counts_toward_holding_back() {
    let (controller, mut peer) = session(Some(extension::STAMPS)).await;
    let (mut socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    let id = peer.open(SocketState::Open).await;
    let count = (1 << 20) / 65_000 + 1;
    for _ in 0..count {
        peer.note(ExtNote::NDatx(datagram(id, 65_000))).await;
    }
    assert_eq!(peer.mask().await, 0x000C);
    for _ in 0..count {
        assert!(matches!(socket.receive.recv().await, Some(Event::Data(_))));
    }
    assert_eq!(peer.mask().await, 0x0004);
    assert_eq!(peer.mask().await, 0x0000);
}

#[tokio::test]
async fn an_icmp_error_leaves_a_datagram_socket_in_use() {
    let (controller, mut peer) = session(Some(extension::NERR)).await;
    let (mut socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    let id = peer.open(SocketState::Open).await;
    let error = NErr {
        socket: id,
        family: 4,
        proto: 17,
        time: 5,
        errno: 113,
        origin: 2,
        icmp_type: 11,
        icmp_code: 0,
        info: 0,
        offender: Some("192.0.2.254".parse().unwrap()),
        remote: Some(addr("198.51.100.7:33434")),
        data: Bytes::from_static(b"quoted"),
    };
    peer.note(ExtNote::NErr(error.clone())).await;
    assert!(matches!(socket.receive.recv().await, Some(Event::Error(told)) if told == error));
    socket.send.send(Bytes::from_static(b"x"), Some(addr("192.0.2.9:9"))).await.unwrap();
    assert!(matches!(peer.take().await, Message::NSend(_)));
}

#[tokio::test]
async fn a_malformed_notification_ends_the_session() {
    let (controller, mut peer) = session(Some(extension::STAMPS)).await;
    // An NDATX that ends behind its family.
    let short =
        crate::wire::Encoded { head: Bytes::from_static(&[0xA3, 0, 0, 2, 0, 4]), payload: Bytes::new() };
    peer.writer.send_encoded(&short).await.unwrap();
    peer.writer.flush().await.unwrap();
    let reason = controller.ended().await;
    assert!(reason.contains("malformed") && reason.contains("0xa3"), "{reason}");
}

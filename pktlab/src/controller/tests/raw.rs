//! Raw sockets: what goes out for opening, sending and capturing.

use std::net::IpAddr;

use super::*;
use crate::program::Program;
use crate::wire::{NCap, NOpen, NSend, OpenAddress};

const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

#[tokio::test]
async fn packets_go_out_with_their_time_and_come_back_as_they_are() {
    // As toward a reference endpoint: nothing here needs an extension.
    let (controller, mut peer) = session(None).await;
    let options = SocketOptions { tags: true, ..SocketOptions::default() };
    let (mut socket, opening) = controller.open_raw(ANY, options).unwrap();
    let Message::NOpen(NOpen { socket: id, address, .. }) = peer.take().await else { panic!("no NOPEN") };
    assert_eq!(address, OpenAddress::Raw { local: ANY });
    peer.give(&OK).await;
    peer.answer_read(|data| {
        fill(data, SocketState::Open);
        data[0x30..0x32].fill(0);
    })
    .await;
    assert_eq!(opening.local(socket.family()).await.unwrap(), addr("192.0.2.1:0"));
    let packet = Bytes::from_static(&[0x45; 28]);
    socket.send.send_at(packet.clone(), None, 77, 0xBEEF).await.unwrap();
    let expected =
        NSend { socket: id, family: 4, proto: Proto::Raw, time: 77, tag: 0xBEEF, remote: None, data: packet };
    assert_eq!(peer.take().await, Message::NSend(expected));
    peer.give(&OK).await;
    let errid = ErrId::EPKTNOTSENT;
    peer.give(&Message::NTag(NTag { socket: id, tag: 0xBEEF, time: 78, errid })).await;
    let data = Bytes::from_static(&[0x60; 40]);
    let captured = NData { socket: id, family: 4, proto: Proto::Raw, time: 79, remote: None, data };
    peer.give(&Message::NData(captured)).await;
    let tagged = Tagged { tag: 0xBEEF, time: 78, kernel_time: false, errid };
    assert!(matches!(socket.receive.recv().await, Some(Event::Tag(tag)) if tag == tagged));
    let Some(Event::Data(data)) = socket.receive.recv().await else { panic!("no data") };
    assert_eq!((data.time, data.remote, data.data.len(), data.ttl), (79, None, 40, None));
}

#[tokio::test]
async fn a_capture_ends_with_a_time_in_the_past_and_before_the_close_everything_is_held() {
    let (controller, mut peer) = session(None).await;
    let (socket, _opening) = controller.open_raw(ANY, SocketOptions::default()).unwrap();
    let id = peer.open(SocketState::Open).await;
    let all = Program::decode(Bytes::from_static(&[
        0, 0xB7, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x95, 0, 0, 0, 0, 0, 0, 0,
    ]))
    .unwrap();
    let capturing = socket.send.capture(&all, u64::MAX);
    let expected = NCap { socket: id, family: 4, proto: 0, end: u64::MAX, filter: all.encode() };
    assert_eq!(peer.take().await, Message::NCap(expected));
    peer.refuse(ErrId::ESKTBADFILT).await;
    assert_eq!(capturing.await.unwrap_err().errid(), Some(ErrId::ESKTBADFILT));
    let stopping = socket.send.stop_capture();
    let Message::NCap(NCap { end, filter, .. }) = peer.take().await else { panic!("no NCAP") };
    assert_eq!(end, 1);
    // An empty program would leave a reference endpoint capturing.
    assert_eq!(Program::decode(filter).unwrap().body.len(), 16);
    peer.give(&OK).await;
    stopping.await.unwrap();
    drop(socket);
    assert_eq!(peer.mask().await, 0x003E);
    assert_eq!(peer.take().await, Message::NClose { socket: id });
}

#[tokio::test]
async fn what_would_break_a_reference_endpoint_is_not_sent() {
    let (controller, mut peer) = session(None).await;
    let (udp, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    peer.open(SocketState::Open).await;
    let (raw, _opening) = controller.open_raw(ANY, SocketOptions::default()).unwrap();
    peer.open(SocketState::Open).await;
    let filter = Program::decode(Bytes::from_static(&[0, 0x95, 0, 0, 0, 0, 0, 0, 0])).unwrap();
    assert!(matches!(udp.send.capture(&filter, 1).await, Err(Error::Encode(_))));
    let wasm = Program::from_wasm(&b"\0asm123"[..]);
    assert!(matches!(raw.send.capture(&wasm, 1).await, Err(Error::Encode(_))));
    let v6 = controller.open_raw("::".parse().unwrap(), SocketOptions::default());
    assert!(matches!(v6, Err(Error::Unsupported(_))));
    // Nothing of it reached the peer: the next message is this one.
    let reading = controller.mread(1, 1);
    peer.answer_read(|_| {}).await;
    reading.await.unwrap();
}

#[tokio::test]
async fn ipv6_is_opened_where_the_extension_is() {
    let (controller, mut peer) = session(Some(extension::IPV6)).await;
    let (_socket, _opening) = controller.open_raw("::".parse().unwrap(), SocketOptions::default()).unwrap();
    let Message::NOpen(open) = peer.take().await else { panic!("no NOPEN") };
    assert_eq!(open.address, OpenAddress::Raw { local: "::".parse().unwrap() });
}

#[tokio::test]
async fn what_cannot_be_encoded_costs_no_window() {
    let (controller, mut peer) = session(Some(0)).await;
    let (socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    peer.open(SocketState::Open).await;
    let data = Bytes::from_static(&[0; 32_768]);
    for _ in 0..BUFFER / 32_768 {
        let sent = socket.send.send(data.clone(), None).await;
        assert!(matches!(sent, Err(Error::Encode(_))));
    }
    assert_eq!(controller.totals().messages_out, 0);
    let sending = socket.send.send(data, Some(addr("192.0.2.9:9")));
    tokio::time::timeout(Duration::from_secs(30), sending).await.expect("the window is free").unwrap();
}

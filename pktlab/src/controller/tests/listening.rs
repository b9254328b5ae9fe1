//! Connections from outside.

use super::*;
use crate::wire::{NAccpt, NOpen, NTake, OpenAddress};

async fn listening(controller: &Controller, peer: &mut Peer) -> (Listener, u8) {
    let listen = {
        let controller = controller.clone();
        tokio::spawn(async move { controller.listen(addr("0.0.0.0:0"), SocketOptions::default()).await })
    };
    let Message::NOpen(NOpen { socket, address, .. }) = peer.take().await else { panic!("no NOPEN") };
    assert_eq!(address, OpenAddress::TcpListen { local: addr("0.0.0.0:0") });
    peer.give(&OK).await;
    peer.answer_read(|data| fill(data, SocketState::Open)).await;
    (listen.await.unwrap().unwrap(), socket)
}

fn waiting(listener: u8, handle: u32) -> ExtNote {
    let remote = SocketAddr::new("198.51.100.9".parse().unwrap(), 50_000 + handle as u16);
    ExtNote::NAccpt(NAccpt { listener, time: 1, handle, remote, local: addr("192.0.2.1:4000") })
}

impl Peer {
    async fn take_ntake(&mut self) -> NTake {
        match self.take_extension().await {
            ExtRequest::NTake(take) => take,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_connection_that_waits_becomes_a_socket() {
    let (controller, mut peer) = session(Some(extension::LISTEN)).await;
    let (mut listener, id) = listening(&controller, &mut peer).await;
    assert_eq!(listener.local(), addr("192.0.2.1:4000"));
    peer.note(waiting(id, 1)).await;
    let accepting = tokio::spawn(async move { (listener.accept().await, listener) });
    let take = peer.take_ntake().await;
    assert_eq!((take.listener, take.handle), (id, 1));
    assert_ne!(take.socket, id);
    assert!(take.rbufsz > 1024);
    peer.give(&OK).await;
    // What the peer sends at once is not lost.
    let data = Bytes::from_static(b"hello");
    let hello = NData { socket: take.socket, family: 4, proto: Proto::Tcp, time: 2, remote: None, data };
    peer.give(&Message::NData(hello)).await;
    let (accepted, listener) = accepting.await.unwrap();
    let mut connected = accepted.unwrap();
    assert_eq!((connected.remote, connected.local), (addr("198.51.100.9:50001"), addr("192.0.2.1:4000")));
    assert!(
        matches!(connected.socket.receive.recv().await, Some(Event::Data(data)) if &data.data[..] == b"hello")
    );
    drop(listener);
    assert_eq!(peer.take().await, Message::NClose { socket: id });
    peer.give(&OK).await;
    connected.socket.send.send(Bytes::from_static(b"still here"), None).await.unwrap();
    assert!(matches!(peer.take().await, Message::NSend(send) if send.socket == take.socket));
}

#[tokio::test]
async fn connections_that_are_gone_or_not_allowed_are_passed_over() {
    let (controller, mut peer) = session(Some(extension::LISTEN)).await;
    let (mut listener, id) = listening(&controller, &mut peer).await;
    for handle in 1..=3 {
        peer.note(waiting(id, handle)).await;
    }
    let accepting = tokio::spawn(async move { (listener.accept().await, listener) });
    for errid in [ErrId::ESKTNOTOPEN, ErrId::ESKTOPNDENY] {
        peer.take_ntake().await;
        peer.refuse(errid).await;
        // The number that was meant for it is given back.
        assert!(matches!(peer.take().await, Message::NClose { .. }));
        peer.refuse(ErrId::ESKTNOTOPEN).await;
    }
    assert_eq!(peer.take_ntake().await.handle, 3);
    peer.give(&OK).await;
    let (accepted, _listener) = accepting.await.unwrap();
    assert_eq!(accepted.unwrap().remote, addr("198.51.100.9:50003"));
}

#[tokio::test]
async fn a_cancelled_accept_loses_nothing() {
    let (controller, mut peer) = session(Some(extension::LISTEN)).await;
    let (mut listener, id) = listening(&controller, &mut peer).await;
    peer.note(waiting(id, 1)).await;
    // Cancelled while the NTAKE is under way.
    let take = tokio::select! {
        biased;
        take = peer.take_ntake() => take,
        _ = listener.accept() => panic!("accepted without an answer"),
    };
    assert_eq!(take.handle, 1);
    peer.give(&OK).await;
    assert_eq!(listener.accept().await.unwrap().remote, addr("198.51.100.9:50001"));
}

#[tokio::test]
async fn a_connection_waits_for_a_number() {
    let (controller, mut peer) = session(Some(extension::LISTEN)).await;
    let (mut listener, id) = listening(&controller, &mut peer).await;
    let mut others = Vec::new();
    for _ in 0..255 {
        others.push(controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap().0);
        peer.open(SocketState::Open).await;
    }
    peer.note(waiting(id, 1)).await;
    assert!(matches!(listener.accept().await, Err(Error::NoSocket)));
    others.pop();
    assert!(matches!(peer.take().await, Message::NClose { .. }));
    peer.give(&OK).await;
    let reading = controller.mread(1, 1);
    peer.answer_read(|_| {}).await;
    reading.await.unwrap();
    let accepting = tokio::spawn(async move { listener.accept().await });
    assert_eq!(peer.take_ntake().await.handle, 1);
    peer.give(&OK).await;
    accepting.await.unwrap().unwrap();
}

#[tokio::test]
async fn listening_needs_its_bit_and_ends_with_the_session() {
    let (controller, _peer) = session(None).await;
    let refused = controller.listen(addr("0.0.0.0:80"), SocketOptions::default()).await;
    assert!(matches!(refused, Err(Error::Unsupported(_))));
    let (controller, mut peer) = session(Some(extension::LISTEN)).await;
    let (mut listener, _) = listening(&controller, &mut peer).await;
    let accepting = tokio::spawn(async move { listener.accept().await.map(|_| ()) });
    peer.give(&Message::Suspd).await;
    assert!(matches!(accepting.await.unwrap(), Err(Error::Ended(_))));
}

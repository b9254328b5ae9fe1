//! The controller against a scripted peer; `extensions` has what needs an extension bit, `raw` capture and packets.
#![allow(clippy::unwrap_used)]

mod extensions;
mod listening;
mod raw;
mod waiting;

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::*;
use crate::vmem::{SocketState, extension, socket as block, system};
use crate::wire::{ExtNote, ExtRequest, Frame, NData, NStat, NTag, Proto, StatEvent};

const BUFFER: u32 = 1 << 20;
/// What the peer's clock shows when the session starts.
const CLOCK: u64 = 1_700_000_000_123_456_789;
const OK: Message = Message::Result(Outcome::Plain(ErrId::SUCCESS));

struct Peer {
    reader: MessageReader<ReadHalf<DuplexStream>>,
    writer: MessageWriter<WriteHalf<DuplexStream>>,
}

impl Peer {
    async fn take(&mut self) -> Message {
        match self.reader.next().await.unwrap() {
            Some(Frame::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    async fn give(&mut self, message: &Message) {
        self.writer.send(message).await.unwrap();
        self.writer.flush().await.unwrap();
    }

    async fn take_extension(&mut self) -> ExtRequest {
        match self.reader.next().await.unwrap() {
            Some(Frame::Unknown { code, raw }) => ExtRequest::decode(code, &raw).unwrap().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn note(&mut self, note: ExtNote) {
        self.writer.send_encoded(&note.encode().unwrap()).await.unwrap();
        self.writer.flush().await.unwrap();
    }

    async fn refuse(&mut self, errid: ErrId) {
        self.give(&Message::Result(Outcome::Plain(errid))).await;
    }

    async fn answer_read(&mut self, change: impl FnOnce(&mut [u8])) -> u32 {
        let Message::MRead { addr, len } = self.take().await else { panic!("no MREAD") };
        let mut data = BytesMut::zeroed(usize::from(len));
        change(&mut data);
        self.give(&Message::MData { addr, data: data.freeze() }).await;
        addr
    }

    /// Takes NOPEN and its MREAD; the socket is in `state`.
    async fn open(&mut self, state: SocketState) -> u8 {
        let Message::NOpen(open) = self.take().await else { panic!("no NOPEN") };
        self.give(&OK).await;
        self.answer_read(|data| fill(data, state)).await;
        open.socket
    }

    async fn mask(&mut self) -> u16 {
        let Message::MWrite { addr, data } = self.take().await else { panic!("no MWRITE") };
        assert_eq!(addr % block::BLOCK, block::NOTIFMASK);
        self.give(&OK).await;
        u16::from_be_bytes([data[0], data[1]])
    }
}

fn fill(data: &mut [u8], state: SocketState) {
    data[block::STAT as usize] = state.to_octet();
    data[0x10..0x14].copy_from_slice(&[192, 0, 2, 1]);
    data[0x30..0x32].copy_from_slice(&4000u16.to_be_bytes());
}

/// A started session; `bits` are the offered extensions, `None` a reference endpoint.
async fn session(bits: Option<u32>) -> (Controller, Peer) {
    let (ours, theirs) = duplex(1 << 16);
    let ((reader, writer), (their_reader, their_writer)) = (split(ours), split(theirs));
    let mut peer =
        Peer { reader: MessageReader::new(their_reader, MAX_BODY), writer: MessageWriter::new(their_writer) };
    let starting =
        tokio::spawn(Controller::start_on(MessageReader::new(reader, MAX_BODY), MessageWriter::new(writer)));
    assert_eq!(peer.take().await, Message::Start);
    peer.give(&OK).await;
    for _ in 0..7 {
        let Message::MRead { addr, len } = peer.take().await else { panic!("no MREAD") };
        let mut data = BytesMut::zeroed(usize::from(len));
        match addr {
            system::IP4NO => {
                data[0] = 1;
                data[5] = 5;
            }
            system::IP4LS => data[..8].copy_from_slice(&[192, 0, 2, 1, 255, 255, 255, 0]),
            system::TIME => {
                data[..8].copy_from_slice(&CLOCK.to_be_bytes());
                data[0x10..].copy_from_slice(&BUFFER.to_be_bytes());
            }
            system::HOSTID => data[..4].copy_from_slice(b"here"),
            system::IP4DNSNO => {
                data[0] = 1;
                data[0x10..0x14].copy_from_slice(&[192, 0, 2, 53]);
                data[0x200..0x20C].copy_from_slice(&[0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0]);
                data[0x216] = 9;
            }
            extension::CELL => {
                if let Some(bits) = bits {
                    data[..4].copy_from_slice(&extension::MAGIC);
                    data[4..8].copy_from_slice(&bits.to_be_bytes());
                }
            }
            _ => {}
        }
        peer.give(&Message::MData { addr, data: data.freeze() }).await;
    }
    if let Some(bits) = bits {
        let Message::MWrite { addr, data } = peer.take().await else { panic!("no MWRITE") };
        assert_eq!(addr, extension::ENABLED);
        assert_eq!(data[..], bits.to_be_bytes());
        peer.give(&OK).await;
    }
    (starting.await.unwrap().unwrap(), peer)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn start_reads_what_the_endpoint_exports() {
    let (controller, _peer) = session(None).await;
    let info = controller.info();
    assert_eq!(info.host_id, "here");
    assert_eq!(info.buffer, BUFFER);
    assert_eq!(info.ipv4.len(), 1);
    assert!(info.ipv6.is_empty());
    assert_eq!(info.resolvers, ["192.0.2.53".parse::<std::net::IpAddr>().unwrap()]);
    assert!(info.supports(Proto::Raw) && !info.supports(Proto::Tcp) && info.supports(Proto::Udp));
    let changes = info.header_changes;
    assert_eq!(changes.ipv4[HeaderChanges::IPV4_CHECKSUM], Change::Always);
    assert_eq!(changes.ipv4[HeaderChanges::IPV4_SOURCE], Change::WhenZero);
    assert_eq!(changes.ipv4[11], Change::Never);
    assert_eq!(changes.ipv6[HeaderChanges::IPV6_SOURCE], Change::Unknown(9));
    assert!(!info.extended);
    let (controller, _peer) = session(Some(extension::NERR)).await;
    assert!(controller.info().extended);
    assert!(controller.extension(extension::NERR) && !controller.extension(extension::NERR | 1));
    // Everything that this version defines is used, and nothing else.
    let (controller, _peer) = session(Some(0x7F)).await;
    assert!(controller.extension(0x7F));
}

#[tokio::test]
async fn answers_belong_to_requests_by_order() {
    let (controller, mut peer) = session(None).await;
    let (first, second) = (controller.mread(1, 4), controller.mwrite(2, Bytes::from_static(b"x")));
    peer.answer_read(|data| data.fill(7)).await;
    assert!(matches!(peer.take().await, Message::MWrite { addr: 2, .. }));
    peer.give(&Message::Result(Outcome::Plain(ErrId::EMEMBADADR))).await;
    assert_eq!(second.await.unwrap_err().errid(), Some(ErrId::EMEMBADADR));
    assert_eq!(first.await.unwrap()[..], [7; 4]);
}

#[tokio::test]
async fn an_unasked_answer_ends_the_session() {
    let (controller, mut peer) = session(None).await;
    peer.give(&OK).await;
    assert!(controller.ended().await.contains("without a request"));
    assert!(matches!(controller.mread(1, 1).await, Err(Error::Ended(_))));
}

#[tokio::test]
async fn the_end_of_the_session_fails_everything() {
    let (controller, mut peer) = session(None).await;
    let (mut socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    peer.open(SocketState::Open).await;
    let waiting = controller.mread(1, 1);
    peer.take().await;
    peer.give(&Message::Suspd).await;
    let error = waiting.await.unwrap_err();
    assert!(error.to_string().contains("higher priority"), "{error}");
    assert!(matches!(socket.receive.recv().await, Some(Event::Ended)));
    assert!(socket.send.send(Bytes::new(), Some(addr("192.0.2.9:9"))).await.is_err());
    assert!(!controller.has_room());
}

#[tokio::test]
async fn connect_costs_one_exchange_and_learns_of_nstat() {
    let (controller, mut peer) = session(None).await;
    let remote = addr("198.51.100.7:80");
    let connecting = controller.connect_tcp(None, remote, SocketOptions::default()).unwrap();
    let established = tokio::spawn(connecting.established());
    let socket = peer.open(SocketState::Opening).await;
    let event = StatEvent::Established(remote);
    peer.give(&Message::NStat(NStat { socket, family: 4, proto: 6, time: 1, event })).await;
    let connected = established.await.unwrap().unwrap();
    assert_eq!((connected.local, connected.remote), (addr("192.0.2.1:4000"), remote));
}

#[tokio::test]
async fn a_failed_connect_is_found_by_reading_the_state() {
    let (controller, mut peer) = session(None).await;
    let connecting = controller.connect_tcp(None, addr("198.51.100.7:80"), SocketOptions::default()).unwrap();
    let established = tokio::spawn(connecting.established());
    peer.open(SocketState::Opening).await;
    peer.answer_read(|data| fill(data, SocketState::Opening)).await;
    peer.answer_read(|data| fill(data, SocketState::Refused)).await;
    assert!(matches!(established.await.unwrap(), Err(ConnectFailure::Refused)));
    // The refused socket is closed, and a reference peer is first told to hold everything back.
    assert_eq!(peer.mask().await, 0x003E);
    assert_eq!(peer.take().await, Message::NClose { socket: 0 });
}

#[tokio::test]
async fn a_number_is_used_again_only_after_its_close_is_answered() {
    let (controller, mut peer) = session(Some(0)).await;
    let open = || controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default());
    let mut kept = Vec::new();
    for _ in 0..256 {
        kept.push(open().unwrap().0);
    }
    assert!(matches!(open(), Err(Error::NoSocket)));
    for _ in 0..256 {
        peer.open(SocketState::Open).await;
    }
    drop(kept.pop());
    assert_eq!(peer.take().await, Message::NClose { socket: 255 });
    assert!(matches!(open(), Err(Error::NoSocket)));
    peer.give(&OK).await;
    let wait = controller.mread(1, 1);
    peer.answer_read(|_| {}).await;
    wait.await.unwrap();
    open().unwrap();
}

#[tokio::test]
async fn sends_stay_within_the_endpoints_buffer() {
    let (controller, mut peer) = session(Some(0)).await;
    let (socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    peer.open(SocketState::Open).await;
    let send = socket.send.clone();
    let total = 64;
    let sending = tokio::spawn(async move {
        for _ in 0..total {
            send.send(Bytes::from_static(&[0; 32_768]), Some(addr("192.0.2.9:9"))).await.unwrap();
        }
        send.flushed().await;
    });
    let mut queued = Vec::new();
    let mut seen = 0;
    while seen < total {
        // The peer acknowledges only when nothing more comes, so the queue is as full as it ever gets.
        match tokio::time::timeout(Duration::from_millis(50), peer.take()).await {
            Ok(Message::NSend(send)) => {
                seen += 1;
                queued.push(send.data.len() + 139);
                assert!(queued.iter().sum::<usize>() <= BUFFER as usize / 2);
                peer.give(&OK).await;
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => {
                assert!(!queued.is_empty(), "stalled without anything in flight");
                queued.remove(0);
                peer.give(&Message::NTag(NTag { socket: 0, tag: 1, time: 1, errid: ErrId::SUCCESS })).await;
            }
        }
    }
    assert!(!sending.is_finished(), "not flushed before the last acknowledgements");
    for _ in queued {
        peer.give(&Message::NTag(NTag { socket: 0, tag: 1, time: 1, errid: ErrId::SUCCESS })).await;
    }
    sending.await.unwrap();
    assert_eq!(controller.totals().messages_out, total);
}

#[tokio::test]
async fn a_slow_consumer_makes_the_endpoint_hold_back() {
    let (controller, mut peer) = session(Some(0)).await;
    let (mut socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    peer.open(SocketState::Open).await;
    let mut data = BytesMut::new();
    data.put_bytes(1, 65_000);
    let notification = Message::NData(NData {
        socket: 0,
        family: 4,
        proto: Proto::Tcp,
        time: 1,
        remote: None,
        data: data.freeze(),
    });
    let count = (1 << 20) / 65_000 + 1;
    for _ in 0..count {
        peer.give(&notification).await;
    }
    assert_eq!(peer.mask().await, 0x000C);
    for _ in 0..count {
        assert!(matches!(socket.receive.recv().await, Some(Event::Data(_))));
    }
    // Data first, then state changes: one write for both would turn their order round.
    assert_eq!(peer.mask().await, 0x0004);
    assert_eq!(peer.mask().await, 0x0000);
}

//! Reader and writer on streams of their kind: odd divisions, large bodies, cancellation, record boundaries.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use pktlab::wire::*;
use proptest::prelude::*;
use tokio::io::{AsyncWrite, AsyncWriteExt};

fn data(len: usize, seed: u8) -> Message {
    let data = (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into();
    Message::NData(NData { socket: seed, family: 4, proto: Proto::Tcp, time: 5, remote: None, data })
}

fn bytes(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(|m| m.encode().unwrap().to_vec()).collect()
}

/// Reads all of `stream`, delivered in pieces of these sizes over and over.
async fn read_all(stream: &[u8], sizes: &[usize]) -> Vec<Message> {
    let (mut near, far) = tokio::io::duplex(256 * 1024);
    let write = async {
        let (mut rest, mut sizes) = (stream, sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
            near.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
            rest = tail;
        }
        drop(near);
    };
    let read = async {
        let mut reader = MessageReader::new(far, MAX_BODY);
        let mut out = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            let Frame::Message(message) = frame else { panic!("{frame:?}") };
            out.push(message);
        }
        out
    };
    tokio::join!(write, read).1
}

#[tokio::test]
async fn sizes_around_every_threshold_arrive_whole() {
    let sizes =
        [0, 1, 1008, 1009, 1010, 8176, 8177, 8178, 65_520, 65_536, 100_000, 1 << 20, (5 << 20) + 3, 2];
    let sent: Vec<_> = sizes.iter().enumerate().map(|(i, len)| data(*len, i as u8)).collect();
    let stream = bytes(&sent);
    for reads in [vec![1 << 14], vec![64 * 1024], vec![3, 16_384], vec![usize::MAX]] {
        assert!(read_all(&stream, &reads).await == sent, "pieces of {reads:?}");
    }
}

#[tokio::test]
async fn the_largest_message_passes_and_one_byte_more_is_refused_by_the_encoder() {
    let largest = data(MAX_BODY - 11, 1);
    assert!(read_all(&bytes(std::slice::from_ref(&largest)), &[1 << 16]).await == [largest]);
    assert!(data(MAX_BODY - 10, 1).encode().is_err());
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let sent = [data(3, 1), data(100_000, 2), data(7, 3)];
    let stream = bytes(&sent);
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let mut reader = MessageReader::new(far, MAX_BODY);
    let mut got = Vec::new();
    for piece in stream.chunks(9_001).chain([&[][..]]) {
        near.write_all(piece).await.unwrap();
        // Reads what is there, then gets dropped while waiting for more.
        while let Ok(next) = tokio::time::timeout(Duration::from_millis(1), reader.next()).await {
            got.push(next.unwrap().unwrap());
        }
    }
    assert!(got == sent.map(Frame::Message));
}

#[tokio::test]
async fn a_hostile_header_is_refused_before_its_body() {
    let (mut near, far) = tokio::io::duplex(64);
    near.write_all(b"\x20\xff\xff\xff").await.unwrap();
    let mut reader = MessageReader::new(far, 63);
    assert!(matches!(reader.next().await, Err(ReadError::TooLarge { code: 0x20, len: MAX_BODY, max: 63 })));
    // And stays refused.
    assert!(reader.next().await.is_err());
}

/// Notes every write; takes at most `limit` bytes of each and is busy every other time if asked to.
struct Recorder {
    writes: Vec<Vec<u8>>,
    limit: usize,
    busy: Option<bool>,
}

impl AsyncWrite for Recorder {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(busy) = &mut self.busy {
            *busy = !*busy;
            if *busy {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let mut all: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        all.truncate(self.limit);
        let len = all.len();
        self.writes.push(all);
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn recorder(limit: usize) -> MessageWriter<Recorder> {
    MessageWriter::new(Recorder { writes: Vec::new(), limit, busy: None })
}

#[tokio::test]
async fn a_message_has_a_write_of_its_own_until_batching_is_on() {
    let encoded: Vec<Encoded> = (1..=3).map(|i| data(10, i).encode().unwrap()).collect();
    let apart: Vec<Vec<u8>> = encoded.iter().map(Encoded::to_vec).collect();

    let mut writer = recorder(usize::MAX);
    writer.send_batch(&encoded).await.unwrap();
    assert_eq!(writer.get_ref().writes, apart);

    let mut writer = recorder(usize::MAX);
    writer.set_batching(true);
    writer.send_batch(&encoded).await.unwrap();
    assert_eq!(writer.get_ref().writes, [apart.concat()]);

    for batching in [false, true] {
        let mut writer = recorder(7);
        writer.set_batching(batching);
        writer.send_batch(&encoded).await.unwrap();
        assert_eq!(writer.get_ref().writes.concat(), apart.concat(), "short writes, batching {batching}");
    }
}

#[tokio::test]
async fn a_dropped_send_goes_out_with_the_next() {
    let (first, second) = (data(100, 1), data(100, 2));
    let mut writer = MessageWriter::new(Recorder { writes: Vec::new(), limit: 40, busy: Some(false) });
    {
        let mut send = std::pin::pin!(writer.send(&first));
        // The first poll is told to wait, the second writes 40 bytes and is told to wait.
        for _ in 0..2 {
            assert!(futures_poll(send.as_mut()).is_pending());
        }
    }
    assert_eq!(writer.get_ref().writes.concat().len(), 40, "dropped in the middle of a message");
    writer.send(&second).await.unwrap();
    assert_eq!(writer.get_ref().writes.concat(), bytes(&[first, second]));
}

fn futures_poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(std::task::Waker::noop()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_messages_in_any_pieces(
        lens in proptest::collection::vec(prop_oneof![0usize..64, 900..1200usize, 8000..8300usize, 0..200_000usize], 1..12),
        pieces in proptest::collection::vec(prop_oneof![1usize..8, 1..20_000usize], 1..5),
    ) {
        let sent: Vec<_> = lens.iter().enumerate().map(|(i, len)| data(*len, i as u8)).collect();
        // Pieces of a byte or two through 200 kB would take seconds.
        let pieces: Vec<_> = if bytes(&sent).len() > 50_000 { pieces.iter().map(|p| p + 500).collect() } else { pieces };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let got = runtime.block_on(read_all(&bytes(&sent), &pieces));
        prop_assert!(got == sent, "lengths {:?} in pieces of {:?}", lens, pieces);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_and_what_decodes_encodes_back(code: u8, body: Vec<u8>) {
        let mut raw = vec![code, 0, 0, body.len() as u8];
        raw[2] = (body.len() >> 8) as u8;
        raw.extend_from_slice(&body);
        if let Frame::Message(message) = Message::decode(Bytes::from(raw)) {
            let again = Message::decode(message.encode().unwrap().to_vec().into());
            prop_assert_eq!(again, Frame::Message(message));
        }
    }
}

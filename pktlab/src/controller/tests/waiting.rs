//! The endpoint's clock.

use super::*;
use crate::wire::{NTime, NWait};

const SECOND: u64 = 1_000_000_000;

impl Peer {
    async fn take_nwait(&mut self) -> NWait {
        match self.take_extension().await {
            ExtRequest::NWait(wait) => wait,
            other => panic!("{other:?}"),
        }
    }

    async fn answer_time(&mut self, time: u64) {
        let addr = self.answer_read(|data| data.copy_from_slice(&time.to_be_bytes())).await;
        assert_eq!(addr, system::TIME);
    }
}

#[tokio::test]
async fn a_wait_is_over_when_the_endpoint_says_so_and_not_before_its_data() {
    let (controller, mut peer) = session(Some(extension::NWAIT)).await;
    let (mut socket, _opening) = controller.open_udp(addr("0.0.0.0:0"), SocketOptions::default()).unwrap();
    let id = peer.open(SocketState::Open).await;
    let (early, late) = (controller.wait_until(CLOCK + 1000), controller.wait_until(CLOCK + 2000));
    let (early, late) = (tokio::spawn(early), tokio::spawn(late));
    let (first, second) = (peer.take_nwait().await, peer.take_nwait().await);
    assert_eq!((first.time, second.time), (CLOCK + 1000, CLOCK + 2000));
    assert_ne!(first.token, second.token);
    peer.give(&OK).await;
    peer.give(&OK).await;
    let remote = Some(addr("192.0.2.9:9"));
    let data = NData { socket: id, family: 4, proto: Proto::Udp, time: CLOCK, remote, data: Bytes::new() };
    peer.give(&Message::NData(data)).await;
    // By token, not by order.
    peer.note(ExtNote::NTime(NTime { token: second.token, time: CLOCK + 2001 })).await;
    assert_eq!(late.await.unwrap().unwrap(), CLOCK + 2001);
    assert!(matches!(socket.receive.try_recv(), Some(Event::Data(_))));
    assert!(!early.is_finished());
    peer.note(ExtNote::NTime(NTime { token: first.token, time: CLOCK + 3000 })).await;
    assert_eq!(early.await.unwrap().unwrap(), CLOCK + 3000);
}

#[tokio::test]
async fn a_dropped_wait_disturbs_nobody() {
    let (controller, mut peer) = session(Some(extension::NWAIT)).await;
    let wait = tokio::spawn(controller.wait_until(CLOCK));
    let token = peer.take_nwait().await.token;
    peer.give(&OK).await;
    wait.abort();
    assert!(wait.await.unwrap_err().is_cancelled());
    peer.note(ExtNote::NTime(NTime { token, time: CLOCK })).await;
    let reading = controller.mread(1, 1);
    peer.answer_read(|_| {}).await;
    reading.await.unwrap();
}

#[tokio::test]
async fn the_clock_is_read_where_the_endpoint_cannot_tell() {
    // A reference endpoint, and one with too many waits.
    for offered in [None, Some(extension::NWAIT)] {
        let (controller, mut peer) = session(offered).await;
        let wait = tokio::spawn(controller.wait_until(CLOCK + 1_000_000));
        if offered.is_some() {
            peer.take_nwait().await;
            peer.refuse(ErrId::ESYSNOBUFS).await;
        }
        peer.answer_time(CLOCK).await;
        peer.answer_time(CLOCK + 999_999).await;
        assert!(!wait.is_finished());
        peer.answer_time(CLOCK + 1_500_000).await;
        assert_eq!(wait.await.unwrap().unwrap(), CLOCK + 1_500_000);
    }
}

#[tokio::test]
async fn the_end_of_the_session_ends_a_wait() {
    let (controller, mut peer) = session(Some(extension::NWAIT)).await;
    let wait = tokio::spawn(controller.wait_until(CLOCK + 1000));
    peer.take_nwait().await;
    peer.give(&OK).await;
    peer.give(&Message::Suspd).await;
    assert!(matches!(wait.await.unwrap(), Err(Error::Ended(_))));
    assert!(matches!(controller.time().await, Err(Error::Ended(_))));
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_burdens_the_endpoint_only_at_its_end() {
    let (controller, mut peer) = session(Some(extension::NWAIT)).await;
    let start = tokio::time::Instant::now();
    let clock = || CLOCK + start.elapsed().as_nanos() as u64;
    let end = CLOCK + 100 * SECOND;
    let wait = tokio::spawn(controller.wait_until(end));
    let mut looks = 0;
    let wait_request = loop {
        match peer.reader.next().await.unwrap() {
            Some(Frame::Message(Message::MRead { addr, .. })) => {
                assert_eq!(addr, system::TIME);
                looks += 1;
                let data = Bytes::copy_from_slice(&clock().to_be_bytes());
                peer.give(&Message::MData { addr, data }).await;
            }
            Some(Frame::Unknown { code, raw }) => break ExtRequest::decode(code, &raw).unwrap().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let ExtRequest::NWait(NWait { token, time }) = wait_request else { panic!("{wait_request:?}") };
    assert_eq!(time, end);
    assert!(end - clock() <= 2 * SECOND, "asked {} ns before the end", end - clock());
    assert!((3..10).contains(&looks), "{looks} looks at the clock");
    peer.give(&OK).await;
    peer.note(ExtNote::NTime(NTime { token, time: end })).await;
    assert_eq!(wait.await.unwrap().unwrap(), end);
}

#[tokio::test(start_paused = true)]
async fn an_old_reading_of_the_clock_is_not_relied_on() {
    let (controller, mut peer) = session(Some(extension::NWAIT)).await;
    // A day later the endpoint's clock is 5 s ahead of where it should be, and a wait of 200 s begins.
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    let now = CLOCK + 86_405 * SECOND;
    let wait = tokio::spawn(controller.wait_until(now + 200 * SECOND));
    peer.answer_time(now).await;
    let start = tokio::time::Instant::now();
    peer.answer_time(now + 30 * SECOND).await;
    assert_eq!(start.elapsed().as_secs(), 30);
    peer.answer_time(now + 199 * SECOND).await;
    assert_eq!(peer.take_nwait().await.time, now + 200 * SECOND);
    wait.abort();
    let near = tokio::spawn(controller.wait_until(now + 199 * SECOND + 1));
    assert_eq!(peer.take_nwait().await.time, now + 199 * SECOND + 1);
    near.abort();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_session_ends_a_long_wait_at_once() {
    let (controller, mut peer) = session(Some(extension::NWAIT)).await;
    let start = tokio::time::Instant::now();
    let wait = tokio::spawn(controller.wait_until(u64::MAX));
    tokio::task::yield_now().await;
    peer.give(&Message::Suspd).await;
    assert!(matches!(wait.await.unwrap(), Err(Error::Ended(_))));
    assert!(start.elapsed() < Duration::from_secs(1));
}

//! On loopback, against the kernel's receive stamps.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::*;
use crate::net::{message, now};

const MS: Ticks = 1_000_000;

struct World {
    pacer: Pacer,
    sink: UdpSocket,
    to: SocketAddr,
}

impl World {
    fn new() -> Self {
        Self::on("127.0.0.1:0")
    }

    fn on(host: &str) -> Self {
        let sink = UdpSocket::bind(host).expect("bound");
        message::prepare(sink.as_fd(), host.starts_with('[')).expect("prepared");
        socket2::SockRef::from(&sink).set_recv_buffer_size(4 << 20).expect("buffer");
        let to = sink.local_addr().expect("address");
        Self { pacer: Pacer::new().expect("pacer"), sink, to }
    }

    fn lane(&self, socket: SocketId) -> Lane {
        let source = UdpSocket::bind((self.to.ip(), 0)).expect("bound");
        message::prepare(source.as_fd(), self.to.is_ipv6()).expect("prepared");
        self.pacer.lane(socket, 1, Arc::new(Channel::new(source.into())))
    }

    fn submit(&mut self, lane: &Lane, time: Ticks, number: u32) {
        let data = Bytes::copy_from_slice(&number.to_be_bytes());
        let job = Job { time, data, remote: Some(self.to), stamp: number.is_multiple_of(2) };
        self.pacer.submit(lane, job).expect("submitted");
    }

    /// The next outcomes, as many as asked for.
    fn wait(&self, count: usize) -> Vec<Done> {
        let until = Instant::now() + Duration::from_secs(20);
        let mut done = Vec::new();
        while done.len() < count && Instant::now() < until {
            let mut fds = [rustix::event::PollFd::new(&self.pacer.wake, rustix::event::PollFlags::IN)];
            let tick = rustix::time::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            rustix::event::poll(&mut fds, Some(&tick)).expect("poll");
            self.pacer.clear();
            done.extend(std::iter::from_fn(|| self.pacer.done()));
        }
        assert_eq!(done.len(), count);
        done
    }

    /// Numbers and kernel arrival times of everything that arrived.
    fn arrived(&self) -> Vec<(u32, Ticks)> {
        let mut all = Vec::new();
        let mut buffer = Vec::with_capacity(64);
        while let Ok(head) = message::receive(self.sink.as_fd(), &mut buffer) {
            all.push((u32::from_be_bytes(buffer[..4].try_into().expect("a number")), head.time));
            buffer.clear();
        }
        all
    }
}

#[test]
fn no_send_is_early_and_none_is_lost() {
    let mut world = World::new();
    let lane = world.lane(3);
    let base = now() + 20 * MS;
    for number in 0..1_000 {
        world.submit(&lane, base + Ticks::from(number) * MS / 2, number);
    }
    let done = world.wait(1_000);
    let arrived = world.arrived();
    assert_eq!(arrived.len(), 1_000);
    let mut late = Vec::new();
    for (number, (done, (got, time))) in (0..).zip(done.iter().zip(arrived)) {
        let target = base + Ticks::from(number) * MS / 2;
        assert_eq!(got, number);
        assert!(time >= target, "{number} was {} ns early", target - time);
        let sent = done.outcome.expect("sent");
        assert_eq!((done.socket, done.generation, sent.bytes), (3, 1, 4));
        assert_eq!(sent.kernel_time, number % 2 == 0, "stamped when asked for");
        assert!(sent.time >= target);
        late.push(time - target);
    }
    late.sort_unstable();
    println!("late: p50 {} us, p99 {} us", late[500] / 1_000, late[990] / 1_000);
}

#[test]
fn a_rehearsal_sends_nothing() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let mut world = World::on(host);
        let lane = world.lane(3);
        // Far enough apart that each is waited for and rehearsed.
        let base = now() + 5 * MS;
        for number in 0..100 {
            world.submit(&lane, base + Ticks::from(number) * MS, number);
        }
        assert!(world.wait(100).iter().all(|done| done.outcome.is_ok()));
        let numbers: Vec<_> = world.arrived().iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "{host}");
    }
}

#[test]
fn a_lane_keeps_its_order_and_lanes_do_not_wait_for_each_other() {
    let mut world = World::new();
    let (one, two) = (world.lane(1), world.lane(2));
    let base = now() + 100 * MS;
    world.submit(&one, base, 10);
    world.submit(&one, 1, 11);
    world.submit(&two, base - 50 * MS, 20);
    world.submit(&two, 1, 21);
    let order: Vec<_> = world.wait(4).iter().map(|done| done.socket).collect();
    assert_eq!(order, [2, 2, 1, 1]);
    let numbers: Vec<_> = world.arrived().iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [20, 21, 10, 11]);
}

#[test]
fn an_earlier_job_of_another_lane_is_noticed_while_waiting() {
    let mut world = World::new();
    let (late, soon) = (world.lane(1), world.lane(2));
    world.submit(&late, now() + 3_000 * MS, 1);
    std::thread::sleep(Duration::from_millis(20));
    let begun = Instant::now();
    world.submit(&soon, now() + 5 * MS, 2);
    assert_eq!(world.wait(1)[0].socket, 2);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn what_is_recalled_is_never_sent_and_all_else_was() {
    let mut world = World::new();
    let mut expected = 0;
    for round in 0..200u32 {
        let lane = world.lane(7);
        let base = now() + MS / 2;
        for number in 0..20 {
            world.submit(&lane, base + Ticks::from(number) * 20_000, number);
        }
        std::thread::sleep(Duration::from_micros(u64::from(round) * 5));
        let back = world.pacer.recall(&lane).len();
        let done = std::iter::from_fn(|| world.pacer.done()).filter(|done| done.outcome.is_ok()).count();
        assert_eq!(back + done, 20, "round {round}");
        expected += done;
        // The lane works on, from an earlier time than what was recalled.
        world.submit(&lane, 1, 99);
        expected += 1;
        assert!(world.wait(1)[0].outcome.is_ok());
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(world.arrived().len(), expected);
}

#[test]
fn a_failed_send_stops_its_lane() {
    let mut world = World::new();
    let lane = world.lane(4);
    let data = Bytes::from(vec![0; 65_528]);
    world.pacer.submit(&lane, Job { time: 1, data, remote: Some(world.to), stamp: true }).expect("submitted");
    world.submit(&lane, 1, 5);
    let done = world.wait(1);
    assert_eq!(done[0].outcome, Err(Errno::MSGSIZE));
    std::thread::sleep(Duration::from_millis(30));
    assert!(world.pacer.done().is_none());
    assert_eq!(world.pacer.recall(&lane).len(), 1);
    assert!(world.arrived().is_empty());
}

#[test]
fn a_closed_socket_does_not_wait_for_its_sends() {
    let mut world = World::new();
    let source = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let port = source.local_addr().expect("address");
    for round in 0..5_000 {
        let lane =
            world.pacer.lane(1, round, Arc::new(Channel::new(source.try_clone().expect("clone").into())));
        world.submit(&lane, Ticks::MAX, 1);
        world.pacer.recall(&lane);
    }
    drop(source);
    assert!(UdpSocket::bind(port).is_ok(), "the port is free again");
}

#[test]
fn dropping_it_ends_the_thread_at_once() {
    let mut world = World::new();
    let lane = world.lane(1);
    world.submit(&lane, now() + 60_000 * MS, 1);
    let begun = Instant::now();
    drop(world);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

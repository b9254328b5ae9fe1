//! Real packets, in network namespaces that end with the threads that made them.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, Socket, Type};

use super::*;
use crate::filter::tests::{AND, B, H, JEQ, JNE, LSH, alu_r, jump, packet_at, packet_by};
use crate::steal::sys::testing;

/// Long enough for any packet on one machine; waited for only when something is wrong.
const SOON: Duration = Duration::from_secs(10);
/// How long nothing must come.
const NOTHING: Duration = Duration::from_millis(200);
const LOOPBACK: u32 = 1;
const CHILD: &str = "PKTENDPT_TEST_STEAL_CHILD";

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Runs `work` in a new network namespace with a loopback interface.
fn in_namespace(work: impl FnOnce() + Send + 'static) {
    if !permitted() {
        return;
    }
    let thread = thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace: {error}");
            return;
        }
        ip("link set lo up");
        work();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// IPv4 UDP to `port`; everything of it.
fn udp_to(port: u16) -> Filter {
    filter(&[
        alu_r(MOV, 6, 1),
        packet_at(B, 9),
        jump(JEQ, 0, 17, 2),
        alu(MOV, 0, 0),
        EXIT,
        packet_at(B, 0),
        alu(AND, 0, 15),
        alu(LSH, 0, 2),
        alu_r(MOV, 7, 0),
        packet_by(H, 7, 2),
        jump(JNE, 0, port.into(), -8),
        alu(MOV, 0, -1),
        EXIT,
    ])
}

fn udp(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

/// Whether a datagram to `taken` arrives. One to `free`, sent after it, does; loopback keeps their order.
fn arrives(from: &UdpSocket, taken: &UdpSocket, free: &UdpSocket) -> bool {
    from.send_to(b"taken", taken.local_addr().unwrap()).unwrap();
    from.send_to(b"free", free.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(free.recv(&mut buffer).unwrap(), 4);
    taken.set_read_timeout(Some(NOTHING)).unwrap();
    match taken.recv(&mut buffer) {
        Ok(len) => {
            assert_eq!(&buffer[..len], b"taken");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

/// As [`arrives`], after something was dropped: a test beside this one that starts a process holds a copy of every descriptor
/// for a moment.
fn arrives_soon(from: &UdpSocket, taken: &UdpSocket, free: &UdpSocket) -> bool {
    (0..20).any(|_| arrives(from, taken, free))
}

#[test]
fn set_replace_clear_and_drop() {
    in_namespace(|| {
        let (from, a, b, free) = (udp(0), udp(0), udp(0), udp(0));
        let mut steal = Steal::attach(LOOPBACK, &[]).unwrap();
        assert!(arrives(&from, &a, &b), "attached, no filter");
        steal.set(&udp_to(port(&a)), u64::MAX).unwrap();
        assert!(!arrives(&from, &a, &b));
        steal.set(&udp_to(port(&b)), u64::MAX).unwrap();
        assert!(!arrives(&from, &b, &a), "replaced");
        assert!(arrives(&from, &a, &free), "the old filter is gone");
        steal.clear().unwrap();
        assert!(arrives(&from, &b, &a), "cleared");
        steal.set(&udp_to(port(&b)), u64::MAX).unwrap();
        assert!(!arrives(&from, &b, &a));
        drop(steal);
        assert!(arrives_soon(&from, &b, &a), "dropped");
    });
}

#[test]
fn several_on_one_interface_make_a_union() {
    in_namespace(|| {
        let (from, a, b, free) = (udp(0), udp(0), udp(0), udp(0));
        let mut first = Steal::attach(LOOPBACK, &[]).unwrap();
        let mut second = Steal::attach(LOOPBACK, &[]).unwrap();
        first.set(&udp_to(port(&a)), u64::MAX).unwrap();
        second.set(&udp_to(port(&b)), u64::MAX).unwrap();
        assert!(!arrives(&from, &a, &free));
        assert!(!arrives(&from, &b, &free));
        drop(first);
        assert!(arrives_soon(&from, &a, &free));
        assert!(!arrives(&from, &b, &free));
    });
}

/// A program of somebody else that lets everything pass ends the chain for those behind it.
#[test]
fn a_program_that_was_there_before_hides_nothing() {
    in_namespace(|| {
        let mut asm = asm::Asm::default();
        // TCX_PASS
        asm.mov(asm::R0, 0);
        asm.exit();
        let types = sys::load_btf(&btf::build()).unwrap();
        let program = sys::load_program(&asm.finish(), &types, &[[0, btf::MAIN]]).unwrap();
        let _there = sys::attach(&program, LOOPBACK).unwrap();
        let (from, a, b, free) = (udp(0), udp(0), udp(0), udp(0));
        let mut first = Steal::attach(LOOPBACK, &[]).unwrap();
        let mut second = Steal::attach(LOOPBACK, &[]).unwrap();
        assert!(arrives(&from, &a, &free));
        first.set(&udp_to(port(&a)), u64::MAX).unwrap();
        second.set(&udp_to(port(&b)), u64::MAX).unwrap();
        assert!(!arrives(&from, &a, &free));
        assert!(!arrives(&from, &b, &free));
    });
}

/// More than fits the contiguous part of a packet: the filter must see what lies in its pages.
#[test]
fn large_packets_are_seen_to_their_end() {
    in_namespace(|| {
        let (from, to) = (udp(0), udp(0));
        let mut steal = Steal::attach(LOOPBACK, &[]).unwrap();
        // IPv4 UDP header, then byte 40000 of the payload.
        let last = filter(&[
            alu_r(MOV, 6, 1),
            packet_at(B, 28 + 40_000),
            jump(JEQ, 0, 7, 2),
            alu(MOV, 0, 0),
            EXIT,
            alu(MOV, 0, -1),
            EXIT,
        ]);
        steal.set(&last, u64::MAX).unwrap();
        let mut payload = vec![1; 50_000];
        let mut buffer = vec![0; 65_536];
        payload[40_000] = 7;
        from.send_to(&payload, to.local_addr().unwrap()).unwrap();
        payload[40_000] = 8;
        from.send_to(&payload, to.local_addr().unwrap()).unwrap();
        assert_eq!(to.recv(&mut buffer).unwrap(), payload.len());
        assert_eq!(buffer[40_000], 8);
    });
}

/// A device whose packets have no link header.
#[test]
fn devices_without_link_header() {
    in_namespace(|| {
        ip("tuntap add dev bare mode tun");
        let mut device = match testing::open_tun("bare") {
            Ok(device) => device,
            Err(error) => return eprintln!("skipped: no tun device: {error}"),
        };
        ip("addr add 10.9.1.1/24 dev bare");
        ip("link set bare up");
        let socket = |port: u16| {
            let socket = UdpSocket::bind(("10.9.1.1", port)).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket
        };
        let (taken, free) = (socket(7000), socket(7001));
        let mut inject = |port: u16| {
            let mut p = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 1, 2, 10, 9, 1, 1];
            let sum: u32 = p.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
            let checksum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
            p[10..12].copy_from_slice(&checksum.to_be_bytes());
            p.extend([0x1B, 0x58]);
            p.extend(port.to_be_bytes());
            // Length, no checksum, two bytes.
            p.extend([0, 10, 0, 0, 1, 2]);
            device.write_all(&p).unwrap();
        };
        inject(7000);
        assert_eq!(taken.recv(&mut [0; 8]).unwrap(), 2);
        let index = nix::net::if_::if_nametoindex("bare").unwrap();
        let mut steal = Steal::attach(index, &[]).unwrap();
        steal.set(&udp_to(7000), u64::MAX).unwrap();
        inject(7000);
        inject(7001);
        assert_eq!(free.recv(&mut [0; 8]).unwrap(), 2);
        taken.set_read_timeout(Some(NOTHING)).unwrap();
        assert_eq!(taken.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

type Job = Box<dyn FnOnce() + Send>;

/// Another host: a namespace at the far end of a veth pair, with a thread to work in it.
struct Peer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Peer {
    /// Here 10.9.0.1 and fd09::1 on `near`, there .2 and ::2.
    fn new() -> Peer {
        let (jobs, work) = mpsc::channel::<Job>();
        let (number, numbers) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            number.send(nix::unistd::gettid()).unwrap();
            work.into_iter().for_each(|job| job());
        });
        let id = numbers.recv().unwrap();
        let peer = Peer { jobs: Some(jobs), thread: Some(thread) };
        ip(&format!("link add near type veth peer name far netns {id}"));
        let up = |device: &str, host: u8| {
            ip(&format!("addr add 10.9.0.{host}/24 dev {device}"));
            ip(&format!("addr add fd09::{host}/64 dev {device} nodad"));
            ip(&format!("link set {device} up"));
        };
        up("near", 1);
        peer.run(move || up("far", 2));
        peer
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (result, results) = mpsc::channel();
        let job = Box::new(move || drop(result.send(work())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        results.recv().expect("the work did not panic")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.thread.take().unwrap().join();
    }
}

fn near() -> u32 {
    nix::net::if_::if_nametoindex("near").unwrap()
}

/// What a datagram from the peer to this host's port leads to within that time.
fn probe(port: u16, within: Duration) -> io::Result<usize> {
    let socket = UdpSocket::bind("10.9.0.2:0")?;
    socket.connect(("10.9.0.1", port))?;
    socket.set_read_timeout(Some(within))?;
    socket.send(b"probe")?;
    socket.recv(&mut [0; 16])
}

#[test]
fn the_host_does_not_answer_what_was_taken() {
    in_namespace(|| {
        let peer = Peer::new();
        let answer = |port, within| peer.run(move || probe(port, within)).map_err(|error| error.kind());
        let echo = UdpSocket::bind("10.9.0.1:7001").unwrap();
        let echoing = thread::spawn(move || {
            let mut buffer = [0; 16];
            for _ in 0..2 {
                let (len, from) = echo.recv_from(&mut buffer).unwrap();
                echo.send_to(&buffer[..len], from).unwrap();
            }
        });
        // Not taken: the host answers that the port is closed.
        assert_eq!(answer(7000, SOON), Err(ErrorKind::ConnectionRefused));
        assert_eq!(answer(7001, SOON), Ok(5));

        let mut steal = Steal::attach(near(), &[]).unwrap();
        steal.set(&udp_to(7000), u64::MAX).unwrap();
        let every_protocol = Protocol::from(i32::from(3u16.to_be()));
        let capture = Socket::new(Domain::PACKET, Type::DGRAM, Some(every_protocol)).unwrap();
        capture.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(answer(7000, NOTHING), Err(ErrorKind::WouldBlock));
        assert_eq!(answer(7001, SOON), Ok(5));
        assert_eq!(answer(7002, SOON), Err(ErrorKind::ConnectionRefused));

        // The packet socket got all three, the taken one once and with its bytes.
        let mut ports = vec![];
        let mut buffer = [0; 2048];
        while ports.len() < 3 {
            let len = (&capture).read(&mut buffer).unwrap();
            let packet = &buffer[..len];
            if packet[0] == 0x45 && packet[9] == 17 && packet[16..20] == [10, 9, 0, 1] {
                assert_eq!(&packet[28..], b"probe");
                ports.push(u16::from_be_bytes([packet[22], packet[23]]));
            }
        }
        assert_eq!(ports, [7000, 7001, 7002]);
        drop(steal);
        assert_eq!(answer(7000, SOON), Err(ErrorKind::ConnectionRefused));
        echoing.join().unwrap();
    });
}

/// Sends a megabyte there and back.
fn exchange(a: &TcpStream, b: &TcpStream) {
    let sent: Vec<u8> = (0..1 << 20).map(|n: u32| (n / 7) as u8).collect();
    for (mut from, mut to) in [(a, b), (b, a)] {
        thread::scope(|scope| {
            scope.spawn(|| from.write_all(&sent).unwrap());
            let mut received = vec![0; sent.len()];
            to.set_read_timeout(Some(SOON)).unwrap();
            to.read_exact(&mut received).unwrap();
            assert!(received == sent);
        });
    }
}

fn exempt_over_loopback(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    let own = Connection { local: client.local_addr().unwrap(), remote: address };
    let mut steal = Steal::attach(LOOPBACK, &[own]).unwrap();
    steal.set(&everything(), u64::MAX).unwrap();
    exchange(&client, &server);
    let error = TcpStream::connect_timeout(&address, NOTHING).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "any other connection is cut off");
    exchange(&client, &server);
    steal.clear().unwrap();
    TcpStream::connect_timeout(&address, SOON).unwrap();
}

#[test]
fn own_connections_live_on() {
    in_namespace(|| {
        exempt_over_loopback((Ipv4Addr::LOCALHOST, 0).into());
        exempt_over_loopback((Ipv6Addr::LOCALHOST, 0).into());
    });
}

/// Over a link, where the connection needs neighbour discovery and large packets are put together from segments.
#[test]
fn own_connections_live_on_over_a_link() {
    in_namespace(|| {
        let peer = Peer::new();
        for host in ["10.9.0", "fd09:"] {
            let separator = if host.contains(':') { ":" } else { "." };
            let there = format!("{host}{separator}2");
            let listener = peer.run(move || TcpListener::bind((there.as_str(), 0)).unwrap());
            let remote = listener.local_addr().unwrap();
            let client = TcpStream::connect_timeout(&remote, SOON).unwrap();
            let (server, _) = listener.accept().unwrap();
            let own = Connection { local: client.local_addr().unwrap(), remote };
            let mut steal = Steal::attach(near(), &[]).unwrap();
            steal.exempt(&own).unwrap();
            steal.set(&everything(), u64::MAX).unwrap();
            ip("neigh flush dev near");
            exchange(&client, &server);
            let error = TcpStream::connect_timeout(&remote, NOTHING).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
    });
}

/// Not a test of its own: the process that [`a_killed_process_leaves_nothing_behind`] kills.
#[test]
fn child_that_takes_everything() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut steal = Steal::attach(LOOPBACK, &[]).unwrap();
    steal.set(&everything(), u64::MAX).unwrap();
    println!("\n{CHILD}");
    // Ends by itself should nobody kill it.
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    in_namespace(|| {
        let (from, to) = (udp(0), udp(0));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "steal::tests::network::child_that_takes_everything", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line == CHILD);
        let passes = |wait: Duration| {
            from.send_to(b"x", to.local_addr().unwrap()).unwrap();
            to.set_read_timeout(Some(wait)).unwrap();
            to.recv(&mut [0; 4]).is_ok()
        };
        let taken = ready && !passes(NOTHING);
        // SIGKILL, and before anything can fail here.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(taken, "the child took the packet");
        let killed = Instant::now();
        while !passes(NOTHING) {
            assert!(killed.elapsed() < SOON, "still taken");
        }
    });
}

//! A controller of few words: real TLS over loopback, messages in and out by hand.
#![allow(clippy::unwrap_used, dead_code, reason = "tests; not every test file uses everything")]

pub mod program;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use pktendpt::dial::{self, Surroundings};
use pktendpt::driver::Outcome;
use pktendpt::session::SessionConfig;
use pktendpt::status::Board;
use pktendpt::stop::Stop;
use pktlab::cert::{self, Credentials, Mode};
use pktlab::session::{ClientConfig, Identity, SessionReader, SessionWriter};
use pktlab::vmem::{SocketState, extension, socket as cell};
use pktlab::wire::{
    ErrId, Frame, MAX_BODY, Message, NErr, NOpen, NSend, OpenAddress, Outcome as Answer, Proto,
};
use tokio::net::{TcpListener, TcpStream};

pub type Served = tokio::task::JoinHandle<anyhow::Result<Outcome>>;

pub struct Peer {
    pub reader: SessionReader,
    pub writer: SessionWriter,
    pub served: Served,
    /// Frames that came while a RESULT was awaited.
    pub notes: std::collections::VecDeque<Frame>,
}

pub fn config(buf_max: u32) -> SessionConfig {
    SessionConfig {
        buf_max,
        tcp: true,
        udp: true,
        raw: false,
        steal: false,
        ring: 1 << 20,
        addresses: vec![("127.0.0.1".parse().unwrap(), 8), ("::1".parse().unwrap(), 128)],
        resolvers: vec![],
        host_id: "test".into(),
        extensions: pktendpt::config::EXTENSIONS,
        policy: pktendpt::policy::Policy::unrestricted(),
        burst: None,
    }
}

pub fn credentials() -> Credentials {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    cert::ephemeral(now.as_secs() as i64).unwrap()
}

/// A session before START, with these credentials.
pub async fn meet(credentials: Credentials, config: SessionConfig) -> Peer {
    let roots = vec![credentials.operator.public_key()];
    let acceptor = program::acceptor(&credentials);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = ClientConfig {
        identity: Some(Identity::new(credentials.endpoint_key, credentials.endpoint_chain).unwrap()),
        mode: Mode::EndpointAuthController,
        roots,
        snikey: None,
    };
    // The endpoint has a thread and a runtime of its own, as it has a process of its own in life.
    let (done, waiting) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let stream = TcpStream::connect(address).await?;
            let surroundings = Surroundings { board: Board::new(), stop: Stop::never(), store: None };
            dial::session(stream, &client, config, &surroundings).await
        });
        let _ = done.send(outcome);
    });
    let served = tokio::spawn(async move { waiting.await.unwrap() });
    let (tcp, _) = listener.accept().await.unwrap();
    let session = acceptor.accept(tcp).await.unwrap();
    let (reader, writer) = session.split(MAX_BODY);
    Peer { reader, writer, served, notes: Default::default() }
}

/// A started session.
pub async fn start(buf_max: u32) -> Peer {
    let mut peer = meet(credentials(), config(buf_max)).await;
    peer.ok(Message::Start).await;
    peer
}

impl Peer {
    pub async fn frame(&mut self) -> Option<Frame> {
        tokio::time::timeout(Duration::from_secs(20), self.reader.next()).await.expect("in time").unwrap()
    }

    /// The next notification.
    pub async fn note(&mut self) -> Frame {
        match self.notes.pop_front() {
            Some(note) => note,
            None => self.frame().await.expect("a message"),
        }
    }

    pub async fn message(&mut self) -> Message {
        match self.note().await {
            Frame::Message(message) => message,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub async fn nerr(&mut self) -> NErr {
        match self.note().await {
            Frame::Unknown { raw, .. } => NErr::decode(&raw).unwrap(),
            other => panic!("expected NERR, got {other:?}"),
        }
    }

    /// A request; its answer. Notifications before it are kept.
    pub async fn ask(&mut self, message: Message) -> Message {
        self.writer.send(&message).await.unwrap();
        loop {
            match self.frame().await.expect("an answer") {
                Frame::Message(answer @ (Message::Result(_) | Message::MData { .. })) => return answer,
                other => self.notes.push_back(other),
            }
        }
    }

    pub async fn errid(&mut self, message: Message) -> ErrId {
        match self.ask(message).await {
            Message::Result(Answer::Plain(errid)) => errid,
            other => panic!("expected RESULT, got {other:?}"),
        }
    }

    pub async fn ok(&mut self, message: Message) {
        assert_eq!(self.errid(message).await, ErrId::SUCCESS);
    }

    pub async fn read(&mut self, addr: u32, len: u16) -> Bytes {
        match self.ask(Message::MRead { addr, len }).await {
            Message::MData { data, .. } => data,
            other => panic!("expected MDATA, got {other:?}"),
        }
    }

    pub async fn state(&mut self, id: u8) -> SocketState {
        SocketState::from_octet(self.read(cell::block(id) + cell::STAT, 1).await[0]).unwrap()
    }

    pub async fn local_port(&mut self, id: u8) -> u16 {
        let bytes = self.read(cell::block(id) + cell::LPORT, 2).await;
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    pub async fn write(&mut self, addr: u32, data: &[u8]) {
        self.ok(Message::MWrite { addr, data: Bytes::copy_from_slice(data) }).await;
    }

    pub async fn enable(&mut self, bits: u32) {
        self.write(extension::ENABLED, &bits.to_be_bytes()).await;
    }

    pub async fn connect(&mut self, socket: u8, rbufsz: u32, remote: SocketAddr) {
        self.ok(open_tcp(socket, rbufsz, remote)).await;
    }
}

pub fn any(like: SocketAddr) -> SocketAddr {
    if like.is_ipv4() { "0.0.0.0:0".parse().unwrap() } else { "[::]:0".parse().unwrap() }
}

pub fn open_tcp(socket: u8, rbufsz: u32, remote: SocketAddr) -> Message {
    let address = OpenAddress::TcpConnect { local: any(remote), remote };
    Message::NOpen(NOpen { socket, rbufsz, address })
}

pub fn open_udp(socket: u8, rbufsz: u32, local: SocketAddr) -> Message {
    Message::NOpen(NOpen { socket, rbufsz, address: OpenAddress::Udp { local } })
}

pub fn send(socket: u8, family: u8, time: u64, tag: u16, data: &[u8]) -> Message {
    let data = Bytes::copy_from_slice(data);
    Message::NSend(NSend { socket, family, proto: Proto::Tcp, time, tag, remote: None, data })
}

pub fn send_to(socket: u8, remote: SocketAddr, time: u64, tag: u16, data: &[u8]) -> Message {
    let (data, family) = (Bytes::copy_from_slice(data), if remote.is_ipv4() { 4 } else { 6 });
    Message::NSend(NSend { socket, family, proto: Proto::Udp, time, tag, remote: Some(remote), data })
}

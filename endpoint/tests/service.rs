//! The standing endpoint as its operator sees it: signals, status, the service manager, controllers that stall.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use common::credentials;
use common::program::{Home, Running, SOON, acceptor, controller};
use pktendpt::status::Status;
use pktlab::cert::Credentials;
use pktlab::session::{SessionReader, SessionWriter};
use pktlab::vmem::system;
use pktlab::wire::{Frame, MAX_BODY, Message};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

struct Controller {
    listener: TcpListener,
    credentials: Credentials,
}

struct Session {
    reader: SessionReader,
    writer: SessionWriter,
}

impl Controller {
    async fn new(credentials: &Credentials) -> Controller {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Controller { listener, credentials: credentials.clone() }
    }

    /// A configuration that leads here; `extra` belongs to [endpoint].
    fn config(&self, extra: &str) -> String {
        format!(
            "{}address = \"{}\"\n[endpoint]\naddresses = [\"lo\"]\nresolvers = []\n{extra}\n\
             [state]\npersist = false\nsocket = \"status.sock\"\n",
            controller(&self.credentials),
            self.listener.local_addr().unwrap()
        )
    }

    /// A started session of the next endpoint that comes.
    async fn accept(&self) -> Session {
        let accepted = tokio::time::timeout(SOON, self.listener.accept()).await.expect("an endpoint comes");
        let session = acceptor(&self.credentials).accept(accepted.unwrap().0).await.unwrap();
        let (reader, writer) = session.split(MAX_BODY);
        let mut session = Session { reader, writer };
        session.writer.send(&Message::Start).await.unwrap();
        assert!(matches!(session.frame().await, Some(Frame::Message(Message::Result(_)))));
        session
    }
}

impl Session {
    async fn frame(&mut self) -> Option<Frame> {
        tokio::time::timeout(SOON, self.reader.next()).await.expect("in time").unwrap_or(None)
    }

    async fn works(&mut self) {
        self.writer.send(&Message::MRead { addr: system::IP4LS, len: 4 }).await.unwrap();
        let Some(Frame::Message(Message::MData { .. })) = self.frame().await else { panic!("MDATA") };
    }
}

/// Off the runtime's thread, which has a session to serve meanwhile.
async fn status(home: &Home) -> Status {
    let mut command = home.command();
    command.args(["status", "--json"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until the status shows it; states change shortly after what causes them.
async fn shows(home: &Home, what: impl Fn(&Status) -> bool) -> Status {
    let until = Instant::now() + SOON;
    loop {
        let status = status(home).await;
        if what(&status) {
            return status;
        }
        assert!(Instant::now() < until, "{status:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_status_says_what_runs_for_whom_and_why() {
    let controller = Controller::new(&credentials()).await;
    let home = Home::new(&controller.config(""));
    let mut endpoint = Running::start(&mut home.command());
    let mut session = controller.accept().await;
    let begin = endpoint.says("the session begins");
    assert!(begin.contains("lets the controller") && begin.contains("number=1"), "{begin}");
    let found = shows(&home, |status| status.session.is_some()).await;
    let running = found.session.unwrap();
    let experimenter = controller.credentials.controller_chain[0].authority_id;
    let hex: String = experimenter.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(running.holder.experimenter, hex);
    assert_eq!(running.holder.certificates.len(), 2);
    assert!(running.holder.allowed[0].contains("one of the configured roots"), "{:?}", running.holder);
    assert!(running.holder.controller.starts_with("127.0.0.1:"));
    session.works().await;
    let text = home.output(&["status"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("in a session") && text.contains(&hex[..16]), "{text}");
    session.writer.shutdown().await.unwrap();
    assert!(endpoint.says("the session ended").contains("the controller closed it"));
    let found = shows(&home, |status| status.session.is_none()).await;
    assert_eq!(found.last_session.unwrap().number, 1);
    endpoint.signal(Signal::TERM);
    assert!(endpoint.ends().success());
    assert!(!home.path().join("status.sock").exists());
    let nobody = home.output(&["status"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no endpoint answers"));
}

#[tokio::test]
async fn a_hangup_takes_a_good_configuration_over_and_leaves_a_bad_one() {
    let first = Controller::new(&credentials()).await;
    let second = Controller::new(&credentials()).await;
    let home = Home::new(&first.config(""));
    let mut endpoint = Running::start(&mut home.command());
    let mut session = first.accept().await;
    home.configure(&first.config("buf_maxx = 1"));
    endpoint.signal(Signal::HUP);
    endpoint.says("the old one holds");
    let failure = status(&home).await.last_error.unwrap();
    assert!(failure.text.contains("buf_maxx"), "{failure:?}");
    // Key and certificates are other ones, too.
    home.configure(&second.config(""));
    endpoint.signal(Signal::HUP);
    endpoint.says("it holds from the next session on");
    session.works().await;
    session.writer.shutdown().await.unwrap();
    second.accept().await.works().await;
}

#[tokio::test]
async fn a_session_gets_its_grace_and_no_other_begins() {
    let controller = Controller::new(&credentials()).await;
    let home = Home::new(&controller.config("drain = \"2s\""));
    let mut endpoint = Running::start(&mut home.command());
    let mut session = controller.accept().await;
    session.works().await;
    let told = Instant::now();
    endpoint.signal(Signal::TERM);
    endpoint.says("a running one may take another 2s");
    session.works().await;
    while session.frame().await.is_some() {}
    assert!(told.elapsed() >= Duration::from_secs(2));
    assert!(endpoint.ends().success());
}

#[tokio::test]
async fn a_session_that_ends_by_itself_ends_the_drain() {
    let controller = Controller::new(&credentials()).await;
    let home = Home::new(&controller.config("drain = \"1h\""));
    let mut endpoint = Running::start(&mut home.command());
    let mut session = controller.accept().await;
    endpoint.signal(Signal::INT);
    endpoint.says("SIGINT");
    assert!(status(&home).await.stopping);
    session.writer.shutdown().await.unwrap();
    assert!(endpoint.ends().success());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let controller = Controller::new(&credentials()).await;
    let home = Home::new(&controller.config("drain = \"1h\""));
    let mut endpoint = Running::start(&mut home.command());
    let _session = controller.accept().await;
    endpoint.signal(Signal::TERM);
    endpoint.says("no new session");
    endpoint.signal(Signal::TERM);
    assert_eq!(endpoint.ends().code(), Some(1));
    assert!(!home.path().join("status.sock").exists());
}

/// The controller's side of a connection says this much and then nothing.
async fn stalls_after(bytes: &'static [u8]) {
    let controller = Controller::new(&credentials()).await;
    let home = Home::new(&controller.config("drain = \"1h\""));
    let mut endpoint = Running::start(&mut home.command());
    let (mut silent, _) = controller.listener.accept().await.unwrap();
    silent.write_all(bytes).await.unwrap();
    let found = shows(&home, |status| status.state == pktendpt::status::State::Handshake).await;
    assert_eq!(found.session, None);
    let error = shows(&home, |status| status.last_error.is_some()).await.last_error.unwrap();
    assert!(error.text.contains("did not finish the TLS handshake"), "{error:?}");
    // The next attempt is served, and another stall does not delay the end.
    controller.accept().await.writer.shutdown().await.unwrap();
    let _silent = tokio::time::timeout(SOON, controller.listener.accept()).await.unwrap().unwrap();
    endpoint.signal(Signal::TERM);
    assert!(endpoint.ends().success());
}

#[tokio::test]
async fn a_controller_that_says_nothing_is_left() {
    stalls_after(b"").await;
}

#[tokio::test]
async fn a_controller_that_stops_within_a_record_is_left() {
    // A handshake record that announces 512 bytes and has 6.
    stalls_after(&[0x16, 3, 3, 2, 0, 2, 0, 1, 0xfc, 3, 3]).await;
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let controller = Controller::new(&credentials()).await;
    let home = Home::new(&controller.config(""));
    let socket = home.path().join("notify.sock");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let mut seen = Vec::new();
    let mut expect = move |words: &str| {
        let mut buffer = [0; 1024];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|_| panic!("no {words:?} in {seen:#?}"));
            seen.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if seen.last().unwrap().lines().any(|line| line.starts_with(words)) {
                return;
            }
        }
    };
    let mut command = home.command();
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "100000").env_remove("WATCHDOG_PID");
    let mut endpoint = Running::start(&mut command);
    for words in ["READY=1", "STATUS=connecting", "WATCHDOG=1"] {
        expect(words);
    }
    endpoint.signal(Signal::HUP);
    for words in ["RELOADING=1", "READY=1", "WATCHDOG=1"] {
        expect(words);
    }
    endpoint.signal(Signal::TERM);
    expect("STOPPING=1");
    assert!(endpoint.ends().success());
}

#[tokio::test]
async fn json_lines_carry_the_session() {
    let controller = Controller::new(&credentials()).await;
    let home = Home::new(&controller.config(""));
    let mut command = home.command();
    command.args(["--log-format", "json"]);
    let mut endpoint = Running::start(&mut command);
    controller.accept().await.writer.shutdown().await.unwrap();
    let line: serde_json::Value = serde_json::from_str(&endpoint.says("the session ended")).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["fields"]["reason"], "the controller closed it");
    assert_eq!(line["span"]["number"], 1);
    assert!(line["span"]["controller"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert!(line["span"]["experimenter"].is_string(), "{line}");
}

//! What tests of the program itself need: its configuration, a controller to meet, its log.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pktlab::cert::{Certificate, Credentials, Mode};
use pktlab::session::{Acceptor, Entry, Identity};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that should happen at once, on a machine that is busy with something else.
pub const SOON: Duration = Duration::from_secs(40);

/// A configuration whose controllers may reach this host, and that leaves nothing behind.
pub fn toml(credentials: &Credentials) -> String {
    format!(
        "{}[endpoint]\nresolvers = [\"192.0.2.53\"]\n[policy]\nallow = [\"own\"]\n[state]\npersist = false\n",
        controller(credentials)
    )
}

/// The `[controller]` section without an address.
pub fn controller(credentials: &Credentials) -> String {
    let certificates: String = credentials.endpoint_chain.iter().map(Certificate::to_pem).collect();
    format!(
        "[controller]\nkey = '''{}'''\ncertificates = ['''{certificates}''']\nroots = ['''{}''']\n",
        credentials.endpoint_key.to_pem(),
        credentials.operator.public_key().to_pem()
    )
}

pub fn acceptor(credentials: &Credentials) -> Acceptor {
    let identity =
        Identity::new(credentials.controller_key.clone(), credentials.controller_chain.clone()).unwrap();
    let roots = vec![credentials.operator.public_key()];
    let mode = Mode::ControllerAuthEndpoint;
    Acceptor::new(vec![Entry { snikey: None, default: true, identity, mode, roots }]).unwrap()
}

/// A folder with a configuration and room for the status socket.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new(config: &str) -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        home.configure(config);
        home
    }

    pub fn configure(&self, config: &str) {
        std::fs::write(self.config(), config).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.0.path().join("endpoint.toml")
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The program with this configuration.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pktendpt"));
        command.arg("-c").arg(self.config()).env_remove("PKTENDPT_LOG").stdin(Stdio::null());
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }
}

/// A running endpoint and its log, killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines, seen: Vec::new() }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for a line with these words and returns it.
    pub fn says(&mut self, words: &str) -> String {
        let until = Instant::now() + SOON;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    assert!(!line.contains("panicked"), "{line}");
                    self.seen.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {words:?} in {:#?}", self.seen),
            }
        }
    }

    pub fn ends(&mut self) -> ExitStatus {
        let until = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the program goes on; it said {:#?}", self.seen);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

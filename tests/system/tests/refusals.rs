//! Real programs with wrong credentials: the right side refuses, in one clear line, and nobody panics.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pktlab::cert::*;

/// A running program, killed when dropped, and its lines on stderr.
struct Running {
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
    fn start(command: &mut Command) -> Running {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with these words and returns it.
    fn says(&mut self, words: &str) -> String {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
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
}

fn binary(name: &str) -> PathBuf {
    // target/PROFILE/deps/this-test → target/PROFILE/name
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join(name)
}

fn unix_now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A set of credentials in TOML, for either program.
fn toml(key: &PrivateKey, chain: &[Certificate], roots: &[PublicKey]) -> String {
    let list = |pems: Vec<String>| {
        pems.into_iter().map(|pem| format!("'''\n{pem}'''")).collect::<Vec<_>>().join(", ")
    };
    format!(
        "key = '''\n{}'''\ncertificates = [{}]\nroots = [{}]\n",
        key.to_pem(),
        list(chain.iter().map(Certificate::to_pem).collect()),
        list(roots.iter().map(PublicKey::to_pem).collect()),
    )
}

/// The rest of an endpoint's configuration: targets on this host, nothing left behind.
const POLICY: &str = "\n[policy]\nallow = [\"own\"]\n[state]\npersist = false\nsocket = \"status.sock\"\n";

struct Meeting {
    wrap: Running,
    endpoint: Running,
    _dir: tempfile::TempDir,
}

/// pktwrap waits for an endpoint, pktendpt comes, each with the credentials given.
fn meet(controller: &str, endpoint: &str) -> Meeting {
    let dir = tempfile::tempdir().unwrap();
    let [controller_file, endpoint_file] = ["controller.toml", "endpoint.toml"].map(|f| dir.path().join(f));
    fs::write(&controller_file, controller).unwrap();
    fs::write(&endpoint_file, format!("[controller]\n{endpoint}{POLICY}")).unwrap();
    let addr = format!("127.0.0.1:{}", free_port());
    let mut wrap = Running::start(
        Command::new(binary("pktwrap"))
            .args(["--via", &format!("listen:{addr}"), "--credentials"])
            .arg(controller_file)
            .arg("/bin/true"),
    );
    wrap.says("waiting for an endpoint");
    let endpoint = Running::start(Command::new(binary("pktendpt")).arg("-c").arg(endpoint_file).arg(addr));
    Meeting { wrap, endpoint, _dir: dir }
}

#[test]
fn partners_meet_and_the_program_runs() {
    let c = ephemeral(unix_now()).unwrap();
    let roots = [c.operator.public_key()];
    let mut meeting = meet(
        &toml(&c.controller_key, &c.controller_chain, &roots),
        &toml(&c.endpoint_key, &c.endpoint_chain, &roots),
    );
    let until = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = meeting.wrap.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "pktwrap did not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}

#[test]
fn each_wrong_endpoint_is_refused_by_the_controller() {
    let c = ephemeral(unix_now()).unwrap();
    let stranger = ephemeral(unix_now()).unwrap();
    let roots = [c.operator.public_key()];
    let controller = toml(&c.controller_key, &c.controller_chain, &roots);
    let issue = |issue: Issue| issue.sign(&c.operator, &c.endpoint_key.public_key()).unwrap();
    let north = Issue { description: Some("north".into()), ..Issue::new(CertType::SubCmd) };
    let mut tampered = issue(north).der().to_vec();
    let at = tampered.windows(5).position(|w| w == b"north").unwrap();
    tampered[at] = b'f';
    let expired = issue(Issue { not_after: unix_now() - 60, ..Issue::new(CertType::SubCmd) });
    let with = |cert: Certificate| toml(&c.endpoint_key, &[cert], &roots);
    let cases = [
        ("unknown root", toml(&stranger.endpoint_key, &stranger.endpoint_chain, &roots)),
        ("expired", with(expired)),
        ("does not belong there", with(issue(Issue::new(CertType::Agent)))),
        ("tampered", with(Certificate::from_der(&tampered).unwrap())),
    ];
    for (words, endpoint) in cases {
        let mut meeting = meet(&controller, &endpoint);
        let line = meeting.wrap.says("no session with");
        assert!(line.contains(words), "wanted {words:?}: {line}");
        assert!(meeting.wrap.child.try_wait().unwrap().is_none(), "pktwrap goes on waiting");
    }
}

#[test]
fn each_wrong_controller_is_refused_by_the_endpoint() {
    let c = ephemeral(unix_now()).unwrap();
    let stranger = ephemeral(unix_now()).unwrap();
    let roots = [c.operator.public_key()];
    let endpoint = toml(&c.endpoint_key, &c.endpoint_chain, &roots);
    let experimenter = PrivateKey::generate().unwrap();
    let old = Issue { not_after: unix_now() - 60, ..Issue::new(CertType::ExpPriv) };
    let expired = vec![
        Issue::new(CertType::PubCmd).sign(&experimenter, &c.controller_key.public_key()).unwrap(),
        old.sign(&c.operator, &experimenter.public_key()).unwrap(),
    ];
    let cases = [
        ("unknown root", toml(&stranger.controller_key, &stranger.controller_chain, &roots)),
        ("expired", toml(&c.controller_key, &expired, &roots)),
        ("at least 2 are needed", toml(&c.controller_key, &c.controller_chain[..1], &roots)),
    ];
    for (words, controller) in cases {
        let mut meeting = meet(&controller, &endpoint);
        let line = meeting.endpoint.says("refused the peer");
        assert!(line.contains(words), "wanted {words:?}: {line}");
    }
}

#[test]
fn a_key_without_its_certificate_is_a_local_error() {
    let c = ephemeral(unix_now()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("endpoint.toml");
    let wrong = toml(&c.controller_key, &c.endpoint_chain, &[c.operator.public_key()]);
    fs::write(&file, format!("[controller]\n{wrong}{POLICY}")).unwrap();
    let output = Command::new(binary("pktendpt")).arg("-c").arg(&file).arg("127.0.0.1:9").output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("belongs to the private key"), "{text}");
}

//! Runs the C programs of `tests/c` natively and under `pktwrap --loopback endpoint`; what they print and how they end
//! must be equal.
#![allow(clippy::unwrap_used)]

mod servers;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The folder with pktwrap, pktendpt and libpktwrap.so, built if need be.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let packages = ["-p", "pktwrap", "-p", "pktendpt", "-p", "pktwrap-shim"];
        let mut cargo = Command::new(env!("CARGO"));
        cargo.arg("build").args(packages);
        // What `cargo test` tells this process would make build scripts run again, and then everything after them.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&name);
            }
        }
        assert!(cargo.status().unwrap().success(), "the programs under test do not build");
        // target/debug/deps/programs-… is this program.
        std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
    })
}

/// The compiled test program.
fn compiled(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/c/{name}.c"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let fresh =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{:?}", std::thread::current().id()));
    let cc = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&fresh).arg(&source).status();
    assert!(cc.expect("cc (install gcc)").success(), "{name}.c does not compile");
    std::fs::rename(&fresh, &out).unwrap();
    out
}

fn wrapped(program: &Path) -> Command {
    let mut command = Command::new(built().join("pktwrap"));
    command.args(["--quiet", "--loopback", "endpoint", "--"]).arg(program);
    command
}

fn output(mut command: Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("hangs after:\n{}", String::from_utf8_lossy(&output.stdout));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn same(name: &str, ports: &[u16]) {
    let program = compiled(name);
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let mut native = Command::new(&program);
    native.args(&ports);
    let native = output(native);
    let mut under = wrapped(&program);
    under.args(&ports);
    let under = output(under);
    let (expected, got) = (String::from_utf8_lossy(&native.stdout), String::from_utf8_lossy(&under.stdout));
    assert!(native.status.success(), "{name} fails natively: {} {expected}", native.status);
    let differing: Vec<String> = expected
        .lines()
        .zip(got.lines())
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(i, (a, b))| format!("line {}: native {a:?}, wrapped {b:?}", i + 1))
        .collect();
    let errors = String::from_utf8_lossy(&under.stderr);
    assert!(
        differing.is_empty() && expected == got,
        "{name}:\n{}\nstderr: {errors}\n{got}",
        differing.join("\n")
    );
    assert_eq!(under.status.code(), Some(0), "{name}: {errors}");
}

#[test]
fn connects() {
    same("connect", &[servers::echo(), servers::refused()]);
}

#[test]
fn unconnected_sockets() {
    same("states", &[servers::echo()]);
}

#[test]
fn inherited_and_passed_descriptors() {
    same("inherit", &[servers::echo()]);
}

#[test]
fn datagrams() {
    same("udp", &[servers::udp_echo()]);
}

#[test]
fn ends_of_connections() {
    same("ends", &[servers::echo(), servers::farewell(), servers::reset()]);
}

#[test]
fn socket_options() {
    same("options", &[]);
}

#[test]
fn names_and_numbers() {
    same("names", &[]);
}

#[test]
fn cancelled_threads() {
    same("cancel", &[servers::echo()]);
}

/// A panic must never fall through to the real function: that would reach the local network.
#[test]
fn a_panic_in_a_hook_ends_the_program() {
    let program = compiled("states");
    let port = servers::echo().to_string();
    for hook in ["socket", "recv"] {
        let mut command = wrapped(&program);
        command.arg(&port).env("PKTWRAP_TEST_PANIC", hook);
        let output = output(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("panic in a hook"), "{hook}: {errors}");
        assert_eq!(output.status.code(), Some(128 + libc::SIGABRT), "{hook}: {errors}");
    }
}

/// The program neither hangs nor takes the silence for the end of the file.
#[test]
fn a_killed_supervisor_fails_the_program() {
    let mut command = wrapped(&compiled("drain"));
    command.arg(servers::drip().to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut pktwrap = command.spawn().unwrap();
    let mut lines = BufReader::new(pktwrap.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "reading\n");
    pktwrap.kill().unwrap();
    pktwrap.wait().unwrap();
    // The pipe ends when the program, now an orphan, does.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        sender.send(rest)
    });
    let rest = receiver.recv_timeout(Duration::from_secs(20)).expect("the program hangs");
    // Empty when the kernel ended the program together with pktwrap.
    assert!(matches!(rest.as_str(), "" | "ended ECONNRESET\n"), "{rest}");
}

/// Without a supervisor there is no network at all.
#[test]
fn a_missing_supervisor_means_no_network() {
    let mut command = Command::new(compiled("drain"));
    command
        .arg(servers::drip().to_string())
        .env("LD_PRELOAD", built().join("libpktwrap.so"))
        .env(pktwrap_link::ENV_LINK, "00000000000000ff000102030405060708090a0b0c0d0e0f");
    let output = output(command);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "socket: ENETDOWN\n");
    assert_eq!(output.status.code(), Some(1));
}

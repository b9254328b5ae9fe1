//! Whole-system test support: runs a command natively on the endpoint's host and under `pktwrap` on the controller's, and
//! compares what they did; whatever is wrapped must not move a packet counter of the controller's devices.
//!
//! | module | what lives there |
//! |---|---|
//! | `normal`, `process` | output without timings, a look at running processes |
//! | `endpoint` | a standing endpoint in the laboratory, driven through the controller's API |
//! | `filter`, `packet`, `wire` | capture filters, packets, and what arrives at a host |

pub mod endpoint;
pub mod filter;
pub mod normal;
pub mod packet;
pub mod process;
pub mod wire;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use netlab::Lab;
use netlab::scenario::FIRST_LIGHT;

/// Seconds after which a command is ended; a hang is a failure with exit code 124.
const LIMIT: &str = "120";

/// A program built beside the tests, such as `pktwrap`.
pub fn built(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let dir = me.ancestors().nth(2).context("no target directory")?;
    let path = dir.join(name);
    ensure!(path.is_file(), "{name} is not built; run `cargo build --workspace` (scripts/test does)");
    Ok(path)
}

/// How a command ended and what it wrote, with timings made equal.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code; 128 + signal as in a shell.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    fn of(output: &Output) -> Outcome {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        let text = |bytes: &[u8]| normal::normal(&String::from_utf8_lossy(bytes));
        Outcome { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// The built-in laboratory with programs to run in it.
pub struct Bench {
    /// The laboratory itself.
    pub lab: Lab,
}

impl Bench {
    /// Builds it; it is removed on drop.
    pub fn up() -> Result<Bench> {
        Ok(Bench { lab: Lab::for_test(FIRST_LIGHT)? })
    }

    /// A command on the endpoint's host, as it is.
    pub fn native(&self, command: &[&str]) -> Command {
        let mut native = self.lab.command("endpoint", "timeout");
        native.args(["-k", "5", LIMIT]).args(command);
        plain(&mut native);
        native
    }

    /// A command on the controller's host under `pktwrap`, with the endpoint in the endpoint's namespace.
    pub fn wrapped(&self, command: &[&str]) -> Result<Command> {
        let mut wrapped = self.lab.command("controller", "timeout");
        wrapped.args(["-k", "5", LIMIT]).arg(built("pktwrap")?).args(["--quiet", "--endpoint-netns"]);
        wrapped.arg(self.lab.netns("endpoint")).arg("--").args(command);
        plain(&mut wrapped);
        Ok(wrapped)
    }

    /// Runs a command both ways and fails unless exit code and output agree and nothing left the controller's host. Returns
    /// the common outcome, which the test should look at too: two equal failures agree as well.
    pub fn same(&self, command: &[&str]) -> Result<Outcome> {
        let native = Outcome::of(&self.native(command).output()?);
        let wrapped = self.without_escape(|| Ok(Outcome::of(&self.wrapped(command)?.output()?)))?;
        ensure!(
            native == wrapped,
            "{command:?} differs\n--- native: {}\n{}{}\n--- wrapped: {}\n{}{}",
            native.code,
            native.stdout,
            native.stderr,
            wrapped.code,
            wrapped.stdout,
            wrapped.stderr
        );
        Ok(native)
    }

    /// The same for a Python program.
    pub fn same_python(&self, program: &str) -> Result<Outcome> {
        self.same(&["/usr/bin/python3", "-c", program])
    }

    /// Fails if the work moves a packet counter of the controller's or the sink's devices (the loopback aside, on which the
    /// embedded endpoint's session runs).
    pub fn without_escape<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // What routers send toward the controller (multicast reports) is no escape.
        let counters = || -> Result<Vec<(String, u64)>> {
            let devices = self.lab.counters("controller")?.into_iter();
            let mut sent: Vec<_> = devices.map(|(device, n)| (device, n.tx_packets)).collect();
            sent.extend(self.lab.counters("sink")?.into_values().map(|n| ("sink".to_owned(), n.rx_packets)));
            Ok(sent)
        };
        let before = counters()?;
        let result = work()?;
        let after = counters()?;
        ensure!(before == after, "packets left the controller's host\nbefore {before:?}\nafter {after:?}");
        Ok(result)
    }
}

/// Nothing of the caller's environment that changes what tools print.
fn plain(command: &mut Command) {
    command.stdin(Stdio::null()).env("LC_ALL", "C").env("TZ", "UTC").env("HOME", "/nonexistent");
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    // Wanted is what the test says, not what the test runner was told.
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE").env_remove("LD_LIBRARY_PATH");
}

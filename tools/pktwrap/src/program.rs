//! Starting the program, passing signals on, and its exit status.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context as _, bail};
use pktwrap_link::{ENV_LINK, Token};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Name of the library that goes into programs, and the variable that names another file.
const LIBRARY: &str = "libpktwrap.so";
const ENV_LIBRARY: &str = "PKTWRAP_LIB";

/// The shim: next to this executable unless PKTWRAP_LIB names it.
pub fn library() -> anyhow::Result<PathBuf> {
    beside(LIBRARY, ENV_LIBRARY)
}

/// A file of our own, next to this executable unless the variable names it.
pub fn beside(name: &str, variable: &str) -> anyhow::Result<PathBuf> {
    let file = match std::env::var_os(variable) {
        Some(file) => PathBuf::from(file),
        None => std::env::current_exe().context("cannot find this executable")?.with_file_name(name),
    };
    let file = std::path::absolute(&file)?;
    if !file.is_file() {
        bail!("{} is missing; install {name} next to pktwrap or set {variable} to its path", file.display());
    }
    Ok(file)
}

/// Starts the program with the shim in front of whatever was preloaded already.
pub fn spawn(
    command: &[OsString],
    file: &Path,
    library: &Path,
    session: u64,
    token: &Token,
) -> std::io::Result<Child> {
    let mut preload = library.as_os_str().to_owned();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(OsStr::new(":"));
        preload.push(others);
    }
    let (name, arguments) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    Command::new(file)
        .arg0(name)
        .args(arguments)
        .env("LD_PRELOAD", preload)
        .env(ENV_LINK, link(session, token))
        .spawn()
}

fn link(session: u64, token: &Token) -> String {
    format!("{session:016x}{:032x}", u128::from_be_bytes(*token))
}

/// The signals a supervisor handles while its program runs. Made before the program starts, so that none is missed.
pub struct Signals {
    terminate: Stream,
    hangup: Stream,
    interrupt: Stream,
    quit: Stream,
}

impl Signals {
    pub fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for the program. TERM and HUP are passed on; INT and QUIT come from the terminal to the program as well,
    /// which decides what they mean.
    pub async fn wait(&mut self, child: &mut Child) -> std::io::Result<ExitStatus> {
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
        loop {
            let forward = tokio::select! {
                status = child.wait() => return status,
                _ = self.terminate.recv() => Signal::TERM,
                _ = self.hangup.recv() => Signal::HUP,
                _ = self.interrupt.recv() => continue,
                _ = self.quit.recv() => continue,
            };
            if let Some(pid) = pid
                && let Err(error) = rustix::process::kill_process(pid, forward)
            {
                tracing::debug!("cannot pass {forward:?} on: {error}");
            }
        }
    }
}

/// The program's own status, or 128 + the signal that ended it.
pub fn status(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128u8.wrapping_add(signal as u8),
        (None, None) => 125,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shim_understands_the_environment() {
        let token: Token = *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff";
        let text = link(0xfeed, &token);
        assert_eq!(pktwrap_link::names::parse_env(text.as_bytes()), Some((0xfeed, token)));
    }

    #[test]
    fn statuses() {
        assert_eq!(status(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(status(ExitStatus::from_raw(15)), 143);
    }
}

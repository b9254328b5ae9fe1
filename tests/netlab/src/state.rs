//! What is on record about a running laboratory, so that it can be removed by any later process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::place::{ETC, STATE};
use crate::scenario::Scenario;
use crate::services::{command, run};

/// A process, with its start time so that a reused number is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start: u64,
}

impl Process {
    /// The process of that number, if it runs.
    pub fn of(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, field 2, may hold blanks and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        Some(Process { pid: pid as i32, start: fields.nth(18)?.parse().ok()? })
    }

    /// Still running.
    pub fn alive(&self) -> bool {
        Process::of(self.pid as u32).as_ref() == Some(self)
    }
}

/// A laboratory on record.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Prefix of the namespaces.
    pub name: String,
    /// What was built.
    pub scenario: Scenario,
    /// All namespaces, those of the relays too.
    pub namespaces: Vec<String>,
    /// Servers and relays.
    pub processes: Vec<Process>,
    /// Files of the servers.
    pub dir: PathBuf,
    /// The process that uses the laboratory and should remove it; none after `netlab up`.
    pub owner: Option<Process>,
}

fn path(name: &str) -> PathBuf {
    Path::new(STATE).join(format!("{name}.json"))
}

impl State {
    /// The record of a laboratory.
    pub fn load(name: &str) -> Result<State> {
        let text = fs::read(path(name))
            .with_context(|| format!("there is no laboratory {name:?}; see `netlab list`"))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path(name).display()))
    }

    /// All laboratories on record.
    pub fn all() -> Vec<State> {
        let entries = fs::read_dir(STATE).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".json")?.to_owned()));
        names.filter_map(|name| State::load(&name).ok()).collect()
    }

    /// Writes the record, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let temporary = path(&self.name).with_extension("new");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(&temporary, path(&self.name)).context("cannot record the laboratory")
    }

    /// Removes everything the laboratory consists of. Goes on after errors: what is already gone is no failure.
    pub fn remove(&self) {
        for process in self.processes.iter().filter(|p| p.alive()) {
            kill(process.pid);
        }
        for name in &self.namespaces {
            // A namespace with a process in it would live on; all in it were started for the laboratory.
            if let Ok(pids) = run(command("ip").args(["netns", "pids", name])) {
                String::from_utf8_lossy(&pids)
                    .split_whitespace()
                    .filter_map(|p| p.parse().ok())
                    .for_each(kill);
            }
            let _ = run(command("ip").args(["netns", "del", name]));
            let _ = fs::remove_dir_all(Path::new(ETC).join(name));
        }
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(path(&self.name));
    }
}

fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| pid > 1) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Removes laboratories whose owner died before it could.
pub fn remove_abandoned() {
    for state in State::all() {
        if state.owner.is_some_and(|owner| !owner.alive()) {
            state.remove();
        }
    }
}

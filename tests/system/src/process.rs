//! Looks at running processes through /proc.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Name and parent of a process.
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = tail.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    Some((name, fields.next()?.parse().ok()?))
}

/// The process of that name among `root` and its descendants.
fn search(root: u32, name: &str) -> Option<u32> {
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(n, _)| n == name)).find(|pid| {
        let mut at = *pid;
        while at != root {
            match stat(at) {
                Some((_, parent)) if parent > 1 => at = parent,
                _ => return false,
            }
        }
        true
    })
}

/// Waits until `root` has a descendant of that name.
pub fn descendant(root: u32, name: &str) -> Result<u32> {
    let start = Instant::now();
    loop {
        if let Some(pid) = search(root, name) {
            return Ok(pid);
        }
        ensure!(start.elapsed() < Duration::from_secs(10), "no process {name} appeared");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process runs.
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some()
}

/// The most memory a process has had resident, in bytes.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

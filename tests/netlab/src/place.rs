//! The place a laboratory is built in: real root, or root of a user namespace with mounts of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::services::{command, run};

/// Where laboratories keep what they must know to be removed.
pub const STATE: &str = "/run/netlab";
/// Per-namespace files that `ip netns exec` binds over `/etc`.
pub const ETC: &str = "/etc/netns";

/// Makes `/run/netlab`, `/run/netns` and `/etc/netns` writable. As real root that is all; in a user namespace they get
/// file systems of their own, which end with the mount namespace.
pub fn prepare() -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    ensure!(root, "namespaces need root: run as root, or inside `unshare -Urnm`");
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let real_root = map.split_whitespace().nth(2) == Some("4294967295");
    if !real_root {
        if !writable("/run") {
            mount(&["-t", "tmpfs", "tmpfs", "/run"])
                .context("start the user namespace with `unshare -Urnm`")?;
        }
        if !writable(ETC) {
            if Path::new(ETC).is_dir() {
                mount(&["-t", "tmpfs", "tmpfs", ETC])?;
            } else {
                own_etc()?;
            }
        }
    }
    for dir in [STATE, "/run/netns", ETC] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
    }
    Ok(())
}

fn writable(dir: &str) -> bool {
    let probe = Path::new(dir).join(format!(".netlab-{}", std::process::id()));
    let made = fs::create_dir(&probe).is_ok();
    if made {
        let _ = fs::remove_dir(&probe);
    }
    made
}

/// Gives `/etc` a directory of our own in which every entry leads to the real one, so that `/etc/netns` can be made.
fn own_etc() -> Result<()> {
    let real = Path::new("/run/netlab-etc");
    fs::create_dir_all(real)?;
    mount(&["--rbind", "/etc", "/run/netlab-etc"])?;
    mount(&["-t", "tmpfs", "tmpfs", "/etc"])?;
    for entry in fs::read_dir(real)? {
        let entry = entry?;
        let target = match fs::read_link(entry.path()) {
            // Relative links keep their meaning.
            Ok(target) => target,
            Err(_) => entry.path(),
        };
        std::os::unix::fs::symlink(target, Path::new("/etc").join(entry.file_name()))?;
    }
    Ok(())
}

fn mount(args: &[&str]) -> Result<()> {
    let mut mount: Command = command("mount");
    run(mount.args(args)).map(|_| ())
}

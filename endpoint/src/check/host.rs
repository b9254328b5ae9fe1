//! Scheduling, clock, descriptors and folders of this host.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};

use super::{Finding, Verdict, sys};
use crate::config::Config;
use crate::status;

/// 256 sockets with two descriptors each where they are raw, and the program's own.
const DESCRIPTORS: u64 = 640;

pub(super) fn scheduling() -> Finding {
    const TOPIC: &str = "timed sends";
    match sys::real_time() {
        Ok(()) => Finding::ok(TOPIC, "SCHED_FIFO is permitted"),
        Err(error) => Finding::warning(
            TOPIC,
            format!("SCHED_FIFO is not permitted ({error}): a loaded host delays sends by milliseconds"),
            "setcap cap_sys_nice+ep, AmbientCapabilities=CAP_SYS_NICE or LimitRTPRIO=10 in the service unit",
        ),
    }
}

pub(super) fn clock() -> Finding {
    const TOPIC: &str = "clock";
    match sys::clock() {
        Ok(clock) if clock.synchronised => {
            Finding::ok(TOPIC, format!("synchronised, at most {} us wrong", clock.error))
        }
        Ok(_) => Finding::warning(
            TOPIC,
            "not synchronised: the times of this endpoint do not compare with those of others",
            "run an NTP client, for example chrony",
        ),
        Err(error) => Finding::warning(
            TOPIC,
            format!("the kernel does not say whether it is synchronised: {error}"),
            "none",
        ),
    }
}

pub(super) fn descriptors() -> Finding {
    const TOPIC: &str = "descriptors";
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < DESCRIPTORS => Finding::warning(
            TOPIC,
            format!("{limit} files may be open, a full session takes {DESCRIPTORS}"),
            "LimitNOFILE=4096 in the service unit, or ulimit -n",
        ),
        Some(limit) => Finding::ok(TOPIC, format!("{limit} files may be open")),
        None => Finding::ok(TOPIC, "any number of files may be open"),
    }
}

pub(super) fn state(config: &Config) -> Finding {
    const TOPIC: &str = "state";
    let folder = match config.state.directory() {
        Ok(Some(folder)) => folder,
        Ok(None) => {
            return Finding::new(TOPIC, Verdict::Off, "the use of limits is forgotten with each session");
        }
        Err(error) => return Finding::missing(TOPIC, format!("{error:#}"), "set `directory` in [state]"),
    };
    match writable(&folder) {
        Ok(()) => Finding::ok(TOPIC, format!("{} can be written", folder.display())),
        Err(error) => Finding::missing(
            TOPIC,
            format!("{} cannot be written: {error}", folder.display()),
            "StateDirectory=pktendpt in the service unit, or make the folder and give it to the endpoint's user",
        ),
    }
}

/// A folder that exists takes a file; one that does not could be made. Nothing is left behind, so that the check may run
/// as somebody else than the endpoint.
fn writable(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        let probe = folder.join(format!(".check.{}", std::process::id()));
        fs::File::create_new(&probe)?;
        return fs::remove_file(&probe);
    }
    let existing = folder.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("."));
    Ok(rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK)?)
}

pub(super) fn socket(config: &Config) -> Finding {
    const TOPIC: &str = "status";
    const REMEDY: &str = "RuntimeDirectory=pktendpt in the service unit, or `socket` in [state]";
    let Some(path) = config.state.socket() else {
        return Finding::warning(TOPIC, "no place for the status socket", REMEDY);
    };
    if let Ok(status) = status::ask(&path) {
        return Finding::ok(
            TOPIC,
            format!("an endpoint runs (pid {}): {}", status.pid, status.state.words()),
        );
    }
    match path.parent().map(writable) {
        Some(Ok(())) => {
            Finding::ok(TOPIC, format!("no endpoint runs; it would answer at {}", path.display()))
        }
        Some(Err(error)) => {
            Finding::warning(TOPIC, format!("{} cannot be made: {error}", path.display()), REMEDY)
        }
        None => Finding::warning(TOPIC, format!("{} is no path", path.display()), REMEDY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(state: &str) -> Config {
        let text = format!("[controller]\nkey = \"k\"\ncertificates = [\"c\"]\n[state]\n{state}");
        Config::parse(&text).expect("valid")
    }

    #[test]
    fn folders_are_tried_and_left_as_they_were() {
        let dir = tempfile::tempdir().expect("folder");
        let place = dir.path().join("a/b");
        let config = config(&format!("directory = {place:?}\nsocket = \"{}/s\"\n", place.display()));
        assert_eq!(state(&config).verdict, Verdict::Ok);
        assert_eq!(socket(&config).verdict, Verdict::Ok);
        assert!(!place.exists());
        fs::create_dir_all(&place).expect("made");
        assert_eq!(state(&config).verdict, Verdict::Ok);
        assert_eq!(fs::read_dir(&place).expect("listed").count(), 0);
        fs::remove_dir(&place).expect("removed");
        fs::write(&place, "in the way").expect("written");
        assert!(fs::File::create_new(place.join("x")).is_err());
    }

    #[test]
    fn a_file_in_the_way_is_missing() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("file");
        fs::write(&file, "x").expect("written");
        let found = state(&config(&format!("directory = {:?}\n", file.join("below"))));
        assert_eq!(found.verdict, Verdict::Missing, "{found:?}");
    }

    #[test]
    fn nothing_to_keep_needs_no_folder() {
        assert_eq!(state(&config("persist = false\n")).verdict, Verdict::Off);
    }

    #[test]
    fn this_host_has_a_clock_and_descriptors() {
        assert!(sys::clock().is_ok());
        assert!(!descriptors().text.is_empty());
        assert_ne!(scheduling().verdict, Verdict::Missing);
    }
}

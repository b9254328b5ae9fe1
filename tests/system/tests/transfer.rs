//! Large and slow transfers, and what happens when the supervisor dies in one.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use system_tests::{Bench, process};

#[test]
fn a_large_download_is_identical() -> Result<()> {
    let bench = Bench::up()?;
    bench.lab.web_file("large.bin", 64 << 20)?;
    let outcome = bench.same(&["sh", "-c", "curl -sS http://www.lab/large.bin | sha256sum"])?;
    let mut expected = std::process::Command::new("sha256sum");
    expected.stdin(std::fs::File::open(bench.lab.dir().join("www/large.bin"))?);
    assert_eq!(outcome.stdout, String::from_utf8(expected.output()?.stdout)?);
    Ok(())
}

#[test]
fn an_upload_is_identical() -> Result<()> {
    let bench = Bench::up()?;
    let file = bench.lab.web_file("up.bin", 16 << 20)?;
    let line = format!("nc -N 10.91.4.2 7 < {} | cmp - {} && echo identical", file.display(), file.display());
    let outcome = bench.same(&["sh", "-c", &line])?;
    assert_eq!(outcome.stdout, "identical\n", "{}", outcome.stderr);
    Ok(())
}

#[test]
fn a_slow_reader_does_not_fill_the_endpoint() -> Result<()> {
    let bench = Bench::up()?;
    bench.lab.web_file("slow.bin", 256 << 20)?;
    bench.without_escape(|| {
        let command = [
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "--limit-rate",
            "1M",
            "--max-time",
            "6",
            "http://www.lab/slow.bin",
        ];
        let mut child = bench.wrapped(&command)?.spawn()?;
        let endpoint = process::descendant(child.id(), "pktendpt")?;
        let supervisor = process::descendant(child.id(), "pktwrap")?;
        process::descendant(child.id(), "curl")?;
        std::thread::sleep(Duration::from_secs(5));
        for (name, pid) in [("pktendpt", endpoint), ("pktwrap", supervisor)] {
            let peak = process::peak_memory(pid)?;
            assert!(peak < 64 << 20, "{name} used {} MiB", peak >> 20);
        }
        assert_eq!(child.wait()?.code(), Some(28), "curl stopped at its time limit");
        Ok(())
    })
}

#[test]
fn the_program_fails_soon_after_the_supervisor_is_killed() -> Result<()> {
    let bench = Bench::up()?;
    bench.lab.web_file("slow.bin", 64 << 20)?;
    bench.without_escape(|| {
        // Not curl: with a rate limit it looks at its socket only every few seconds.
        let reader = "import time, urllib.request\n\
                      answer = urllib.request.urlopen('http://www.lab/slow.bin')\n\
                      while answer.read(65536): time.sleep(0.05)";
        let command = ["/usr/bin/python3", "-c", reader];
        let mut child = bench.wrapped(&command)?.stderr(Stdio::null()).spawn()?;
        let program = process::descendant(child.id(), "python3")?;
        let supervisor = process::descendant(child.id(), "pktwrap")?;
        std::thread::sleep(Duration::from_secs(1));
        assert!(process::alive(program), "the transfer takes a minute");
        let killed = std::process::Command::new("kill").args(["-9", &supervisor.to_string()]).status()?;
        assert!(killed.success());
        let start = Instant::now();
        while process::alive(program) {
            // One second is the aim; what was received before is read first.
            assert!(start.elapsed() < Duration::from_secs(4), "the program hangs");
            std::thread::sleep(Duration::from_millis(20));
        }
        child.wait().context("cannot wait")?;
        Ok(())
    })
}

#[test]
fn exit_codes_are_the_programs_or_the_shells() -> Result<()> {
    let bench = Bench::up()?;
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["/nonexistent/program"], 127),
        (&["/etc/passwd"], 126),
        (&["sh", "-c", "kill -TERM $$"], 143),
    ] {
        let output = bench.wrapped(command)?.output()?;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

//! A process that charges its store is killed at random moments, again and again.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pktlab::cert::Verified;

use super::super::{Charge, Store, Usage, keys};
use super::chain;

/// Tells the second process of this test where the store is.
const CHILD: &str = "PKTENDPT_TEST_KILLED_STORE";
const BUDGET: u64 = 1_000_000_000;
/// Bytes of each charge.
const STEP: u64 = 7;
const ROUNDS: u32 = 20;
/// Rounds that end soon after the process was started.
const EARLY: u32 = 6;

/// Two certificates with the same keys in every process.
fn certificates() -> Verified {
    let budget = format!("max_send_byte={BUDGET};");
    let mut chain = chain(&[&budget, &budget]);
    for (cert, serial) in chain.certs.iter_mut().zip(1..) {
        cert.serial = vec![serial];
    }
    chain
}

/// Bytes left of each certificate.
fn left(store: &Store, chain: &Verified) -> Vec<u64> {
    let records = store.read(&keys(chain)).expect("records");
    records.iter().map(|record| record.map_or(BUDGET, |record| record.send_bytes)).collect()
}

/// Charges until killed, and says after each charge what is left.
fn spend(path: &Path) {
    let chain = certificates();
    let store = Store::open(path).expect("store");
    let mut left = left(&store, &chain)[0];
    let mut charge = Charge::new(&chain, &store.read(&keys(&chain)).expect("records"));
    let mut used = Usage::default();
    loop {
        used.send_bytes += STEP;
        store.charge(&mut charge, &used).expect("charged");
        left -= STEP;
        println!("left {left}");
    }
}

#[test]
fn a_killed_process_loses_at_most_the_charge_it_was_making() {
    if let Some(path) = std::env::var_os(CHILD) {
        return spend(Path::new(&path));
    }
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("limits.redb");
    let chain = certificates();
    let mut acknowledged = BUDGET;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("test binary"))
            .args(["--exact", "limits::tests::kill::a_killed_process_loses_at_most_the_charge_it_was_making"])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let pid = rustix::process::Pid::from_child(&child);
        let kill = move || {
            std::thread::sleep(Duration::from_micros(noise()));
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        };
        // Some die while they make or open the store, the others between their charges.
        let mut killer = (round < EARLY).then(|| std::thread::spawn(kill));
        for line in lines.map_while(Result::ok) {
            if let Some((_, number)) = line.split_once("left ") {
                acknowledged = number.parse().expect("number");
                killer.get_or_insert_with(|| std::thread::spawn(kill));
            }
        }
        if let Some(killer) = killer {
            killer.join().expect("killer");
        }
        let signal = child.wait().expect("ended").signal();
        assert_eq!(signal, Some(9), "it ended by itself");

        let store = Store::open(&path).expect("the store opens after every kill");
        let left = left(&store, &chain);
        assert_eq!(left[0], left[1], "one transaction for both certificates");
        assert!(left[0] == acknowledged || left[0] == acknowledged - STEP, "{left:?} {acknowledged}");
        acknowledged = left[0];
    }
}

/// 0–30 ms in µs, different in every run.
fn noise() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |time| u64::from(time.subsec_nanos()) / 64 % 30_000)
}

//! Budgets between sessions (spec `scheduling.md` §5.4).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pktlab::cert::{CertType, Verified};
use proptest::prelude::*;
use tempfile::TempDir;

use super::super::record::{LEN, Record};
use super::super::{Charge, Ledger, Remaining, Store, StoreError, Usage, keys};
use super::{SECOND, START, certificate, chain, left};

const MAX: u64 = u64::MAX;

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("state").join("limits.redb");
    (dir, path)
}

fn open(path: &Path) -> Store {
    Store::open(path).expect("store")
}

fn read(store: &Store, chain: &Verified) -> Vec<Option<Remaining>> {
    store.read(&keys(chain)).expect("records")
}

fn usage(fields: [u64; 5]) -> Usage {
    let [send_packets, send_bytes, receive_packets, receive_bytes, run_time] = fields;
    Usage { send_packets, send_bytes, receive_packets, receive_bytes, run_time }
}

#[test]
fn several_certificates_shrink_together_and_stay_so_after_a_restart() {
    let (_dir, path) = place();
    let chain = chain(&["max_send_byte=1000;max_recv_pkt=50;", "max_send_byte=300;max_exp_period=9000;", ""]);
    let store = open(&path);
    assert_eq!(read(&store, &chain), [None, None, None]);

    let mut ledger = Ledger::new(&chain, &[], None, START);
    let mut charge = Charge::new(&chain, &[]);
    ledger.sent(START, 100);
    store.charge(&mut charge, &ledger.used(START + 1_000)).expect("charged");
    ledger.sent(START, 20);
    assert!(ledger.receive(1));
    store.charge(&mut charge, &ledger.used(START + 4_000)).expect("charged");
    drop(store);

    let store = open(&path);
    let remembered = read(&store, &chain);
    // Chain order: the certificate without budgets first; it needs no record.
    let expected = [None, Some(left([MAX, 180, MAX, MAX, 5_000])), Some(left([MAX, 880, 49, MAX, MAX]))];
    assert_eq!(remembered, expected);

    let mut ledger = Ledger::new(&chain, &remembered, None, START);
    assert!(!ledger.never(180) && ledger.never(181));
    assert_eq!(ledger.end(), START + 5_000);
    let mut charge = Charge::new(&chain, &remembered);
    ledger.sent(START, 180);
    store.charge(&mut charge, &ledger.used(START + 6_000)).expect("charged");
    let remembered = read(&store, &chain);
    assert_eq!(remembered[1], Some(left([MAX, 0, MAX, MAX, 0])), "floored at 0");
    assert_eq!(remembered[2], Some(left([MAX, 700, 49, MAX, MAX])));

    let exhausted = Ledger::new(&chain, &remembered, None, START + SECOND);
    assert_eq!(exhausted.end(), START + SECOND, "over at once");
    assert!(exhausted.never(1));
}

#[test]
fn unlimited_stays_unlimited_and_costs_no_record() {
    let (_dir, path) = place();
    let store = open(&path);
    let free = chain(&["max_socket_count=3;", "max_send_byte=18446744073709551615;"]);
    let mut charge = Charge::new(&free, &[]);
    store.charge(&mut charge, &usage([MAX; 5])).expect("charged");
    assert_eq!(read(&store, &free), [None, None]);

    let limited = chain(&["max_send_pkt=18446744073709551614;"]);
    let mut charge = Charge::new(&limited, &[]);
    store.charge(&mut charge, &usage([4; 5])).expect("charged");
    assert_eq!(read(&store, &limited), [Some(left([MAX - 5, MAX, MAX, MAX, MAX]))]);
}

#[test]
fn a_charge_without_a_change_does_not_touch_the_disk() {
    let (_dir, path) = place();
    let store = open(&path);
    let chain = chain(&["max_send_byte=100;"]);
    let mut charge = Charge::new(&chain, &[]);
    store.charge(&mut charge, &usage([0, 10, 0, 0, 0])).expect("charged");
    let before = fs::read(&path).expect("file");
    for seconds in 1..5 {
        store.charge(&mut charge, &usage([0, 10, 7, 7, seconds])).expect("charged");
    }
    assert!(before == fs::read(&path).expect("file"));
}

#[test]
fn sessions_with_one_certificate_in_common_charge_the_same_record() {
    let (_dir, path) = place();
    let store = open(&path);
    let one = chain(&["max_send_byte=100;"]);
    let mut two = one.clone();
    two.certs.insert(1, certificate(CertType::DelPriv, "max_send_byte=90;", 2_000_000));
    let (mut first, mut second) = (Charge::new(&one, &[]), Charge::new(&two, &[None, None]));
    store.charge(&mut first, &usage([0, 30, 0, 0, 0])).expect("charged");
    store.charge(&mut second, &usage([0, 30, 0, 0, 0])).expect("charged");
    store.charge(&mut first, &usage([0, 35, 0, 0, 0])).expect("charged");
    let sent = |bytes| Some(left([MAX, bytes, MAX, MAX, MAX]));
    assert_eq!(read(&store, &two), [sent(60), sent(35)]);
}

#[test]
fn a_serial_number_used_twice_is_one_budget_charged_once() {
    let (_dir, path) = place();
    let store = open(&path);
    let mut twice = chain(&["max_send_byte=100;", "max_send_byte=80;"]);
    twice.certs[2].serial = twice.certs[1].serial.clone();
    let mut charge = Charge::new(&twice, &[]);
    store.charge(&mut charge, &usage([0, 30, 0, 0, 0])).expect("charged");
    let left = Some(left([MAX, 50, MAX, MAX, MAX]));
    assert_eq!(read(&store, &twice), [left, left]);
}

#[test]
fn a_record_is_deleted_after_its_certificate_expired() {
    let (_dir, path) = place();
    let store = open(&path);
    let mut chain = chain(&["max_send_byte=100;", "max_send_byte=100;"]);
    chain.certs[1].not_after = START;
    let mut charge = Charge::new(&chain, &[]);
    assert_eq!(store.expire(START).expect("expired"), 0, "nothing there");
    store.charge(&mut charge, &usage([0, 1, 0, 0, 0])).expect("charged");
    let present = |store: &Store| read(store, &chain).iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(store.expire(START).expect("expired"), 0, "valid to the last tick");
    assert_eq!(present(&store), [true, true]);
    assert_eq!(store.expire(START + 1).expect("expired"), 1);
    drop(store);
    let store = open(&path);
    assert_eq!(present(&store), [false, true]);
    assert_eq!(store.expire(MAX).expect("expired"), 1);
    assert_eq!(present(&store), [false, false]);
}

#[test]
fn a_damaged_record_refuses_its_certificate_and_no_other() {
    let (_dir, path) = place();
    let store = open(&path);
    let (bad, good) = (chain(&["max_send_byte=100;"]), chain(&["max_send_byte=100;"]));
    store.charge(&mut Charge::new(&good, &[]), &usage([0, 1, 0, 0, 0])).expect("charged");
    let short = Record { expiry: 0, left: left([1; 5]) }.emit();
    store.put(&keys(&bad)[0], &short[..LEN - 1]).expect("written");

    let error = store.read(&keys(&bad)).expect_err("refused");
    assert!(matches!(&error, StoreError::Damaged(key) if *key == keys(&bad)[0]), "{error}");
    let mut charge = Charge::new(&bad, &[]);
    assert!(store.charge(&mut charge, &usage([0, 1, 0, 0, 0])).is_err());
    assert_eq!(store.expire(MAX - 1).expect("expired"), 1, "the good one");
    assert!(store.read(&keys(&bad)).is_err(), "it outlives the expiry of others");
    assert_eq!(read(&store, &good), [None]);
}

#[test]
fn a_failed_charge_is_made_up_for_by_the_next() {
    let (_dir, path) = place();
    let store = open(&path);
    let chain = chain(&["max_send_byte=100;"]);
    let key = &keys(&chain)[0];
    let mut charge = Charge::new(&chain, &[]);
    store.put(key, &[]).expect("written");
    assert!(store.charge(&mut charge, &usage([0, 30, 0, 0, 0])).is_err());
    store.put(key, &Record { expiry: MAX, left: left([MAX, 100, MAX, MAX, MAX]) }.emit()).expect("written");
    store.charge(&mut charge, &usage([0, 40, 0, 0, 0])).expect("charged");
    assert_eq!(read(&store, &chain), [Some(left([MAX, 60, MAX, MAX, MAX]))]);
}

#[test]
fn an_endless_serial_number_is_refused() {
    let (_dir, path) = place();
    let store = open(&path);
    let mut chain = chain(&["max_send_byte=100;"]);
    chain.certs[1].serial = vec![1; 64];
    assert_eq!(read(&store, &chain), [None]);
    chain.certs[1].serial.push(1);
    assert!(matches!(store.read(&keys(&chain)), Err(StoreError::Serial(65))));
}

#[test]
fn a_store_has_one_owner() {
    let (_dir, path) = place();
    let store = open(&path);
    let error = Store::open(&path).err().expect("held");
    assert!(format!("{error:#}").contains("another process uses the limit store"), "{error:#}");
    drop(store);
    open(&path);
}

#[test]
fn the_store_is_private() {
    let (_dir, path) = place();
    open(&path);
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    let folder = path.parent().expect("folder");
    assert_eq!(mode(folder), 0o700);
    assert_eq!(fs::read_dir(folder).expect("folder").count(), 1, "no draft is left");
}

#[test]
fn a_place_that_cannot_be_used_is_named() {
    let (dir, _) = place();
    let file = dir.path().join("file");
    fs::write(&file, "no folder").expect("written");
    let error = Store::open(&file.join("limits.redb")).err().expect("refused");
    assert!(format!("{error:#}").contains("limits.redb"), "{error:#}");
    let error = Store::open(&file).err().expect("refused");
    assert!(format!("{error:#}").contains("damaged or no limit store"), "{error:#}");
}

#[test]
fn a_charge_can_be_made_on_another_thread() {
    let (_dir, path) = place();
    let store = open(&path);
    let chain = chain(&["max_send_byte=100;"]);
    let mut charge = Charge::new(&chain, &[]);
    let other = store.clone();
    let charged = std::thread::spawn(move || other.charge(&mut charge, &usage([0, 1, 0, 0, 0])));
    charged.join().expect("thread").expect("charged");
    assert_eq!(read(&store, &chain), [Some(left([MAX, 99, MAX, MAX, MAX]))]);
}

/// A store that was used and closed.
fn sample() -> (Verified, Vec<u8>) {
    let (_dir, path) = place();
    let store = open(&path);
    let chain = chain(&["max_send_byte=1000;", "max_send_byte=1000;"]);
    let mut charge = Charge::new(&chain, &[]);
    for bytes in 1..=20 {
        store.charge(&mut charge, &usage([0, bytes, 0, 0, 0])).expect("charged");
    }
    drop(store);
    (chain, fs::read(&path).expect("file"))
}

#[test]
fn a_damaged_file_never_gives_more_than_was_left() {
    let (chain, whole) = sample();
    let (_dir, path) = place();
    fs::create_dir(path.parent().expect("folder")).expect("folder");
    let judge = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).expect("written");
        match Store::open(&path) {
            Err(error) => assert!(format!("{error:#}").contains("limit store"), "{what}: {error:#}"),
            // An earlier commit of the same session is the most that damage to the newest can bring back.
            Ok(store) => {
                let left = store.read(&keys(&chain)).map(|records| records[0].map(|left| left.send_bytes));
                assert!(matches!(left, Ok(Some(980..=981)) | Err(_)), "{what}: {left:?}");
            }
        }
    };
    judge(&whole, "whole");
    for at in (0..whole.len()).step_by(499).chain(0..128) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        judge(&bytes, &format!("byte {at}"));
    }
    for len in (1..whole.len()).step_by(4_001) {
        judge(&whole[..len], &format!("cut to {len}"));
    }
}

proptest! {
    #[test]
    fn records_survive_encoding(expiry: u64, fields: [u64; 5]) {
        let record = Record { expiry, left: left(fields) };
        prop_assert_eq!(Record::parse(&record.emit()), Some(record));
    }

    #[test]
    fn other_bytes_are_no_record(mut bytes in prop::collection::vec(any::<u8>(), 0..2 * LEN)) {
        if bytes.len() == LEN && bytes[0] == 1 {
            bytes[0] = 2;
        }
        prop_assert_eq!(Record::parse(&bytes), None);
    }
}

//! The kernel program against the user-space filter, and against real traffic in namespaces of the tests' own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod differential;
mod exemptions;
mod network;

use pktlab::program::Instruction;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::*;
use crate::filter::tests::{EXIT, MOV, alu, load_program};

/// False, with a word about it, where this process cannot withhold packets.
fn permitted() -> bool {
    match check() {
        Ok(()) => true,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) =>
        {
            eprintln!("skipped: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn filter(instructions: &[Instruction]) -> Filter {
    load_program(instructions).unwrap()
}

fn everything() -> Filter {
    filter(&[alu(MOV, 0, -1), EXIT])
}

/// An Ethernet frame to everybody's address 0.
fn frame(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// What [`check`] says to a thread with these capabilities only.
fn check_with(kept: CapabilitySet) -> io::Result<()> {
    let thread = std::thread::spawn(move || {
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })
            .unwrap();
        check()
    });
    thread.join().unwrap()
}

#[test]
fn missing_capabilities_are_named() {
    if !permitted() {
        return;
    }
    let (admin, perfmon, bpf) = (CapabilitySet::NET_ADMIN, CapabilitySet::PERFMON, CapabilitySet::BPF);
    for (kept, names) in [
        (admin | CapabilitySet::NET_RAW, "CAP_PERFMON, CAP_BPF"),
        (admin | bpf, "CAP_PERFMON"),
        (perfmon | bpf, "CAP_NET_ADMIN"),
    ] {
        let error = check_with(kept).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let text = error.to_string();
        assert!(text.ends_with(&format!("missing: {names}")), "{text}");
    }
    check_with(admin | perfmon | bpf).unwrap();
}

#[test]
fn a_refusal_shows_what_the_verifier_said() {
    if !permitted() {
        return;
    }
    let mut asm = asm::Asm::default();
    asm.load(asm::Size::U64, asm::R0, asm::R3, 0);
    asm.exit();
    let types = sys::load_btf(&btf::build()).unwrap();
    let error = sys::load_program(&asm.finish(), &types, &[[0, btf::MAIN]]).unwrap_err().to_string();
    assert!(error.contains("R3 !read_ok"), "{error}");
}

#[test]
fn per_cpu_values_are_not_set_from_one() {
    if !permitted() {
        return;
    }
    let map = Map::create(MapKind::PerCpuArray, 4, 8, 1, None).unwrap();
    let refused = std::panic::catch_unwind(|| map.update(&KEY, &[0; 8]));
    assert!(refused.is_err());
}

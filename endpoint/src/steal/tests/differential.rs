//! Random filters in the kernel and here: the same end, the same r0, the same verdict.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::filter::tests::{
    ADD, B, DW, H, JNE, MUL, SUB, W, alu_r, differential, hostile, jump, load, packet_at, packet_by,
    store_imm, wide,
};
use crate::filter::{Fault, Packet, Verdict};
use crate::steal::program::{DROP, NEXT};
use crate::steal::sys::testing;

/// How the run ended, from the state of the CPU it was on.
fn outcome(loaded: &Loaded) -> Result<u64, i32> {
    let word = |state: &[u8], at: i16| {
        let at = at as usize;
        u64::from_ne_bytes(state[at..at + 8].try_into().unwrap())
    };
    let states = testing::per_cpu(&loaded.states).unwrap();
    // r10 is set by every run.
    let state = states.iter().find(|s| word(s, state::REGISTERS + 80) != 0).expect("one CPU ran it");
    match word(state, state::ENDED) as i32 {
        state::EXIT => Ok(word(state, state::REGISTERS)),
        other => Err(other),
    }
}

/// Runs `instructions` on both sides; `None` when they are no filter.
fn compare(loaded: &Loaded, instructions: &[Instruction], data: &[u8]) -> Option<Result<u64, i32>> {
    let filter = load_program(instructions).ok()?;
    // The test device of the kernel is the loopback interface, number 1.
    let packet = Packet { data, len: data.len() as u32, ethertype: 0x0800, ifindex: 1, pkt_type: 0 };
    let ours = crate::filter::tests::execute_loaded(&filter, &packet).map_err(|fault| match fault {
        Fault::Fuel => state::RUNNING,
        Fault::Access | Fault::Context => state::FAULT,
    });
    loaded.set(&filter, u64::MAX).unwrap();
    testing::clear_per_cpu(&loaded.states).unwrap();
    let (verdict, _) = testing::run(&loaded.program, &frame(0x0800, data), 1).unwrap();
    assert_eq!(outcome(loaded), ours, "{instructions:?}");
    let accepted = matches!(filter.run(&packet), Verdict::Deliver(_));
    assert_eq!(verdict, if accepted { DROP } else { NEXT }, "{instructions:?}");
    Some(ours)
}

/// At least `wanted` filters that load, of which at least one in ten ends as `expected`.
fn compare_many(
    programs: impl Strategy<Value = Vec<Instruction>>,
    wanted: usize,
    expected: fn(&Result<u64, i32>) -> bool,
) {
    if !permitted() {
        return;
    }
    let loaded = Loaded::new().unwrap();
    let mut runner = TestRunner::new(Config::default());
    let packets = prop::collection::vec(any::<u8>(), 64..200);
    let inputs = (programs, packets);
    let (mut seen, mut as_expected) = (0, 0);
    while seen < wanted {
        let (instructions, mut data) = inputs.new_tree(&mut runner).unwrap().current();
        // Enough of IPv4 for the kernel's test runner.
        data[0] = 0x45;
        // Two reads of a clock differ.
        if instructions.iter().any(|i| i.opcode == 0x85) {
            continue;
        }
        if let Some(outcome) = compare(&loaded, &instructions, &data) {
            seen += 1;
            as_expected += usize::from(expected(&outcome));
        }
    }
    assert!(as_expected * 10 >= seen, "{as_expected} of {seen}");
}

#[test]
fn programs_that_end() {
    compare_many(differential::orderly(), 300, |outcome| matches!(outcome, Ok(r0) if *r0 != 0));
}

#[test]
fn programs_that_do_what_they_like() {
    compare_many(hostile::wild(), 300, |outcome| outcome.is_err());
}

#[test]
fn the_fuel_is_the_same_to_the_operation() {
    if !permitted() {
        return;
    }
    let loaded = Loaded::new().unwrap();
    let mut exact =
        vec![alu(MOV, 0, 2046), alu(SUB, 0, 1), jump(JNE, 0, 0, -2), alu(MOV, 0, 6), alu(MOV, 0, 7), EXIT];
    assert_eq!(compare(&loaded, &exact, &[0x45; 40]), Some(Ok(7)));
    exact.insert(0, alu(MOV, 0, 0));
    assert_eq!(compare(&loaded, &exact, &[0x45; 40]), Some(Err(state::RUNNING)));
}

#[test]
fn the_context_is_the_same() {
    if !permitted() {
        return;
    }
    let loaded = Loaded::new().unwrap();
    let mut sum = vec![alu_r(MOV, 6, 1), alu(MOV, 0, 0)];
    for offset in (0..192).step_by(4) {
        sum.extend([load(W, 2, 6, offset), alu(MUL, 0, 31), alu_r(ADD, 0, 2)]);
    }
    sum.push(EXIT);
    for len in [40, 41, 1500] {
        assert!(matches!(compare(&loaded, &sum, &vec![0x45; len]), Some(Ok(_))));
    }
    for (size, offset) in [(B, 16), (B, 17), (H, 16), (W, 188), (W, 190), (H, 1), (DW, 0), (W, 192), (B, -1)]
    {
        assert!(compare(&loaded, &[load(size, 0, 1, offset), EXIT], &[0x45; 40]).is_some());
    }
}

#[test]
fn a_packet_leaves_nothing_on_the_stack_for_the_next() {
    if !permitted() {
        return;
    }
    let loaded = Loaded::new().unwrap();
    let leaves = filter(&[load(DW, 0, 10, -8), store_imm(DW, 10, -8, -1), EXIT]);
    loaded.set(&leaves, u64::MAX).unwrap();
    // The verdict is the last run's.
    let (verdict, _) = testing::run(&loaded.program, &frame(0x0800, &[0x45; 40]), 16).unwrap();
    assert_eq!(verdict, NEXT);
}

#[test]
fn packet_loads_reach_as_far() {
    if !permitted() {
        return;
    }
    let loaded = Loaded::new().unwrap();
    let data: Vec<u8> = (0x45..0x45 + 60).collect();
    for at in
        [0, 1, 56, 57, 58, 59, 60, -1, i32::MAX, i32::MIN, -0x10_0000, -0x10_0000 + 59, -0x10_0001, -0x1000]
    {
        for size in [B, H, W] {
            let p = [alu_r(MOV, 6, 1), packet_at(size, at), EXIT];
            assert!(compare(&loaded, &p, &data).is_some());
            let mut p = vec![alu_r(MOV, 6, 1)];
            p.extend(wide(7, 0xFFFF_FFFF_0000_0003));
            p.extend([packet_by(size, 7, at), EXIT]);
            assert!(compare(&loaded, &p, &data).is_some());
        }
    }
}

#[test]
fn operations_have_the_numbers_of_their_order() {
    for (number, code) in Code::ALL.iter().enumerate() {
        assert_eq!(*code as usize, number);
    }
}

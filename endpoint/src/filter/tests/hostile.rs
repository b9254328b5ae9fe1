//! Programs that must be refused or stopped.

use proptest::prelude::*;

use super::*;
use crate::filter::{INSTRUCTIONS_MAX, Verdict};

#[test]
fn what_is_no_program() {
    let wasm = Program { kind: ProgramKind::Wasm, body: vec![0x95, 0, 0, 0, 0, 0, 0, 0].into() };
    assert_eq!(Filter::load(&wasm).unwrap_err(), Refused::Kind);
    assert_eq!(load_program(&[]).unwrap_err(), Refused::Empty);
    let mut long = vec![alu(MOV, 0, 1); INSTRUCTIONS_MAX];
    long[INSTRUCTIONS_MAX - 1] = EXIT;
    // The longest program loads, and has no time to finish.
    assert_eq!(execute(&long, &[]), Err(Fault::Fuel));
    long.push(EXIT);
    assert_eq!(load_program(&long).unwrap_err(), Refused::Long(INSTRUCTIONS_MAX + 1));
    let text = refusal_text(&[alu(MOV, 0, 1), ins(0xFF, 0, 0, 0, 0), EXIT]);
    assert_eq!(text, "instruction 1: unknown opcode 0xff");
}

fn refusal_text(instructions: &[Instruction]) -> String {
    load_program(instructions).unwrap_err().to_string()
}

/// Every opcode that is neither of the first edition nor one of the four signed or swapping additions is unknown.
#[test]
fn exactly_the_known_opcodes_load() {
    let mut known = vec![];
    for opcode in 0..=255 {
        // Valid operands for every class.
        let second = ins(0, 0, 0, 0, 0);
        let imm = match opcode {
            0x85 => 5,
            0xD4 | 0xDC | 0xD7 => 16,
            0x18 => 1,
            _ if matches!(opcode & 7, 4..=7)
                && opcode & 8 == 0
                && !matches!(opcode, 5 | 6 | 0x84 | 0x87 | 0x95) =>
            {
                1
            }
            _ if matches!(opcode, 0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50) => 1,
            _ => 0,
        };
        let one = ins(opcode, 0, 0, 0, imm);
        let mut p = vec![alu(MOV, 0, 0), alu_r(MOV, 6, 1), one];
        if opcode == 0x18 {
            p.push(second);
        }
        if opcode != 0x95 {
            p.push(EXIT);
        }
        match load_program(&p) {
            Ok(_) => known.push(opcode),
            Err(Refused::Instruction { at: 2, reason: Reason::Opcode(refused) }) => {
                assert_eq!(refused, opcode)
            }
            Err(other) => panic!("{opcode:#x}: {other}"),
        }
    }
    let mut expected = vec![0x18, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50];
    expected.extend([0x61, 0x69, 0x71, 0x79, 0x81, 0x89, 0x91]);
    expected.extend([0x62, 0x6A, 0x72, 0x7A, 0x63, 0x6B, 0x73, 0x7B]);
    for op in [ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, MOD, XOR, MOV, ARSH] {
        expected.extend([op | 4, op | 7, op | 0xC, op | 0xF]);
    }
    expected.extend([NEG | 4, NEG | 7, 0xD4, 0xDC, 0xD7]);
    for op in [JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE, JLT, JLE, JSLT, JSLE] {
        expected.extend([op | 5, op | 6, op | 0xD, op | 0xE]);
    }
    expected.extend([5, 6, 0x85, 0x95]);
    expected.sort_unstable();
    assert_eq!(known, expected);
}

#[test]
fn single_instructions() {
    use Reason::*;
    let set = [alu(MOV, 0, 0), alu_r(MOV, 6, 1)];
    for (one, reason) in [
        (alu(MOV, 11, 0), Register(11)),
        (alu_r(MOV, 0, 15), Register(15)),
        (alu(ADD, 10, 1), FramePointer),
        (load(W, 10, 1, 0), FramePointer),
        (ins(0x18, 10, 0, 0, 0), FramePointer),
        (ins(0xDC, 10, 0, 0, 16), FramePointer),
        (alu(DIV, 0, 0), Division),
        (ins(MOD | 4, 0, 0, 0, 0), Division),
        (ins(DIV | 7, 0, 0, 1, 0), Division),
        (alu(LSH, 0, 64), Shift(64)),
        (alu(ARSH, 0, -1), Shift(-1)),
        (ins(RSH | 4, 0, 0, 0, 32), Shift(32)),
        (ins(0xD4, 0, 0, 0, 8), Width(8)),
        (ins(0xDC, 0, 0, 0, 0), Width(0)),
        (ins(0xDF, 0, 0, 0, 16), Opcode(0xDF)),
        (ins(0x38, 0, 0, 0, 0), Opcode(0x38)),
        // Atomics, XADD among them.
        (ins(0xDB, 10, 0, -8, 0), Opcode(0xDB)),
        (ins(0xC3, 10, 0, -8, 0), Opcode(0xC3)),
        (ins(0x85, 0, 0, 0, 6), Helper(6)),
        (ins(0x85, 0, 0, 0, -1), Helper(-1)),
        // Calls inside the program and of kernel functions, maps.
        (ins(0x85, 0, 1, 0, 0), Reserved),
        (ins(0x85, 0, 2, 0, 5), Reserved),
        (ins(0x18, 0, 1, 0, 0), Reserved),
        (ins(ADD | 7, 0, 1, 0, 1), Reserved),
        (ins(ADD | 0xF, 0, 0, 0, 1), Reserved),
        (ins(ADD | 7, 0, 0, 1, 1), Reserved),
        (ins(DIV | 7, 0, 0, 2, 1), Reserved),
        (ins(MOV | 0xF, 0, 0, 9, 0), Reserved),
        (ins(MOV | 0xC, 0, 0, 32, 0), Reserved),
        (ins(MOV | 7, 0, 0, 8, 0), Reserved),
        (ins(0x87, 0, 0, 0, 1), Reserved),
        (ins(0x61, 0, 1, 0, 1), Reserved),
        (ins(0x62, 10, 1, -4, 1), Reserved),
        (ins(0x63, 10, 0, -4, 1), Reserved),
        (ins(0x20, 1, 0, 0, 1), Reserved),
        (ins(0x20, 0, 1, 0, 1), Reserved),
        (ins(0x40, 0, 1, 1, 1), Reserved),
        (ins(0x05, 0, 0, 0, 1), Reserved),
        (ins(0x06, 0, 0, 1, 0), Reserved),
        (ins(0x95, 0, 0, 0, 1), Reserved),
        (jump(JEQ, 0, 0, 1), Target),
        (jump(JEQ, 0, 0, -4), Target),
        (jump(JEQ, 0, 0, i16::MAX), Target),
        (ins(0x06, 0, 0, 0, i32::MAX), Target),
        (ins(0x06, 0, 0, 0, i32::MIN), Target),
        (ja(-1), Unreachable),
        (alu_r(MOV, 0, 9), Unset(9)),
        (alu(ADD, 9, 1), Unset(9)),
        (store(W, 10, -4, 9), Unset(9)),
        (store(W, 9, -4, 0), Unset(9)),
        (load(W, 0, 9, -4), Unset(9)),
        (packet_by(W, 9, -4), Unset(9)),
        (jump_r(JGT, 0, 9, 0), Unset(9)),
        (ins(0xDC, 9, 0, 0, 16), Unset(9)),
        (ins(0x87, 9, 0, 0, 0), Unset(9)),
    ] {
        let mut p = set.to_vec();
        p.push(one);
        if one.opcode == 0x18 {
            p.push(ins(0, 0, 0, 0, 0));
        }
        p.push(EXIT);
        let at = if reason == Unreachable { 3 } else { 2 };
        assert_eq!(refusal(&p), (at, reason), "{one:?}");
    }
}

#[test]
fn wide_immediates() {
    let half = ins(0x18, 0, 0, 0, 0);
    assert_eq!(refusal(&[half]), (0, Reason::Wide));
    assert_eq!(refusal(&[half, EXIT]), (0, Reason::Wide));
    assert_eq!(refusal(&[half, ins(0, 1, 0, 0, 0), EXIT]), (0, Reason::Wide));
    // A jump into one, forwards and backwards.
    let tail = ins(0, 0, 0, 0, 0);
    assert_eq!(refusal(&[jump(JEQ, 1, 0, 1), half, tail, EXIT]), (0, Reason::Target));
    assert_eq!(refusal(&[half, tail, jump(JEQ, 1, 0, -2), EXIT]), (2, Reason::Target));
    assert_eq!(execute(&[alu(MOV, 0, 0), jump(JEQ, 0, 0, 2), half, tail, EXIT], &[]), Ok(0));
    // A lone second half.
    assert_eq!(refusal(&[tail, EXIT]), (0, Reason::Opcode(0)));
}

#[test]
fn control_flow() {
    assert_eq!(refusal(&[alu(MOV, 0, 1)]), (0, Reason::FallsOff));
    assert_eq!(refusal(&[alu(MOV, 0, 1), jump(JEQ, 0, 1, -2)]), (1, Reason::FallsOff));
    assert_eq!(refusal(&[EXIT]), (0, Reason::Unset(0)));
    assert_eq!(refusal(&[ja(-1)]), (0, Reason::Endless));
    assert_eq!(refusal(&[alu(MOV, 0, 1), ja(-2)]), (0, Reason::Endless));
    // One branch ends, the other never does.
    let p = [alu(MOV, 0, 1), jump(JEQ, 0, 1, 1), ja(-1), EXIT];
    assert_eq!(refusal(&p), (2, Reason::Endless));
    let p = [alu(MOV, 0, 1), ja(1), EXIT, ja(-2)];
    assert_eq!(load_program(&p).map(|_| ()), Ok(()));
    let p = [alu(MOV, 0, 1), EXIT, EXIT];
    assert_eq!(refusal(&p), (2, Reason::Unreachable));
    // Packet loads need what can be the context.
    assert_eq!(refusal(&[packet_at(B, 0), EXIT]), (0, Reason::Unset(6)));
}

#[test]
fn loops_end_with_the_fuel() {
    // A condition that loading cannot judge; the fuel is exact.
    let endless = [alu(MOV, 0, 1), jump(JNE, 0, 0, -1), EXIT];
    assert_eq!(execute(&endless, &[]), Err(Fault::Fuel));
    // 2046 turns of two operations, and four around them.
    let mut exact =
        vec![alu(MOV, 0, 2046), alu(SUB, 0, 1), jump(JNE, 0, 0, -2), alu(MOV, 0, 6), alu(MOV, 0, 7), EXIT];
    assert_eq!(execute(&exact, &[]), Ok(7));
    exact.insert(0, alu(MOV, 0, 0));
    assert_eq!(execute(&exact, &[]), Err(Fault::Fuel));
    let filter = load_program(&endless).unwrap();
    assert_eq!(filter.run(&packet(&[])), Verdict::Fault(Fault::Fuel));
}

/// Instructions that mostly pass the first checks, so that flow checks and runs are met.
fn likely() -> impl Strategy<Value = Instruction> {
    let opcode = prop::sample::select(vec![
        0x18, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x61, 0x69, 0x71, 0x79, 0x81, 0x62, 0x6A, 0x7A, 0x63, 0x7B,
        0x07, 0x0F, 0x0C, 0x17, 0x1F, 0x2F, 0x3F, 0x3C, 0x37, 0x57, 0x67, 0x6F, 0x7F, 0xC7, 0xCF, 0xCC, 0x87,
        0x9F, 0x9C, 0xB7, 0xBF, 0xB4, 0xBC, 0xDC, 0xD7, 0x05, 0x15, 0x1D, 0x25, 0x2D, 0x45, 0x55, 0x66, 0x6D,
        0x6E, 0xD5, 0xDE, 0x85, 0x95,
    ]);
    (opcode, 0u8..11, 0u8..11, -6i16..9, prop_oneof![Just(0), Just(5), Just(16), -20i32..40, any::<i32>()])
        .prop_map(|(opcode, dst, src, offset, imm)| {
            let register = opcode & 8 != 0;
            match opcode & 7 {
                0 if opcode == 0x18 => ins(opcode, dst, 0, 0, imm),
                0 => ins(opcode, 0, if opcode & 0x40 != 0 { src } else { 0 }, 0, imm),
                1 | 3 => ins(opcode, dst, src, offset * 8, 0),
                2 => ins(opcode, dst, 0, offset * 8, imm),
                _ if opcode == 0x85 => ins(opcode, 0, 0, 0, 5),
                _ if opcode == 0x95 => EXIT,
                _ if opcode == 0x05 => ja(offset),
                5 | 6 if register => ins(opcode, dst, src, offset, 0),
                5 | 6 => ins(opcode, dst, 0, offset, imm),
                _ if opcode == 0xDC => ins(opcode, dst, 0, 0, imm),
                _ if opcode == 0x87 => ins(opcode, dst, 0, 0, 0),
                _ if register => ins(opcode, dst, src, 0, 0),
                _ => ins(opcode, dst, 0, 0, imm),
            }
        })
}

/// Short programs that read and write wherever they like, with all registers set.
pub(crate) fn wild() -> impl Strategy<Value = Vec<Instruction>> {
    (prop::collection::vec(0u8..10, 0..10), prop::collection::vec(likely(), 0..24)).prop_map(
        |(head, body)| {
            let mut p: Vec<_> = head.iter().map(|r| alu(MOV, *r, 1)).collect();
            p.insert(0, alu_r(MOV, 6, 1));
            p.extend(body);
            p.push(EXIT);
            p
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn no_program_makes_loading_or_running_panic(
        p in wild(),
        data: Vec<u8>,
        len: u32,
    ) {
        if let Ok(filter) = load_program(&p) {
            let packet = Packet { len, ..packet(&data) };
            if let Verdict::Deliver(n) = filter.run(&packet) {
                prop_assert!(n <= len);
            }
        }
    }

    #[test]
    fn no_bytes_make_loading_panic(raw: Vec<[u8; 8]>) {
        let program = Program { kind: ProgramKind::Ebpf, body: raw.concat().into() };
        if let Ok(filter) = Filter::load(&program) {
            filter.run(&packet(&[]));
        }
    }
}

//! Random programs that this interpreter and rbpf's must agree on.
//!
//! rbpf differs from the kernel on purpose or not: packet loads have host byte order, want 8 bytes and keep r1–r5;
//! 64-bit compares zero-extend constants; a narrow modulo by zero keeps the upper half; negation may overflow; addresses
//! are real. Each step is therefore written once for either side, or keeps away from the difference.

use proptest::prelude::*;

use super::*;

/// One step in both dialects; they may differ in length.
#[derive(Clone, Debug)]
struct Step {
    ours: Vec<Instruction>,
    theirs: Vec<Instruction>,
    /// Steps that a jump at the end leaves out, when it is taken.
    skip: usize,
}

const PACKET: usize = 64;
/// Registers in play. r6 is the context here and nothing there, r10 differs.
const WORKING: [u8; 9] = [0, 1, 2, 3, 4, 5, 7, 8, 9];

fn same(instructions: Vec<Instruction>) -> Step {
    Step { theirs: instructions.clone(), ours: instructions, skip: 0 }
}

fn register() -> impl Strategy<Value = u8> {
    prop::sample::select(&WORKING[..])
}

fn arithmetic() -> impl Strategy<Value = Step> {
    let op = prop::sample::select(vec![ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, MOD, XOR, MOV, ARSH]);
    (op, any::<bool>(), any::<bool>(), register(), register(), any::<i32>()).prop_map(
        |(op, narrow, by_register, dst, src, imm)| {
            let imm = match op {
                DIV | MOD => imm | 1,
                LSH | RSH | ARSH => imm & if narrow { 31 } else { 63 },
                _ => imm,
            };
            let class = if narrow { 4 } else { 7 };
            let one = if by_register {
                ins(op | class | 8, dst, src, 0, 0)
            } else {
                ins(op | class, dst, 0, 0, imm)
            };
            let mut steps = vec![one];
            if op == MOD && narrow {
                steps.insert(0, ins(MOV | 0xC, dst, dst, 0, 0));
            }
            same(steps)
        },
    )
}

fn unary() -> impl Strategy<Value = Step> {
    let order = prop::sample::select(vec![0xD4, 0xDC]);
    let bits = prop::sample::select(vec![16, 32, 64]);
    prop_oneof![
        (order, bits, register()).prop_map(|(op, bits, dst)| same(vec![ins(op, dst, 0, 0, bits)])),
        // Odd numbers have a negative.
        (register(), any::<bool>()).prop_map(|(dst, narrow)| {
            let class = if narrow { 4 } else { 7 };
            same(vec![alu(OR, dst, 1), ins(NEG | class, dst, 0, 0, 0)])
        }),
    ]
}

fn jumps() -> impl Strategy<Value = Step> {
    let op = prop::sample::select(vec![JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE, JLT, JLE, JSLT, JSLE]);
    (op, any::<bool>(), any::<bool>(), register(), register(), any::<i32>(), 1usize..4).prop_map(
        |(op, narrow, by_register, dst, src, imm, skip)| {
            let class = if narrow { 6 } else { 5 };
            let imm = if narrow { imm } else { imm & i32::MAX };
            let one = if by_register {
                ins(op | class | 8, dst, src, 0, 0)
            } else {
                ins(op | class, dst, 0, 0, imm)
            };
            Step { skip, ..same(vec![one]) }
        },
    )
}

fn memory() -> impl Strategy<Value = Step> {
    let size = prop::sample::select(vec![(B, 1), (H, 2), (W, 4), (DW, 8)]);
    // Few addresses, so that loads find what stores left.
    (size, 8i16..40, any::<u8>(), register(), any::<i32>()).prop_map(
        |((size, bytes), below, kind, reg, imm)| {
            let offset = -below.max(bytes);
            same(vec![match kind % 3 {
                0 => load(size, reg, 10, offset),
                1 => store(size, 10, offset, reg),
                _ => store_imm(size, 10, offset, imm),
            }])
        },
    )
}

fn packets() -> impl Strategy<Value = Step> {
    let size = prop::sample::select(vec![(B, 0), (H, 16), (W, 32)]);
    (size, 0i32..PACKET as i32 - 31, any::<bool>(), register()).prop_map(
        |((size, bits), at, indirect, src)| {
            let mut ours = vec![];
            if indirect {
                ours.extend([alu(AND, src, 23), packet_by(size, src, at)]);
            } else {
                ours.push(packet_at(size, at));
            }
            let mut theirs = ours.clone();
            if bits > 0 {
                theirs.push(ins(0xDC, 0, 0, 0, bits));
            }
            // A compiler knows that these are gone; here they are read again.
            theirs.extend((1..6).map(|r| alu(MOV, r, 0)));
            ours.extend((1..6).map(|r| alu(MOV, r, 0)));
            Step { ours, theirs, skip: 0 }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![5 => arithmetic(), 1 => unary(), 2 => jumps(), 2 => memory(), 1 => packets()]
}

/// Start values, the steps with their jumps, and at the end all registers and some of the stack in r0.
fn assemble(start: &[u64], steps: &[&[Instruction]], skips: &[usize]) -> Vec<Instruction> {
    let mut p = vec![alu_r(MOV, 6, 1)];
    for (register, value) in WORKING.iter().zip(start) {
        p.extend(wide(*register, *value));
    }
    for (n, step) in steps.iter().enumerate() {
        p.extend(*step);
        if skips[n] > 0 {
            let over: usize = steps[n + 1..].iter().take(skips[n]).map(|step| step.len()).sum();
            p.last_mut().unwrap().offset = over as i16;
        }
    }
    for register in &WORKING[1..] {
        p.extend([alu(MUL, 0, 31), alu_r(XOR, 0, *register)]);
    }
    p.extend([load(DW, 1, 10, -40), alu_r(XOR, 0, 1), EXIT]);
    p
}

/// Programs that end with all of their state in r0.
pub(crate) fn orderly() -> impl Strategy<Value = Vec<Instruction>> {
    (any::<[u64; WORKING.len()]>(), prop::collection::vec(step(), 1..40)).prop_map(|(start, steps)| {
        let skips: Vec<usize> = steps.iter().map(|s| s.skip).collect();
        let ours: Vec<&[Instruction]> = steps.iter().map(|s| &s.ours[..]).collect();
        assemble(&start, &ours, &skips)
    })
}

/// The byte layout of everybody else.
fn standard(instructions: &[Instruction]) -> Vec<u8> {
    let encode = |i: &Instruction| {
        let [o0, o1] = i.offset.to_le_bytes();
        let [i0, i1, i2, i3] = i.imm.to_le_bytes();
        [i.opcode, i.src << 4 | i.dst, o0, o1, i0, i1, i2, i3]
    };
    instructions.iter().flat_map(encode).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn rbpf_agrees(
        start: [u64; WORKING.len()],
        steps in prop::collection::vec(step(), 1..40),
        mut data in prop::collection::vec(any::<u8>(), PACKET),
    ) {
        let skips: Vec<usize> = steps.iter().map(|s| s.skip).collect();
        let ours: Vec<&[Instruction]> = steps.iter().map(|s| &s.ours[..]).collect();
        let theirs: Vec<&[Instruction]> = steps.iter().map(|s| &s.theirs[..]).collect();
        let result = execute(&assemble(&start, &ours, &skips), &data);
        let bytes = standard(&assemble(&start, &theirs, &skips));
        let machine = rbpf::EbpfVmRaw::new(Some(&bytes)).unwrap();
        prop_assert_eq!(result, Ok(machine.execute_program(&mut data).unwrap()));
    }
}

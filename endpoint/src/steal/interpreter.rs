//! The kernel program, part two: one operation of a filter. It must do what [`crate::filter`] does in user space, fuel and
//! faults included; a test compares the two on random filters.
//!
//! | register | holds |
//! |---|---|
//! | r6 | what the loop hands over ([`looped`]) |
//! | r7, r8 | the machine's state, the operation |
//! | r9 | the operation's flags |
//! | r5 | address of the destination register |
//! | r3, r4 | the operands *a* and *b*; r3 becomes the result |

use super::asm::{Alu, Asm, If, Label, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Reg, Size};
use super::program::{KTIME, LOAD_BYTES, filter, looped, state};
use crate::filter::op::{CONTEXT, CONTEXT_LEN, Code, IMM, NARROW, NET_OFFSET, SIGN32, STACK, STACK_LEN};

/// Fields of an operation, behind the header of its map's value.
mod op {
    use super::filter::OPS;

    pub const CODE: i16 = OPS as i16;
    pub const DST: i16 = CODE + 1;
    pub const SRC: i16 = CODE + 2;
    pub const FLAGS: i16 = CODE + 3;
    pub const OFF: i16 = CODE + 4;
    pub const IMM: i16 = CODE + 8;
}

/// Places that several operations go to.
struct Ends {
    /// Stores r3 in the destination register, cut to 32 bits in the narrow form.
    result: Label,
    /// The same without looking at the width.
    whole: Label,
    /// Takes the jump.
    taken: Label,
    /// On with the next operation.
    go_on: Label,
    /// r0 of the filter = r3, and the caller-saved registers are empty.
    called: Label,
    /// The filter returns 0.
    zero: Label,
    exit: Label,
    fault: Label,
}

/// The function that the loop calls; it returns 0 to be called again.
pub(super) fn step(asm: &mut Asm) {
    let mut label = || asm.label();
    let ends = Ends {
        result: label(),
        whole: label(),
        taken: label(),
        go_on: label(),
        called: label(),
        zero: label(),
        exit: label(),
        fault: label(),
    };
    fetch(asm);
    let arms: Vec<(Code, Label)> = Code::ALL.iter().map(|code| (*code, asm.label())).collect();
    let targets: Vec<Label> = arms.iter().map(|(_, label)| *label).collect();
    asm.load(Size::U8, R1, R8, op::CODE);
    asm.switch(R1, &targets);
    for (code, label) in arms {
        asm.bind(label);
        operation(asm, code, &ends);
    }
    finish(asm, &ends);
}

/// Finds the operation and its operands, and moves on.
fn fetch(asm: &mut Asm) {
    asm.mov(R6, R2);
    asm.load(Size::U64, R7, R6, looped::STATE);
    asm.load(Size::U64, R8, R6, looped::FILTER);
    asm.load(Size::U64, R1, R7, state::AT);
    asm.alu(Alu::And, R1, filter::OPS_MAX as i32 - 1);
    asm.mov(R2, R1);
    asm.alu(Alu::Add, R2, 1);
    asm.store(Size::U64, R7, state::AT, R2);
    asm.alu(Alu::Mul, R1, filter::OP_LEN as i32);
    asm.alu(Alu::Add, R8, R1);

    asm.load(Size::U8, R9, R8, op::FLAGS);
    register(asm, R5, op::DST);
    asm.load(Size::U64, R3, R5, 0);
    let (immediate, operands, wide, signed) = (asm.label(), asm.label(), asm.label(), asm.label());
    asm.jump(If::Set, R9, i32::from(IMM), immediate);
    register(asm, R1, op::SRC);
    asm.load(Size::U64, R4, R1, 0);
    asm.goto(operands);
    asm.bind(immediate);
    asm.load(Size::U64, R4, R8, op::IMM);
    asm.bind(operands);

    asm.mov(R1, R9);
    asm.alu(Alu::And, R1, i32::from(NARROW));
    asm.jump(If::Eq, R1, 0, wide);
    asm.jump(If::Set, R9, i32::from(SIGN32), signed);
    asm.cut32(R3);
    asm.cut32(R4);
    asm.goto(wide);
    asm.bind(signed);
    asm.sign(R3, 32);
    asm.sign(R4, 32);
    asm.bind(wide);
}

/// `dst` = address of the register whose number is in `field`.
fn register(asm: &mut Asm, dst: Reg, field: i16) {
    asm.load(Size::U8, dst, R8, field);
    asm.alu(Alu::And, dst, 15);
    asm.alu(Alu::Lsh, dst, 3);
    asm.alu(Alu::Add, dst, R7);
}

fn operation(asm: &mut Asm, code: Code, ends: &Ends) {
    let plain = |asm: &mut Asm, op: Alu| {
        asm.alu(op, R3, R4);
        asm.goto(ends.result);
    };
    let jump = |asm: &mut Asm, condition: If| {
        asm.jump(condition, R3, R4, ends.taken);
        asm.goto(ends.go_on);
    };
    match code {
        Code::Mov => plain(asm, Alu::Mov),
        Code::Add => plain(asm, Alu::Add),
        Code::Sub => plain(asm, Alu::Sub),
        Code::Mul => plain(asm, Alu::Mul),
        // The kernel's own rules for 0 are those of the filter's machine.
        Code::Div => plain(asm, Alu::Div),
        Code::Mod => plain(asm, Alu::Mod),
        Code::And => plain(asm, Alu::And),
        Code::Or => plain(asm, Alu::Or),
        Code::Xor => plain(asm, Alu::Xor),
        Code::SignedDiv => signed_division(asm, Alu::Div, ends),
        Code::SignedMod => signed_division(asm, Alu::Mod, ends),
        Code::Lsh => shift(asm, Alu::Lsh, ends),
        Code::Rsh => shift(asm, Alu::Rsh, ends),
        Code::Arsh => shift(asm, Alu::Arsh, ends),
        Code::Neg => unary(asm, ends, |asm| asm.neg(R3)),
        Code::Sign8 => unary(asm, ends, |asm| asm.sign(R3, 8)),
        Code::Sign16 => unary(asm, ends, |asm| asm.sign(R3, 16)),
        Code::Sign32 => unary(asm, ends, |asm| asm.sign(R3, 32)),
        Code::Cut16 => unary(asm, ends, |asm| asm.alu(Alu::And, R3, 0xFFFF)),
        Code::Cut32 => unary(asm, ends, |asm| asm.cut32(R3)),
        Code::Swap16 => unary(asm, ends, |asm| asm.swap(R3, 16)),
        Code::Swap32 => unary(asm, ends, |asm| asm.swap(R3, 32)),
        Code::Swap64 => unary(asm, ends, |asm| asm.swap(R3, 64)),
        Code::Jump => asm.goto(ends.taken),
        Code::JumpEq => jump(asm, If::Eq),
        Code::JumpNe => jump(asm, If::Ne),
        Code::JumpGt => jump(asm, If::Gt),
        Code::JumpGe => jump(asm, If::Ge),
        Code::JumpLt => jump(asm, If::Lt),
        Code::JumpLe => jump(asm, If::Le),
        Code::JumpSet => jump(asm, If::Set),
        Code::JumpSignedGt => jump(asm, If::SignedGt),
        Code::JumpSignedGe => jump(asm, If::SignedGe),
        Code::JumpSignedLt => jump(asm, If::SignedLt),
        Code::JumpSignedLe => jump(asm, If::SignedLe),
        Code::Load8 => load(asm, Size::U8, None, ends),
        Code::Load16 => load(asm, Size::U16, None, ends),
        Code::Load32 => load(asm, Size::U32, None, ends),
        Code::Load64 => load(asm, Size::U64, None, ends),
        Code::LoadSign8 => load(asm, Size::U8, Some(8), ends),
        Code::LoadSign16 => load(asm, Size::U16, Some(16), ends),
        Code::LoadSign32 => load(asm, Size::U32, Some(32), ends),
        Code::Store8 => store(asm, Size::U8, ends),
        Code::Store16 => store(asm, Size::U16, ends),
        Code::Store32 => store(asm, Size::U32, ends),
        Code::Store64 => store(asm, Size::U64, ends),
        Code::Packet8 => packet(asm, Size::U8, ends),
        Code::Packet16 => packet(asm, Size::U16, ends),
        Code::Packet32 => packet(asm, Size::U32, ends),
        Code::Monotonic => {
            asm.call(KTIME);
            asm.mov(R3, R0);
            asm.goto(ends.called);
        }
        Code::Exit => asm.goto(ends.exit),
    }
}

/// Operations on *b* alone.
fn unary(asm: &mut Asm, ends: &Ends, work: impl FnOnce(&mut Asm)) {
    asm.mov(R3, R4);
    work(asm);
    asm.goto(ends.result);
}

fn shift(asm: &mut Asm, op: Alu, ends: &Ends) {
    let (wide, masked) = (asm.label(), asm.label());
    asm.mov(R1, R9);
    asm.alu(Alu::And, R1, i32::from(NARROW));
    asm.jump(If::Eq, R1, 0, wide);
    asm.alu(Alu::And, R4, 31);
    asm.goto(masked);
    asm.bind(wide);
    asm.alu(Alu::And, R4, 63);
    asm.bind(masked);
    asm.alu(op, R3, R4);
    asm.goto(ends.result);
}

/// On absolute values: older kernels let the smallest number divided by -1 trap in the processor.
fn signed_division(asm: &mut Asm, op: Alu, ends: &Ends) {
    let (a_positive, b_positive, keep) = (asm.label(), asm.label(), asm.label());
    // R1 is 1 when the result is negative: for a remainder the sign of a, for a quotient both signs.
    asm.mov(R1, 0);
    asm.jump(If::SignedGe, R3, 0, a_positive);
    asm.neg(R3);
    asm.mov(R1, 1);
    asm.bind(a_positive);
    asm.jump(If::SignedGe, R4, 0, b_positive);
    asm.neg(R4);
    if matches!(op, Alu::Div) {
        asm.alu(Alu::Xor, R1, 1);
    }
    asm.bind(b_positive);
    asm.alu(op, R3, R4);
    asm.jump(If::Eq, R1, 0, keep);
    asm.neg(R3);
    asm.bind(keep);
    asm.goto(ends.result);
}

fn bytes(size: Size) -> i32 {
    match size {
        Size::U8 => 1,
        Size::U16 => 2,
        Size::U32 => 4,
        Size::U64 => 8,
    }
}

/// R1 = `base` + off, then R1 = offset in the stack, or goes to `outside`, where R0 is the address.
fn stack_offset(asm: &mut Asm, base: Reg, size: Size, outside: Label) {
    asm.load(Size::U32, R0, R8, op::OFF);
    asm.sign(R0, 32);
    asm.alu(Alu::Add, R0, base);
    asm.wide(R2, STACK);
    asm.mov(R1, R0);
    asm.alu(Alu::Sub, R1, R2);
    asm.jump(If::Gt, R1, STACK_LEN as i32 - bytes(size), outside);
}

fn load(asm: &mut Asm, size: Size, sign: Option<i32>, ends: &Ends) {
    let (outside, loaded) = (asm.label(), asm.label());
    // Loads have no immediate: b is the source register.
    stack_offset(asm, R4, size, outside);
    asm.alu(Alu::Add, R1, R7);
    asm.load(size, R3, R1, state::STACK);
    asm.goto(loaded);
    asm.bind(outside);
    if bytes(size) > 4 {
        asm.goto(ends.fault);
    } else {
        asm.wide(R2, CONTEXT);
        asm.mov(R1, R0);
        asm.alu(Alu::Sub, R1, R2);
        asm.jump(If::Gt, R1, CONTEXT_LEN as i32 - bytes(size), ends.fault);
        if bytes(size) > 1 {
            asm.jump(If::Set, R1, bytes(size) - 1, ends.fault);
        }
        asm.alu(Alu::Add, R1, R7);
        asm.load(size, R3, R1, state::CONTEXT);
    }
    asm.bind(loaded);
    if let Some(bits) = sign {
        asm.sign(R3, bits);
    }
    asm.goto(ends.whole);
}

fn store(asm: &mut Asm, size: Size, ends: &Ends) {
    stack_offset(asm, R3, size, ends.fault);
    asm.alu(Alu::Add, R1, R7);
    asm.store(size, R1, state::STACK, R4);
    asm.goto(ends.go_on);
}

fn packet(asm: &mut Asm, size: Size, ends: &Ends) {
    let (absolute, positive) = (asm.label(), asm.label());
    asm.load(Size::U64, R0, R7, state::REGISTERS + 6 * 8);
    asm.wide(R1, CONTEXT);
    asm.jump(If::Ne, R0, R1, ends.fault);
    asm.jump(If::Set, R9, i32::from(IMM), absolute);
    asm.load(Size::U64, R1, R8, op::IMM);
    asm.alu(Alu::Add, R4, R1);
    asm.bind(absolute);
    asm.sign(R4, 32);
    asm.jump(If::SignedGe, R4, 0, positive);
    asm.alu(Alu::Add, R4, -NET_OFFSET);
    asm.jump(If::SignedLt, R4, 0, ends.zero);
    asm.bind(positive);
    asm.load(Size::U64, R1, R7, state::NETWORK);
    asm.mov(R2, R4);
    asm.alu(Alu::Add, R2, R1);
    asm.load(Size::U64, R1, R6, looped::SKB);
    asm.mov(R3, R7);
    asm.alu(Alu::Add, R3, i32::from(state::BYTES));
    asm.mov(R4, bytes(size));
    asm.call(LOAD_BYTES);
    asm.jump(If::Ne, R0, 0, ends.zero);
    asm.load(size, R3, R7, state::BYTES);
    if bytes(size) > 1 {
        asm.network_to_host(R3, 8 * bytes(size));
    }
    asm.goto(ends.called);
}

fn finish(asm: &mut Asm, ends: &Ends) {
    let returns = |asm: &mut Asm, value: i32| {
        asm.mov(R0, value);
        asm.exit();
    };
    asm.bind(ends.result);
    asm.mov(R1, R9);
    asm.alu(Alu::And, R1, i32::from(NARROW));
    asm.jump(If::Eq, R1, 0, ends.whole);
    asm.cut32(R3);
    asm.bind(ends.whole);
    asm.store(Size::U64, R5, 0, R3);
    asm.bind(ends.go_on);
    returns(asm, 0);

    asm.bind(ends.taken);
    asm.load(Size::U32, R1, R8, op::OFF);
    asm.store(Size::U64, R7, state::AT, R1);
    returns(asm, 0);

    asm.bind(ends.called);
    asm.store(Size::U64, R7, state::REGISTERS, R3);
    for register in 1..6 {
        asm.store(Size::U64, R7, state::REGISTERS + 8 * register, 0);
    }
    returns(asm, 0);

    asm.bind(ends.zero);
    asm.store(Size::U64, R7, state::REGISTERS, 0);
    asm.bind(ends.exit);
    asm.store(Size::U64, R7, state::ENDED, state::EXIT);
    returns(asm, 1);

    asm.bind(ends.fault);
    asm.store(Size::U64, R7, state::ENDED, state::FAULT);
    returns(asm, 1);
}

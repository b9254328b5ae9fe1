//! Instructions to operations, one by one, by the rules of the kernel: known opcodes, registers r0–r10, unused fields
//! zero, jump targets that are instructions.

use pktlab::program::Instruction;

use super::op::{Code, IMM, Op, SIGN32, ZERO32};
use super::{Reason, Refused};

/// Instruction classes, the lower three bits of an opcode.
const LD: u8 = 0;
const LDX: u8 = 1;
const ST: u8 = 2;
const STX: u8 = 3;
const ALU32: u8 = 4;
const JMP32: u8 = 6;
const ALU64: u8 = 7;
/// Arithmetic and jumps: the second operand is a register.
const REGISTER: u8 = 0x08;
/// Bits of a load's or store's mode.
const MODE: u8 = 0xE0;
const MODE_IMM: u8 = 0x00;
const MODE_ABS: u8 = 0x20;
const MODE_IND: u8 = 0x40;
const MODE_MEM: u8 = 0x60;
const MODE_SIGNED: u8 = 0x80;
/// Bits of a load's or store's size.
const SIZE: u8 = 0x18;
const WORD: u8 = 0x00;
const HALF: u8 = 0x08;
const BYTE: u8 = 0x10;
const DOUBLE: u8 = 0x18;

const HELPER_MONOTONIC: i32 = 5;

/// Returns the operations and, for each, the number of the instruction it comes from.
pub(super) fn decode(instructions: &[Instruction]) -> Result<(Vec<Op>, Vec<usize>), Refused> {
    // For each instruction the operation it becomes; none for the second half of a wide load.
    let mut index = Vec::with_capacity(instructions.len());
    let mut count = 0;
    while index.len() < instructions.len() {
        let wide = instructions[index.len()].opcode == LD | MODE_IMM | DOUBLE;
        index.push(Some(count));
        if wide && index.len() < instructions.len() {
            index.push(None);
        }
        count += 1;
    }
    let mut ops = Vec::with_capacity(count);
    let mut origins = Vec::with_capacity(count);
    for at in 0..instructions.len() {
        if index[at].is_some() {
            let decoder = Decoder { instructions, index: &index, at };
            ops.push(decoder.op().map_err(|reason| Refused::Instruction { at, reason })?);
            origins.push(at);
        }
    }
    Ok((ops, origins))
}

struct Decoder<'a> {
    instructions: &'a [Instruction],
    index: &'a [Option<usize>],
    at: usize,
}

impl Decoder<'_> {
    fn op(&self) -> Result<Op, Reason> {
        let i = &self.instructions[self.at];
        for register in [i.dst, i.src] {
            if register > 10 {
                return Err(Reason::Register(register));
            }
        }
        match i.opcode & 7 {
            LD => self.load_special(i),
            LDX => load(i),
            ST | STX => store(i),
            ALU32 | ALU64 => arithmetic(i),
            _ => self.jump(i),
        }
    }

    /// Wide immediates and packet loads.
    fn load_special(&self, i: &Instruction) -> Result<Op, Reason> {
        if i.opcode == LD | MODE_IMM | DOUBLE {
            writable(i)?;
            // A source other than 0 would stand for a map or a function.
            reserved(i.offset == 0 && i.src == 0)?;
            let Some(high) = self.instructions.get(self.at + 1) else { return Err(Reason::Wide) };
            if (high.opcode, high.dst, high.src, high.offset) != (0, 0, 0, 0) {
                return Err(Reason::Wide);
            }
            let imm = u64::from(high.imm as u32) << 32 | u64::from(i.imm as u32);
            return Ok(Op { imm, flags: IMM, ..op(Code::Mov, i) });
        }
        let code = match i.opcode & SIZE {
            BYTE => Code::Packet8,
            HALF => Code::Packet16,
            WORD => Code::Packet32,
            _ => return Err(Reason::Opcode(i.opcode)),
        };
        let flags = match i.opcode & MODE {
            MODE_ABS => IMM,
            MODE_IND => 0,
            _ => return Err(Reason::Opcode(i.opcode)),
        };
        reserved(i.dst == 0 && i.offset == 0 && (flags == 0 || i.src == 0))?;
        Ok(Op { flags, ..op(code, i) })
    }

    fn jump(&self, i: &Instruction) -> Result<Op, Reason> {
        let narrow = i.opcode & 7 == JMP32;
        let register = i.opcode & REGISTER != 0;
        let unknown = Err(Reason::Opcode(i.opcode));
        let code = match i.opcode & 0xF0 {
            0x00 if !register => {
                reserved(i.dst == 0 && i.src == 0 && if narrow { i.offset == 0 } else { i.imm == 0 })?;
                let distance = if narrow { i.imm } else { i.offset.into() };
                return Ok(Op { off: self.target(distance)?, ..op(Code::Jump, i) });
            }
            0x80 if !narrow && !register => {
                // A source other than 0 would stand for a call inside the program or of a kernel function.
                reserved(i.dst == 0 && i.src == 0 && i.offset == 0)?;
                if i.imm != HELPER_MONOTONIC {
                    return Err(Reason::Helper(i.imm));
                }
                return Ok(Op { flags: IMM, ..op(Code::Monotonic, i) });
            }
            0x90 if !narrow && !register => {
                reserved(i.dst == 0 && i.src == 0 && i.offset == 0 && i.imm == 0)?;
                return Ok(op(Code::Exit, i));
            }
            0x10 => Code::JumpEq,
            0x20 => Code::JumpGt,
            0x30 => Code::JumpGe,
            0x40 => Code::JumpSet,
            0x50 => Code::JumpNe,
            0x60 => Code::JumpSignedGt,
            0x70 => Code::JumpSignedGe,
            0xA0 => Code::JumpLt,
            0xB0 => Code::JumpLe,
            0xC0 => Code::JumpSignedLt,
            0xD0 => Code::JumpSignedLe,
            _ => return unknown,
        };
        let signed = (Code::JumpSignedGt..=Code::JumpSignedLe).contains(&code);
        let flags = operand(i)? | width(narrow, signed);
        Ok(Op { flags, off: self.target(i.offset.into())?, ..op(code, i) })
    }

    /// The operation `distance` instructions behind the next.
    fn target(&self, distance: i32) -> Result<i32, Reason> {
        let to = self.at as i64 + 1 + i64::from(distance);
        let index = usize::try_from(to).ok().and_then(|to| self.index.get(to).copied().flatten());
        // The program is far shorter than an i32 can count.
        index.map(|index| index as i32).ok_or(Reason::Target)
    }
}

fn load(i: &Instruction) -> Result<Op, Reason> {
    writable(i)?;
    let code = match (i.opcode & MODE, i.opcode & SIZE) {
        (MODE_MEM, BYTE) => Code::Load8,
        (MODE_MEM, HALF) => Code::Load16,
        (MODE_MEM, WORD) => Code::Load32,
        (MODE_MEM, DOUBLE) => Code::Load64,
        (MODE_SIGNED, BYTE) => Code::LoadSign8,
        (MODE_SIGNED, HALF) => Code::LoadSign16,
        (MODE_SIGNED, WORD) => Code::LoadSign32,
        _ => return Err(Reason::Opcode(i.opcode)),
    };
    reserved(i.imm == 0)?;
    Ok(op(code, i))
}

fn store(i: &Instruction) -> Result<Op, Reason> {
    let code = match (i.opcode & MODE, i.opcode & SIZE) {
        (MODE_MEM, BYTE) => Code::Store8,
        (MODE_MEM, HALF) => Code::Store16,
        (MODE_MEM, WORD) => Code::Store32,
        (MODE_MEM, DOUBLE) => Code::Store64,
        _ => return Err(Reason::Opcode(i.opcode)),
    };
    let flags = if i.opcode & 7 == ST { IMM } else { 0 };
    reserved(if flags == IMM { i.src == 0 } else { i.imm == 0 })?;
    Ok(Op { flags, ..op(code, i) })
}

fn arithmetic(i: &Instruction) -> Result<Op, Reason> {
    writable(i)?;
    let narrow = i.opcode & 7 == ALU32;
    let register = i.opcode & REGISTER != 0;
    let code = match i.opcode & 0xF0 {
        0x00 => Code::Add,
        0x10 => Code::Sub,
        0x20 => Code::Mul,
        0x30 if i.offset == 1 => Code::SignedDiv,
        0x30 => Code::Div,
        0x40 => Code::Or,
        0x50 => Code::And,
        0x60 => Code::Lsh,
        0x70 => Code::Rsh,
        0x80 if register => return Err(Reason::Opcode(i.opcode)),
        0x80 => {
            reserved(i.src == 0 && i.offset == 0 && i.imm == 0)?;
            return Ok(Op { src: i.dst, flags: width(narrow, false), ..op(Code::Neg, i) });
        }
        0x90 if i.offset == 1 => Code::SignedMod,
        0x90 => Code::Mod,
        0xA0 => Code::Xor,
        0xB0 => match (i.offset, register) {
            (8, true) => Code::Sign8,
            (16, true) => Code::Sign16,
            (32, true) if !narrow => Code::Sign32,
            _ => Code::Mov,
        },
        0xC0 => Code::Arsh,
        0xD0 => return byte_order(i),
        _ => return Err(Reason::Opcode(i.opcode)),
    };
    let extended =
        matches!(code, Code::SignedDiv | Code::SignedMod | Code::Sign8 | Code::Sign16 | Code::Sign32);
    reserved(i.offset == 0 || extended)?;
    let signed = matches!(code, Code::SignedDiv | Code::SignedMod | Code::Arsh);
    let flags = operand(i)? | width(narrow, signed);
    if flags & IMM != 0 {
        let bits = if narrow { 32 } else { 64 };
        match code {
            Code::Div | Code::Mod | Code::SignedDiv | Code::SignedMod if i.imm == 0 => {
                return Err(Reason::Division);
            }
            Code::Lsh | Code::Rsh | Code::Arsh if !(0..bits).contains(&i.imm) => {
                return Err(Reason::Shift(i.imm));
            }
            _ => {}
        }
    }
    Ok(Op { flags, ..op(code, i) })
}

fn byte_order(i: &Instruction) -> Result<Op, Reason> {
    let register = i.opcode & REGISTER != 0;
    let swap = match i.opcode & 7 {
        // "To little-endian" or, with the register bit, "to big-endian": a swap on hosts of the other order.
        ALU32 => register == cfg!(target_endian = "little"),
        _ if register => return Err(Reason::Opcode(i.opcode)),
        _ => true,
    };
    reserved(i.src == 0 && i.offset == 0)?;
    let code = match (i.imm, swap) {
        (16, true) => Code::Swap16,
        (32, true) => Code::Swap32,
        (64, true) => Code::Swap64,
        (16, false) => Code::Cut16,
        (32, false) => Code::Cut32,
        (64, false) => Code::Mov,
        (bits, _) => return Err(Reason::Width(bits)),
    };
    Ok(Op { src: i.dst, flags: 0, ..op(code, i) })
}

fn op(code: Code, i: &Instruction) -> Op {
    Op { code, dst: i.dst, src: i.src, flags: 0, off: i.offset.into(), imm: i64::from(i.imm) as u64 }
}

/// The flag for the second operand's kind; the field of the other kind must be zero.
fn operand(i: &Instruction) -> Result<u8, Reason> {
    let register = i.opcode & REGISTER != 0;
    reserved(if register { i.imm == 0 } else { i.src == 0 })?;
    Ok(if register { 0 } else { IMM })
}

fn width(narrow: bool, signed: bool) -> u8 {
    match (narrow, signed) {
        (false, _) => 0,
        (true, false) => ZERO32,
        (true, true) => SIGN32,
    }
}

fn reserved(all_zero: bool) -> Result<(), Reason> {
    if all_zero { Ok(()) } else { Err(Reason::Reserved) }
}

fn writable(i: &Instruction) -> Result<(), Reason> {
    if i.dst == 10 { Err(Reason::FramePointer) } else { Ok(()) }
}

//! A small assembler and the packets of the filter tests.
#![allow(clippy::unwrap_used, reason = "tests")]

pub(crate) mod differential;
pub(crate) mod hostile;
mod opcodes;
mod programs;

use pktlab::program::{Instruction, Program, ProgramKind};

use super::{Fault, Filter, Packet, Reason, Refused, run};

/// Operation bits of arithmetic opcodes.
pub(crate) const ADD: u8 = 0x00;
pub(crate) const SUB: u8 = 0x10;
pub(crate) const MUL: u8 = 0x20;
pub(crate) const DIV: u8 = 0x30;
pub(crate) const OR: u8 = 0x40;
pub(crate) const AND: u8 = 0x50;
pub(crate) const LSH: u8 = 0x60;
pub(crate) const RSH: u8 = 0x70;
pub(crate) const NEG: u8 = 0x80;
pub(crate) const MOD: u8 = 0x90;
pub(crate) const XOR: u8 = 0xA0;
pub(crate) const MOV: u8 = 0xB0;
pub(crate) const ARSH: u8 = 0xC0;
/// Operation bits of jumps.
pub(crate) const JEQ: u8 = 0x10;
pub(crate) const JGT: u8 = 0x20;
pub(crate) const JGE: u8 = 0x30;
pub(crate) const JSET: u8 = 0x40;
pub(crate) const JNE: u8 = 0x50;
pub(crate) const JSGT: u8 = 0x60;
pub(crate) const JSGE: u8 = 0x70;
pub(crate) const JLT: u8 = 0xA0;
pub(crate) const JLE: u8 = 0xB0;
pub(crate) const JSLT: u8 = 0xC0;
pub(crate) const JSLE: u8 = 0xD0;
/// Size bits of loads and stores.
pub(crate) const W: u8 = 0x00;
pub(crate) const H: u8 = 0x08;
pub(crate) const B: u8 = 0x10;
pub(crate) const DW: u8 = 0x18;

pub(crate) const EXIT: Instruction = ins(0x95, 0, 0, 0, 0);

pub(crate) const fn ins(opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) -> Instruction {
    Instruction { opcode, dst, src, offset, imm }
}

/// 64-bit arithmetic with a constant and with a register.
pub(crate) const fn alu(op: u8, dst: u8, imm: i32) -> Instruction {
    ins(op | 7, dst, 0, 0, imm)
}

pub(crate) const fn alu_r(op: u8, dst: u8, src: u8) -> Instruction {
    ins(op | 0xF, dst, src, 0, 0)
}

pub(crate) const fn jump(op: u8, dst: u8, imm: i32, offset: i16) -> Instruction {
    ins(op | 5, dst, 0, offset, imm)
}

pub(crate) const fn jump_r(op: u8, dst: u8, src: u8, offset: i16) -> Instruction {
    ins(op | 0xD, dst, src, offset, 0)
}

pub(crate) const fn ja(offset: i16) -> Instruction {
    ins(5, 0, 0, offset, 0)
}

pub(crate) const fn packet_at(size: u8, at: i32) -> Instruction {
    ins(0x20 | size, 0, 0, 0, at)
}

pub(crate) const fn packet_by(size: u8, src: u8, at: i32) -> Instruction {
    ins(0x40 | size, 0, src, 0, at)
}

pub(crate) const fn load(size: u8, dst: u8, src: u8, offset: i16) -> Instruction {
    ins(0x61 | size, dst, src, offset, 0)
}

pub(crate) const fn store(size: u8, dst: u8, offset: i16, src: u8) -> Instruction {
    ins(0x63 | size, dst, src, offset, 0)
}

pub(crate) const fn store_imm(size: u8, dst: u8, offset: i16, imm: i32) -> Instruction {
    ins(0x62 | size, dst, 0, offset, imm)
}

pub(crate) fn wide(dst: u8, imm: u64) -> [Instruction; 2] {
    [ins(0x18, dst, 0, 0, imm as u32 as i32), ins(0, 0, 0, 0, (imm >> 32) as u32 as i32)]
}

fn program(instructions: &[Instruction]) -> Program {
    let body: Vec<u8> = instructions.iter().flat_map(Instruction::encode).collect();
    Program { kind: ProgramKind::Ebpf, body: body.into() }
}

pub(crate) fn load_program(instructions: &[Instruction]) -> Result<Filter, Refused> {
    Filter::load(&program(instructions))
}

fn packet(data: &[u8]) -> Packet<'_> {
    Packet { data, len: data.len() as u32, ethertype: 0x0800, ifindex: 7, pkt_type: 3 }
}

/// r0 in full.
fn execute(instructions: &[Instruction], data: &[u8]) -> Result<u64, Fault> {
    run::execute(&load_program(instructions).unwrap().ops, &packet(data))
}

fn refusal(instructions: &[Instruction]) -> (usize, Reason) {
    match load_program(instructions).unwrap_err() {
        Refused::Instruction { at, reason } => (at, reason),
        other => panic!("refused as a whole: {other}"),
    }
}

/// r0 in full, of a filter that is loaded.
pub(crate) fn execute_loaded(filter: &Filter, packet: &Packet<'_>) -> Result<u64, Fault> {
    run::execute(&filter.ops, packet)
}

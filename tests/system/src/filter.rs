//! Capture filters for tests.

use pktlab::program::{Instruction, Program, ProgramKind};

const LOAD_BYTE: u8 = 0x30;
const LOAD_HALF: u8 = 0x28;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const SET: u8 = 0xb7;
const COPY: u8 = 0xbf;
/// Ends the program with r0.
pub const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

/// A field of a packet and what it must be.
#[derive(Clone, Copy, Debug)]
pub struct Is(u8, i32, i32);

/// The byte at this offset from the network header.
pub const fn byte(at: i32, value: u8) -> Is {
    Is(LOAD_BYTE, at, value as i32)
}

/// The big-endian 16 bits at this offset.
pub const fn half(at: i32, value: u16) -> Is {
    Is(LOAD_HALF, at, value as i32)
}

/// An instruction, fields in the order of the text form.
pub const fn instruction(opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) -> Instruction {
    Instruction { opcode, dst, src, offset, imm }
}

/// A program of these instructions.
pub fn program(instructions: &[Instruction]) -> Program {
    let body: Vec<u8> = instructions.iter().flat_map(Instruction::encode).collect();
    Program { kind: ProgramKind::Ebpf, body: body.into() }
}

/// Accepts every packet, whole.
pub fn everything() -> Program {
    program(&[instruction(SET, 0, 0, 0, -1), EXIT])
}

/// Accepts, whole, packets of which everything holds that one of the cases says.
pub fn accept(cases: &[&[Is]]) -> Program {
    // r6 is the context, as loads from the packet demand.
    let mut code = vec![instruction(COPY, 6, 1, 0, 0)];
    for case in cases {
        for (index, Is(load, at, value)) in case.iter().enumerate() {
            // Over the rest of the case, two instructions a field, and its end.
            let over = 2 * (case.len() - index - 1) + 2;
            code.push(instruction(*load, 0, 0, 0, *at));
            code.push(instruction(JUMP_UNLESS_EQUAL, 0, 0, over as i16, *value));
        }
        code.extend([instruction(SET, 0, 0, 0, -1), EXIT]);
    }
    code.extend([instruction(SET, 0, 0, 0, 0), EXIT]);
    program(&code)
}

/// ICMP echo replies of this id, IPv4.
pub fn echo_replies(id: u16) -> Program {
    accept(&[&[byte(0, 0x45), byte(9, 1), byte(20, 0), half(24, id)]])
}

/// ICMP echo replies of this id, IPv6.
pub fn echo_replies_v6(id: u16) -> Program {
    accept(&[&[byte(0, 0x60), byte(6, 58), byte(40, 129), half(44, id)]])
}

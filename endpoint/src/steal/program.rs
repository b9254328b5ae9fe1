//! The kernel program, part one: the way of a packet, and what maps and programs agree on.
//!
//! The program is fixed; a filter is data that it interprets ([`super::interpreter`]), so that no foreign byte is ever
//! verified or compiled by the kernel. A packet is withheld when the filter accepts it and [`super::exempt`] does not
//! object. It has passed the packet sockets before, and nothing else of the network stack.

use super::asm::{Alu, Asm, FRAME, If, Label, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Reg, Size};
use super::{exempt, interpreter};
use crate::filter::FUEL;
use crate::filter::op::{CONTEXT, STACK, STACK_LEN};

/// Helpers of the kernel.
pub(super) const MAP_LOOKUP: i32 = 1;
pub(super) const KTIME: i32 = 5;
pub(super) const LOAD_BYTES: i32 = 26;
const LOAD_BYTES_RELATIVE: i32 = 68;
const LOOP: i32 = 181;
/// Origin of a relative load: the network header.
const FROM_NETWORK: i32 = 1;

/// Answers of a TCX program: on to the next program and the stack, or gone.
pub(super) const NEXT: i32 = -1;
pub(super) const DROP: i32 = 2;

/// Fields of the kernel's `struct __sk_buff`.
const SKB_LEN: i16 = 0;
const SKB_PKT_TYPE: i16 = 4;
const SKB_PROTOCOL: i16 = 16;
const SKB_IFINDEX: i16 = 40;
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

/// A filter as the value of its map: this header, then its operations of 16 bytes, zeros behind.
pub(super) mod filter {
    /// Last CLOCK_MONOTONIC ns it is in force.
    pub const UNTIL: usize = 0;
    /// Not 0 when the stack must be cleared before a run.
    pub const STACK_USED: usize = 8;
    pub const OPS: usize = 16;
    pub const OP_LEN: usize = 16;
    /// A power of two, so that a masked index is inside; more than the longest filter has.
    pub const OPS_MAX: usize = 8192;
    pub const LEN: usize = OPS + OP_LEN * OPS_MAX;
}

/// The interpreted machine. There is one for each CPU: packets of one CPU are processed one after the other.
pub(super) mod state {
    /// 16 registers, 11 of them in use.
    pub const REGISTERS: i16 = 0;
    /// The filter's view of `struct __sk_buff`; what a filter may not see stays 0.
    pub const CONTEXT: i16 = 128;
    pub const STACK: i16 = 320;
    /// Index of the next operation.
    pub const AT: i16 = 832;
    /// How it ended: [`RUNNING`], [`EXIT`] or [`FAULT`].
    pub const ENDED: i16 = 840;
    /// Bytes from the packet.
    pub const BYTES: i16 = 848;
    /// Bytes of link header before the network header.
    pub const NETWORK: i16 = 856;
    pub const LEN: u32 = 864;

    /// Out of fuel, if the loop is over.
    pub const RUNNING: i32 = 0;
    pub const EXIT: i32 = 1;
    pub const FAULT: i32 = 2;
}

/// What the loop's function gets: three addresses in the frame of the main function.
pub(super) mod looped {
    pub const SKB: i16 = 0;
    pub const STATE: i16 = 8;
    pub const FILTER: i16 = 16;
}

/// The main function's frame.
pub(super) mod frame {
    /// Key 0 of the one-entry maps.
    pub const ZERO: i16 = -4;
    pub const LOOPED: i16 = -32;
    /// 8 bytes from the packet.
    pub const SMALL: i16 = -40;
    /// Bytes from the link header to the end of the contiguous part.
    pub const CONTIGUOUS: i16 = -48;
    /// Key of the map of exempt connections, 36 bytes.
    pub const KEY: i16 = -88;
    /// A network header, 40 bytes.
    pub const HEADER: i16 = -128;
}

/// Descriptors of the maps that the program is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maps {
    pub states: i32,
    pub filters: i32,
    pub exempt: i32,
}

/// The code, and the number of the instruction at which the loop's function begins.
pub(super) fn build(maps: Maps) -> (Vec<u8>, u32) {
    let mut asm = Asm::default();
    let (next, step) = (asm.label(), asm.label());
    asm.mov(R6, R1);
    find_maps(&mut asm, maps, next);
    asm.call(KTIME);
    asm.load(Size::U64, R1, R8, filter::UNTIL as i16);
    asm.jump(If::Gt, R0, R1, next);

    // ARP and everything else that is not IP is not the filter's to take.
    let ip = asm.label();
    asm.load(Size::U32, R1, R6, SKB_PROTOCOL);
    asm.network_to_host(R1, 16);
    asm.jump(If::Eq, R1, 0x0800, ip);
    asm.jump(If::Ne, R1, 0x86DD, next);
    asm.bind(ip);
    find_network_header(&mut asm, next);
    reset_machine(&mut asm);

    asm.store(Size::U64, FRAME, frame::LOOPED + looped::SKB, R6);
    asm.store(Size::U64, FRAME, frame::LOOPED + looped::STATE, R7);
    asm.store(Size::U64, FRAME, frame::LOOPED + looped::FILTER, R8);
    asm.mov(R1, FUEL as i32);
    asm.function(R2, step);
    frame_address(&mut asm, R3, frame::LOOPED);
    asm.mov(R4, 0);
    asm.call(LOOP);
    asm.load(Size::U64, R1, R7, state::ENDED);
    asm.jump(If::Ne, R1, state::EXIT, next);
    asm.load(Size::U64, R1, R7, state::REGISTERS);
    asm.cut32(R1);
    asm.jump(If::Eq, R1, 0, next);

    let drop = asm.label();
    exempt::check(&mut asm, maps.exempt, next, drop);
    asm.bind(drop);
    asm.mov(R0, DROP);
    asm.exit();
    asm.bind(next);
    asm.mov(R0, NEXT);
    asm.exit();

    let function = asm.position() as u32;
    asm.bind(step);
    interpreter::step(&mut asm);
    (asm.finish(), function)
}

pub(super) fn frame_address(asm: &mut Asm, dst: Reg, offset: i16) {
    asm.mov(dst, FRAME);
    asm.alu(Alu::Add, dst, i32::from(offset));
}

/// R7 = state, R8 = filter. Without a filter the packet goes on.
fn find_maps(asm: &mut Asm, maps: Maps, next: Label) {
    asm.store(Size::U32, FRAME, frame::ZERO, 0);
    let lookup = |asm: &mut Asm| {
        frame_address(asm, R2, frame::ZERO);
        asm.call(MAP_LOOKUP);
        asm.jump(If::Eq, R0, 0, next);
    };
    asm.map(R1, maps.filters);
    lookup(asm);
    asm.mov(R1, R0);
    lookup(asm);
    asm.mov(R8, R0);
    asm.map(R1, maps.states);
    lookup(asm);
    asm.mov(R7, R0);
}

/// R9 = bytes of link header. The hook's view of a packet starts at the link header and does not tell its length; the only
/// loads that start at the network header end with the contiguous part of the packet. So a relative load at "contiguous
/// bytes minus n" works when the link header is shorter than n, and a binary search finds its length, 0 to 63.
fn find_network_header(asm: &mut Asm, next: Label) {
    asm.load(Size::U32, R1, R6, SKB_DATA);
    asm.load(Size::U32, R0, R6, SKB_DATA_END);
    asm.alu(Alu::Sub, R0, R1);
    asm.store(Size::U64, FRAME, frame::CONTIGUOUS, R0);

    // R0 is 0 afterwards when the link header is shorter than R5 bytes.
    let shorter_than = |asm: &mut Asm| {
        let known = asm.label();
        asm.mov(R0, 0);
        asm.load(Size::U64, R2, FRAME, frame::CONTIGUOUS);
        // It is not longer than everything.
        asm.jump(If::Gt, R5, R2, known);
        asm.alu(Alu::Sub, R2, R5);
        asm.mov(R1, R6);
        frame_address(asm, R3, frame::SMALL);
        asm.mov(R4, 1);
        asm.mov(R5, FROM_NETWORK);
        asm.call(LOAD_BYTES_RELATIVE);
        asm.bind(known);
    };
    let (other, done) = (asm.label(), asm.label());
    // Ethernet first.
    asm.mov(R9, 14);
    asm.mov(R5, 15);
    shorter_than(asm);
    asm.jump(If::Ne, R0, 0, other);
    asm.mov(R5, 14);
    shorter_than(asm);
    asm.jump(If::Ne, R0, 0, done);
    asm.bind(other);
    asm.mov(R9, 0);
    for bit in [32, 16, 8, 4, 2, 1] {
        let shorter = asm.label();
        asm.mov(R5, R9);
        asm.alu(Alu::Add, R5, bit);
        shorter_than(asm);
        asm.jump(If::Eq, R0, 0, shorter);
        asm.alu(Alu::Add, R9, bit);
        asm.bind(shorter);
    }
    // Longer than any link header is: nothing to judge by, and nothing is withheld.
    asm.mov(R5, R9);
    asm.alu(Alu::Add, R5, 1);
    shorter_than(asm);
    asm.jump(If::Ne, R0, 0, next);
    asm.bind(done);
    asm.store(Size::U64, R7, state::NETWORK, R9);
}

/// Registers, context and, when the filter uses it, the stack as at the start of a run.
fn reset_machine(asm: &mut Asm) {
    asm.mov(R0, 0);
    for register in (0..10).filter(|r| *r != 1) {
        asm.store(Size::U64, R7, state::REGISTERS + 8 * register, R0);
    }
    asm.wide(R1, CONTEXT);
    asm.store(Size::U64, R7, state::REGISTERS + 8, R1);
    asm.wide(R1, STACK + STACK_LEN);
    asm.store(Size::U64, R7, state::REGISTERS + 80, R1);
    asm.store(Size::U64, R7, state::AT, R0);
    asm.store(Size::U64, R7, state::ENDED, state::RUNNING);

    asm.load(Size::U32, R1, R6, SKB_LEN);
    asm.alu(Alu::Sub, R1, R9);
    asm.store(Size::U32, R7, state::CONTEXT, R1);
    for field in [SKB_PKT_TYPE, SKB_PROTOCOL, SKB_IFINDEX] {
        asm.load(Size::U32, R1, R6, field);
        asm.store(Size::U32, R7, state::CONTEXT + field, R1);
    }
    // The interface it came in on is this one.
    asm.store(Size::U32, R7, state::CONTEXT + 36, R1);

    let unused = asm.label();
    asm.load(Size::U64, R1, R8, filter::STACK_USED as i16);
    asm.jump(If::Eq, R1, 0, unused);
    for word in 0..(STACK_LEN / 8) as i16 {
        asm.store(Size::U64, R7, state::STACK + 8 * word, R0);
    }
    asm.bind(unused);
}

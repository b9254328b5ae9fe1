//! Capture filters: the controller's eBPF programs, checked and run in safe Rust (spec `filters-monitors.md` §1).
//!
//! | module | what lives there |
//! |---|---|
//! | `op` | the form a program runs in: fixed 16-byte operations, guest addresses |
//! | `decode` | instructions one by one: known, within the rules of their class |
//! | `flow` | the program as a whole: everything reachable, everything can end, registers set before use |
//! | `run` | one run over one packet, bounded by [`FUEL`] |
//!
//! A program is foreign code. Loading refuses what the kernel's verifier would refuse for its form; what cannot be seen in
//! the form is checked at run time, so a program that gets past loading can waste [`FUEL`] operations and nothing else.
#![forbid(unsafe_code)]

mod decode;
mod flow;
pub(crate) mod op;
mod run;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use pktlab::program::{Instruction, Program, ProgramKind};

use op::Op;

/// Operations one packet may cost. A wide immediate load is one operation.
pub const FUEL: u32 = 4096;
/// Instructions in the longest program: 65536 encoded bytes, the type byte included.
pub const INSTRUCTIONS_MAX: usize = 8191;

/// A program that passed every check. Clones share it.
#[derive(Clone, Debug)]
pub struct Filter {
    ops: Arc<[Op]>,
}

/// What a filter looks at.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// From the first byte of the network header. A load beyond these bytes ends the program with 0, also when the
    /// packet was longer on the wire.
    pub data: &'a [u8],
    /// Bytes from the network header to the end as received; may exceed `data`.
    pub len: u32,
    /// Protocol of the network header in host byte order, 0x0800 for IPv4.
    pub ethertype: u16,
    pub ifindex: u32,
    /// Linux's PACKET_HOST, PACKET_BROADCAST, …
    pub pkt_type: u8,
}

/// What a filter says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ignore,
    /// Deliver so many bytes from the network header, at most the packet's length.
    Deliver(u32),
    /// The program broke a rule while it ran: nothing is delivered, and it should be counted.
    Fault(Fault),
}

/// Why a run was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the filter read or wrote outside its stack and context")]
    Access,
    #[error("the filter loaded packet bytes with r6 not pointing to the context")]
    Context,
    #[error("the filter ran for {FUEL} operations without an end")]
    Fuel,
}

/// Why a program is no filter; the controller sees ESKTBADFILT (0x38).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a capture filter is an eBPF program")]
    Kind,
    #[error("a program without instructions")]
    Empty,
    #[error("{0} instructions, the longest filter has {INSTRUCTIONS_MAX}")]
    Long(usize),
    /// Counted from 0 as jump offsets do; a wide immediate load counts twice.
    #[error("instruction {at}: {reason}")]
    Instruction { at: usize, reason: Reason },
}

/// What is wrong with one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("unknown opcode {0:#04x}")]
    Opcode(u8),
    #[error("there is no register r{0}")]
    Register(u8),
    #[error("r10 is read-only")]
    FramePointer,
    #[error("a field that the instruction does not use is not zero")]
    Reserved,
    #[error("incomplete 64-bit immediate")]
    Wide,
    #[error("division by the constant 0")]
    Division,
    #[error("shift by {0} bits")]
    Shift(i32),
    #[error("byte order of {0} bits")]
    Width(i32),
    #[error("helper {0} does not exist here, only 5 (monotonic ns) does")]
    Helper(i32),
    #[error("jump out of the program or into a 64-bit immediate")]
    Target,
    #[error("the program's end is reached without an exit")]
    FallsOff,
    #[error("never reached")]
    Unreachable,
    #[error("no exit can be reached from here")]
    Endless,
    #[error("r{0} is read and was never set")]
    Unset(u8),
}

impl Filter {
    /// Checks an NCAP program. A register that is set on some of the ways to a read is 0 on the others.
    pub fn load(program: &Program) -> Result<Filter, Refused> {
        if program.kind != ProgramKind::Ebpf {
            return Err(Refused::Kind);
        }
        let count = program.instructions().count();
        if count == 0 {
            return Err(Refused::Empty);
        }
        if count > INSTRUCTIONS_MAX {
            return Err(Refused::Long(count));
        }
        let instructions: Vec<Instruction> = program.instructions().collect();
        let (ops, origins) = decode::decode(&instructions)?;
        flow::check(&ops).map_err(|(op, reason)| Refused::Instruction { at: origins[op], reason })?;
        Ok(Filter { ops: ops.into() })
    }

    /// Runs the program over one packet.
    pub fn run(&self, packet: &Packet<'_>) -> Verdict {
        match run::execute(&self.ops, packet) {
            // The kernel looks at the lower half of r0 only.
            Ok(r0) => match r0 as u32 {
                0 => Verdict::Ignore,
                n => Verdict::Deliver(n.min(packet.len)),
            },
            Err(fault) => Verdict::Fault(fault),
        }
    }
    /// The checked program. Every jump target is an index into it.
    pub(crate) fn ops(&self) -> &[Op] {
        &self.ops
    }
}

//! The form a program runs in: one fixed-size operation for each instruction, a wide immediate load included.
//!
//! Width and signedness are flags on the operands, so that one code serves the 32-bit, 64-bit, register and immediate
//! forms of an instruction, here and in every other interpreter of the same operations.

/// Address of the packet context; programs get it in r1.
pub(crate) const CONTEXT: u64 = 1 << 32;
/// Bytes of the context that can be read: the kernel's `struct __sk_buff` as of Linux 6.
pub(crate) const CONTEXT_LEN: u64 = 192;
/// Lowest address of the stack; r10 points behind its end.
pub(crate) const STACK: u64 = 2 << 32;
pub(crate) const STACK_LEN: u64 = 512;
/// Offsets of packet loads from here up count from the network header, too (Linux's SKF_NET_OFF).
pub(crate) const NET_OFFSET: i32 = -0x10_0000;

/// The second operand is `imm`, not the source register.
pub(crate) const IMM: u8 = 1;
/// Both operands are the lower 32 bits, zero-extended; so is the result.
pub(crate) const ZERO32: u8 = 2;
/// Both operands are the lower 32 bits, sign-extended; the result is cut to 32 bits.
pub(crate) const SIGN32: u8 = 4;
pub(crate) const NARROW: u8 = ZERO32 | SIGN32;

/// One operation. *a* is the destination register's value, *b* the second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub code: Code,
    /// Register 0–10.
    pub dst: u8,
    /// Register 0–10.
    pub src: u8,
    pub flags: u8,
    /// Jumps: index of the operation to go on with. Loads and stores: displacement of the address.
    pub off: i32,
    /// Sign-extended from 32 bits, or the 64 bits of a wide load.
    pub imm: u64,
}

/// What an operation does. The numbers are part of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Code {
    /// dst = b
    Mov,
    Add,
    Sub,
    Mul,
    /// By 0: 0.
    Div,
    /// By 0: a.
    Mod,
    SignedDiv,
    SignedMod,
    And,
    Or,
    Xor,
    /// Shifts use the count modulo the width.
    Lsh,
    Rsh,
    /// Arithmetic: comes with SIGN32 in the narrow form.
    Arsh,
    /// dst = -b
    Neg,
    /// dst = the lower bits of b, sign-extended
    Sign8,
    Sign16,
    Sign32,
    /// dst = the lower bits of b, zero-extended
    Cut16,
    Cut32,
    /// dst = the lower bits of b, bytes reversed, zero-extended
    Swap16,
    Swap32,
    Swap64,
    /// Always.
    Jump,
    JumpEq,
    JumpNe,
    JumpGt,
    JumpGe,
    JumpLt,
    JumpLe,
    /// a & b is not 0.
    JumpSet,
    JumpSignedGt,
    JumpSignedGe,
    JumpSignedLt,
    JumpSignedLe,
    /// dst = memory at src + off
    Load8,
    Load16,
    Load32,
    Load64,
    LoadSign8,
    LoadSign16,
    LoadSign32,
    /// memory at dst + off = b
    Store8,
    Store16,
    Store32,
    Store64,
    /// r0 = packet bytes at imm, without [`IMM`] at src + imm; big-endian. r1–r5 become 0.
    Packet8,
    Packet16,
    Packet32,
    /// r0 = CLOCK_MONOTONIC in ns. r1–r5 become 0.
    Monotonic,
    /// The result is r0.
    Exit,
}

impl Code {
    /// In the order of their numbers.
    pub const ALL: [Code; 51] = [
        Code::Mov,
        Code::Add,
        Code::Sub,
        Code::Mul,
        Code::Div,
        Code::Mod,
        Code::SignedDiv,
        Code::SignedMod,
        Code::And,
        Code::Or,
        Code::Xor,
        Code::Lsh,
        Code::Rsh,
        Code::Arsh,
        Code::Neg,
        Code::Sign8,
        Code::Sign16,
        Code::Sign32,
        Code::Cut16,
        Code::Cut32,
        Code::Swap16,
        Code::Swap32,
        Code::Swap64,
        Code::Jump,
        Code::JumpEq,
        Code::JumpNe,
        Code::JumpGt,
        Code::JumpGe,
        Code::JumpLt,
        Code::JumpLe,
        Code::JumpSet,
        Code::JumpSignedGt,
        Code::JumpSignedGe,
        Code::JumpSignedLt,
        Code::JumpSignedLe,
        Code::Load8,
        Code::Load16,
        Code::Load32,
        Code::Load64,
        Code::LoadSign8,
        Code::LoadSign16,
        Code::LoadSign32,
        Code::Store8,
        Code::Store16,
        Code::Store32,
        Code::Store64,
        Code::Packet8,
        Code::Packet16,
        Code::Packet32,
        Code::Monotonic,
        Code::Exit,
    ];
}

/// Which registers an operation reads and which it leaves set, as bit masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    pub reads: u16,
    pub sets: u16,
    pub clears: u16,
}

impl Op {
    pub fn is_jump(&self) -> bool {
        (Code::Jump..=Code::JumpSignedLe).contains(&self.code)
    }

    pub fn registers(&self) -> Registers {
        use Code::*;
        let dst = 1 << self.dst;
        let src = if self.flags & IMM == 0 { 1 << self.src } else { 0 };
        let caller_saved = 0b11_1110;
        let (reads, sets, clears) = match self.code {
            Mov | Neg | Sign8 | Sign16 | Sign32 | Cut16 | Cut32 | Swap16 | Swap32 | Swap64 => (src, dst, 0),
            Load8 | Load16 | Load32 | Load64 | LoadSign8 | LoadSign16 | LoadSign32 => (src, dst, 0),
            Packet8 | Packet16 | Packet32 => (src | 1 << 6, 1, caller_saved),
            Monotonic => (0, 1, caller_saved),
            Exit => (1, 0, 0),
            Jump => (0, 0, 0),
            Store8 | Store16 | Store32 | Store64 => (src | dst, 0, 0),
            _ if self.is_jump() => (src | dst, 0, 0),
            _ => (src | dst, dst, 0),
        };
        Registers { reads, sets, clears }
    }
}

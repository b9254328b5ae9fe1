//! One run over one packet: registers, 512 bytes of stack and the context, every access checked.

use std::ops::ControlFlow;

use super::op::{CONTEXT, CONTEXT_LEN, Code, IMM, NARROW, NET_OFFSET, Op, SIGN32, STACK, STACK_LEN};
use super::{FUEL, Fault, Packet};

/// Registers, with a power of two of them so that a masked number is always inside.
type Registers = [u64; 16];
type Stack = [u8; STACK_LEN as usize];

/// Returns r0 at the exit, or 0 for a packet load beyond the packet.
pub(super) fn execute(ops: &[Op], packet: &Packet<'_>) -> Result<u64, Fault> {
    let mut registers: Registers = [0; 16];
    registers[1] = CONTEXT;
    registers[10] = STACK + STACK_LEN;
    let mut stack: Stack = [0; _];
    let mut at = 0;
    for _ in 0..FUEL {
        // Loading made sure that `at` stays inside.
        let Some(op) = ops.get(at) else { return Err(Fault::Access) };
        at += 1;
        if let ControlFlow::Break(result) = step(op, &mut at, &mut registers, &mut stack, packet) {
            return result;
        }
    }
    Err(Fault::Fuel)
}

#[inline(always)]
fn step(
    op: &Op,
    at: &mut usize,
    registers: &mut Registers,
    stack: &mut Stack,
    packet: &Packet<'_>,
) -> ControlFlow<Result<u64, Fault>> {
    let dst = usize::from(op.dst & 15);
    let source = registers[usize::from(op.src & 15)];
    let (mut a, mut b) = (registers[dst], if op.flags & IMM != 0 { op.imm } else { source });
    if op.flags & NARROW != 0 {
        let narrow = |value: u64| {
            if op.flags & SIGN32 != 0 { value as i32 as u64 } else { u64::from(value as u32) }
        };
        (a, b) = (narrow(a), narrow(b));
    }
    let (sa, sb) = (a as i64, b as i64);
    let shift = (b & if op.flags & NARROW != 0 { 31 } else { 63 }) as u32;
    // Jumps leave with a condition, everything that sets a register with its value.
    let taken = match op.code {
        Code::Jump => true,
        Code::JumpEq => a == b,
        Code::JumpNe => a != b,
        Code::JumpGt => a > b,
        Code::JumpGe => a >= b,
        Code::JumpLt => a < b,
        Code::JumpLe => a <= b,
        Code::JumpSet => a & b != 0,
        Code::JumpSignedGt => sa > sb,
        Code::JumpSignedGe => sa >= sb,
        Code::JumpSignedLt => sa < sb,
        Code::JumpSignedLe => sa <= sb,
        code => {
            let value = match code {
                Code::Mov => b,
                Code::Add => a.wrapping_add(b),
                Code::Sub => a.wrapping_sub(b),
                Code::Mul => a.wrapping_mul(b),
                Code::Div => a.checked_div(b).unwrap_or(0),
                Code::Mod => a.checked_rem(b).unwrap_or(a),
                Code::SignedDiv if b == 0 => 0,
                Code::SignedDiv => sa.wrapping_div(sb) as u64,
                Code::SignedMod if b == 0 => a,
                Code::SignedMod => sa.wrapping_rem(sb) as u64,
                Code::And => a & b,
                Code::Or => a | b,
                Code::Xor => a ^ b,
                Code::Lsh => a << shift,
                Code::Rsh => a >> shift,
                Code::Arsh => (sa >> shift) as u64,
                Code::Neg => b.wrapping_neg(),
                Code::Sign8 => b as i8 as u64,
                Code::Sign16 => b as i16 as u64,
                Code::Sign32 => b as i32 as u64,
                Code::Cut16 => u64::from(b as u16),
                Code::Cut32 => u64::from(b as u32),
                Code::Swap16 => u64::from((b as u16).swap_bytes()),
                Code::Swap32 => u64::from((b as u32).swap_bytes()),
                Code::Swap64 => b.swap_bytes(),
                Code::Exit => return ControlFlow::Break(Ok(registers[0])),
                _ => return access(op, registers, stack, packet),
            };
            registers[dst] = if op.flags & NARROW != 0 { u64::from(value as u32) } else { value };
            return ControlFlow::Continue(());
        }
    };
    if taken {
        // Not negative: an index into the operations.
        *at = op.off as usize;
    }
    ControlFlow::Continue(())
}

/// Memory, packet and clock.
fn access(
    op: &Op,
    registers: &mut Registers,
    stack: &mut Stack,
    packet: &Packet<'_>,
) -> ControlFlow<Result<u64, Fault>> {
    let dst = usize::from(op.dst & 15);
    let source = registers[usize::from(op.src & 15)];
    let b = if op.flags & IMM != 0 { op.imm } else { source };
    let displaced = |base: u64| base.wrapping_add_signed(op.off.into());
    let loaded = match op.code {
        Code::Load8 => load::<1>(displaced(source), stack, packet),
        Code::Load16 => load::<2>(displaced(source), stack, packet),
        Code::Load32 => load::<4>(displaced(source), stack, packet),
        Code::Load64 => load::<8>(displaced(source), stack, packet),
        Code::LoadSign8 => load::<1>(displaced(source), stack, packet).map(|v| v as i8 as u64),
        Code::LoadSign16 => load::<2>(displaced(source), stack, packet).map(|v| v as i16 as u64),
        Code::LoadSign32 => load::<4>(displaced(source), stack, packet).map(|v| v as i32 as u64),
        code => {
            let to = displaced(registers[dst]);
            let stored = match code {
                Code::Store8 => store(to, (b as u8).to_ne_bytes(), stack),
                Code::Store16 => store(to, (b as u16).to_ne_bytes(), stack),
                Code::Store32 => store(to, (b as u32).to_ne_bytes(), stack),
                Code::Store64 => store(to, b.to_ne_bytes(), stack),
                _ => return call(op, source, registers, packet),
            };
            return match stored {
                Some(()) => ControlFlow::Continue(()),
                None => ControlFlow::Break(Err(Fault::Access)),
            };
        }
    };
    match loaded {
        Some(value) => {
            registers[dst] = value;
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(Err(Fault::Access)),
    }
}

/// What leaves its result in r0 and the caller-saved registers empty.
fn call(
    op: &Op,
    source: u64,
    registers: &mut Registers,
    packet: &Packet<'_>,
) -> ControlFlow<Result<u64, Fault>> {
    let value = if op.code == Code::Monotonic {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
    } else {
        if registers[6] != CONTEXT {
            return ControlFlow::Break(Err(Fault::Context));
        }
        let offset = op.imm.wrapping_add(if op.flags & IMM != 0 { 0 } else { source }) as i32;
        let loaded = match op.code {
            Code::Packet8 => packet_bytes(packet, offset).map(|[b]: [u8; 1]| b.into()),
            Code::Packet16 => packet_bytes(packet, offset).map(|b| u16::from_be_bytes(b).into()),
            _ => packet_bytes(packet, offset).map(|b| u32::from_be_bytes(b).into()),
        };
        let Some(value) = loaded else { return ControlFlow::Break(Ok(0)) };
        value
    };
    registers[..6].copy_from_slice(&[value, 0, 0, 0, 0, 0]);
    ControlFlow::Continue(())
}

fn packet_bytes<const N: usize>(packet: &Packet<'_>, offset: i32) -> Option<[u8; N]> {
    let offset = if offset < 0 { offset.wrapping_sub(NET_OFFSET) } else { offset };
    let tail = packet.data.get(usize::try_from(offset).ok()?..)?;
    tail.first_chunk().copied()
}

fn load<const N: usize>(address: u64, stack: &Stack, packet: &Packet<'_>) -> Option<u64> {
    let offset = address.wrapping_sub(STACK);
    if offset < STACK_LEN {
        let bytes: [u8; N] = *stack[offset as usize..].first_chunk()?;
        let mut value = [0; 8];
        if cfg!(target_endian = "little") {
            value[..N].copy_from_slice(&bytes);
        } else {
            value[8 - N..].copy_from_slice(&bytes);
        }
        return Some(u64::from_ne_bytes(value));
    }
    let offset = address.wrapping_sub(CONTEXT);
    let size = N as u64;
    // The kernel allows aligned loads of at most 4 bytes.
    if offset >= CONTEXT_LEN || size > 4 || !offset.is_multiple_of(size) {
        return None;
    }
    let word = context(offset & !3, packet).to_ne_bytes();
    let bytes = &word[(offset & 3) as usize..];
    Some(match N {
        1 => bytes[0].into(),
        2 => u16::from_ne_bytes([bytes[0], bytes[1]]).into(),
        _ => u32::from_ne_bytes(word).into(),
    })
}

/// The word of the kernel's `struct __sk_buff` at `offset`. What does not apply to a capture is 0.
fn context(offset: u64, packet: &Packet<'_>) -> u32 {
    match offset {
        0 => packet.len,
        4 => packet.pkt_type.into(),
        // As in the kernel: network order in the lower half of a host-order word.
        16 => packet.ethertype.to_be().into(),
        36 | 40 => packet.ifindex,
        _ => 0,
    }
}

/// The context is read-only, so that only the stack is left.
fn store<const N: usize>(address: u64, bytes: [u8; N], stack: &mut Stack) -> Option<()> {
    let offset = address.wrapping_sub(STACK);
    if offset >= STACK_LEN {
        return None;
    }
    *stack[offset as usize..].first_chunk_mut()? = bytes;
    Some(())
}

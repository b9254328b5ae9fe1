//! Every opcode by the kernel's rules.

use super::*;

const MIN: u64 = 1 << 63;

/// `opcode` on r1 = `a` with r2 = `b`, and with the constant `b` where it is one.
fn binary(opcode: u8, offset: i16, a: u64, b: u64) -> u64 {
    let around = |op: Instruction| {
        let mut p = wide(1, a).to_vec();
        p.extend(wide(2, b));
        p.extend([op, alu_r(MOV, 0, 1), EXIT]);
        p
    };
    let result = execute(&around(ins(opcode | 8, 1, 2, offset, 0)), &[]).unwrap();
    let constant = around(ins(opcode, 1, 0, offset, b as i32));
    // Constants that loading refuses and sign extensions have the register form only.
    if b as i64 == i64::from(b as i32)
        && let Ok(filter) = load_program(&constant)
    {
        assert_eq!(run::execute(&filter.ops, &packet(&[])), Ok(result), "constant form of {opcode:#x}");
    }
    result
}

#[test]
fn arithmetic_64() {
    for (op, a, b, expected) in [
        (ADD, u64::MAX, 2, 1),
        (SUB, 1, 2, u64::MAX),
        (MUL, 1 << 40, 1 << 23, MIN),
        (DIV, u64::MAX, 16, u64::MAX >> 4),
        (DIV, 77, 0, 0),
        (DIV, u64::MAX, u64::MAX, 1),
        (OR, 0xF0, 0x0F, 0xFF),
        (OR, 0, -1i64 as u64, u64::MAX),
        (AND, 0xFF00_0000_0000_00F0, 0xFF, 0xF0),
        (LSH, 1, 63, MIN),
        (LSH, 1, 65, 2),
        (RSH, MIN, 63, 1),
        (RSH, MIN, 64, MIN),
        (MOD, u64::MAX, 10, 5),
        (MOD, MIN + 77, 0, MIN + 77),
        (XOR, 0xFF, 0x0F, 0xF0),
        (MOV, 1, -5i64 as u64, -5i64 as u64),
        (ARSH, MIN, 63, u64::MAX),
        (ARSH, MIN, 64, MIN),
    ] {
        assert_eq!(binary(op | 7, 0, a, b), expected, "{op:#x} {a:#x} {b:#x}");
    }
}

#[test]
fn arithmetic_32_clears_the_upper_half() {
    const HIGH: u64 = 0xABCD_EF01 << 32;
    for (op, a, b, expected) in [
        (ADD, HIGH | 0xFFFF_FFFF, 2, 1),
        (SUB, 1, HIGH | 2, 0xFFFF_FFFF),
        (MUL, 1 << 20 | HIGH, 1 << 20, 0),
        (DIV, HIGH | 100, HIGH | 7, 14),
        (DIV, 100, -1i64 as u64, 0),
        (DIV, 77, HIGH, 0),
        (OR, HIGH | 1, -2i64 as u64, 0xFFFF_FFFF),
        (AND, HIGH | 0xFF, HIGH | 0x1F, 0x1F),
        (LSH, HIGH | 1, 31, 1 << 31),
        (LSH, HIGH | 3, HIGH | 33, 6),
        (RSH, HIGH | 1 << 31, 31, 1),
        (RSH, HIGH | 8, 34, 2),
        (MOD, HIGH | 100, 7, 2),
        (MOD, HIGH | 77, HIGH, 77),
        (XOR, HIGH | 0xFF, 0x0F, 0xF0),
        (MOV, 1, HIGH | 9, 9),
        (MOV, 1, -5i64 as u64, 0xFFFF_FFFB),
        (ARSH, HIGH | 1 << 31, 4, 0xF800_0000),
        (ARSH, HIGH | 16, HIGH | 36, 1),
    ] {
        assert_eq!(binary(op | 4, 0, a, b), expected, "{op:#x} {a:#x} {b:#x}");
    }
}

#[test]
fn signed_division_and_sign_extension() {
    let minus = |n: i64| -n as u64;
    for (opcode, offset, a, b, expected) in [
        (DIV | 7, 1, minus(7), 2, minus(3)),
        (DIV | 7, 1, minus(7), 0, 0),
        (DIV | 7, 1, MIN, u64::MAX, MIN),
        (MOD | 7, 1, minus(7), 2, u64::MAX),
        (MOD | 7, 1, minus(7), 0, minus(7)),
        (MOD | 7, 1, MIN, u64::MAX, 0),
        (DIV | 4, 1, 0xFFFF_FFF9, 2, 0xFFFF_FFFD),
        (DIV | 4, 1, 0x8000_0000, u64::MAX, 0x8000_0000),
        (MOD | 4, 1, 0xFFFF_FFF9, 2, 0xFFFF_FFFF),
        (MOD | 4, 1, 0xF_FFFF_FFF9, 1 << 32, 0xFFFF_FFF9),
        (MOD | 4, 1, 0x8000_0000, u64::MAX, 0),
        (MOV | 7, 8, 0, 0x1180, minus(128)),
        (MOV | 7, 16, 0, 0x1_8000, minus(32768)),
        (MOV | 7, 32, 0, 0x8000_0000, minus(1 << 31)),
        (MOV | 4, 8, 0, 0x1180, 0xFFFF_FF80),
        (MOV | 4, 16, 0, 0x1_8000, 0xFFFF_8000),
    ] {
        assert_eq!(binary(opcode, offset, a, b), expected, "{opcode:#x} off {offset} {a:#x} {b:#x}");
    }
}

#[test]
fn negation_and_byte_order() {
    let value: u64 = 0x0102_0304_0506_0708;
    for (opcode, imm, expected) in [
        (0x87, 0, (value as i64).wrapping_neg() as u64),
        (0x84, 0, u64::from((value as u32).wrapping_neg())),
        (0xD4, 16, u64::from((value as u16).to_le())),
        (0xD4, 32, u64::from((value as u32).to_le())),
        (0xD4, 64, value.to_le()),
        (0xDC, 16, u64::from((value as u16).to_be())),
        (0xDC, 32, u64::from((value as u32).to_be())),
        (0xDC, 64, value.to_be()),
        (0xD7, 16, 0x0807),
        (0xD7, 32, 0x0807_0605),
        (0xD7, 64, 0x0807_0605_0403_0201),
    ] {
        let mut p = wide(0, value).to_vec();
        p.extend([ins(opcode, 0, 0, 0, imm), EXIT]);
        assert_eq!(execute(&p, &[]), Ok(expected), "{opcode:#x} {imm}");
    }
}

#[test]
fn jumps() {
    let taken = |opcode: u8, a: u64, b: u64| {
        let around = |op: Instruction| {
            let mut p = wide(1, a).to_vec();
            p.extend(wide(2, b));
            p.extend([op, alu(MOV, 0, 0), EXIT, alu(MOV, 0, 1), EXIT]);
            p
        };
        let result = execute(&around(ins(opcode | 8, 1, 2, 2, 0)), &[]).unwrap();
        if b as i64 == i64::from(b as i32) {
            assert_eq!(execute(&around(ins(opcode, 1, 0, 2, b as i32)), &[]), Ok(result), "{opcode:#x}");
        }
        result == 1
    };
    let numbers =
        [0, 1, 5, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, 1 << 32 | 5, MIN, u64::MAX - 4, u64::MAX];
    for a in numbers {
        for b in numbers {
            let (sa, sb) = (a as i64, b as i64);
            let (na, nb, sna, snb) = (a as u32, b as u32, a as i32, b as i32);
            for (op, wide, narrow) in [
                (JEQ, a == b, na == nb),
                (JNE, a != b, na != nb),
                (JGT, a > b, na > nb),
                (JGE, a >= b, na >= nb),
                (JLT, a < b, na < nb),
                (JLE, a <= b, na <= nb),
                (JSET, a & b != 0, na & nb != 0),
                (JSGT, sa > sb, sna > snb),
                (JSGE, sa >= sb, sna >= snb),
                (JSLT, sa < sb, sna < snb),
                (JSLE, sa <= sb, sna <= snb),
            ] {
                assert_eq!(taken(op | 5, a, b), wide, "{op:#x} {a:#x} {b:#x}");
                assert_eq!(taken(op | 6, a, b), narrow, "32-bit {op:#x} {a:#x} {b:#x}");
            }
        }
    }
    for long in [ja(1), ins(6, 0, 0, 0, 1)] {
        let p = [jump(JEQ, 1, 0, 2), alu(MOV, 0, 3), long, alu(MOV, 0, 4), EXIT];
        assert_eq!(execute(&p, &[]), Ok(3));
    }
}

#[test]
fn stack() {
    let p = |tail: &[Instruction]| {
        let mut p = wide(1, 0x8182_8384_8586_8788).to_vec();
        p.extend(tail);
        p.push(EXIT);
        execute(&p, &[])
    };
    // Lowest and highest bytes, all sizes, and what was never written is 0.
    assert_eq!(p(&[store(DW, 10, -512, 1), load(DW, 0, 10, -512)]), Ok(0x8182_8384_8586_8788));
    let half = if cfg!(target_endian = "little") { 0x8586_8788 } else { 0x8586_8788 << 32 };
    assert_eq!(p(&[store(W, 10, -8, 1), load(DW, 0, 10, -8)]), Ok(half));
    assert_eq!(p(&[store(H, 10, -2, 1), load(H, 0, 10, -2)]), Ok(0x8788));
    assert_eq!(p(&[store(B, 10, -1, 1), load(B, 0, 10, -1)]), Ok(0x88));
    assert_eq!(p(&[store(W, 10, -4, 1), load(W, 0, 10, -4)]), Ok(0x8586_8788));
    // Signed loads: mode 0x80.
    assert_eq!(p(&[store(B, 10, -1, 1), ins(0x91, 0, 10, -1, 0)]), Ok(0x88u8 as i8 as u64));
    assert_eq!(p(&[store(H, 10, -2, 1), ins(0x89, 0, 10, -2, 0)]), Ok(0x8788u16 as i16 as u64));
    assert_eq!(p(&[store(W, 10, -4, 1), ins(0x81, 0, 10, -4, 0)]), Ok(0x8586_8788u32 as i32 as u64));
    // Constants are sign-extended.
    assert_eq!(p(&[store_imm(DW, 10, -8, -2), load(DW, 0, 10, -8)]), Ok(-2i64 as u64));
    assert_eq!(p(&[store_imm(W, 10, -8, -2), load(W, 0, 10, -8)]), Ok(0xFFFF_FFFE));
    assert_eq!(p(&[store_imm(H, 10, -8, -2), load(H, 0, 10, -8)]), Ok(0xFFFE));
    assert_eq!(p(&[store_imm(B, 10, -8, -2), load(B, 0, 10, -8)]), Ok(0xFE));
    // Unaligned, through a computed address.
    let unaligned = [alu_r(MOV, 2, 10), alu(ADD, 2, -13), store(DW, 2, 0, 1), load(DW, 0, 10, -13)];
    assert_eq!(p(&unaligned), Ok(0x8182_8384_8586_8788));
    for (size, offset) in [(DW, -7), (DW, -513), (W, -3), (H, -1), (B, 0), (B, -513)] {
        assert_eq!(p(&[store(size, 10, offset, 1), alu(MOV, 0, 1)]), Err(Fault::Access));
        assert_eq!(p(&[load(size, 0, 10, offset)]), Err(Fault::Access));
    }
}

#[test]
fn context() {
    let at = |size, offset| execute(&[load(size, 0, 1, offset), EXIT], &[0; 33]);
    assert_eq!(at(W, 0), Ok(33));
    assert_eq!(at(W, 4), Ok(3));
    assert_eq!(at(W, 16), Ok(u64::from(0x0800u16.to_be())));
    assert_eq!(at(W, 36), Ok(7));
    assert_eq!(at(W, 40), Ok(7));
    for zero in [8, 12, 20, 24, 28, 32, 44, 188] {
        assert_eq!(at(W, zero), Ok(0));
    }
    if cfg!(target_endian = "little") {
        assert_eq!((at(B, 0), at(H, 0), at(H, 2), at(B, 17)), (Ok(33), Ok(33), Ok(0), Ok(0)));
        assert_eq!(at(H, 16), Ok(0x0008));
    }
    for (size, offset) in [(W, 192), (B, 192), (B, -1), (W, 2), (H, 1), (DW, 0), (W, i16::MAX)] {
        assert_eq!(at(size, offset), Err(Fault::Access), "{size} at {offset}");
    }
    assert_eq!(execute(&[store_imm(W, 1, 0, 1), alu(MOV, 0, 1), EXIT], &[]), Err(Fault::Access));
    // Spilled and read back it is still the context.
    let p = [store(DW, 10, -8, 1), load(DW, 6, 10, -8), packet_at(B, 1), EXIT];
    assert_eq!(execute(&p, &[1, 2]), Ok(2));
}

#[test]
fn packet_loads() {
    let data: Vec<u8> = (1..=20).collect();
    let at = |load| execute(&[alu_r(MOV, 6, 1), alu(MOV, 7, 8), alu(MOV, 0, 9), load, EXIT], &data);
    assert_eq!(at(packet_at(B, 0)), Ok(1));
    assert_eq!(at(packet_at(H, 1)), Ok(0x0203));
    assert_eq!(at(packet_at(W, 16)), Ok(0x1112_1314));
    assert_eq!(at(packet_by(B, 7, 2)), Ok(11));
    assert_eq!(at(packet_by(H, 7, -8)), Ok(0x0102));
    assert_eq!(at(packet_by(W, 7, 8)), Ok(0x1112_1314));
    // From the network header by the kernel's special range.
    assert_eq!(at(packet_at(H, -0x10_0000)), Ok(0x0102));
    assert_eq!(at(packet_by(B, 7, -0x10_0000)), Ok(9));
    // Outside of the packet the program ends with 0.
    for outside in [
        packet_at(B, 20),
        packet_at(H, 19),
        packet_at(W, 17),
        packet_at(W, i32::MAX),
        packet_at(B, -1),
        packet_at(B, -0x1000),
        packet_at(B, -0x10_0001),
        packet_at(B, -0x20_0000),
        packet_at(B, i32::MIN),
        packet_by(B, 7, -9),
        packet_by(W, 7, i32::MAX),
        packet_by(B, 6, 0x7FFF_FFFF),
    ] {
        assert_eq!(at(outside), Ok(0), "{outside:?}");
    }
    // The offset is 32 bits wide, as the kernel's.
    let mut p = vec![alu_r(MOV, 6, 1)];
    p.extend(wide(7, 5 << 32 | 3));
    p.extend([packet_by(B, 7, 0), EXIT]);
    assert_eq!(execute(&p, &data), Ok(4));
    for load in [packet_at(B, 0), packet_by(B, 1, 0)] {
        let p = [alu(MOV, 6, 0), load, EXIT];
        assert_eq!(execute(&p, &data), Err(Fault::Context));
    }
    // r1 to r5 are gone afterwards; a way around the load leaves r3 readable.
    let p = [
        alu_r(MOV, 6, 1),
        alu(MOV, 3, 5),
        load(W, 0, 1, 0),
        jump(JEQ, 0, 0, 1),
        packet_at(B, 0),
        alu_r(MOV, 0, 3),
        EXIT,
    ];
    assert_eq!((execute(&p, &data), execute(&p, &[])), (Ok(0), Ok(5)));
}

#[test]
fn monotonic_time() {
    let call = ins(0x85, 0, 0, 0, 5);
    let p = [call, alu_r(MOV, 6, 0), call, alu_r(SUB, 0, 6), jump(JEQ, 6, 0, 1), EXIT, alu(MOV, 0, -1), EXIT];
    let passed = execute(&p, &[]).unwrap();
    assert!(passed < 1 << 40, "{passed} ns between two calls");
    let p = [alu(MOV, 3, 1), call, alu_r(MOV, 0, 3), EXIT];
    assert_eq!(refusal(&p), (2, Reason::Unset(3)));
}

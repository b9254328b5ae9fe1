//! Filters as experimenters write them and as compilers do.

use super::*;
use crate::filter::Verdict;

/// Stands for the jump to the two instructions at the end that return 0.
const REJECT: i16 = i16::MIN;

fn with_reject(mut instructions: Vec<Instruction>) -> Filter {
    let end = instructions.len();
    for (at, i) in instructions.iter_mut().enumerate() {
        if i.offset == REJECT {
            i.offset = (end - at - 1) as i16;
        }
    }
    instructions.extend([alu(MOV, 0, 0), EXIT]);
    load_program(&instructions).unwrap()
}

fn ipv4(protocol: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let total = (header + payload.len()) as u16;
    let mut p = vec![0x40 | (header / 4) as u8, 0];
    p.extend(total.to_be_bytes());
    p.extend([0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1]);
    p.resize(header, 1);
    p.extend(payload);
    p
}

/// ICMP echo replies with identifier 0x1234.
fn echo() -> Filter {
    with_reject(vec![
        alu_r(MOV, 6, 1),
        packet_at(B, 0),
        alu_r(MOV, 7, 0),
        alu(RSH, 0, 4),
        jump(JNE, 0, 4, REJECT),
        packet_at(B, 9),
        jump(JNE, 0, 1, REJECT),
        alu(AND, 7, 15),
        alu(LSH, 7, 2),
        packet_by(B, 7, 0),
        jump(JNE, 0, 0, REJECT),
        packet_by(H, 7, 4),
        jump(JNE, 0, 0x1234, REJECT),
        alu(MOV, 0, -1),
        EXIT,
    ])
}

#[test]
fn an_echo_filter() {
    let filter = echo();
    let verdict = |data: &[u8]| filter.run(&packet(data));
    let reply = [0, 0, 0, 0, 0x12, 0x34, 0, 1, 9, 9];
    assert_eq!(verdict(&ipv4(1, 0, &reply)), Verdict::Deliver(30));
    assert_eq!(verdict(&ipv4(1, 8, &reply)), Verdict::Deliver(38));
    assert_eq!(verdict(&ipv4(1, 0, &[8, 0, 0, 0, 0x12, 0x34, 0, 1])), Verdict::Ignore);
    assert_eq!(verdict(&ipv4(1, 0, &[0, 0, 0, 0, 0x34, 0x12, 0, 1])), Verdict::Ignore);
    assert_eq!(verdict(&ipv4(17, 0, &reply)), Verdict::Ignore);
    assert_eq!(verdict(&ipv4(1, 0, &reply[..5])), Verdict::Ignore);
    assert_eq!(verdict(&[]), Verdict::Ignore);
    assert_eq!(verdict(&[0x60; 60]), Verdict::Ignore);
    // Longer on the wire than what was kept.
    let data = ipv4(1, 0, &reply);
    assert_eq!(filter.run(&Packet { len: 1500, ..packet(&data) }), Verdict::Deliver(1500));
    assert_eq!(filter.run(&Packet { len: 10, ..packet(&data) }), Verdict::Deliver(10));
}

#[test]
fn r0_is_a_32_bit_length() {
    let returns = |value: u64| {
        let mut p = wide(0, value).to_vec();
        p.push(EXIT);
        load_program(&p).unwrap().run(&packet(&[0; 40]))
    };
    assert_eq!(returns(0), Verdict::Ignore);
    assert_eq!(returns(1 << 32), Verdict::Ignore);
    assert_eq!(returns(24), Verdict::Deliver(24));
    assert_eq!(returns(1 << 32 | 24), Verdict::Deliver(24));
    assert_eq!(returns(-24i64 as u64), Verdict::Deliver(40));
}

/// Stack slots of [`traceroute`].
const CONTEXT: i16 = -8;
const FIRST: i16 = -16;
const HEADER: i16 = -24;
const TOTAL: i16 = -32;
const QUOTED: i16 = -40;
const TRANSPORT: i16 = -48;
const WORD: i16 = -56;

/// ICMP errors that quote a UDP datagram from 192.0.2.9 to a port of traceroute, as unoptimised compiler output has it:
/// every value through the stack, bytes put together one by one. Returns the total length of the header.
fn traceroute() -> Filter {
    let mut p = vec![
        alu_r(MOV, 6, 1),
        store(DW, 10, CONTEXT, 6),
        packet_at(B, 0),
        store(DW, 10, FIRST, 0),
        load(DW, 1, 10, FIRST),
        alu(RSH, 1, 4),
        alu(AND, 1, 15),
        jump(JNE, 1, 4, REJECT),
        load(DW, 2, 10, FIRST),
        alu(AND, 2, 15),
        alu(LSH, 2, 2),
        store(DW, 10, HEADER, 2),
        alu(MOV, 3, 20),
        jump_r(JSGT, 3, 2, REJECT),
        packet_at(B, 9),
        alu(LSH, 0, 56),
        alu(ARSH, 0, 56),
        jump(JNE, 0, 1, REJECT),
        packet_at(B, 2),
        alu(LSH, 0, 8),
        store(DW, 10, TOTAL, 0),
        packet_at(B, 3),
        load(DW, 1, 10, TOTAL),
        alu_r(OR, 1, 0),
        store(DW, 10, TOTAL, 1),
        load(DW, 1, 10, CONTEXT),
        load(W, 2, 1, 0),
        load(DW, 3, 10, TOTAL),
        jump_r(JGT, 3, 2, REJECT),
        load(DW, 7, 10, HEADER),
        packet_by(B, 7, 0),
        jump(JEQ, 0, 11, 1),
        jump(JNE, 0, 3, REJECT),
        alu(ADD, 7, 8),
        store(DW, 10, QUOTED, 7),
        packet_by(B, 7, 0),
        alu(AND, 0, 15),
        alu(LSH, 0, 2),
        load(DW, 8, 10, QUOTED),
        alu_r(ADD, 8, 0),
        store(DW, 10, TRANSPORT, 8),
        packet_by(B, 7, 9),
        jump(JNE, 0, 17, REJECT),
        alu(MOV, 1, 0),
        store(DW, 10, WORD, 1),
    ];
    for byte in 0..4 {
        p.extend([
            load(DW, 6, 10, CONTEXT),
            packet_by(B, 7, 12 + byte),
            load(DW, 1, 10, WORD),
            alu(LSH, 1, 8),
            alu_r(OR, 1, 0),
            store(DW, 10, WORD, 1),
        ]);
    }
    p.extend(wide(2, 0xC000_0209));
    p.extend([
        jump_r(JNE, 1, 2, REJECT),
        load(DW, 8, 10, TRANSPORT),
        packet_by(B, 8, 2),
        alu(LSH, 0, 8),
        alu_r(MOV, 9, 0),
        packet_by(B, 8, 3),
        alu_r(OR, 9, 0),
        alu(MOV, 2, 33434),
        jump_r(JGT, 2, 9, REJECT),
        alu(MOV, 2, 33534),
        jump_r(JGT, 9, 2, REJECT),
        load(DW, 0, 10, TOTAL),
        EXIT,
    ]);
    assert!(p.len() >= 80, "{}", p.len());
    with_reject(p)
}

#[test]
fn compiler_output() {
    let filter = traceroute();
    let quoted = |source: u8, port: u16| {
        let mut inner = ipv4(17, 4, &[0x99, 0x99, (port >> 8) as u8, port as u8, 0, 8, 0, 0]);
        inner[15] = source;
        inner
    };
    let error = |kind: u8, inner: &[u8]| {
        let mut icmp = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        icmp.extend(inner);
        ipv4(1, 0, &icmp)
    };
    let verdict = |data: &[u8]| filter.run(&packet(data));
    assert_eq!(verdict(&error(11, &quoted(9, 33434))), Verdict::Deliver(60));
    assert_eq!(verdict(&error(3, &quoted(9, 33534))), Verdict::Deliver(60));
    // Padding of the link behind the packet.
    let mut padded = error(11, &quoted(9, 33500));
    padded.extend([0; 6]);
    assert_eq!(verdict(&padded), Verdict::Deliver(60));
    for refused in [
        error(4, &quoted(9, 33434)),
        error(11, &quoted(8, 33434)),
        error(11, &quoted(9, 33433)),
        error(11, &quoted(9, 33535)),
        error(11, &ipv4(6, 0, &[0; 8])),
        error(11, &quoted(9, 33434))[..53].to_vec(),
        error(11, &quoted(9, 33434))[..1].to_vec(),
        ipv4(17, 0, &[0; 40]),
    ] {
        assert_eq!(verdict(&refused), Verdict::Ignore, "{refused:02x?}");
    }
}

#[test]
fn filters_can_cross_threads_and_show_themselves() {
    fn shared<T: Clone + Send + Sync + std::fmt::Debug>(_: &T) {}
    shared(&echo());
}

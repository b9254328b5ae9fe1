//! How long one run of a capture filter takes.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use pktendpt::filter::{Filter, Packet, Verdict};
use pktlab::program::{Instruction, Program, ProgramKind};
use serde_json::{Map, Value, json};

use super::percentile;

const RUNS: usize = 100_000;

const fn ins(opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) -> Instruction {
    Instruction { opcode, dst, src, offset, imm }
}

/// Delivers ICMP echo replies with identifier 0x1234: 15 instructions, of which 13 run.
const ECHO: [Instruction; 15] = [
    ins(0xBF, 6, 1, 0, 0),      // r6 = r1, the context
    ins(0x30, 0, 0, 0, 9),      // r0 = protocol
    ins(0x55, 0, 0, 10, 1),     // not ICMP: reject
    ins(0x30, 0, 0, 0, 0),      // r0 = version and header length
    ins(0x57, 0, 0, 0, 15),     // r0 &= 15
    ins(0x67, 0, 0, 0, 2),      // r0 <<= 2
    ins(0xBF, 7, 0, 0, 0),      // r7 = r0
    ins(0x50, 0, 7, 0, 0),      // r0 = ICMP type
    ins(0x55, 0, 0, 4, 0),      // not an echo reply: reject
    ins(0x48, 0, 7, 0, 4),      // r0 = identifier
    ins(0x55, 0, 0, 2, 0x1234), // somebody else's: reject
    ins(0xB7, 0, 0, 0, -1),     // r0 = all of it
    ins(0x95, 0, 0, 0, 0),      // exit
    ins(0xB7, 0, 0, 0, 0),      // reject: r0 = 0
    ins(0x95, 0, 0, 0, 0),      // exit
];

/// Counts to 2,047 and ends with its last step of fuel.
const LOOP: [Instruction; 4] = [
    ins(0xB7, 0, 0, 0, 0),      // r0 = 0
    ins(0x07, 0, 0, 0, 1),      // r0 += 1
    ins(0xA5, 0, 0, -2, 2_047), // below 2047: again
    ins(0x95, 0, 0, 0, 0),      // exit
];

pub fn measure() -> Result<Map<String, Value>> {
    eprintln!("filters");
    let mut reply = vec![0x45, 0, 0, 84, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1];
    reply.extend([0, 0, 0, 0, 0x12, 0x34, 0, 1]);
    reply.resize(84, 0);
    let packet = Packet { data: &reply, len: 84, ethertype: 0x0800, ifindex: 1, pkt_type: 0 };
    let mut figures = Map::new();
    let mut line = "one run of a filter:".to_owned();
    let programs: [(&str, &str, &[Instruction]); 2] =
        [("filter", "15 instructions", &ECHO), ("filter_loop", "4,096 steps", &LOOP)];
    for (name, words, instructions) in programs {
        let (p50, p99) = time(instructions, &packet)?;
        line += &format!("  {words}: p50 {p50:.0} ns, p99 {p99:.0} ns");
        figures.insert(format!("{name}_p50_ns"), json!(p50.round()));
        figures.insert(format!("{name}_p99_ns"), json!(p99.round()));
    }
    println!("{line}");
    Ok(figures)
}

/// p50 and p99 of single runs, ns, without what reading the clock takes.
fn time(instructions: &[Instruction], packet: &Packet<'_>) -> Result<(f64, f64)> {
    let body: Vec<u8> = instructions.iter().flat_map(Instruction::encode).collect();
    let filter = Filter::load(&Program { kind: ProgramKind::Ebpf, body: body.into() })?;
    ensure!(matches!(filter.run(packet), Verdict::Deliver(84)), "the filter does not do what it should");
    let clock = samples(|| {});
    let runs = samples(|| {
        black_box(black_box(&filter).run(black_box(packet)));
    });
    let overhead = percentile(&clock, 0.5);
    Ok((percentile(&runs, 0.5) - overhead, percentile(&runs, 0.99) - overhead))
}

fn samples(mut work: impl FnMut()) -> Vec<f64> {
    let mut samples = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let begun = Instant::now();
        work();
        samples.push(begun.elapsed().as_nanos() as f64);
    }
    samples.sort_by(f64::total_cmp);
    samples
}

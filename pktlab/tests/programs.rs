//! The 27 program vectors (spec `programs.md`) and what they leave out.
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use pktlab::program::{DecodeError, Instruction, Program, ProgramKind, parse_ebpf_text};
use proptest::prelude::*;
use serde_json::Value;

#[test]
fn every_vector_loads_and_decodes_as_it_says() {
    let all: Vec<Value> = serde_json::from_str(include_str!("vectors/programs.json")).unwrap();
    assert_eq!(all.len(), 27, "number of vectors");
    let (mut loaded, mut refused, mut decoded) = (0, 0, 0);
    for vector in all {
        let name = vector["name"].as_str().unwrap();
        let encoded = || Bytes::from(hex::decode(vector["encoded_hex"].as_str().unwrap()).unwrap());
        let program = if let Some(text) = vector["source_text"].as_str() {
            parse_ebpf_text(text.as_bytes())
        } else if let Some(module) = vector["source_hex"].as_str() {
            Ok(Program::from_wasm(hex::decode(module).unwrap()))
        } else {
            let ok = vector["decode_ok"].as_bool().unwrap();
            assert_eq!(Program::decode(encoded()).is_ok(), ok, "{name}");
            decoded += 1;
            continue;
        };
        match program {
            Err(e) => {
                assert_eq!(vector["load_error"], true, "{name}: {e}");
                assert_eq!(vector["error_line"], e.line, "{name}: {e}");
                refused += 1;
            }
            Ok(program) => {
                assert_eq!(program.encode(), encoded(), "{name}");
                assert_eq!(hex::encode(program.digest()), vector["digest"].as_str().unwrap(), "{name}");
                assert_eq!(program.kind.octet(), vector["type"].as_u64().unwrap() as u8, "{name}");
                assert_eq!(Program::decode(program.encode()).unwrap(), program, "{name}");
                loaded += 1;
            }
        }
    }
    assert_eq!((loaded, refused, decoded), (12, 9, 6), "kinds of vectors");
}

#[test]
fn an_instruction_has_its_halves_where_the_specification_puts_them() {
    let program = Program::decode(Bytes::from_static(b"\x00\x61\xa3\x12\x34\x12\x34\x56\x78")).unwrap();
    let only = Instruction { opcode: 0x61, dst: 10, src: 3, offset: 0x1234, imm: 0x1234_5678 };
    assert_eq!(program.instructions().collect::<Vec<_>>(), [only]);
    assert_eq!(Program::decode(Bytes::from_static(b"\x02")), Err(DecodeError::Kind(2)));
}

#[test]
fn text_errors_name_their_line() {
    for (text, line) in [
        ("149 0 0 0 08\n", 1),
        ("# c\n\n149 0 0 0 0x\n", 3),
        ("149 0,0 0 0\n", 1),
        ("149 0 0 0 99999999999999999999999999\n", 1),
        ("149 0 0 0 0\n+ 149 0 0 0 0", 2),
        ("149 0 0 0\r\n", 1),
        ("\u{e4}", 1),
    ] {
        assert_eq!(parse_ebpf_text(text.as_bytes()).unwrap_err().line, line, "{text:?}");
    }
}

proptest! {
    #[test]
    fn written_text_reads_back(raw: Vec<[u8; 8]>) {
        let body = Bytes::from(raw.concat());
        let program = Program { kind: ProgramKind::Ebpf, body };
        let text: String = program
            .instructions()
            .map(|i| format!("{} {:#x} 0{:o} {} {:#x}\n", i.opcode, i.dst, i.src, i.offset as u16, i.imm as u32))
            .collect();
        prop_assert_eq!(parse_ebpf_text(text.as_bytes()).unwrap(), program);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text: Vec<u8>) {
        let _ = parse_ebpf_text(&text);
    }
}

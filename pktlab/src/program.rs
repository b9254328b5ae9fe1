//! Filters and monitors as they are stored and sent: container, digest, eBPF text form (spec `programs.md` §1–3).
//!
//! Nothing here runs a program or judges whether it could run: register numbers and the WASM magic are the loader's.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of one encoded eBPF instruction.
const INSTRUCTION: usize = 8;

/// What a program's body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProgramKind {
    /// Instructions of 8 bytes, see [`Instruction`].
    Ebpf,
    /// A WebAssembly binary module.
    Wasm,
}

impl ProgramKind {
    /// The type byte in front of an encoded program.
    pub const fn octet(self) -> u8 {
        match self {
            ProgramKind::Ebpf => 0,
            ProgramKind::Wasm => 1,
        }
    }
}

/// A program in memory. Cloning shares the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub kind: ProgramKind,
    /// Without the type byte.
    pub body: Bytes,
}

/// Why bytes are no encoded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("an encoded program has at least its type byte, this one is empty")]
    Empty,
    #[error("program type {0:#04x} is unknown: 0x00 is eBPF, 0x01 is WASM")]
    Kind(u8),
    #[error("an eBPF body of {0} bytes is not a whole number of 8-byte instructions")]
    Partial(usize),
}

/// Why a text is no eBPF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct TextError {
    /// Counted from 1, ignored lines included.
    pub line: usize,
    pub reason: &'static str,
}

/// One eBPF instruction. A 64-bit immediate load takes two in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub opcode: u8,
    /// Register numbers as encoded, 0–15; the machine has 0–10.
    pub dst: u8,
    pub src: u8,
    pub offset: i16,
    pub imm: i32,
}

impl Program {
    /// Takes an encoded program apart; the body shares `encoded`'s allocation.
    pub fn decode(encoded: Bytes) -> Result<Self, DecodeError> {
        let kind = match encoded.first() {
            None => return Err(DecodeError::Empty),
            Some(0) => ProgramKind::Ebpf,
            Some(1) => ProgramKind::Wasm,
            Some(&other) => return Err(DecodeError::Kind(other)),
        };
        let body = encoded.slice(1..);
        if kind == ProgramKind::Ebpf && !body.len().is_multiple_of(INSTRUCTION) {
            return Err(DecodeError::Partial(body.len()));
        }
        Ok(Program { kind, body })
    }

    /// A WASM module, byte for byte (spec `programs.md` §3.2).
    pub fn from_wasm(module: impl Into<Bytes>) -> Self {
        Program { kind: ProgramKind::Wasm, body: module.into() }
    }

    /// Type byte and body: what CDATA and NCAP carry.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + self.body.len());
        out.put_u8(self.kind.octet());
        out.put_slice(&self.body);
        out.freeze()
    }

    /// SHA-256 over the encoded form, type byte included (spec `programs.md` §2).
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(&[self.kind.octet()]);
        hash.update(&self.body);
        let mut out = [0; 32];
        out.copy_from_slice(hash.finish().as_ref());
        out
    }

    /// The instructions of an eBPF program; none for WASM.
    pub fn instructions(&self) -> impl Iterator<Item = Instruction> {
        let body = if self.kind == ProgramKind::Ebpf { &self.body[..] } else { &[] };
        body.as_chunks::<INSTRUCTION>().0.iter().map(Instruction::decode)
    }
}

impl Instruction {
    /// The destination is in the *high* half of the register byte, numbers are big-endian: twice unlike common tools.
    pub fn encode(&self) -> [u8; INSTRUCTION] {
        let [o0, o1] = self.offset.to_be_bytes();
        let [i0, i1, i2, i3] = self.imm.to_be_bytes();
        [self.opcode, self.dst << 4 | self.src & 0xF, o0, o1, i0, i1, i2, i3]
    }

    fn decode(raw: &[u8; INSTRUCTION]) -> Self {
        let [opcode, registers, o0, o1, i0, i1, i2, i3] = *raw;
        Instruction {
            opcode,
            dst: registers >> 4,
            src: registers & 0xF,
            offset: i16::from_be_bytes([o0, o1]),
            imm: i32::from_be_bytes([i0, i1, i2, i3]),
        }
    }
}

/// Reads the text form of an eBPF program: five numbers a line (spec `programs.md` §3.1).
pub fn parse_ebpf_text(text: &[u8]) -> Result<Program, TextError> {
    let mut body = BytesMut::new();
    for (index, line) in text.split(|b| *b == b'\n').enumerate() {
        if matches!(line.first(), None | Some(b'#' | b'\r')) {
            continue;
        }
        let instruction = parse_line(line).map_err(|reason| TextError { line: index + 1, reason })?;
        body.put_slice(&instruction.encode());
    }
    Ok(Program { kind: ProgramKind::Ebpf, body: body.freeze() })
}

fn parse_line(line: &[u8]) -> Result<Instruction, &'static str> {
    let mut rest = line;
    let opcode = number(&mut rest, 0xFF)?;
    let dst = number(separated(&mut rest)?, 15)?;
    let src = number(separated(&mut rest)?, 15)?;
    let offset = number(separated(&mut rest)?, 0xFFFF)?;
    let imm = number(separated(&mut rest)?, 0xFFFF_FFFF)?;
    // The limits above make every conversion exact; two's complement for offset and immediate.
    Ok(Instruction {
        opcode: opcode as u8,
        dst: dst as u8,
        src: src as u8,
        offset: offset as u16 as i16,
        imm: imm as u32 as i32,
    })
}

/// What follows a number that is not the last must be a blank or nothing at all.
fn separated<'a, 'b>(rest: &'a mut &'b [u8]) -> Result<&'a mut &'b [u8], &'static str> {
    match rest.first() {
        None | Some(b' ' | b'\t' | b'\r') => Ok(rest),
        Some(_) => Err("a number is followed by something that is not a blank"),
    }
}

/// Takes one number, 0 to `max`, off the front.
fn number(rest: &mut &[u8], max: u64) -> Result<u64, &'static str> {
    while let Some((b' ' | b'\t', tail)) = rest.split_first() {
        *rest = tail;
    }
    *rest = match rest.split_first() {
        None => return Err("fewer than five numbers (opcode, destination, source, offset, immediate)"),
        Some((b'-', _)) => return Err("negative number: write its two's complement"),
        Some((b'+', tail)) => tail,
        Some(_) => rest,
    };
    let radix = match rest {
        [b'0', b'x' | b'X', tail @ ..] => {
            *rest = tail;
            16
        }
        // The leading zero stays: alone it is the number.
        [b'0', ..] => 8,
        _ => 10,
    };
    let mut value: Option<u64> = None;
    while let Some((digit, tail)) =
        rest.split_first().and_then(|(b, t)| Some((char::from(*b).to_digit(radix)?, t)))
    {
        *rest = tail;
        // Stops growing once too large, so it cannot wrap.
        let sum = value.unwrap_or(0) * u64::from(radix) + u64::from(digit);
        value = Some(sum.min(max + 1));
    }
    match value {
        // The reference would take "08" for a 0 and drop the rest of the line.
        Some(_) if rest.first().is_some_and(u8::is_ascii_digit) => Err("digit 8 or 9 in an octal number"),
        Some(value) if value <= max => Ok(value),
        Some(_) => Err("number out of range (opcode 255, registers 15, offset 65535, immediate 4294967295)"),
        None => Err("not a number"),
    }
}

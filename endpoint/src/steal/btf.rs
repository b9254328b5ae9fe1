//! Type information (BTF) of the program's two functions. The kernel verifies calls back from helpers by it; the types
//! themselves say nothing that is used.

/// Type numbers of the functions.
pub(super) const MAIN: u32 = 3;
pub(super) const STEP: u32 = 4;

const KIND_INT: u32 = 1;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const SIGNED: u32 = 1 << 24;

/// Names, each terminated; 0 is the empty one.
const STRINGS: &[u8] = b"\0int\0steal\0step\0";
const NAME_INT: u32 = 1;
const NAME_MAIN: u32 = 5;
const NAME_STEP: u32 = 11;

/// Header, types, strings; in host byte order.
pub(super) fn build() -> Vec<u8> {
    // Each type: name, kind, size or type; static functions have linkage 0. They are numbered from 1.
    let types = [
        // 1: int, 32 bits
        [NAME_INT, KIND_INT << 24, 4].as_slice(),
        &[SIGNED | 32],
        // 2: int (*)()
        &[0, KIND_FUNC_PROTO << 24, 1],
        &[NAME_MAIN, KIND_FUNC << 24, 2],
        &[NAME_STEP, KIND_FUNC << 24, 2],
    ]
    .concat();
    let types_len = 4 * types.len() as u32;
    let mut out = Vec::new();
    // Magic, version 1, no flags, length of the header.
    out.extend(0xEB9Fu16.to_ne_bytes());
    out.extend([1, 0]);
    for field in [24, 0, types_len, types_len, STRINGS.len() as u32].iter().chain(&types) {
        out.extend(field.to_ne_bytes());
    }
    out.extend(STRINGS);
    out
}

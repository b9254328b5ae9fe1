//! The program as a whole: every operation is reached, can get to an exit, and reads registers that something set.
//!
//! Three passes over the flow graph, each linear in the program apart from the last, whose register sets only grow.

use super::Reason;
use super::op::{Code, Op};

/// r1 (context) and r10 (stack) are set on entry.
const ENTRY: u16 = 1 << 1 | 1 << 10;

/// Checks decoded operations; an error names the operation.
pub(super) fn check(ops: &[Op]) -> Result<(), (usize, Reason)> {
    if let Some(last) = ops.len().checked_sub(1)
        && !matches!(ops[last].code, Code::Exit | Code::Jump)
    {
        return Err((last, Reason::FallsOff));
    }
    reachable(ops)?;
    ends(ops)?;
    registers(ops)
}

/// Where control can go from operation `at`. The last operation never falls through, see [`check`].
fn successors(ops: &[Op], at: usize) -> impl Iterator<Item = usize> {
    let op = &ops[at];
    let next = (!matches!(op.code, Code::Exit | Code::Jump)).then_some(at + 1);
    let target = op.is_jump().then_some(op.off as usize);
    next.into_iter().chain(target)
}

fn reachable(ops: &[Op]) -> Result<(), (usize, Reason)> {
    let mut seen = vec![false; ops.len()];
    let mut todo = vec![0];
    while let Some(at) = todo.pop() {
        if !std::mem::replace(&mut seen[at], true) {
            todo.extend(successors(ops, at));
        }
    }
    match seen.iter().position(|seen| !seen) {
        Some(at) => Err((at, Reason::Unreachable)),
        None => Ok(()),
    }
}

/// Walks backwards from the exits. What is not met can only run in circles.
fn ends(ops: &[Op]) -> Result<(), (usize, Reason)> {
    let mut sources = vec![Vec::new(); ops.len()];
    for at in 0..ops.len() {
        for next in successors(ops, at) {
            sources[next].push(at);
        }
    }
    let mut ends = vec![false; ops.len()];
    let mut todo: Vec<usize> = (0..ops.len()).filter(|at| ops[*at].code == Code::Exit).collect();
    while let Some(at) = todo.pop() {
        if !std::mem::replace(&mut ends[at], true) {
            todo.extend(&sources[at]);
        }
    }
    match ends.iter().position(|ends| !ends) {
        Some(at) => Err((at, Reason::Endless)),
        None => Ok(()),
    }
}

/// Refuses reads of registers that are set on no way to the read. The kernel's verifier follows single ways and knows
/// which branches exclude each other; asking for "set on every way" would refuse compiler output that it accepts.
fn registers(ops: &[Op]) -> Result<(), (usize, Reason)> {
    let mut set = vec![0u16; ops.len()];
    set[0] = ENTRY;
    let mut todo = vec![0];
    while let Some(at) = todo.pop() {
        let used = ops[at].registers();
        let after = (set[at] & !used.clears) | used.sets;
        for next in successors(ops, at) {
            // An operation whose set did not grow has nothing new to tell, apart from the first visit: r10 is in every
            // set, so that the first visit always grows.
            if set[next] | after != set[next] {
                set[next] |= after;
                todo.push(next);
            }
        }
    }
    for (at, op) in ops.iter().enumerate() {
        let missing = op.registers().reads & !set[at];
        if missing != 0 {
            return Err((at, Reason::Unset(missing.trailing_zeros() as u8)));
        }
    }
    Ok(())
}

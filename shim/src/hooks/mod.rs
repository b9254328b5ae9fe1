//! The hooks, by what they are about.

pub mod control;
pub mod files;
pub mod io;
pub mod resolve;
pub mod syscall;

//! The session on virtual time, with a scripted world.

mod budgets;
mod extension;
mod lab;
mod limits;
mod random;
mod raw;
mod requests;
mod robust;
mod table;
mod timed;
mod transmit;
mod world;

//! The session on virtual time, with a scripted world.

mod budgets;
mod requests;
mod transmit;
mod world;

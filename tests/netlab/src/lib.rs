//! Network laboratory in namespaces: hosts, routers, delay, servers, packet counters.
//!
//! Tests use [`Lab`]; the program `netlab` is a thin command line over it. Nothing here knows PacketLab.

pub mod lab;
pub mod place;
pub mod relay;
pub mod scenario;
pub mod serve;
pub mod services;
pub mod shaper;
pub mod state;
mod sys;

pub use lab::{Counters, Lab};
pub use scenario::Scenario;

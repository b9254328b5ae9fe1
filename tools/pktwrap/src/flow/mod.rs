//! One task per socket of the program.
//!
//! * [`tcp`]: connections, at the endpoint or (loopback) on this machine; [`local`] is the latter's network side.
//! * [`udp`]: datagram sockets; `ports` is their network side, `icmp` says which errors a program learns of.

mod icmp;
pub mod local;
mod ports;
pub mod tcp;
pub mod udp;

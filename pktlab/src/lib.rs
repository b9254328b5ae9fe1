//! The PacketLab protocol for every program that speaks it.
//!
//! | module | what lives there |
//! |---|---|
//! | [`wire`] | messages: one type per message, byte layouts, the streaming decoder |
//! | [`cert`] | keys, certificates, chain verification, issuing |
//! | [`session`] | TLS for PacketLab peers and the message stream on top of it |
//! | [`controller`] | the controller's side of a session: sockets, memory, notifications |
//! | [`program`] | filters and monitors: container, digest, text form |
//! | [`descriptor`] | experiment descriptors and endpoint attributes |
//! | [`vmem`] | the endpoint's memory map: addresses, layouts, socket states |
//!
//! Sockets of a particular daemon and policy do not belong here.

pub mod cert;
pub mod controller;
pub mod descriptor;
pub mod program;
pub mod session;
pub mod vmem;
pub mod wire;

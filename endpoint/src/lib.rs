//! The PacketLab measurement endpoint: serves one controller session after another.
//!
//! | module | what lives there |
//! |---|---|
//! | [`session`] | the state machine of one session, without I/O and clock |
//! | [`net`] | real sockets, addresses, the clock |
//! | [`pace`] | sends at their times, by a thread of its own |
//! | [`filter`], [`steal`] | capture filters; withholding what they accept from the host |
//! | [`limits`], [`account`] | what certificates allow; what is remembered of it |
//! | [`driver`] | joins a session to its control stream and its sockets |
//! | [`dial`] | sessions with controllers |
//! | [`config`], [`import`] | the operator's file; conversion of the reference's |
//! | [`policy`] | destinations the operator allows |
//! | [`service`], [`stop`] | signals, reloading, the service manager; how a session is told to end |
//! | [`status`] | what the endpoint is doing, for its operator |
//! | [`check`] | whether it can do what its configuration asks for |

pub mod account;
pub mod check;
pub mod config;
pub mod dial;
pub mod driver;
pub mod filter;
pub mod import;
pub mod limits;
pub mod net;
pub mod pace;
pub mod policy;
pub mod service;
pub mod session;
pub mod status;
pub mod steal;
pub mod stop;
mod sys;

pub use sys::inherited;

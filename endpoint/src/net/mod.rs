//! The real measurement sockets: non-blocking, all in one level-triggered epoll together with one timer and the outcomes of
//! timed sends.
//!
//! | file | job |
//! |---|---|
//! | `sockets` | [`Sockets`]: the table of sockets, and what the session asks of them |
//! | `open` | making sockets and asking them for their addresses |
//! | `poll` | the epoll |
//! | `message` | one datagram in or out with its control data: time stamps, hop limit, reported errors |
//! | `raw`, `ring` | raw sockets, captures |
//! | `options` | socket options by number |
//! | `addresses` | what this host exports |
//! | `sys` | the calls that need `unsafe` |

mod addresses;
pub mod message;
mod open;
mod options;
mod poll;
mod raw;
mod ring;
mod sockets;
mod sys;

pub use addresses::{Interface, exported, interfaces, resolv_conf};
pub use poll::Polled;
pub use sockets::{CaptureOptions, Sockets};

use pktlab::wire::Ticks;
use rustix::time::{ClockId, clock_gettime};

/// The endpoint's clock.
pub fn now() -> Ticks {
    read(ClockId::Realtime)
}

/// The clock that never steps, for what the kernel shall end by itself.
pub fn monotonic() -> Ticks {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Ticks {
    let time = clock_gettime(clock);
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

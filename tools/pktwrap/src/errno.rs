//! What a program is told when the endpoint says no.

use pktlab::controller::{ConnectFailure, Error};
use pktlab::wire::{ErrId, Outcome};

/// errno of a failed connect.
pub fn of_connect(failure: &ConnectFailure) -> i32 {
    match failure {
        ConnectFailure::Errno(errno) if *errno != 0 => i32::from(*errno),
        ConnectFailure::Refused => libc::ECONNREFUSED,
        ConnectFailure::Reset => libc::ECONNRESET,
        ConnectFailure::TimedOut => libc::ETIMEDOUT,
        ConnectFailure::Unreachable => libc::EHOSTUNREACH,
        // The reference gives "network unreachable" no state of its own; nothing else is as common.
        ConnectFailure::Errno(_) | ConnectFailure::Unknown => libc::ENETUNREACH,
        ConnectFailure::Request(error) => of_request(error),
    }
}

/// errno of a refused request.
pub fn of_request(error: &Error) -> i32 {
    match error {
        Error::Refused { outcome, .. } => of_outcome(*outcome),
        Error::NoSocket => libc::ENFILE,
        Error::Encode(_) => libc::EINVAL,
        Error::Unsupported(_) => libc::EOPNOTSUPP,
        Error::Ended(_) | Error::Unexpected { .. } | Error::SetupTimeout(_) => libc::ENETDOWN,
    }
}

/// errno of a RESULT that is not success.
pub fn of_outcome(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::MonitorRejected { .. } | Outcome::MonitorFailed { .. } => libc::EPERM,
        Outcome::Plain(errid) => match errid {
            ErrId::ESKTNOADDR => libc::EADDRNOTAVAIL,
            ErrId::ETCPNOPORT | ErrId::EUDPNOPORT => libc::EADDRINUSE,
            ErrId::ESKTNOPRFAM | ErrId::EUNKFAULT => libc::ENETUNREACH,
            ErrId::ESKTNOPROTO => libc::EPROTONOSUPPORT,
            ErrId::ESKTOPNDENY | ErrId::ESKTPKTDENY => libc::EPERM,
            ErrId::ESYSNOBUFS | ErrId::ENORES => libc::ENOBUFS,
            ErrId::ESYSNOPERM => libc::EACCES,
            ErrId::ESKTNOTOPEN => libc::EPIPE,
            _ => libc::EIO,
        },
    }
}

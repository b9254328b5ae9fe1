//! Which errors of a datagram socket a program learns of by itself, without IP_RECVERR: Linux reports those that a retry will
//! not cure (`icmp_err_convert` and `tab_unreach` in its ICMP code call them fatal), so a router that drops one packet of
//! many does not disturb the socket.

use pktlab::wire::NErr;

/// SO_EE_ORIGIN_* of what ICMP messages told.
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

const UNREACHABLE: u8 = 3;
const PARAMETER_PROBLEM: u8 = 12;
const UNREACHABLE6: u8 = 1;
const PARAMETER_PROBLEM6: u8 = 4;

/// Whether a connected socket reports this error with its next call. What the endpoint's own system refused always is.
pub fn is_hard(error: &NErr) -> bool {
    match (error.origin, error.icmp_type) {
        // All but network (0) and host (1) unreachable, source route (5), and the two host-and-service codes.
        (ORIGIN_ICMP, UNREACHABLE) => !matches!(error.icmp_code, 0 | 1 | 5 | 11 | 12),
        (ORIGIN_ICMP, PARAMETER_PROBLEM) => true,
        // All but a missing route (0), neighbour (2) or address (3).
        (ORIGIN_ICMP6, UNREACHABLE6) => !matches!(error.icmp_code, 0 | 2 | 3),
        (ORIGIN_ICMP6, PARAMETER_PROBLEM6) => true,
        (ORIGIN_ICMP | ORIGIN_ICMP6, _) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(origin: u8, icmp_type: u8, icmp_code: u8) -> NErr {
        NErr {
            socket: 0,
            family: if origin == ORIGIN_ICMP6 { 6 } else { 4 },
            proto: 17,
            time: 0,
            errno: 111,
            origin,
            icmp_type,
            icmp_code,
            info: 0,
            offender: None,
            remote: None,
            data: Default::default(),
        }
    }

    #[test]
    fn refusals_are_told_and_lost_packets_are_not() {
        let told = [(0, 0, 0), (1, 0, 0), (2, 3, 3), (2, 3, 4), (2, 3, 13), (2, 12, 0), (3, 1, 4), (3, 4, 1)];
        // Routes that are gone for now, time exceeded (a traceroute's hops), IPv6 packet too big.
        let untold = [(2, 3, 0), (2, 3, 1), (2, 11, 0), (3, 1, 0), (3, 1, 3), (3, 2, 0), (3, 3, 0)];
        for (origin, kind, code) in told {
            assert!(is_hard(&error(origin, kind, code)), "{origin} {kind} {code}");
        }
        for (origin, kind, code) in untold {
            assert!(!is_hard(&error(origin, kind, code)), "{origin} {kind} {code}");
        }
    }
}

//! What makes the reference crash, hang or leak, and the test that shows another answer here. The tests of `tests/` in the
//! package meet real sockets and real TLS.
//!
//! | open point of the spec | the reference | test |
//! |---|---|---|
//! | `endpoint.md` §2.1, more than 100 digests | ends | `more_than_a_hundred_digests` |
//! | `endpoint.md` §5.2, TCP listen | ends | `table`: "TCP listen"; `extension`: the listener tests |
//! | `endpoint.md` §5.5, NCAP on a stream | breaks the socket | `table`: "a stream, state …" |
//! | `endpoint.md` §5.6, unknown NCTL command | ends | `table`: "an unknown command" |
//! | `endpoint.md` §11.1, NCLOSE before its NDATA is written | aborts | `closing_with_data_unwritten` |
//! | `endpoint.md` §11.2, NCLOSE with unsent NSENDs | leaks BUFUSED | `table`: "unsent NSENDs and held …"; `random` |
//! | `endpoint.md` §11.4, tags of exhausted limits | lost, misled | `limits`: `exhaustion_while_queued_drops_…` |
//! | `endpoint.md` §11.5, TCP NOPEN of another length | crashes | `table`: "malformed: NOPEN TCP …" |
//! | `endpoint.md` §11.5, connect to port 0 | NSTAT 0xFF | `tests/robustness.rs`: `odd_destinations` |
//! | `endpoint.md` §11.6, short UDP NSEND, short NCTL | reads beyond the message | `table`: "malformed: NSEND …", "NCTL …" |
//! | `endpoint.md` §11.8, `filters-monitors.md` §7.8, WASM in NCAP | ends | `raw`: `programs_are_accepted_or_refused_…` |
//! | `endpoint.md` §11.10, UDP over IPv6 | ends | `table`: "UDP over IPv6"; `tests/loopback.rs` |
//! | `endpoint.md` §11.12, output at the end | lost | `timed`: `what_was_made_is_told_before_…` |
//! | `raw.md` §8.3, `filters-monitors.md` §7.7, refused NCAP | ends the capture | `raw`: `programs_are_accepted_or_refused_…` |
//! | `raw.md` §4, losses in the kernel | uncounted | `raw`: `losses_and_faults_are_counted_…` |
//! | `scheduling.md` §7.7, `session.md` §10.1, silent TLS peer | holds the only worker | `tests/service.rs`: `…_is_left` |
//! | `scheduling.md` §7.9, stream beyond the receive limit | a hole | `limits`: `a_stream_that_would_get_a_hole_is_closed` |
//! | `messages.md` §7.1, short RESULT, NCTL, NSEND | reads beyond the message | `table`: "malformed: …" |
//! | `messages.md` §7.6, length of a body | buffers it | `tests/robustness.rs`: `streams_that_break_off` |
//! | `vmem.md` §8.1, more than 255 addresses | counter overflows | `more_addresses_than_the_counter_holds` |
//! | `vmem.md` §8.2, the end of the address space | reads past a table | `table`: "read the last bytes" |
//! | `vmem.md` §8.3, BUFUSED | leaks | `random` |
//! | `timing.md` §7.2, the clock is set | shifts sends | `a_clock_that_is_set_back` |
//! | `timing.md` §7.3, run time of an idle session | 60 s late | `limits`: `the_run_time_ends_the_session_…` |
//! | `session.md` §10.4, end without close_notify | an error | `tests/robustness.rs`: `streams_that_break_off` |

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use pktlab::vmem::{SocketState, socket as cell, system};
use pktlab::wire::{ExtNote, ExtRequest, Frame, Message, NWait};

use super::super::End;
use super::lab::{
    EVERYTHING, LATE, Lab, SECOND, START, capture, close, config, limited, raw, send_to, shape, udp,
};
use crate::limits::Ledger;

#[test]
fn more_than_a_hundred_digests() {
    // As many as one certificate can list, in many certificates' worth of sessions.
    let digests: String = (0..150u32).map(|n| format!("{n:064x}")).collect();
    let mut lab = Lab::fresh(config(), limited(&format!("monitor={digests};"), LATE));
    let data = Bytes::from_static(b"\x01\0asm\x01\0\0\0");
    assert_eq!(lab.errid(Message::CData { hint: Bytes::from_static(b"monitor"), data }), 0x20);
    assert_eq!(lab.errid(Message::Start), 0x21);
    assert_eq!(lab.session.ended(), Some(End::Refused));
}

#[test]
fn more_addresses_than_the_counter_holds() {
    let mut config = config();
    let address = |n: u32| (IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n)), 8);
    config.addresses = (0..300).map(address).collect();
    let mut lab = Lab::with(config, Ledger::unlimited());
    assert_eq!(lab.read(system::IP4NO, 2), [255, 0]);
    let list = lab.read(system::IP4LS, 0x800 + 4);
    assert_eq!(
        list[0x7f8..],
        [10, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0],
        "256 entries, and nothing behind them"
    );
}

#[test]
fn closing_with_data_unwritten() {
    let mut lab = Lab::raw(Ledger::unlimited());
    lab.udp(1, 100);
    assert_eq!(lab.errid(raw(2, "0.0.0.0", 100)), 0);
    assert_eq!(lab.errid(capture(2, u64::MAX, EVERYTHING)), 0);
    lab.datagram(1, "datagram");
    lab.world.packets.push_back((b"packet".to_vec(), START));
    lab.readable(2);
    // Half of it is being written when the sockets close and others take their numbers.
    assert_eq!(lab.session.take_batch(1, 1).len(), 1);
    for request in [close(1), close(2), udp(1, 50), udp(2, 50)] {
        lab.session.request(Frame::Message(request), &mut lab.world);
    }
    assert_eq!(shape(&lab.said()), ["data packet", "result 0x0", "result 0x0", "result 0x0", "result 0x0"]);
    for id in [1, 2] {
        assert_eq!((lab.number(id, cell::RBUFUSED), lab.number(id, cell::RBUFSZ)), (0, 50));
        lab.datagram(id, "new");
        assert_eq!(shape(&lab.said()), ["data new"]);
    }
    assert_eq!(lab.buf_used(), 0);
}

#[test]
fn a_clock_that_is_set_back() {
    let mut lab = Lab::extended_with(config(), limited("max_burst_rate_pkt=1/1000000000;", LATE));
    lab.enable(super::lab::ALL & !pktlab::vmem::extension::STAMPS);
    lab.udp(1, 100);
    assert_eq!(shape(&lab.ask(send_to(1, 0, 1, b"a"))), ["result 0x0", "tag 1 0x0"]);
    assert_eq!(shape(&lab.ask(send_to(1, START, 2, b"b"))), ["result 0x0"]);
    lab.extend(&ExtRequest::NWait(NWait { token: 5, time: START + SECOND }));
    lab.world.now = START - 500 * SECOND;
    lab.session.timer(&mut lab.world);
    assert!(lab.said().is_empty(), "nothing is early");
    lab.datagram(1, "x");
    assert_eq!(shape(&lab.said()), ["data x"]);
    assert_eq!(lab.state(1), SocketState::Open);
    // Absolute times stay what they are, and no limit holds for as long as the clock was set back.
    lab.advance(500 * SECOND + SECOND);
    assert!(lab.world.log.contains(&"send 1 b to 192.0.2.53:53".to_owned()), "{:?}", lab.world.log);
    lab.advance(1);
    assert!(lab.outputs().iter().any(|output| matches!(
        output,
        super::super::Output::Extension(ExtNote::NTime(time)) if time.token == 5 && time.time > START + SECOND
    )));
}

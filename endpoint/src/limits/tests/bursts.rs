//! Sliding windows: never more than the count in any of them, whatever the order of events.

use pktlab::cert::Burst;
use pktlab::wire::Ticks;
use proptest::prelude::*;

use super::super::Admit;
use super::super::window::Window;
use super::{SECOND, START, ledger};

#[test]
fn a_send_counts_until_its_window_is_over() {
    let mut ledger = ledger(&["max_burst_rate_byte=10/100;", "max_burst_rate_pkt=3/1000;"]);
    ledger.sent(START, 6);
    ledger.sent(START + 10, 3);
    assert_eq!(ledger.admit(START + 20, 1), Admit::Now);
    assert_eq!(ledger.admit(START + 20, 2), Admit::At(START + 100), "the first send has to leave");
    assert_eq!(ledger.admit(START + 20, 8), Admit::At(START + 110), "both have to leave");
    assert_eq!(ledger.admit(START + 99, 2), Admit::At(START + 100));
    assert_eq!(ledger.admit(START + 100, 2), Admit::Now);
    ledger.sent(START + 100, 2);
    assert_eq!(ledger.admit(START + 300, 1), Admit::At(START + 1_000), "three packets in 1000 ns");
}

#[test]
fn a_reservation_is_inside_every_window_until_it_is_settled() {
    let mut ledger = ledger(&["max_burst_rate_byte=10/100;"]);
    ledger.reserve(8);
    assert_eq!(ledger.admit(START + 5_000, 3), Admit::AfterSettle);
    ledger.sent(START + 5_000, 2);
    assert_eq!(ledger.admit(START + 5_001, 2), Admit::At(START + 5_100));
    ledger.settle(8, Some(START + 5_050), 8);
    assert_eq!(ledger.admit(START + 5_060, 3), Admit::At(START + 5_150));
    assert_eq!(ledger.admit(START + 5_150, 10), Admit::Now);
}

#[test]
fn a_look_ahead_forgets_nothing() {
    let mut ledger = ledger(&["max_burst_rate_byte=10/100;"]);
    ledger.sent(START, 10);
    assert_eq!(ledger.admit(START + 500, 10), Admit::Now);
    assert_eq!(ledger.admit(START + 1, 1), Admit::At(START + 100));
    ledger.reserve(10);
    assert_eq!(ledger.admit(START + 100, 1), Admit::AfterSettle, "it may be sent at any time from now on");
}

#[test]
fn limits_near_the_end_of_numbers_do_not_overflow() {
    let max = u64::MAX;
    let mut ledger =
        ledger(&[&format!("max_burst_rate_byte={}/{max};max_burst_rate_pkt={max}/{max};", max - 1)]);
    for time in [0, START, max, max] {
        ledger.sent(time, max);
        ledger.reserve(max);
    }
    assert_eq!(ledger.admit(max, 1), Admit::AfterSettle);
    for _ in 0..6 {
        ledger.settle(max, Some(max), max);
    }
    assert_eq!(ledger.used(max).send_bytes, max);
    assert!(matches!(ledger.admit(START, 1), Admit::At(_)));
}

#[test]
fn a_clock_set_back_keeps_the_ages_of_sends() {
    let mut ledger = ledger(&["max_burst_rate_byte=10/10000000000;"]);
    ledger.sent(START, 5);
    ledger.sent(START + 4 * SECOND, 5);
    let earlier = START - 900 * SECOND;
    assert_eq!(ledger.admit(earlier, 5), Admit::At(earlier + 6 * SECOND));
    assert_eq!(ledger.admit(earlier, 10), Admit::At(earlier + 10 * SECOND));
}

#[test]
fn entries_that_others_imply_are_dropped_and_too_many_are_joined() {
    let burst = |count, window| Burst { count, window };
    let windows = Window::all([burst(10, 100), burst(10, 50), burst(12, 100), burst(5, 50)].into_iter());
    assert_eq!(windows.iter().map(Window::count).collect::<Vec<_>>(), [10, 5]);

    let many: Vec<Burst> = (1..=10_000).map(|i| burst(i, i)).collect();
    let mut windows = Window::all(many.iter().copied());
    assert!(windows.len() <= 32);
    // What the joined windows let through, every original entry lets through.
    let mut sends: Vec<(Ticks, u64)> = Vec::new();
    let mut now = START;
    while now < START + 20_000 {
        let next =
            windows.iter_mut().map(|window| window.earliest(now, 1).expect("fits")).max().expect("windows");
        if next == now {
            windows.iter_mut().for_each(|window| window.record(now, 1));
            sends.push((now, 1));
        } else {
            now = next;
        }
    }
    assert!(sends.len() > 10);
    many.iter().step_by(97).for_each(|burst| holds(&sends, *burst));
}

#[test]
fn a_window_keeps_few_entries_and_does_not_hold_back_much() {
    let burst = Burst { count: 100_000, window: 10 * SECOND };
    let mut window = Window::all([burst].into_iter()).remove(0);
    let mut sends = Vec::new();
    let (mut now, mut entries) = (START, 0);
    while now < START + 35 * SECOND {
        match window.earliest(now, 1) {
            Some(time) if time == now => {
                window.record(now, 1);
                sends.push((now, 1));
                entries = entries.max(window.entries());
                now += 20_000;
            }
            next => now = next.expect("fits"),
        }
    }
    assert!(entries <= 1_024, "{entries}");
    holds(&sends, burst);
    // 2 s at full speed fill a window; coalescing may delay each refill by a 510th of it.
    let whole_windows = sends.iter().filter(|(time, _)| *time < START + 30 * SECOND).count();
    assert!(whole_windows >= 290_000, "{whole_windows}");
}

/// In no half-open interval of the burst's length more than its count is sent.
fn holds(sends: &[(Ticks, u64)], burst: Burst) {
    let mut sends = sends.to_vec();
    sends.sort_unstable();
    let (mut first, mut sum) = (0, 0_u64);
    for (time, amount) in &sends {
        sum += amount;
        while sends[first].0 + burst.window <= *time {
            sum -= sends[first].1;
            first += 1;
        }
        assert!(sum <= burst.count, "{sum} within {burst:?} until {time}");
    }
}

/// What the owner of a ledger may do.
#[derive(Clone, Debug)]
enum Step {
    Pass(Ticks),
    Send(u64),
    /// Hands a send to another thread, to be made no sooner than after this time.
    Reserve(u64, Ticks),
    /// The other thread makes the reserved send with this number (modulo those waiting), if it is time.
    Make(usize),
    /// Its report about the send with this number arrives.
    Report(usize),
    /// The send with this number fails.
    Fail(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..60).prop_map(Step::Pass),
        1 => (0_u64..5_000).prop_map(Step::Pass),
        8 => (0_u64..40).prop_map(Step::Send),
        4 => (0_u64..40).prop_map(|amount| Step::Reserve(amount, 0)),
        2 => (0_u64..40, 0_u64..6_000).prop_map(|(amount, ahead)| Step::Reserve(amount, ahead)),
        3 => any::<usize>().prop_map(Step::Make),
        3 => any::<usize>().prop_map(Step::Report),
        1 => any::<usize>().prop_map(Step::Fail),
    ]
}

fn bursts() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0_u64..200, 1_u64..4_000), 1..5)
}

fn field(name: &str, bursts: &[(u64, u64)]) -> String {
    let entries: Vec<String> = bursts.iter().map(|(count, window)| format!("{count}/{window}")).collect();
    format!("{name}={};", entries.join(","))
}

proptest! {
    /// Some windows are so short and some sequences so long that entries are coalesced.
    #[test]
    fn no_window_ever_holds_more_than_its_count(
        bytes in bursts(),
        packets in bursts(),
        total in 0_u64..20_000,
        steps in prop::collection::vec(step(), 1..3_000),
    ) {
        let limits = format!(
            "{}{}max_send_byte={total};",
            field("max_burst_rate_byte", &bytes),
            field("max_burst_rate_pkt", &packets)
        );
        let mut ledger = ledger(&[&limits]);
        let mut now = START;
        let mut made: Vec<(Ticks, u64)> = Vec::new();
        let mut waiting: Vec<(Ticks, u64)> = Vec::new();
        let mut unreported: Vec<(Ticks, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(time) => now += time,
                Step::Send(amount) => match ledger.admit(now, amount) {
                    Admit::Now => {
                        ledger.sent(now, amount);
                        made.push((now, amount));
                    }
                    Admit::At(time) => {
                        prop_assert!(time > now);
                        // Nothing happens meanwhile, so it must be true.
                        prop_assert_eq!(ledger.clone().admit(time, amount), Admit::Now);
                    }
                    Admit::AfterSettle => prop_assert!(!waiting.is_empty() || !unreported.is_empty()),
                    Admit::Exhausted => prop_assert!(ledger.never(amount)),
                },
                Step::Reserve(amount, ahead) => {
                    if ledger.admit(now + ahead, amount) == Admit::Now {
                        ledger.reserve(amount);
                        waiting.push((now + ahead, amount));
                    }
                }
                Step::Make(i) if waiting.get(i % waiting.len().max(1)).is_some_and(|(time, _)| *time <= now) => {
                    let (_, amount) = waiting.swap_remove(i % waiting.len());
                    made.push((now, amount));
                    unreported.push((now, amount));
                }
                Step::Report(i) if !unreported.is_empty() => {
                    let (time, amount) = unreported.swap_remove(i % unreported.len());
                    ledger.settle(amount, Some(time), amount);
                }
                Step::Fail(i) if !waiting.is_empty() => {
                    let (_, amount) = waiting.swap_remove(i % waiting.len());
                    ledger.settle(amount, None, 0);
                }
                Step::Make(_) | Step::Report(_) | Step::Fail(_) => {}
            }
        }
        bytes.iter().for_each(|(count, window)| holds(&made, Burst { count: *count, window: *window }));
        let single: Vec<(Ticks, u64)> = made.iter().map(|(time, _)| (*time, 1)).collect();
        packets.iter().for_each(|(count, window)| holds(&single, Burst { count: *count, window: *window }));
        prop_assert!(made.iter().map(|(_, amount)| amount).sum::<u64>() <= total);
    }

    /// Enough sends in a long window that it has to coalesce, some of them reported late and out of order.
    #[test]
    fn coalescing_lets_nothing_more_through(
        gaps in prop::collection::vec(0_u64..2_000, 3_000..6_000),
        late in prop::collection::vec(prop_oneof![200 => Just(0_usize), 1 => 0_usize..40], 3_000..6_000),
    ) {
        let burst = Burst { count: 1_500, window: 2_000_000 };
        let mut ledger = ledger(&[&field("max_burst_rate_pkt", &[(burst.count, burst.window)])]);
        let mut now = START;
        let mut made = Vec::new();
        let mut unreported: Vec<Ticks> = Vec::new();
        for (gap, late) in gaps.into_iter().zip(late) {
            now += gap;
            if let Admit::At(time) = ledger.admit(now, 1) {
                now = time;
            }
            if ledger.admit(now, 1) == Admit::Now {
                ledger.reserve(1);
                made.push((now, 1));
                unreported.push(now);
            }
            while unreported.len() > late {
                ledger.settle(1, Some(unreported.swap_remove(late % unreported.len())), 1);
            }
        }
        prop_assert!(made.len() > 1_600);
        holds(&made, burst);
    }
}

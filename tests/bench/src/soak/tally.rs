//! What the controller knows of a session, and whether the endpoint's report agrees with it.

use pktendpt::status::SessionReport;
use pktlab::controller::Totals;

/// Counted on the controller's side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// NSENDs given to the library, and their payload bytes.
    pub asked: u64,
    pub asked_bytes: u64,
    /// NTAG success.
    pub sent: u64,
    pub sent_bytes: u64,
    /// NTAG 0x41.
    pub failed: u64,
    /// RESULT other than success.
    pub refused: u64,
    /// Accepted, without an NTAG when the socket's NCLOSE was answered.
    pub lost: u64,
    /// Of streams: bytes of NSENDs without NTAG success, of which a part may have been sent.
    pub partial_bytes: u64,
    /// There were streams, whose writes are not NSENDs.
    pub streams: bool,
    /// NDATA was held back when a socket was closed: the endpoint had received it, the controller never sees it.
    pub held: bool,
    /// Requests that succeed or fail as expected, beside NSENDs.
    pub others: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.asked += other.asked;
        self.asked_bytes += other.asked_bytes;
        self.sent += other.sent;
        self.sent_bytes += other.sent_bytes;
        self.failed += other.failed;
        self.refused += other.refused;
        self.lost += other.lost;
        self.others += other.others;
    }

    /// What does not add up in a session that is over or cut: the endpoint did things of which the controller was not told.
    pub fn compare_cut(&self, report: &SessionReport, totals: &Totals) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |fine: bool, what: &str| {
            if !fine {
                wrong.push(format!("{what}: {self:?}; {totals:?}; {report:?}"));
            }
        };
        check(report.sent.bytes >= self.sent_bytes, "fewer bytes sent than tagged");
        check(report.sent.bytes <= self.asked_bytes, "more bytes sent than asked for");
        check(report.unsent >= self.failed + self.lost, "fewer NSENDs given up than told");
        check(report.unsent <= self.asked - self.sent, "more NSENDs given up than can be");
        check(report.received.bytes >= totals.bytes_in, "fewer bytes received than delivered");
        if !self.streams {
            check(
                report.sent.packets + report.unsent <= self.asked - self.refused,
                "more NSENDs accepted than asked for",
            );
        }
        wrong
    }

    /// What does not add up in a session all whose sockets were closed in order and whose last request was answered.
    pub fn compare(&self, report: &SessionReport, totals: &Totals) -> Vec<String> {
        let mut wrong = self.compare_cut(report, totals);
        let mut check = |fine: bool, what: &str| {
            if !fine {
                wrong.push(format!("{what}: {self:?}; {totals:?}; {report:?}"));
            }
        };
        let accepted = self.sent + self.failed + self.lost;
        check(self.asked == accepted + self.refused, "NSENDs without an end");
        check(report.unsent == self.failed + self.lost, "the endpoint counts other NSENDs as given up");
        check(
            (self.sent_bytes..=self.sent_bytes + self.partial_bytes).contains(&report.sent.bytes),
            "bytes sent are not those tagged",
        );
        if !self.streams {
            check(report.sent.packets == self.sent, "packets sent are not those tagged");
        }
        if !self.held {
            check(report.received.bytes == totals.bytes_in, "bytes received are not those delivered");
            check(report.received.packets == totals.messages_in, "data received is not what was delivered");
        }
        check(report.sockets_open == 0, "a socket is open");
        check(report.buffer_used == 0, "buffer is in use");
        wrong
    }
}

#[cfg(test)]
mod tests {
    use pktendpt::status::Traffic;

    use super::*;

    /// Books that agree: 5 of 9 NSENDs sent.
    fn books() -> (Tally, SessionReport, Totals) {
        let tally = Tally {
            asked: 9,
            asked_bytes: 900,
            sent: 5,
            sent_bytes: 500,
            failed: 1,
            refused: 2,
            lost: 1,
            ..Tally::default()
        };
        let report = SessionReport {
            sent: Traffic { packets: 5, bytes: 500 },
            unsent: 2,
            received: Traffic { packets: 3, bytes: 30 },
            ..SessionReport::default()
        };
        let totals = Totals { sockets: 1, bytes_out: 900, messages_out: 9, bytes_in: 30, messages_in: 3 };
        (tally, report, totals)
    }

    #[test]
    fn books_that_agree() {
        let (tally, report, totals) = books();
        assert_eq!(tally.compare(&report, &totals), [""; 0]);
        // A cut hides the last outcomes from the controller.
        let blind = Tally { sent: 4, sent_bytes: 400, lost: 0, ..tally };
        assert_eq!(blind.compare_cut(&report, &Totals { bytes_in: 20, ..totals }), [""; 0]);
        assert!(!blind.compare(&report, &totals).is_empty());
    }

    #[test]
    fn each_difference_is_found() {
        let differences: [fn(&mut SessionReport); 8] = [
            |report| report.sent.bytes += 1,
            |report| report.sent.bytes -= 1,
            |report| report.sent.packets += 1,
            |report| report.unsent += 1,
            |report| report.unsent -= 1,
            |report| report.received.bytes += 1,
            |report| report.sockets_open += 1,
            |report| report.buffer_used += 1,
        ];
        for (number, change) in differences.into_iter().enumerate() {
            let (tally, mut report, totals) = books();
            change(&mut report);
            assert!(!tally.compare(&report, &totals).is_empty(), "difference {number}");
        }
    }

    #[test]
    fn a_cut_session_that_sent_too_much_is_found() {
        let (tally, report, totals) = books();
        for (packets, bytes, unsent) in [(5, 901, 2), (5, 499, 2), (6, 600, 2), (5, 500, 1), (5, 500, 5)] {
            let report = SessionReport { sent: Traffic { packets, bytes }, unsent, ..report.clone() };
            assert!(!tally.compare_cut(&report, &totals).is_empty(), "{packets} {bytes} {unsent}");
        }
        let report = SessionReport { received: Traffic { packets: 3, bytes: 29 }, ..report };
        assert!(!tally.compare_cut(&report, &totals).is_empty());
    }
}

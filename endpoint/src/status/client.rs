//! Asks a running endpoint and puts the answer into words.

use std::fmt::Write;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::report::{Left, Session, SessionReport, Status, Traffic, VERSION};

/// For the whole answer to come.
const TIME: Duration = Duration::from_secs(5);
/// Longest answer read, bytes.
const ANSWER_MAX: u64 = 4 << 20;

/// The status of the endpoint that listens at `path`.
pub fn ask(path: &Path) -> anyhow::Result<Status> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) => bail!("no endpoint answers at {}: {error}", path.display()),
    };
    stream.set_read_timeout(Some(TIME))?;
    let mut text = String::new();
    (&mut stream).take(ANSWER_MAX).read_to_string(&mut text).context("the endpoint did not answer")?;
    let status: Status = serde_json::from_str(&text).context("the endpoint's answer makes no sense")?;
    ensure!(status.version == VERSION, "the endpoint speaks version {} of the status", status.version);
    Ok(status)
}

/// For a terminal.
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<13} {value}");
    };
    line("endpoint", &format!("pid {}, version {}, since {}", status.pid, status.program, status.since));
    let stopping = if status.stopping { ", told to stop" } else { "" };
    line("state", &format!("{}{stopping}", status.state.words()));
    line("controller", status.controller.as_deref().unwrap_or("not named"));
    line("sessions", &status.sessions.to_string());
    if let Some(session) = &status.session {
        running(session, &mut line);
    }
    if let Some(past) = &status.last_session {
        let text =
            format!("number {}, {} s, ended {}: {}", past.number, past.seconds, past.ended, past.reason);
        line("last session", &text);
    }
    if let Some(failure) = &status.last_error {
        line("last error", &format!("{}: {}", failure.time, failure.text));
    }
    out
}

fn running(session: &Session, line: &mut impl FnMut(&str, &str)) {
    let holder = &session.holder;
    line("session", &format!("number {}, since {} ({} s)", session.number, session.since, session.seconds));
    line("  from", &holder.controller);
    line("  for", &holder.name());
    for (place, sentence) in holder.allowed.iter().enumerate() {
        line(if place == 0 { "  because" } else { "" }, sentence);
    }
    let Some(report) = &session.report else { return };
    let SessionReport { sockets_open, sockets_opened, captures, .. } = report;
    line("  sockets", &format!("{sockets_open} open ({captures} capturing), {sockets_opened} opened"));
    line("  sent", &format!("{}, {} given up", traffic(report.sent), report.unsent));
    line("  received", &format!("{}, dropped {}", traffic(report.received), traffic(report.dropped)));
    line("  refused", &format!("{} by policy, {} failures of filters", report.refused, report.filter_faults));
    line("  buffer", &format!("{} of {} bytes", report.buffer_used, report.buffer_size));
    line("  left", &left(&report.left));
}

fn traffic(traffic: Traffic) -> String {
    format!("{} packets, {} bytes", traffic.packets, traffic.bytes)
}

fn left(left: &Left) -> String {
    let mut words: Vec<String> = [
        (left.sockets, "sockets"),
        (left.send_packets, "packets to send"),
        (left.send_bytes, "bytes to send"),
        (left.receive_packets, "packets to receive"),
        (left.receive_bytes, "bytes to receive"),
    ]
    .into_iter()
    .filter_map(|(count, what)| count.map(|count| format!("{count} {what}")))
    .collect();
    words.extend(left.end.iter().map(|end| format!("until {end}")));
    if words.is_empty() { "no limits".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Failure, Holder, State};
    use super::*;

    #[test]
    fn everything_that_matters_is_in_the_text() {
        let report = SessionReport {
            sockets_open: 3,
            sent: Traffic { packets: 17, bytes: 1_700 },
            dropped: Traffic { packets: 2, bytes: 99 },
            left: Left {
                send_bytes: Some(4_242),
                end: Some("2033-05-18T03:33:20Z".into()),
                ..Left::default()
            },
            ..SessionReport::default()
        };
        let holder = Holder {
            controller: "192.0.2.1:5".into(),
            experimenter: "ab".repeat(32),
            description: Some("Study".into()),
            allowed: vec!["operator x lets y experiment".into(), "y lets z act".into()],
            certificates: vec![],
        };
        let since = "2033-05-18T03:00:00Z".to_owned();
        let status = Status {
            version: VERSION,
            state: State::Session,
            stopping: true,
            session: Some(Session { number: 4, since, seconds: 5, holder, report: Some(report) }),
            last_error: Some(Failure { time: "then".into(), text: "it broke".into() }),
            ..Status::default()
        };
        let text = text(&status);
        for words in [
            "number 4",
            "192.0.2.1:5",
            "Study (abababababababab)",
            "operator x",
            "y lets z act",
            "3 open",
            "17 packets",
            "1700 bytes",
            "99 bytes",
            "4242 bytes to send",
            "2033-05-18T03:33:20Z",
            "told to stop",
            "it broke",
        ] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
        let json = serde_json::to_string(&status).expect("JSON");
        assert_eq!(serde_json::from_str::<Status>(&json).expect("back"), status);
    }
}

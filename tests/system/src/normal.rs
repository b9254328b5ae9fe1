//! Makes equal what differs from run to run of one program: times, dates, query numbers. Nothing else.

/// Replaces timings and dates in a tool's output.
pub fn normal(text: &str) -> String {
    text.lines().map(|line| normal_line(line) + "\n").collect()
}

fn normal_line(line: &str) -> String {
    // curl, dig, nginx's answers: lines that are nothing but a time.
    for start in [";; Query time:", ";; WHEN:", "; COOKIE:", "Date:", "  Date:", "< Date:"] {
        if line.starts_with(start) {
            return format!("{start} *");
        }
    }
    // curl has two wordings for a connect time-out; which one comes depends on the timer it looks at first (seen natively).
    let reached = line.starts_with("curl: (28) Failed to connect") && line.ends_with("Timeout was reached");
    if reached || line.starts_with("curl: (28) Connection timeout after ") {
        return "curl: (28) connect timeout".to_owned();
    }
    // OpenSSL's error lines begin with the address of the thread.
    let line = match line.split_once(":error:") {
        Some((thread, rest)) if thread.len() >= 8 && thread.chars().all(|c| c.is_ascii_hexdigit()) => {
            &format!("*:error:{rest}")
        }
        _ => line,
    };
    // dig's header line; curl's "after 12 ms", "after 1001 milliseconds".
    let line = number_after(line, ", id: ", "");
    let line = number_after(&line, " after ", " ms");
    number_after(&line, " after ", " milliseconds")
}

/// Replaces the digits between `before` and `after` by a star.
fn number_after(line: &str, before: &str, after: &str) -> String {
    let Some((head, rest)) = line.split_once(before) else { return line.to_owned() };
    let tail = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    if tail.len() == rest.len() || !tail.starts_with(after) {
        return line.to_owned();
    }
    format!("{head}{before}*{tail}")
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn only_times_are_replaced() {
        for (line, expected) in [
            (
                ";; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 4711",
                ";; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: *",
            ),
            (
                "curl: (7) Failed to connect to a port 9 after 3 ms: No",
                "curl: (7) Failed to connect to a port 9 after * ms: No",
            ),
            ("timed out after 1001 milliseconds", "timed out after * milliseconds"),
            ("Date: Mon, 01 Jan 2026", "Date: *"),
            ("curl: (28) Connection timeout after 1001 ms", "curl: (28) connect timeout"),
            (
                "curl: (28) Failed to connect to a port 80 after 1001 ms: Timeout was reached",
                "curl: (28) connect timeout",
            ),
            ("4057DDB3247F0000:error:0A000086:SSL:why", "*:error:0A000086:SSL:why"),
            ("look after 3 sheep", "look after 3 sheep"),
            ("1.2.3.4 after all", "1.2.3.4 after all"),
        ] {
            assert_eq!(normal(line), format!("{expected}\n"));
        }
    }
}

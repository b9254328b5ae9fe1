//! `pktendpt check`: what works, what is missing, the exit code.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::process::{Command, Output, Stdio};

use common::credentials;
use common::program::{Home, controller};
use pktendpt::config::raw_permitted;
use pktlab::cert::{CertType, Issue};
use serde_json::Value;

/// Loopback only, no resolver to be asked, nothing kept.
fn home(sections: &str) -> Home {
    Home::new(&format!(
        "{}[state]\npersist = false\nsocket = \"status.sock\"\n[endpoint]\naddresses = [\"lo\"]\nresolvers = []\n{sections}",
        controller(&credentials())
    ))
}

fn finding<'a>(report: &'a Value, topic: &str) -> &'a Value {
    report["findings"].as_array().unwrap().iter().find(|found| found["topic"] == topic).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn what_works_is_said_line_by_line() {
    let home = home("");
    let output = home.output(&["check"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for topic in
        ["certificates", "roots", "addresses", "policy", "raw sockets", "clock", "timed sends", "status"]
    {
        assert!(text.lines().any(|line| line.contains(topic)), "{topic}:\n{text}");
    }
    let report = json(&home.output(&["check", "--json", "--log-format", "json"]));
    assert_eq!(report["version"], 1);
    assert_eq!(report["works"], true);
    assert_eq!(finding(&report, "certificates")["verdict"], "ok");
    assert_eq!(finding(&report, "addresses")["verdict"], "ok");
    assert_eq!(finding(&report, "stealing")["verdict"], "off");
}

#[test]
fn missing_rights_are_named_with_the_way_to_grant_them() {
    let home = home("protocols = [\"tcp\", \"raw\"]\n[raw]\nsteal = true\n");
    let program = home.command();
    let mut command = if raw_permitted().is_ok() {
        // Taken from the bounding set, a capability does not come back with the program's start, not even to root.
        let mut command = Command::new("setpriv");
        command
            .arg("--bounding-set=-net_raw,-net_admin,-sys_admin")
            .arg("--inh-caps=-net_raw,-net_admin,-sys_admin");
        command.arg(program.get_program()).args(program.get_args());
        command
    } else {
        program
    };
    let Ok(output) = command.args(["check", "--json"]).stdin(Stdio::null()).output() else {
        println!("skipped: no setpriv here");
        return;
    };
    if output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("setpriv") {
        println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["works"], false);
    for (topic, capability) in [("raw sockets", "cap_net_raw+ep"), ("stealing", "CAP_NET_ADMIN")] {
        let found = finding(&report, topic);
        assert_eq!(found["verdict"], "missing", "{found}");
        assert!(found["remedy"].as_str().unwrap().contains(capability), "{found}");
    }
    assert_eq!(finding(&report, "addresses")["verdict"], "ok");
}

#[test]
fn certificates_that_ran_out_are_missing() {
    let mut credentials = credentials();
    let over = Issue { not_before: 1_000, not_after: 2_000, ..Issue::new(CertType::SubCmd) };
    let subcmd = over.sign(&credentials.operator, &credentials.endpoint_key.public_key()).unwrap();
    credentials.endpoint_chain = vec![subcmd];
    let home = Home::new(&format!(
        "{}[endpoint]\naddresses = [\"lo\"]\nresolvers = []\n[state]\npersist = false\n",
        controller(&credentials)
    ));
    let output = home.output(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    let found = finding(&report, "certificates");
    assert_eq!(found["verdict"], "missing");
    assert!(found["text"].as_str().unwrap().contains("expired"), "{found}");
}

#[test]
fn an_unreadable_file_is_said() {
    let home = home("no_such_key = 1\n");
    let output = home.output(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("no_such_key"));
}

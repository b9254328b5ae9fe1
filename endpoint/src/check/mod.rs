//! `pktendpt check`: tries what the configuration asks for, and says line by line what works, what is missing and how to
//! grant it.
//!
//! | file | what is tried |
//! |---|---|
//! | `credentials` | key, certificates, roots |
//! | `network` | addresses, resolvers, controller, raw sockets, stealing, time stamps |
//! | `host` | scheduling, clock, descriptors, folders |

mod credentials;
mod host;
mod network;
mod sys;

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::config::Config;

/// Of the JSON form.
const VERSION: u32 = 1;

/// What was found about one thing.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Works.
    Ok,
    /// Works worse than it could, or will stop working.
    Warning,
    /// Does not work, and the configuration asks for it.
    Missing,
    /// Not asked for.
    Off,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub topic: &'static str,
    pub verdict: Verdict,
    pub text: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(topic: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
        Finding { topic, verdict, text: text.into(), remedy: None }
    }

    fn ok(topic: &'static str, text: impl Into<String>) -> Finding {
        Finding::new(topic, Verdict::Ok, text)
    }

    fn warning(topic: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { remedy: Some(remedy.into()), ..Finding::new(topic, Verdict::Warning, text) }
    }

    fn missing(topic: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { remedy: Some(remedy.into()), ..Finding::new(topic, Verdict::Missing, text) }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    version: u32,
    /// What the configuration asks for works.
    pub works: bool,
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(findings: Vec<Finding>) -> Report {
        let works = findings.iter().all(|finding| finding.verdict != Verdict::Missing);
        Report { version: VERSION, works, findings }
    }

    /// For a terminal: one line a finding, what to do below it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let verdict = match finding.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Missing => "MISSING",
                Verdict::Off => "off",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{verdict:<8} {:<16} {}", finding.topic, finding.text);
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(out, "{:<25} -> {remedy}", "");
            }
        }
        let end = if self.works {
            "What the configuration asks for works."
        } else {
            "Something the configuration asks for does not work; see MISSING."
        };
        let _ = writeln!(out, "{end}");
        out
    }
}

/// Tries everything. `config`: the result of reading the configuration; `controller`: the one of the command line;
/// `resolv_conf` is where `resolvers = "system"` looks.
pub async fn run(config: anyhow::Result<Config>, controller: Option<&str>, resolv_conf: &Path) -> Report {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let remedy = "correct the file; docs/operator.md lists every key";
            return Report::new(vec![Finding::missing("configuration", format!("{error:#}"), remedy)]);
        }
    };
    let mut findings = vec![Finding::ok("configuration", "readable")];
    findings.extend(credentials::check(&config));
    findings.push(network::controller(&config, controller).await);
    findings.extend(network::addresses(&config));
    findings.extend(network::resolvers(&config, resolv_conf).await);
    findings.push(network::policy(&config));
    findings.push(network::raw(&config));
    findings.push(network::steal(&config));
    findings.push(network::stamps());
    findings.push(host::scheduling());
    findings.push(host::clock());
    findings.push(host::descriptors());
    findings.push(host::state(&config));
    findings.push(host::socket(&config));
    Report::new(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_and_asked_for_fails() {
        let off = Finding::new("c", Verdict::Off, "not asked for");
        let fine = vec![Finding::ok("a", "works"), Finding::warning("b", "slow", "do this"), off];
        let report = Report::new(fine.clone());
        assert!(report.works && report.text().contains("-> do this"));
        let mut broken = fine;
        broken.push(Finding::missing("d", "broken", "repair it"));
        let report = Report::new(broken);
        assert!(!report.works);
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["works"], false);
        assert_eq!(json["findings"][3]["verdict"], "missing");
        assert_eq!(json["findings"][3]["remedy"], "repair it");
    }

    #[tokio::test]
    async fn an_unreadable_configuration_is_the_only_finding() {
        let report = run(Err(anyhow::anyhow!("no such file")), None, Path::new("/nonexistent")).await;
        assert!(!report.works);
        assert_eq!(report.findings.len(), 1);
        assert!(report.text().contains("no such file"));
    }
}

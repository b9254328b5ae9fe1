//! The command line: one definition of every option, and the log.

use std::io::IsTerminal;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Read when no configuration is named.
pub const DEFAULT_CONFIG: &str = "/etc/pktendpt/endpoint.toml";

/// A PacketLab measurement endpoint: opens sockets, sends and receives on behalf of controllers it trusts.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Configuration file (TOML); /etc/pktendpt/endpoint.toml unless said.
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Print the TOML for a configuration of the reference implementation and exit.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "control_fd"])]
    pub import: Option<PathBuf>,
    /// Make measurement sockets in this network namespace (/run/netns/NAME).
    #[arg(long, value_name = "NAME", global = true)]
    pub netns: Option<String>,
    /// Serve one session on this inherited connected TCP socket, then exit.
    #[arg(long, value_name = "FD")]
    pub control_fd: Option<RawFd>,
    /// Read the configuration from this inherited descriptor instead of a file.
    #[arg(long, value_name = "FD", conflicts_with = "config")]
    pub credentials_fd: Option<RawFd>,
    /// How log lines on stderr look; PKTENDPT_LOG (for example "debug") chooses which there are.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// The controller: HOST, HOST:PORT or [IPv6]:PORT.
    #[arg(value_name = "CONTROLLER", conflicts_with = "control_fd")]
    pub controller: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try what the configuration asks for; say what is missing and how to grant it. Exit code 1 if something is.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask the running endpoint what it does, for whom and why. Exit code 1 if none runs.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts the log on stderr with `level`, unless the environment says another.
pub fn start_log(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_from_env("PKTENDPT_LOG").unwrap_or_else(|_| level.into());
    let log =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_env_filter(filter);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().with_current_span(true).with_span_list(false).init(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_stand_before_and_after_a_subcommand() {
        for line in [["pktendpt", "-c", "x", "check"], ["pktendpt", "check", "-c", "x"]] {
            let arguments = Arguments::try_parse_from(line).expect("valid");
            assert_eq!(arguments.config, Some("x".into()));
            assert!(matches!(arguments.command, Some(Command::Check { json: false })));
        }
        let plain = Arguments::try_parse_from(["pktendpt", "-c", "x", "192.0.2.1:5"]).expect("valid");
        assert_eq!(plain.controller.as_deref(), Some("192.0.2.1:5"));
        assert!(plain.command.is_none());
    }
}

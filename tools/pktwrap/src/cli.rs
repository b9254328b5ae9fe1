//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

/// Runs a program with its network I/O at a PacketLab endpoint.
///
/// The program itself runs here, unmodified; its TCP and UDP sockets and its name lookups are served at the endpoint.
/// Loopback destinations stay on this machine unless --loopback endpoint is given.
#[derive(Debug, Parser)]
#[command(
    name = "pktwrap",
    version,
    after_help = "Exit status: the program's own; 128+N when signal N ended it; 125 when pktwrap itself failed; \
                  126 when the program cannot be run, 127 when it is not found."
)]
pub struct Options {
    /// Which endpoint: "local" starts one on this machine, "listen:ADDR:PORT" waits for one to connect
    #[arg(long, value_name = "WHERE", default_value = "local")]
    pub via: Via,

    /// Key and certificates for --via listen: a folder with key.pem and *.pem certificates, or a TOML file
    #[arg(long, value_name = "PATH")]
    pub credentials: Option<PathBuf>,

    /// Network namespace (as made by "ip netns add") of the endpoint that --via local starts
    #[arg(long, value_name = "NAME")]
    pub endpoint_netns: Option<String>,

    /// Where connections to 127.0.0.0/8 and ::1 go
    #[arg(long, value_name = "PLACE", default_value = "local")]
    pub loopback: Loopback,

    /// No summary line at the end
    #[arg(short, long)]
    pub quiet: bool,

    /// Say what is going on (twice: in detail)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// The program and its arguments; "--" before it ends pktwrap's own options
    #[arg(value_name = "PROGRAM", required = true, num_args = 1.., trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Local,
    Listen(SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Loopback {
    Local,
    Endpoint,
}

impl FromStr for Via {
    type Err = String;

    fn from_str(text: &str) -> Result<Via, String> {
        if text == "local" {
            return Ok(Via::Local);
        }
        let Some(addr) = text.strip_prefix("listen:") else {
            return Err("expected \"local\" or \"listen:ADDR:PORT\"".to_owned());
        };
        addr.parse().map(Via::Listen).map_err(|_| {
            format!("\"{addr}\" is not an address with a port; write for instance listen:0.0.0.0:20556 or listen:[::]:20556")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_non_option_starts_the_program() {
        let options = Options::try_parse_from(["pktwrap", "-q", "curl", "-v", "--via", "x"]).expect("parses");
        assert!(options.quiet);
        assert_eq!(options.verbose, 0);
        assert_eq!(options.command, ["curl", "-v", "--via", "x"]);
        let options = Options::try_parse_from(["pktwrap", "--", "-odd"]).expect("parses");
        assert_eq!(options.command, ["-odd"]);
        assert!(Options::try_parse_from(["pktwrap", "-q"]).is_err(), "no program");
        assert!(Options::try_parse_from(["pktwrap", "--frob", "true"]).is_err(), "unknown option");
    }

    #[test]
    fn places_of_an_endpoint() {
        assert_eq!("local".parse(), Ok(Via::Local));
        assert_eq!("listen:[::1]:5".parse(), Ok(Via::Listen("[::1]:5".parse().expect("address"))));
        assert!("listen:host".parse::<Via>().is_err());
        assert!("there".parse::<Via>().is_err());
    }
}

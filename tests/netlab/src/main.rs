//! `netlab`: builds, uses and removes network laboratories from the command line.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use netlab::scenario::{FIRST_LIGHT, Shape};
use netlab::serve::Server;
use netlab::state::State;
use netlab::{Lab, Scenario, place, relay, serve};

/// Network laboratory in namespaces: hosts, routers, delay, servers, packet counters.
///
/// Runs as root, or inside `unshare -Urnm` without.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build a laboratory.
    Up {
        /// TOML file; without one, a controller that cannot reach the target and an endpoint that can.
        scenario: Option<PathBuf>,
        /// Prefix of the namespaces.
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// Remove a laboratory.
    Down {
        /// Its name.
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// Run a command on a host.
    Exec {
        /// Name of the laboratory.
        #[arg(long, default_value = "lab")]
        name: String,
        /// Host, as in the scenario.
        host: String,
        /// Command and arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Show the packet counters of every host's devices.
    Counters {
        /// Name of the laboratory.
        #[arg(long, default_value = "lab")]
        name: String,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make a file of pseudo-random bytes on the web host.
    File {
        /// Name of the laboratory.
        #[arg(long, default_value = "lab")]
        name: String,
        /// Name of the file: `http://www.lab/FILE`.
        file: String,
        /// Size in bytes.
        size: u64,
    },
    /// List laboratories.
    List,
    /// Serve on all addresses: HABIT=PORT with habit echo, reset, halfclose, silent or close.
    Serve {
        /// Servers to run.
        #[arg(required = true)]
        servers: Vec<Server>,
    },
    /// Relay frames between two devices of this namespace (started by `up`).
    #[command(hide = true)]
    Relay { a: String, b: String, shapes: String },
}

fn main() -> ExitCode {
    match run(Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netlab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<()> {
    match action {
        Action::Up { scenario, name } => {
            let text = match &scenario {
                Some(path) => std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?,
                None => FIRST_LIGHT.to_owned(),
            };
            let lab = Lab::up(Scenario::parse(&text)?, &name)?;
            for host in &lab.scenario().hosts {
                println!("{:<24} {:<12} {}", lab.netns(&host.name), lab.v4(&host.name)?, lab.v6(&host.name)?);
            }
            lab.keep()
        }
        Action::Down { name } => {
            Lab::open(&name)?.down();
            Ok(())
        }
        Action::Exec { name, host, command } => {
            let lab = Lab::open(&name)?;
            lab.v4(&host)?;
            let error = lab.command(&host, &command[0]).args(&command[1..]).exec();
            Err(error).context("cannot run ip; scripts/setup installs it")
        }
        Action::Counters { name, json } => counters(&Lab::open(&name)?, json),
        Action::File { name, file, size } => Lab::open(&name)?.web_file(&file, size).map(|_| ()),
        Action::List => {
            place::prepare()?;
            for state in State::all() {
                println!("{:<16} {}", state.name, state.scenario.description);
            }
            Ok(())
        }
        Action::Serve { servers } => serve::run(&servers).context("cannot serve"),
        Action::Relay { a, b, shapes } => {
            let shapes: [Shape; 2] = serde_json::from_str(&shapes).context("shapes")?;
            relay::run([&a, &b], &shapes).context("relay")
        }
    }
}

fn counters(lab: &Lab, json: bool) -> Result<()> {
    let mut all = BTreeMap::new();
    for host in &lab.scenario().hosts {
        all.insert(host.name.clone(), lab.counters(&host.name)?);
    }
    if json {
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    println!(
        "{:<12} {:<12} {:>10} {:>14} {:>10} {:>14}",
        "host", "toward", "rx packets", "rx bytes", "tx packets", "tx bytes"
    );
    for (host, devices) in all {
        for (device, n) in devices {
            println!(
                "{host:<12} {device:<12} {:>10} {:>14} {:>10} {:>14}",
                n.rx_packets, n.rx_bytes, n.tx_packets, n.tx_bytes
            );
        }
    }
    Ok(())
}

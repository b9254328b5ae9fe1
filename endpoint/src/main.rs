//! `pktendpt`: arguments, configuration, and one call of the library.

use std::io::{IsTerminal, Read};
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use pktendpt::config::Config;
use pktendpt::{dial, import, inherited};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;

/// A PacketLab measurement endpoint: opens sockets, sends and receives on behalf of controllers it trusts.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["import", "credentials_fd"])]
    config: Option<PathBuf>,
    /// Print the TOML for a configuration of the reference implementation and exit.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "control_fd"])]
    import: Option<PathBuf>,
    /// Make measurement sockets in this network namespace (/run/netns/NAME).
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Serve one session on this inherited connected TCP socket, then exit.
    #[arg(long, value_name = "FD")]
    control_fd: Option<RawFd>,
    /// Read the configuration from this inherited descriptor instead of a file.
    #[arg(long, value_name = "FD", conflicts_with = "config")]
    credentials_fd: Option<RawFd>,
    /// The controller: HOST, HOST:PORT or [IPv6]:PORT.
    #[arg(value_name = "CONTROLLER", conflicts_with = "control_fd")]
    controller: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // An endpoint that serves one inherited connection belongs to another program, whose output it must not fill.
    let level = if arguments.control_fd.is_some() { "warn" } else { "info" };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("PKTENDPT_LOG").unwrap_or_else(|_| level.into()),
        )
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pktendpt: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(path) = &arguments.import {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let imported = import::import(&text);
        for remark in &imported.remarks {
            eprintln!("pktendpt: {}: {remark}", path.display());
        }
        print!("{}", imported.toml);
        return Ok(());
    }
    let take = |fd: Option<RawFd>, option| -> anyhow::Result<Option<OwnedFd>> {
        fd.map(|fd| inherited(fd).with_context(|| format!("{option} {fd} is not an open descriptor")))
            .transpose()
    };
    let control = take(arguments.control_fd, "--control-fd")?;
    let config = match (take(arguments.credentials_fd, "--credentials-fd")?, &arguments.config) {
        (Some(fd), _) => {
            let mut text = String::new();
            std::fs::File::from(fd).read_to_string(&mut text).context("cannot read --credentials-fd")?;
            Config::parse(&text).context("in the configuration from --credentials-fd")?
        }
        (None, Some(path)) => Config::load(path)?,
        (None, None) => anyhow::bail!("no configuration: name one with -c FILE"),
    };
    let client = dial::credentials(&config)?;
    let resolv_conf = enter(arguments.netns.as_deref())?;
    let settings = || config.session(&resolv_conf);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(control) = control {
            let stream = std::net::TcpStream::from(control);
            stream.set_nonblocking(true).context("--control-fd is no socket")?;
            dial::session(TcpStream::from_std(stream)?, &client, settings()?).await?;
            return Ok(());
        }
        let address = arguments.controller.as_deref().or(config.controller.address.as_deref());
        let address =
            address.context("no controller: name one on the command line or as `address` in [controller]")?;
        // Wrong settings are told at once and not after the first connect.
        settings()?;
        tokio::select! {
            outcome = dial::forever(address, &client, settings) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

/// Moves this thread, before any other exists, into the namespace; returns the resolv.conf that holds there.
fn enter(netns: Option<&str>) -> anyhow::Result<PathBuf> {
    let global = Path::new("/etc/resolv.conf").to_path_buf();
    let Some(name) = netns else { return Ok(global) };
    anyhow::ensure!(!name.is_empty() && !name.contains('/'), "--netns wants the name of a network namespace");
    let path = Path::new("/run/netns").join(name);
    let file = std::fs::File::open(&path)
        .with_context(|| format!("no network namespace {}; `ip netns` lists them", path.display()))?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .with_context(|| {
            format!("cannot enter {}; it needs root there (unshare -Ur, or sudo)", path.display())
        })?;
    let own = Path::new("/etc/netns").join(name).join("resolv.conf");
    Ok(if own.exists() { own } else { global })
}

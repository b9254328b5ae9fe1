//! `pktendpt`: arguments, configuration, and one call of the library.

mod cli;

use std::io::{Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use pktendpt::config::{Config, status_socket};
use pktendpt::dial::Surroundings;
use pktendpt::service::{self, Loaded, Source};
use pktendpt::status::{self, Board};
use pktendpt::stop::Stop;
use pktendpt::{check, dial, import, inherited};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;

use cli::{Arguments, Command, DEFAULT_CONFIG};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // An endpoint that serves one inherited connection belongs to another program, whose output it must not fill, and a
    // question is answered on stdout.
    let quiet = arguments.control_fd.is_some() || arguments.command.is_some();
    cli::start_log(arguments.log_format, if quiet { "warn" } else { "info" });
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pktendpt: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Some(Command::Check { json }) => run_check(&arguments, json),
        Some(Command::Status { json }) => run_status(&arguments, json),
        None if arguments.import.is_some() => run_import(&arguments),
        None => serve(&arguments).map(|()| ExitCode::SUCCESS),
    }
}

fn run_import(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = arguments.import.as_deref().unwrap_or(Path::new(""));
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let imported = import::import(&text);
    for remark in &imported.remarks {
        eprintln!("pktendpt: {}: {remark}", path.display());
    }
    print!("{}", imported.toml);
    Ok(ExitCode::SUCCESS)
}

fn run_check(arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    let config = config_file(arguments).and_then(|path| Config::load(&path));
    let resolv_conf = enter(arguments.netns.as_deref())?;
    let report = with_runtime(check::run(config, arguments.controller.as_deref(), &resolv_conf))?;
    let text = if json { serde_json::to_string(&report)? + "\n" } else { report.text() };
    print_all(&text)?;
    Ok(if report.works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_status(arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    let path = arguments
        .config
        .clone()
        .or_else(|| Some(DEFAULT_CONFIG.into()).filter(|path: &PathBuf| path.exists()));
    let status = status::ask(&status_socket(path.as_deref())?)?;
    let text = if json { serde_json::to_string(&status)? + "\n" } else { status::text(&status) };
    print_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A reader that has seen enough is no error.
fn print_all(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn config_file(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    match &arguments.config {
        Some(path) => Ok(path.clone()),
        None if Path::new(DEFAULT_CONFIG).exists() => Ok(DEFAULT_CONFIG.into()),
        None => anyhow::bail!("no configuration: name one with -c FILE ({DEFAULT_CONFIG} does not exist)"),
    }
}

fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let take = |fd: Option<RawFd>, option| -> anyhow::Result<Option<OwnedFd>> {
        fd.map(|fd| inherited(fd).with_context(|| format!("{option} {fd} is not an open descriptor")))
            .transpose()
    };
    let control = take(arguments.control_fd, "--control-fd")?;
    let (config, file) = match take(arguments.credentials_fd, "--credentials-fd")? {
        Some(fd) => {
            let mut text = String::new();
            std::fs::File::from(fd).read_to_string(&mut text).context("cannot read --credentials-fd")?;
            (Config::parse(&text).context("in the configuration from --credentials-fd")?, None)
        }
        None => {
            let path = config_file(arguments)?;
            (Config::load(&path)?, Some(path))
        }
    };
    let resolv_conf = enter(arguments.netns.as_deref())?;
    if let Some(control) = control {
        let client = dial::credentials(&config)?;
        let settings = config.session(&resolv_conf)?;
        let store = config.store()?;
        return with_runtime(async {
            let stream = std::net::TcpStream::from(control);
            stream.set_nonblocking(true).context("--control-fd is no socket")?;
            let stream = TcpStream::from_std(stream)?;
            let surroundings = Surroundings { board: Board::new(), stop: Stop::never(), store };
            dial::session(stream, &client, settings, &surroundings).await?;
            Ok(())
        })?;
    }
    let source = Source { file, controller: arguments.controller.clone(), resolv_conf };
    let loaded = Loaded::new(config, &source)?;
    with_runtime(service::run(source, loaded))?
}

/// Runs to the end without waiting for threads that are stuck, for example in a search for a name.
fn with_runtime<F: Future>(work: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let output = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(output)
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

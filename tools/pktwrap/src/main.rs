//! `pktwrap PROGRAM…`: runs an unmodified program with its network I/O at a PacketLab endpoint.
//!
//! | module | what lives there |
//! |---|---|
//! | `cli` | the command line |
//! | `embedded`, `listen`, `pool` | where endpoint sessions come from |
//! | `coverage`, `program` | whether and how the program is started, its signals and status |
//! | `page`, `link` | what is shared with the shim inside the program |
//! | `flow` | one task per socket of the program |
//! | `resolver`, `resolvconf` | names, as the endpoint's resolvers know them |
//! | `sys` | the unsafe parts |

mod addr;
mod cli;
mod context;
mod coverage;
mod embedded;
mod errno;
mod flow;
mod link;
mod listen;
mod page;
mod pool;
mod program;
mod resolvconf;
mod resolver;
mod sys;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use pktlab::controller::Totals;
use pktwrap_link::page::mode;

use cli::{Loopback, Options, Via};
use context::Context;
use embedded::Embedded;
use page::SharedPage;
use pool::Pool;

/// Exit status when pktwrap itself failed.
const FAILED: u8 = 125;
/// How long the program's last bytes may take after it has ended.
const FINISH: Duration = Duration::from_secs(10);
/// How long the sessions may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { FAILED.into() } else { ExitCode::SUCCESS };
        }
    };
    start_log(options.verbose);
    let path = std::env::var_os("PATH");
    let file = match coverage::check(&options.command[0], path.as_deref()) {
        Ok(file) => file,
        Err(refusal) => {
            eprintln!("pktwrap: {refusal}");
            return refusal.status().into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pktwrap: cannot start: {error}");
            return FAILED.into();
        }
    };
    let status = runtime.block_on(run(&options, &file)).unwrap_or_else(|error| {
        eprintln!("pktwrap: {error:#}");
        FAILED
    });
    runtime.shutdown_background();
    status.into()
}

async fn run(options: &Options, file: &std::path::Path) -> anyhow::Result<u8> {
    let library = program::library()?;
    let (first, source) = match options.via {
        Via::Local => {
            let embedded = Arc::new(Embedded::new(options.endpoint_netns.clone(), options.verbose > 0)?);
            (embedded.session().await?, Some(embedded))
        }
        Via::Listen(addr) => (listen::session(addr, options.credentials.as_deref()).await?, None),
    };
    let pool = Pool::new(first, source.clone());
    let resolv_conf =
        resolvconf::write(&pool.info().resolvers).context("cannot write the program's resolv.conf")?;
    let at_endpoint = options.loopback == Loopback::Endpoint;
    let mut bits = 0;
    if at_endpoint {
        bits |= mode::LOOPBACK_AT_ENDPOINT;
    }
    if options.verbose > 0 {
        bits |= mode::VERBOSE;
    }
    let shared = SharedPage::new(bits, resolv_conf.path()).context("cannot make the shared page")?;
    let (session, token) = (u64::from_ne_bytes(random()), random());
    let context = Arc::new(Context::new(shared, token, pool, at_endpoint));
    let listeners = link::Listeners::bind(session).context("cannot listen for the program's sockets")?;
    let mut signals = program::Signals::new().context("cannot handle signals")?;
    let mut child = match program::spawn(&options.command, file, &library, session, &token) {
        Ok(child) => child,
        Err(error) => {
            eprintln!("pktwrap: {}: {error}", file.display());
            return Ok(126);
        }
    };
    // After the spawn: the program keeps the limit it would have had.
    raise_descriptor_limit();
    listeners.serve(&context);
    let status = signals.wait(&mut child).await.context("cannot wait for the program")?;
    context.finish(FINISH).await;
    if !options.quiet {
        summarize(&context);
    }
    context.pool.close(GOODBYE).await;
    if let Some(source) = source {
        source.end(GOODBYE).await;
    }
    Ok(program::status(status))
}

fn summarize(context: &Context) {
    let Totals { sockets, bytes_out, messages_out, bytes_in, messages_in } = context.pool.totals();
    let name = match context.pool.info().host_id.as_str() {
        "" => "(unnamed)",
        name => name,
    };
    eprintln!(
        "pktwrap: endpoint {name}, {sockets} sockets, {bytes_out} bytes ({messages_out} messages) out, \
         {bytes_in} bytes ({messages_in} messages) in"
    );
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("PKTWRAP_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

/// Every socket of the program is a descriptor here.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!("cannot raise the descriptor limit: {error}");
    }
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        // Interrupted by a signal at worst: the kernel's pool is ready long before a user is.
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes
}

//! A real `pktendpt` on the laboratory's endpoint host, and the controller of a test to meet it. The controller's listener is
//! a socket of the controller's host, so the test itself may stay where it is.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netlab::scenario::FIRST_LIGHT;
use netlab::{Lab, Scenario};
use pktlab::cert::{CertType, Certificate, Credentials, Issue, Mode, PrivateKey, ephemeral};
use pktlab::controller::{Controller, Event, Received, RecvHalf, Socket, SocketOptions, Tagged};
use pktlab::session::{Acceptor, Entry, Identity};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::built;

/// How long anything may take that should happen at once, on a machine that is busy with something else.
pub const SOON: Duration = Duration::from_secs(30);

/// For [`Options::before`]: a user of no rights but CAP_NET_RAW.
pub const NET_RAW_ONLY: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all,+net_raw",
    "--ambient-caps=-all,+net_raw",
    "--bounding-set=-all,+net_raw",
];

/// What is special about an endpoint.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Captured packets are withheld from the endpoint's host.
    pub steal: bool,
    /// More of the configuration's `[policy]`, which allows private networks.
    pub policy: &'static str,
    /// More of the configuration's `[endpoint]`.
    pub endpoint: &'static str,
    /// Limits in the experimenter's certificate.
    pub limits: Vec<(&'static str, String)>,
    /// What the endpoint is started with, in front of its own command line.
    pub before: &'static [&'static str],
}

/// The laboratory, and an endpoint in it that is killed when this is dropped.
pub struct Rig {
    /// Of the built-in scenario unless said otherwise, with nothing but the simple servers.
    pub lab: Lab,
    home: TempDir,
    program: PathBuf,
    before: &'static [&'static str],
    acceptor: Acceptor,
    listener: TcpListener,
    running: Option<Child>,
}

impl Rig {
    /// Builds the laboratory and starts the endpoint.
    pub fn up(options: &Options) -> Result<Rig> {
        Rig::in_scenario(FIRST_LIGHT, options)
    }

    /// As [`Rig::up`] with the hosts of the built-in scenario in another situation.
    pub fn in_scenario(scenario: &str, options: &Options) -> Result<Rig> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("r{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut scenario = Scenario::parse(scenario)?;
        for host in &mut scenario.hosts {
            host.serve.retain(|service| *service == netlab::scenario::Service::Misbehave);
        }
        let lab = Lab::up(scenario, &name)?;
        let credentials = credentials(&options.limits)?;
        let home = tempfile::tempdir()?;
        fs::write(home.path().join("endpoint.toml"), configuration(&credentials, options))?;
        let address = lab.v4("controller")?;
        let listener = lab.inside("controller", || std::net::TcpListener::bind((address, 0)))??;
        listener.set_nonblocking(true)?;
        let mut rig = Rig {
            lab,
            home,
            program: built("pktendpt")?,
            before: options.before,
            acceptor: acceptor(&credentials)?,
            listener: TcpListener::from_std(listener)?,
            running: None,
        };
        // Another user must be able to read and run everything, wherever this project lies.
        if !options.before.is_empty() {
            let program = rig.home.path().join("pktendpt");
            fs::copy(&rig.program, &program).context("cannot copy pktendpt")?;
            rig.program = program;
            for (path, mode) in [("", 0o777), ("endpoint.toml", 0o644)] {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(rig.home.path().join(path), fs::Permissions::from_mode(mode))?;
            }
        }
        rig.start()?;
        Ok(rig)
    }

    /// Starts the endpoint after [`Rig::kill`].
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the endpoint runs already");
        let mut line: Vec<&Path> = self.before.iter().map(Path::new).collect();
        line.push(&self.program);
        let log = fs::File::options().append(true).create(true).open(self.log())?;
        let mut command = self.lab.command("endpoint", line[0]);
        command.args(&line[1..]).arg("-c").arg(self.home.path().join("endpoint.toml"));
        command.arg(self.listener.local_addr()?.to_string()).env("PKTENDPT_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.running = Some(command.spawn().context("cannot run ip; scripts/setup installs it")?);
        Ok(())
    }

    /// The endpoint's next session, started. Each is met once.
    pub async fn meet(&mut self) -> Result<Controller> {
        let (stream, _) = tokio::select! {
            accepted = tokio::time::timeout(SOON, self.listener.accept()) => {
                accepted.with_context(|| format!("no endpoint came; {}", self.said()))??
            }
            () = ended(&mut self.running) => bail!("the endpoint ended: {}", self.said()),
        };
        let session = self.acceptor.accept(stream).await?;
        Ok(Controller::start(session).await?)
    }

    /// The endpoint's process.
    pub fn pid(&self) -> Result<u32> {
        self.running.as_ref().map(Child::id).context("the endpoint does not run")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.running.as_ref().context("the endpoint does not run")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.running.take().context("the endpoint does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What it wrote to its log so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.running.is_some() {
            let _ = self.kill();
        }
        // Seen when the test failed.
        println!("the endpoint said:\n{}", self.said());
    }
}

fn credentials(limits: &[(&'static str, String)]) -> Result<Credentials> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() as i64;
    let mut credentials = ephemeral(now)?;
    if !limits.is_empty() {
        let experimenter = PrivateKey::generate()?;
        let limits = limits.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let privilege = Issue { limits, ..Issue::new(CertType::ExpPriv) };
        credentials.controller_chain = vec![
            Issue::new(CertType::PubCmd).sign(&experimenter, &credentials.controller_key.public_key())?,
            privilege.sign(&credentials.operator, &experimenter.public_key())?,
        ];
    }
    Ok(credentials)
}

fn acceptor(credentials: &Credentials) -> Result<Acceptor> {
    let identity = Identity::new(credentials.controller_key.clone(), credentials.controller_chain.clone())?;
    let roots = vec![credentials.operator.public_key()];
    let mode = Mode::ControllerAuthEndpoint;
    Ok(Acceptor::new(vec![Entry { snikey: None, default: true, identity, mode, roots }])?)
}

fn configuration(credentials: &Credentials, options: &Options) -> String {
    let certificates: String = credentials.endpoint_chain.iter().map(Certificate::to_pem).collect();
    format!(
        "[controller]\nkey = '''{}'''\ncertificates = ['''{certificates}''']\nroots = ['''{}''']\n\
         [endpoint]\nprotocols = [\"tcp\", \"udp\", \"raw\"]\naddresses = [\"r2\", \"r1\"]\nresolvers = []\n{}\n\
         [policy]\nprivate = true\n{}\n\
         [raw]\nsteal = {}\nring = 1048576\n\
         [state]\ndirectory = \"state\"\nsocket = \"status.sock\"\n",
        credentials.endpoint_key.to_pem(),
        credentials.operator.public_key().to_pem(),
        options.endpoint,
        options.policy,
        options.steal,
    )
}

/// Whether this process is root of the machine and not of a user namespace; the kernel takes filters from no other.
pub fn real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) == Some("4294967295")
}

/// An open raw socket that delivers NTAGs, and its address at the endpoint.
pub async fn raw(controller: &Controller, local: IpAddr) -> Result<(Socket, IpAddr)> {
    let options = SocketOptions { tags: true, ..SocketOptions::default() };
    let (socket, opening) = controller.open_raw(local, options)?;
    let family = socket.family();
    Ok((socket, opening.local(family).await?.ip()))
}

/// Waits until the program ends by itself.
async fn ended(running: &mut Option<Child>) {
    while !running.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)))) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The next event.
pub async fn event(receive: &mut RecvHalf) -> Result<Event> {
    let event = tokio::time::timeout(SOON, receive.recv()).await.context("no event came")?;
    event.context("the session is over")
}

/// The next data; nothing but NTAGs may come before.
pub async fn data(receive: &mut RecvHalf) -> Result<Received> {
    loop {
        match event(receive).await? {
            Event::Data(received) => return Ok(received),
            Event::Tag(_) => {}
            other => bail!("unexpected {other:?}"),
        }
    }
}

/// The next NTAG; nothing may come before.
pub async fn tag(receive: &mut RecvHalf) -> Result<Tagged> {
    match event(receive).await? {
        Event::Tag(tagged) => Ok(tagged),
        other => bail!("unexpected {other:?}"),
    }
}

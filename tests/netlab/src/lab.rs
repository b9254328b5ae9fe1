//! A laboratory: builds a scenario in network namespaces and removes it again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::place::{self, ETC};
use crate::scenario::{Host, Link, Scenario, Service, Shape};
use crate::services::{self, command, run};
use crate::state::{self, Process, State};
use crate::{serve, sys};

/// Packets and bytes of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// A running laboratory; removed when dropped, unless [`Lab::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    state: State,
    remove: bool,
}

impl Lab {
    /// Builds a scenario. The name becomes the prefix of the namespaces. Abandoned laboratories are removed first.
    pub fn up(scenario: Scenario, name: &str) -> Result<Lab> {
        let fits = !name.is_empty()
            && name.len() <= 40
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        ensure!(fits, "laboratory name {name:?}: use up to 40 letters, digits and dashes");
        place::prepare()?;
        state::remove_abandoned();
        ensure!(
            State::load(name).is_err(),
            "laboratory {name:?} exists; remove it with `netlab down --name {name}`"
        );
        let dir = std::env::temp_dir().join(format!("netlab-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).context("cannot make a directory for the servers' files")?;
        let middles = scenario.links.iter().filter(|l| l.shapes().is_some()).map(|l| middle(name, l));
        let namespaces = scenario.hosts.iter().map(|h| format!("{name}-{}", h.name)).chain(middles).collect();
        let owner = Process::of(std::process::id());
        let state = State { name: name.to_owned(), scenario, namespaces, processes: Vec::new(), dir, owner };
        // On record before anything exists, so that it is removed whatever happens; an error from here on drops the lab.
        state.save()?;
        let mut lab = Lab { state, remove: true };
        lab.build()?;
        Ok(lab)
    }

    /// A laboratory for a test: the built-in scenario under a name of its own.
    pub fn for_test(scenario: &str) -> Result<Lab> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Lab::up(Scenario::parse(scenario)?, &format!("t{}-{count}", std::process::id()))
    }

    /// A laboratory that already runs. It is not removed when dropped.
    pub fn open(name: &str) -> Result<Lab> {
        Ok(Lab { state: State::load(name)?, remove: false })
    }

    /// Leaves the laboratory running after the process has ended.
    pub fn keep(mut self) -> Result<()> {
        self.state.owner = None;
        self.remove = false;
        self.state.save()
    }

    /// Removes the laboratory.
    pub fn down(mut self) {
        self.remove = true;
    }

    /// What was built.
    pub fn scenario(&self) -> &Scenario {
        &self.state.scenario
    }

    /// Directory of the servers' files: `lab.pem`, `www/`, logs.
    pub fn dir(&self) -> &Path {
        &self.state.dir
    }

    /// Name of a host's namespace.
    pub fn netns(&self, host: &str) -> String {
        format!("{}-{host}", self.state.name)
    }

    /// IPv4 address of a host.
    pub fn v4(&self, host: &str) -> Result<Ipv4Addr> {
        self.state.scenario.address(host).map(|a| a.0).with_context(|| format!("no host {host:?}"))
    }

    /// IPv6 address of a host.
    pub fn v6(&self, host: &str) -> Result<Ipv6Addr> {
        self.state.scenario.address(host).map(|a| a.1).with_context(|| format!("no host {host:?}"))
    }

    /// A command on a host: in its namespace and with its `resolv.conf`.
    pub fn command(&self, host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut ip = command("ip");
        ip.args(["netns", "exec", &self.netns(host)]).arg(program);
        ip
    }

    /// Runs a command on a host to its end.
    pub fn run(&self, host: &str, command_line: &[&str]) -> Result<Output> {
        let (program, args) = command_line.split_first().context("no command")?;
        self.command(host, program).args(args).stdin(Stdio::null()).output().context("cannot run ip")
    }

    /// Runs a function on a thread inside a host's namespace (its network only).
    pub fn inside<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
        inside(&self.netns(host), work)
    }

    /// Packet counters of a host's devices, without the loopback.
    pub fn counters(&self, host: &str) -> Result<BTreeMap<String, Counters>> {
        let text = self.inside(host, || fs::read_to_string("/proc/thread-self/net/dev"))??;
        let mut counters = BTreeMap::new();
        for line in text.lines().skip(2) {
            let Some((device, rest)) = line.split_once(':') else { continue };
            let n: Vec<u64> = rest.split_whitespace().filter_map(|f| f.parse().ok()).collect();
            ensure!(n.len() >= 10, "cannot read packet counters: {line:?}");
            if device.trim() != "lo" {
                let value = Counters { rx_bytes: n[0], rx_packets: n[1], tx_bytes: n[8], tx_packets: n[9] };
                counters.insert(device.trim().to_owned(), value);
            }
        }
        Ok(counters)
    }

    /// Puts a file of pseudo-random bytes on the web hosts; `http://www.lab/NAME`.
    pub fn web_file(&self, name: &str, size: u64) -> Result<PathBuf> {
        let path = self.dir().join("www").join(name);
        services::write_noise(&path, size)?;
        Ok(path)
    }

    fn build(&mut self) -> Result<()> {
        for name in &self.state.namespaces {
            run(command("ip").args(["netns", "add", name]))?;
        }
        let scenario = self.state.scenario.clone();
        for host in &scenario.hosts {
            self.host(host)?;
        }
        for link in &scenario.links {
            self.link(link)?;
        }
        for host in &scenario.hosts {
            self.routes(host)?;
        }
        for host in &scenario.hosts {
            for service in &host.serve {
                self.service(host, *service).with_context(|| format!("{service:?} on {}", host.name))?;
            }
        }
        self.state.save()
    }

    fn host(&self, host: &Host) -> Result<()> {
        let on = if host.forward { "1" } else { "0" };
        let settings = [
            ("ipv4/ip_forward", on),
            ("ipv6/conf/all/forwarding", on),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            // Addresses are usable at once, and nothing is sent that no program asked for.
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            ("ipv6/conf/default/addr_gen_mode", "1"),
            // Every error is reported: of many probes in a row each has its answer.
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv6/icmp/ratelimit", "0"),
        ];
        let netns = self.netns(&host.name);
        settings.iter().try_for_each(|(name, value)| set(&netns, name, value))?;
        // Closed even for root by default. In a user namespace only the mapped group may be named.
        set(&netns, "ipv4/ping_group_range", "0 2147483647")
            .or_else(|_| set(&netns, "ipv4/ping_group_range", "0 0"))?;
        run(command("ip").args(["-n", &netns, "link", "set", "lo", "up"]))?;
        if let Some(resolver) = &host.resolver {
            let etc = Path::new(ETC).join(&netns);
            fs::create_dir_all(&etc)?;
            let text =
                format!("search lab\nnameserver {}\noptions timeout:2 attempts:1\n", self.v4(resolver)?);
            fs::write(etc.join("resolv.conf"), text)?;
        }
        Ok(())
    }

    fn link(&mut self, link: &Link) -> Result<()> {
        let ends = [self.netns(&link.ends[0]), self.netns(&link.ends[1])];
        let Some(shapes) = link.shapes() else {
            veth(&ends[0], &link.ends[1], &ends[1], &link.ends[0])?;
            return self.addresses(link);
        };
        let between = middle(&self.state.name, link);
        for setting in ["ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"] {
            set(&between, setting, "1")?;
        }
        veth(&ends[0], &link.ends[1], &between, "a")?;
        veth(&ends[1], &link.ends[0], &between, "b")?;
        for device in ["a", "b"] {
            run(command("ip").args(["-n", &between, "link", "set", "dev", device, "up"]))?;
        }
        for (end, other) in [(0, 1), (1, 0)] {
            inside(&ends[end], || sys::offloads_off(&link.ends[other]))?
                .context("cannot turn offloads off")?;
        }
        self.addresses(link)?;
        let name = format!("relay{}", link.net);
        let arguments =
            ["relay".into(), "a".into(), "b".into(), serde_json::to_string::<[Shape; 2]>(&shapes)?];
        self.daemon(&between, &name, &own_program()?, &arguments, Ready::Says("ready"))
    }

    /// Addresses, hardware addresses and neighbours of both ends. Neighbours are fixed and ARP is off (with it the
    /// multicast reports of neighbour discovery), so that the counters show what programs send and nothing else.
    fn addresses(&self, link: &Link) -> Result<()> {
        for (end, other) in [(0, 1), (1, 0)] {
            let (netns, device) = (self.netns(&link.ends[end]), &link.ends[other]);
            let lines = format!(
                "link set dev {device} address {mac} arp off\n\
                 link set dev {device} up\n\
                 addr add {v4}/24 dev {device}\n\
                 addr add {v6}/64 dev {device} nodad\n\
                 neigh replace {peer4} lladdr {peer_mac} nud permanent dev {device}\n\
                 neigh replace {peer6} lladdr {peer_mac} nud permanent dev {device}\n",
                mac = link.mac(end),
                v4 = link.v4(end),
                v6 = link.v6(end),
                peer4 = link.v4(other),
                peer6 = link.v6(other),
                peer_mac = link.mac(other),
            );
            batch(&netns, &lines)?;
        }
        Ok(())
    }

    fn routes(&self, host: &Host) -> Result<()> {
        let scenario = &self.state.scenario;
        let mut lines = String::new();
        for route in &host.routes {
            let Some((link, end)) = scenario.link_to(&host.name, &route.via) else { continue };
            // A host is one address; what lies behind it stays out of reach.
            let (v4, v6) = match scenario.address(&route.to) {
                Some((v4, v6)) => (format!("{v4}/32"), format!("{v6}/128")),
                None => ("default".into(), "default".into()),
            };
            lines += &format!(
                "route replace {v4} via {}\n-6 route replace {v6} via {}\n",
                link.v4(end),
                link.v6(end)
            );
        }
        for address in &host.blackhole {
            let (family, bits) = if address.is_ipv4() { ("-4", 32) } else { ("-6", 128) };
            lines += &format!("{family} route add blackhole {address}/{bits}\n");
        }
        for line in lines.lines() {
            // Not in one batch: a batch has one family for all its lines.
            let netns = self.netns(&host.name);
            let (family, rest) = line.strip_prefix("-6 ").map_or(("-4", line), |rest| ("-6", rest));
            let rest = rest.strip_prefix("-4 ").unwrap_or(rest);
            run(command("ip").args(["-n", &netns, family]).args(rest.split_whitespace()))?;
        }
        Ok(())
    }

    fn service(&mut self, host: &Host, service: Service) -> Result<()> {
        let netns = self.netns(&host.name);
        let dir = self.state.dir.clone();
        let v4 = self.v4(&host.name)?;
        match service {
            Service::Web => {
                let configuration = services::prepare_web(&dir, &self.state.scenario, &host.name)?;
                let arguments =
                    ["-p", &dir.to_string_lossy(), "-c", &configuration.to_string_lossy()].map(String::from);
                self.daemon(&netns, "nginx", Path::new("nginx"), &arguments, Ready::Listens((v4, 443).into()))
            }
            Service::Dns => {
                let arguments = services::dns_arguments(&self.state.scenario, &host.name);
                self.daemon(
                    &netns,
                    "dnsmasq",
                    Path::new("dnsmasq"),
                    &arguments,
                    Ready::Listens((v4, 53).into()),
                )
            }
            Service::Misbehave => {
                let arguments: Vec<String> = ["serve".to_owned()].into_iter().chain(serve::usual()).collect();
                self.daemon(&netns, "serve", &own_program()?, &arguments, Ready::Says("serving"))
            }
        }
    }

    /// Starts a server or relay and records it. Returns when it is ready.
    fn daemon(
        &mut self,
        netns: &str,
        name: &str,
        program: &Path,
        args: &[String],
        ready: Ready<'_>,
    ) -> Result<()> {
        use std::os::unix::process::CommandExt;
        let log = self.state.dir.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let mut ip = command("ip");
        ip.args(["netns", "exec", netns]).arg(program).args(args).stdin(Stdio::null());
        ip.stdout(output.try_clone()?).stderr(output).process_group(0).current_dir("/");
        let mut child = ip.spawn().context("cannot run ip; scripts/setup installs it")?;
        if let Some(process) = Process::of(child.id()) {
            self.state.processes.push(process);
            self.state.save()?;
        }
        let up = || -> Result<bool> {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}: {}", fs::read_to_string(&log)?.trim());
            }
            Ok(match ready {
                Ready::Says(word) => fs::read_to_string(&log)?.contains(word),
                Ready::Listens(address) => {
                    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
                    inside(netns, connect)?
                }
            })
        };
        wait_until(name, up)
    }
}

/// How a server shows that it is ready.
enum Ready<'a> {
    /// A word in its log.
    Says(&'a str),
    /// It accepts connections, from its own host.
    Listens(SocketAddr),
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.remove {
            self.state.remove();
        }
    }
}

fn middle(name: &str, link: &Link) -> String {
    format!("{name}-link{}", link.net)
}

/// The `netlab` program: this one, or the one built beside a test.
fn own_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NETLAB_BIN") {
        return Ok(path.into());
    }
    let me = std::env::current_exe()?;
    let candidates = me.ancestors().skip(1).take(2).map(|dir| dir.join("netlab"));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.context("the program netlab is not built; run `cargo build -p netlab` (or set NETLAB_BIN)")
}

fn wait_until(what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !ready()? {
        ensure!(start.elapsed() < Duration::from_secs(20), "{what} did not become ready within 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn inside<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file =
        File::open(Path::new("/run/netns").join(netns)).with_context(|| format!("no namespace {netns}"))?;
    sys::in_namespace(&file, work).with_context(|| format!("cannot enter namespace {netns}"))
}

/// Sets a network setting (below /proc/sys/net) in a namespace.
fn set(netns: &str, name: &str, value: &str) -> Result<()> {
    inside(netns, || fs::write(Path::new("/proc/sys/net").join(name), value))?
        .with_context(|| format!("cannot set {name} to {value} in {netns}"))
}

fn veth(netns: &str, device: &str, other_netns: &str, other_device: &str) -> Result<()> {
    let mut ip = command("ip");
    ip.args(["link", "add", device, "netns", netns, "type", "veth", "peer"]);
    run(ip.args(["name", other_device, "netns", other_netns])).map(|_| ())
}

/// Several `ip` commands in a namespace.
fn batch(netns: &str, lines: &str) -> Result<()> {
    use std::io::Write;
    let mut ip = command("ip");
    ip.args(["-n", netns, "-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = ip.spawn().context("cannot run ip; scripts/setup installs it")?;
    child.stdin.take().context("no pipe")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "in {netns}: {}\n{lines}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

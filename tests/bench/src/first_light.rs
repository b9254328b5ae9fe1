//! curl through pktwrap against direct curl and curl through `ssh -D`: throughput, latency, link round trips.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use netlab::Lab;
use netlab::scenario::{LONG_WAY, Scenario};
use pktlab::cert::ephemeral;
use serde_json::json;

use crate::{median, peers, program};

const REPETITIONS: usize = 5;
const BIG: u64 = 1 << 30;
/// GETs, each on a connection of its own, for one latency sample.
const GETS: usize = 200;
/// Round-trip time of the laboratory's long link, seconds.
const LINK_RTT: f64 = 0.050;

/// One way to run curl.
struct Way {
    name: &'static str,
    prefix: Vec<String>,
}

pub fn run() -> Result<serde_json::Value> {
    let dir = tempfile::tempdir()?;
    let www = dir.path().join("www");
    fs::create_dir(&www)?;
    netlab::services::write_noise(&www.join("big"), BIG)?;
    fs::write(www.join("small"), [b'x'; 1350])?;

    let (web_port, ssh_port) = (peers::free_port()?, peers::free_port()?);
    let _web = peers::nginx(dir.path(), &www, web_port)?;
    let _sshd = peers::sshd(dir.path(), ssh_port)?;
    let (_ssh, plain) = peers::socks(dir.path(), ssh_port, None)?;
    let (_ssh_gcm, gcm) = peers::socks(dir.path(), ssh_port, Some("aes128-gcm@openssh.com"))?;
    let proxychains = |config: &Path| {
        vec!["proxychains4".to_owned(), "-q".into(), "-f".into(), config.display().to_string()]
    };
    let pktwrap = program("pktwrap")?.display().to_string();
    let ways = [
        Way { name: "direct", prefix: Vec::new() },
        Way {
            name: "pktwrap",
            prefix: vec![pktwrap, "--quiet".into(), "--loopback".into(), "endpoint".into()],
        },
        Way { name: "ssh -D default", prefix: proxychains(&plain) },
        Way { name: "ssh -D aes128-gcm", prefix: proxychains(&gcm) },
    ];

    let base = format!("http://127.0.0.1:{web_port}");
    let mut speed = vec![Vec::new(); ways.len()];
    let mut latency = vec![Vec::new(); ways.len()];
    for repetition in 1..=REPETITIONS {
        for (i, way) in ways.iter().enumerate() {
            eprintln!("repetition {repetition} of {REPETITIONS}: {}", way.name);
            speed[i].push(download(way, &format!("{base}/big"))?);
            latency[i].push(median(&gets(way, &format!("{base}/small"), GETS)?)?);
        }
    }
    let medians = |samples: &[Vec<f64>]| samples.iter().map(|s| median(s)).collect::<Result<Vec<_>>>();
    let (speed, latency) = (medians(&speed)?, medians(&latency)?);
    for (i, way) in ways.iter().enumerate() {
        println!(
            "{:<20} {:8.0} MiB/s   small GET {:8.0} µs",
            way.name,
            speed[i] / 1048576.0,
            latency[i] * 1e6
        );
    }
    let round_trips = round_trips(dir.path())?;
    println!("link round trips per GET on a new connection: {round_trips:.2}");
    Ok(json!({
        "throughput_vs_ssh": ratio(speed[1], speed[2]),
        "throughput_vs_ssh_aes128_gcm": ratio(speed[1], speed[3]),
        "throughput_vs_direct": ratio(speed[1], speed[0]),
        "get_latency_vs_ssh": ratio(latency[1], latency[2].min(latency[3])),
        "get_latency_vs_direct": ratio(latency[1], latency[0]),
        "round_trips_per_get": (round_trips * 100.0).round() / 100.0,
    }))
}

fn ratio(a: f64, b: f64) -> f64 {
    (a / b * 1000.0).round() / 1000.0
}

fn curl(way: &[String]) -> Command {
    let mut words = way.iter().cloned().chain(["curl".to_owned()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Bytes per second as curl counts them.
fn download(way: &Way, url: &str) -> Result<f64> {
    let output = curl(&way.prefix)
        .args(["-sS", "-o", "/dev/null", "-w", "%{size_download} %{speed_download}", url])
        .output()
        .context("cannot run curl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {}", way.name, String::from_utf8_lossy(&output.stderr));
    let (size, speed) = text.split_once(' ').context("curl printed no figures")?;
    ensure!(size.parse::<u64>()? == BIG, "{}: only {size} bytes arrived", way.name);
    Ok(speed.parse()?)
}

/// Seconds of each of `count` GETs, every one on a new connection.
fn gets(way: &Way, url: &str, count: usize) -> Result<Vec<f64>> {
    times(curl(&way.prefix), url, count).with_context(|| way.name.to_owned())
}

fn times(mut curl: Command, url: &str, count: usize) -> Result<Vec<f64>> {
    curl.args(["-sS", "-f", "-H", "Connection: close", "-w", "%{time_total}\n"]);
    for _ in 0..count {
        curl.args(["-o", "/dev/null", url]);
    }
    let output = curl.output()?;
    ensure!(output.status.success(), "curl failed: {}", String::from_utf8_lossy(&output.stderr));
    let times: Result<Vec<f64>, _> =
        String::from_utf8_lossy(&output.stdout).lines().map(str::parse).collect();
    let times = times?;
    ensure!(times.len() == count, "{} of {count} GETs reported", times.len());
    Ok(times)
}

/// GETs through a remote endpoint over the laboratory's 50 ms link, in units of its round-trip time.
fn round_trips(dir: &Path) -> Result<f64> {
    eprintln!("link round trips, in the laboratory");
    let lab = Lab::up(Scenario::parse(LONG_WAY)?, &format!("bench-{}", std::process::id()))?;
    let unix_now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let world = ephemeral(unix_now as i64)?;
    let chain = |certs: &[pktlab::cert::Certificate]| {
        certs.iter().map(|c| format!("'''\n{}'''", c.to_pem())).collect::<Vec<_>>().join(",")
    };
    let root = world.operator.public_key().to_pem();
    let controller = dir.join("controller.toml");
    fs::write(
        &controller,
        format!(
            "key = '''\n{}'''\ncertificates = [{}]\nroots = ['''\n{root}''']\n",
            world.controller_key.to_pem(),
            chain(&world.controller_chain)
        ),
    )?;
    let endpoint = dir.join("endpoint.toml");
    fs::write(
        &endpoint,
        format!(
            "[controller]\nkey = '''\n{}'''\ncertificates = [{}]\nroots = ['''\n{root}''']\n\
             [policy]\nprivate = true\nburst = \"none\"\n[state]\npersist = false\nsocket = \"status.sock\"\n",
            world.endpoint_key.to_pem(),
            chain(&world.endpoint_chain)
        ),
    )?;
    let meet = format!("{}:20556", lab.v4("controller")?);
    let mut remote = lab.command("endpoint", program("pktendpt")?);
    let mut remote = remote.arg("-c").arg(&endpoint).arg(&meet).stderr(Stdio::null()).spawn()?;
    let mut wrapped = lab.command("controller", program("pktwrap")?);
    wrapped
        .args(["--quiet", "--via", &format!("listen:{meet}"), "--credentials"])
        .arg(&controller)
        .arg("curl");
    let samples = times(wrapped, &format!("http://{}/", lab.v4("target")?), 20);
    let _ = remote.kill();
    let _ = remote.wait();
    Ok(median(&samples?)? / LINK_RTT)
}

//! The real servers of a laboratory: configuration of nginx and dnsmasq, the certificate, the git repository, web files.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::scenario::{Scenario, Service};

/// The page at `/`.
pub const PAGE: &str =
    "<!doctype html>\n<title>PacketLab</title>\n<p>You see this page from the endpoint.</p>\n";

/// Runs a command to its end; its standard output. An error carries what it printed.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {name}; scripts/setup installs what is missing"))?;
    if !output.status.success() {
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        bail!("{name} {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// A command that finds system programs also with an ordinary user's PATH.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"));
    command
}

/// Makes the files a web host serves in `dir`: `www/`, `lab.pem` and `lab.key`. Returns the path of nginx's configuration.
pub fn prepare_web(dir: &Path, scenario: &Scenario, host: &str) -> Result<std::path::PathBuf> {
    let www = dir.join("www");
    fs::create_dir_all(&www)?;
    fs::write(www.join("index.html"), PAGE)?;
    certificate(dir, scenario, host)?;
    repository(dir, &www)?;
    let d = dir.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {d}/temp-{kind};\n"))
        .concat();
    // One process: no change of user, which a user namespace does not allow.
    let text = format!(
        "daemon off;\nmaster_process off;\nuser root;\npid {d}/nginx.pid;\nerror_log {d}/nginx.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n    access_log off;\n{temp}    sendfile on;\n    tcp_nodelay on;\n    server_tokens off;\n\
         \x20   types {{ text/html html; text/plain txt; }}\n    default_type application/octet-stream;\n\
         \x20   server {{\n        listen 80;\n        listen [::]:80;\n        listen 443 ssl;\n        listen [::]:443 ssl;\n\
         \x20       ssl_certificate {d}/lab.pem;\n        ssl_certificate_key {d}/lab.key;\n        root {d}/www;\n\
         \x20       location = /moved {{ return 302 /; }}\n    }}\n}}\n"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, text)?;
    Ok(path)
}

/// A self-signed certificate, which a client takes as its own authority.
fn certificate(dir: &Path, scenario: &Scenario, host: &str) -> Result<()> {
    let (v4, v6) = scenario.address(host).context("no address")?;
    let mut openssl = command("openssl");
    openssl
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
        ])
        .args(["-subj", "/CN=PacketLab laboratory", "-addext"])
        .arg(format!("subjectAltName=DNS:www.lab,DNS:{host}.lab,IP:{v4},IP:{v6}"))
        .arg("-keyout")
        .arg(dir.join("lab.key"))
        .arg("-out")
        .arg(dir.join("lab.pem"));
    run(&mut openssl)?;
    Ok(())
}

/// A small repository under `/repo.git`, for git's plain ("dumb") HTTP transport.
fn repository(dir: &Path, www: &Path) -> Result<()> {
    let (work, bare) = (dir.join("repo"), www.join("repo.git"));
    fs::create_dir_all(&work)?;
    let git = |at: &Path, args: &[&str]| {
        let mut git = command("git");
        // The user's own configuration must not change what is served.
        git.current_dir(at).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), "Lab").env(format!("GIT_{role}_EMAIL"), "lab@example.org");
            git.env(format!("GIT_{role}_DATE"), "2026-01-01T00:00:00Z");
        }
        run(git.args(args)).map(|_| ())
    };
    git(&work, &["init", "-q", "-b", "main"])?;
    for i in 0..20 {
        fs::write(work.join(format!("file{i}.txt")), format!("content {i}\n").repeat(200))?;
    }
    git(&work, &["add", "."])?;
    git(&work, &["commit", "-q", "-m", "Add files"])?;
    let path = bare.to_str().context("path is not UTF-8")?;
    git(&work, &["clone", "-q", "--bare", ".", path])?;
    git(&bare, &["update-server-info"])
}

/// Writes a file of `size` bytes that look random but are the same every time.
pub fn write_noise(path: &Path, size: u64) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut left = size;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bytes = state.to_le_bytes();
        let take = left.min(8) as usize;
        file.write_all(&bytes[..take])?;
        left -= take as u64;
    }
    file.flush().context("cannot write the file; is the temporary directory full?")
}

/// Arguments of dnsmasq on a host: the names of all hosts, on the host's own addresses.
pub fn dns_arguments(scenario: &Scenario, host: &str) -> Vec<String> {
    let (v4, v6) =
        scenario.address(host).unwrap_or((std::net::Ipv4Addr::UNSPECIFIED, std::net::Ipv6Addr::UNSPECIFIED));
    // --no-daemon also keeps its user: changing it is not allowed in a user namespace.
    let mut arguments: Vec<String> = [
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--local=/lab/",
    ]
    .map(String::from)
    .to_vec();
    arguments.push(format!("--listen-address={v4},{v6}"));
    for other in &scenario.hosts {
        let Some((v4, v6)) = scenario.address(&other.name) else { continue };
        arguments.push(format!("--host-record={}.lab,{v4},{v6}", other.name));
        if other.serve.contains(&Service::Web) {
            arguments.push(format!("--host-record=www.lab,{v4},{v6}"));
            arguments.push(format!("--host-record=v4.lab,{v4}"));
            arguments.push(format!("--host-record=v6.lab,{v6}"));
        }
        for address in &other.blackhole {
            arguments.push(format!("--host-record=blackhole.lab,{address}"));
        }
    }
    arguments.push("--txt-record=txt.lab,a text of the laboratory".into());
    arguments
}

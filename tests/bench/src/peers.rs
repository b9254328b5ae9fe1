//! What pktwrap is measured against: an own nginx, an own sshd with `ssh -D`, proxychains4. All on loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A server process, ended when dropped.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn start(command: &mut Command, port: u16) -> Result<Server> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {:?}; run scripts/setup bench", command.get_program()))?;
    let mut server = Server(child);
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(status) = server.0.try_wait()? {
            bail!("{command:?} ended at once: {status}");
        }
        ensure!(Instant::now() < until, "{command:?} does not listen on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// nginx that serves the files of `www`.
pub fn nginx(dir: &Path, www: &Path, port: u16) -> Result<Server> {
    let config = dir.join("nginx.conf");
    let (d, w) = (dir.display(), www.display());
    fs::write(
        &config,
        format!(
            "daemon off; master_process off; pid {d}/nginx.pid; error_log {d}/nginx.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; keepalive_requests 100000;\n\
             client_body_temp_path {d}/a; proxy_temp_path {d}/b; fastcgi_temp_path {d}/c; uwsgi_temp_path {d}/d;\n\
             scgi_temp_path {d}/e; server {{ listen 127.0.0.1:{port}; root {w}; }} }}\n"
        ),
    )?;
    start(Command::new("nginx").arg("-c").arg(&config), port)
}

/// sshd with throw-away keys; the client key is `dir/user`.
pub fn sshd(dir: &Path, port: u16) -> Result<Server> {
    for key in ["host", "user"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.join(key))
            .status()
            .context("cannot run ssh-keygen; run scripts/setup bench")?;
        ensure!(made.success(), "ssh-keygen failed");
    }
    fs::copy(dir.join("user.pub"), dir.join("authorized"))?;
    // sshd insists on its privilege separation directory.
    fs::create_dir_all("/run/sshd").context("sshd needs /run/sshd; run the benchmark as root")?;
    let config = dir.join("sshd.conf");
    let d = dir.display();
    fs::write(
        &config,
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {d}/host\nAuthorizedKeysFile {d}/authorized\n\
             StrictModes no\nUsePAM no\nPidFile {d}/sshd.pid\nPermitRootLogin yes\n"
        ),
    )?;
    let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().find(|p| Path::new(p).exists());
    let sshd = sshd.context("sshd is missing; run scripts/setup bench")?;
    start(Command::new(sshd).args(["-D", "-f"]).arg(&config), port)
}

/// `ssh -D`, with the cipher if one is given, and a proxychains configuration for it.
pub fn socks(dir: &Path, sshd_port: u16, cipher: Option<&str>) -> Result<(Server, std::path::PathBuf)> {
    let port = free_port()?;
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-N",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
    ]);
    ssh.args(["-F", "/dev/null", "-p", &sshd_port.to_string(), "-D", &format!("127.0.0.1:{port}"), "-i"]);
    ssh.arg(dir.join("user"));
    if let Some(cipher) = cipher {
        ssh.args(["-c", cipher]);
    }
    ssh.arg("127.0.0.1");
    let server = start(&mut ssh, port)?;
    let config = dir.join(format!("proxychains-{port}.conf"));
    fs::write(&config, format!("strict_chain\nquiet_mode\n[ProxyList]\nsocks5 127.0.0.1 {port}\n"))?;
    Ok((server, config))
}

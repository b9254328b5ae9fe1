//! Unmodified tools: the same exit code and the same output under `pktwrap` as on the endpoint's own host, and no packet from
//! the controller's.

use anyhow::Result;
use system_tests::Bench;

/// Runs shell lines both ways; each with its expected exit code and a text its output must hold.
fn check(lines: &[(&str, i32, &str)]) -> Result<()> {
    let bench = Bench::up()?;
    let pem = bench.lab.dir().join("lab.pem").to_string_lossy().into_owned();
    let mut wrong = Vec::new();
    for (line, code, text) in lines {
        let line = line.replace("@PEM", &pem);
        match bench.same(&["sh", "-c", &line]) {
            Err(error) => wrong.push(format!("{error:#}")),
            Ok(outcome) => {
                let output = outcome.stdout + &outcome.stderr;
                if outcome.code != *code || !output.contains(text) {
                    wrong.push(format!(
                        "{line}: expected {code} and {text:?}, both gave {} and {output}",
                        outcome.code
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} lines\n{}", wrong.len(), lines.len(), wrong.join("\n\n"));
    Ok(())
}

#[test]
fn curl() -> Result<()> {
    check(&[
        ("curl -sS -i http://www.lab/", 0, "from the endpoint"),
        ("curl -sS -i http://10.91.4.2/", 0, "200 OK"),
        ("curl -sS -g 'http://[fd91:0:0:4::2]/'", 0, "from the endpoint"),
        ("curl -sS http://v6.lab/", 0, "from the endpoint"),
        ("curl -sS --cacert @PEM https://www.lab/", 0, "from the endpoint"),
        ("curl -sS https://www.lab/", 60, "certificate"),
        ("curl -sS -L http://www.lab/moved", 0, "from the endpoint"),
        ("curl -sS -f http://www.lab/nothing-here", 22, "404"),
        ("curl -sS http://www.lab/ http://www.lab/index.html", 0, "from the endpoint"),
        (
            "curl -sS -w '%{remote_ip} %{remote_port} %{local_ip}\\n' -o /dev/null http://www.lab/",
            0,
            "fd91:0:0:4::2 80 fd91:0:0:3::1",
        ),
        (
            "curl -sS -w '%{remote_ip} %{remote_port} %{local_ip}\\n' -o /dev/null -4 http://www.lab/",
            0,
            "10.91.4.2 80 10.91.3.1",
        ),
    ])
}

#[test]
fn curl_failures() -> Result<()> {
    check(&[
        ("curl -sS http://10.91.4.2:9/", 7, "Failed to connect"),
        ("curl -sS http://target.lab:9/", 7, "Failed to connect"),
        ("curl -sS --connect-timeout 1 http://10.91.66.66/", 28, "connect timeout"),
        ("curl -sS --connect-timeout 1 http://blackhole.lab/", 28, "connect timeout"),
        ("curl -sS http://10.91.4.2:8081/", 56, "reset by peer"),
        ("curl -sS http://10.91.4.2:8082/", 0, "half closed"),
        ("curl -sS http://10.91.4.2:8084/", 52, "Empty reply"),
        ("curl -sS --max-time 1 http://10.91.4.2:8083/", 28, "timed out"),
        ("curl -sS http://not-there.lab/", 6, "Could not resolve"),
    ])
}

#[test]
fn wget() -> Result<()> {
    check(&[
        ("wget -q -O - http://www.lab/", 0, "from the endpoint"),
        ("wget -q -S -O - http://www.lab/", 0, "200 OK"),
        ("wget -q -O - --ca-certificate=@PEM https://www.lab/", 0, "from the endpoint"),
        ("wget -q -t 1 -O - http://www.lab:9/", 4, ""),
        ("wget -q -t 1 -O - http://www.lab/nothing-here", 8, ""),
    ])
}

#[test]
fn dig() -> Result<()> {
    check(&[
        ("dig @10.91.4.2 www.lab", 0, "10.91.4.2"),
        ("dig @fd91:0:0:4::2 www.lab AAAA", 0, "fd91:0:0:4::2"),
        ("dig @10.91.4.2 +tcp www.lab", 0, "(TCP)"),
        ("dig www.lab", 0, "10.91.4.2#53"),
        ("dig +short txt.lab TXT", 0, "a text of the laboratory"),
        ("dig +short -x 10.91.4.2", 0, "lab."),
        ("dig @10.91.66.66 +tries=1 +time=1 www.lab", 9, ""),
        ("dig @10.91.4.2 -p 9 +tries=1 +time=5 www.lab", 9, "connection refused"),
        ("dig @fd91:0:0:4::2 -p 9 +tries=2 +time=5 www.lab", 9, "connection refused"),
        ("host -p 9 -W 5 -R 1 www.lab 10.91.4.2", 1, "connection refused"),
        ("nslookup -port=9 -timeout=5 -retry=1 www.lab 10.91.4.2", 1, "connection refused"),
        ("host www.lab", 0, "has address 10.91.4.2"),
        ("nslookup www.lab", 0, "10.91.4.2"),
    ])
}

#[test]
fn netcat() -> Result<()> {
    check(&[
        ("echo hello | nc -N 10.91.4.2 7", 0, "hello"),
        ("seq 100000 | nc -N target.lab 7 | sha256sum", 0, "  -"),
        ("echo hello | nc -u -w 1 10.91.4.2 7", 0, "hello"),
        ("echo hello | nc -u -w 1 10.91.4.2 9", 0, ""),
        ("nc -zv -w 2 10.91.4.2 80", 0, "succeeded"),
        ("nc -zv -w 2 10.91.4.2 9", 1, "refused"),
        ("nc -z -w 1 10.91.66.66 80", 1, ""),
        ("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc 10.91.4.2 80", 0, "from the endpoint"),
    ])
}

#[test]
fn git() -> Result<()> {
    check(&[
        ("git ls-remote http://www.lab/repo.git", 0, "refs/heads/main"),
        (
            "d=$(mktemp -d) && git clone -q http://www.lab/repo.git $d/c && cat $d/c/*.txt | sha256sum && \
             git -C $d/c -c safe.directory='*' log --oneline; code=$?; rm -rf $d; exit $code",
            0,
            "Add files",
        ),
        ("git ls-remote http://www.lab:9/repo.git", 128, "ailed to connect"),
    ])
}

#[test]
fn openssl() -> Result<()> {
    check(&[
        (
            "openssl s_client -brief -connect www.lab:443 -servername www.lab -CAfile @PEM -verify_return_error </dev/null",
            0,
            "Verification: OK",
        ),
        ("openssl s_client -brief -connect 10.91.4.2:443 -verify_return_error </dev/null", 1, "verify error"),
        ("openssl s_client -brief -connect 10.91.4.2:9 </dev/null", 1, "refused"),
    ])
}

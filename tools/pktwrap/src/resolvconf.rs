//! The file programs see as /etc/resolv.conf: the endpoint's resolvers, no search list.

use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use tempfile::NamedTempFile;

/// Writes the file; it is removed when the handle is dropped. Readable by all: a program may change its user.
pub fn write(resolvers: &[IpAddr]) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix("pktwrap-resolv.")
        .suffix(".conf")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile()?;
    std::fs::write(file.path(), text(resolvers))?;
    Ok(file)
}

fn text(resolvers: &[IpAddr]) -> String {
    let mut text = String::from("# The resolvers of the PacketLab endpoint, written by pktwrap.\n");
    for resolver in resolvers {
        let _ = writeln!(text, "nameserver {resolver}");
    }
    text.push_str("search .\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_the_resolvers_in_order() {
        let resolvers = ["192.0.2.53".parse().expect("address"), "2001:db8::53".parse().expect("address")];
        let file = write(&resolvers).expect("written");
        let written = std::fs::read_to_string(file.path()).expect("read");
        let servers: Vec<&str> = written.lines().filter(|line| line.starts_with("nameserver")).collect();
        assert_eq!(servers, ["nameserver 192.0.2.53", "nameserver 2001:db8::53"]);
    }
}

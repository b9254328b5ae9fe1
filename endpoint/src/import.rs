//! Reads the `Key value` configuration of the reference implementation and writes ours (spec `endpoint.md` §10).

use std::fmt::Write;

use toml::Value;

/// Longest line the reference accepts, bytes.
const LINE_MAX: usize = 4095;

/// The converted file and what the operator should know about the conversion.
#[derive(Debug)]
pub struct Imported {
    pub toml: String,
    pub remarks: Vec<String>,
}

/// Keys that are known and have no counterpart in this version.
const UNUSED: &[&str] = &[
    "BrokerAddr",
    "BrokerChannel",
    "AutoExtractChannel",
    "EndpointAgentCertPath",
    "BrokerChainRootPath",
    "SubPrivCertChainPath",
    "EndpointAttr",
    "NoSubMode",
    "WorkerBusyWaitMode",
    "MonitorReportCrash",
    "MonitorDeadlineMillsec",
    "MonitorMemoryMax",
    "MonitorEnableDebug",
];

const USED: &[&str] = &[
    "BufMax",
    "TransprotoSup",
    "RawModeLKM",
    "RLimDBPath",
    "VMemLocalAddrStrIPv4",
    "VMemLocalAddrStrIPv6",
    "VMemLocalDNSAddrStrIPv4",
    "VMemLocalDNSAddrStrIPv6",
    "HostID",
    "EndpointOpPubKeyPath",
    "ControllerCertChainPath",
    "EndpointPrivKey",
    "NoSubModeSNIKey",
];

/// Converts the text of a reference configuration. Nothing is checked beyond its syntax; the result is, when it is used.
pub fn import(text: &str) -> Imported {
    let mut remarks = Vec::new();
    let mut lines: Vec<(&str, &str)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if line.len() > LINE_MAX {
            remarks.push(format!("line {number} is longer than {LINE_MAX} bytes and was ignored"));
            continue;
        }
        let line = line.trim_matches([' ', '\t', '\r']);
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if USED.contains(&key) {
            lines.push((key, value.trim_matches([' ', '\t'])));
        } else if UNUSED.contains(&key) {
            remarks.push(format!("line {number}: {key} has no effect in this version and was left out"));
        } else {
            remarks.push(format!("line {number}: unknown key {key} was ignored"));
        }
    }
    let last = |key: &str| {
        lines.iter().rev().find(|(own, value)| *own == key && !value.is_empty()).map(|(_, value)| *value)
    };
    let list = |key: &str| -> Vec<&str> { last(key).map(split).unwrap_or_default() };

    let mut toml = String::from("[controller]\n");
    let mut put = |key: &str, value: Value| {
        // Writing to a String cannot fail.
        let _ = writeln!(toml, "{key} = {value}");
    };
    match last("EndpointPrivKey") {
        Some(path) => put("key", path.into()),
        None => remarks.push("EndpointPrivKey is missing; add `key` to [controller]".into()),
    }
    let certificates = list("ControllerCertChainPath");
    if certificates.is_empty() {
        remarks.push("ControllerCertChainPath is missing; add `certificates` to [controller]".into());
    }
    put("certificates", array(&certificates));
    put("roots", array(&list("EndpointOpPubKeyPath")));
    if let Some(snikey) = last("NoSubModeSNIKey") {
        put("snikey", snikey.into());
    }
    toml.push_str("\n[endpoint]\n");
    let mut put = |key: &str, value: Value| {
        let _ = writeln!(toml, "{key} = {value}");
    };
    if let Some((_, value)) = lines.iter().find(|(key, _)| *key == "BufMax") {
        match value.parse::<u32>() {
            Ok(bytes) => put("buf_max", i64::from(bytes).into()),
            Err(_) => {
                remarks.push(format!("BufMax {value} is no number of bytes below 2^32; the default holds"))
            }
        }
    }
    let mut protocols = Vec::new();
    for (_, value) in lines.iter().filter(|(key, _)| *key == "TransprotoSup") {
        for name in split(value).into_iter().map(str::to_ascii_lowercase) {
            match name.as_str() {
                "tcp" | "udp" | "raw" if !protocols.contains(&name) => protocols.push(name),
                "tcp" | "udp" | "raw" => {}
                other => remarks.push(format!("TransprotoSup: unknown protocol {other} was ignored")),
            }
        }
    }
    put("protocols", array(&protocols));
    let mut addresses = list("VMemLocalAddrStrIPv4");
    for address in list("VMemLocalAddrStrIPv6") {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    put("addresses", array(&addresses));
    let mut resolvers = list("VMemLocalDNSAddrStrIPv4");
    resolvers.extend(list("VMemLocalDNSAddrStrIPv6"));
    put("resolvers", array(&resolvers));
    if let Some(host) = last("HostID") {
        put("host_id", host.into());
    }
    if lines.iter().find(|(key, _)| *key == "RawModeLKM").is_some_and(|(_, value)| *value == "1") {
        if protocols.iter().any(|name| name == "raw") {
            toml.push_str("\n[raw]\nsteal = true\n");
            remarks.push(
                "RawModeLKM became `steal`; it needs no kernel module, `pktendpt check` says what it needs"
                    .into(),
            );
        } else {
            remarks.push("RawModeLKM has no effect without raw in TransprotoSup and was left out".into());
        }
    }
    if let Some(path) = last("RLimDBPath") {
        remarks.push(format!(
            "RLimDBPath {path}: the use of limits is kept in another format, in the `directory` of [state], and begins at \
             nothing used"
        ));
    }
    remarks.push(
        "private networks and this host are no destinations for controllers now; `allow` and `private` in [policy] change it"
            .into(),
    );
    Imported { toml, remarks }
}

fn split(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect()
}

fn array<S: AsRef<str>>(entries: &[S]) -> Value {
    Value::Array(entries.iter().map(|entry| entry.as_ref().into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Protocol};

    #[test]
    fn a_reference_file_becomes_ours() {
        let imported = import(
            "# comment\n\nBufMax\t1000\nBufMax 2000\nTransprotoSup TCP,raw\nTransprotoSup udp\n\
             VMemLocalAddrStrIPv4 192.0.2.1/24,eth0\nVMemLocalAddrStrIPv6 eth0, 2001:db8::1\n\
             VMemLocalDNSAddrStrIPv4 192.0.2.53\nHostID old\nHostID new \"quoted\"\nHostID\n\
             ControllerCertChainPath /a/subcmd.cert,/a/delpriv.cert\nEndpointPrivKey /a/k_ep\n\
             EndpointOpPubKeyPath /a/k_eop.pub\nNoSubMode 1\nNoSubModeSNIKey abc\nBogus 1\n\
             RawModeLKM 1\nRawModeLKM 0\nRLimDBPath /a/endpt.rlim\n",
        );
        let config = Config::parse(&imported.toml).expect("our own format");
        assert_eq!(config.endpoint.buf_max, 1000);
        assert_eq!(config.endpoint.protocols, [Protocol::Tcp, Protocol::Raw, Protocol::Udp]);
        assert!(config.raw.steal);
        assert_eq!(config.endpoint.addresses, ["192.0.2.1/24", "eth0", "2001:db8::1"]);
        assert_eq!(config.endpoint.host_id, "new \"quoted\"");
        assert_eq!(config.controller.certificates, ["/a/subcmd.cert", "/a/delpriv.cert"]);
        assert_eq!(config.controller.key, "/a/k_ep");
        assert_eq!(config.controller.roots, ["/a/k_eop.pub"]);
        assert_eq!(config.controller.snikey.as_deref(), Some("abc"));
        let remarks = imported.remarks.join("\n");
        for word in ["Bogus", "NoSubMode", "steal", "/a/endpt.rlim", "[policy]"] {
            assert!(remarks.contains(word), "{remarks}");
        }
    }

    #[test]
    fn stealing_needs_raw_sockets() {
        let imported =
            import("EndpointPrivKey k\nControllerCertChainPath c\nTransprotoSup tcp\nRawModeLKM 1\n");
        assert!(!Config::parse(&imported.toml).expect("our own format").raw.steal);
        assert!(imported.remarks.iter().any(|remark| remark.contains("RawModeLKM")));
    }

    #[test]
    fn what_is_missing_is_said() {
        let imported = import("TransprotoSup tcp\n");
        assert!(imported.remarks.iter().any(|remark| remark.contains("EndpointPrivKey")));
        assert!(Config::parse(&imported.toml).is_err());
    }
}

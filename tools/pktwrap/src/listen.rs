//! An endpoint that somebody else runs: pktwrap waits for it as a controller does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use pktlab::cert::{Certificate, Mode, PrivateKey, PublicKey};
use pktlab::controller::Controller;
use pktlab::session::{Acceptor, Entry, Identity};
use serde::Deserialize;
use tokio::net::TcpListener;

/// The file of `--credentials`. Keys and certificates are paths (relative to the file) or PEM text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The controller's private key.
    key: String,
    /// pubcmd, delegations and exppriv, in any order.
    certificates: Vec<String>,
    /// Public keys of the operators whose endpoints are accepted; empty: any endpoint.
    #[serde(default)]
    roots: Vec<String>,
}

/// PEM texts.
#[derive(Debug, Default)]
struct Credentials {
    key: String,
    certificates: Vec<String>,
    roots: Vec<String>,
}

/// Waits for an endpoint and starts the session with it. Connections that fail are reported and the wait goes on.
pub async fn session(addr: SocketAddr, credentials: Option<&Path>) -> anyhow::Result<Controller> {
    let Some(path) = credentials else {
        bail!(
            "--via listen needs --credentials: a folder with key.pem and certificates, or a TOML file naming them"
        );
    };
    let entry = entry(&load(path)?).with_context(|| format!("in the credentials {}", path.display()))?;
    let acceptor = Acceptor::new(vec![entry])?;
    let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
    eprintln!("pktwrap: waiting for an endpoint on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let started = async {
            let session = acceptor.accept(stream).await?;
            anyhow::Ok(Controller::start(session).await?)
        };
        match started.await {
            Ok(controller) => return Ok(controller),
            Err(error) => eprintln!("pktwrap: no session with {peer}: {error:#}"),
        }
    }
}

fn load(path: &Path) -> anyhow::Result<Credentials> {
    if path.is_dir() { load_folder(path) } else { load_file(path) }
}

/// `key.pem`, and every other `*.pem`: certificates of the chain, public keys as roots.
fn load_folder(folder: &Path) -> anyhow::Result<Credentials> {
    let key = folder.join("key.pem");
    let mut credentials = Credentials { key: read(&key)?, ..Credentials::default() };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "pem") && *file != key)
        .collect();
    files.sort();
    for file in files {
        let text = read(&file)?;
        if text.contains("-----BEGIN PUBLIC KEY-----") {
            credentials.roots.push(text);
        } else {
            credentials.certificates.push(text);
        }
    }
    Ok(credentials)
}

fn load_file(path: &Path) -> anyhow::Result<Credentials> {
    let file: File = toml::from_str(&read(path)?).with_context(|| format!("in {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let text = |text: &String| {
        if text.starts_with("-----BEGIN") { Ok(text.clone()) } else { read(&folder.join(text)) }
    };
    Ok(Credentials {
        key: text(&file.key)?,
        certificates: file.certificates.iter().map(text).collect::<anyhow::Result<_>>()?,
        roots: file.roots.iter().map(text).collect::<anyhow::Result<_>>()?,
    })
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn entry(credentials: &Credentials) -> anyhow::Result<Entry> {
    let passphrase = std::env::var("PKTWRAP_PASSPHRASE").ok();
    let key = PrivateKey::from_pem(&credentials.key, passphrase.as_deref())
        .context("the private key (its passphrase, if it has one, belongs into PKTWRAP_PASSPHRASE)")?;
    let mut chain = Vec::new();
    for text in &credentials.certificates {
        for block in pem::parse_many(text).context("a certificate file")? {
            ensure!(block.tag() == "CERTIFICATE", "a {} where a certificate is expected", block.tag());
            chain.push(Certificate::from_der(block.contents()).context("a certificate")?);
        }
    }
    let roots = credentials.roots.iter().map(|text| PublicKey::from_pem(text).context("a root key"));
    Ok(Entry {
        snikey: None,
        default: true,
        identity: Identity::new(key, chain)?,
        mode: Mode::ControllerAuthEndpoint,
        roots: roots.collect::<anyhow::Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_from_a_folder_and_from_a_file() {
        let made = pktlab::cert::ephemeral(crate::embedded::unix_now()).expect("credentials");
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("key.pem", &made.controller_key.to_pem());
        write("root.pem", &made.operator.public_key().to_pem());
        let chain: String = made.controller_chain.iter().map(Certificate::to_pem).collect();
        write("chain.pem", &chain);
        let loaded = entry(&load(folder.path()).expect("loads")).expect("fits");
        assert_eq!(loaded.roots.len(), 1);

        write("pktwrap.toml", "key = \"key.pem\"\ncertificates = [\"chain.pem\"]\nroots = [\"root.pem\"]\n");
        let loaded = load(&folder.path().join("pktwrap.toml")).expect("loads");
        assert_eq!(entry(&loaded).expect("fits").roots.len(), 1);

        write("key.pem", &made.endpoint_key.to_pem());
        assert!(entry(&load(folder.path()).expect("loads")).is_err(), "no certificate for this key");
    }
}

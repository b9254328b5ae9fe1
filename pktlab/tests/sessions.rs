//! TLS sessions over loopback TCP: who is accepted, who is refused and with which words (spec `session.md`).
#![allow(clippy::unwrap_used, reason = "tests")]

use pktlab::cert::*;
use pktlab::session::*;
use pktlab::wire::*;
use tokio::net::{TcpListener, TcpStream};

const MAX: usize = 1 << 20;

fn unix_now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

/// An endpoint (TLS client) and a controller (TLS server) that trust each other.
fn world() -> (Credentials, ClientConfig, Entry) {
    let c = ephemeral(unix_now()).unwrap();
    let roots = vec![c.operator.public_key()];
    let client = ClientConfig {
        identity: Some(Identity::new(c.endpoint_key.clone(), c.endpoint_chain.clone()).unwrap()),
        mode: Mode::EndpointAuthController,
        roots: roots.clone(),
        snikey: None,
    };
    let identity = Identity::new(c.controller_key.clone(), c.controller_chain.clone()).unwrap();
    let entry = Entry { snikey: None, default: true, identity, mode: Mode::ControllerAuthEndpoint, roots };
    (c, client, entry)
}

/// What the server made of the client: its leaf type and the entry it got, or the error line.
type Served = Result<(Option<CertType>, usize), String>;

/// Both ends of one session. A client's success only counts once it read something, so the server says START and closes.
async fn meet(client: &ClientConfig, entries: Vec<Entry>) -> (Result<Frame, String>, Served) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = Acceptor::new(entries).unwrap();
    let server = async {
        let tcp = listener.accept().await.unwrap().0;
        let session = acceptor.accept(tcp).await.map_err(|e| e.to_string())?;
        let seen = (session.peer.as_ref().map(|peer| peer.certs[0].cert_type), session.entry);
        let (_reader, mut writer) = session.split(MAX);
        writer.send(&Message::Start).await.unwrap();
        writer.shutdown().await.unwrap();
        Ok(seen)
    };
    let client = async {
        let tcp = TcpStream::connect(addr).await.unwrap();
        let session = connect(tcp, client).await.map_err(|e| e.to_string())?;
        let (mut reader, _writer) = session.split(MAX);
        let first = reader.next().await.map_err(|e| e.to_string())?.ok_or("closed")?;
        let end = reader.next().await.map_err(|e| e.to_string())?;
        assert!(end.is_none(), "close_notify ends the stream");
        Ok(first)
    };
    tokio::join!(client, server)
}

#[tokio::test]
async fn partners_meet() {
    let (_, client, entry) = world();
    let (client, server) = meet(&client, vec![entry]).await;
    assert_eq!(client, Ok(Frame::Message(Message::Start)));
    assert_eq!(server, Ok((Some(CertType::SubCmd), 0)));
}

#[tokio::test]
async fn a_client_refuses_a_server_with_another_operator() {
    let (_, client, _) = world();
    let (_, _, stranger) = world();
    let (client, server) = meet(&client, vec![stranger]).await;
    assert!(client.unwrap_err().contains("unknown root"));
    assert!(server.is_err());
}

#[tokio::test]
async fn a_server_refuses_a_client_with_another_operator() {
    let (_, mut client, entry) = world();
    let (stranger, _, _) = world();
    client.identity =
        Some(Identity::new(stranger.endpoint_key.clone(), stranger.endpoint_chain.clone()).unwrap());
    let (client, server) = meet(&client, vec![entry]).await;
    assert!(client.is_err(), "seen at the first read at the latest");
    assert!(server.unwrap_err().contains("unknown root"));
}

#[tokio::test]
async fn expired_and_wrong_types_are_refused_on_both_sides() {
    let (c, client, entry) = world();
    let old = Issue { not_before: 0, not_after: unix_now() - 60, ..Issue::new(CertType::SubCmd) };
    let expired = old.sign(&c.operator, &c.endpoint_key.public_key()).unwrap();
    let agent = Issue::new(CertType::Agent).sign(&c.operator, &c.endpoint_key.public_key()).unwrap();
    for (cert, words) in [(expired, "expired"), (agent, "does not belong")] {
        let identity = Identity::new(c.endpoint_key.clone(), vec![cert]).unwrap();
        let client = ClientConfig { identity: Some(identity), ..client.clone() };
        let (client, server) = meet(&client, vec![entry.clone()]).await;
        assert!(client.is_err());
        assert!(server.unwrap_err().contains(words));
    }
    let pubcmd = Issue { not_after: unix_now() - 60, ..Issue::new(CertType::PubCmd) };
    let pubcmd = pubcmd.sign(&c.operator, &c.controller_key.public_key()).unwrap();
    let exppriv = c.controller_chain[1].clone();
    let identity = Identity::new(c.controller_key.clone(), vec![exppriv, pubcmd]).unwrap();
    let (client, server) = meet(&client, vec![Entry { identity, ..entry }]).await;
    assert!(client.unwrap_err().contains("expired"));
    assert!(server.unwrap_err().contains("refused our certificate"));
}

#[tokio::test]
async fn a_tampered_certificate_is_refused() {
    let (c, client, entry) = world();
    // A byte of the description, inside the signed part.
    let honest = Issue { description: Some("north".into()), ..Issue::new(CertType::SubCmd) };
    let mut der = honest.sign(&c.operator, &c.endpoint_key.public_key()).unwrap().der().to_vec();
    let at = der.windows(5).position(|w| w == b"north").unwrap();
    der[at] = b'f';
    let forged = Certificate::from_der(&der).unwrap();
    let identity = Identity::new(c.endpoint_key.clone(), vec![forged]).unwrap();
    let (client, server) = meet(&ClientConfig { identity: Some(identity), ..client }, vec![entry]).await;
    assert!(client.is_err());
    assert!(server.unwrap_err().contains("tampered"));
}

#[test]
fn an_identity_needs_the_certificate_of_its_key() {
    let (c, _, _) = world();
    let thief = PrivateKey::generate().unwrap();
    let refused = Identity::new(thief, c.endpoint_chain);
    assert!(refused.unwrap_err().to_string().contains("belongs to the private key"));
}

#[tokio::test]
async fn a_client_without_certificate_is_welcome_only_where_any_operator_is() {
    let (_, client, entry) = world();
    let bare = ClientConfig { identity: None, ..client };
    let (seen, server) = meet(&bare, vec![entry.clone()]).await;
    assert!(seen.is_err());
    assert!(server.unwrap_err().contains("presented no certificate"));
    let (seen, server) = meet(&bare, vec![Entry { roots: Vec::new(), ..entry }]).await;
    assert_eq!(seen, Ok(Frame::Message(Message::Start)));
    assert_eq!(server, Ok((None, 0)));
}

#[tokio::test]
async fn server_names_select_the_entry() {
    let (_, client, entry) = world();
    let named =
        |key: &str, default| Entry { snikey: Some(Snikey::try_from(key).unwrap()), default, ..entry.clone() };
    let ask = |key: Option<&str>| ClientConfig {
        snikey: key.map(|key| Snikey::try_from(key).unwrap()),
        ..client.clone()
    };
    let long = "a1".repeat(31);
    let entries = vec![named("abc123", false), named(&long, true)];
    assert_eq!(meet(&ask(Some("abc123")), entries.clone()).await.1.unwrap().1, 0);
    assert_eq!(meet(&ask(Some(&long)), entries.clone()).await.1.unwrap().1, 1);
    assert_eq!(meet(&ask(None), entries.clone()).await.1.unwrap().1, 1, "no name: the default");
    let (_, server) = meet(&ask(Some("unknown")), entries).await;
    assert!(server.unwrap_err().contains("no experiment entry"), "even though there is a default");
    let (_, server) = meet(&ask(None), vec![named("abc123", false)]).await;
    assert!(server.unwrap_err().contains("no experiment entry"));
}

#[tokio::test]
async fn a_key_of_digits_only_is_refused_in_clear_words() {
    let (_, client, _) = world();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let client = ClientConfig { snikey: Some(Snikey::try_from("12345").unwrap()), ..client };
    assert!(connect(tcp, &client).await.unwrap_err().to_string().contains("digits only"));
    for bad in ["", "ABC", "a.b", "a-b", &"x".repeat(64)] {
        assert!(Snikey::try_from(bad).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn garbage_instead_of_tls_is_an_error() {
    use tokio::io::AsyncWriteExt;
    let (_, _, entry) = world();
    let acceptor = Acceptor::new(vec![entry]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0; 100], &[0x16, 3, 1, 0xff, 0xff], b""] {
        let mut tcp = TcpStream::connect(addr).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        assert!(acceptor.accept(listener.accept().await.unwrap().0).await.is_err());
    }
}

#[test]
fn reference_client_hellos_hold_their_snikey() {
    let vectors: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("vectors/client_hello.json")).unwrap();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let record = hex::decode(vector["record_hex"].as_str().unwrap()).unwrap();
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor.read_tls(&mut &record[..]).unwrap();
        let accepted = acceptor.accept().map_err(|(e, _)| e).unwrap().expect("a whole ClientHello");
        assert_eq!(accepted.client_hello().server_name(), vector["snikey"].as_str());
    }
}

/// A ClientHello in one record whose `server_name` extension has this body.
fn hello_with_sni(body: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let mut extensions = [&[0, 0][..], &sized(body)].concat();
    // supported_versions 1.3, groups x25519, signature scheme ed25519, a key share.
    extensions.extend([&[0, 43][..], &sized(&[2, 3, 4]), &[0, 10], &sized(&sized(&[0, 0x1d]))].concat());
    extensions.extend([&[0, 13][..], &sized(&sized(&[8, 7]))].concat());
    let share = [&[0, 0x1d][..], &sized(&[9; 32])].concat();
    extensions.extend([&[0, 51][..], &sized(&sized(&share))].concat());
    let mut hello = [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 1]), &[1, 0]].concat();
    hello.extend(sized(&extensions));
    let message = [&[1, 0][..], &sized(&hello)].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

#[tokio::test]
async fn a_server_name_that_is_no_snikey_never_reaches_the_default_entry() {
    use tokio::io::AsyncWriteExt;
    let (_, _, entry) = world();
    let named =
        |key: &str, default| Entry { snikey: Some(Snikey::try_from(key).unwrap()), default, ..entry.clone() };
    let acceptor = Acceptor::new(vec![named("abc123", true), named("777", false)]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let name = |kind: u8, name: &[u8]| [&[kind, 0, name.len() as u8][..], name].concat();
    let list = |names: &[u8]| [&[0, names.len() as u8][..], names].concat();
    let good = name(0, b"abc123");
    let cases = [
        (list(&name(0, b"ABC123")), "not one snikey"),
        (list(&name(0, b"abc123.")), "not one snikey"),
        (list(&name(0, b"abc-123")), "not one snikey"),
        (list(&name(0, b"127.0.0.1")), "not one snikey"),
        (list(&[good.clone(), name(1, b"x")].concat()), "not one snikey"),
        (list(&name(0, b"abc124")), "no experiment entry"),
        // The TLS library refuses these itself, a key of digits only among them.
        (list(&name(0, &[b'a'; 64])), "ServerNameMustContainOneHostName"),
        (list(&name(1, b"abc123")), "ServerNameMustContainOneHostName"),
        (list(&name(0, b"777")), "ServerNameMustContainOneHostName"),
        // This one gets past the name: the made-up client ends where its Finished should come.
        (list(&good), "eof"),
    ];
    for (body, words) in cases {
        let mut tcp = TcpStream::connect(addr).await.unwrap();
        tcp.write_all(&hello_with_sni(&body)).await.unwrap();
        tcp.shutdown().await.unwrap();
        let error = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap_err().to_string();
        assert!(error.contains(words), "{body:02x?}: {error}");
    }
}

#[test]
fn entries_must_not_contradict_each_other() {
    let (_, _, entry) = world();
    let keyed = Entry { snikey: Some(Snikey::try_from("abc123").unwrap()), default: false, ..entry.clone() };
    assert!(matches!(Acceptor::new(vec![keyed.clone(), keyed]), Err(SessionError::DuplicateSnikey(_))));
    assert!(matches!(Acceptor::new(vec![entry.clone(), entry]), Err(SessionError::TwoDefaults)));
}

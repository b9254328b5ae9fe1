//! Messages of the private range: what is encoded decodes to itself, and nothing a peer may send makes the decoder panic.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use pktlab::wire::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

fn ip(v6: bool) -> impl Strategy<Value = IpAddr> {
    any::<[u8; 16]>().prop_map(move |b| {
        if v6 { Ipv6Addr::from(b).into() } else { Ipv4Addr::new(b[0], b[1], b[2], b[3]).into() }
    })
}

fn addr(v6: bool) -> impl Strategy<Value = SocketAddr> {
    (ip(v6), any::<u16>()).prop_map(SocketAddr::from)
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn requests() -> impl Strategy<Value = ExtRequest> {
    prop_oneof![
        any::<(u8, u8, u8, u8, Option<u32>)>().prop_map(|(socket, family, proto, option, value)| {
            ExtRequest::NOpt(NOpt { socket, family, proto, option, value })
        }),
        any::<(u32, u64)>().prop_map(|(token, time)| ExtRequest::NWait(NWait { token, time })),
        any::<(u8, u8, u32, u32)>().prop_map(|(socket, listener, handle, rbufsz)| {
            ExtRequest::NTake(NTake { socket, listener, handle, rbufsz })
        }),
    ]
}

fn nerr() -> impl Strategy<Value = NErr> {
    let offender = option::of(any::<bool>().prop_flat_map(ip));
    let remote = option::of(any::<bool>().prop_flat_map(addr));
    (any::<(u8, u8, u8, u64)>(), any::<(u16, u8, u8, u8, u32)>(), offender, remote, data()).prop_map(
        |((socket, family, proto, time), numbers, offender, remote, data)| {
            let (errno, origin, icmp_type, icmp_code, info) = numbers;
            NErr {
                socket,
                family,
                proto,
                time,
                errno,
                origin,
                icmp_type,
                icmp_code,
                info,
                offender,
                remote,
                data,
            }
        },
    )
}

fn ndatx() -> impl Strategy<Value = NDatx> {
    any::<(bool, bool)>().prop_flat_map(|(v6, udp)| {
        let remote = if udp { addr(v6).prop_map(Some).boxed() } else { Just(None).boxed() };
        let facts = any::<(bool, Option<u8>, Option<u8>, bool)>();
        (any::<(u8, u64)>(), facts, option::of(ip(v6)), remote, data()).prop_map(
            move |((socket, time), (kernel_time, ttl, tos, truncated), local, remote, data)| NDatx {
                socket,
                family: if v6 { Family::V6 } else { Family::V4 },
                proto: if udp { Proto::Udp } else { Proto::Raw },
                time,
                kernel_time,
                ttl,
                tos,
                truncated,
                local,
                remote,
                data,
            },
        )
    })
}

fn notes() -> impl Strategy<Value = ExtNote> {
    prop_oneof![
        nerr().prop_map(ExtNote::NErr),
        (any::<(u8, u64, u32)>(), any::<bool>().prop_flat_map(|v6| (addr(v6), addr(v6)))).prop_map(
            |((listener, time, handle), (remote, local))| {
                ExtNote::NAccpt(NAccpt { listener, time, handle, remote, local })
            }
        ),
        any::<(u32, u64)>().prop_map(|(token, time)| ExtNote::NTime(NTime { token, time })),
        ndatx().prop_map(ExtNote::NDatx),
        any::<(u8, u16, u64, bool, u16)>().prop_map(|(socket, tag, time, kernel_time, errid)| {
            ExtNote::NTagx(NTagx { socket, tag, time, kernel_time, errid: ErrId(errid) })
        }),
    ]
}

/// `raw` with the first `len` of its body bytes and a header that fits.
fn shortened(raw: &[u8], len: usize) -> Bytes {
    [&[raw[0], 0, 0, len as u8], &raw[HEADER_LEN..HEADER_LEN + len]].concat().into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn requests_decode_to_themselves(request in requests()) {
        let raw = Bytes::from(request.encode().unwrap().to_vec());
        let unknown = Frame::Unknown { code: request.code(), raw: raw.clone() };
        prop_assert_eq!(Message::decode(raw.clone()), unknown, "the plain protocol does not know it");
        prop_assert_eq!(ExtRequest::decode(raw[0], &raw), Some(Ok(request)));
        prop_assert_eq!(ExtNote::decode(raw[0], &raw), None);
        for len in 0..raw.len() - HEADER_LEN {
            let short = shortened(&raw, len);
            // Without its value an NOPT reads instead of setting; every other cut leaves nothing.
            let reads = raw[0] == NOpt::CODE && len == 4;
            prop_assert_eq!(ExtRequest::decode(short[0], &short).unwrap().is_ok(), reads, "{} bytes", len);
        }
        let long = Bytes::from([&raw[..3], &[raw[3] + 1], &raw[HEADER_LEN..], &[0]].concat());
        prop_assert!(matches!(ExtRequest::decode(long[0], &long), Some(Err(_))));
    }

    #[test]
    fn notifications_decode_to_themselves(note in notes()) {
        let raw = Bytes::from(note.encode().unwrap().to_vec());
        let unknown = Frame::Unknown { code: note.code(), raw: raw.clone() };
        prop_assert_eq!(Message::decode(raw.clone()), unknown, "the plain protocol does not know it");
        prop_assert_eq!(ExtNote::decode(raw[0], &raw), Some(Ok(note.clone())));
        prop_assert_eq!(ExtRequest::decode(raw[0], &raw), None);
        let payload = match &note {
            ExtNote::NErr(m) => m.data.len(),
            ExtNote::NDatx(m) => m.data.len(),
            ExtNote::NAccpt(_) | ExtNote::NTime(_) | ExtNote::NTagx(_) => 0,
        };
        let fixed = raw.len() - HEADER_LEN - payload;
        for len in 0..raw.len() - HEADER_LEN {
            let short = shortened(&raw, len);
            prop_assert_eq!(ExtNote::decode(short[0], &short).unwrap().is_ok(), len >= fixed, "{} bytes", len);
        }
        // A header that promises more or less than there is.
        prop_assert!(ExtNote::decode(raw[0], &raw.slice(..raw.len() - 1)).unwrap().is_err());
    }

    #[test]
    fn what_decodes_encodes(code in 0x90u8..0xB0, body in vec(any::<u8>(), 0..64)) {
        let raw = Bytes::from([&[code, 0, 0, body.len() as u8], &body[..]].concat());
        if let Some(Ok(request)) = ExtRequest::decode(code, &raw) {
            prop_assert_eq!(request.encode().unwrap().to_vec(), raw.to_vec());
        }
        if let Some(Ok(note)) = ExtNote::decode(code, &raw) {
            // Reserved flags and bytes without meaning are not kept.
            let again = note.encode().unwrap().to_vec();
            prop_assert_eq!(again.len(), raw.len());
            prop_assert_eq!(ExtNote::decode(code, &again.into()), Some(Ok(note)));
        }
    }
}

#[test]
fn what_contradicts_itself_is_not_encoded() {
    let (four, six): (SocketAddr, SocketAddr) =
        ("192.0.2.1:80".parse().unwrap(), "[2001:db8::1]:80".parse().unwrap());
    let waiting = NAccpt { listener: 1, time: 0, handle: 0, remote: four, local: six };
    assert!(waiting.encode().is_err());
    let plain = NDatx {
        socket: 1,
        family: Family::V4,
        proto: Proto::Udp,
        time: 0,
        kernel_time: false,
        ttl: None,
        tos: None,
        truncated: false,
        local: None,
        remote: Some(four),
        data: Bytes::new(),
    };
    assert!(plain.encode().is_ok());
    assert!(NDatx { remote: Some(six), ..plain.clone() }.encode().is_err());
    assert!(NDatx { remote: None, ..plain.clone() }.encode().is_err());
    assert!(NDatx { local: Some(six.ip()), ..plain.clone() }.encode().is_err());
    assert!(NDatx { proto: Proto::Raw, ..plain.clone() }.encode().is_err());
    assert!(NDatx { proto: Proto::Tcp, remote: None, ..plain }.encode().is_err());
}

#[test]
fn every_option_survives_its_octet() {
    let known: Vec<u8> = (0..=u8::MAX).filter(|octet| SockOpt::from_octet(*octet).is_some()).collect();
    assert_eq!(known, (1..=14).collect::<Vec<u8>>());
    assert!(known.iter().all(|octet| SockOpt::from_octet(*octet).unwrap().octet() == *octet));
}

/// The fields of a message as the vectors name them.
fn request_fields(request: &ExtRequest) -> Value {
    match request {
        ExtRequest::NOpt(m) => json!({
            "sktid": m.socket, "family": m.family, "proto": m.proto, "option": m.option, "value": m.value,
        }),
        ExtRequest::NWait(m) => json!({ "token": m.token, "time": m.time }),
        ExtRequest::NTake(m) => json!({
            "sktid": m.socket, "listener": m.listener, "handle": m.handle, "rbufsz": m.rbufsz,
        }),
    }
}

fn note_fields(note: &ExtNote) -> Value {
    match note {
        ExtNote::NErr(m) => json!({
            "sktid": m.socket, "family": m.family, "proto": m.proto, "time": m.time, "errno": m.errno,
            "origin": m.origin, "icmp_type": m.icmp_type, "icmp_code": m.icmp_code, "info": m.info,
            "offender": m.offender.map(|ip| ip.to_string()),
            "remote": m.remote.map(|addr| addr.to_string()),
            "data": hex::encode(&m.data),
        }),
        ExtNote::NAccpt(m) => json!({
            "listener": m.listener, "family": family_of(&m.remote.ip()).octet(), "proto": 6, "time": m.time,
            "handle": m.handle, "remote": m.remote.to_string(), "local": m.local.to_string(),
        }),
        ExtNote::NTime(m) => json!({ "token": m.token, "time": m.time }),
        ExtNote::NDatx(m) => json!({
            "sktid": m.socket, "family": m.family.octet(), "proto": m.proto.octet(), "time": m.time,
            "kernel_time": m.kernel_time, "ttl": m.ttl, "tos": m.tos, "truncated": m.truncated,
            "local": m.local.map(|ip| ip.to_string()),
            "remote": m.remote.map(|addr| addr.to_string()),
            "data": hex::encode(&m.data),
        }),
        ExtNote::NTagx(m) => json!({
            "sktid": m.socket, "tag": m.tag, "time": m.time, "kernel_time": m.kernel_time, "errid": m.errid.0,
        }),
    }
}

/// What a private-range message is: fields and bytes of its canonical form.
fn take_apart(raw: &Bytes) -> Option<Result<(Value, Vec<u8>), &'static str>> {
    let request = ExtRequest::decode(raw[0], raw)
        .map(|decoded| decoded.map(|m| (request_fields(&m), m.encode().unwrap().to_vec())));
    let note = ExtNote::decode(raw[0], raw)
        .map(|decoded| decoded.map(|m| (note_fields(&m), m.encode().unwrap().to_vec())));
    request.or(note)
}

#[test]
fn every_vector_is_as_it_says() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("vectors/extensions.json")).unwrap();
    assert_eq!(vectors.len(), 70, "number of vectors");
    for vector in &vectors {
        let name = vector["name"].as_str().unwrap();
        let raw = Bytes::from(hex::decode(vector["hex"].as_str().unwrap()).unwrap());
        assert!(matches!(Message::decode(raw.clone()), Frame::Unknown { .. }), "{name}");
        let kind = vector["kind"].as_str().unwrap();
        assert_eq!(ExtRequest::decode(raw[0], &raw).is_some(), kind == "request", "{name}");
        assert_eq!(ExtNote::decode(raw[0], &raw).is_some(), kind == "notification", "{name}");
        match take_apart(&raw) {
            None => assert_eq!(kind, "unknown", "{name}"),
            Some(Err(reason)) => assert_eq!(vector["malformed"], true, "{name}: {reason}"),
            Some(Ok((fields, canonical))) => {
                assert_eq!(fields, vector["fields"], "{name}");
                assert_eq!(canonical == raw, vector["canonical"] != false, "{name}");
            }
        }
    }
}

/// The examples of the document are messages, and what it calls them is what they are.
#[test]
fn the_examples_of_the_document_decode() {
    let text = include_str!("../../docs/extensions.md");
    let mut seen = std::collections::BTreeSet::new();
    for line in text.split("```").skip(1).step_by(2).flat_map(str::lines).filter(|line| !line.is_empty()) {
        let is_hex = |word: &&str| word.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
        let digits: String = line.split_whitespace().take_while(is_hex).collect();
        let raw = Bytes::from(hex::decode(&digits).unwrap());
        match Message::decode(raw.clone()) {
            Frame::Message(message) => assert_eq!(message.encode().unwrap().to_vec(), raw, "{line}"),
            Frame::Unknown { code, .. } => {
                let (_, canonical) = take_apart(&raw).unwrap().unwrap();
                assert_eq!(canonical, raw, "{line}");
                seen.insert(code);
            }
            Frame::Malformed { reason, .. } => panic!("{line}: {reason}"),
        }
    }
    let all = [
        NOpt::CODE,
        NWait::CODE,
        NTake::CODE,
        NErr::CODE,
        NAccpt::CODE,
        NTime::CODE,
        NDatx::CODE,
        NTagx::CODE,
    ];
    assert_eq!(seen, all.into(), "every message has an example");
}

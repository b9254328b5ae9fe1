//! All message vectors (spec `messages.md`): decoding, encoding, and the stream in every division into reads.
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use pktlab::wire::*;
use serde_json::Value;

fn vectors() -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(include_str!("vectors/messages.json")).unwrap();
    assert_eq!(all.len(), 246, "number of vectors");
    all
}

fn raw(vector: &Value) -> Bytes {
    hex::decode(vector["hex"].as_str().unwrap()).unwrap().into()
}

/// The first message of a vector, as long as the vector says.
fn first(vector: &Value) -> Bytes {
    raw(vector).slice(..vector["consumed"].as_u64().unwrap() as usize)
}

fn flag(vector: &Value, name: &str) -> bool {
    vector[name].as_bool().unwrap_or(false)
}

/// The fields of a message as the vectors name them.
fn fields(message: &Message) -> Value {
    let hex = |b: &[u8]| Value::from(hex::encode(b));
    let ip = |a: &std::net::IpAddr| match a {
        std::net::IpAddr::V4(a) => hex(&a.octets()),
        std::net::IpAddr::V6(a) => hex(&a.octets()),
    };
    let port = |a: &std::net::SocketAddr| hex(&a.port().to_be_bytes());
    let mut out = serde_json::Map::new();
    let mut set = |name: &str, value: Value| {
        out.insert(name.into(), value);
    };
    match message {
        Message::Start | Message::End | Message::Cont | Message::Suspd | Message::Resumd => {}
        Message::CData { hint, data } => {
            set("hint", hex(hint));
            set("data", hex(data));
        }
        Message::Yield { resume } => set("rhint", (*resume).into()),
        Message::MRead { addr, len } => {
            set("addr", (*addr).into());
            set("len", (*len).into());
        }
        Message::MWrite { addr, data } | Message::MData { addr, data } => {
            set("addr", (*addr).into());
            set("data", hex(data));
        }
        Message::NOpen(m) => {
            set("sktid", m.socket.into());
            set("family", m.address.family().octet().into());
            set("proto", m.address.proto().octet().into());
            set("rbufsz", m.rbufsz.into());
            let (local, lport, remote) = match &m.address {
                OpenAddress::Raw { local } => (*local, Value::Null, None),
                OpenAddress::Udp { local } | OpenAddress::TcpListen { local } => {
                    (local.ip(), port(local), None)
                }
                OpenAddress::TcpConnect { local, remote } => (local.ip(), port(local), Some(*remote)),
            };
            set("laddr", ip(&local));
            set("lport", lport);
            set("raddr", remote.map_or(Value::Null, |r| ip(&r.ip())));
            set("rport", remote.map_or(Value::Null, |r| port(&r)));
        }
        Message::NClose { socket } => set("sktid", (*socket).into()),
        Message::NSend(m) => {
            set("sktid", m.socket.into());
            set("family", m.family.into());
            set("proto", m.proto.octet().into());
            set("time", m.time.into());
            set("tag", m.tag.into());
            if let Some(remote) = &m.remote {
                set("raddr", ip(&remote.ip()));
                set("rport", port(remote));
            }
            set("data", hex(&m.data));
        }
        Message::NCap(m) => {
            set("sktid", m.socket.into());
            set("family", m.family.into());
            set("proto", m.proto.into());
            set("endtime", m.end.into());
            set("filter", hex(&m.filter));
        }
        Message::NCtl(m) => {
            set("sktid", m.socket.into());
            set("family", m.family.into());
            set("proto", 6.into());
            set("time", m.time.into());
            set("command", m.command.into());
        }
        Message::XCert { der } => set("der", hex(der)),
        Message::XPub(m) | Message::XSub(m) => {
            set("chlist", hex(m.channels.as_wire()));
            set("channels", m.channels.iter().map(hex).collect());
            set("eopkey", hex(&m.operator_key));
            set(if matches!(message, Message::XPub(_)) { "xdescr" } else { "dattr" }, hex(&m.text));
        }
        Message::Result(outcome) => match *outcome {
            Outcome::Plain(errid) => set("errid", errid.0.into()),
            Outcome::MonitorRejected { index, errid } => {
                set("errid", 0x12.into());
                set("monitor_index", index.into());
                set("monitor_errid", errid.into());
            }
            Outcome::MonitorFailed { index } => {
                set("errid", 0x13.into());
                set("monitor_index", index.into());
            }
        },
        Message::NTag(m) => {
            set("sktid", m.socket.into());
            set("tag", m.tag.into());
            set("time", m.time.into());
            set("errid", m.errid.0.into());
        }
        Message::NStat(m) => {
            set("sktid", m.socket.into());
            set("family", m.family.into());
            set("proto", m.proto.into());
            set("time", m.time.into());
            match &m.event {
                StatEvent::Established(peer) => {
                    set("code", 0.into());
                    set("raddr", ip(&peer.ip()));
                    set("rport", port(peer));
                }
                StatEvent::Code(code) => set("code", (*code).into()),
            }
        }
        Message::NData(m) => {
            set("sktid", m.socket.into());
            set("family", m.family.into());
            set("proto", m.proto.octet().into());
            set("time", m.time.into());
            if let Some(remote) = &m.remote {
                set("raddr", ip(&remote.ip()));
                set("rport", port(remote));
            }
            set("data", hex(&m.data));
        }
        Message::NDrop(m) => {
            set("sktid", m.socket.into());
            set("family", m.family.into());
            set("proto", m.proto.into());
            set("tfirst", m.first.into());
            set("tlast", m.last.into());
            set("unitcnt", m.units.into());
            set("bytecnt", m.bytes.into());
        }
        Message::NBlock(m) => {
            set("sktid", m.socket.into());
            set("family", m.family.into());
            set("proto", m.proto.into());
            set("monitor_errid", m.monitor_errid.into());
            set("time", m.time.into());
        }
        Message::LInfo { name, aux, info } => {
            set("name", hex(name));
            set("aux", hex(aux));
            set("info", hex(info));
        }
        Message::XNotify { channel, descriptor } => {
            set("channel", hex(channel));
            set("xdescr", hex(descriptor));
        }
        Message::XReg { snikey } => set("snikey", hex(snikey.as_bytes())),
    }
    Value::Object(out)
}

/// The vector's fields without the readable twins and without fields that are null in it and absent here.
fn expected(vector: &Value) -> Value {
    let mut fields = vector["fields"].as_object().unwrap().clone();
    fields.retain(|name, _| !name.ends_with("_text"));
    Value::Object(fields)
}

/// The vectors write an empty byte string as null here and there.
fn without_nulls(value: Value) -> Value {
    let Value::Object(mut map) = value else { unreachable!("an object") };
    map.retain(|_, v| !v.is_null() && v != "");
    Value::Object(map)
}

#[test]
fn every_vector_decodes_as_it_says() {
    let mut counts = [0; 4];
    for vector in vectors() {
        let name = vector["name"].as_str().unwrap();
        if flag(&vector, "incomplete") {
            counts[0] += 1;
            continue;
        }
        match Message::decode(first(&vector)) {
            Frame::Malformed { .. } => {
                assert!(flag(&vector, "malformed"), "{name}: refused");
                counts[1] += 1;
            }
            Frame::Unknown { code, .. } => {
                assert!(flag(&vector, "unknown"), "{name}: unknown");
                assert_eq!(vector["fields"]["type_code"], code, "{name}");
                counts[2] += 1;
            }
            Frame::Message(message) => {
                assert!(!flag(&vector, "malformed") && !flag(&vector, "unknown"), "{name}: accepted");
                assert_eq!(without_nulls(fields(&message)), without_nulls(expected(&vector)), "{name}");
                counts[3] += 1;
            }
        }
    }
    assert_eq!(counts.iter().sum::<i32>(), 246);
    assert_eq!(counts[1], 108, "malformed vectors");
}

#[test]
fn what_the_reference_encoder_wrote_we_write() {
    let mut tested = 0;
    for vector in vectors().iter().filter(|v| v["origin"] == "encoder" && !v["fields"].is_null()) {
        let bytes = first(vector);
        if let Frame::Message(message) = Message::decode(bytes.clone()) {
            assert_eq!(message.encode().unwrap().to_vec(), bytes, "{}", vector["name"]);
            tested += 1;
        }
    }
    assert!(tested > 90, "only {tested} vectors encoded");
}

#[tokio::test]
async fn the_stream_splits_the_same_whatever_the_reads() {
    let whole: Vec<Bytes> = vectors().iter().filter(|v| !flag(v, "incomplete")).map(first).collect();
    let stream: Vec<u8> = whole.concat();
    let frames: Vec<Frame> = whole.iter().cloned().map(Message::decode).collect();
    for size in (1..=64).chain([100, 1000, 4096, stream.len()]) {
        let mut builder = tokio_test::io::Builder::new();
        stream.chunks(size).for_each(|chunk| {
            builder.read(chunk);
        });
        let mut reader = MessageReader::new(builder.build(), MAX_BODY);
        for expected in &frames {
            assert_eq!(reader.next().await.unwrap().as_ref(), Some(expected), "reads of {size}");
        }
        assert!(reader.next().await.unwrap().is_none(), "clean end");
    }
}

#[tokio::test]
async fn an_end_inside_a_message_and_a_body_beyond_the_limit_are_errors() {
    let mut reader = MessageReader::new(&b"\x40\x00\x00\x02\x00"[..], MAX_BODY);
    assert!(matches!(reader.next().await, Err(ReadError::Truncated)));
    let mut reader = MessageReader::new(&b"\x20\x01\x00\x00"[..], 0xFFFF);
    assert!(matches!(
        reader.next().await,
        Err(ReadError::TooLarge { code: 0x20, len: 0x1_0000, max: 0xFFFF })
    ));
}

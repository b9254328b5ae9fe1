//! Property: every message of every type that the encoder accepts decodes to itself, and cut short it never decodes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use pktlab::wire::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn some_data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..40).prop_map(Bytes::from)
}

fn ip(v6: bool) -> impl Strategy<Value = IpAddr> {
    any::<[u8; 16]>().prop_map(move |b| {
        if v6 { Ipv6Addr::from(b).into() } else { Ipv4Addr::new(b[0], b[1], b[2], b[3]).into() }
    })
}

fn addr(v6: bool) -> impl Strategy<Value = SocketAddr> {
    (ip(v6), any::<u16>()).prop_map(SocketAddr::from)
}

fn nopen() -> impl Strategy<Value = NOpen> {
    let address = any::<bool>().prop_flat_map(|v6| {
        prop_oneof![
            ip(v6).prop_map(|local| OpenAddress::Raw { local }),
            addr(v6).prop_map(|local| OpenAddress::Udp { local }),
            addr(v6).prop_map(|local| OpenAddress::TcpListen { local }),
            (addr(v6), addr(v6)).prop_map(|(local, remote)| OpenAddress::TcpConnect { local, remote }),
        ]
    });
    (any::<u8>(), any::<u32>(), address).prop_map(|(socket, rbufsz, address)| NOpen {
        socket,
        rbufsz,
        address,
    })
}

/// Family octet, protocol and remote address as they go together in NSEND and NDATA.
fn kind() -> impl Strategy<Value = (u8, Proto, Option<SocketAddr>)> {
    prop_oneof![
        any::<u8>().prop_map(|family| (family, Proto::Raw, None)),
        any::<u8>().prop_map(|family| (family, Proto::Tcp, None)),
        any::<bool>().prop_flat_map(|v6| addr(v6).prop_map(move |a| (
            if v6 { 6 } else { 4 },
            Proto::Udp,
            Some(a)
        ))),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u16>()
            .prop_filter("codes with a tail", |e| !matches!(e, 0x12 | 0x13))
            .prop_map(|e| Outcome::Plain(ErrId(e))),
        (any::<u16>(), any::<u16>()).prop_map(|(index, errid)| Outcome::MonitorRejected { index, errid }),
        any::<u16>().prop_map(|index| Outcome::MonitorFailed { index }),
    ]
}

fn channels(text: &'static str) -> impl Strategy<Value = (Vec<Vec<u8>>, [u8; 32], Bytes)> {
    (vec(vec(any::<u8>(), 1..=32), 0..4), any::<[u8; 32]>(), text.prop_map(Bytes::from))
}

const DESCRIPTOR: &str = r"([A-Za-z0-9_-]{1,9}=[A-Za-z0-9_\-.:\[\],/() \t*?]{0,9};){0,4}";
const ATTRIBUTES: &str = r"(a[A-Za-z0-9_\-]{0,8}=[A-Za-z0-9_\-.:\[\],/() \t]{0,9};)?(b=[0-9.]{0,9};)?";

fn sockets() -> impl Strategy<Value = Message> {
    type Head = (u8, u8, u8, u64);
    let head = || any::<Head>();
    prop_oneof![
        nopen().prop_map(Message::NOpen),
        any::<u8>().prop_map(|socket| Message::NClose { socket }),
        (any::<u8>(), kind(), any::<u64>(), any::<u16>(), data()).prop_map(
            |(socket, (family, proto, remote), time, tag, data)| {
                Message::NSend(NSend { socket, family, proto, time, tag, remote, data })
            }
        ),
        (head(), some_data()).prop_map(|((socket, family, proto, end), filter)| Message::NCap(NCap {
            socket,
            family,
            proto,
            end,
            filter
        })),
        head().prop_map(|(socket, family, command, time)| Message::NCtl(NCtl {
            socket,
            family,
            time,
            command
        })),
        (any::<u8>(), any::<u16>(), any::<u64>(), any::<u16>())
            .prop_map(|(socket, tag, time, e)| Message::NTag(NTag { socket, tag, time, errid: ErrId(e) })),
        (
            head(),
            prop_oneof![
                any::<u8>().prop_map(StatEvent::Code),
                any::<bool>().prop_flat_map(addr).prop_map(StatEvent::Established)
            ]
        )
            .prop_map(|((socket, family, proto, time), event)| Message::NStat(NStat {
                socket,
                family,
                proto,
                time,
                event
            })),
        (any::<u8>(), kind(), any::<u64>(), data()).prop_map(
            |(socket, (family, proto, remote), time, data)| {
                Message::NData(NData { socket, family, proto, time, remote, data })
            }
        ),
        (head(), any::<(u64, u32, u32)>()).prop_map(
            |((socket, family, proto, first), (last, units, bytes))| {
                Message::NDrop(NDrop { socket, family, proto, first, last, units, bytes })
            }
        ),
        (head(), any::<u16>()).prop_map(|((socket, family, proto, time), monitor_errid)| {
            Message::NBlock(NBlock { socket, family, proto, monitor_errid, time })
        }),
    ]
}

fn others() -> impl Strategy<Value = Message> {
    prop_oneof![
        (vec(any::<u8>(), 0..=255), data())
            .prop_map(|(hint, data)| Message::CData { hint: hint.into(), data }),
        Just(Message::Start),
        Just(Message::End),
        Just(Message::Cont),
        Just(Message::Suspd),
        Just(Message::Resumd),
        any::<u64>().prop_map(|resume| Message::Yield { resume }),
        (1..=u16::MAX)
            .prop_flat_map(|len| (0..=u32::MAX - u32::from(len)).prop_map(move |addr| (addr, len)))
            .prop_map(|(addr, len)| Message::MRead { addr, len }),
        (0..=u32::MAX - 40, data()).prop_map(|(addr, data)| Message::MWrite { addr, data }),
        (any::<u32>(), data()).prop_map(|(addr, data)| Message::MData { addr, data }),
        outcome().prop_map(Message::Result),
        (data(), data(), data()).prop_map(|(name, aux, info)| Message::LInfo { name, aux, info }),
        some_data().prop_map(|der| Message::XCert { der }),
        channels(DESCRIPTOR).prop_map(|(ids, operator_key, text)| {
            Message::XPub(Channels { channels: ChannelList::new(ids).unwrap(), operator_key, text })
        }),
        channels(ATTRIBUTES).prop_map(|(ids, operator_key, text)| {
            Message::XSub(Channels { channels: ChannelList::new(ids).unwrap(), operator_key, text })
        }),
        (vec(any::<u8>(), 1..=32), DESCRIPTOR).prop_map(|(channel, text)| Message::XNotify {
            channel: channel.into(),
            descriptor: text.into()
        }),
        "[0-9a-z]{1,63}".prop_map(|snikey| Message::XReg { snikey }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_is_encoded_decodes_to_itself(message in prop_oneof![sockets(), others()]) {
        let encoded = message.encode().unwrap();
        let raw = Bytes::from(encoded.to_vec());
        prop_assert_eq!(raw[0], message.code());
        prop_assert_eq!(raw.len(), encoded.len());
        prop_assert_eq!(Message::decode(raw.clone()), Frame::Message(message));
        // Cut anywhere, the length field is wrong: never a message, never a panic.
        for cut in 0..raw.len().min(80) {
            let refused = matches!(Message::decode(raw.slice(..cut)), Frame::Malformed { .. });
            prop_assert!(refused, "cut at {}", cut);
        }
    }
}

#[test]
fn a_channel_list_keeps_order_and_refuses_what_the_wire_cannot_carry() {
    let list = ChannelList::new([&b"one"[..], &[7; 32]]).unwrap();
    assert_eq!(list.iter().collect::<Vec<_>>(), [&b"one"[..], &[7; 32]]);
    assert_eq!(
        ChannelList::new([&[7; 33]]),
        Err(EncodeError::Invalid("channel identifier must have 1 to 32 bytes"))
    );
    assert!(ChannelList::new([b""]).is_err());
    assert_eq!(ChannelList::default().iter().count(), 0);
}

//! Everything that takes a peer's bytes before anyone is authenticated to it: the message decoder, the stream reader,
//! programs and descriptors. What decodes must encode, and decode to the same again.
#![no_main]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pktlab::descriptor;
use pktlab::program::{Program, parse_ebpf_text};
use pktlab::wire::{ExtNote, ExtRequest, Frame, HEADER_LEN, Message, MessageReader, ReadError};

/// Small enough that the fuzzer finds the refusal.
const MAX_BODY: usize = 2048;

fuzz_target!(|data: &[u8]| {
    // As a stream: whole messages, then an end.
    let frames = read(data);
    // As one message whose length field is right, which the fuzzer would seldom guess.
    if let Some((code, body)) = data.split_first() {
        let mut raw = vec![*code, 0, (body.len() >> 8) as u8, body.len() as u8];
        raw[1] = (body.len() >> 16) as u8;
        raw.extend_from_slice(body);
        let frame = Message::decode(Bytes::from(raw.clone()));
        check(&frame, &raw);
        if body.len() <= MAX_BODY {
            assert_eq!(read(&raw), [frame]);
        }
    }
    let total: usize = frames.iter().map(raw_len).sum();
    assert!(total <= data.len());

    if let Ok(program) = Program::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(program.encode(), data);
    }
    let _ = parse_ebpf_text(data);
    for at in [0, data.len() / 2] {
        let (wanted, offered) = data.split_at(at);
        descriptor::matches(wanted, offered);
    }
});

fn read(data: &[u8]) -> Vec<Frame> {
    let mut reader = MessageReader::new(data, MAX_BODY);
    let mut frames = Vec::new();
    let mut at = 0;
    loop {
        let next = match pin!(reader.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => next,
            Poll::Pending => panic!("a slice never makes anyone wait"),
        };
        match next {
            Ok(Some(frame)) => {
                let len = announced(&data[at..]);
                check(&frame, &data[at..at + len]);
                at += len;
                frames.push(frame);
            }
            Ok(None) => {
                assert_eq!(at, data.len(), "an end between two messages");
                return frames;
            }
            Err(ReadError::Truncated) => {
                assert!(data.len() - at < HEADER_LEN || announced(&data[at..]) > data.len() - at);
                return frames;
            }
            Err(ReadError::TooLarge { len, .. }) => {
                assert!(len > MAX_BODY);
                return frames;
            }
            Err(e) => panic!("a slice never fails: {e}"),
        }
    }
}

/// Header and body bytes of the message at the front.
fn announced(data: &[u8]) -> usize {
    HEADER_LEN + u32::from_be_bytes([0, data[1], data[2], data[3]]) as usize
}

fn raw_len(frame: &Frame) -> usize {
    match frame {
        Frame::Message(_) => HEADER_LEN,
        Frame::Malformed { raw, .. } | Frame::Unknown { raw, .. } => raw.len(),
    }
}

fn check(frame: &Frame, raw: &[u8]) {
    match frame {
        Frame::Message(message) => {
            let encoded = message.encode().expect("what was decoded obeys the encoder's rules");
            // Canonical bytes may be fewer (ignored tails), never more.
            assert!(encoded.len() <= raw.len());
            assert_eq!(encoded.head[0], raw[0]);
            assert_eq!(Message::decode(encoded.to_vec().into()), Frame::Message(message.clone()));
        }
        Frame::Malformed { code, raw: kept, .. } => {
            assert_eq!((*code, &kept[..]), (raw[0], raw));
        }
        Frame::Unknown { code, raw: kept } => {
            assert_eq!((*code, &kept[..]), (raw[0], raw));
            let request = ExtRequest::decode(*code, kept);
            let note = ExtNote::decode(*code, kept);
            assert!(request.is_none() || note.is_none(), "a type is a request or a notification");
            if let Some(Ok(request)) = request {
                let again = request.encode().expect("what was decoded can be encoded");
                assert_eq!(again.to_vec(), raw);
            }
            if let Some(Ok(note)) = note {
                // Reserved flags are not kept; everything else is.
                let again = Bytes::from(note.encode().expect("what was decoded can be encoded").to_vec());
                assert_eq!(again.len(), raw.len());
                assert_eq!(ExtNote::decode(*code, &again), Some(Ok(note)));
            }
        }
    }
}

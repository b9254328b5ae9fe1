//! DNS messages to the endpoint's resolvers and back: UDP, TCP when an answer was cut.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use pktlab::controller::{Controller, Event, Socket, SocketOptions};
use pktlab::wire::{NStat, StatEvent};

use crate::addr;
use crate::context::Context;

/// As in resolv.conf's defaults, a little quicker to ask again.
const TIMEOUT: Duration = Duration::from_secs(3);
const ROUNDS: usize = 2;
const PORT: u16 = 53;

/// Sends all messages at once (one round trip) to each resolver in turn until every one has a usable answer. `None`
/// where nobody answered.
pub async fn ask(context: &Context, messages: Vec<Vec<u8>>) -> Vec<Option<Vec<u8>>> {
    let mut answers = vec![None; messages.len()];
    let info = context.pool.info();
    let resolvers: Vec<SocketAddr> = info
        .resolvers
        .iter()
        .filter(|ip| info.exports(ip) || ip.is_loopback())
        .map(|ip| SocketAddr::new(*ip, PORT))
        .collect();
    if resolvers.is_empty() {
        tracing::warn!("the endpoint exports no resolver: names cannot be resolved");
    }
    for resolver in resolvers.iter().cycle().take(resolvers.len() * ROUNDS) {
        let Ok(session) = context.pool.session().await else { return answers };
        let asked = ask_one(&session, *resolver, &messages, &mut answers);
        if tokio::time::timeout(TIMEOUT, asked).await.is_err() {
            tracing::debug!(%resolver, "no answer in {TIMEOUT:?}");
        }
        for (message, answer) in messages.iter().zip(&mut answers) {
            if answer.as_ref().is_some_and(|answer| is_cut(answer)) {
                // The cut answer stands when TCP fails: it may still hold what is needed.
                if let Ok(Some(whole)) =
                    tokio::time::timeout(TIMEOUT, by_tcp(&session, *resolver, message)).await
                {
                    *answer = Some(whole);
                }
            }
        }
        if answers.iter().all(|answer| answer.as_ref().is_some_and(|answer| is_final(answer))) {
            break;
        }
    }
    answers
}

async fn ask_one(
    session: &Controller,
    resolver: SocketAddr,
    messages: &[Vec<u8>],
    answers: &mut [Option<Vec<u8>>],
) -> Option<()> {
    let options = SocketOptions { receive: 256 << 10, hold: false, tags: false };
    let (Socket { send, mut receive }, _opening) =
        session.open_udp(addr::any(resolver.ip()), options).ok()?;
    let mut missing = 0;
    for (message, answer) in messages.iter().zip(answers.iter()) {
        if !answer.as_ref().is_some_and(|answer| is_final(answer)) {
            send.send(Bytes::copy_from_slice(message), Some(resolver)).await.ok()?;
            missing += 1;
        }
    }
    while missing > 0 {
        match receive.recv().await? {
            Event::Data(data) if data.remote == Some(resolver) => {
                let fitting = messages.iter().position(|message| fits(message, &data.data));
                let Some(at) = fitting else { continue };
                if answers[at].as_ref().is_none_or(|answer| !is_final(answer)) {
                    answers[at] = Some(data.data.to_vec());
                    missing -= 1;
                }
            }
            Event::Data(_) | Event::Tag(_) => {}
            Event::Stat(_) | Event::Error(_) | Event::SendRefused(_) | Event::Ended => return None,
        }
    }
    Some(())
}

/// One question over TCP.
async fn by_tcp(session: &Controller, resolver: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
    let connecting = session.connect_tcp(None, resolver, SocketOptions::default()).ok()?;
    let mut connected = connecting.established().await.ok()?;
    let mut framed = BytesMut::with_capacity(2 + message.len());
    framed.put_u16(u16::try_from(message.len()).ok()?);
    framed.put_slice(message);
    connected.socket.send.send(framed.freeze(), None).await.ok()?;
    let mut received = Vec::new();
    loop {
        if let Some((length, rest)) = received.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if let Some(answer) = rest.get(..length) {
                return fits(message, answer).then(|| answer.to_vec());
            }
        }
        match connected.socket.receive.recv().await? {
            Event::Data(data) => received.extend_from_slice(&data.data),
            Event::Stat(stat) if matches!(stat.event, StatEvent::Code(code) if code != NStat::ESTABLISHED) => {
                return None;
            }
            Event::Stat(_) | Event::Tag(_) => {}
            Event::Error(_) | Event::SendRefused(_) | Event::Ended => return None,
        }
    }
}

/// Whether a message can be the answer: same id, a response, and the same question where it repeats one.
fn fits(question: &[u8], answer: &[u8]) -> bool {
    let (Some(asked), Some(header)) = (question.get(12..), answer.get(..12)) else { return false };
    let same_question = match section(asked) {
        Some(section) if header[4..6] != [0, 0] => {
            answer.get(12..12 + section.len()).is_some_and(|repeated| repeated.eq_ignore_ascii_case(section))
        }
        _ => true,
    };
    header[..2] == question[..2] && header[2] & 0x80 != 0 && same_question
}

/// The first question: name, type, class.
fn section(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1 + length;
        match length {
            0 => return bytes.get(..at + 4),
            1..=63 => {}
            _ => return None,
        }
    }
}

fn is_cut(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// Whether another server need not be asked: an answer, or the word that there is none.
fn is_final(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| matches!(flags & 0x0F, 0 | 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";

    fn answer(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut answer = QUESTION.to_vec();
        answer[2] |= 0x80;
        change(&mut answer);
        answer
    }

    #[test]
    fn only_answers_to_the_question_fit() {
        assert!(fits(QUESTION, &answer(|_| {})));
        assert!(fits(QUESTION, &answer(|a| a[13] = b'A')), "case may change on the way");
        assert!(!fits(QUESTION, QUESTION), "a query is no answer");
        assert!(!fits(QUESTION, &answer(|a| a[0] ^= 1)), "other id");
        assert!(!fits(QUESTION, &answer(|a| a[13] = b'b')), "other name");
        assert!(!fits(QUESTION, &answer(|a| a.truncate(14))), "cut inside the question");
        assert!(!fits(QUESTION, &[0; 3]));
        assert!(!fits(&[0x12, 0x34], &answer(|_| {})));
    }

    #[test]
    fn which_answers_end_the_search() {
        assert!(is_final(&answer(|_| {})));
        assert!(is_final(&answer(|a| a[3] = 3)));
        assert!(!is_final(&answer(|a| a[3] = 2)), "SERVFAIL");
        assert!(!is_final(&[]));
        assert!(is_cut(&answer(|a| a[2] |= 2)));
        assert!(!is_cut(&[]));
    }
}

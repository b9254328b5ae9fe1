//! The answer tables of spec `endpoint.md` §2 and §5, row by row: set-up, request, answer, and the state and memory
//! afterwards. Where two checks fail, a row of its own says which one decides.
//!
//! | file | rows of |
//! |---|---|
//! | `phases` | §2, §2.1, §2.2, §5.7, and malformed messages of every kind |
//! | `memory` | §5.1 |
//! | `open` | §5.2, §5.3 |
//! | `send` | §5.4 |
//! | `control` | §5.5, §5.6 |

mod control;
mod memory;
mod open;
mod phases;
mod send;

use std::collections::BTreeSet;

use bytes::Bytes;
use pktlab::vmem::{SocketState, socket as cell};
use pktlab::wire::{ErrId, Frame, Message, SocketId};

use super::super::{End, Errno, SessionConfig};
use super::lab::{Lab, config, fin, shape, tcp};
use crate::limits::Ledger;

/// Socket of most rows.
const ID: SocketId = 1;

const STATES: [SocketState; 11] = [
    SocketState::Free,
    SocketState::Opening,
    SocketState::Open,
    SocketState::Eof,
    SocketState::Wfin,
    SocketState::End,
    SocketState::Refused,
    SocketState::Reset,
    SocketState::TimedOut,
    SocketState::Unreach,
    SocketState::UnkFault,
];

struct Row {
    section: &'static str,
    name: String,
    lab: Lab,
    asked: Frame,
    says: Vec<String>,
    state: Option<SocketState>,
    memory: Vec<(u32, Vec<u8>)>,
    log: Option<Vec<&'static str>>,
    end: Option<End>,
}

/// A row whose session goes on.
fn row(section: &'static str, name: impl Into<String>, lab: Lab, asked: Message) -> Row {
    frame(section, name, lab, Frame::Message(asked))
}

fn frame(section: &'static str, name: impl Into<String>, lab: Lab, asked: Frame) -> Row {
    let (says, memory) = (Vec::new(), Vec::new());
    Row { section, name: name.into(), lab, asked, says, state: None, memory, log: None, end: None }
}

impl Row {
    fn says(mut self, says: &[&str]) -> Self {
        self.says = says.iter().map(|line| (*line).to_owned()).collect();
        self
    }

    /// One RESULT.
    fn answers(self, errid: u16) -> Self {
        self.says(&[&format!("result {errid:#x}")])
    }

    /// State of the row's socket afterwards.
    fn state(mut self, state: SocketState) -> Self {
        self.state = Some(state);
        self
    }

    fn memory(mut self, addr: u32, bytes: &[u8]) -> Self {
        self.memory.push((addr, bytes.to_vec()));
        self
    }

    /// A cell of the row's socket afterwards.
    fn cell(self, offset: u32, bytes: &[u8]) -> Self {
        self.memory(cell::block(ID) + offset, bytes)
    }

    /// What reached the sockets.
    fn log(mut self, log: &[&'static str]) -> Self {
        self.log = Some(log.to_vec());
        self
    }

    fn ends(mut self, end: End) -> Self {
        self.end = Some(end);
        self
    }

    fn check(mut self) {
        let place = format!("§{} {}", self.section, self.name);
        self.lab.world.log.clear();
        assert_eq!(shape(&self.lab.frame(self.asked)), self.says, "{place}");
        assert_eq!(self.lab.session.ended(), self.end, "{place}");
        // Read behind the controller's back: an ended session answers no MREAD.
        let now = self.lab.world.now;
        let read = |addr, len: usize| self.lab.session.memory_read(addr, len as u16, now).to_vec();
        if let Some(state) = self.state {
            assert_eq!(read(cell::block(ID) + cell::STAT, 1), [state.to_octet()], "{place}: state");
        }
        for (addr, bytes) in &self.memory {
            assert_eq!(read(*addr, bytes.len()), *bytes, "{place}: {addr:#x}");
        }
        if let Some(log) = self.log {
            assert_eq!(self.lab.world.log, log, "{place}");
        }
    }
}

/// All rows.
fn table() -> Vec<Row> {
    [phases::rows(), memory::rows(), open::rows(), send::rows(), control::rows()]
        .into_iter()
        .flatten()
        .collect()
}

/// A started session under another configuration.
fn configured(change: impl FnOnce(&mut SessionConfig)) -> Lab {
    let mut changed = config();
    change(&mut changed);
    Lab::with(changed, Ledger::unlimited())
}

/// A session whose socket 1 is TCP in this state, with a receive budget of 100.
fn tcp_in(state: SocketState) -> Lab {
    let mut lab = Lab::new();
    if state == SocketState::Free {
        return lab;
    }
    lab.ask(tcp(ID, 100));
    let connect = match state {
        SocketState::Opening => return lab,
        SocketState::Refused => Err(Errno::CONNREFUSED),
        SocketState::TimedOut => Err(Errno::TIMEDOUT),
        SocketState::Unreach => Err(Errno::HOSTUNREACH),
        _ => Ok(()),
    };
    lab.world.connects.push_back(connect);
    lab.writable(ID);
    match state {
        SocketState::Eof | SocketState::End => lab.world.reads.push_back(Ok(Vec::new())),
        SocketState::Reset => lab.world.reads.push_back(Err(Errno::CONNRESET)),
        SocketState::UnkFault => lab.world.reads.push_back(Err(Errno::IO)),
        _ => {}
    }
    lab.readable(ID);
    if matches!(state, SocketState::Wfin | SocketState::End) {
        lab.ask(fin(ID, 0));
    }
    lab.said();
    assert_eq!(lab.state(ID), state);
    lab
}

/// A message with this body, as it comes off the wire.
fn wire(code: u8, body: &[u8]) -> Frame {
    let len = (body.len() as u32).to_be_bytes();
    Message::decode(Bytes::from([&[code], &len[1..], body].concat()))
}

#[test]
fn every_row_of_the_answer_tables_holds() {
    let rows = table();
    let names: BTreeSet<_> = rows.iter().map(|row| (row.section, row.name.clone())).collect();
    assert_eq!(names.len(), rows.len(), "a row has a name of its own");
    for row in rows {
        row.check();
    }
}

/// Column "endpoint" of spec `messages.md` §3.2.
const SENT: [ErrId; 24] = [
    ErrId::ECTLBADMSG,
    ErrId::ECTLNOTSUP,
    ErrId::ECTLMONREJ,
    ErrId::ECTLMONUKN,
    ErrId::ECRTBADHDAT,
    ErrId::ECRTNOHDAT,
    ErrId::ECRTBADHINT,
    ErrId::ESYSNOBUFS,
    ErrId::ESKTINUSE,
    ErrId::ESKTNOTOPEN,
    ErrId::ESKTNOPRFAM,
    ErrId::ESKTNOPROTO,
    ErrId::ESKTNOADDR,
    ErrId::ESKTNOMATCH,
    ErrId::ESKTBADFILT,
    ErrId::ESKTPKTDENY,
    ErrId::ESKTOPNDENY,
    ErrId::ETCPNOPORT,
    ErrId::EPKTNOTSENT,
    ErrId::EUDPNOPORT,
    ErrId::EPKTTRUNC,
    ErrId::ENORES,
    ErrId::EMEMBADADR,
    ErrId::EUNKFAULT,
];

/// Of these, what cannot occur, and why.
const ABSENT: [(ErrId, &str); 4] = [
    (
        ErrId::ECTLMONREJ,
        "certificates that demand monitors are refused at START, so no monitor judges a request",
    ),
    (ErrId::ECTLMONUKN, "the same: no monitor runs, so none fails"),
    (ErrId::EPKTTRUNC, "only a monitor could shorten a packet"),
    (ErrId::EMEMBADADR, "the decoder calls a range beyond 2^32 malformed before it can be read"),
];

#[test]
fn every_error_of_an_endpoint_occurs_or_cannot() {
    let errid = |line: &str| {
        let number =
            line.rsplit_once("0x").filter(|_| line.starts_with("result ") || line.starts_with("tag "));
        number.and_then(|(_, digits)| u16::from_str_radix(digits, 16).ok())
    };
    let seen: BTreeSet<u16> =
        table().iter().flat_map(|row| row.says.iter().filter_map(|line| errid(line))).collect();
    for sent in SENT {
        let reason = ABSENT.iter().find(|(absent, _)| *absent == sent);
        assert_eq!(seen.contains(&sent.0), reason.is_none(), "{sent}: {reason:?}");
    }
    let known: BTreeSet<u16> = SENT.iter().map(|sent| sent.0).chain([0]).collect();
    assert!(seen.is_subset(&known), "{seen:x?}");
    let sections: BTreeSet<_> = table().iter().map(|row| row.section).collect();
    let all = ["2", "2.1", "2.2", "5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.7"];
    assert_eq!(sections.into_iter().collect::<Vec<_>>(), all);
}

//! What an endpoint says about itself, as JSON. A change that breaks readers takes a new [`VERSION`]; fields may be added.
//!
//! Times are RFC 3339 in UTC. An absent limit is one that does not exist.

use pktlab::wire::Ticks;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Of the format.
pub const VERSION: u32 = 1;

/// The whole answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Status {
    pub version: u32,
    /// Version of the program.
    pub program: String,
    pub pid: u32,
    pub since: String,
    pub state: State,
    /// The endpoint was told to stop.
    pub stopping: bool,
    /// The controller as configured.
    pub controller: Option<String>,
    /// Sessions begun since the program started.
    pub sessions: u64,
    pub session: Option<Session>,
    pub last_session: Option<Past>,
    pub last_error: Option<Failure>,
}

/// What the endpoint is doing.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Starting,
    Connecting,
    Handshake,
    Session,
    /// For the next attempt.
    Waiting,
}

impl State {
    pub fn words(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Connecting => "connecting to the controller",
            State::Handshake => "TLS handshake with the controller",
            State::Session => "in a session",
            State::Waiting => "waiting before the next attempt",
        }
    }
}

/// The running session.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Session {
    /// Counted from 1 at the start of the program.
    pub number: u64,
    pub since: String,
    pub seconds: u64,
    pub holder: Holder,
    /// Absent until the session has reported.
    pub report: Option<SessionReport>,
}

/// Whom a session serves, and why.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Holder {
    /// Address and port the controller is connected from.
    pub controller: String,
    /// Key identifier of the experimenter, hex.
    pub experimenter: String,
    /// The experimenter in the words of the certificate.
    pub description: Option<String>,
    /// Why it is served, from the operator's key down; one sentence a certificate.
    pub allowed: Vec<String>,
    /// Leaf first.
    pub certificates: Vec<CertificateReport>,
}

/// One certificate of the controller's chain.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct CertificateReport {
    pub kind: String,
    pub description: Option<String>,
    /// Key identifiers and serial number, hex.
    pub subject: String,
    pub signer: String,
    pub serial: String,
    pub not_after: String,
    /// In words.
    pub limits: Vec<String>,
}

/// What a session has done and may still do. Counters begin with the session.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct SessionReport {
    /// START succeeded.
    pub started: bool,
    pub sockets_open: u32,
    /// Successful NOPENs.
    pub sockets_opened: u64,
    /// Captures in force.
    pub captures: u32,
    /// What the sockets took, payload bytes (raw: whole packets).
    pub sent: Traffic,
    /// NSENDs that were accepted and then given up.
    pub unsent: u64,
    /// What was delivered to the controller.
    pub received: Traffic,
    /// What arrived and was discarded: no room, over a limit, lost in a full capture ring.
    pub dropped: Traffic,
    /// Packets at which a filter failed or ran too long.
    pub filter_faults: u64,
    /// Requests refused because of the operator's policy.
    pub refused: u64,
    /// Accounting bytes.
    pub buffer_used: u64,
    pub buffer_size: u64,
    /// Extension bits the controller enabled.
    pub extensions: u32,
    pub left: Left,
}

/// Packets, or reads and writes of a stream, and their bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

/// What limits leave.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Left {
    pub sockets: Option<u64>,
    pub send_packets: Option<u64>,
    pub send_bytes: Option<u64>,
    pub receive_packets: Option<u64>,
    pub receive_bytes: Option<u64>,
    /// When the session has to be over: certificates or run time.
    pub end: Option<String>,
}

/// A session that is over.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Past {
    pub number: u64,
    pub controller: String,
    pub experimenter: String,
    pub ended: String,
    pub seconds: u64,
    pub reason: String,
    pub report: Option<SessionReport>,
}

/// The last thing that went wrong.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Failure {
    pub time: String,
    pub text: String,
}

/// RFC 3339, UTC, whole seconds; `never` for times beyond the calendar's end.
pub fn moment(time: Ticks) -> String {
    let seconds = i64::try_from(time / 1_000_000_000).unwrap_or(i64::MAX);
    match OffsetDateTime::from_unix_timestamp(seconds).map(|time| time.format(&Rfc3339)) {
        Ok(Ok(text)) if time != Ticks::MAX => text,
        _ => "never".to_owned(),
    }
}

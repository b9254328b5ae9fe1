//! The soak: one endpoint process for a long time, session after session of random requests over a link with faults.
//!
//! After each session the endpoint's own books are compared with the controller's, and its descriptors, memory and log are
//! looked at. Dice are seeded: the same seed asks for the same things, as far as timing allows.
//!
//! | file | what lives there |
//! |---|---|
//! | `faults` | the relay between the endpoint and its controller |
//! | `servers` | whom the endpoint talks to |
//! | `actors` | what the controller does |
//! | `ward` | a socket whose NSENDs are followed to their ends |
//! | `tally` | what must add up |
//! | `trend` | memory over time |

mod actors;
mod faults;
mod servers;
mod tally;
mod trend;
mod ward;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use futures_util::future::join_all;
use pktendpt::status::Status;
use pktlab::controller::Controller;
use pktlab::vmem::system;
use pktlab::wire::Proto;
use serde_json::{Value, json};

use crate::standing::{Meeting, Standing};
use faults::{Faults, Relay};
use servers::Servers;
use tally::Tally;
use trend::Trend;
use ward::{Lent, Stop};

const MINUTES: u64 = 30;
/// No more of them are kept.
const VIOLATIONS: usize = 20;
/// Memory may grow by so much from the end of the warm-up to the end of the soak.
const GROWTH: f64 = 1_048_576.0;
/// For actors to come to their ends after their time, over a link that stalls.
const PATIENCE: Duration = Duration::from_secs(150);
/// For the endpoint to close what a session had open.
const TIDY: Duration = Duration::from_secs(5);

/// `bench soak [MINUTES] [SEED]`.
pub fn main(words: &[String]) -> ExitCode {
    let number = |at: usize, default: u64| words.get(at).map_or(Ok(default), |word| word.parse());
    let (Ok(minutes), Ok(seed)) = (number(0, MINUTES), number(1, 1)) else {
        eprintln!("usage: bench soak [MINUTES] [SEED]");
        return ExitCode::from(2);
    };
    match run(Duration::from_secs(minutes * 60), seed) {
        Ok((figures, fine)) => {
            println!("{figures}");
            if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("bench soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(length: Duration, seed: u64) -> Result<(Value, bool)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut soak = Soak::new(length, seed).await?;
        while soak.begun.elapsed() < length && soak.violations.len() < VIOLATIONS {
            soak.session().await?;
        }
        soak.finish()
    })
}

struct Soak {
    meeting: Meeting,
    relay: Relay,
    servers: Servers,
    endpoint: Standing,
    dice: Rng,
    begun: Instant,
    length: Duration,
    seed: u64,
    memory: Trend,
    /// Descriptors of the endpoint between two sessions.
    descriptors: Option<usize>,
    sessions: u64,
    orderly: u64,
    unstarted: u64,
    total: Tally,
    bytes_in: u64,
    violations: Vec<String>,
}

/// How a session went on the controller's side.
enum Course {
    /// Cut before START was answered.
    Unstarted,
    Cut(Arc<Lent>),
    Orderly(Arc<Lent>),
}

impl Soak {
    async fn new(length: Duration, seed: u64) -> Result<Soak> {
        let meeting = Meeting::new().await?;
        let relay = Relay::new(meeting.address()?).await?;
        let mut endpoint = Standing::start(&meeting.credentials, relay.address()?)?;
        while endpoint.status().await.is_err() {
            endpoint.alive()?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Soak {
            meeting,
            relay,
            servers: Servers::start().await?,
            endpoint,
            dice: Rng::with_seed(seed),
            begun: Instant::now(),
            length,
            seed,
            memory: Trend::default(),
            descriptors: None,
            sessions: 0,
            orderly: 0,
            unstarted: 0,
            total: Tally::default(),
            bytes_in: 0,
            violations: Vec::new(),
        })
    }

    fn wrong(&mut self, text: impl Into<String>) {
        let text = format!("session {}: {}", self.sessions, text.into());
        eprintln!("soak: {text}");
        self.violations.push(text);
    }

    /// One session and the look at the endpoint after it.
    async fn session(&mut self) -> Result<()> {
        self.sessions += 1;
        let mut dice = self.dice.fork();
        let length = Duration::from_millis(dice.u64(500..12_000));
        let faults = Faults::throw(&mut dice, length);
        let before = self.endpoint.status().await?.sessions;
        let relay = self.relay.next(faults, dice.fork()).await?;
        let course = self.serve(&mut dice, length).await?;
        if let Course::Orderly(lent) = &course {
            lent.controller.close("the session is over");
            lent.controller.finished().await;
        }
        relay.await?;
        let after = self.tidy().await?;
        match &course {
            Course::Unstarted => self.unstarted += 1,
            Course::Cut(lent) | Course::Orderly(lent) => {
                let orderly = matches!(course, Course::Orderly(_));
                self.orderly += u64::from(orderly);
                let (tally, totals) = (*lent.tally(), lent.controller.totals());
                self.total.add(&tally);
                self.bytes_in += totals.bytes_in;
                match after.last_session.and_then(|past| past.report) {
                    Some(report) if after.sessions == before + 1 => {
                        // Sockets were compared while the session ran.
                        for text in tally.compare_cut(&report, &totals) {
                            self.wrong(text);
                        }
                    }
                    _ => self.wrong("the endpoint does not remember the session"),
                }
            }
        }
        self.look()?;
        self.endpoint.hurry()
    }

    /// The controller's side.
    async fn serve(&mut self, dice: &mut Rng, length: Duration) -> Result<Course> {
        // A connection may be cut before it is one; the next attempt then has the next faults.
        let Ok(session) = self.meeting.session().await else { return Ok(Course::Unstarted) };
        let Ok(controller) = Controller::start(session).await else { return Ok(Course::Unstarted) };
        let scope = actors::Scope { streams: dice.u8(..3) > 0, raw: controller.info().supports(Proto::Raw) };
        let lent = Arc::new(Lent::new(controller, self.servers));
        let until = tokio::time::Instant::now() + length;
        let actors: Vec<_> =
            (0..dice.usize(1..7)).map(|_| actors::act(&lent, dice.fork(), scope, until)).collect();
        let mut ended = false;
        match tokio::time::timeout(length + PATIENCE, join_all(actors)).await {
            Err(_) => self.wrong("the actors do not come to their ends"),
            Ok(outcomes) => {
                for outcome in outcomes {
                    match outcome {
                        Ok(()) => {}
                        Err(Stop::Ended) => ended = true,
                        Err(Stop::Wrong(text)) => {
                            // Its sockets may be closed in the wrong way.
                            ended = true;
                            self.wrong(text);
                        }
                    }
                }
            }
        }
        if ended || !self.compare(&lent).await? {
            return Ok(Course::Cut(lent));
        }
        Ok(Course::Orderly(lent))
    }

    /// Compares the books in the quiet after all sockets were closed; false: the session ended meanwhile.
    async fn compare(&mut self, lent: &Lent) -> Result<bool> {
        // Everything the endpoint had to say is behind this.
        if lent.controller.mread(system::TIME, 8).await.is_err() {
            return Ok(false);
        }
        let (tally, totals) = (*lent.tally(), lent.controller.totals());
        let mut wrong = vec!["the endpoint does not report".to_owned()];
        for _ in 0..10 {
            // A busy endpoint answers with an older report.
            let status = self.endpoint.status().await?;
            if let Some(report) = status.session.and_then(|session| session.report) {
                wrong = tally.compare(&report, &totals);
            }
            if wrong.is_empty() || lent.controller.end_reason().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        if lent.controller.end_reason().is_some() {
            return Ok(false);
        }
        for text in wrong {
            self.wrong(text);
        }
        Ok(true)
    }

    /// Waits until the endpoint has nothing left of the session.
    async fn tidy(&mut self) -> Result<Status> {
        let until = Instant::now() + TIDY;
        loop {
            let status = self.endpoint.status().await?;
            // The answer itself has a descriptor.
            tokio::time::sleep(Duration::from_millis(30)).await;
            let open = self.endpoint.descriptors()?;
            let base = self.descriptors.unwrap_or(open);
            // The next connection may be there already.
            let late = Instant::now() > until;
            if status.session.is_none() && (open <= base || (late && open == base + 1)) {
                self.descriptors = Some(base.min(open));
                return Ok(status);
            }
            if late {
                self.wrong(format!(
                    "{open} descriptors are open, {base} before; session: {:?}",
                    status.session
                ));
                self.descriptors = Some(open);
                return Ok(status);
            }
        }
    }

    /// What can be seen from outside.
    fn look(&mut self) -> Result<()> {
        self.endpoint.alive()?;
        self.memory.add(self.begun.elapsed(), self.endpoint.rss()?);
        let errors = std::mem::take(&mut self.endpoint.log().errors);
        for error in errors {
            self.wrong(format!("the endpoint logged an error: {error}"));
        }
        if std::io::stderr().is_terminal() {
            let left = self.length.saturating_sub(self.begun.elapsed()).as_secs();
            let rss = self.memory.last().unwrap_or(0) as f64 / 1048576.0;
            eprint!(
                "\r{} sessions, {} NSENDs, {rss:.1} MiB, {left} s left   ",
                self.sessions, self.total.asked
            );
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Value, bool)> {
        let warm_up = (self.length / 5).max(Duration::from_secs(60));
        let slope = self.memory.slope(warm_up);
        if let Some((slope, span)) = slope
            && slope * span > GROWTH
        {
            self.wrong(format!("memory grows by {slope:.0} bytes a minute"));
        }
        let report = json!({
            "seed": self.seed,
            "minutes": (self.begun.elapsed().as_secs_f64() / 6.0).round() / 10.0,
            "sessions": self.sessions,
            "orderly": self.orderly,
            "cut": self.sessions - self.orderly - self.unstarted,
            "unstarted": self.unstarted,
            "nsend": self.total.asked,
            "ntag_ok": self.total.sent,
            "ntag_failed": self.total.failed,
            "refused": self.total.refused,
            "lost_at_close": self.total.lost,
            "bytes_out": self.total.sent_bytes,
            "bytes_in": self.bytes_in,
            "rss_most_bytes": self.memory.most(),
            "rss_last_bytes": self.memory.last(),
            "rss_slope_bytes_per_minute": slope.map(|(slope, _)| slope.round()),
            "descriptors": self.descriptors,
            "warnings": self.endpoint.log().warnings,
            "violations": self.violations,
        });
        let fine = self.violations.is_empty();
        Ok((report, fine))
    }
}

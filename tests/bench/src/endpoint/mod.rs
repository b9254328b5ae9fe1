//! The endpoint against what it is built from: timers, a bare TLS connection, `sendto`.
//!
//! One `pktendpt` process is driven by the controller library over TLS on loopback; everything is compared with something
//! measured in the same run, repetitions interleaved, medians reported.

mod arrivals;
mod filters;
mod load;
mod pipe;
mod raw;
mod sessions;
mod streams;
mod timed;

use anyhow::Result;
use pktlab::controller::Controller;
use serde_json::{Map, Value, json};

use crate::standing::{Meeting, Standing};

pub use load::spin;

pub fn run() -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<Value> {
    let meeting = Meeting::new().await?;
    let mut endpoint = Standing::start(&meeting.credentials, meeting.address()?)?;
    let mut figures = Map::new();
    let controller = Controller::start(meeting.session().await?).await?;
    figures.append(&mut timed::measure(&controller).await?);
    figures.append(&mut sessions::round_trips(&controller).await?);
    figures.append(&mut streams::measure(&controller).await?);
    figures.append(&mut raw::measure(&controller).await?);
    figures.insert("rss_after_bytes".into(), json!(endpoint.rss()?));
    controller.close("measured");
    controller.finished().await;
    figures.append(&mut sessions::starts(&meeting, &endpoint).await?);
    figures.append(&mut sessions::memory().await?);
    figures.append(&mut filters::measure()?);
    endpoint.alive()?;
    Ok(figures.into())
}

/// The value below which this part of the sorted samples lies.
fn percentile(sorted: &[f64], quantile: f64) -> f64 {
    let at = (sorted.len() as f64 * quantile) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Three decimals.
fn ratio(a: f64, b: f64) -> f64 {
    (a / b * 1000.0).round() / 1000.0
}

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

use anyhow::{Result, bail};
use pktlab::controller::Controller;
use serde_json::{Map, Value, json};

use crate::standing::{Meeting, Standing};

pub use load::spin;

/// What can be measured by itself.
const PARTS: [&str; 7] = ["timed", "mread", "streams", "raw", "starts", "memory", "filters"];

/// Measures the parts named, or all.
pub fn run(parts: &[String]) -> Result<Value> {
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("no part `{unknown}`; there are {}", PARTS.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&|part| parts.is_empty() || parts.iter().any(|wanted| wanted == part)))
}

async fn measure(wanted: &dyn Fn(&str) -> bool) -> Result<Value> {
    let meeting = Meeting::new().await?;
    let mut endpoint = Standing::start(&meeting.credentials, meeting.address()?)?;
    let mut figures = Map::new();
    let controller = Controller::start(meeting.session().await?).await?;
    if wanted("timed") {
        figures.append(&mut timed::measure(&controller).await?);
    }
    if wanted("mread") {
        figures.append(&mut sessions::round_trips(&controller).await?);
    }
    if wanted("streams") {
        figures.append(&mut streams::measure(&controller).await?);
    }
    if wanted("raw") {
        figures.append(&mut raw::measure(&controller).await?);
    }
    figures.insert("rss_after_bytes".into(), json!(endpoint.rss()?));
    controller.close("measured");
    controller.finished().await;
    if wanted("starts") {
        figures.append(&mut sessions::starts(&meeting, &endpoint).await?);
    }
    if wanted("memory") {
        figures.append(&mut sessions::memory().await?);
    }
    if wanted("filters") {
        figures.append(&mut filters::measure()?);
    }
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

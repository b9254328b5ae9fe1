//! `bench NAME`: runs one benchmark; progress on stderr, figures on stdout, the last line one JSON object.

mod endpoint;
mod first_light;
mod peers;
mod standing;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let figures = match name.as_str() {
        "first-light" => first_light::run(),
        "endpoint" => endpoint::run(),
        // Not for people: the load that benchmarks put beside what they measure.
        "spin" => endpoint::spin(),
        _ => {
            eprintln!("usage: bench first-light | endpoint");
            return ExitCode::from(2);
        }
    };
    match figures {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A program built beside this one.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing; run this through scripts/bench, which builds it", path.display());
    }
    Ok(path)
}

/// The middle of the sorted samples.
fn median(samples: &[f64]) -> anyhow::Result<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().context("no samples")
}

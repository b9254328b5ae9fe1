//! `bench NAME`: runs one benchmark, or the soak; progress on stderr, figures on stdout, the last line one JSON object.

mod endpoint;
mod first_light;
mod peers;
mod soak;
mod standing;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let name = words.first().map_or("", String::as_str);
    let figures = match name {
        "first-light" => first_light::run(),
        "endpoint" => endpoint::run(&words[1..]),
        "soak" => return soak::main(&words[1..]),
        // Not for people: the load that benchmarks put beside what they measure.
        "spin" => endpoint::spin(),
        _ => {
            eprintln!("usage: bench first-light | endpoint [PART…] | soak [MINUTES] [SEED]");
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

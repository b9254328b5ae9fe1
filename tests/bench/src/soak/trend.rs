//! Whether a series goes up.

use std::time::Duration;

/// Resident memory over time.
#[derive(Default)]
pub struct Trend(Vec<(f64, f64)>);

impl Trend {
    pub fn add(&mut self, at: Duration, bytes: u64) {
        self.0.push((at.as_secs_f64() / 60.0, bytes as f64));
    }

    /// Bytes per minute after `warm_up`, and over how many minutes: the middle of the slopes between all pairs, which single
    /// peaks do not move. `None` while there is too little to tell.
    pub fn slope(&self, warm_up: Duration) -> Option<(f64, f64)> {
        let first = warm_up.as_secs_f64() / 60.0;
        let samples: Vec<_> = self.0.iter().copied().filter(|(at, _)| *at >= first).collect();
        if samples.len() < 10 {
            return None;
        }
        let mut slopes = Vec::new();
        for (i, (at, bytes)) in samples.iter().enumerate() {
            slopes.extend(samples[..i].iter().map(|(before, less)| (bytes - less) / (at - before)));
        }
        slopes.sort_by(f64::total_cmp);
        let span = samples[samples.len() - 1].0 - samples[0].0;
        Some((slopes[slopes.len() / 2], span))
    }

    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, bytes)| *bytes as u64)
    }

    pub fn most(&self) -> u64 {
        self.0.iter().map(|(_, bytes)| *bytes as u64).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_shows_and_a_peak_does_not() {
        let minute = Duration::from_secs(60);
        let (mut flat, mut leak) = (Trend::default(), Trend::default());
        for at in 0..40u32 {
            let noise = u64::from(at % 3) * 1_000;
            flat.add(minute * at, 1_000_000 + noise + if at == 30 { 9_000_000 } else { 0 });
            leak.add(minute * at, 1_000_000 + noise + u64::from(at) * 10_000);
        }
        assert!(flat.slope(minute).expect("enough").0.abs() < 100.0);
        let (slope, span) = leak.slope(minute * 9).expect("enough");
        assert!((slope - 10_000.0).abs() < 500.0, "{slope}");
        assert_eq!(span, 30.0);
        assert_eq!(leak.slope(minute * 35), None);
        assert_eq!((flat.most() / 1_000_000, flat.last()), (10, Some(1_000_000)));
    }
}

//! What a measurement found, and how it is shown.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One turn of one measurement: how long it ran and how long each signature took.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Turn {
    /// How long it ran, in microseconds.
    pub(super) ran_us: u64,
    /// How long each signature took, in microseconds.
    pub(super) took_us: Vec<u32>,
}

impl Turn {
    /// Adds a turn of the same measurement.
    pub(super) fn add(&mut self, other: Self) {
        self.ran_us += other.ran_us;
        self.took_us.extend(other.took_us);
    }

    /// Notes one signature.
    pub(super) fn note(&mut self, took: Duration) {
        self.took_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
}

/// A measurement in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Signatures that were made.
    pub(super) signatures: usize,
    /// Signatures per second.
    pub(super) per_second: f64,
    /// Half of the signatures took no longer, in milliseconds.
    pub(super) p50_ms: f64,
    /// 99 of 100 signatures took no longer, in milliseconds.
    pub(super) p99_ms: f64,
}

impl From<Turn> for Figures {
    fn from(mut turn: Turn) -> Self {
        turn.took_us.sort_unstable();
        let seconds = Duration::from_micros(turn.ran_us).as_secs_f64();
        let count = u32::try_from(turn.took_us.len()).unwrap_or(u32::MAX);
        Self {
            signatures: turn.took_us.len(),
            per_second: if seconds > 0.0 { f64::from(count) / seconds } else { 0.0 },
            p50_ms: percentile_ms(&turn.took_us, 50),
            p99_ms: percentile_ms(&turn.took_us, 99),
        }
    }
}

/// The smallest value that `percent` of the sorted values do not exceed (nearest rank).
fn percentile_ms(sorted_us: &[u32], percent: usize) -> f64 {
    let rank = (sorted_us.len() * percent).div_ceil(100);
    sorted_us.get(rank.saturating_sub(1)).map_or(0.0, |&us| f64::from(us) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<u32> = (1..=100).map(|ms| ms * 1000).collect();
        assert_eq!((percentile_ms(&hundred, 50), percentile_ms(&hundred, 99)), (50.0, 99.0));
        assert_eq!(percentile_ms(&[7000], 99), 7.0);
        assert_eq!(percentile_ms(&[], 50), 0.0);
    }

    #[test]
    fn turns_add_up_to_one_rate() {
        let mut turn = Turn { ran_us: 1_000_000, took_us: vec![10; 100] };
        turn.add(Turn { ran_us: 3_000_000, took_us: vec![10; 100] });
        assert_eq!(Figures::from(turn).per_second, 50.0);
    }
}

//! A histogram of lateness, as counts in buckets of a quarter of an octave. Pure.
//!
//! One thread writes it, any thread reads it: a reader may miss values that are being written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per power of two: a quantile is at most a quarter above the truth.
const PARTS: usize = 4;

/// Counts of latenesses.
#[derive(Debug)]
pub struct Lateness {
    buckets: [AtomicU64; 64 * PARTS],
    max: AtomicU64,
}

impl Default for Lateness {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            max: AtomicU64::new(0),
        }
    }
}

impl Lateness {
    /// Counts one packet by its lateness.
    pub fn record(&self, lateness: Duration) {
        let nanoseconds = u64::try_from(lateness.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanoseconds)].fetch_add(1, Ordering::Relaxed);
        self.max.fetch_max(nanoseconds, Ordering::Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum()
    }

    /// The lateness that a `share` of all values does not exceed; zero if there were none.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Ordering::Relaxed);
            if seen >= wanted.max(1) {
                return Duration::from_nanos(upper_bound(index)).min(self.max());
            }
        }
        Duration::ZERO
    }

    /// The worst.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max.load(Ordering::Relaxed))
    }

    /// Counts all of `other` as well.
    pub fn add(&self, other: &Self) {
        for (own, others) in self.buckets.iter().zip(&other.buckets) {
            own.fetch_add(others.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.max
            .fetch_max(other.max.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The bucket of a number of nanoseconds: its octave, and the two bits below the highest.
fn bucket(nanoseconds: u64) -> usize {
    let value = nanoseconds.max(PARTS as u64);
    let octave = value.ilog2() as usize;
    octave * PARTS + (value >> (octave - 2)) as usize % PARTS
}

/// The largest number of nanoseconds of a bucket.
fn upper_bound(index: usize) -> u64 {
    let (octave, part) = (index / PARTS, (index % PARTS) as u128);
    if octave < 2 {
        return PARTS as u64;
    }
    let end = ((PARTS as u128 + part + 1) << (octave - 2)) - 1;
    u64::try_from(end).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_a_bucket_whose_bound_is_at_most_a_quarter_above_it() {
        for value in [0, 1, 4, 5, 7, 8, 1000, 299_999, 1 << 40, u64::MAX] {
            let bound = upper_bound(bucket(value));
            assert!(bound >= value, "{value}: {bound}");
            assert!(
                bound as f64 <= value.max(4) as f64 * 1.25,
                "{value}: {bound}"
            );
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let lateness = Lateness::default();
        assert_eq!(lateness.quantile(0.99), Duration::ZERO);
        for microseconds in 1..=100 {
            lateness.record(Duration::from_micros(microseconds));
        }
        let both = Lateness::default();
        both.add(&lateness);
        assert_eq!(both.count(), 100);
        let median = both.quantile(0.5).as_nanos();
        assert!((50_000..=62_500).contains(&median), "{median}");
        assert_eq!(both.quantile(1.0), Duration::from_micros(100));
        assert_eq!(both.max(), Duration::from_micros(100));
    }
}

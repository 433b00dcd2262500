//! How long recent responses of a destination took, so that percentiles can be computed. Pure.
//!
//! Counts in buckets whose widths grow by an eighth of an octave, halved when there are many: the last few
//! thousand responses count, and a percentile is right within a tenth.

use std::time::Duration;

use weft_config::table::Percent;

/// Buckets for an octave.
const PER_OCTAVE: u32 = 8;
/// From 64 us up to an hour.
const OCTAVES: u32 = 26;
const BUCKETS: usize = (PER_OCTAVE * OCTAVES) as usize;
/// Upper bound of the first bucket, in microseconds, as a power of two.
const FIRST: u32 = 6;
/// Responses that a percentile needs.
const LEAST: u32 = 100;
/// Responses after which all counts are halved.
const MOST: u32 = 4000;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Times {
    counts: Box<[u16; BUCKETS]>,
    all: u32,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            all: 0,
        }
    }
}

impl Times {
    /// One more response.
    pub(crate) fn add(&mut self, took: Duration) {
        if self.all >= MOST {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.all = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
        let bucket = &mut self.counts[bucket(took)];
        *bucket = bucket.saturating_add(1);
        self.all += 1;
    }

    /// The time within which this share of them began; none while too few are known.
    pub(crate) fn percentile(&self, share: Percent) -> Option<Duration> {
        if self.all < LEAST {
            return None;
        }
        let wanted = (share.fraction() * f64::from(self.all)).ceil();
        let mut sum = 0;
        let index = self.counts.iter().position(|count| {
            sum += u32::from(*count);
            f64::from(sum) >= wanted
        })?;
        Some(upper_bound(index))
    }
}

fn bucket(took: Duration) -> usize {
    let octaves = (took.as_secs_f64() * 1e6).max(1.0).log2() - f64::from(FIRST);
    let index = (octaves * f64::from(PER_OCTAVE)).ceil().max(0.0);
    (index as usize).min(BUCKETS - 1)
}

fn upper_bound(index: usize) -> Duration {
    let octaves = index as f64 / f64::from(PER_OCTAVE) + f64::from(FIRST);
    Duration::from_secs_f64(octaves.exp2() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_right_within_a_tenth() {
        let mut times = Times::default();
        (1..=1000).for_each(|ms| times.add(Duration::from_millis(ms)));
        for (percent, ms) in [(50, 500.0), (95, 950.0), (99, 990.0)] {
            let told = times.percentile(Percent::whole(percent)).unwrap();
            let told = told.as_secs_f64() * 1000.0;
            assert!(told >= ms && told <= ms * 1.1, "p{percent}: {told}");
        }
    }

    #[test]
    fn few_responses_tell_nothing_and_old_ones_are_forgotten() {
        let mut times = Times::default();
        (0..99).for_each(|_| times.add(Duration::from_secs(2)));
        assert_eq!(times.percentile(Percent::whole(95)), None);
        (0..20_000).for_each(|_| times.add(Duration::from_millis(2)));
        let told = times.percentile(Percent::whole(99)).unwrap();
        assert!(told < Duration::from_millis(3), "{told:?}");
    }

    #[test]
    fn no_time_is_out_of_range() {
        let mut times = Times::default();
        for took in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX / 4] {
            times.add(took);
        }
        assert_eq!(times.all, 3);
    }
}

//! How long the parts of attempts took on one worker: shows where slow calls spend their time. By part and by
//! whether the call failed in it, not by destination: ten series in all.

use std::sync::Mutex;
use std::time::Duration;

use weft_transport::locks::lock;
use weft_transport::metrics::DURATION_BUCKETS;

use crate::record::Finished;
use crate::record::attempt::{Ended, Part};

/// Counts of values up to each bound.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Histogram {
    pub(crate) buckets: [u64; DURATION_BUCKETS.len()],
    pub(crate) sum: f64,
    pub(crate) count: u64,
}

impl Histogram {
    /// Counts one value.
    pub(crate) fn add(&mut self, value: Duration) {
        let seconds = value.as_secs_f64();
        if let Some(bucket) = DURATION_BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }

    /// Adds the counts of another worker.
    pub(crate) fn merge(&mut self, other: &Self) {
        let both = self.buckets.iter_mut().zip(other.buckets);
        both.for_each(|(sum, count)| *sum += count);
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// See the module. The body is the part after those of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<Counts>);

type Counts = [[Histogram; OUTCOMES.len()]; NAMES.len()];

const BODY: usize = Part::ALL.len();
const NAMES: [&str; BODY + 1] = [
    Part::Pick.as_str(),
    Part::Dial.as_str(),
    Part::Stream.as_str(),
    Part::Head.as_str(),
    "body",
];
const OUTCOMES: [&str; 2] = ["ended", "failed"];

impl Parts {
    /// Counts the attempts of an exchange that is over, and the body of its answer.
    pub(super) fn count(&self, finished: &Finished<'_>) {
        let kept = &finished.record.kept;
        if kept.last().is_none() {
            return;
        }
        let counts = &mut *lock(&self.0);
        for attempt in kept.iter() {
            let failed = !matches!(attempt.ended, Some(Ended::Answered(_)));
            for (part, took) in attempt.parts() {
                let here = failed && part == attempt.part;
                counts[part as usize][usize::from(here)].add(took);
            }
        }
        if let Some(took) = finished.body() {
            counts[BODY][usize::from(finished.is_broken_off)].add(took);
        }
    }

    /// Adds these counts to those of other workers.
    pub(super) fn merge_into(&self, sums: &mut Sums) {
        let counts = lock(&self.0);
        for (sums, counts) in sums.0.iter_mut().zip(counts.iter()) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                sum.merge(count);
            }
        }
    }
}

/// The counts of several workers.
#[derive(Debug, Default)]
pub(super) struct Sums(Counts);

impl Sums {
    /// Each that counted anything, with its labels.
    pub(super) fn iter(&self) -> impl Iterator<Item = ([&'static str; 2], &Histogram)> {
        let named = NAMES.into_iter().zip(&self.0).flat_map(|(name, counts)| {
            let of_name = OUTCOMES.into_iter().zip(counts);
            of_name.map(move |(outcome, count)| ([name, outcome], count))
        });
        named.filter(|(_, histogram)| histogram.count > 0)
    }
}

//! What the rules of routes got in the last minute: totals are noted every few seconds, and the difference to
//! the oldest of them is shown. The data path does nothing for it: it counts what `/metrics` shows, by the
//! same labels. Pure, but for [`totals`], which reads the shards.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weft_transport::metrics::DURATION_BUCKETS;

use super::parts::Histogram;
use super::{Direction, Shard, lock};
use crate::limits;

/// Calls by a rule, or to a service without routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Requests, or connections to a TCP service that were opened.
    pub(crate) calls: u64,
    /// Those that failed.
    pub(crate) failures: u64,
    durations: Histogram,
}

/// Tallies by the route's rule; those without one by service, as `orders.shop:80`.
pub(crate) type Tallies = BTreeMap<Arc<str>, Tally>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Minute(VecDeque<(Instant, Tallies)>);

impl Minute {
    /// Notes the totals of now, and forgets those that are older than a minute.
    pub(crate) fn note(&mut self, now: Instant, totals: Tallies) {
        if self.0.len() >= limits::MINUTE_NOTES {
            self.0.pop_front();
        }
        self.0.push_back((now, totals));
    }

    /// What came since the oldest note, and how long that is ago.
    pub(crate) fn since(&self, now: Instant, mut totals: Tallies) -> (Duration, Tallies) {
        let Some((then, before)) = self.0.front() else {
            return (Duration::ZERO, Tallies::new());
        };
        for (rule, tally) in &mut totals {
            if let Some(before) = before.get(rule) {
                tally.subtract(before);
            }
        }
        (now.saturating_duration_since(*then), totals)
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.durations.merge(&other.durations);
    }

    fn subtract(&mut self, before: &Self) {
        self.calls = self.calls.saturating_sub(before.calls);
        self.failures = self.failures.saturating_sub(before.failures);
        let counts = self.durations.buckets.iter_mut();
        for (count, before) in counts.zip(before.durations.buckets) {
            *count = count.saturating_sub(before);
        }
        self.durations.count = self.durations.count.saturating_sub(before.durations.count);
    }

    /// The duration below which this share of the requests stayed, in seconds: within the bounds of
    /// `weft_request_duration_seconds`, where it is taken to grow evenly. None without requests, and where it
    /// is beyond the last bound.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = share * self.durations.count as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, bound) in self.durations.buckets.iter().zip(DURATION_BUCKETS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return Some(lower + (bound - lower) * ((wanted - below) / count).clamp(0.0, 1.0));
            }
            (below, lower) = (below + count, bound);
        }
        None
    }
}

/// The totals of all workers since the start of the sidecar, of the calls that its application made.
pub(crate) fn totals(shards: &[Arc<Shard>]) -> Tallies {
    let mut all = Tallies::new();
    let mut add = |labels: &super::Labels, tally: &Tally| {
        let key = match labels.route.is_empty() {
            true => &labels.destination_service,
            false => &labels.route,
        };
        all.entry(Arc::clone(key)).or_default().add(tally);
    };
    for shard in shards {
        for (labels, series) in lock(&shard.requests).iter() {
            if labels.direction != Direction::Outbound {
                continue;
            }
            let counts = lock(&series.counts);
            let failed = counts.outcomes.iter().filter(|(one, _)| one.failed);
            let tally = Tally {
                calls: counts.durations.count,
                failures: failed.map(|(_, count)| count).sum(),
                durations: counts.durations,
            };
            drop(counts);
            add(labels, &tally);
        }
        for (labels, series) in lock(&shard.tunnels).iter() {
            if labels.direction != Direction::Outbound {
                continue;
            }
            let tally = Tally {
                calls: series.opened.load(Ordering::Relaxed),
                failures: lock(&series.failed).values().sum(),
                durations: Histogram::default(),
            };
            add(labels, &tally);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(calls: u64, failures: u64, millis: &[u64]) -> Tally {
        let mut durations = Histogram::default();
        for millis in millis {
            durations.add(Duration::from_millis(*millis));
        }
        Tally {
            calls,
            failures,
            durations,
        }
    }

    fn of(tally: Tally) -> Tallies {
        Tallies::from([(Arc::from("r"), tally)])
    }

    #[test]
    fn the_difference_to_the_oldest_note_is_shown_and_that_is_a_minute_old() {
        let start = Instant::now();
        let mut minute = Minute::default();
        assert_eq!(minute.since(start, of(tally(5, 1, &[]))).1.len(), 0);
        for second in (0..600).step_by(5) {
            let now = start + Duration::from_secs(second);
            minute.note(now, of(tally(second * 10, second, &[])));
        }
        let now = start + Duration::from_secs(599);
        let (window, seen) = minute.since(now, of(tally(5990, 599, &[])));
        assert_eq!(window, Duration::from_secs(59));
        assert_eq!((seen["r"].calls, seen["r"].failures), (590, 59));
        assert_eq!(minute.0.len(), limits::MINUTE_NOTES);
    }

    #[test]
    fn a_rule_that_is_new_or_whose_counts_begin_anew_never_shows_more_than_it_got() {
        let start = Instant::now();
        let mut minute = Minute::default();
        minute.note(start, of(tally(100, 9, &[1, 1])));
        let mut totals = of(tally(3, 1, &[1]));
        totals.insert(Arc::from("new"), tally(2, 0, &[1]));
        let (_, seen) = minute.since(start, totals);
        assert_eq!((seen["r"].calls, seen["r"].failures), (0, 0));
        assert_eq!(seen["new"].calls, 2);
    }

    #[test]
    fn quantiles_lie_within_the_bounds_of_the_histogram() {
        let even = tally(100, 0, &[15; 100]);
        let half = even.quantile(0.5).unwrap();
        assert!((0.01..=0.02).contains(&half), "{half}");
        let mut mixed = vec![3; 98];
        mixed.extend([700, 700]);
        let mixed = tally(100, 0, &mixed);
        assert!(mixed.quantile(0.5).unwrap() <= 0.005);
        let high = mixed.quantile(0.99).unwrap();
        assert!((0.5..=1.0).contains(&high), "{high}");
        assert_eq!(tally(0, 0, &[]).quantile(0.5), None);
        assert_eq!(tally(1, 0, &[60_000]).quantile(0.5), None);
    }
}

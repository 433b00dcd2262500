//! The measurements of a run: histograms, counters, the run second by second. Pure. Each thread has its own
//! and hands it over from time to time; merging them equals recording all in one. `result.rs` makes the form
//! for people and programs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::histogram::Durations;
use crate::sample::{ErrorKind, Outcome, Sample};
use crate::timeline::{Presence, Timeline};

/// Everything measured by one thread, or by all of them after merging.
#[derive(Clone, Debug)]
pub struct Measurements {
    /// Samples that were due before this do not count.
    warm_up: Duration,
    /// From the intended start to the end, of successes and of failures that ran out of time.
    pub latency: Durations,
    /// From the real start to the end, of the same.
    pub service: Durations,
    /// From the intended start to the end, of all other failures: quick refusals must not improve the
    /// latency.
    pub failed: Durations,
    /// New TCP connections.
    pub connect: Durations,
    /// New TLS or QUIC handshakes.
    pub tls: Durations,
    /// From the moment when sending was possible to the first byte of the answer.
    pub first_byte: Durations,
    /// How late the generator started requests that only it delayed.
    pub lateness: Durations,
    /// Plain numbers.
    pub counts: Counts,
    /// Failures by kind. Bounded by the kinds and their codes.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// The run second by second, from the end of the warm-up.
    pub timeline: Timeline,
    /// When successes ended, from the end of the warm-up.
    pub successes: Presence,
}

/// Plain numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples of the warm-up, which count nowhere else.
    pub warm_up: u64,
    /// Requests that ended well.
    pub succeeded: u64,
    /// Requests that failed, including unsent ones.
    pub failed: u64,
    /// Requests that were due and never sent, because `--max-in-flight` were open.
    pub unsent: u64,
    /// Requests that started late because `--max-in-flight` were open.
    pub held_back: u64,
    /// Requests on a connection that had served before.
    pub reused: u64,
    /// New TLS or QUIC handshakes.
    pub handshakes: u64,
    /// Those of TLS that went on with a session of an earlier connection.
    pub resumed: u64,
    /// How often requests were sent again, because the server had not processed them.
    pub resent: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// The last time at which a request was due, from the end of the warm-up.
    pub last_due: Duration,
    /// The last time at which a request ended, from the end of the warm-up.
    pub last_end: Duration,
}

impl Counts {
    /// All requests of the measured time.
    pub fn requests(&self) -> u64 {
        self.succeeded + self.failed
    }
}

/// A snapshot of a running run, for a line of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Numbers so far.
    pub counts: Counts,
    /// Median latency; zero without samples, as the others.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Longest latency.
    pub max: Duration,
    /// 99th percentile of the generator's own lateness.
    pub late_p99: Duration,
}

impl Measurements {
    /// Nothing measured yet. Requests that are due before `warm_up` (from the run's origin) will not
    /// count. Allocates about 2 MiB.
    pub fn new(warm_up: Duration) -> Self {
        Self {
            warm_up,
            latency: Durations::new(),
            service: Durations::new(),
            failed: Durations::new(),
            connect: Durations::new(),
            tls: Durations::new(),
            first_byte: Durations::new(),
            lateness: Durations::new(),
            counts: Counts::default(),
            errors: BTreeMap::new(),
            timeline: Timeline::default(),
            successes: Presence::default(),
        }
    }

    /// How long the warm-up is.
    pub fn warm_up(&self) -> Duration {
        self.warm_up
    }

    /// Counts one request. Allocates only for the first of a second or of a kind of failure.
    pub fn record(&mut self, sample: &Sample) {
        let Some(due) = sample.intended.checked_sub(self.warm_up) else {
            self.counts.warm_up += 1;
            return;
        };
        let ended = sample.finished.saturating_sub(self.warm_up);
        self.count(sample, due, ended);
        self.timeline.at(due).due += 1;
        let step = self.timeline.at(ended);
        step.bytes_in = step.bytes_in.saturating_add(sample.bytes_in);
        step.bytes_out = step.bytes_out.saturating_add(sample.bytes_out);
        let counts_as_latency = match sample.outcome {
            Outcome::Success => {
                step.succeeded += 1;
                self.successes.note(ended);
                true
            }
            Outcome::Failure(kind) => {
                step.failed += 1;
                *self.errors.entry(kind).or_default() += 1;
                kind.is_lower_bound()
            }
        };
        if counts_as_latency {
            step.latency(sample.latency());
            self.latency.record(sample.latency());
            self.service.record(sample.service());
        } else if sample.outcome != Outcome::Failure(ErrorKind::Unsent) {
            self.failed.record(sample.latency());
        }
        self.record_phases(sample);
    }

    /// Adds all of `other`, which must have the same warm-up.
    pub fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.service.merge(&other.service);
        self.failed.merge(&other.failed);
        self.connect.merge(&other.connect);
        self.tls.merge(&other.tls);
        self.first_byte.merge(&other.first_byte);
        self.lateness.merge(&other.lateness);
        self.counts.merge(&other.counts);
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        self.timeline.merge(&other.timeline);
        self.successes.merge(&other.successes);
    }

    /// Forgets everything and keeps the memory: for the next interval after handing one over.
    pub fn clear(&mut self) {
        for durations in [
            &mut self.latency,
            &mut self.service,
            &mut self.failed,
            &mut self.connect,
            &mut self.tls,
            &mut self.first_byte,
            &mut self.lateness,
        ] {
            durations.clear();
        }
        self.counts = Counts::default();
        self.errors.clear();
        self.timeline.clear();
        self.successes.clear();
    }

    /// A look at it, for progress. Walks two histograms: once a second, not per request.
    pub fn snapshot(&self) -> Snapshot {
        let at = |durations: &Durations, percent| {
            let found = durations.percentile(percent);
            found.map_or(Duration::ZERO, |percentile| percentile.value)
        };
        Snapshot {
            counts: self.counts,
            p50: at(&self.latency, 50.0),
            p99: at(&self.latency, 99.0),
            max: self.latency.max().unwrap_or_default(),
            late_p99: at(&self.lateness, 99.0),
        }
    }

    /// The longest time without a success while requests were due, and when it began (from the end
    /// of the warm-up). A gap after the last request was due ends with the success that came, or
    /// counts up to that last request.
    pub fn longest_without_success(&self) -> (Duration, Duration) {
        self.successes.longest_gap(self.counts.last_due)
    }

    fn count(&mut self, sample: &Sample, due: Duration, ended: Duration) {
        let counts = &mut self.counts;
        match sample.outcome {
            Outcome::Success => counts.succeeded += 1,
            Outcome::Failure(kind) => {
                counts.failed += 1;
                counts.unsent += u64::from(kind == ErrorKind::Unsent);
            }
        }
        counts.held_back += u64::from(sample.held_back);
        counts.reused += u64::from(sample.reused);
        counts.handshakes += u64::from(sample.handshakes);
        counts.resumed += u64::from(sample.resumed);
        counts.resent += u64::from(sample.resent);
        counts.bytes_in = counts.bytes_in.saturating_add(sample.bytes_in);
        counts.bytes_out = counts.bytes_out.saturating_add(sample.bytes_out);
        counts.last_due = counts.last_due.max(due);
        counts.last_end = counts.last_end.max(ended);
    }

    fn record_phases(&mut self, sample: &Sample) {
        let phases = [
            (&mut self.connect, sample.connect()),
            (&mut self.tls, sample.tls()),
            (&mut self.first_byte, sample.first_byte()),
            (&mut self.lateness, sample.lateness()),
        ];
        for (durations, duration) in phases {
            if let Some(duration) = duration {
                durations.record(duration);
            }
        }
    }
}

impl Counts {
    fn merge(&mut self, other: &Self) {
        self.warm_up += other.warm_up;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.unsent += other.unsent;
        self.held_back += other.held_back;
        self.reused += other.reused;
        self.handshakes += other.handshakes;
        self.resumed += other.resumed;
        self.resent += other.resent;
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.last_due = self.last_due.max(other.last_due);
        self.last_end = self.last_end.max(other.last_end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn success(intended: u64, finished: u64) -> Sample {
        Sample {
            finished: ms(finished),
            outcome: Outcome::Success,
            ..Sample::begin(ms(intended), ms(intended))
        }
    }

    fn failure(kind: ErrorKind, intended: u64, finished: u64) -> Sample {
        Sample {
            outcome: Outcome::Failure(kind),
            ..success(intended, finished)
        }
    }

    #[test]
    fn merging_equals_recording_in_one() {
        let (mut one, mut left, mut right) = (
            Measurements::new(ms(100)),
            Measurements::new(ms(100)),
            Measurements::new(ms(100)),
        );
        for index in 0..10_000u64 {
            let mut sample = if index % 50 == 0 {
                failure(ErrorKind::Status(503), index, index + 2)
            } else {
                success(index, index + index % 17)
            };
            sample.bytes_in = index;
            sample.reused = index % 3 == 0;
            sample.tls_done = (index % 5 == 0).then(|| ms(index + 2));
            sample.handshakes = u32::from(index % 5 == 0);
            sample.resumed = u32::from(index % 10 == 0);
            sample.resent = u32::from(index % 11 == 0);
            sample.connected = (index % 5 == 0).then(|| ms(index + 1));
            one.record(&sample);
            let side = if index % 7 < 3 { &mut left } else { &mut right };
            side.record(&sample);
        }
        left.merge(&right);
        assert_eq!(left.counts, one.counts);
        assert_eq!(left.errors, one.errors);
        assert_eq!(left.latency.encode(), one.latency.encode());
        assert_eq!(left.connect.encode(), one.connect.encode());
        assert_eq!(left.failed.encode(), one.failed.encode());
        assert_eq!(left.snapshot(), one.snapshot());
        assert_eq!(
            left.longest_without_success(),
            one.longest_without_success()
        );
        assert_eq!(left.timeline.steps().len(), one.timeline.steps().len());
    }

    #[test]
    fn what_was_due_in_the_warm_up_does_not_count() {
        let mut measurements = Measurements::new(ms(1000));
        measurements.record(&success(999, 1500));
        measurements.record(&success(1000, 1001));
        assert_eq!(measurements.counts.warm_up, 1);
        assert_eq!(measurements.counts.requests(), 1);
        assert_eq!(measurements.latency.max(), Some(ms(1)));
    }

    #[test]
    fn a_request_that_ran_out_of_time_counts_in_the_latency_and_a_quick_refusal_does_not() {
        let mut measurements = Measurements::new(ms(0));
        measurements.record(&failure(ErrorKind::Deadline, 0, 5000));
        measurements.record(&failure(ErrorKind::ConnectRefused, 0, 1));
        assert_eq!(measurements.latency.len(), 1);
        assert_eq!(measurements.latency.max(), Some(ms(5000)));
        assert_eq!(measurements.failed.len(), 1);
        assert_eq!(measurements.counts.failed, 2);
    }

    #[test]
    fn an_unsent_request_is_a_failure_without_a_latency() {
        let mut measurements = Measurements::new(ms(0));
        measurements.record(&Sample::unsent(ms(10), ms(500)));
        assert_eq!(measurements.counts.unsent, 1);
        assert_eq!(measurements.counts.failed, 1);
        assert!(measurements.latency.is_empty() && measurements.failed.is_empty());
        assert!(measurements.lateness.is_empty());
    }

    #[test]
    fn a_freeze_of_one_second_shows_as_its_length() {
        let mut measurements = Measurements::new(ms(0));
        for due in 0..5000u64 {
            // Nothing ends from 2000 to 3000 ms; then all that waited ends at once.
            let ended = if (2000..3000).contains(&due) {
                3000
            } else {
                due
            };
            measurements.record(&success(due, ended));
        }
        let (gap, begin) = measurements.longest_without_success();
        assert!(gap.abs_diff(ms(1001)) <= ms(1), "{gap:?} from {begin:?}");
        // One request in five waited, uniformly between 0 and 1 s: p90 is half of the wait.
        let p90 = measurements.latency.percentile(90.0).unwrap().value;
        assert!(p90.abs_diff(ms(500)) <= ms(1), "{p90:?}");
    }

    #[test]
    fn after_clearing_it_measures_as_if_new() {
        let mut measurements = Measurements::new(ms(0));
        measurements.record(&failure(ErrorKind::Reset, 5, 80_000));
        measurements.clear();
        let fresh = Measurements::new(ms(0));
        assert_eq!(measurements.snapshot(), fresh.snapshot());
        assert_eq!(
            measurements.longest_without_success(),
            fresh.longest_without_success()
        );
        assert!(measurements.timeline.steps().is_empty());
    }
}

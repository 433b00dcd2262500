//! What is counted of the calls on one edge. Pure.

use std::collections::BTreeMap;

use super::histogram::Durations;
use crate::limits;
use crate::proto;

/// What came on an edge in some span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeCounts {
    /// Requests that ended.
    pub requests: u64,
    /// Those of them, and tunnels, that failed.
    pub failures: u64,
    /// Failures by reason: an error type of `proxy-status` (RFC 9209), or `status NNN` where the application
    /// said so.
    pub reasons: BTreeMap<String, u64>,
    /// Attempts after the first.
    pub retries: u64,
    /// Requests that met their deadline.
    pub deadlines: u64,
    /// Bytes of content from the caller.
    pub sent: u64,
    /// Bytes of content to the caller.
    pub received: u64,
    /// Tunnels that both sides accepted.
    pub opened: u64,
    /// Tunnels of those that ended.
    pub closed: u64,
    /// How long requests took.
    pub latency: Durations,
    /// The sum of that, in microseconds.
    pub latency_micros: u64,
    /// How much of the time until the head of their answers was the mesh's.
    pub mesh: Durations,
    /// The sum of that, in microseconds.
    pub mesh_micros: u64,
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended<'a> {
    /// How long it took, in microseconds.
    pub micros: u64,
    /// The mesh's part of the time until the head of its answer, where the serving side told its own.
    pub mesh_micros: Option<u64>,
    /// Why it failed, if it did.
    pub failure: Option<&'a str>,
    /// Whether its deadline ended it.
    pub late: bool,
    /// Attempts after the first.
    pub retries: u64,
    /// Bytes of its content.
    pub sent: u64,
    /// Bytes of its answer's content.
    pub received: u64,
}

impl EdgeCounts {
    /// Counts a request.
    pub fn request(&mut self, ended: Ended<'_>) {
        self.requests += 1;
        if let Some(reason) = ended.failure {
            self.failed(reason, 1);
        }
        self.deadlines += u64::from(ended.late);
        self.retries += ended.retries;
        self.sent += ended.sent;
        self.received += ended.received;
        self.latency.add(ended.micros);
        self.latency_micros += ended.micros;
        if let Some(micros) = ended.mesh_micros {
            self.mesh.add(micros);
            self.mesh_micros += micros;
        }
    }

    /// Counts failures. Beyond [`limits::SIGNAL_REASONS_MAX`] reasons, others are counted as `other`.
    pub fn failed(&mut self, reason: &str, count: u64) {
        self.failures += count;
        if let Some(known) = self.reasons.get_mut(reason) {
            *known += count;
            return;
        }
        let room = self.reasons.len() < limits::SIGNAL_REASONS_MAX;
        let reason = if room { reason } else { OTHER };
        *self.reasons.entry(reason.to_owned()).or_default() += count;
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        let failures = self.failures + other.failures;
        for (reason, count) in &other.reasons {
            self.failed(reason, *count);
        }
        self.failures = failures;
        self.requests += other.requests;
        self.retries += other.retries;
        self.deadlines += other.deadlines;
        self.sent += other.sent;
        self.received += other.received;
        self.opened += other.opened;
        self.closed += other.closed;
        self.latency.merge(&other.latency);
        self.latency_micros += other.latency_micros;
        self.mesh.merge(&other.mesh);
        self.mesh_micros += other.mesh_micros;
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The reason of failures that have no room of their own.
const OTHER: &str = "other";

impl From<&EdgeCounts> for proto::EdgeCounts {
    fn from(counts: &EdgeCounts) -> Self {
        let reasons = counts
            .reasons
            .iter()
            .map(|(reason, count)| proto::FailureCount {
                reason: reason.clone(),
                count: *count,
            });
        Self {
            requests: counts.requests,
            failures: counts.failures,
            reasons: reasons.collect(),
            retries: counts.retries,
            deadlines: counts.deadlines,
            sent: counts.sent,
            received: counts.received,
            opened: counts.opened,
            closed: counts.closed,
            latency: message(&counts.latency),
            latency_micros: counts.latency_micros,
            mesh: message(&counts.mesh),
            mesh_micros: counts.mesh_micros,
        }
    }
}

/// Takes whatever a sidecar says: reasons are shortened, and nothing of it can grow without bound. A sum that
/// is too large to be added to is taken for the largest that is not.
impl From<proto::EdgeCounts> for EdgeCounts {
    fn from(message: proto::EdgeCounts) -> Self {
        let mut counts = Self {
            requests: bounded(message.requests),
            retries: bounded(message.retries),
            deadlines: bounded(message.deadlines),
            sent: bounded(message.sent),
            received: bounded(message.received),
            opened: bounded(message.opened),
            closed: bounded(message.closed),
            latency: durations(message.latency),
            latency_micros: bounded(message.latency_micros),
            mesh: durations(message.mesh),
            mesh_micros: bounded(message.mesh_micros),
            ..Self::default()
        };
        for told in message.reasons {
            let reason: String = told
                .reason
                .chars()
                .take(limits::SIGNAL_REASON_LENGTH_MAX)
                .collect();
            counts.failed(&reason, bounded(told.count));
        }
        counts.failures = bounded(message.failures);
        counts
    }
}

fn bounded(sum: u64) -> u64 {
    sum.min(limits::SIGNAL_SUM_MAX)
}

fn message(durations: &Durations) -> Option<proto::Durations> {
    let mut next = 0;
    let gaps = durations.iter().map(|(bucket, count)| {
        let gap = bucket - next;
        next = bucket + 1;
        (gap, count)
    });
    let (gaps, counts): (Vec<_>, Vec<_>) = gaps.unzip();
    (!counts.is_empty()).then_some(proto::Durations { gaps, counts })
}

fn durations(message: Option<proto::Durations>) -> Durations {
    let message = message.unwrap_or_default();
    let mut next = 0_u32;
    let told = message.gaps.into_iter().zip(message.counts);
    Durations::of(told.map(|(gap, count)| {
        let bucket = next.saturating_add(gap);
        next = bucket.saturating_add(1);
        (bucket, count)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(micros: u64) -> Ended<'static> {
        Ended {
            micros,
            mesh_micros: Some(micros / 4),
            failure: None,
            late: false,
            retries: 0,
            sent: 10,
            received: 20,
        }
    }

    fn some() -> EdgeCounts {
        let mut counts = EdgeCounts::default();
        counts.request(ended(900));
        counts.request(Ended {
            failure: Some("connection_refused"),
            late: true,
            retries: 2,
            ..ended(70_000)
        });
        counts.opened = 3;
        counts
    }

    #[test]
    fn what_is_told_is_what_was_counted() {
        let counts = some();
        assert_eq!(EdgeCounts::from(proto::EdgeCounts::from(&counts)), counts);
        let nothing = EdgeCounts::default();
        assert_eq!(EdgeCounts::from(proto::EdgeCounts::from(&nothing)), nothing);
    }

    #[test]
    fn merging_adds_each_count_once() {
        let mut twice = some();
        twice.merge(&some());
        assert_eq!((twice.requests, twice.failures, twice.retries), (4, 2, 4));
        assert_eq!(twice.reasons["connection_refused"], 2);
        assert_eq!((twice.latency.count(), twice.mesh_micros), (4, 35_450));
    }

    #[test]
    fn many_reasons_share_one_and_none_is_lost() {
        let mut counts = EdgeCounts::default();
        for number in 0..100 {
            counts.failed(&format!("status {number}"), 1);
        }
        assert_eq!(counts.failures, 100);
        assert_eq!(counts.reasons.values().sum::<u64>(), 100);
        assert_eq!(counts.reasons.len(), limits::SIGNAL_REASONS_MAX + 1);
    }

    #[test]
    fn sums_that_no_sidecar_can_have_counted_do_not_overflow_those_of_others() {
        let most = proto::EdgeCounts {
            requests: u64::MAX,
            failures: u64::MAX,
            latency_micros: u64::MAX,
            latency: Some(proto::Durations {
                gaps: vec![u32::MAX, u32::MAX, 3],
                counts: vec![u32::MAX; 3],
            }),
            ..proto::EdgeCounts::default()
        };
        let mut sum = EdgeCounts::default();
        for _ in 0..1000 {
            sum.merge(&most.clone().into());
        }
        assert_eq!(sum.requests, 1000 * limits::SIGNAL_SUM_MAX);
        assert!(sum.latency.is_empty());
    }
}

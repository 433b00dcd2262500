//! The counts that a sidecar keeps of its calls. The catalogue of `weft_transport::metrics` has names, labels
//! and meanings.
//!
//! Each worker has a [`Shard`] that only it writes, so a request costs one uncontended lock; the admin
//! endpoint merges the shards when it is scraped. Label sets are bounded: after [`limits::METRIC_SERIES_MAX`]
//! of them, new ones share the series `other`.

mod exposition;
mod minute;
mod parts;
mod untold;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weft_config::signals::EdgeCounts;
use weft_transport::guards::Guards;
use weft_transport::lag::Lag;
pub(crate) use weft_transport::locks::lock;

use crate::limits;
use crate::outbound::intake::Intake;
use crate::record::{Finished, Observer};

pub(crate) use exposition::expose;
pub(crate) use minute::{Minute, Tallies, Tally, totals};
use parts::{Histogram, Parts};

/// From which side of the mesh a sidecar sees a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// The application called.
    Outbound,
    /// A peer called the application.
    Inbound,
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// The labels by which calls are counted. Principals are SPIFFE IDs, services `name.namespace:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Labels {
    pub(crate) direction: Direction,
    /// The caller's service, without a port; empty if its identity does not name one.
    pub(crate) source_service: Arc<str>,
    pub(crate) source_principal: Arc<str>,
    pub(crate) destination_service: Arc<str>,
    pub(crate) destination_principal: Arc<str>,
    pub(crate) route: Arc<str>,
}

impl Labels {
    fn other(direction: Direction) -> Self {
        let other: Arc<str> = Arc::from("other");
        Self {
            direction,
            source_service: Arc::clone(&other),
            source_principal: Arc::clone(&other),
            destination_service: Arc::clone(&other),
            destination_principal: Arc::clone(&other),
            route: other,
        }
    }
}

/// A series with its own labels, which logs show even if the series is `other`.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) labels: Labels,
    pub(crate) series: Series,
    /// The address of a caller that proved no identity: only logs show it.
    pub(crate) source: Option<IpAddr>,
    parts: Arc<Parts>,
}

impl Counted {
    /// The same series, with labels that only logs show.
    pub(crate) fn named(&self, labels: Labels) -> Self {
        let (series, parts) = (self.series.clone(), Arc::clone(&self.parts));
        Self {
            labels,
            series,
            source: self.source,
            parts,
        }
    }

    /// The same series, for a caller at that address.
    pub(crate) fn of_source(&self, source: IpAddr) -> Self {
        Self {
            source: Some(source),
            ..self.named(self.labels.clone())
        }
    }
}

impl Observer for Counted {
    fn observe(&self, finished: &Finished<'_>) {
        let outcome = finished.outcome;
        match &self.series {
            Series::Requests(series) => {
                series.count(outcome, finished.duration());
                untold::count(&mut lock(&series.untold), finished);
            }
            Series::Tunnels(series) => series.end(finished.record.status == 200, outcome.error),
        }
        self.parts.count(finished);
    }
}

/// Requests and tunnels have different counters.
#[derive(Clone, Debug)]
pub(crate) enum Series {
    Requests(Arc<RequestSeries>),
    Tunnels(Arc<TunnelSeries>),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// HTTP status; 0 where there was none.
    pub(crate) status: u16,
    /// RFC 9209 token; empty if the mesh did not fail.
    pub(crate) error: &'static str,
    /// The `classification` label.
    pub(crate) failed: bool,
}

/// The counts of one label set on one worker.
#[derive(Debug, Default)]
pub(crate) struct RequestSeries {
    counts: Mutex<RequestCounts>,
    /// What the config service has not been told yet.
    untold: Mutex<EdgeCounts>,
}

/// See [`RequestSeries`].
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestCounts {
    pub(crate) outcomes: Vec<(Outcome, u64)>,
    pub(crate) durations: Histogram,
}

impl RequestSeries {
    /// Counts one call.
    pub(crate) fn count(&self, outcome: Outcome, duration: Duration) {
        let mut counts = lock(&self.counts);
        // Statuses and tokens are few, but a hostile application could send all 900 statuses.
        let room = counts.outcomes.len() < limits::METRIC_OUTCOMES_MAX;
        match counts.outcomes.iter_mut().find(|(one, _)| *one == outcome) {
            Some((_, count)) => *count += 1,
            None if room => counts.outcomes.push((outcome, 1)),
            None => {}
        }
        counts.durations.add(duration);
    }
}

/// The counts of one kind of tunnel on one worker.
#[derive(Debug, Default)]
pub(crate) struct TunnelSeries {
    pub(crate) opened: AtomicU64,
    pub(crate) closed: AtomicU64,
    /// From the caller to the service; counted as they pass.
    pub(crate) sent: AtomicU64,
    /// From the service to the caller.
    pub(crate) received: AtomicU64,
    pub(crate) failed: Mutex<HashMap<&'static str, u64>>,
    /// What the config service has been told.
    told: Mutex<TunnelTotals>,
}

/// See [`TunnelSeries`].
#[derive(Debug, Default)]
struct TunnelTotals {
    opened: u64,
    closed: u64,
    sent: u64,
    received: u64,
    failed: HashMap<&'static str, u64>,
}

impl TunnelSeries {
    /// Counts a tunnel that both sides accepted.
    pub(crate) fn open(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether any tunnel was ever counted here.
    fn is_used(&self) -> bool {
        self.opened.load(Ordering::Relaxed) > 0 || !lock(&self.failed).is_empty()
    }

    /// What came since this was called last.
    fn take_untold(&self) -> EdgeCounts {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let mut told = lock(&self.told);
        let now = TunnelTotals {
            opened: read(&self.opened),
            closed: read(&self.closed),
            sent: read(&self.sent),
            received: read(&self.received),
            failed: lock(&self.failed).clone(),
        };
        let before = std::mem::replace(&mut *told, now);
        let mut counts = EdgeCounts {
            opened: told.opened - before.opened,
            closed: told.closed - before.closed,
            sent: told.sent - before.sent,
            received: told.received - before.received,
            ..EdgeCounts::default()
        };
        for (reason, count) in &told.failed {
            let more = count - before.failed.get(reason).copied().unwrap_or_default();
            if more > 0 {
                counts.failed(reason, more);
            }
        }
        counts
    }

    /// Counts the end of a tunnel that was `opened`, or that failed to open. `error` is empty if both sides
    /// closed.
    pub(crate) fn end(&self, opened: bool, error: &'static str) {
        if opened {
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
        if !error.is_empty() {
            *lock(&self.failed).entry(error).or_default() += 1;
        }
    }
}

/// The authorisation of a call that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It may be delivered.
    Allow,
    /// It may not.
    Deny,
    /// A policy asks for the call to be counted.
    Audit,
}

impl Decision {
    const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::Audit];

    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }
}

/// One worker's counts.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    requests: Mutex<HashMap<Labels, Arc<RequestSeries>>>,
    tunnels: Mutex<HashMap<Labels, Arc<TunnelSeries>>>,
    /// How long attempts took.
    parts: Arc<Parts>,
    /// By policy; parallel to [`Decision::ALL`].
    decisions: Mutex<[HashMap<Box<str>, u64>; 3]>,
    /// Of peers that dialled us, by result.
    handshakes: Mutex<HashMap<&'static str, u64>>,
    /// Changes of address of peers that dialled us, seen when they next ask for something.
    pub(crate) migrations: AtomicU64,
    /// Actions against peers that dialled this sidecar and went beyond a limit of HTTP/3.
    pub(crate) guards: Guards,
    /// The state of the worker.
    pub(crate) lag: Lag,
    /// The share of the application's requests that it takes in.
    pub(crate) intake: Arc<Intake>,
    /// Access-log lines that were over the rate.
    pub(crate) log_suppressed: AtomicU64,
    /// Requests that left the mesh without an ExternalService.
    pub(crate) egress_observed: AtomicU64,
    /// Access-log lines that the writer had no room for.
    pub(crate) log_dropped: AtomicU64,
}

impl Shard {
    /// The series of a label set. Callers keep it: this takes a lock and hashes.
    pub(crate) fn requests(&self, labels: Labels) -> Arc<Counted> {
        let series = series(&self.requests, &labels);
        Arc::new(Counted {
            labels,
            source: None,
            series: Series::Requests(series),
            parts: Arc::clone(&self.parts),
        })
    }

    /// As [`Shard::requests`], for tunnels.
    pub(crate) fn tunnels(&self, labels: Labels) -> Arc<Counted> {
        let series = series(&self.tunnels, &labels);
        Arc::new(Counted {
            labels,
            source: None,
            series: Series::Tunnels(series),
            parts: Arc::clone(&self.parts),
        })
    }

    /// Counts an authorisation decision. `policy` is empty if the default decided.
    pub(crate) fn decision(&self, decision: Decision, policy: &str) {
        let mut decisions = lock(&self.decisions);
        let counts = &mut decisions[decision as usize];
        // Called for each request: an entry, and with it a copy of the name, is made only the first time.
        if let Some(count) = counts.get_mut(policy) {
            *count += 1;
            return;
        }
        let room = counts.len() < limits::METRIC_SERIES_MAX;
        *counts
            .entry(if room { policy } else { "other" }.into())
            .or_default() += 1;
    }

    /// Takes what the config service has not been told yet, by label set.
    pub(crate) fn take_untold(&self, mut take: impl FnMut(&Labels, EdgeCounts)) {
        let mut told = |labels: &Labels, counts: EdgeCounts| {
            if !counts.is_empty() {
                take(labels, counts);
            }
        };
        for (labels, series) in lock(&self.requests).iter() {
            let counts = std::mem::take(&mut *lock(&series.untold));
            told(labels, counts);
        }
        for (labels, series) in lock(&self.tunnels).iter() {
            told(labels, series.take_untold());
        }
    }

    /// Counts a handshake that a peer began. Results are few names of the transport.
    pub(crate) fn handshake(&self, result: &'static str) {
        *lock(&self.handshakes).entry(result).or_default() += 1;
    }
}

fn series<S: Default>(map: &Mutex<HashMap<Labels, Arc<S>>>, labels: &Labels) -> Arc<S> {
    let mut map = lock(map);
    if let Some(series) = map.get(labels) {
        return Arc::clone(series);
    }
    let labels = if map.len() < limits::METRIC_SERIES_MAX {
        labels.clone()
    } else {
        Labels::other(labels.direction)
    };
    Arc::clone(map.entry(labels).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(service: &str) -> Labels {
        Labels {
            destination_service: Arc::from(service),
            ..Labels::other(Direction::Outbound)
        }
    }

    #[test]
    fn label_sets_beyond_the_bound_share_one_series() {
        let shard = Shard::default();
        for number in 0..limits::METRIC_SERIES_MAX {
            shard.requests(labels(&number.to_string()));
        }
        let (one, two) = (shard.requests(labels("a")), shard.requests(labels("b")));
        let (Series::Requests(one), Series::Requests(two)) = (&one.series, &two.series) else {
            panic!()
        };
        assert!(Arc::ptr_eq(one, two));
        assert!(lock(&shard.requests).len() <= limits::METRIC_SERIES_MAX + 1);
    }
}

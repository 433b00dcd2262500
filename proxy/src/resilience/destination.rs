//! What all workers of a sidecar share about one port of a service: its retry budget, and counts of what
//! resilience did. Pure but for one lock, which is taken when a table comes or metrics are read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use weft_config::table::RetryBudget;

use super::attempts::{Next, Why};
use super::budget::Budget;
use super::retry::Trouble;
use crate::metrics::lock;

/// One port of a service, as `orders.shop:80`.
#[derive(Debug)]
pub(crate) struct Destination {
    /// Shared by retries and hedges.
    pub(crate) budget: Budget,
    /// What happened.
    pub(crate) counts: Arc<Counts>,
}

/// All destinations that a table named.
#[derive(Debug, Default)]
pub(crate) struct Destinations(Mutex<BTreeMap<Arc<str>, Arc<Destination>>>);

/// What resilience did; the table below says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(
    dead_code,
    reason = "hedges, faults and rate limits report here as well"
)]
pub(crate) enum Event {
    RetriedNotReached,
    RetriedUnprocessed,
    RetriedReset,
    RetriedTimeout,
    RetriedStatus,
    RetriedGrpc,
    WithheldAttempts,
    WithheldBudget,
    WithheldDeadline,
    WithheldTold,
    WithheldBody,
    Recovered,
    NotRecovered,
    EjectedConsecutive,
    EjectedSuccessRate,
    ObservedConsecutive,
    ObservedSuccessRate,
    Returned,
    HedgeSent,
    HedgeWon,
    HedgeWithheld,
    FaultDelay,
    FaultAbort,
    FailedOver,
    RefusedFixed,
    RefusedAdaptive,
    RefusedShare,
    RefusedRate,
    RefusedCallerRate,
    ObservedFixed,
    ObservedAdaptive,
    ObservedShare,
    ObservedRate,
    ObservedCallerRate,
    RefusedStreams,
    OverrideTaken,
    OverrideForbidden,
    OverrideInvalid,
    ResentGoAway,
    ResentRefused,
    ResentClosed,
    ResentUnanswered,
    WaitedApplicationStreams,
    WaitedApplicationConnections,
    RefusedApplicationStreams,
    RefusedApplicationConnections,
    AdaptiveActs,
}

impl Event {
    /// What is to be counted about the step after an attempt, if anything is.
    pub(crate) fn of(next: &Next, trouble: Trouble) -> Option<Self> {
        Some(match (next, trouble) {
            (Next::End, _) => return None,
            (Next::Withheld(Why::Attempts), _) => Self::WithheldAttempts,
            (Next::Withheld(Why::Budget), _) => Self::WithheldBudget,
            (Next::Withheld(Why::Deadline), _) => Self::WithheldDeadline,
            (Next::Withheld(Why::Told), _) => Self::WithheldTold,
            (Next::Withheld(Why::Body), _) => Self::WithheldBody,
            (Next::Again(_), Trouble::NotReached) => Self::RetriedNotReached,
            (Next::Again(_), Trouble::Unprocessed) => Self::RetriedUnprocessed,
            (Next::Again(_), Trouble::Broken) => Self::RetriedReset,
            (Next::Again(_), Trouble::TooSlow) => Self::RetriedTimeout,
            (Next::Again(_), Trouble::Status(_)) => Self::RetriedStatus,
            (Next::Again(_), Trouble::Grpc(_)) => Self::RetriedGrpc,
        })
    }
}

/// A counter's name, what it counts, and the label pairs beside `destination_service`.
pub(crate) struct Meaning {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) labels: &'static [(&'static str, &'static str)],
}

const RETRIES: (&str, &str) = (
    "weft_retries_total",
    "Attempts after the first, by what was wrong with the one before.",
);
const WITHHELD: (&str, &str) = (
    "weft_retries_withheld_total",
    "Retries that the policy would have made, by why they were not.",
);
const RETRIED: (&str, &str) = (
    "weft_requests_retried_total",
    "Requests that took more than one attempt, by how they ended: without retries all would have failed.",
);
const EJECTIONS: (&str, &str) = (
    "weft_lb_ejections_total",
    "Endpoints taken out of rotation, by cause; with mode observe those that would have been.",
);
const OVERLOAD: (&str, &str) = (
    "weft_overload_total",
    "Requests over a limit of the serving sidecar (streams: what it lets this one open; application_streams and application_connections: what its application has room for), or of a route's caller: refused, or observed.",
);
const HEDGES: (&str, &str) = (
    "weft_hedges_total",
    "Copies of slow requests: sent, first to answer, or withheld by the retry budget.",
);
const OVERRIDES: (&str, &str) = (
    "weft_overrides_total",
    "Requests with override headers: taken, or forbidden by the policy; and single headers that made no sense.",
);
const RESENT: (&str, &str) = (
    "weft_application_resends_total",
    "Requests that were sent to the application again: it had not processed them, or its connection ended without a byte of an answer to a request that it may see twice.",
);
const WAITED: (&str, &str) = (
    "weft_application_waits_total",
    "Requests that waited for a stream of the application's HTTP/2 connections, or for a place for a connection.",
);
const FAULTS: (&str, &str) = ("weft_faults_total", "Faults injected on purpose.");

/// Parallel to [`Event`].
const MEANINGS: [Meaning; 47] = [
    of(RETRIES, &[("reason", "not_reached")]),
    of(RETRIES, &[("reason", "unprocessed")]),
    of(RETRIES, &[("reason", "reset")]),
    of(RETRIES, &[("reason", "timeout")]),
    of(RETRIES, &[("reason", "status")]),
    of(RETRIES, &[("reason", "grpc_status")]),
    of(WITHHELD, &[("reason", "attempts")]),
    of(WITHHELD, &[("reason", "budget")]),
    of(WITHHELD, &[("reason", "deadline")]),
    of(WITHHELD, &[("reason", "told")]),
    of(WITHHELD, &[("reason", "body")]),
    of(RETRIED, &[("result", "recovered")]),
    of(RETRIED, &[("result", "failed")]),
    of(
        EJECTIONS,
        &[("cause", "consecutive_failures"), ("mode", "enforce")],
    ),
    of(EJECTIONS, &[("cause", "success_rate"), ("mode", "enforce")]),
    of(
        EJECTIONS,
        &[("cause", "consecutive_failures"), ("mode", "observe")],
    ),
    of(EJECTIONS, &[("cause", "success_rate"), ("mode", "observe")]),
    of(
        (
            "weft_lb_returns_total",
            "Endpoints that came back into rotation because a request to them succeeded.",
        ),
        &[],
    ),
    of(HEDGES, &[("result", "sent")]),
    of(HEDGES, &[("result", "won")]),
    of(HEDGES, &[("result", "withheld")]),
    of(FAULTS, &[("kind", "delay")]),
    of(FAULTS, &[("kind", "abort")]),
    of(
        (
            "weft_failovers_total",
            "Requests that went to the failover service because no endpoint of this one was in rotation.",
        ),
        &[],
    ),
    of(OVERLOAD, &[("limit", "fixed"), ("mode", "enforce")]),
    of(OVERLOAD, &[("limit", "adaptive"), ("mode", "enforce")]),
    of(OVERLOAD, &[("limit", "share"), ("mode", "enforce")]),
    of(OVERLOAD, &[("limit", "rate"), ("mode", "enforce")]),
    of(OVERLOAD, &[("limit", "caller_rate"), ("mode", "enforce")]),
    of(OVERLOAD, &[("limit", "fixed"), ("mode", "observe")]),
    of(OVERLOAD, &[("limit", "adaptive"), ("mode", "observe")]),
    of(OVERLOAD, &[("limit", "share"), ("mode", "observe")]),
    of(OVERLOAD, &[("limit", "rate"), ("mode", "observe")]),
    of(OVERLOAD, &[("limit", "caller_rate"), ("mode", "observe")]),
    of(OVERLOAD, &[("limit", "streams"), ("mode", "enforce")]),
    of(OVERRIDES, &[("result", "taken")]),
    of(OVERRIDES, &[("result", "forbidden")]),
    of(OVERRIDES, &[("result", "invalid")]),
    of(RESENT, &[("reason", "goaway")]),
    of(RESENT, &[("reason", "refused_stream")]),
    of(RESENT, &[("reason", "closed")]),
    of(RESENT, &[("reason", "unanswered")]),
    of(WAITED, &[("reason", "streams")]),
    of(WAITED, &[("reason", "connections")]),
    of(
        OVERLOAD,
        &[("limit", "application_streams"), ("mode", "enforce")],
    ),
    of(
        OVERLOAD,
        &[("limit", "application_connections"), ("mode", "enforce")],
    ),
    of(
        (
            "weft_overload_acts_total",
            "Times that the adaptive limit of a served service began to act, because its application was overloaded.",
        ),
        &[],
    ),
];

const fn of(
    (name, help): (&'static str, &'static str),
    labels: &'static [(&'static str, &'static str)],
) -> Meaning {
    Meaning { name, help, labels }
}

/// Counts of one destination.
#[derive(Debug)]
pub(crate) struct Counts([AtomicU64; MEANINGS.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; MEANINGS.len()])
    }
}

impl Counts {
    /// It happened once more.
    pub(crate) fn add(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    #[cfg(test)]
    pub(crate) fn get(&self, event: Event) -> u64 {
        self.0[event as usize].load(Ordering::Relaxed)
    }

    /// Every count with what it means.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Meaning, u64)> {
        MEANINGS
            .iter()
            .zip(&self.0)
            .map(|(meaning, count)| (meaning, count.load(Ordering::Relaxed)))
    }
}

impl Destinations {
    /// The destination of that name, made at the first time or when the budget's interval changed.
    pub(crate) fn get(
        &self,
        label: &Arc<str>,
        policy: &RetryBudget,
        now: Instant,
    ) -> Arc<Destination> {
        let mut all = lock(&self.0);
        let known = all.get(label);
        if let Some(known) = known.filter(|one| one.budget.interval() == policy.interval) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(Destination {
            budget: Budget::new(policy.interval, now),
            counts: known.map(|one| Arc::clone(&one.counts)).unwrap_or_default(),
        });
        all.insert(Arc::clone(label), Arc::clone(&fresh));
        fresh
    }

    /// Forgets destinations that no snapshot of a worker holds any more.
    pub(crate) fn sweep(&self) {
        lock(&self.0).retain(|_, one| Arc::strong_count(one) > 1);
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<(Arc<str>, Arc<Destination>)> {
        let all = lock(&self.0);
        let both =
            |(label, one): (&Arc<str>, &Arc<Destination>)| (Arc::clone(label), Arc::clone(one));
        all.iter().map(both).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn events_and_their_meanings_are_in_step() {
        let counts = Counts::default();
        counts.add(Event::ObservedCallerRate);
        counts.add(Event::FailedOver);
        let seen: Vec<_> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(meaning, _)| (meaning.name, meaning.labels))
            .collect();
        let observed: &[_] = &[("limit", "caller_rate"), ("mode", "observe")];
        assert_eq!(
            seen,
            [
                ("weft_failovers_total", &[][..]),
                ("weft_overload_total", observed)
            ]
        );
    }

    #[test]
    fn all_workers_share_a_destination_until_nobody_holds_it() {
        let destinations = Destinations::default();
        let (label, now): (Arc<str>, _) = (Arc::from("orders.shop:80"), Instant::now());
        let policy = RetryBudget::default();
        let one = destinations.get(&label, &policy, now);
        assert!(Arc::ptr_eq(&one, &destinations.get(&label, &policy, now)));
        one.counts.add(Event::Recovered);
        let other = RetryBudget {
            interval: Duration::from_secs(60),
            ..policy
        };
        let anew = destinations.get(&label, &other, now);
        assert_eq!(anew.counts.get(Event::Recovered), 1);
        drop((one, anew));
        destinations.sweep();
        assert!(destinations.all().is_empty());
    }
}

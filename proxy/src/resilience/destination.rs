//! The state that all workers of a sidecar share about one port of a service: its retry budget, and counts of
//! retries, hedges and ejections. Pure except for locks, which are taken when a table comes or metrics are
//! read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use weft_config::table::{RetryBudget, RouteRule, Router};
use weft_transport::locks::lock;
use weft_transport::metrics::{
    ADAPTIVE_ACTS, EJECTIONS, FAILOVERS, FAULTS, FILTERED, HEDGES, MIRRORED, Metric, OVERLOAD,
    OVERRIDES, RESENT, RETRIED, RETRIES, RETRIES_WITHHELD, RETURNS, SESSION_TOKENS_IGNORED,
    SESSIONS, WAITED,
};

use super::attempts::{Next, WithheldReason};
use super::budget::Budget;
use super::retry::RetryCause;

/// One port of a service, as `orders.shop:80`.
#[derive(Debug)]
pub(crate) struct Destination {
    /// Shared by retries and hedges.
    pub(crate) budget: Budget,
    /// An event to count.
    pub(crate) counts: Arc<Counts>,
    /// The router of its routes, while a snapshot of a worker holds it.
    router: Mutex<Weak<Router>>,
}

impl Destination {
    /// The router of these rules. All workers share one, and tables that differ in other things: making it
    /// compiles regular expressions.
    pub(crate) fn router(&self, rules: &[RouteRule]) -> Arc<Router> {
        let mut known = lock(&self.router);
        let same = known.upgrade().filter(|router| router.is_of(rules));
        same.unwrap_or_else(|| {
            let router = Arc::new(Router::new(rules));
            *known = Arc::downgrade(&router);
            router
        })
    }
}

/// All destinations that a table named.
#[derive(Debug, Default)]
pub(crate) struct Destinations(Mutex<BTreeMap<Arc<str>, Arc<Destination>>>);

/// The events of resilience; the table below says what each means.
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
    MirrorAnswered,
    MirrorFailed,
    MirrorCrowded,
    MirrorBody,
    MirrorFailing,
    SessionStarted,
    SessionKept,
    SessionMovedGone,
    SessionMovedOut,
    SessionMovedFailed,
    TokenMalformed,
    TokenUnauthentic,
    TokenExpired,
    FilterCors,
    FilterRedirect,
    FilterRequestHeaders,
    FilterRewrite,
    FilterMirror,
    FilterResponseHeaders,
}

impl Event {
    /// The first label of its metric after that of the destination: logs call it the same.
    pub(crate) fn label(self) -> &'static str {
        let (_, labels) = MEANINGS[self as usize];
        labels.first().copied().unwrap_or_default()
    }

    /// The event to count for the step after an attempt, if there is one.
    pub(crate) fn of(next: &Next, cause: RetryCause) -> Option<Self> {
        Some(match (next, cause) {
            (Next::End, _) => return None,
            (Next::Withheld(WithheldReason::Attempts), _) => Self::WithheldAttempts,
            (Next::Withheld(WithheldReason::Budget), _) => Self::WithheldBudget,
            (Next::Withheld(WithheldReason::Deadline), _) => Self::WithheldDeadline,
            (Next::Withheld(WithheldReason::Told), _) => Self::WithheldTold,
            (Next::Withheld(WithheldReason::Body), _) => Self::WithheldBody,
            (Next::Retry(_), RetryCause::NotReached) => Self::RetriedNotReached,
            (Next::Retry(_), RetryCause::Unprocessed) => Self::RetriedUnprocessed,
            (Next::Retry(_), RetryCause::Broken) => Self::RetriedReset,
            (Next::Retry(_), RetryCause::TooSlow) => Self::RetriedTimeout,
            (Next::Retry(_), RetryCause::Status(_)) => Self::RetriedStatus,
            (Next::Retry(_), RetryCause::Grpc(_)) => Self::RetriedGrpc,
        })
    }
}

/// A counter, and its labels after that of the destination.
type Meaning = (&'static Metric, &'static [&'static str]);

/// Parallel to [`Event`].
const MEANINGS: [Meaning; 66] = [
    (&RETRIES, &["not_reached"]),
    (&RETRIES, &["unprocessed"]),
    (&RETRIES, &["reset"]),
    (&RETRIES, &["timeout"]),
    (&RETRIES, &["status"]),
    (&RETRIES, &["grpc_status"]),
    (&RETRIES_WITHHELD, &["attempts"]),
    (&RETRIES_WITHHELD, &["budget"]),
    (&RETRIES_WITHHELD, &["deadline"]),
    (&RETRIES_WITHHELD, &["told"]),
    (&RETRIES_WITHHELD, &["body"]),
    (&RETRIED, &["recovered"]),
    (&RETRIED, &["failed"]),
    (&EJECTIONS, &["consecutive_failures", "enforce"]),
    (&EJECTIONS, &["success_rate", "enforce"]),
    (&EJECTIONS, &["consecutive_failures", "observe"]),
    (&EJECTIONS, &["success_rate", "observe"]),
    (&RETURNS, &[]),
    (&HEDGES, &["sent"]),
    (&HEDGES, &["won"]),
    (&HEDGES, &["withheld"]),
    (&FAULTS, &["delay"]),
    (&FAULTS, &["abort"]),
    (&FAILOVERS, &[]),
    (&OVERLOAD, &["fixed", "enforce"]),
    (&OVERLOAD, &["adaptive", "enforce"]),
    (&OVERLOAD, &["share", "enforce"]),
    (&OVERLOAD, &["rate", "enforce"]),
    (&OVERLOAD, &["caller_rate", "enforce"]),
    (&OVERLOAD, &["fixed", "observe"]),
    (&OVERLOAD, &["adaptive", "observe"]),
    (&OVERLOAD, &["share", "observe"]),
    (&OVERLOAD, &["rate", "observe"]),
    (&OVERLOAD, &["caller_rate", "observe"]),
    (&OVERLOAD, &["streams", "enforce"]),
    (&OVERRIDES, &["taken"]),
    (&OVERRIDES, &["forbidden"]),
    (&OVERRIDES, &["invalid"]),
    (&RESENT, &["goaway"]),
    (&RESENT, &["refused_stream"]),
    (&RESENT, &["closed"]),
    (&RESENT, &["unanswered"]),
    (&WAITED, &["streams"]),
    (&WAITED, &["connections"]),
    (&OVERLOAD, &["application_streams", "enforce"]),
    (&OVERLOAD, &["application_connections", "enforce"]),
    (&ADAPTIVE_ACTS, &[]),
    (&MIRRORED, &["answered"]),
    (&MIRRORED, &["failed"]),
    (&MIRRORED, &["crowded"]),
    (&MIRRORED, &["body"]),
    (&MIRRORED, &["failing"]),
    (&SESSIONS, &["started"]),
    (&SESSIONS, &["kept"]),
    (&SESSIONS, &["moved_gone"]),
    (&SESSIONS, &["moved_out"]),
    (&SESSIONS, &["moved_failed"]),
    (&SESSION_TOKENS_IGNORED, &["malformed"]),
    (&SESSION_TOKENS_IGNORED, &["unauthentic"]),
    (&SESSION_TOKENS_IGNORED, &["expired"]),
    (&FILTERED, &["CORS"]),
    (&FILTERED, &["RequestRedirect"]),
    (&FILTERED, &["RequestHeaderModifier"]),
    (&FILTERED, &["URLRewrite"]),
    (&FILTERED, &["RequestMirror"]),
    (&FILTERED, &["ResponseHeaderModifier"]),
];

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

    /// How often the event happened.
    #[cfg(test)]
    pub(crate) fn get(&self, event: Event) -> u64 {
        self.0[event as usize].load(Ordering::Relaxed)
    }

    /// Every count with what it means.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Meaning, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        MEANINGS.into_iter().zip(counts)
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
            router: Mutex::default(),
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
            .map(|((metric, labels), _)| (metric.name(), labels))
            .collect();
        let observed: &[_] = &["caller_rate", "observe"];
        assert_eq!(
            seen,
            [
                ("weft_failovers_total", &[][..]),
                ("weft_overload_total", observed)
            ]
        );
        assert_eq!(
            Event::FilterResponseHeaders.label(),
            "ResponseHeaderModifier"
        );
        for ((metric, labels), count) in counts.iter() {
            let all = [&["orders.shop:80"], labels].concat();
            let _ = metric.sample(&all, count as f64);
        }
    }

    #[test]
    fn all_workers_share_a_destination_until_none_holds_it() {
        let destinations = Destinations::default();
        let (label, now): (Arc<str>, _) = (Arc::from("orders.shop:80"), Instant::now());
        let policy = RetryBudget::default();
        let one = destinations.get(&label, &policy, now);
        assert!(Arc::ptr_eq(&one, &destinations.get(&label, &policy, now)));
        one.counts.add(Event::Recovered);
        let rules = [RouteRule::default()];
        let router = one.router(&rules);
        assert!(Arc::ptr_eq(&router, &one.router(&rules)));
        assert!(!Arc::ptr_eq(&router, &one.router(&[])));
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

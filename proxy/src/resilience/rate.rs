//! Rate limits of one sidecar over all its workers: token buckets, remade when the policy changes. A lock is
//! taken only if a policy sets limits.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use weft_config::table::{Mode, RateLimit};
use weft_transport::locks::lock;

use crate::limits;

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The buckets of one set of limits.
pub(crate) struct Rates<C: Clock = DefaultClock> {
    clock: C,
    buckets: Mutex<Buckets<C>>,
}

struct Buckets<C: Clock> {
    /// The policy for which they were made.
    of: Vec<RateLimit>,
    buckets: Vec<Bucket<C>>,
}

/// What the limits decide about one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// A limit that is enforced has no room.
    pub(crate) refused: bool,
    /// A limit that only observes has no room.
    pub(crate) observed: bool,
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(DefaultClock::default())
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn new(clock: C) -> Self {
        Self {
            clock,
            buckets: Mutex::new(Buckets {
                of: Vec::new(),
                buckets: Vec::new(),
            }),
        }
    }

    /// Takes a token from each bucket that has one.
    pub(crate) fn take(&self, limits: &[RateLimit]) -> Verdict {
        let mut buckets = lock(&self.buckets);
        if buckets.of != limits {
            let fresh = limits.iter().map(|limit| bucket(limit, &self.clock));
            buckets.buckets = fresh.collect();
            buckets.of = limits.to_vec();
        }
        let mut verdict = Verdict::default();
        for (limit, bucket) in limits.iter().zip(&buckets.buckets) {
            if bucket.check().is_err() {
                match limit.mode {
                    Mode::Enforce => verdict.refused = true,
                    Mode::Observe => verdict.observed = true,
                }
            }
        }
        verdict
    }
}

/// Buckets by name: of callers, or of routes.
#[derive(Default)]
pub(crate) struct NamedRates(Mutex<HashMap<Box<str>, Arc<Rates>>>);

impl NamedRates {
    /// As [`Rates::take`], from the buckets of this name. Beyond [`limits::RATE_NAMES_MAX`] of them, new
    /// names share one set.
    pub(crate) fn take(&self, name: &str, limits: &[RateLimit]) -> Verdict {
        let rates = {
            let mut all = lock(&self.0);
            let room = all.len() < limits::RATE_NAMES_MAX;
            match all.get(name) {
                Some(known) => Arc::clone(known),
                None => Arc::clone(all.entry(if room { name } else { "" }.into()).or_default()),
            }
        };
        rates.take(limits)
    }
}

fn bucket<C: Clock + Clone>(limit: &RateLimit, clock: &C) -> Bucket<C> {
    let at_least_one = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    let requests = at_least_one(limit.requests);
    let each = (limit.per / requests.get()).min(limits::RATE_BUCKET_FILLS_WITHIN);
    let most = limits::RATE_BUCKET_FILLS_WITHIN.as_nanos() / each.as_nanos().max(1);
    let burst = limit.burst.min(u32::try_from(most).unwrap_or(u32::MAX));
    let quota = Quota::with_period(each)
        // Only a period of zero has no quota; the policy's range excludes it.
        .unwrap_or(Quota::per_second(requests))
        .allow_burst(at_least_one(burst));
    RateLimiter::direct_with_clock(quota, clock.clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limit(requests: u32, burst: u32, mode: Mode) -> RateLimit {
        RateLimit {
            requests,
            per: Duration::from_secs(1),
            burst,
            mode,
        }
    }

    fn let_in(take: impl Fn() -> Verdict) -> usize {
        (0..1000).filter(|_| !take().refused).count()
    }

    #[test]
    fn a_bucket_that_takes_longer_to_fill_than_the_limiter_counts_is_full_at_first() {
        for (per, burst, passes) in [
            (Duration::from_secs(24 * 60 * 60), 10_000_000, 1000),
            (Duration::from_secs(u64::MAX), u32::MAX, 1),
        ] {
            let rates = Rates::new(FakeRelativeClock::default());
            let slow = RateLimit {
                per,
                ..limit(1, burst, Mode::Enforce)
            };
            let limits = [slow];
            assert_eq!(let_in(|| rates.take(&limits)), passes);
        }
    }

    #[test]
    fn a_burst_passes_and_then_what_flows_in() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::new(clock.clone());
        let limits = [limit(10, 20, Mode::Enforce)];
        assert_eq!(let_in(|| rates.take(&limits)), 20);
        clock.advance(Duration::from_secs(1));
        assert_eq!(let_in(|| rates.take(&limits)), 10);
        // A changed policy begins anew.
        assert_eq!(let_in(|| rates.take(&[limit(10, 5, Mode::Enforce)])), 5);
    }

    #[test]
    fn a_limit_that_observes_refuses_nothing() {
        let rates = Rates::new(FakeRelativeClock::default());
        let limits = [limit(1, 1, Mode::Observe)];
        assert_eq!(rates.take(&limits), Verdict::default());
        let second = rates.take(&limits);
        assert!(second.observed && !second.refused);
    }

    #[test]
    fn each_caller_has_its_own_tokens_up_to_a_number_of_callers() {
        let rates = NamedRates::default();
        // One token for the whole duration of the test.
        let mut slow = limit(1, 1, Mode::Enforce);
        slow.per = Duration::from_secs(3600);
        let limits = [slow];
        for name in ["a", "b"] {
            assert!(!rates.take(name, &limits).refused);
            assert!(rates.take(name, &limits).refused);
        }
        for name in 0..limits::RATE_NAMES_MAX {
            rates.take(&name.to_string(), &limits);
        }
        assert!(lock(&rates.0).len() <= limits::RATE_NAMES_MAX + 1);
    }
}

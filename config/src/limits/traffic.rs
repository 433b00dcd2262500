//! Defaults and ranges of traffic policy, each with its unit and reason. `Default` of
//! [`crate::table::Traffic`], made of these, holds in a sidecar without any policy.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::table::Percent;

/// Attempts after the first. Two reach a third endpoint; more only multiply an overload.
pub const RETRY_ATTEMPTS: u32 = 2;
/// Range of [`RETRY_ATTEMPTS`]: beyond ten, the back-off alone outlives every caller.
pub const RETRY_ATTEMPTS_RANGE: RangeInclusive<u32> = 0..=10;
/// Mean wait before the first retry, doubled for each further one: a few round trips in a data centre.
pub const RETRY_BACKOFF_BASE: Duration = Duration::from_millis(25);
/// Longest wait before a retry: people wait too, and the other endpoint probably works.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_millis(250);
/// Range of both waits.
pub const RETRY_BACKOFF_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(60);
/// Bytes of a request's body kept to send it again: calls of an API fit, uploads do not.
pub const RETRY_BODY_REPLAY: u32 = 64 << 10;
/// Range of [`RETRY_BODY_REPLAY`]: a worker keeps 16 MiB in all, so 16 of the largest.
pub const RETRY_BODY_REPLAY_RANGE: RangeInclusive<u32> = 0..=1 << 20;
/// Response codes of one policy that are retried: each request compares with all.
pub const RETRY_CODES_MAX: usize = 32;
/// Response statuses that may be retried (Gateway API, HTTPRouteRetry.codes).
pub const RETRY_CODES_RANGE: RangeInclusive<u16> = 400..=599;

/// Retries and hedges, as a share of the first attempts of [`RETRY_BUDGET_INTERVAL`]. With a failing service
/// at the end, a hop then sends at most 1.2 times the requests that it got.
pub const RETRY_BUDGET_PERCENT: Percent = Percent::whole(20);
/// The window of the budget: long enough to save up for a burst of failures, short enough to forget old
/// traffic.
pub const RETRY_BUDGET_INTERVAL: Duration = Duration::from_secs(10);
/// Range of [`RETRY_BUDGET_INTERVAL`].
pub const RETRY_BUDGET_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);
/// Retries per second that are always allowed, per sidecar and destination, so that a caller of few requests
/// may retry at all. It is low because it multiplies with the number of callers.
pub const RETRIES_PER_SECOND_MIN: u32 = 1;
/// Range of [`RETRIES_PER_SECOND_MIN`].
pub const RETRIES_PER_SECOND_RANGE: RangeInclusive<u32> = 0..=10_000;

/// Hedges of one request: with two copies the chance that both stall is small already.
pub const HEDGE_ATTEMPTS: u32 = 1;
/// Range of [`HEDGE_ATTEMPTS`].
pub const HEDGE_ATTEMPTS_RANGE: RangeInclusive<u32> = 0..=3;
/// Range of the delay before a hedge.
pub const HEDGE_AFTER_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(60);
/// Range of the percentile before a hedge: with less than the median, more than half of all requests would be
/// sent twice.
pub const HEDGE_PERCENTILE_RANGE: RangeInclusive<Percent> = Percent::whole(50)..=Percent(9990);

/// Range of every timeout of a request. Zero, which means none, is handled separately.
pub const TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);

/// Failures in a row that take an endpoint out: by chance a healthy one (1 % errors) needs 10^10 requests.
pub const BREAKER_CONSECUTIVE_FAILURES: u32 = 5;
/// Range of [`BREAKER_CONSECUTIVE_FAILURES`].
pub const BREAKER_CONSECUTIVE_FAILURES_RANGE: RangeInclusive<u32> = 1..=1_000_000;
/// Share of successes under which an endpoint is taken out: it catches an endpoint that fails half of the
/// time, and spares one whose failures are its callers' invalid requests.
pub const BREAKER_SUCCESS_PERCENT: Percent = Percent::whole(80);
/// Requests within [`BREAKER_INTERVAL`] before a share of successes is meaningful.
pub const BREAKER_REQUESTS_MIN: u32 = 20;
/// Range of [`BREAKER_REQUESTS_MIN`].
pub const BREAKER_REQUESTS_MIN_RANGE: RangeInclusive<u32> = 1..=1_000_000;
/// The window over which successes are counted, and so how late a half-broken endpoint is noticed.
pub const BREAKER_INTERVAL: Duration = Duration::from_secs(5);
/// Range of [`BREAKER_INTERVAL`].
pub const BREAKER_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);
/// How long an endpoint stays out the first time, doubled each further time: a restart takes about as long.
pub const BREAKER_EJECTION_BASE: Duration = Duration::from_secs(3);
/// How long it stays out at most, so that it is back within 30 s of its recovery.
pub const BREAKER_EJECTION_MAX: Duration = Duration::from_secs(20);
/// Range of both times out.
pub const BREAKER_EJECTION_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);
/// Share of a port's endpoints that may be out at once; the last one never is. With more out, the others
/// could not carry the load.
pub const BREAKER_EJECTED_PERCENT_MAX: Percent = Percent::whole(50);
/// Share of endpoints in rotation under which ejections are ignored: the cause is then not the endpoints.
/// Reached only if [`BREAKER_EJECTED_PERCENT_MAX`] was raised.
pub const BREAKER_PANIC_PERCENT: Percent = Percent::whole(50);

/// Range of requests in flight per inbound service. The default is the sidecar's own setting.
pub const CONCURRENCY_RANGE: RangeInclusive<u32> = 1..=1_000_000;
/// Header values of one priority.
pub const PRIORITY_VALUES_MAX: usize = 32;

/// Rate limits of one policy: each request takes from all.
pub const RATE_LIMITS_MAX: usize = 8;
/// Range of a rate limit's requests, and of its burst.
pub const RATE_LIMIT_REQUESTS_RANGE: RangeInclusive<u32> = 1..=10_000_000;
/// Range of the time over which a rate limit counts.
pub const RATE_LIMIT_PER_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);

/// Range of an injected delay.
pub const FAULT_DELAY_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(300);
/// Statuses that an injected abort may answer.
pub const FAULT_STATUS_RANGE: RangeInclusive<u16> = 200..=599;

/// Time over which a new endpoint grows to its full share. Off: an endpoint that is slow at first gets fewer
/// requests by its latency already.
pub const SLOW_START: Duration = Duration::ZERO;
/// Range of [`SLOW_START`].
pub const SLOW_START_RANGE: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(15 * 60);

/// Callers of one policy that may override it.
pub const OVERRIDE_CALLERS_MAX: usize = 64;
/// Targets of one policy.
pub const TARGETS_MAX: usize = 64;

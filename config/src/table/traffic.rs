//! How requests and connections to a service are treated: timeouts, balancing, retries, breakers, limits.
//! Every value is the one in force; the compiler has chosen the policy of each, so that a sidecar never
//! merges.
//!
//! Values for one request ([`RequestTraffic`]) belong to the service or route that was addressed; values for
//! endpoints and their service ([`Traffic`]) belong to the backend that was chosen.
//!
//! A group that equals its default is not written: a default is part of the table's schema.

mod durations;
mod values;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ServiceName;
use crate::limits::traffic as limits;
use durations::duration;
pub(super) use durations::optional_duration;

pub use values::{
    GrpcCode, HedgeAfter, HedgeAfterError, IdentityPattern, IdentityPatternError, Percent,
    PercentError, UnknownGrpcCode,
};

/// What holds for one port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// For requests that address this port and that no route takes.
    #[serde(skip_serializing_if = "is_default")]
    pub request: Arc<RequestTraffic>,
    /// How callers choose among the endpoints of this port.
    #[serde(skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// How many retries and hedges a caller may send to this port.
    #[serde(skip_serializing_if = "is_default")]
    pub retry_budget: RetryBudget,
    /// When callers leave an endpoint of this port out.
    #[serde(skip_serializing_if = "is_default")]
    pub breaker: Breaker,
    /// Where callers go when no endpoint of this port is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// How many requests or connections the serving sidecar lets through at once.
    #[serde(skip_serializing_if = "is_default")]
    pub concurrency: Concurrency,
    /// Limits of the serving sidecar over all callers; each must have room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// Limits of the serving sidecar for each caller's identity; each must have room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caller_rate_limits: Vec<RateLimit>,
}

/// What holds for one request, in the sidecar of its caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestTraffic {
    /// How long it may take.
    #[serde(skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// When it is sent again.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: Retry,
    /// When a second copy is sent before the first has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Faults that are injected on purpose.
    #[serde(skip_serializing_if = "is_default")]
    pub fault: Fault,
    /// How important it is where the serving sidecar must refuse some. The priority that
    /// [`Concurrency::priority`] reads from the request comes first.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// Limits of the calling sidecar for all requests that the route takes. Empty without a route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// Who may override these values by request headers.
    #[serde(skip_serializing_if = "is_default")]
    pub overrides: Overrides,
}

/// How long a request may take. None of these bounds a stream whose end its caller does not wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// From the request's head to the response's end, all attempts together. None by default: a total
    /// breaks uploads and long polls.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt, from its request's head to its response's end.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
    /// Time in which nothing moves, after which a stream is reset. Without it the setting
    /// `timeouts.stream_idle` of each sidecar holds.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<Duration>,
}

/// When a request is sent again, after the first attempt failed. One that the peer never processed (the
/// connection failed, the stream was refused) always may be; all of it within the [`RetryBudget`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts after the first; 0 means no retry of any kind.
    pub attempts: u32,
    /// Whether a stream that was reset, or took longer than one attempt may, before the response's head
    /// is retried, for idempotent methods.
    pub reset_before_response: bool,
    /// Statuses that are retried, for idempotent methods.
    pub codes: Vec<u16>,
    /// gRPC statuses that are retried when they are the whole response. Listing one says that the
    /// methods of this service stand it: gRPC calls are POST and not told apart.
    pub grpc_codes: Vec<GrpcCode>,
    /// Whether methods that are not idempotent (RFC 9110 section 9.2.2) are retried on the same
    /// conditions. The application must then recognise a request that comes twice.
    pub non_idempotent: bool,
    /// Whether `Retry-After` and `grpc-retry-pushback-ms` of a response are waited for, or stop the
    /// retries when they ask for more than there is time.
    pub respect_retry_after: bool,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Bytes of a request's body kept to send it again; a longer body is not retried once part of it
    /// was sent.
    pub body_replay: u32,
    /// Whether a rule asks for these retries itself (Gateway API, HTTPRouteRetry). If the connections of all
    /// attempts failed, it is the destination that is unavailable then, and not one connection that broke.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_rule: bool,
}

/// Waits between attempts, each drawn between zero and a bound that doubles (full jitter), on top of the
/// least wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// The first bound.
    #[serde(with = "duration")]
    pub base: Duration,
    /// The largest bound; at least `base`.
    #[serde(with = "duration")]
    pub max: Duration,
    /// What each wait has at least, also one before an attempt that would else begin at once (Gateway API,
    /// HTTPRouteRetry.backoff).
    #[serde(default, with = "duration", skip_serializing_if = "Duration::is_zero")]
    pub at_least: Duration,
}

/// When copies of a request are sent before the first has answered. The first response wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// When a copy is sent.
    pub after: HedgeAfter,
    /// Copies beside the first; at least 1.
    pub attempts: u32,
    /// Whether methods that are not idempotent are hedged, too, such as all of gRPC. The application
    /// must then stand a request that comes twice.
    #[serde(default)]
    pub non_idempotent: bool,
}

/// Faults that are injected on purpose, each drawn for itself; a delay comes before an abort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Holds some requests back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// Answers some requests without sending them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
}

/// A delay before the first attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultDelay {
    /// Share of requests; above 0.
    pub percent: Percent,
    /// How long.
    #[serde(with = "duration")]
    pub duration: Duration,
}

/// An answer in place of the application's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultAbort {
    /// Share of requests; above 0.
    pub percent: Percent,
    /// What is answered.
    pub with: FaultStatus,
}

/// What an injected abort answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum FaultStatus {
    /// This HTTP status; a gRPC request gets the gRPC status that corresponds to it.
    Http(u16),
    /// This gRPC status. A request that is not gRPC gets the HTTP status that corresponds to it.
    Grpc(GrpcCode),
}

/// How important a request is; the greater is refused later.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Priority {
    /// refused first, as batch work and prefetching may be.
    Low,
    /// refused after `Low`.
    #[default]
    Normal,
    /// refused last, as for requests that people wait for.
    High,
}

/// Who may override values by headers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// Identities of calling workloads; none by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<IdentityPattern>,
}

/// How callers choose among endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balance {
    /// The rule.
    pub algorithm: Algorithm,
    /// Time over which an endpoint that is new to the caller grows to its full share; zero is none.
    #[serde(with = "duration")]
    pub slow_start: Duration,
}

/// The rule by which an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Algorithm {
    /// The better of two drawn at random, by peak-sensitive moving average of latency times load.
    #[default]
    PeakEwma,
    /// The one of two drawn at random with fewer requests in flight.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Rendezvous hashing: when an endpoint goes, only its keys move.
    RingHash(HashKey),
    /// The same as [`Self::RingHash`].
    Maglev(HashKey),
}

/// What is hashed. A request without it is balanced as by [`Algorithm::PeakEwma`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum HashKey {
    /// The first value of this header; the name is in lower case.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The caller: its workload, and the address from which its application connected.
    Source,
}

/// How many retries and hedges together a sidecar may send to a destination, over all its workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryBudget {
    /// As a share of the first attempts within `interval`.
    pub percent: Percent,
    /// The window in which both are counted.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// What is allowed in any case, per second.
    pub retries_per_second_min: u32,
}

/// When an endpoint is left out (ejected), and for how long. Connect failures, resets and responses
/// with a status of 500 or above count as failures, unless they say that it is busy; either condition
/// suffices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Whether endpoints are left out, or it is only counted which would be.
    pub mode: Mode,
    /// Failures in a row that eject an endpoint.
    pub consecutive_failures: u32,
    /// A share of successes that ejects an endpoint.
    pub success_rate: SuccessRate,
    /// How long an ejection lasts the first time; it doubles each further time.
    #[serde(with = "duration")]
    pub ejection_base: Duration,
    /// How long an ejection lasts at most; at least `ejection_base`.
    #[serde(with = "duration")]
    pub ejection_max: Duration,
    /// Share of the endpoints that may be out at once; the last one never is.
    pub ejected_percent_max: Percent,
    /// Share of the endpoints in rotation under which ejections are ignored.
    pub panic_threshold: Percent,
}

/// A share of successes that ejects an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuccessRate {
    /// Below this share; 0 switches the condition off.
    pub percent: Percent,
    /// Of at least this many requests.
    pub requests_min: u32,
    /// Within this time.
    #[serde(with = "duration")]
    pub interval: Duration,
}

/// Whether a limit acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// what would be refused or left out is only counted.
    Observe,
    /// it acts.
    Enforce,
}

/// Another service that takes over when no endpoint is healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// The service.
    pub service: ServiceName,
    /// Its port; it speaks what the first one speaks.
    pub port: u16,
}

/// How many requests (or TCP connections) the serving sidecar lets through at once. Nothing queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Concurrency {
    /// At most so many; also the cap of the adaptive limit. Without it the setting
    /// `concurrency.in_flight_max` of the sidecar holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Whether `max` refuses.
    #[serde(skip_serializing_if = "is_enforced")]
    pub mode: Mode,
    /// Whether the adaptive limit refuses, which acts while the application is overloaded. What a table
    /// leaves out observes, as in those of config services for which this was the default.
    #[serde(skip_serializing_if = "is_observed")]
    pub adaptive: Mode,
    /// How a request says its priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityHeader>,
}

/// A header that says how important a request is. Any other value says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriorityHeader {
    /// The header's name, in any case. Names that begin with `weft-` are the mesh's own.
    pub header: String,
    /// Values that mean `High`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = format!("up to {}", limits::PRIORITY_VALUES_MAX), "x-default" = "none"))]
    pub high: Vec<String>,
    /// Values that mean `Low`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = format!("up to {}", limits::PRIORITY_VALUES_MAX), "x-default" = "none"))]
    pub low: Vec<String>,
}

/// A token bucket of one sidecar, over all its workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Tokens that flow in during `per`; at least 1.
    pub requests: u32,
    /// See `requests`.
    #[serde(with = "duration")]
    pub per: Duration,
    /// Tokens that the bucket holds; at least 1.
    pub burst: u32,
    /// Whether it refuses.
    pub mode: Mode,
}

impl std::default::Default for Retry {
    fn default() -> Self {
        Self {
            attempts: limits::RETRY_ATTEMPTS,
            reset_before_response: true,
            codes: Vec::new(),
            grpc_codes: Vec::new(),
            non_idempotent: false,
            respect_retry_after: true,
            backoff: Backoff {
                base: limits::RETRY_BACKOFF_BASE,
                max: limits::RETRY_BACKOFF_MAX,
                at_least: Duration::ZERO,
            },
            body_replay: limits::RETRY_BODY_REPLAY,
            of_rule: false,
        }
    }
}

impl std::default::Default for Balance {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::PeakEwma,
            slow_start: limits::SLOW_START,
        }
    }
}

impl std::default::Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: limits::RETRY_BUDGET_PERCENT,
            interval: limits::RETRY_BUDGET_INTERVAL,
            retries_per_second_min: limits::RETRIES_PER_SECOND_MIN,
        }
    }
}

impl std::default::Default for Breaker {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            consecutive_failures: limits::BREAKER_CONSECUTIVE_FAILURES,
            success_rate: SuccessRate {
                percent: limits::BREAKER_SUCCESS_PERCENT,
                requests_min: limits::BREAKER_REQUESTS_MIN,
                interval: limits::BREAKER_INTERVAL,
            },
            ejection_base: limits::BREAKER_EJECTION_BASE,
            ejection_max: limits::BREAKER_EJECTION_MAX,
            ejected_percent_max: limits::BREAKER_EJECTED_PERCENT_MAX,
            panic_threshold: limits::BREAKER_PANIC_PERCENT,
        }
    }
}

fn is_enforced(mode: &Mode) -> bool {
    *mode == Mode::Enforce
}

fn is_observed(mode: &Mode) -> bool {
    *mode == Mode::Observe
}

impl std::default::Default for Concurrency {
    fn default() -> Self {
        Self {
            max: None,
            mode: Mode::Enforce,
            adaptive: Mode::Observe,
            priority: None,
        }
    }
}

impl Overrides {
    /// Whether requests of this caller may override values.
    pub fn allow(&self, caller: &weft_transport::identity::SpiffeId) -> bool {
        self.callers.iter().any(|pattern| pattern.matches(caller))
    }
}

/// For `skip_serializing_if`.
pub(super) fn is_default<T: std::default::Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;

//! `weft.dev/v1alpha1` TrafficPolicy: how requests and connections are treated. The same fields stand
//! in the `traffic` of a MeshConfig. Everything is optional: a field that a policy leaves out is taken
//! from the next wider one, which [`crate::compile`] settles. `traffic/read.rs` reads documents,
//! `traffic/meaning.rs` says what their values are in a table.

mod fields;
mod meaning;
mod read;
mod span;

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use weft_transport::units;

use super::schema::{durations, durations_or_zero, numbers, sizes, some, up_to};
use crate::limits::traffic as limit;
use crate::table::{
    GrpcCode, HashKey, HedgeAfter, IdentityPattern, Mode, Percent, Priority, PriorityHeader,
};

pub use fields::{FIELDS, Field};
pub(super) use read::{policy as decode, traffic as decode_traffic};
pub use span::Span;

/// What a TrafficPolicy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// What the policy holds for, in its own namespace. Two policies may have the same target, but must not
    /// say the same field of it.
    #[schemars(extend("x-range" = some(limit::TARGETS_MAX)))]
    pub target_refs: Vec<TrafficTarget>,
    /// What it says about it.
    #[serde(flatten)]
    pub traffic: TrafficSpec,
}

/// What a TrafficPolicy holds for, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficTarget {
    /// The kind of the target. `group` may stand beside it.
    pub kind: TargetKind,
    /// The name of the target. A Namespace is the policy's own.
    pub name: String,
}

/// Kinds of targets, the most specific first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TargetKind {
    /// the requests that a route takes. Only fields that concern a single request may stand there.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// the same of a GRPCRoute.
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    /// all ports of a Service.
    Service,
    /// all ports of an ExternalService.
    ExternalService,
    /// all Services and ExternalServices of the policy's namespace.
    Namespace,
}

/// What a policy may say about traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TrafficSpec {
    /// How long a request may take. None of these concerns TCP.
    #[serde(skip_serializing_if = "is_default")]
    pub timeouts: TimeoutsSpec,
    /// When a request is sent again. One that the peer never processed (the connection failed, the stream was
    /// refused, the peer was draining) may always be. All others only if a field below says so, and only with
    /// an idempotent method (GET, HEAD, OPTIONS, TRACE, PUT, DELETE), unless `nonIdempotent` or `grpcCodes`
    /// allow more.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: RetrySpec,
    /// How many retries and hedges a sidecar sends to a destination, over all its workers.
    #[serde(skip_serializing_if = "is_default")]
    pub retry_budget: RetryBudgetSpec,
    /// When a second copy of a request is sent before the first has answered. The first response wins, and
    /// the other copy is cancelled.
    #[serde(skip_serializing_if = "is_default")]
    pub hedge: HedgeSpec,
    /// How a caller's sidecar chooses an endpoint.
    #[serde(skip_serializing_if = "is_default")]
    pub balance: BalanceSpec,
    /// When a caller's sidecar leaves an endpoint out (ejects it). Either of the two conditions is enough.
    /// Connect failures, resets, statuses of 500 or above and gRPC statuses of a broken server count as
    /// failures. After its time out, one real request probes the endpoint.
    #[serde(skip_serializing_if = "is_default")]
    pub breaker: BreakerSpec,
    /// Another Service that takes over when no endpoint is healthy. Only in a policy for a Service. It must
    /// speak the same protocol, and chains must end. The caller needs the permission of both Services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverSpec>,
    /// How many requests the serving sidecar lets through at once. Nothing queues: a request over the limit
    /// is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub concurrency: ConcurrencySpec,
    /// How important the requests are where a serving sidecar must refuse some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Token buckets. A request needs a token of each. On TCP they count connections. An empty list lifts the
    /// limits of a wider policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = up_to(limit::RATE_LIMITS_MAX)))]
    pub rate_limits: Option<Vec<RateLimitSpec>>,
    /// Faults that are injected on purpose, to test applications. 0 percent lifts the fault of a wider
    /// policy.
    #[serde(skip_serializing_if = "is_default")]
    pub fault: FaultSpec,
    /// Who may override these values by request headers; [which
    /// headers](../traffic.md#priority-and-overrides).
    #[serde(skip_serializing_if = "is_default")]
    pub overrides: OverridesSpec,
}

/// See [`crate::table::Timeouts`]; zero means none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TimeoutsSpec {
    /// From the request's head to the response's end, all attempts together. Then the caller gets 504, or
    /// DEADLINE_EXCEEDED for gRPC. There is none by default, because a total breaks uploads and long polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations_or_zero(&limit::TIMEOUT_RANGE)))]
    pub request: Option<Span>,
    /// The same for one attempt; at most `request`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations_or_zero(&limit::TIMEOUT_RANGE)))]
    pub backend_request: Option<Span>,
    /// Time in which nothing moves, after which a stream is reset. Without it, the setting
    /// `timeouts.stream_idle` of each sidecar holds (5m).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations(&limit::TIMEOUT_RANGE)))]
    pub stream_idle: Option<Span>,
}

impl TimeoutsSpec {
    /// What is wrong with `backendRequest` beside `request`, and what to do (GEP-1742: it is at most that).
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let (request, attempt) = (self.request?, self.backend_request?);
        (!request.0.is_zero() && attempt.0 > request.0).then_some((
            "is longer than request, so it never ends an attempt",
            "make it shorter, or leave it out",
        ))
    }
}

/// See [`crate::table::Retry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RetrySpec {
    /// Attempts after the first, at another endpoint if there is one. 0 means no retry of any kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = numbers(&limit::RETRY_ATTEMPTS_RANGE)))]
    pub attempts: Option<u32>,
    /// Whether a stream is retried that was reset, or that took longer than `timeouts.backendRequest`, before
    /// the response's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_before_response: Option<bool>,
    /// Response statuses that are retried. There are none by default: an application's 5xx is mostly an
    /// answer, and retries make an overload worse.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = format!("up to {} of {}", limit::RETRY_CODES_MAX, numbers(&limit::RETRY_CODES_RANGE))))]
    pub codes: Option<Vec<u16>>,
    /// gRPC statuses that are retried when they are the whole response. All gRPC calls are POST: listing a
    /// status says that the methods of the Service may be called twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = up_to(limit::RETRY_CODES_MAX)))]
    pub grpc_codes: Option<Vec<GrpcCode>>,
    /// Whether methods that are not idempotent are retried on the same conditions. `weft apply` warns of it,
    /// because a POST may then be executed twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_idempotent: Option<bool>,
    /// Whether a retry waits as long as `Retry-After` or `grpc-retry-pushback-ms` of the response asks for.
    /// If that is longer than there is time, there is no retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respect_retry_after: Option<bool>,
    /// The waits between attempts. Each is drawn between 0 and a bound that doubles.
    #[serde(skip_serializing_if = "is_default")]
    pub backoff: SpanRange,
    /// Bytes of a request's body that are kept to send it again. A longer body is not retried once part of it
    /// was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = sizes(&limit::RETRY_BODY_REPLAY_RANGE)))]
    pub body_replay: Option<Size>,
}

/// A time that doubles: the first, and the largest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SpanRange {
    /// The first bound; each further one is twice as large. At most `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations(&limit::RETRY_BACKOFF_RANGE)))]
    pub base: Option<Span>,
    /// The largest bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations(&limit::RETRY_BACKOFF_RANGE)))]
    pub max: Option<Span>,
}

/// See [`crate::table::RetryBudget`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RetryBudgetSpec {
    /// Retries and hedges, as a share of the first attempts within `interval`. With 20, a failing destination
    /// gets at most 1.2 times what it was asked to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// The window in which both are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations(&limit::RETRY_BUDGET_INTERVAL_RANGE)))]
    pub interval: Option<Span>,
    /// Retries and hedges a second that are allowed in any case, so that a caller of few requests may retry
    /// at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = numbers(&limit::RETRIES_PER_SECOND_RANGE)))]
    pub min_retries_per_second: Option<u32>,
}

/// See [`crate::table::Hedge`]; without `after`, or with 0 attempts, there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HedgeSpec {
    /// When the copy is sent: after a delay (`50ms`), or after the time within which that share of recent
    /// responses began (`p95`). Without it there is no hedge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<HedgeAfter>,
    /// Copies beside the first. 0 lifts the hedge of a wider policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = numbers(&limit::HEDGE_ATTEMPTS_RANGE)))]
    pub attempts: Option<u32>,
    /// Whether methods that are not idempotent are hedged, such as all of gRPC. `weft apply` warns of it. A
    /// body is copied once all of it has come, if `retry.bodyReplay` holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_idempotent: Option<bool>,
}

/// See [`crate::table::Balance`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BalanceSpec {
    /// The rule by which an endpoint is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AlgorithmName>,
    /// What `RingHash` and `Maglev` hash; they need one, and the others take none. `source` is the caller:
    /// its workload and the address from which its application connected. A request without the header or
    /// cookie is balanced as by `PeakEwma`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<HashKey>,
    /// Time over which a new endpoint grows to its full share. `PeakEwma` sends less to an endpoint that is
    /// slow at first anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations(&limit::SLOW_START_RANGE)))]
    pub slow_start: Option<Span>,
}

/// The names of [`crate::table::Algorithm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AlgorithmName {
    /// of two endpoints drawn at random, the one with less latency times load. The latency is an average that
    /// follows peaks at once.
    PeakEwma,
    /// of two endpoints drawn at random, the one with fewer requests in flight.
    LeastRequest,
    /// one endpoint after the other.
    RoundRobin,
    /// a key has one endpoint (rendezvous hashing). When an endpoint goes, only its keys move.
    RingHash,
    /// the same as `RingHash`.
    Maglev,
}

/// See [`crate::table::Breaker`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BreakerSpec {
    /// Whether endpoints are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// First condition: so many failures in a row. An endpoint of which 1 % of the requests fail has 5 in a
    /// row once in 10^10 requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = numbers(&limit::BREAKER_CONSECUTIVE_FAILURES_RANGE)))]
    pub consecutive_failures: Option<u32>,
    /// Second condition: too small a share of successes.
    #[serde(skip_serializing_if = "is_default")]
    pub success_rate: SuccessRateSpec,
    /// How long an endpoint is out.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(with = "EjectionTimes")]
    pub ejection: SpanRange,
    /// Share of the endpoints that may be out at once. The last one is never left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ejected_percent: Option<Percent>,
    /// Share of the endpoints in rotation below which ejections are ignored, because the fault is then not
    /// theirs. Reached only if `maxEjectedPercent` is raised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<Percent>,
}

/// A [`SpanRange`] with the range of ejections. Only described here.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "a description, never made")]
struct EjectionTimes {
    /// The first time; each further time it is out twice as long. At most `max`.
    #[schemars(extend("x-range" = durations(&limit::BREAKER_EJECTION_RANGE)))]
    base: Option<Span>,
    /// The longest time, so that an endpoint is back soon after it has healed.
    #[schemars(extend("x-range" = durations(&limit::BREAKER_EJECTION_RANGE)))]
    max: Option<Span>,
}

/// See [`crate::table::SuccessRate`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SuccessRateSpec {
    /// An endpoint is left out when its share of successes is below this. 0 switches the condition off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// Requests that the share needs to mean anything. An endpoint that was out has to answer as many before
    /// a failure is forgiven.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = numbers(&limit::BREAKER_REQUESTS_MIN_RANGE)))]
    pub min_requests: Option<u32>,
    /// The window in which requests are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations(&limit::BREAKER_INTERVAL_RANGE)))]
    pub interval: Option<Span>,
}

/// See [`crate::table::Failover`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailoverSpec {
    /// The Service that takes over.
    pub name: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 63 characters", "x-default" = "that of the policy"))]
    pub namespace: Option<String>,
    /// Its port. For a Service of several ports it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 65535", "x-default" = "the same number"))]
    pub port: Option<u16>,
}

/// See [`crate::table::Concurrency`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ConcurrencySpec {
    /// Requests (or TCP connections) in flight for a port, and the cap of the adaptive limit. Without it, the
    /// setting `concurrency.in_flight_max` of the sidecar holds (1024).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = numbers(&limit::CONCURRENCY_RANGE)))]
    pub max: Option<u32>,
    /// Whether `max` refuses, or only counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Whether the adaptive limit refuses, which acts only while the application is overloaded
    /// ([how](../resilience.md#when-a-service-has-too-much-to-do)). The default is `Observe` in a mesh whose
    /// MeshConfig was applied when that was still the default everywhere, and does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`Enforce`"))]
    pub adaptive: Option<Mode>,
    /// A header by which a request says its priority. It comes before `priority` of a policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityHeader>,
}

/// See [`crate::table::RateLimit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RateLimitSpec {
    /// Tokens that flow into the bucket during `per`.
    #[schemars(extend("x-range" = numbers(&limit::RATE_LIMIT_REQUESTS_RANGE)))]
    pub requests: u32,
    /// The time in which `requests` tokens flow in.
    #[schemars(extend("x-range" = durations(&limit::RATE_LIMIT_PER_RANGE)))]
    pub per: Span,
    /// Tokens that the bucket holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = numbers(&limit::RATE_LIMIT_REQUESTS_RANGE), "x-default" = "as many as `requests`"))]
    pub burst: Option<u32>,
    /// What has a bucket of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`Route` in a policy for an HTTPRoute, else `Service`"))]
    pub by: Option<RateLimitBy>,
    /// Whether the limit refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`Enforce`"))]
    pub mode: Option<Mode>,
}

/// What a rate limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RateLimitBy {
    /// a port of the Service, with the requests of all callers, at each sidecar that serves it.
    Service,
    /// each caller's identity, at each sidecar that serves the Service.
    Caller,
    /// the route, with all requests that it takes, at each sidecar that sends them.
    Route,
}

/// See [`crate::table::Fault`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FaultSpec {
    /// Holds a share of the requests back, as in `{ percent: 5, duration: 300ms }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelaySpec>,
    /// Answers a share of the requests without sending them, as in `{ percent: 0.5, status: 503 }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbortSpec>,
}

/// See [`crate::table::FaultDelay`]; 0 percent lifts the fault of a wider policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultDelaySpec {
    /// The share of requests.
    pub percent: Percent,
    /// How long each waits.
    #[schemars(extend("x-range" = durations(&limit::FAULT_DELAY_RANGE)))]
    pub duration: Span,
}

/// See [`crate::table::FaultAbort`]; 0 percent lifts the fault of a wider policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FaultAbortSpec {
    /// The share of requests.
    pub percent: Percent,
    /// The HTTP status of the answer. Write either this or `grpcStatus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = numbers(&limit::FAULT_STATUS_RANGE), "x-default" = "none"))]
    pub status: Option<u16>,
    /// The gRPC status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "none"))]
    pub grpc_status: Option<GrpcCode>,
}

/// See [`crate::table::Overrides`]; an empty list lifts the permission of a wider policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OverridesSpec {
    /// Identities of calling workloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = up_to(limit::OVERRIDE_CALLERS_MAX)))]
    pub callers: Option<Vec<IdentityPattern>>,
}

/// A number of bytes: `64KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(#[serde(with = "units::bytes")] pub u32);

impl<'de> Deserialize<'de> for TrafficPolicySpec {
    /// By hand, because serde cannot refuse unknown fields of a flattened struct.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn from<T: DeserializeOwned, E: Error>(value: serde_json::Value) -> Result<T, E> {
            serde_json::from_value(value).map_err(E::custom)
        }
        let mut fields = serde_json::Map::deserialize(deserializer)?;
        let targets = fields.remove("targetRefs").unwrap_or_default();
        Ok(Self {
            target_refs: from(targets)?,
            traffic: from(fields.into())?,
        })
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A policy that sets every field. A new field must be added here, or [`FIELDS`] would be incomplete.
#[cfg(test)]
pub(crate) const WHOLE: &str = r#"{
  "timeouts": { "request": "2s", "backendRequest": "500ms", "streamIdle": "1m" },
  "retry": {
    "attempts": 3, "resetBeforeResponse": false, "codes": [503], "grpcCodes": ["UNAVAILABLE"],
    "nonIdempotent": true, "respectRetryAfter": false, "bodyReplay": "128KiB",
    "backoff": { "base": "10ms", "max": "1s" }
  },
  "retryBudget": { "percent": 10, "interval": "20s", "minRetriesPerSecond": 5 },
  "hedge": { "after": "p95", "attempts": 2, "nonIdempotent": true },
  "balance": { "algorithm": "RingHash", "key": { "header": "x-user" }, "slowStart": "30s" },
  "breaker": {
    "mode": "Observe", "consecutiveFailures": 7, "maxEjectedPercent": 30, "panicThreshold": 40,
    "successRate": { "percent": 90, "minRequests": 50, "interval": "10s" },
    "ejection": { "base": "5s", "max": "1m" }
  },
  "failover": { "name": "orders-spare", "namespace": "spare", "port": 80 },
  "concurrency": {
    "max": 100, "mode": "Observe", "adaptive": "Enforce",
    "priority": { "header": "x-priority", "high": ["user"], "low": ["batch"] }
  },
  "priority": "High",
  "rateLimits": [
    { "requests": 100, "per": "1s", "burst": 200, "by": "Service", "mode": "Observe" },
    { "requests": 10, "per": "1s", "by": "Caller" }
  ],
  "fault": {
    "delay": { "percent": 5, "duration": "100ms" },
    "abort": { "percent": 0.5, "status": 503 }
  },
  "overrides": { "callers": ["spiffe://demo.test/ns/test/*"] }
}"#;

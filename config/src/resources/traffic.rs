//! `weft.dev/v1alpha1` TrafficPolicy: how requests and connections are treated. The same fields stand
//! in the `traffic` of a MeshConfig. Everything is optional: a field that a policy leaves out is taken
//! from the next wider one, which [`crate::compile`] settles. `traffic/read.rs` reads documents.

mod fields;
mod read;

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

use crate::table::{
    Algorithm, FaultStatus, GrpcCode, HashKey, HedgeAfter, IdentityPattern, Mode, Percent,
    Priority, PriorityHeader, ServiceName,
};
use crate::units;

pub use fields::{FIELDS, Field};
pub(super) use read::{policy as decode, route_timeouts, traffic as decode_traffic};

/// What a TrafficPolicy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// What it holds for; at least one.
    pub target_refs: Vec<TrafficTarget>,
    /// What it says about it.
    #[serde(flatten)]
    pub traffic: TrafficSpec,
}

/// What a TrafficPolicy holds for, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficTarget {
    /// What kind of thing it is.
    pub kind: TargetKind,
    /// Its name. A Namespace is the policy's own.
    pub name: String,
}

/// Kinds of targets, the most specific first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TargetKind {
    /// The requests that a route takes.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// All ports of a Service.
    Service,
    /// All Services of the policy's namespace.
    Namespace,
}

/// What a policy may say about traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TrafficSpec {
    /// How long a request may take.
    #[serde(skip_serializing_if = "is_default")]
    pub timeouts: TimeoutsSpec,
    /// When a request is sent again.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: RetrySpec,
    /// How many retries and hedges are sent.
    #[serde(skip_serializing_if = "is_default")]
    pub retry_budget: RetryBudgetSpec,
    /// When a second copy of a request is sent.
    #[serde(skip_serializing_if = "is_default")]
    pub hedge: HedgeSpec,
    /// How an endpoint is chosen.
    #[serde(skip_serializing_if = "is_default")]
    pub balance: BalanceSpec,
    /// When an endpoint is left out.
    #[serde(skip_serializing_if = "is_default")]
    pub breaker: BreakerSpec,
    /// Who takes over when no endpoint is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverSpec>,
    /// How many requests are let through at once.
    #[serde(skip_serializing_if = "is_default")]
    pub concurrency: ConcurrencySpec,
    /// How important the requests are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// How many requests are let through in a time; an empty list lifts the limits of a wider policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<Vec<RateLimitSpec>>,
    /// Faults that are injected on purpose.
    #[serde(skip_serializing_if = "is_default")]
    pub fault: FaultSpec,
    /// Who may override these values by request headers.
    #[serde(skip_serializing_if = "is_default")]
    pub overrides: OverridesSpec,
}

/// See [`crate::table::Timeouts`]; zero means none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TimeoutsSpec {
    /// All attempts together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Span>,
    /// One attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Span>,
    /// Time in which nothing moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<Span>,
}

/// See [`crate::table::Retry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RetrySpec {
    /// Attempts after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Whether a reset before the response's head is retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_before_response: Option<bool>,
    /// Statuses that are retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codes: Option<Vec<u16>>,
    /// gRPC statuses that are retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_codes: Option<Vec<GrpcCode>>,
    /// Whether methods that are not idempotent are retried, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_idempotent: Option<bool>,
    /// Whether the application's wish about the time of a retry counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respect_retry_after: Option<bool>,
    /// Waits between attempts.
    #[serde(skip_serializing_if = "is_default")]
    pub backoff: SpanRange,
    /// Bytes of a body that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_replay: Option<Size>,
}

/// A time that doubles: the first, and the largest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SpanRange {
    /// The first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Span>,
    /// The largest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
}

/// See [`crate::table::RetryBudget`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RetryBudgetSpec {
    /// As a share of the first attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// The window in which they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// What is allowed in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_retries_per_second: Option<u32>,
}

/// See [`crate::table::Hedge`]; without `after`, or with 0 attempts, there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HedgeSpec {
    /// A delay (`50ms`) or a percentile (`p95`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<HedgeAfter>,
    /// Copies beside the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Whether methods that are not idempotent are hedged, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_idempotent: Option<bool>,
}

/// See [`crate::table::Balance`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BalanceSpec {
    /// The rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AlgorithmName>,
    /// What is hashed; there exactly if the algorithm hashes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<HashKey>,
    /// Time over which a new endpoint grows to its full share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Span>,
}

/// The names of [`Algorithm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "explained at Algorithm")]
pub enum AlgorithmName {
    PeakEwma,
    LeastRequest,
    RoundRobin,
    RingHash,
    Maglev,
}

/// See [`crate::table::Breaker`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BreakerSpec {
    /// Whether it acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Failures in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// A share of successes.
    #[serde(skip_serializing_if = "is_default")]
    pub success_rate: SuccessRateSpec,
    /// How long an endpoint is out.
    #[serde(skip_serializing_if = "is_default")]
    pub ejection: SpanRange,
    /// Share of the endpoints that may be out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ejected_percent: Option<Percent>,
    /// Share in rotation under which ejections are ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<Percent>,
}

/// See [`crate::table::SuccessRate`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SuccessRateSpec {
    /// Below this share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// Of at least so many requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u32>,
    /// Within this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
}

/// See [`crate::table::Failover`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverSpec {
    /// The Service.
    pub name: String,
    /// Its namespace; absent means the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its port; absent means the same number. A Service of several ports leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// See [`crate::table::Concurrency`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ConcurrencySpec {
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Whether `max` acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Whether the adaptive limit acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Mode>,
    /// How a request says its priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityHeader>,
}

/// See [`crate::table::RateLimit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RateLimitSpec {
    /// So many requests.
    pub requests: u32,
    /// In this time.
    pub per: Span,
    /// So many at once; absent means as many as `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// What is counted together; absent means the target of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RateLimitBy>,
    /// Whether it acts; absent means Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// What a rate limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RateLimitBy {
    /// All requests to a port of the Service, at each sidecar that serves it.
    Service,
    /// All requests of one caller's identity, at each sidecar that serves the Service.
    Caller,
    /// All requests that the route takes, at each sidecar that sends them.
    Route,
}

/// See [`crate::table::Fault`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FaultSpec {
    /// Holds requests back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelaySpec>,
    /// Answers in the application's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbortSpec>,
}

/// See [`crate::table::FaultDelay`]; 0 percent lifts the fault of a wider policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultDelaySpec {
    /// Share of requests.
    pub percent: Percent,
    /// How long.
    pub duration: Span,
}

/// See [`crate::table::FaultAbort`]; 0 percent lifts the fault of a wider policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FaultAbortSpec {
    /// Share of requests.
    pub percent: Percent,
    /// An HTTP status; either this or the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A gRPC status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<GrpcCode>,
}

/// See [`crate::table::Overrides`]; an empty list lifts the permission of a wider policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverridesSpec {
    /// Identities of calling workloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callers: Option<Vec<IdentityPattern>>,
}

/// A duration in the syntax of Gateway API: `250ms`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "units::duration")] pub Duration);

/// A number of bytes: `64KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(#[serde(with = "units::size")] pub u32);

impl TargetKind {
    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpRoute => "HTTPRoute",
            Self::Service => "Service",
            Self::Namespace => "Namespace",
        }
    }
}

impl FailoverSpec {
    /// The service that takes over for one of `namespace`.
    pub(crate) fn service(&self, namespace: &str) -> ServiceName {
        ServiceName {
            namespace: self.namespace.as_deref().unwrap_or(namespace).to_owned(),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for TrafficTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

impl BalanceSpec {
    /// The rule with its key; `None` if this policy does not choose one.
    pub(crate) fn chosen(&self) -> Option<Algorithm> {
        Some(match self.algorithm? {
            AlgorithmName::PeakEwma => Algorithm::PeakEwma,
            AlgorithmName::LeastRequest => Algorithm::LeastRequest,
            AlgorithmName::RoundRobin => Algorithm::RoundRobin,
            AlgorithmName::RingHash => Algorithm::RingHash(self.key.clone()?),
            AlgorithmName::Maglev => Algorithm::Maglev(self.key.clone()?),
        })
    }
}

impl FaultAbortSpec {
    /// What is answered; reading a document made sure that there is exactly one.
    pub(crate) fn with(&self) -> Option<FaultStatus> {
        let grpc = self.grpc_status.map(FaultStatus::Grpc);
        grpc.or(self.status.map(FaultStatus::Http))
    }
}

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

/// A policy that sets every field. A new field is added here, or [`FIELDS`] would not be complete.
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

//! Reads the fields of a TrafficPolicy, with the range of each. Checks that need other resources (does the
//! target exist?) are in [`crate::validate`].

use std::ops::RangeInclusive;
use std::time::Duration;

use super::*;
use crate::limits::traffic as limit;
use crate::resources::decode::{At, Decoder, Fields};
use crate::resources::service::port_number;

const MODES: [(&str, Mode); 2] = [("Observe", Mode::Observe), ("Enforce", Mode::Enforce)];

/// Reads the spec of a TrafficPolicy.
pub(in crate::resources) fn policy(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
) -> Option<TrafficPolicySpec> {
    let mut fields = Fields::open(decoder, at)?;
    let target_refs = fields.require(decoder, "targetRefs").map(|at| {
        let items = decoder.list_of_some(&at, limit::TARGETS_MAX);
        let targets = items.iter().filter_map(|item| target(decoder, item));
        targets.collect()
    });
    fields.refuse(decoder, "targetRef", "write targetRefs, with a list");
    let traffic = groups(decoder, &mut fields);
    fields.close(decoder);
    Some(TrafficPolicySpec {
        target_refs: target_refs?,
        traffic,
    })
}

/// Reads the `traffic` of a MeshConfig.
pub(in crate::resources) fn traffic(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<TrafficSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let traffic = groups(decoder, &mut fields);
    fields.close(decoder);
    Some(traffic)
}

fn target(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<TrafficTarget> {
    let mut fields = Fields::open(decoder, at)?;
    let kinds = [
        ("Service", TargetKind::Service),
        ("ExternalService", TargetKind::ExternalService),
        ("HTTPRoute", TargetKind::HttpRoute),
        ("GRPCRoute", TargetKind::GrpcRoute),
        ("Namespace", TargetKind::Namespace),
    ];
    let kind = fields
        .require(decoder, "kind")
        .and_then(|at| decoder.choice(&at, &kinds));
    let name = fields
        .require(decoder, "name")
        .and_then(|at| crate::resources::label(decoder, &at));
    if let Some(at) = fields.take("group") {
        let groups = ["", "core", "weft.dev", "gateway.networking.k8s.io"];
        decoder.choice(&at, &groups.map(|group| (group, ())));
    }
    fields.refuse(
        decoder,
        "namespace",
        "put the policy into the namespace of its target",
    );
    fields.refuse(
        decoder,
        "sectionName",
        "a policy covers all ports of a Service and all rules of a route",
    );
    fields.close(decoder);
    Some(TrafficTarget {
        kind: kind?,
        name: name?,
    })
}

/// Everything but the targets.
fn groups(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> TrafficSpec {
    let priorities = [
        ("Low", Priority::Low),
        ("Normal", Priority::Normal),
        ("High", Priority::High),
    ];
    TrafficSpec {
        timeouts: group(d, fields, "timeouts", timeouts),
        retry: group(d, fields, "retry", retry),
        retry_budget: group(d, fields, "retryBudget", retry_budget),
        hedge: group(d, fields, "hedge", hedge),
        balance: group(d, fields, "balance", balance),
        breaker: group(d, fields, "breaker", breaker),
        failover: fields.take("failover").and_then(|at| failover(d, &at)),
        concurrency: group(d, fields, "concurrency", concurrency),
        priority: fields
            .take("priority")
            .and_then(|at| d.choice(&at, &priorities)),
        rate_limits: fields.take("rateLimits").map(|at| {
            let items = d.list(&at, limit::RATE_LIMITS_MAX);
            items
                .iter()
                .filter_map(|item| rate_limit(d, item))
                .collect()
        }),
        fault: group(d, fields, "fault", fault),
        overrides: group(d, fields, "overrides", overrides),
    }
}

/// A mapping whose fields are all optional.
fn group<T: Default>(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
    read: fn(&mut Decoder<'_>, &mut Fields<'_>) -> T,
) -> T {
    let Some(at) = fields.take(name) else {
        return T::default();
    };
    let Some(mut inner) = Fields::open(decoder, &at) else {
        return T::default();
    };
    let value = read(decoder, &mut inner);
    inner.close(decoder);
    value
}

fn timeouts(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> TimeoutsSpec {
    TimeoutsSpec {
        request: timeout(d, fields, "request"),
        backend_request: timeout(d, fields, "backendRequest"),
        stream_idle: fields
            .take("streamIdle")
            .and_then(|at| d.span(&at, &limit::TIMEOUT_RANGE)),
    }
}

/// A timeout that 0 switches off.
fn timeout(d: &mut Decoder<'_>, fields: &mut Fields<'_>, name: &'static str) -> Option<Span> {
    let at = fields.take(name)?;
    d.span_or_zero(&at, &limit::TIMEOUT_RANGE)
}

fn retry(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> RetrySpec {
    let backoff = group(d, fields, "backoff", |d, fields| {
        span_range(d, fields, &limit::RETRY_BACKOFF_RANGE)
    });
    RetrySpec {
        attempts: number(d, fields, "attempts", &limit::RETRY_ATTEMPTS_RANGE),
        reset_before_response: truth(d, fields, "resetBeforeResponse"),
        codes: fields.take("codes").map(|at| {
            let items = d.list(&at, limit::RETRY_CODES_MAX);
            let codes = items.iter();
            codes
                .filter_map(|item| status(d, item, &limit::RETRY_CODES_RANGE))
                .collect()
        }),
        grpc_codes: fields.take("grpcCodes").map(|at| {
            let items = d.list(&at, limit::RETRY_CODES_MAX);
            items.iter().filter_map(|item| grpc_code(d, item)).collect()
        }),
        non_idempotent: truth(d, fields, "nonIdempotent"),
        respect_retry_after: truth(d, fields, "respectRetryAfter"),
        backoff,
        body_replay: fields
            .take("bodyReplay")
            .and_then(|at| d.size(&at, &limit::RETRY_BODY_REPLAY_RANGE)),
    }
}

fn span_range(
    d: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    range: &RangeInclusive<Duration>,
) -> SpanRange {
    let base = fields.take("base").and_then(|at| d.span(&at, range));
    let max_at = fields.take("max");
    let max = max_at.as_ref().and_then(|at| d.span(at, range));
    if let (Some(base), Some(max), Some(at)) = (base, max, &max_at)
        && max.0 < base.0
    {
        let base = units::format_duration(base.0);
        let hint = format!("write {base} or more");
        d.error(at, "is less than base", Some(hint));
    }
    SpanRange { base, max }
}

fn retry_budget(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> RetryBudgetSpec {
    let per_second = &limit::RETRIES_PER_SECOND_RANGE;
    RetryBudgetSpec {
        percent: percent(d, fields, "percent"),
        interval: span(d, fields, "interval", &limit::RETRY_BUDGET_INTERVAL_RANGE),
        min_retries_per_second: number(d, fields, "minRetriesPerSecond", per_second),
    }
}

fn hedge(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> HedgeSpec {
    HedgeSpec {
        after: fields.take("after").and_then(|at| {
            let hint = "write a delay as 50ms or a percentile as p95";
            d.parsed::<HedgeAfter>(&at, hint)
        }),
        attempts: number(d, fields, "attempts", &limit::HEDGE_ATTEMPTS_RANGE),
        non_idempotent: truth(d, fields, "nonIdempotent"),
    }
}

fn balance(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> BalanceSpec {
    let names = [
        ("PeakEwma", AlgorithmName::PeakEwma),
        ("LeastRequest", AlgorithmName::LeastRequest),
        ("RoundRobin", AlgorithmName::RoundRobin),
        ("RingHash", AlgorithmName::RingHash),
        ("Maglev", AlgorithmName::Maglev),
    ];
    let algorithm_at = fields.take("algorithm");
    let algorithm = algorithm_at.as_ref().and_then(|at| d.choice(at, &names));
    let key_at = fields.take("key");
    let hashes = matches!(
        algorithm,
        Some(AlgorithmName::RingHash | AlgorithmName::Maglev)
    );
    let key = key_at.as_ref().and_then(|at| hash_key(d, at));
    match (&algorithm_at, &key_at) {
        (Some(at), None) if hashes => {
            let hint = "add key: { header: NAME }, key: { cookie: NAME } or key: source";
            d.error(at, "needs a key to hash", Some(hint.to_owned()));
        }
        // An algorithm that could not be read was reported already.
        (Some(_), Some(at)) if !hashes && algorithm.is_some() => {
            let hint = "remove the key, or use RingHash or Maglev";
            d.error(at, "this algorithm hashes nothing", Some(hint.to_owned()));
        }
        (None, Some(at)) => {
            let hint = "add algorithm: RingHash or Maglev";
            d.error(at, "a key without an algorithm", Some(hint.to_owned()));
        }
        _ => {}
    }
    BalanceSpec {
        algorithm,
        key,
        slow_start: span(d, fields, "slowStart", &limit::SLOW_START_RANGE),
    }
}

fn hash_key(d: &mut Decoder<'_>, at: &At<'_>) -> Option<HashKey> {
    if at.as_text().is_some() {
        return d.choice(at, &[("source", ())]).map(|()| HashKey::Source);
    }
    let mut fields = Fields::open(d, at)?;
    let header = fields.take("header").and_then(|at| d.header_name(&at));
    let cookie = fields.take("cookie").and_then(|at| {
        let name = d.text(&at)?;
        // A cookie's name is a token (RFC 6265 section 4.1.1), like that of a method.
        if http::Method::from_bytes(name.as_bytes()).is_err() {
            d.error(&at, format!("{name:?} is no name of a cookie"), None);
            return None;
        }
        Some(name)
    });
    let both = header.is_some() && cookie.is_some();
    let written = fields.any();
    fields.close(d);
    if both || !written {
        d.error(at, "write either header or cookie", None);
        return None;
    }
    header.map(HashKey::Header).or(cookie.map(HashKey::Cookie))
}

fn breaker(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> BreakerSpec {
    let failures = &limit::BREAKER_CONSECUTIVE_FAILURES_RANGE;
    BreakerSpec {
        mode: mode(d, fields, "mode"),
        consecutive_failures: number(d, fields, "consecutiveFailures", failures),
        success_rate: group(d, fields, "successRate", |d, fields| SuccessRateSpec {
            percent: percent(d, fields, "percent"),
            min_requests: number(d, fields, "minRequests", &limit::BREAKER_REQUESTS_MIN_RANGE),
            interval: span(d, fields, "interval", &limit::BREAKER_INTERVAL_RANGE),
        }),
        ejection: group(d, fields, "ejection", |d, fields| {
            span_range(d, fields, &limit::BREAKER_EJECTION_RANGE)
        }),
        max_ejected_percent: percent(d, fields, "maxEjectedPercent"),
        panic_threshold: percent(d, fields, "panicThreshold"),
    }
}

fn failover(d: &mut Decoder<'_>, at: &At<'_>) -> Option<FailoverSpec> {
    let mut fields = Fields::open(d, at)?;
    let name = fields
        .require(d, "name")
        .and_then(|at| crate::resources::label(d, &at));
    let namespace = fields
        .take("namespace")
        .map(|at| crate::resources::label(d, &at));
    let port = fields.take("port").map(|at| port_number(d, &at));
    fields.close(d);
    // A value that could not be read must not mean the same as an absent one.
    let (namespace, port) = match (namespace, port) {
        (Some(None), _) | (_, Some(None)) => return None,
        (namespace, port) => (namespace.flatten(), port.flatten()),
    };
    Some(FailoverSpec {
        name: name?,
        namespace,
        port,
    })
}

fn concurrency(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> ConcurrencySpec {
    ConcurrencySpec {
        max: number(d, fields, "max", &limit::CONCURRENCY_RANGE),
        mode: mode(d, fields, "mode"),
        adaptive: mode(d, fields, "adaptive"),
        priority: fields.take("priority").and_then(|at| priority(d, &at)),
    }
}

fn priority(d: &mut Decoder<'_>, at: &At<'_>) -> Option<PriorityHeader> {
    let mut fields = Fields::open(d, at)?;
    let header = fields
        .require(d, "header")
        .and_then(|at| d.header_name(&at));
    let mut values = |d: &mut Decoder<'_>, name| {
        let Some(at) = fields.take(name) else {
            return Vec::new();
        };
        let items = d.list(&at, limit::PRIORITY_VALUES_MAX);
        items.iter().filter_map(|item| d.text(item)).collect()
    };
    let (high, low): (Vec<String>, Vec<String>) = (values(d, "high"), values(d, "low"));
    if let Some(both) = high.iter().find(|value| low.contains(value)) {
        d.error(at, format!("{both:?} is both high and low"), None);
    }
    fields.close(d);
    let header = header?;
    Some(PriorityHeader { header, high, low })
}

fn rate_limit(d: &mut Decoder<'_>, at: &At<'_>) -> Option<RateLimitSpec> {
    let mut fields = Fields::open(d, at)?;
    let range = &limit::RATE_LIMIT_REQUESTS_RANGE;
    let requests = fields
        .require(d, "requests")
        .and_then(|at| d.integer(&at, *range.start(), *range.end()));
    let per = fields
        .require(d, "per")
        .and_then(|at| d.span(&at, &limit::RATE_LIMIT_PER_RANGE));
    let burst = number(d, &mut fields, "burst", range);
    let kinds = [
        ("Service", RateLimitBy::Service),
        ("Caller", RateLimitBy::Caller),
        ("Route", RateLimitBy::Route),
    ];
    let by = fields.take("by").and_then(|at| d.choice(&at, &kinds));
    let mode = mode(d, &mut fields, "mode");
    fields.close(d);
    Some(RateLimitSpec {
        requests: requests?,
        per: per?,
        burst,
        by,
        mode,
    })
}

fn fault(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> FaultSpec {
    FaultSpec {
        delay: fields.take("delay").and_then(|at| {
            let mut fields = Fields::open(d, &at)?;
            let share = required_percent(d, &mut fields);
            let duration = fields
                .require(d, "duration")
                .and_then(|at| d.span(&at, &limit::FAULT_DELAY_RANGE));
            fields.close(d);
            Some(FaultDelaySpec {
                percent: share?,
                duration: duration?,
            })
        }),
        abort: fields.take("abort").and_then(|at| {
            let mut fields = Fields::open(d, &at)?;
            let share = required_percent(d, &mut fields);
            let http = fields
                .take("status")
                .map(|at| status(d, &at, &limit::FAULT_STATUS_RANGE));
            let grpc = fields.take("grpcStatus").map(|at| grpc_code(d, &at));
            if http.is_some() == grpc.is_some() {
                let hint = "as in status: 503 or grpcStatus: UNAVAILABLE".to_owned();
                d.error(&at, "write either status or grpcStatus", Some(hint));
            }
            fields.close(d);
            Some(FaultAbortSpec {
                percent: share?,
                status: http.flatten(),
                grpc_status: grpc.flatten(),
            })
        }),
    }
}

fn required_percent(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Option<Percent> {
    let at = fields.require(d, "percent")?;
    d.percent(&at)
}

fn overrides(d: &mut Decoder<'_>, fields: &mut Fields<'_>) -> OverridesSpec {
    OverridesSpec {
        callers: fields.take("callers").map(|at| {
            let items = d.list(&at, limit::OVERRIDE_CALLERS_MAX);
            let patterns = items.iter();
            patterns.filter_map(|item| d.parsed(item, "")).collect()
        }),
    }
}

fn number(
    d: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
    range: &RangeInclusive<u32>,
) -> Option<u32> {
    let at = fields.take(name)?;
    d.integer(&at, *range.start(), *range.end())
}

fn truth(d: &mut Decoder<'_>, fields: &mut Fields<'_>, name: &'static str) -> Option<bool> {
    let at = fields.take(name)?;
    d.truth(&at)
}

fn percent(d: &mut Decoder<'_>, fields: &mut Fields<'_>, name: &'static str) -> Option<Percent> {
    let at = fields.take(name)?;
    d.percent(&at)
}

fn mode(d: &mut Decoder<'_>, fields: &mut Fields<'_>, name: &'static str) -> Option<Mode> {
    let at = fields.take(name)?;
    d.choice(&at, &MODES)
}

fn span(
    d: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
    range: &RangeInclusive<Duration>,
) -> Option<Span> {
    let at = fields.take(name)?;
    d.span(&at, range)
}

fn status(d: &mut Decoder<'_>, at: &At<'_>, range: &RangeInclusive<u16>) -> Option<u16> {
    let number = d.integer(at, (*range.start()).into(), (*range.end()).into())?;
    u16::try_from(number).ok()
}

fn grpc_code(d: &mut Decoder<'_>, at: &At<'_>) -> Option<GrpcCode> {
    d.choice(at, &GrpcCode::ALL.map(|code| (code.as_str(), code)))
}

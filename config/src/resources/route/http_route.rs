//! `gateway.networking.k8s.io/v1` HTTPRoute.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backends::{BackendRef, Extras, backends};
use super::duration::{duration, duration_or_zero};
use super::filters::{FilterType, Level, RouteFilter, filters, prefix_fault};
use super::matches::{HttpRouteMatch, matches};
use super::parents::ParentRef;
use super::rules::{DROPPED, Reader, RuleEntry, requests};
use super::section;
use super::session::{SessionPersistenceSpec, session};
use crate::limits;
use crate::limits::traffic as traffic_limits;
use crate::resources::decode::{At, Decoder, Fields, all_or_none};
use crate::resources::schema::{durations, durations_or_zero, numbers, some, up_to};
use crate::resources::{Span, TimeoutsSpec};

/// What an HTTPRoute says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The Services whose requests it routes.
    #[schemars(extend("x-range" = some(limits::PARENTS_PER_ROUTE_MAX)))]
    pub parent_refs: Vec<ParentRef>,
    /// Its rules. Of several that match a request, the most specific one takes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = some(limits::RULES_PER_ROUTE_MAX), "x-default" = "one that takes every request and answers 500"))]
    #[schemars(with = "Vec<HttpRouteRule>")]
    pub rules: Vec<RuleEntry<HttpRouteRule>>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpRouteRule {
    /// A name for people, a DNS-1123 subdomain. No other rule of the route has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters"))]
    pub name: Option<String>,
    /// Which requests the rule matches: those for which all conditions of any entry hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = format!("{}, {} in a route", up_to(limits::MATCHES_PER_RULE_MAX), limits::MATCHES_PER_ROUTE_MAX), "x-default" = "every request"))]
    pub matches: Vec<HttpRouteMatch>,
    /// What is done to its requests and their responses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::FILTERS_PER_RULE_MAX)))]
    pub filters: Vec<RouteFilter>,
    /// The Services to which the requests go, each by its weight. Without one, and without a redirect, the
    /// answer is 500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::BACKENDS_PER_RULE_MAX)))]
    pub backend_refs: Vec<BackendRef>,
    /// How long a request may take. These values come before those of every TrafficPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RouteTimeouts>")]
    pub timeouts: Option<TimeoutsSpec>,
    /// When a request is sent again. These values come before those of every TrafficPolicy, whose other
    /// fields hold as well: its budget bounds these retries, too, and only idempotent methods are retried
    /// unless it says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RouteRetrySpec>,
    /// How the requests of a client come to one endpoint, whatever the weights say. Without it, each request
    /// goes its own way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistenceSpec>,
}

/// The fields of a TrafficPolicy's timeouts that Gateway API has. Only described here: [`TimeoutsSpec`] is
/// what is read.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[expect(dead_code, reason = "a description, never made")]
struct RouteTimeouts {
    /// From the request's head to the response's end, all attempts together; then the caller gets 504, or
    /// DEADLINE_EXCEEDED for gRPC. `0s` is none.
    #[schemars(extend("x-range" = durations_or_zero(&traffic_limits::TIMEOUT_RANGE), "x-default" = "that of the TrafficPolicy"))]
    request: Option<Span>,
    /// The same for one attempt; at most `request`.
    #[schemars(extend("x-range" = durations_or_zero(&traffic_limits::TIMEOUT_RANGE), "x-default" = "that of the TrafficPolicy"))]
    backend_request: Option<Span>,
}

/// When a request is sent again (Gateway API v1, HTTPRouteRetry). A connection that fails, a stream that is
/// reset and an attempt that takes longer than `timeouts.backendRequest` are retried in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteRetrySpec {
    /// Statuses of responses that are retried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = format!("up to {} of {}", traffic_limits::RETRY_CODES_MAX, numbers(&traffic_limits::RETRY_CODES_RANGE))))]
    pub codes: Vec<u16>,
    /// Attempts after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = format!("1 to {}", traffic_limits::RETRY_ATTEMPTS_RANGE.end()), "x-default" = "that of the TrafficPolicy"))]
    pub attempts: Option<u32>,
    /// The least wait before a further attempt. A time that is drawn comes on top; it is bounded by this
    /// value at first, and by twice as much each further time, up to `retry.backoff.max` of the
    /// TrafficPolicy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = durations(&traffic_limits::RETRY_BACKOFF_RANGE), "x-default" = "that of the TrafficPolicy"))]
    pub backoff: Option<Span>,
}

const RULES: Reader<HttpRouteRule> = Reader {
    some: true,
    rule,
    outline: |rule| (rule.name.as_deref(), rule.matches.len()),
};

pub(in crate::resources) fn decode(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
) -> Option<HttpRouteSpec> {
    let (parent_refs, rules) = requests(decoder, at, &RULES)?;
    Some(HttpRouteSpec { parent_refs, rules })
}

fn rule(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpRouteRule> {
    let mut fields = Fields::open(decoder, at)?;
    fields.skip(DROPPED);
    let errors = decoder.findings.errors();
    let name = fields.take("name").map(|at| section(decoder, &at));
    let matches = matches(decoder, &mut fields);
    let filters_at = fields.take("filters");
    let filters = filters(decoder, &mut fields, Level::Http);
    let backends_at = fields.take("backendRefs");
    let backend_refs = backends(decoder, &mut fields, Extras::Filters(Level::Http));
    let timeouts = fields
        .take("timeouts")
        .and_then(|at| timeouts(decoder, &at));
    let retry = fields.take("retry").and_then(|at| retry(decoder, &at));
    let session_persistence = session(decoder, &mut fields);
    fields.close(decoder);
    if let Some(at) = &backends_at
        && filters
            .iter()
            .any(|one| one.kind == FilterType::RequestRedirect)
        && !backend_refs.is_empty()
    {
        let hint = "remove them, or the RequestRedirect filter of the rule".to_owned();
        let message = "a rule that redirects sends nothing to backends";
        decoder.error(at, message, Some(hint));
    }
    // A match that could not be read may have been the one.
    if decoder.findings.errors() == errors {
        let own = filters_at.iter().map(|at| (at, &filters));
        let of_backends = backends_at.iter();
        let of_backends =
            of_backends.flat_map(|at| backend_refs.iter().map(move |one| (at, &one.filters)));
        for (at, filters) in own.chain(of_backends) {
            if let Some(fault) = prefix_fault(filters, &matches) {
                let hint = "give the rule that match, or use ReplaceFullPath".to_owned();
                decoder.error(at, fault, Some(hint));
            }
        }
    }
    Some(HttpRouteRule {
        name: all_or_none(name)?,
        matches,
        filters,
        backend_refs,
        timeouts,
        retry,
        session_persistence: session_persistence?,
    })
}

fn timeouts(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<TimeoutsSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let mut timeout = |decoder: &mut Decoder<'_>, name| {
        let at = fields.take(name)?;
        let read = duration_or_zero(decoder, &at, &traffic_limits::TIMEOUT_RANGE);
        Some((at, read))
    };
    let (request, attempt) = (
        timeout(decoder, "request"),
        timeout(decoder, "backendRequest"),
    );
    fields.close(decoder);
    let timeouts = TimeoutsSpec {
        request: request.and_then(|(_, read)| read),
        backend_request: attempt.as_ref().and_then(|(_, read)| *read),
        stream_idle: None,
    };
    if let (Some((at, _)), Some((message, hint))) = (&attempt, timeouts.fault()) {
        decoder.error(at, message, Some(hint.to_owned()));
    }
    Some(timeouts)
}

fn retry(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<RouteRetrySpec> {
    let mut fields = Fields::open(decoder, at)?;
    let range = &traffic_limits::RETRY_CODES_RANGE;
    let codes = fields.take("codes").map(|at| {
        let items = decoder.list(&at, traffic_limits::RETRY_CODES_MAX);
        let read = items.iter().filter_map(|item| {
            let number = decoder.integer(item, (*range.start()).into(), (*range.end()).into())?;
            u16::try_from(number).ok()
        });
        read.collect()
    });
    let most = *traffic_limits::RETRY_ATTEMPTS_RANGE.end();
    let attempts = fields
        .take("attempts")
        .map(|at| decoder.integer(&at, 1, most));
    let backoff = fields
        .take("backoff")
        .map(|at| duration(decoder, &at, &traffic_limits::RETRY_BACKOFF_RANGE));
    fields.close(decoder);
    Some(RouteRetrySpec {
        codes: codes.unwrap_or_default(),
        attempts: all_or_none(attempts)?,
        backoff: all_or_none(backoff)?,
    })
}

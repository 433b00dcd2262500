//! `gateway.networking.k8s.io/v1` GRPCRoute.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backends::{BackendRef, Extras, backends};
use super::filters::{Level, RouteFilter, filters};
use super::matches::{
    HttpHeaderMatch, MatchType, add_headers, bounded, check_pattern, header_matches, match_type,
};
use super::parents::ParentRef;
use super::rules::{DROPPED, Reader, RuleEntry, requests};
use super::section;
use super::session::{SessionPersistenceSpec, session};
use crate::limits;
use crate::resources::decode::{At, Decoder, Fields, all_or_none};
use crate::resources::schema::{some, up_to};
use crate::table::{HttpMatch, PathMatch};

/// What a GRPCRoute says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    /// The Services whose calls it routes.
    #[schemars(extend("x-range" = some(limits::PARENTS_PER_ROUTE_MAX)))]
    pub parent_refs: Vec<ParentRef>,
    /// Its rules. Of several that match a call, the most specific one takes it. Without a rule, every call
    /// gets UNIMPLEMENTED.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<GrpcRouteRule>", extend("x-range" = up_to(limits::RULES_PER_ROUTE_MAX)))]
    pub rules: Vec<RuleEntry<GrpcRouteRule>>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GrpcRouteRule {
    /// A name for people, a DNS-1123 subdomain. No other rule of the route has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters"))]
    pub name: Option<String>,
    /// Which calls the rule matches: those for which all conditions of any entry hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = format!("{}, {} in a route", up_to(limits::MATCHES_PER_RULE_MAX), limits::MATCHES_PER_ROUTE_MAX), "x-default" = "every call"))]
    pub matches: Vec<GrpcRouteMatch>,
    /// What is done to its calls: filters of the types `RequestHeaderModifier`, `ResponseHeaderModifier`,
    /// `RequestMirror` and `ExtensionRef`, with the fields that they have in an
    /// [HTTPRoute](HTTPRoute.md#fields).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<super::backends::Map>", extend("x-range" = up_to(limits::FILTERS_PER_RULE_MAX)))]
    pub filters: Vec<RouteFilter>,
    /// The Services to which the calls go, each by its weight. Without one, every call gets UNAVAILABLE.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::BACKENDS_PER_RULE_MAX)))]
    pub backend_refs: Vec<BackendRef>,
    /// How the calls of a client come to one endpoint, whatever the weights say: the same fields as in an
    /// [HTTPRoute](HTTPRoute.md#fields). Cookies and headers are metadata here. Without it, each call goes
    /// its own way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<super::backends::Map>")]
    pub session_persistence: Option<SessionPersistenceSpec>,
}

/// Conditions on a call; all that are present must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcRouteMatch {
    /// Which method is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "every method"))]
    pub method: Option<GrpcMethodMatch>,
    /// Metadata that the call must have, all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::HEADERS_PER_MATCH_MAX), "x-default" = "none"))]
    pub headers: Vec<HttpHeaderMatch>,
}

/// A service, a method, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcMethodMatch {
    /// How both are compared.
    #[serde(rename = "type", default, skip_serializing_if = "is_exact")]
    pub kind: MatchType,
    /// The service with its package, as `shop.Orders`. Write it, `method` or both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 1024 characters", "x-default" = "every service"))]
    pub service: Option<String>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 1024 characters", "x-default" = "every method"))]
    pub method: Option<String>,
}

fn is_exact(kind: &MatchType) -> bool {
    *kind == MatchType::Exact
}

impl GrpcRouteMatch {
    /// As a table has it: a call is a request to `/SERVICE/METHOD`. `None` if a regular expression is none,
    /// which no document has that this build read.
    pub(crate) fn compiled(&self) -> Option<HttpMatch> {
        let mut compiled = HttpMatch::default();
        if let Some(method) = &self.method {
            compiled.path = Some(method.compiled()?);
        }
        add_headers(&mut compiled, &self.headers)?;
        Some(compiled)
    }

    /// How specific it is: characters of the service, then of the method (Gateway API v1,
    /// GRPCRouteRule.matches).
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let length = |text: &Option<String>| text.as_ref().map_or(0, |text| text.chars().count());
        let method = self.method.as_ref();
        method.map_or((0, 0), |one| (length(&one.service), length(&one.method)))
    }
}

impl GrpcMethodMatch {
    fn compiled(&self) -> Option<PathMatch> {
        const ANY: &str = "[^/]+";
        let escaped = |text: &str| match self.kind {
            MatchType::Exact => regex::escape(text),
            MatchType::RegularExpression => format!("(?:{text})"),
        };
        Some(match (&self.service, &self.method, self.kind) {
            (Some(service), Some(method), MatchType::Exact) => {
                PathMatch::Exact(format!("/{service}/{method}"))
            }
            (Some(service), None, MatchType::Exact) => PathMatch::Prefix(format!("/{service}")),
            (service, method, _) => {
                let part = |text: &Option<String>| text.as_deref().map_or(ANY.to_owned(), escaped);
                let text = format!("/{}/{}", part(service), part(method));
                PathMatch::Pattern(text.parse().ok()?)
            }
        })
    }
}

const RULES: Reader<GrpcRouteRule> = Reader {
    some: false,
    rule,
    outline: |rule| (rule.name.as_deref(), rule.matches.len()),
};

pub(in crate::resources) fn decode(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
) -> Option<GrpcRouteSpec> {
    let (parent_refs, rules) = requests(decoder, at, &RULES)?;
    Some(GrpcRouteSpec { parent_refs, rules })
}

fn rule(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<GrpcRouteRule> {
    let mut fields = Fields::open(decoder, at)?;
    fields.skip(DROPPED);
    let name = fields.take("name").map(|at| section(decoder, &at));
    let matches = fields.take("matches").map(|at| {
        let items = decoder.list(&at, limits::MATCHES_PER_RULE_MAX);
        let read = items.iter().filter_map(|item| call_match(decoder, item));
        read.collect()
    });
    let filters = filters(decoder, &mut fields, Level::Grpc);
    let backend_refs = backends(decoder, &mut fields, Extras::Filters(Level::Grpc));
    let session_persistence = session(decoder, &mut fields);
    fields.close(decoder);
    Some(GrpcRouteRule {
        name: all_or_none(name)?,
        matches: matches.unwrap_or_default(),
        filters,
        backend_refs,
        session_persistence: session_persistence?,
    })
}

fn call_match(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<GrpcRouteMatch> {
    let mut fields = Fields::open(decoder, at)?;
    let method = fields.take("method").map(|at| method_match(decoder, &at));
    let headers = header_matches(decoder, &mut fields);
    fields.close(decoder);
    Some(GrpcRouteMatch {
        method: all_or_none(method)?,
        headers,
    })
}

fn method_match(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<GrpcMethodMatch> {
    let mut fields = Fields::open(decoder, at)?;
    let kind = match_type(decoder, &mut fields);
    let mut part = |decoder: &mut Decoder<'_>, name, is_valid: fn(&str) -> bool, hint: &str| {
        let at = fields.take(name)?;
        let read = bounded(decoder, &at, 1..=limits::PATH_LENGTH_MAX).and_then(|text| match kind {
            Some(MatchType::RegularExpression) => check_pattern(decoder, &at, &text).map(|()| text),
            Some(MatchType::Exact) if !is_valid(&text) => {
                let message = format!("{text:?} is not valid");
                decoder.error(&at, message, Some(hint.to_owned()));
                None
            }
            Some(MatchType::Exact) | None => Some(text),
        });
        Some(read)
    };
    let hint = "write the service with its package, as shop.Orders";
    let service = part(decoder, "service", is_service, hint);
    let hint = "write the name of the method alone, as Place";
    let method = part(decoder, "method", is_word, hint);
    if !fields.has("service") && !fields.has("method") {
        let hint = "write service, method or both".to_owned();
        decoder.error(at, "names neither a service nor a method", Some(hint));
        return None;
    }
    fields.close(decoder);
    let read = GrpcMethodMatch {
        kind: kind?,
        service: all_or_none(service)?,
        method: all_or_none(method)?,
    };
    if read.compiled().is_none() {
        let hint = "write shorter ones".to_owned();
        let message = "the regular expressions are too large together";
        decoder.error(at, message, Some(hint));
        return None;
    }
    Some(read)
}

/// `[A-Za-z_][A-Za-z_0-9]*`
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Words with dots between; one more may come first (Gateway API v1, GRPCMethodMatch.service).
fn is_service(text: &str) -> bool {
    text.strip_prefix('.')
        .unwrap_or(text)
        .split('.')
        .all(is_word)
}

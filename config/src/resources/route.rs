//! `gateway.networking.k8s.io/v1` HTTPRoute, the part that weft runs. Everything else of Gateway API
//! v1.5 is refused by name, so that a route never does less than it says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{At, Decoder, Fields};
use super::schema::{durations_or_zero, numbers, some, up_to};
use super::service::port_number;
use super::traffic::{Span, TimeoutsSpec, route_timeouts};
use crate::limits;
use crate::table::PathMatch;

/// What an HTTPRoute says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The Services whose requests it routes, in its own namespace.
    #[schemars(extend("x-range" = some(limits::PARENTS_PER_ROUTE_MAX)))]
    pub parent_refs: Vec<ParentRef>,
    /// Its rules. Of several that match a request, the most specific one takes it.
    #[schemars(extend("x-range" = some(limits::RULES_PER_ROUTE_MAX)))]
    pub rules: Vec<HttpRouteRule>,
}

/// A Service, or one port of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ParentRef {
    /// The kind of the parent. It must be written, because Gateway API takes a Gateway where it is not.
    /// `group` may stand beside it: empty, `core` or `weft.dev`.
    #[schemars(extend("x-range" = "`Service`"))]
    pub kind: String,
    /// The name of a Service of the route's namespace.
    pub name: String,
    /// One port of it, `http` or `grpc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 65535", "x-default" = "all its `http` and `grpc` ports"))]
    pub port: Option<u16>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpRouteRule {
    /// A name for people, a DNS-1123 label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which requests the rule matches: those for which all conditions of any entry hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::MATCHES_PER_RULE_MAX), "x-default" = "every request"))]
    pub matches: Vec<HttpRouteMatch>,
    /// The Services to which the requests go, each by its weight.
    #[schemars(extend("x-range" = some(limits::BACKENDS_PER_RULE_MAX)))]
    pub backend_refs: Vec<BackendRef>,
    /// How long a request may take. These values come before those of every TrafficPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RouteTimeouts>")]
    pub timeouts: Option<TimeoutsSpec>,
}

/// The fields of a TrafficPolicy's timeouts that Gateway API has. Only described here: [`TimeoutsSpec`] is
/// what is read.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[expect(dead_code, reason = "a description, never made")]
struct RouteTimeouts {
    /// From the request's head to the response's end, all attempts together; then the caller gets 504, or
    /// DEADLINE_EXCEEDED for gRPC. `0s` is none.
    #[schemars(extend("x-range" = durations_or_zero(&limits::traffic::TIMEOUT_RANGE), "x-default" = "that of the TrafficPolicy"))]
    request: Option<Span>,
    /// The same for one attempt; at most `request`.
    #[schemars(extend("x-range" = durations_or_zero(&limits::traffic::TIMEOUT_RANGE), "x-default" = "that of the TrafficPolicy"))]
    backend_request: Option<Span>,
}

/// Conditions on a request; all that are present must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// A condition on the path, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "every path"))]
    pub path: Option<HttpPathMatch>,
    /// The method, in upper case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "every method"))]
    pub method: Option<String>,
    /// Headers that the request must have, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-range" = up_to(limits::HEADERS_PER_MATCH_MAX), "x-default" = "none"))]
    pub headers: Vec<HttpHeaderMatch>,
}

/// A condition on a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpPathMatch {
    /// How the path is compared.
    #[serde(rename = "type")]
    #[schemars(default = "prefix")]
    pub kind: PathMatchType,
    /// What it is compared with; it begins with `/`.
    #[schemars(default = "root", extend("x-range" = format!("up to {} characters", limits::PATH_LENGTH_MAX)))]
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// the whole path is equal.
    Exact,
    /// the path begins with these whole segments: `/v2` takes `/v2` and `/v2/a`, not `/v2a`.
    PathPrefix,
}

/// A header and the value that it must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpHeaderMatch {
    /// The header's name, in any case. `type: Exact` may stand beside it. Names that begin with `weft-` are
    /// the mesh's own.
    pub name: String,
    /// The value that a line of the header must equal.
    pub value: String,
}

/// A Service of the route's namespace, with a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BackendRef {
    /// The name of a Service of the route's namespace. `kind: Service` may stand beside it, and `group` as in
    /// a parent.
    pub name: String,
    /// Its port, `http` or `grpc`.
    #[schemars(extend("x-range" = "1 to 65535"))]
    pub port: u16,
    /// Its share of the sum of the weights of the rule. 0 takes no request. The sum is 1 to 1000000.
    #[serde(default = "one")]
    #[schemars(extend("x-range" = numbers(&(0..=limits::WEIGHT_MAX))))]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

fn prefix() -> PathMatchType {
    PathMatchType::PathPrefix
}

fn root() -> String {
    "/".to_owned()
}

impl HttpPathMatch {
    pub(crate) fn compiled(&self) -> PathMatch {
        match self.kind {
            PathMatchType::Exact => PathMatch::Exact(self.value.clone()),
            PathMatchType::PathPrefix => PathMatch::Prefix(self.value.clone()),
        }
    }
}

pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpRouteSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let parent_refs = fields.require(decoder, "parentRefs").map(|at| {
        let items = decoder.list_of_some(&at, limits::PARENTS_PER_ROUTE_MAX);
        items
            .iter()
            .filter_map(|item| parent(decoder, item))
            .collect()
    });
    let rules = fields.require(decoder, "rules").map(|at| {
        let items = decoder.list_of_some(&at, limits::RULES_PER_ROUTE_MAX);
        items
            .iter()
            .filter_map(|item| rule(decoder, item))
            .collect()
    });
    fields.refuse(
        decoder,
        "hostnames",
        "a route belongs to the Services of its parentRefs",
    );
    fields.refuse(decoder, "useDefaultGateways", "a parentRef names a Service");
    fields.close(decoder);
    Some(HttpRouteSpec {
        parent_refs: parent_refs?,
        rules: rules?,
    })
}

fn parent(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ParentRef> {
    let mut fields = Fields::open(decoder, at)?;
    service_group(decoder, &mut fields, true);
    let name = fields
        .require(decoder, "name")
        .and_then(|at| super::label(decoder, &at));
    let port = fields.take("port").map(|at| port_number(decoder, &at));
    fields.refuse(
        decoder,
        "namespace",
        "put the route into the namespace of the Service",
    );
    fields.refuse(
        decoder,
        "sectionName",
        "name the port by its number: port: 80",
    );
    fields.close(decoder);
    let port = match port {
        Some(None) => return None,
        Some(port) => port,
        None => None,
    };
    Some(ParentRef {
        kind: "Service".to_owned(),
        name: name?,
        port,
    })
}

/// The group and kind of a reference to a Service. Gateway API's default for a parent is a Gateway,
/// so there the kind must be written.
fn service_group(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>, is_parent: bool) {
    if let Some(at) = fields.take("group") {
        decoder.choice(&at, &[("", ()), ("core", ()), ("weft.dev", ())]);
    }
    let kind = if is_parent {
        fields.require(decoder, "kind")
    } else {
        fields.take("kind")
    };
    if let Some(at) = kind
        && decoder.text(&at).is_some_and(|kind| kind != "Service")
    {
        decoder.error(
            &at,
            "only a Service is supported",
            Some("write kind: Service".to_owned()),
        );
    }
}

const FILTERS_HINT: &str = "weft routes requests unchanged for now; remove the filters";

fn rule(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpRouteRule> {
    let mut fields = Fields::open(decoder, at)?;
    let name = fields
        .take("name")
        .and_then(|at| super::label(decoder, &at));
    let matches = fields.take("matches").map(|at| {
        let items = decoder.list(&at, limits::MATCHES_PER_RULE_MAX);
        items
            .iter()
            .filter_map(|item| request_match(decoder, item))
            .collect()
    });
    let backend_refs = fields.require(decoder, "backendRefs").map(|at| {
        let items = decoder.list_of_some(&at, limits::BACKENDS_PER_RULE_MAX);
        items
            .iter()
            .filter_map(|item| backend(decoder, item))
            .collect()
    });
    fields.refuse(decoder, "filters", FILTERS_HINT);
    let timeouts = fields.take("timeouts").and_then(|at| {
        let mut fields = Fields::open(decoder, &at)?;
        let timeouts = route_timeouts(decoder, &mut fields);
        fields.close(decoder);
        Some(timeouts)
    });
    let hint = "write it into a TrafficPolicy for this route";
    fields.refuse(decoder, "retry", hint);
    let hint = "let a TrafficPolicy for the Service balance by a cookie";
    fields.refuse(decoder, "sessionPersistence", hint);
    fields.close(decoder);
    Some(HttpRouteRule {
        name,
        matches: matches.unwrap_or_default(),
        backend_refs: backend_refs?,
        timeouts,
    })
}

fn request_match(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpRouteMatch> {
    let mut fields = Fields::open(decoder, at)?;
    let path = fields.take("path").and_then(|at| path_match(decoder, &at));
    let method = fields
        .take("method")
        .and_then(|at| super::method(decoder, &at));
    let headers = fields.take("headers").map(|at| {
        let items = decoder.list(&at, limits::HEADERS_PER_MATCH_MAX);
        items
            .iter()
            .filter_map(|item| header_match(decoder, item))
            .collect()
    });
    fields.refuse(
        decoder,
        "queryParams",
        "match on the path, the method or headers",
    );
    fields.close(decoder);
    Some(HttpRouteMatch {
        path,
        method,
        headers: headers.unwrap_or_default(),
    })
}

fn path_match(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpPathMatch> {
    let mut fields = Fields::open(decoder, at)?;
    let kinds = [
        ("Exact", PathMatchType::Exact),
        ("PathPrefix", PathMatchType::PathPrefix),
    ];
    let kind = match fields.take("type") {
        Some(at) if is_text(&at, "RegularExpression") => {
            let hint = Some("use Exact or PathPrefix".to_owned());
            decoder.error(&at, "RegularExpression is not supported yet", hint);
            None
        }
        Some(at) => decoder.choice(&at, &kinds),
        None => Some(prefix()),
    };
    let value = match fields.take("value") {
        Some(at) => decoder
            .text(&at)
            .filter(|value| match crate::table::check_path(value) {
                Ok(()) => true,
                Err(error) => {
                    decoder.error(&at, format!("{value:?} is not valid: {error}"), None);
                    false
                }
            }),
        None => Some(root()),
    };
    fields.close(decoder);
    Some(HttpPathMatch {
        kind: kind?,
        value: value?,
    })
}

fn header_match(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<HttpHeaderMatch> {
    let mut fields = Fields::open(decoder, at)?;
    if let Some(at) = fields.take("type") {
        if is_text(&at, "RegularExpression") {
            let hint = Some("use Exact".to_owned());
            decoder.error(&at, "RegularExpression is not supported yet", hint);
        } else {
            decoder.choice(&at, &[("Exact", ())]);
        }
    }
    let name = fields
        .require(decoder, "name")
        .and_then(|at| decoder.header_name(&at));
    let value = fields.require(decoder, "value").and_then(|at| {
        let value = decoder.text(&at)?;
        if http::HeaderValue::from_str(&value).is_err() {
            decoder.error(&at, "no header can have this value", None);
        }
        Some(value)
    });
    fields.close(decoder);
    Some(HttpHeaderMatch {
        name: name?,
        value: value?,
    })
}

fn backend(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<BackendRef> {
    let mut fields = Fields::open(decoder, at)?;
    service_group(decoder, &mut fields, false);
    let name = fields
        .require(decoder, "name")
        .and_then(|at| super::label(decoder, &at));
    let port = fields
        .require(decoder, "port")
        .and_then(|at| port_number(decoder, &at));
    let most = u32::try_from(limits::WEIGHT_MAX).unwrap_or(u32::MAX);
    let weight = match fields.take("weight") {
        Some(at) => decoder.integer(&at, 0, most),
        None => Some(one()),
    };
    fields.refuse(
        decoder,
        "namespace",
        "backends are in the namespace of the route",
    );
    fields.refuse(decoder, "filters", FILTERS_HINT);
    fields.close(decoder);
    Some(BackendRef {
        name: name?,
        port: port?,
        weight: weight?,
    })
}

fn is_text(at: &At<'_>, text: &str) -> bool {
    matches!(&at.node.value, crate::yaml::Value::Text(found) if found == text)
}

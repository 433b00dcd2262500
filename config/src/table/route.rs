//! Rules of routes: which requests each takes, what is done to them, and where they go.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::filters::Filters;
use super::session::Persistence;
use super::traffic;
use super::{HostPattern, Pattern, RequestTraffic, ServiceName};

/// One rule of a route: which requests it takes and where they go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRule {
    /// The resource it comes from, such as `HTTPRoute/shop/orders-split`; for logs and metrics.
    pub route: String,
    /// Any of these suffices; empty means every request. The compiler writes one rule per match.
    #[serde(default)]
    pub matches: Vec<HttpMatch>,
    /// Of a port of tcp: the hosts that clients of TLS ask for. Where any rule of the port has some, only
    /// such connections are taken, by the rule with the most specific host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// Where requests go, by weight. A rule with no backend, or with a sum of weights of 0, answers 500
    /// (Gateway API, HTTPRouteRule.backendRefs), unless a filter answers.
    pub backends: Vec<Backend>,
    /// How its requests are treated. What concerns endpoints stands with the port of each backend.
    #[serde(default, skip_serializing_if = "traffic::is_default")]
    pub traffic: Arc<RequestTraffic>,
    /// What is done to its requests and their responses.
    #[serde(default, skip_serializing_if = "traffic::is_default")]
    pub filters: Arc<Filters>,
    /// How the requests of a client come to one endpoint, whatever the weights say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<Persistence>>,
}

/// Conditions on a request; all that are present must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpMatch {
    /// On the path without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// The exact method, such as `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header names in lower case, each with the exact value that one of its lines, or all of them joined,
    /// must have. `host` is the authority as the client wrote it, whether in `Host` or in `:authority`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The same with a pattern that one of its lines, or all of them joined, must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header_patterns: Vec<(String, Pattern)>,
    /// Names of parameters of the query, each with the exact value that the first of that name must have.
    /// Both are compared after percent-decoding, with `+` as a space.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<(String, String)>,
    /// The same with a pattern.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_patterns: Vec<(String, Pattern)>,
}

/// A condition on a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments from the start: `/v2` takes `/v2` and `/v2/a` but not `/v2a`.
    Prefix(String),
    /// The whole path matches this.
    Pattern(Pattern),
}

/// A weighted destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The service whose endpoints take the request.
    pub service: ServiceName,
    /// Its port.
    pub port: u16,
    /// Its share of the sum of the rule's weights.
    pub weight: u32,
    /// What is done to the requests that go there, after the filters of the rule.
    #[serde(default, skip_serializing_if = "traffic::is_default")]
    pub filters: Arc<Filters>,
    /// Why no request can go there. Its share is answered with 500 and never moved to others (Gateway API,
    /// HTTPBackendRef).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<Broken>,
}

impl Backend {
    /// A destination without filters.
    pub fn new(service: ServiceName, port: u16, weight: u32) -> Self {
        Self {
            service,
            port,
            weight,
            filters: Arc::default(),
            broken: None,
        }
    }
}

/// Why a reference to a backend leads nowhere: the reasons of the condition `ResolvedRefs` (Gateway API,
/// RouteConditionReason).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Broken {
    /// Its group and kind name nothing that weft routes to.
    InvalidKind,
    /// There is no such Service, or it has no such port.
    BackendNotFound,
    /// It stands in another namespace, and no ReferenceGrant there permits the reference where the mesh asks
    /// for one.
    RefNotPermitted,
    /// Its port speaks something that this kind of route cannot send.
    UnsupportedProtocol,
}

impl Broken {
    /// The reason as Gateway API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidKind => "InvalidKind",
            Self::BackendNotFound => "BackendNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
        }
    }
}

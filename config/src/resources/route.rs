//! Routes of Gateway API v1, of every kind: what they have in common (parents, backends, conditions, filters)
//! has a file each, as has each kind. What the API defines and weft does not act on is refused by name, so
//! that a route never does less than it says.

mod backends;
mod duration;
mod filters;
mod grpc_route;
mod http_route;
mod matches;
mod parents;
mod rules;
mod session;
mod tcp_route;
mod tls_route;

use super::decode::{At, Decoder};
use super::{
    GrpcRouteSpec, HttpRouteSpec, Key, Kind, Metadata, Resource, RetrySpec, SpanRange, Spec,
    TcpRouteSpec, TlsRouteSpec, TrafficSpec,
};
use crate::table::HostPattern;

pub use backends::BackendRef;
pub(crate) use filters::compiled as compiled_filters;
pub use filters::{
    CorsSpec, ExtensionRefSpec, FilterType, FractionSpec, HeaderModifierSpec, HeaderSpec,
    PathModifierSpec, PathModifierType, RedirectScheme, RequestMirrorSpec, RequestRedirectSpec,
    RouteFilter, UrlRewriteSpec,
};
pub use grpc_route::{GrpcMethodMatch, GrpcRouteMatch, GrpcRouteRule};
pub use http_route::{HttpRouteRule, RouteRetrySpec};
pub use matches::{
    HttpHeaderMatch, HttpPathMatch, HttpQueryParamMatch, HttpRouteMatch, MatchType, PathMatchType,
};
pub use parents::ParentRef;
pub(crate) use parents::is_core;
pub use rules::{DroppedRule, RuleEntry};
pub use session::{
    CookieConfigSpec, CookieLifetime, SessionCookieSpec, SessionHeaderSpec, SessionPersistenceSpec,
    SessionType,
};
pub use tcp_route::TcpRouteRule;

pub(super) use grpc_route::decode as decode_grpc;
pub(super) use http_route::decode as decode_http;
pub(super) use tcp_route::decode as decode_tcp;
pub(super) use tls_route::decode as decode_tls;

/// The specs of the kinds, which [`super::Resource`] lists.
pub(super) mod specs {
    pub use super::grpc_route::GrpcRouteSpec;
    pub use super::http_route::HttpRouteSpec;
    pub use super::tcp_route::TcpRouteSpec;
    pub use super::tls_route::TlsRouteSpec;
}

/// A route of any kind.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// What names it.
    pub key: &'a Key,
    /// Its name, age and notes.
    pub metadata: &'a Metadata,
    /// The Services whose traffic it routes.
    pub parents: &'a [ParentRef],
    /// What it says of that.
    pub rules: Rules<'a>,
}

/// The rules of a route, by its kind.
#[derive(Clone, Copy, Debug)]
pub enum Rules<'a> {
    /// Of an HTTPRoute. None at all is one without conditions and backends.
    Http(&'a [RuleEntry<HttpRouteRule>]),
    /// Of a GRPCRoute. None at all takes no call.
    Grpc(&'a [RuleEntry<GrpcRouteRule>]),
    /// Of a TLSRoute, with the hosts that hold for all of them.
    Tls(&'a [TcpRouteRule], &'a [HostPattern]),
    /// Of a TCPRoute.
    Tcp(&'a [TcpRouteRule]),
}

/// What the rules of all kinds have.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// Its name, if it has one.
    pub name: Option<&'a str>,
    /// What is done to its requests.
    pub filters: &'a [RouteFilter],
    /// Where they go.
    pub backends: &'a [BackendRef],
    /// How those of a client come to one endpoint.
    pub session: Option<&'a SessionPersistenceSpec>,
}

/// A reference of a route to a backend.
#[derive(Clone, Debug)]
pub struct Reference<'a> {
    /// Its field, such as `spec.rules[0].backendRefs[1]`.
    pub field: String,
    /// The reference.
    pub to: &'a BackendRef,
    /// Whether only copies of requests go there.
    pub is_mirror: bool,
}

impl<'a> Route<'a> {
    /// The resource as a route, if it is one.
    pub(super) fn of(key: &'a Key, resource: &'a Resource) -> Option<Self> {
        let (metadata, parents, rules) = if let Some(http) = HttpRouteSpec::of(resource) {
            let spec = &http.spec;
            (&http.metadata, &spec.parent_refs, Rules::Http(&spec.rules))
        } else if let Some(grpc) = GrpcRouteSpec::of(resource) {
            let spec = &grpc.spec;
            (&grpc.metadata, &spec.parent_refs, Rules::Grpc(&spec.rules))
        } else if let Some(tls) = TlsRouteSpec::of(resource) {
            let spec = &tls.spec;
            let rules = Rules::Tls(&spec.rules, &spec.hostnames);
            (&tls.metadata, &spec.parent_refs, rules)
        } else {
            let tcp = TcpRouteSpec::of(resource)?;
            let spec = &tcp.spec;
            (&tcp.metadata, &spec.parent_refs, Rules::Tcp(&spec.rules))
        };
        Some(Self {
            key,
            metadata,
            parents,
            rules,
        })
    }

    /// The namespace of a parent.
    pub fn namespace_of(&self, parent: &'a ParentRef) -> &'a str {
        parent.namespace.as_deref().unwrap_or(&self.key.namespace)
    }

    /// Its rules, each with its number. Those that are left out are not among them.
    pub fn rules(&self) -> impl Iterator<Item = (usize, Rule<'a>)> + use<'a> {
        let rules = self.rules;
        (0..rules.len()).filter_map(move |at| Some((at, rules.rule(at)?)))
    }

    /// The rules that are left out.
    pub fn dropped(&self) -> impl Iterator<Item = &'a DroppedRule> + use<'a> {
        let rules = self.rules;
        (0..rules.len()).filter_map(move |at| rules.dropped(at))
    }

    /// Whether it has rules, and all of them are left out. It is in force nowhere then.
    pub fn is_without_valid_rule(&self) -> bool {
        !self.rules.is_empty() && self.rules().next().is_none()
    }

    /// All references to backends, those of mirrors included.
    pub fn references(&self) -> impl Iterator<Item = Reference<'a>> + use<'a> {
        self.rules()
            .flat_map(|(i, rule)| rule.references(&format!("spec.rules[{i}]")))
    }

    /// Names a rule in logs and metrics: by its own name, or by its number where there are several.
    pub fn name_of(&self, at: usize) -> String {
        let key = self.key;
        match self.rules.rule(at).and_then(|rule| rule.name) {
            Some(name) => format!("{key}/{name}"),
            None if self.rules.len() > 1 => format!("{key}/{at}"),
            None => key.to_string(),
        }
    }

    /// What tells the sessions of a rule from those of others. A rule without a name is known by its place,
    /// also where it is the only one: a rule that is added after it ends no session.
    pub(crate) fn scope_of(&self, at: usize) -> String {
        let key = self.key;
        match self.rules.rule(at).and_then(|rule| rule.name) {
            Some(name) => format!("{key}/{name}"),
            None => format!("{key}#{at}"),
        }
    }
}

impl<'a> Rules<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Http(rules) => rules.len(),
            Self::Grpc(rules) => rules.len(),
            Self::Tls(rules, _) => rules.len(),
            Self::Tcp(rules) => rules.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn rule(self, at: usize) -> Option<Rule<'a>> {
        match self {
            Self::Http(rules) => rules.get(at)?.rule().map(|rule| Rule {
                name: rule.name.as_deref(),
                filters: &rule.filters,
                backends: &rule.backend_refs,
                session: rule.session_persistence.as_ref(),
            }),
            Self::Grpc(rules) => rules.get(at)?.rule().map(|rule| Rule {
                name: rule.name.as_deref(),
                filters: &rule.filters,
                backends: &rule.backend_refs,
                session: rule.session_persistence.as_ref(),
            }),
            Self::Tls(rules, _) => rules.get(at).map(|rule| Rule {
                name: rule.name.as_deref(),
                filters: &[],
                backends: &rule.backend_refs,
                session: None,
            }),
            Self::Tcp(rules) => rules.get(at).map(|rule| Rule {
                name: rule.name.as_deref(),
                filters: &[],
                backends: &rule.backend_refs,
                session: None,
            }),
        }
    }

    fn dropped(self, at: usize) -> Option<&'a DroppedRule> {
        match self {
            Self::Http(rules) => rules.get(at)?.dropped(),
            Self::Grpc(rules) => rules.get(at)?.dropped(),
            Self::Tls(..) | Self::Tcp(_) => None,
        }
    }

    /// What a rule says of traffic, beside the policies.
    pub(crate) fn traffic(&self, at: usize) -> Option<TrafficSpec> {
        let Self::Http(rules) = self else {
            return None;
        };
        let rule = rules.get(at)?.rule()?;
        if rule.timeouts.is_none() && rule.retry.is_none() {
            return None;
        }
        Some(TrafficSpec {
            timeouts: rule.timeouts.clone().unwrap_or_default(),
            retry: rule.retry.as_ref().map(retried).unwrap_or_default(),
            ..TrafficSpec::default()
        })
    }
}

/// Gateway API v1, HTTPRouteRetry: with a stanza, failures of a connection are retried in any case, and
/// statuses only where it lists them.
fn retried(retry: &RouteRetrySpec) -> RetrySpec {
    RetrySpec {
        attempts: retry.attempts,
        reset_before_response: Some(true),
        codes: Some(retry.codes.clone()),
        backoff: SpanRange {
            base: retry.backoff,
            max: None,
        },
        ..RetrySpec::default()
    }
}

impl<'a> Rule<'a> {
    /// Its references to backends; `at` is its own field.
    fn references(&self, at: &str) -> Vec<Reference<'a>> {
        let mut found = mirrors(&format!("{at}.filters"), self.filters);
        for (i, backend) in self.backends.iter().enumerate() {
            let field = format!("{at}.backendRefs[{i}]");
            found.extend(mirrors(&format!("{field}.filters"), &backend.filters));
            found.push(Reference {
                field,
                to: backend,
                is_mirror: false,
            });
        }
        found
    }
}

fn mirrors<'a>(at: &str, filters: &'a [RouteFilter]) -> Vec<Reference<'a>> {
    let mirrors = filters.iter().enumerate().filter_map(|(i, filter)| {
        let mirror = filter.request_mirror.as_ref()?;
        Some(Reference {
            field: format!("{at}[{i}].requestMirror.backendRef"),
            to: &mirror.backend_ref,
            is_mirror: true,
        })
    });
    mirrors.collect()
}

impl Kind {
    /// Whether it is a kind of routes.
    pub const fn is_route(self) -> bool {
        self.is_of_connections() || matches!(self, Self::HttpRoute | Self::GrpcRoute)
    }

    /// Whether it is a kind of routes for connections, and not for requests.
    pub const fn is_of_connections(self) -> bool {
        matches!(self, Self::TlsRoute | Self::TcpRoute)
    }
}

/// Reads the name of a rule or of a port in a `sectionName`: a DNS-1123 subdomain.
fn section(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<String> {
    let text = decoder.text(at)?;
    if is_subdomain(&text) {
        return Some(text);
    }
    let hint = "use a-z, 0-9, - and dots between, at most 253 characters".to_owned();
    decoder.error(at, format!("{text:?} is not valid"), Some(hint));
    None
}

/// Whether it is a DNS-1123 subdomain (Gateway API v1, SectionName and PreciseHostname).
fn is_subdomain(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(plain)
            && bytes.last().is_some_and(plain)
            && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
    };
    text.len() <= crate::limits::SUBDOMAIN_LENGTH_MAX && text.split('.').all(is_label)
}

//! The traffic policy in force for a Service or route, with the sessions and filters of rules, and the source
//! of each value: the answer of `weft get --effective`. Pure; the code that compiles tables resolves the
//! values.

mod filters;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use weft_transport::units::format_duration;

use super::attachments::{Act, Attachments, Fit, parent_name};
use super::traffic::Policies;
use crate::resources::{CookieLifetime, FIELDS, Key, Kind, ParentRef, Route, Rule, Set};
use crate::table::{Carrier, ServiceName};

/// The values in force at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// A Service, or rules of a route with the Service whose requests they take.
    pub place: String,
    /// Each field that has a meaning there.
    pub fields: Vec<Effective>,
}

/// The value of one field that is in force, and its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The field, as in `retry.attempts`.
    pub field: &'static str,
    /// Its value as a policy would write it; null means none.
    pub value: Value,
    /// The source of the value.
    pub from: Origin,
}

/// The possible sources of a value, the most specific first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// A rule of an HTTPRoute.
    Rule(String),
    /// A policy for the HTTPRoute.
    Route(String),
    /// A policy for the Service.
    Service(String),
    /// A policy for the namespace.
    Namespace(String),
    /// The MeshConfig.
    Mesh(String),
    /// A setting of each sidecar, with its default.
    Setting(&'static str),
    /// No resource and no setting: the default holds.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(place) => write!(f, "rule: {place}"),
            Self::Route(policy) => write!(f, "route: {policy}"),
            Self::Service(policy) => write!(f, "service: {policy}"),
            Self::Namespace(policy) => write!(f, "namespace: {policy}"),
            Self::Mesh(config) => write!(f, "mesh: {config}"),
            Self::Setting(name) => write!(f, "setting of the sidecar: {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What is in force for a Service, HTTPRoute or GRPCRoute of `set`: one place for a Service, and one for each
/// rule there that says something of its own (filters, sessions, timeouts, retries); for a route as many as
/// its rules and parents differ. A backend with filters is a place, too. `None` if there is no such resource,
/// or if its kind has no traffic.
pub fn effective(set: &Set, key: &Key) -> Option<Vec<Place>> {
    let policies = Policies::new(set);
    if let Some(route) = set.route(key) {
        return (!key.kind.is_of_connections()).then(|| of_route(&policies, &route));
    }
    if !matches!(key.kind, Kind::Service | Kind::ExternalService) {
        return None;
    }
    let service = set.destination(key.kind, &key.namespace, &key.name)?;
    let has_requests = service
        .ports
        .iter()
        .any(|port| port.protocol.has_requests());
    let means_something = |one: &Effective| {
        let mut fields = FIELDS.iter();
        fields.any(|field| field.path == one.field && (has_requests || field.on_tcp))
    };
    let name = ServiceName {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    };
    let mut fields = policies.why_service(&name);
    fields.retain(means_something);
    let place = key.to_string();
    let own = Place { place, fields };
    Some(
        [own]
            .into_iter()
            .chain(rules_at(set, &policies, &name))
            .collect(),
    )
}

/// What resources say of the requests to a Service that a rule takes, named as in logs, or no rule: each
/// value that is no default, with the resource that says so.
pub fn sources(set: &Set, service: &ServiceName, rule: Option<&str>) -> Vec<Effective> {
    let policies = Policies::new(set);
    let mut fields = match rule {
        None => policies.why_service(service),
        Some(_) => Vec::new(),
    };
    for route in set.routes() {
        if route.key.kind.is_of_connections() {
            continue;
        }
        for (at, said) in route.rules() {
            if rule != Some(&*route.name_of(at)) {
                continue;
            }
            fields = policies.why_rule(&route, at, service);
            fields.extend(of_rule(&route, at, &said));
            for one in &mut fields {
                if let Origin::Rule(place) = &mut one.from {
                    *place = format!("{} spec.rules[{at}]", route.key);
                }
            }
        }
    }
    fields.retain(|one| !matches!(one.from, Origin::Default | Origin::Setting(_)));
    fields
}

/// The rules that take requests to a Service, with what they and the policies for their routes say.
fn rules_at(set: &Set, policies: &Policies<'_>, service: &ServiceName) -> Vec<Place> {
    let attachments = Attachments::new(set);
    let mut places = Vec::new();
    for route in set.routes() {
        for parent in route.parents {
            if parent_name(&route, parent) != *service {
                continue;
            }
            let Fit::Ports(ports) = attachments.fit(&route, parent) else {
                continue;
            };
            let acts = |port| matches!(attachments.act(&route, parent, port), Act::Acts);
            if !ports.into_iter().any(acts) {
                continue;
            }
            for (at, rule) in route.rules() {
                let place = format!("{}: {}", route.key, rule_at(at, &rule, parent));
                let of_backends = filters::of_backends(&route, &rule, &place);
                let mut fields = match route.key.kind.is_of_connections() {
                    true => Vec::new(),
                    false => policies.why_rule(&route, at, service),
                };
                fields.retain(|one| matches!(one.from, Origin::Rule(_) | Origin::Route(_)));
                fields.extend(of_rule(&route, at, &rule));
                if !fields.is_empty() {
                    places.push(Place { place, fields });
                }
                places.extend(of_backends);
            }
        }
    }
    places
}

/// What a rule itself has beside timeouts and retries.
fn of_rule(route: &Route<'_>, at: usize, rule: &Rule<'_>) -> Vec<Effective> {
    let session = session(route, at, rule).into_iter();
    session.chain(filters::of(route, rule.filters)).collect()
}

/// The session of a rule, in the fields of Gateway API; empty of one that has none.
fn session(route: &Route<'_>, at: usize, rule: &Rule<'_>) -> Vec<Effective> {
    let compiled = rule
        .session
        .and_then(|says| Some((says, says.compiled(&route.scope_of(at))?)));
    let Some((says, session)) = compiled else {
        return Vec::new();
    };
    let mut fields = Vec::new();
    let mut add = |field, value: Value, is_written| {
        let from = match is_written {
            true => Origin::Rule(route.key.to_string()),
            false => Origin::Default,
        };
        fields.push(Effective { field, value, from });
    };
    let written = says.written();
    add("sessionPersistence.type", says.kind.as_str().into(), true);
    match &session.carrier {
        Carrier::Cookie {
            name,
            path,
            permanent,
        } => {
            let lifetime = match permanent {
                true => CookieLifetime::Permanent,
                false => CookieLifetime::Session,
            };
            add(
                "sessionPersistence.cookie.name",
                name.as_str().into(),
                written.name,
            );
            add(
                "sessionPersistence.cookie.path",
                path.as_str().into(),
                written.path,
            );
            add(
                "sessionPersistence.cookie.lifetimeType",
                lifetime.as_str().into(),
                *permanent,
            );
        }
        Carrier::Header(name) => add(
            "sessionPersistence.header.name",
            name.0.as_str().into(),
            written.name,
        ),
    }
    let timeout = session.timeout.map(format_duration);
    add(
        "sessionPersistence.absoluteTimeout",
        timeout.map_or(Value::Null, Value::from),
        session.timeout.is_some(),
    );
    fields
}

/// Names a rule of a route at a parent.
fn rule_at(at: usize, rule: &Rule<'_>, parent: &ParentRef) -> String {
    let name = match rule.name {
        Some(name) => format!("rule {name}"),
        None => format!("rules[{at}]"),
    };
    format!("{name} for {} {}", parent.kind, parent.name)
}

fn of_route(policies: &Policies<'_>, route: &Route<'_>) -> Vec<Place> {
    let (mut places, mut of_backends): (Vec<Place>, Vec<Place>) = Default::default();
    for parent in route.parents {
        for (i, rule) in route.rules() {
            let mut fields = policies.why_rule(route, i, &parent_name(route, parent));
            fields.extend(of_rule(route, i, &rule));
            let place = rule_at(i, &rule, parent);
            let whole = format!("{}: {place}", route.key);
            of_backends.extend(filters::of_backends(route, &rule, &whole));
            match places.iter_mut().find(|other| other.fields == fields) {
                Some(other) => other.place += &format!(", {place}"),
                None => places.push(Place {
                    place: whole,
                    fields,
                }),
            }
        }
    }
    places.extend(of_backends);
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::set;

    const MESH: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: front, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: front } ]
  rules:
    - name: basket
      sessionPersistence: { absoluteTimeout: 90m, cookie: { name: s, path: /b, lifetimeType: Permanent } }
    - sessionPersistence: { type: Header }
    - matches: [ { path: { value: /plain } } ]
"#;

    fn sessions(key: &str) -> Vec<String> {
        let places = effective(&set(MESH), &key.parse().unwrap()).unwrap();
        let lines = places.iter().flat_map(|place| {
            let fields = place.fields.iter();
            let of_session = fields.filter(|one| one.field.starts_with("sessionPersistence."));
            of_session.map(|one| {
                let field = one.field.trim_start_matches("sessionPersistence.");
                let (_, rule) = place.place.split_once(": ").unwrap();
                format!("{rule}: {field} {} ({})", one.value, one.from)
            })
        });
        lines.collect()
    }

    #[test]
    fn sessions_are_shown_at_the_service_and_at_the_route_with_the_source_of_each_value() {
        let wanted = [
            "rule basket for Service front: type \"Cookie\" (rule: HTTPRoute/shop/r)",
            "rule basket for Service front: cookie.name \"s\" (rule: HTTPRoute/shop/r)",
            "rule basket for Service front: cookie.path \"/b\" (rule: HTTPRoute/shop/r)",
            "rule basket for Service front: cookie.lifetimeType \"Permanent\" (rule: HTTPRoute/shop/r)",
            "rule basket for Service front: absoluteTimeout \"1h30m\" (rule: HTTPRoute/shop/r)",
            "rules[1] for Service front: type \"Header\" (rule: HTTPRoute/shop/r)",
            "rules[1] for Service front: header.name \"session-...\" (default)",
            "rules[1] for Service front: absoluteTimeout null (default)",
        ];
        let found = sessions("Service/shop/front");
        let same = |(one, other): (&String, &&str)| match one.contains("header.name") {
            true => one.contains("header.name \"session-") && one.ends_with("(default)"),
            false => one == other,
        };
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        assert!(found.iter().zip(&wanted).all(same), "{found:#?}");
        assert_eq!(sessions("HTTPRoute/shop/r"), found);
    }

    const FILTERED: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: front, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: front } ]
  rules:
    - name: all
      timeouts: { request: 2s }
      filters:
        - { type: RequestMirror, requestMirror: { backendRef: { name: front, port: 80 } } }
        - { type: RequestMirror, requestMirror: { backendRef: { name: front, port: 80 }, fraction: { numerator: 1, denominator: 3 } } }
        - { type: ResponseHeaderModifier, responseHeaderModifier: { remove: [ X-B ] } }
        - { type: URLRewrite, urlRewrite: { hostname: b.example } }
        - { type: RequestHeaderModifier, requestHeaderModifier: { add: [ { name: X-A, value: one } ] } }
        - { type: CORS, cors: { allowOrigins: [ "https://a.example" ] } }
      backendRefs:
        - name: front
          port: 80
          filters: [ { type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: X-C, value: two } ] } } ]
    - matches: [ { path: { value: /old } } ]
      filters: [ { type: RequestRedirect, requestRedirect: { hostname: c.example } } ]
"#;

    #[test]
    fn filters_are_shown_in_the_order_in_which_they_act_with_their_defaults() {
        let shown = |key: &str| -> Vec<String> {
            let places = effective(&set(FILTERED), &key.parse().unwrap()).unwrap();
            let lines = places.iter().flat_map(|place| {
                let fields = place.fields.iter();
                let own = fields.filter(|one| matches!(one.from, Origin::Rule(_)));
                own.map(|one| format!("{} | {} {}", place.place, one.field, one.value))
            });
            lines.collect()
        };
        let all = "HTTPRoute/shop/r: rule all for Service front | ";
        let wanted = [
            format!("{all}timeouts.request \"2s\""),
            format!(
                "{all}filters.cors {{\"allowOrigins\":[\"https://a.example\"],\"allowCredentials\":false,\"maxAge\":5}}"
            ),
            format!(
                "{all}filters.requestHeaderModifier {{\"add\":[{{\"name\":\"X-A\",\"value\":\"one\"}}]}}"
            ),
            format!("{all}filters.urlRewrite {{\"hostname\":\"b.example\"}}"),
            format!(
                "{all}filters.requestMirror {{\"backendRef\":{{\"name\":\"front\",\"port\":80}},\"percent\":100}}"
            ),
            format!(
                "{all}filters.requestMirror {{\"backendRef\":{{\"name\":\"front\",\"port\":80}},\"fraction\":{{\"numerator\":1,\"denominator\":3}}}}"
            ),
            format!("{all}filters.responseHeaderModifier {{\"remove\":[\"X-B\"]}}"),
            "HTTPRoute/shop/r: rules[1] for Service front | filters.requestRedirect {\"hostname\":\"c.example\",\"statusCode\":302}".to_owned(),
            "HTTPRoute/shop/r: rule all for Service front, backend front.shop:80 | filters.requestHeaderModifier {\"set\":[{\"name\":\"X-C\",\"value\":\"two\"}]}".to_owned(),
        ];
        let mut at_route = shown("HTTPRoute/shop/r");
        assert_eq!(at_route, wanted);
        // At the Service the backend stands with its rule.
        at_route.swap(7, 8);
        assert_eq!(shown("Service/shop/front"), at_route);
    }

    #[test]
    fn what_is_no_default_is_told_with_the_field_of_the_resource_that_says_it() {
        let policy = "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\n\
                      metadata: { name: all, namespace: shop }\n\
                      spec: { targetRefs: [ { kind: Service, name: front } ], priority: Low }\n";
        let set = set(&format!("{FILTERED}{policy}"));
        let front = ServiceName::new("shop", "front").unwrap();
        let told = |rule| -> Vec<String> {
            let fields = sources(&set, &front, rule).into_iter();
            let lines = fields.map(|one| format!("{} of {}", one.field, one.from));
            lines.collect()
        };
        let policy = "priority of service: TrafficPolicy/shop/all";
        assert_eq!(told(None), [policy]);
        let second = "filters.requestRedirect of rule: HTTPRoute/shop/r spec.rules[1]";
        assert_eq!(told(Some("HTTPRoute/shop/r/1")), [policy, second]);
        let first = told(Some("HTTPRoute/shop/r/all"));
        assert_eq!(
            first[0],
            "timeouts.request of rule: HTTPRoute/shop/r spec.rules[0]"
        );
        assert_eq!(first.len(), 8, "{first:#?}");
        assert!(told(Some("HTTPRoute/shop/r/none")).is_empty());
    }
}

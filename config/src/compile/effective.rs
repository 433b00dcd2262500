//! The traffic policy in force for a Service or route, and the source of each value: the answer of `weft get
//! --effective`. Pure; the code that compiles tables resolves the values.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::attachments::parent_name;
use super::traffic::Policies;
use crate::resources::{FIELDS, Key, Kind, Route, Set};
use crate::table::ServiceName;

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

/// What is in force for a Service, HTTPRoute or GRPCRoute of `set`: one place for a Service, for a route as
/// many as its rules and parents differ. `None` if there is no such resource, or if its kind has no traffic.
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
    let mut fields = policies.why_service(&ServiceName {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    });
    fields.retain(means_something);
    let place = key.to_string();
    Some(vec![Place { place, fields }])
}

fn of_route(policies: &Policies<'_>, route: &Route<'_>) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for parent in route.parents {
        for (i, rule) in route.rules() {
            let fields = policies.why_rule(route, i, &parent_name(route, parent));
            let name = match rule.name {
                Some(name) => format!("rule {name}"),
                None => format!("rules[{i}]"),
            };
            let place = format!("{name} for {} {}", parent.kind, parent.name);
            match places.iter_mut().find(|other| other.fields == fields) {
                Some(other) => other.place += &format!(", {place}"),
                None => places.push(Place {
                    place: format!("{}: {place}", route.key),
                    fields,
                }),
            }
        }
    }
    places
}

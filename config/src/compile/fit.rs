//! Reduces a table to the features of its sidecar: parts that it does not support are left out or closed, by
//! the rule of each [`Feature`]. Pure.
//!
//! One rule holds for all features: a call that a reduced table permits is also permitted by the whole table,
//! and it goes where the whole table sends it. Rules of routes are in `fit/routes.rs`.

mod routes;

use std::sync::Arc;

use crate::resources::{Key, Kind};
use crate::table::{
    Absence, Action, Authorization, Default, Details, Egress, External, Feature, Features, Loss,
    PathCase, Rule, Service, ServiceName, Table, Withheld,
};

/// A table in the form that its sidecar supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// The table.
    pub table: Table,
    /// The parts that are missing; empty if none of them decides about a call.
    pub withheld: Vec<Withheld>,
    /// For which it was made.
    pub(crate) features: Features,
}

impl Fitted {
    /// As it is sent.
    pub(crate) fn json(&self) -> Result<Vec<u8>, serde_json::Error> {
        self.table.write_for(self.features)
    }
}

/// The table for a sidecar that announces `features`.
pub(super) fn fit(mut table: Table, features: Features) -> Fitted {
    let mut withheld = Vec::new();
    if features == Features::all() {
        return Fitted {
            table,
            withheld,
            features,
        };
    }
    if !features.has(Feature::ExternalServices) {
        withheld.extend(without_externals(&mut table));
    }
    if !features.has(Feature::ExternalVia) {
        withheld.extend(without_via(&mut table));
    }
    for (name, service) in &mut table.services {
        if !features.has(Feature::Absence)
            && service.ports.values().any(|port| !port.absence.is_never())
        {
            for port in Arc::make_mut(service).ports.values_mut() {
                port.absence = Absence::default();
            }
        }
        if !features.has(Feature::H2c) && service.ports.values().any(|port| port.h2c) {
            for port in Arc::make_mut(service).ports.values_mut() {
                port.h2c = false;
            }
            // Its callers lose nothing.
            let serves = service.authorization.is_some();
            withheld.extend(serves.then(|| Withheld {
                resource: key(name).to_string(),
                feature: Feature::H2c.name().to_owned(),
                instead: "its application gets HTTP/1.1, except for calls of gRPC".to_owned(),
            }));
        }
        if !features.has(Feature::EndpointDetails) {
            without_details(service);
        }
        withheld.extend(routes::fit(name, service, features));
        if !features.has(Feature::Plaintext) {
            withheld.extend(without_plaintext(name, service));
        }
        let Some(authorization) = &service.authorization else {
            continue;
        };
        let missing: Vec<Feature> = restrictions(authorization)
            .filter(|feature| !features.has(*feature))
            .collect();
        let fitted = match missing.as_slice() {
            [] if !features.has(Feature::PathCase) && !authorization.path_case.is_sensitive() => {
                // No rule judges paths, so the case of letters has no effect.
                Authorization {
                    path_case: PathCase::default(),
                    ..authorization.clone()
                }
            }
            [] => continue,
            _ => closed(name),
        };
        withheld.extend(missing.into_iter().map(|feature| closes(name, feature)));
        Arc::make_mut(service).authorization = Some(fitted);
    }
    if !features.has(Feature::Sessions) {
        table.session_keys.clear();
    }
    withheld.sort();
    withheld.dedup();
    Fitted {
        table,
        withheld,
        features,
    }
}

fn without_details(service: &mut Arc<Service>) {
    let mut all = service.ports.values().flat_map(|port| &port.endpoints);
    if all.all(|endpoint| endpoint.details.is_empty()) {
        return;
    }
    for port in Arc::make_mut(service).ports.values_mut() {
        for endpoint in &mut port.endpoints {
            endpoint.details = Details::default();
        }
    }
}

/// Such a sidecar has no listener for callers without mutual TLS.
fn without_plaintext(name: &ServiceName, service: &mut Arc<Service>) -> Option<Withheld> {
    let takes = |one: &&Authorization| one.plaintext;
    service.authorization.as_ref().filter(takes)?;
    if let Some(authorization) = &mut Arc::make_mut(service).authorization {
        authorization.plaintext = false;
    }
    Some(Withheld {
        resource: key(name).to_string(),
        feature: Feature::Plaintext.name().to_owned(),
        instead: format!("it takes no callers of {name} without mutual TLS"),
    })
}

/// Takes out what is outside of the mesh: such a sidecar would take it for a service without endpoints, at
/// best.
fn without_externals(table: &mut Table) -> Vec<Withheld> {
    let feature = Feature::ExternalServices;
    let mut all = without_services(table, feature, Option::is_some);
    if !table.egress.is_deny() {
        all.push(Withheld {
            resource: "MeshConfig".to_owned(),
            feature: feature.name().to_owned(),
            instead: "it refuses requests for names outside of the mesh".to_owned(),
        });
        table.egress = Egress::Deny;
        table.closed_hosts.clear();
    }
    all
}

/// Takes out what is sent through a service of the mesh: such a sidecar would send it outside by itself. Its
/// names do not pass, either, whatever becomes of names that no ExternalService names.
fn without_via(table: &mut Table) -> Vec<Withheld> {
    let is_sent = |external: &Option<Arc<External>>| {
        let external = external.as_ref();
        external.is_some_and(|external| external.via.is_some())
    };
    if !table.egress.is_deny() {
        let services = table.services.values().map(|service| &service.external);
        let sent = services.filter(|external| is_sent(external)).flatten();
        let hosts = sent.flat_map(|external| external.hosts.iter().cloned());
        table.closed_hosts.extend(hosts);
    }
    without_services(table, Feature::ExternalVia, is_sent)
}

/// Takes out the services outside of the mesh for which `lacks` is true, for want of a feature.
fn without_services(
    table: &mut Table,
    feature: Feature,
    lacks: impl Fn(&Option<Arc<External>>) -> bool,
) -> Vec<Withheld> {
    let mut all = Vec::new();
    table.services.retain(|name, service| {
        let stays = !lacks(&service.external);
        if !stays {
            let key = Key::new(Kind::ExternalService, &name.namespace, &name.name);
            all.push(Withheld {
                resource: key.to_string(),
                feature: feature.name().to_owned(),
                instead: format!("it knows no {name}, and refuses every call to it"),
            });
        }
        stays
    });
    all
}

/// Features of [`Loss::Calls`] by which an authorization refuses calls.
fn restrictions(authorization: &Authorization) -> impl Iterator<Item = Feature> {
    let judges_paths = authorization.rules.iter().any(|rule| rule.paths.is_some());
    Feature::ALL
        .into_iter()
        .filter(|feature| feature.about().loss == Loss::Calls)
        .filter(move |feature| match feature {
            Feature::RouteOnly => authorization.parents.is_some(),
            Feature::PathCase => !authorization.path_case.is_sensitive() && judges_paths,
            Feature::Bans
            | Feature::Absence
            | Feature::RouteConditions
            | Feature::RouteFilters
            | Feature::BrokenBackends
            | Feature::LeastBackoff
            | Feature::RuleRetry
            | Feature::TcpRoutes
            | Feature::TlsRoutes
            | Feature::EndpointDetails
            | Feature::Sessions
            | Feature::ExternalServices
            | Feature::ExternalVia
            | Feature::Plaintext
            | Feature::H2c => false,
        })
}

/// Denies every call, in the name of the resource that cannot be expressed.
fn closed(service: &ServiceName) -> Authorization {
    let deny = Rule {
        policy: key(service).to_string(),
        action: Action::Deny,
        principals: None,
        methods: None,
        paths: None,
    };
    Authorization::new(Default::Deny, vec![deny])
}

fn closes(service: &ServiceName, feature: Feature) -> Withheld {
    Withheld {
        resource: key(service).to_string(),
        feature: feature.name().to_owned(),
        instead: format!("it refuses every call to {service}"),
    }
}

fn key(service: &ServiceName) -> Key {
    Key {
        kind: Kind::Service,
        namespace: service.namespace.clone(),
        name: service.name.clone(),
    }
}

#[cfg(test)]
mod tests;

//! Which traffic policy applies where: route over Service over namespace over mesh over default, field by
//! field. Pure. The table gets the values; `weft get --effective` also shows the source of each, by the same
//! code.

mod resolve;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::effective::{Effective, Origin};
use crate::resources::{Key, Kind, Route, Set, TargetKind, TrafficSpec};
use crate::table::{Mode, Protocol, RequestTraffic, ServiceName, Traffic};
use resolve::Resolver;

/// All policies of a set by their target.
pub(crate) struct Policies<'a> {
    routes: BTreeMap<Key, Vec<Layer<'a>>>,
    services: BTreeMap<ServiceName, Vec<Layer<'a>>>,
    namespaces: BTreeMap<String, Vec<Layer<'a>>>,
    mesh: Vec<Layer<'a>>,
    /// Whether the adaptive limit refuses if no policy says so. The MeshConfig of a mesh that is older than
    /// this default does not name it, see [`crate::resources::MeshConfigSpec::complete`].
    adaptive: Mode,
}

#[derive(Clone)]
struct Layer<'a> {
    origin: Origin,
    says: Cow<'a, TrafficSpec>,
}

impl<'a> Policies<'a> {
    pub(crate) fn new(set: &'a Set) -> Self {
        let mut policies = Self {
            routes: BTreeMap::new(),
            services: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            mesh: set
                .mesh_configs()
                .take(1)
                .map(|(key, spec)| Layer {
                    origin: Origin::Mesh(key.to_string()),
                    says: Cow::Borrowed(&spec.traffic),
                })
                .collect(),
            adaptive: match set.mesh_configs().next() {
                Some(_) => Mode::Observe,
                None => Mode::Enforce,
            },
        };
        for (key, policy) in set.traffic_policies() {
            for target in &policy.target_refs {
                let layer = |origin: fn(String) -> Origin| Layer {
                    origin: origin(key.to_string()),
                    says: Cow::Borrowed(&policy.traffic),
                };
                match target.kind {
                    TargetKind::HttpRoute | TargetKind::GrpcRoute => {
                        let kind = target.kind.of_route().unwrap_or(Kind::HttpRoute);
                        let route = Key::new(kind, &key.namespace, &target.name);
                        let layers = policies.routes.entry(route).or_default();
                        layers.push(layer(Origin::Route));
                    }
                    TargetKind::Service | TargetKind::ExternalService => {
                        let service = ServiceName {
                            namespace: key.namespace.clone(),
                            name: target.name.clone(),
                        };
                        let layers = policies.services.entry(service).or_default();
                        layers.push(layer(Origin::Service));
                    }
                    TargetKind::Namespace => {
                        // Only its own: validation refuses any other name.
                        let namespace = key.namespace.clone();
                        let layers = policies.namespaces.entry(namespace).or_default();
                        layers.push(layer(Origin::Namespace));
                    }
                }
            }
        }
        policies
    }

    /// The policy of a port of a service, and of requests to it that no route takes.
    pub(crate) fn port(&self, service: &ServiceName, port: u16, protocol: Protocol) -> Traffic {
        let wider = self.of_service(service);
        if wider.is_empty() {
            let mut traffic = Traffic::default();
            // Without requests there is nothing to limit, and the table stays small.
            if protocol.has_requests() {
                traffic.concurrency.adaptive = self.adaptive;
            }
            return traffic;
        }
        Resolver::new(&[], &wider, self.adaptive).port(service, port)
    }

    /// The source of each value of [`Self::port`], which is the same for all ports.
    pub(crate) fn why_service(&self, service: &ServiceName) -> Vec<Effective> {
        let wider = self.of_service(service);
        Resolver::new(&[], &wider, self.adaptive).explain(|fields| {
            fields.port(service, 0);
        })
    }

    /// The policy of requests to `parent` that a rule of a route takes.
    pub(crate) fn rule(
        &self,
        route: &Route<'_>,
        at: usize,
        parent: &ServiceName,
    ) -> Arc<RequestTraffic> {
        let (routes, wider) = (self.of_rule(route, at), self.of_service(parent));
        if routes.is_empty() && wider.is_empty() {
            return Arc::default();
        }
        let mut traffic = Resolver::new(&routes, &wider, self.adaptive).rule();
        // What a rule calls its backoff is the least wait (Gateway API, HTTPRouteRetry.backoff); the wait
        // that a policy draws comes on top.
        let of_rule = route.rules.traffic(at);
        // A stanza always says which codes are retried, if only that none is.
        let retry = of_rule.as_ref().map(|says| &says.retry);
        traffic.retry.of_rule = retry.is_some_and(|says| says.codes.is_some());
        if let Some(least) = of_rule.and_then(|says| says.retry.backoff.base) {
            traffic.retry.backoff.at_least = least.0;
        }
        Arc::new(traffic)
    }

    /// The source of each value of [`Self::rule`].
    pub(crate) fn why_rule(
        &self,
        route: &Route<'_>,
        at: usize,
        parent: &ServiceName,
    ) -> Vec<Effective> {
        let (routes, wider) = (self.of_rule(route, at), self.of_service(parent));
        Resolver::new(&routes, &wider, self.adaptive).explain(|fields| {
            fields.rule();
        })
    }

    fn of_rule(&self, route: &Route<'_>, at: usize) -> Vec<Layer<'a>> {
        let inline = route.rules.traffic(at).map(|says| Layer {
            origin: Origin::Rule(route.key.to_string()),
            says: Cow::Owned(says),
        });
        let policies = self.routes.get(route.key).into_iter().flatten().cloned();
        inline.into_iter().chain(policies).collect()
    }

    fn of_service(&self, service: &ServiceName) -> Vec<Layer<'a>> {
        let of_service = self.services.get(service).into_iter().flatten();
        let of_namespace = self.namespaces.get(&service.namespace);
        of_service
            .chain(of_namespace.into_iter().flatten())
            .chain(&self.mesh)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests;

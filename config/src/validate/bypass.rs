//! Finds direct calls that bypass a policy: a parent is under a policy, and a Service that its routes lead to
//! is not. They are warnings, because that may be intended. Missing resources are an error already.

use std::collections::BTreeSet;

use weft_transport::identity::SpiffeId;

use super::{Check, Policy};
use crate::compile::attachments::{Group, group, parent_name};
use crate::compile::references::References;
use crate::resources::{AuthorizationPolicySpec, Callers, Key, Kind, Route};
use crate::table::{self, Action, ServiceName};

/// A way to a backend around the policy of its parent.
struct Bypass {
    field: String,
    message: String,
    hint: String,
}

impl Check<'_> {
    /// Warns of backends of a route that a caller reaches directly although a policy of a parent would refuse
    /// it.
    pub(super) fn bypasses(&mut self, references: &References<'_>, route: &Route<'_>) {
        let parents: BTreeSet<ServiceName> = route
            .parents
            .iter()
            .map(|parent| parent_name(route, parent))
            .filter(|name| self.set.service(&name.namespace, &name.name).is_some())
            .collect();
        let mut found = Vec::new();
        for reference in route.references() {
            let Ok((name, _)) = references.resolve(route.key, reference.to) else {
                continue;
            };
            let is_open = self
                .set
                .service(&name.namespace, &name.name)
                .is_some_and(|service| service.callers == Callers::Any);
            for parent in parents.iter().filter(|parent| is_open && **parent != name) {
                let bypass = self
                    .around_allow(parent, &name)
                    .or_else(|| self.around_deny(parent, &name));
                found.extend(bypass.map(|message| Bypass {
                    field: format!("{}.name", reference.field),
                    message,
                    hint: way_out(parent, &name),
                }));
            }
        }
        for bypass in found {
            self.warning(route.key, &bypass.field, &bypass.message, &bypass.hint);
        }
    }

    /// Warns of Services that only routes may lead to, where none does.
    pub(super) fn unreachable(&mut self) {
        let references = References::new(self.set);
        let (mut led_to, mut named) = (BTreeSet::new(), BTreeSet::new());
        for route in self.set.routes() {
            let mut parents = route.parents.iter();
            let is_producer = parents.any(|parent| group(&route, parent) == Group::Producers);
            for reference in route.references() {
                let Ok((name, _)) = references.resolve(route.key, reference.to) else {
                    continue;
                };
                let permitted =
                    name.namespace == route.key.namespace || references.grants(route.key, &name);
                if is_producer && permitted {
                    led_to.insert(name.clone());
                }
                named.insert(name);
            }
        }
        let spares = self
            .set
            .traffic_policies()
            .filter_map(|(key, policy)| Some((key, policy.traffic.failover.as_ref()?)))
            .map(|(key, to)| to.service(&key.namespace));
        led_to.extend(spares);
        let lonely: Vec<Key> = self
            .set
            .services()
            .filter(|(name, service)| {
                service.callers == Callers::RouteOnly && !led_to.contains(name)
            })
            .map(|(name, _)| Key {
                kind: Kind::Service,
                namespace: name.namespace,
                name: name.name,
            })
            .collect();
        for key in lonely {
            let name = &key.name;
            let (message, hint) = if named.contains(&service(&key.namespace, name)) {
                (
                    format!(
                        "only routes of other namespaces lead to Service {name}, so it may not be called"
                    ),
                    "permit them by a ReferenceGrant: routes for the callers of one namespace never open it",
                )
            } else {
                (
                    format!("no route leads to Service {name}, so it may not be called"),
                    "name it in the backendRefs of a route, or write callers: Any",
                )
            };
            self.warning(&key, "spec.callers", &message, hint);
        }
    }

    /// Only some may call the parent, and all may call the backend.
    fn around_allow(&self, parent: &ServiceName, backend: &ServiceName) -> Option<String> {
        let closed = self.set.default_authorization() == table::Default::Deny;
        if closed || !self.is_allow_targeted(parent) || self.is_allow_targeted(backend) {
            return None;
        }
        let (parent, backend) = shown(parent, backend);
        Some(format!(
            "Service {parent} is under an Allow policy, but its backend {backend} is under none: \
             every identity may call {backend} directly"
        ))
    }

    /// A policy denies some the parent, and they may call the backend.
    fn around_deny(&self, parent: &ServiceName, backend: &ServiceName) -> Option<String> {
        let closed = self.set.default_authorization() == table::Default::Deny
            || self.is_allow_targeted(backend);
        let admitted = |denied: &AuthorizationPolicySpec| {
            let mut allowing = self
                .policies_for(backend)
                .filter(|(_, policy)| policy.action == Action::Allow);
            !closed || allowing.any(|(_, allow)| overlap(denied, allow))
        };
        let covers = |key: &Key| self.policies_for(backend).any(|(other, _)| other == key);
        let (policy, _) = self.policies_for(parent).find(|(key, policy)| {
            policy.action == Action::Deny && !covers(key) && admitted(policy)
        })?;
        let (parent, backend) = shown(parent, backend);
        Some(format!(
            "{policy} denies calls to Service {parent}, but not to its backend {backend}: whom it \
             denies may call {backend} directly"
        ))
    }

    fn policies_for(&self, service: &ServiceName) -> impl Iterator<Item = Policy<'_>> {
        self.targeting.get(service).into_iter().flatten().copied()
    }

    fn is_allow_targeted(&self, service: &ServiceName) -> bool {
        let mut policies = self.policies_for(service);
        policies.any(|(_, policy)| policy.action == Action::Allow)
    }
}

fn service(namespace: &str, name: &str) -> ServiceName {
    ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// Both names, without their namespace where that is the same.
fn shown(parent: &ServiceName, backend: &ServiceName) -> (String, String) {
    if parent.namespace == backend.namespace {
        (parent.name.clone(), backend.name.clone())
    } else {
        (parent.to_string(), backend.to_string())
    }
}

fn way_out(parent: &ServiceName, backend: &ServiceName) -> String {
    let (_, name) = shown(parent, backend);
    if parent.namespace == backend.namespace {
        format!(
            "add {name} to the targetRefs of the policy, or write callers: RouteOnly in the spec of \
             Service {name}"
        )
    } else {
        format!("put such a policy for {name} into its own namespace")
    }
}

/// Whether some identity is named by both; a policy without `from` names all.
fn overlap(one: &AuthorizationPolicySpec, other: &AuthorizationPolicySpec) -> bool {
    let all = |policy: &AuthorizationPolicySpec| -> Option<BTreeSet<SpiffeId>> {
        let sources = policy.from.as_ref()?;
        let principals = sources.iter().flat_map(|source| source.principals.iter());
        Some(principals.cloned().collect())
    };
    match (all(one), all(other)) {
        (Some(one), Some(other)) => !one.is_disjoint(&other),
        (_, _) => true,
    }
}

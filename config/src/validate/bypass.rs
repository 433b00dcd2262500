//! Finds direct calls that bypass a policy: a parent is under a policy, and a Service that its routes lead to
//! is not. They are warnings, because that may be intended. Missing resources are an error already.

use std::collections::BTreeSet;

use weft_transport::identity::SpiffeId;

use super::{Check, default_authorization, is_allow_targeted};
use crate::findings::Severity;
use crate::resources::{AuthorizationPolicySpec, Callers, HttpRouteRule, HttpRouteSpec, Key, Kind};
use crate::table::{self, Action, ServiceName};

/// A direct way to a backend around the policy of its parent.
struct Bypass {
    backend: usize,
    message: String,
    hint: String,
}

impl Check<'_> {
    /// Warns of backends of the rule that a caller reaches directly although a policy of a parent would
    /// refuse it.
    pub(super) fn bypasses(
        &mut self,
        key: &Key,
        spec: &HttpRouteSpec,
        at: usize,
        rule: &HttpRouteRule,
    ) {
        let parents: BTreeSet<&str> = spec
            .parent_refs
            .iter()
            .map(|parent| parent.name.as_str())
            .filter(|name| self.set.service(&key.namespace, name).is_some())
            .collect();
        let mut found = Vec::new();
        for (backend, name) in rule
            .backend_refs
            .iter()
            .enumerate()
            .map(|(i, backend)| (i, backend.name.as_str()))
        {
            let is_open = self
                .set
                .service(&key.namespace, name)
                .is_some_and(|service| service.callers == Callers::Any);
            for parent in parents.iter().filter(|parent| is_open && **parent != name) {
                let bypass = self
                    .around_allow(&key.namespace, parent, name)
                    .or_else(|| self.around_deny(&key.namespace, parent, name));
                found.extend(bypass.map(|(message, hint)| Bypass {
                    backend,
                    message,
                    hint,
                }));
            }
        }
        for bypass in found {
            let field = format!("spec.rules[{at}].backendRefs[{}].name", bypass.backend);
            self.push(
                Severity::Warning,
                key,
                &field,
                &bypass.message,
                &bypass.hint,
            );
        }
    }

    /// Warns of Services that only routes may lead to, where none does.
    pub(super) fn unreachable(&mut self) {
        let backends = self.set.routes().flat_map(|(key, route)| {
            let backends = route.rules.iter().flat_map(|rule| &rule.backend_refs);
            backends.map(|backend| service(&key.namespace, &backend.name))
        });
        let spares = self
            .set
            .traffic_policies()
            .filter_map(|(key, policy)| Some((key, policy.traffic.failover.as_ref()?)))
            .map(|(key, to)| to.service(&key.namespace));
        let led_to: BTreeSet<ServiceName> = backends.chain(spares).collect();
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
            let message = format!(
                "no route leads to Service {}, so it may not be called",
                key.name
            );
            let hint = "name it in the backendRefs of a route, or write callers: Any";
            self.push(Severity::Warning, &key, "spec.callers", &message, hint);
        }
    }

    /// Some callers may call the parent, and all may call the backend.
    fn around_allow(
        &self,
        namespace: &str,
        parent: &str,
        backend: &str,
    ) -> Option<(String, String)> {
        let closed = default_authorization(self.set) == table::Default::Deny;
        if closed
            || !is_allow_targeted(self.set, namespace, parent)
            || is_allow_targeted(self.set, namespace, backend)
        {
            return None;
        }
        let message = format!(
            "Service {parent} is under an Allow policy, but its backend {backend} is under none: \
             every identity may call {backend} directly"
        );
        Some((message, way_out(backend)))
    }

    /// A policy denies the parent to some callers, and they may call the backend.
    fn around_deny(
        &self,
        namespace: &str,
        parent: &str,
        backend: &str,
    ) -> Option<(String, String)> {
        let closed = default_authorization(self.set) == table::Default::Deny
            || is_allow_targeted(self.set, namespace, backend);
        let admitted = |denied: &AuthorizationPolicySpec| {
            let mut allowing = self
                .targeting(namespace, backend)
                .filter(|(_, policy)| policy.action == Action::Allow);
            !closed || allowing.any(|(_, allow)| overlap(denied, allow))
        };
        let (policy, _) = self.targeting(namespace, parent).find(|(_, policy)| {
            policy.action == Action::Deny && !targets(policy, backend) && admitted(policy)
        })?;
        let message = format!(
            "{policy} denies calls to Service {parent}, but not to its backend {backend}: whom it \
             denies may call {backend} directly"
        );
        Some((message, way_out(backend)))
    }

    fn targeting(
        &self,
        namespace: &str,
        service: &str,
    ) -> impl Iterator<Item = (&Key, &AuthorizationPolicySpec)> {
        self.set
            .policies()
            .filter(move |(key, policy)| key.namespace == namespace && targets(policy, service))
    }
}

fn service(namespace: &str, name: &str) -> ServiceName {
    ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn way_out(backend: &str) -> String {
    format!(
        "add {backend} to the targetRefs of the policy, or write callers: RouteOnly in the spec of \
         Service {backend}"
    )
}

fn targets(policy: &AuthorizationPolicySpec, service: &str) -> bool {
    policy
        .target_refs
        .iter()
        .any(|target| target.name == service)
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

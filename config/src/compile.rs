//! Compiles resources and endpoints into the table of one sidecar. Pure and deterministic: equal input gives
//! equal tables, so that a table is sent only when it changed.
//!
//! The parts that do not depend on the sidecar are compiled once per revision ([`Plan`]). A table is a
//! selection from it (`scope.rs`), reduced to the features of the sidecar (`fit.rs`). Scoping is least
//! privilege: a sidecar learns of the services that its identity may call and of those it serves, and of no
//! others.
//!
//! Which routes act on which port is in `attachments.rs`, where their references lead in `references.rs`, and
//! the rules that result from both in `routes.rs`.

pub(crate) mod attachments;
mod effective;
mod fit;
pub(crate) mod references;
mod routes;
mod scope;
mod sessions;
mod traffic;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_transport::identity::{SpiffeId, TrustDomain};

use crate::limits;
use crate::resources::{AuthorizationPolicySpec, Callers, Key, ServicePort, Set};
use crate::table::{
    self, Absence, Action, Authorization, Ban, Egress, Endpoint, Features, Port, Revision,
    RouteRule, Rule, Service, ServiceName,
};
use traffic::Policies;

pub use effective::{Effective, Origin, Place, effective, sources};
pub use fit::Fitted;
pub use scope::Scope;
pub use sessions::{InvalidSecret, SessionSecret, SessionSecrets};

/// The endpoints, by service and port.
pub type Endpoints = BTreeMap<(ServiceName, u16), Served>;

/// The endpoints of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Sorted.
    pub endpoints: Vec<Endpoint>,
    /// Why there are none; the default if there are some.
    pub absence: Absence,
}

impl From<Vec<Endpoint>> for Served {
    fn from(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            absence: Absence::default(),
        }
    }
}

/// The sidecar for which a table is compiled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sidecar {
    /// Its proven identity.
    pub identity: SpiffeId,
    /// Services that its listeners name.
    pub listens_for: BTreeSet<ServiceName>,
    /// Services that it registered for and may serve.
    pub serves: BTreeSet<ServiceName>,
    /// The features that it supports.
    pub features: Features,
}

/// A compiled revision.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which one.
    pub revision: Revision,
    trust_domain: TrustDomain,
    services: BTreeMap<ServiceName, Compiled>,
    /// Endpoints that do not register by themselves, by service and port.
    workloads: Vec<((ServiceName, u16), Endpoint)>,
    session_secrets: SessionSecrets,
    egress: Egress,
}

#[derive(Clone, Debug)]
struct Compiled {
    /// Ports and routes, without endpoints and authorization.
    service: Service,
    authorization: Authorization,
    identities: Vec<SpiffeId>,
    /// Routes that hold for callers of one namespace, in place of those of `service`.
    consumers: BTreeMap<String, Consumers>,
    /// Services that its routes lead to, but for those of `consumers`.
    backends: BTreeSet<ServiceName>,
    /// Services whose routes lead to it: what a call may state.
    parents: BTreeSet<ServiceName>,
    /// Those of `parents` whose calls are let in where only routes may lead to it.
    doors: BTreeSet<ServiceName>,
}

/// Routes of one namespace for a Service of another.
#[derive(Clone, Debug, Default)]
struct Consumers {
    /// By port; other ports are as they are for all.
    ports: BTreeMap<u16, Vec<RouteRule>>,
    /// Services that they lead to.
    backends: BTreeSet<ServiceName>,
}

impl Plan {
    /// Compiles a set in which [`crate::validate`] found no errors. In any other set, references of policies
    /// to missing resources are left out.
    pub fn new(revision: Revision, trust_domain: TrustDomain, set: &Set) -> Self {
        let mesh_default = set.default_authorization();
        let policies = Policies::new(set);
        let externals: Vec<_> = set
            .externals()
            .map(|(name, spec)| {
                let through = |via: &ServiceName| set.service(&via.namespace, &via.name);
                let external = spec.compiled(&name.namespace, through);
                (name, Cow::Owned(spec.as_service()), Some(external))
            })
            .collect();
        let mut services: BTreeMap<ServiceName, Compiled> = set
            .services()
            .map(|(name, spec)| (name, Cow::Borrowed(spec), None))
            // The names of both are distinct.
            .chain(externals)
            .map(|(name, spec, external)| {
                let own = || {
                    SpiffeId::for_workload(&trust_domain, &name.namespace, &name.name)
                        .into_iter()
                        .collect()
                };
                let empty = |port: &ServicePort| Port {
                    protocol: port.protocol,
                    h2c: port.is_h2c(),
                    routes: Vec::new(),
                    endpoints: Vec::new(),
                    absence: Absence::default(),
                    traffic: policies.port(&name, port.port, port.protocol),
                };
                let compiled = Compiled {
                    service: Service {
                        ports: spec
                            .ports
                            .iter()
                            .map(|port| (port.port, empty(port)))
                            .collect(),
                        external: external.map(Arc::new),
                        authorization: None,
                    },
                    authorization: Authorization {
                        path_case: spec.path_case,
                        plaintext: !spec.mutual_tls.is_strict(),
                        ..Authorization::new(mesh_default, Vec::new())
                    },
                    identities: spec.identities.clone().unwrap_or_else(own),
                    consumers: BTreeMap::new(),
                    backends: BTreeSet::new(),
                    parents: BTreeSet::new(),
                    doors: BTreeSet::new(),
                };
                (name, compiled)
            })
            .collect();
        for (key, policy) in set.policies() {
            let rules = rules(key, policy);
            for target in &policy.target_refs {
                let name = ServiceName {
                    namespace: key.namespace.clone(),
                    name: target.name.clone(),
                };
                let Some(compiled) = services.get_mut(&name) else {
                    continue;
                };
                if policy.action == Action::Allow {
                    compiled.authorization.default = table::Default::Deny;
                }
                compiled.authorization.rules.extend(rules.iter().cloned());
            }
        }
        routes::add_routes(&mut services, set, &policies);
        add_failovers(&mut services);
        close_bypasses(&mut services, set);
        let mut plan = Self {
            revision,
            trust_domain,
            services,
            workloads: Vec::new(),
            session_secrets: SessionSecrets::default(),
            egress: set.egress(),
        };
        plan.workloads = plan.endpoints_of_workloads(set);
        plan
    }

    /// With the secrets from which the keys of sessions are made. Without one, tables have no such keys, and
    /// rules no sessions.
    #[must_use]
    pub fn with_session_secrets(self, session_secrets: SessionSecrets) -> Self {
        Self {
            session_secrets,
            ..self
        }
    }

    /// The endpoints that Workloads name, of Services that their identities may serve.
    fn endpoints_of_workloads(&self, set: &Set) -> Vec<((ServiceName, u16), Endpoint)> {
        let mut found = Vec::new();
        for (key, spec) in set.workloads() {
            for served in &spec.services {
                let name = ServiceName {
                    namespace: key.namespace.clone(),
                    name: served.name.clone(),
                };
                if self.may_serve(&spec.identity, &name) == Some(true)
                    && self.has_port(&name, served.port)
                {
                    let endpoint = Endpoint {
                        workload: key.to_string(),
                        address: spec.address,
                        identity: spec.identity.clone(),
                        locality: spec.locality.clone(),
                        details: spec.details(),
                    };
                    found.push(((name, served.port), endpoint));
                }
            }
        }
        found
    }

    /// Endpoints that do not register by themselves.
    pub fn workloads(&self) -> impl Iterator<Item = &((ServiceName, u16), Endpoint)> {
        self.workloads.iter()
    }

    /// Whether `identity` may serve `service`; `None` if there is no such service.
    pub fn may_serve(&self, identity: &SpiffeId, service: &ServiceName) -> Option<bool> {
        Some(self.services.get(service)?.identities.contains(identity))
    }

    /// The identities that may serve `service`.
    pub fn servers(&self, service: &ServiceName) -> &[SpiffeId] {
        self.services
            .get(service)
            .map_or(&[], |compiled| &compiled.identities)
    }

    /// Whether `service` has `port`.
    pub fn has_port(&self, service: &ServiceName, port: u16) -> bool {
        self.services
            .get(service)
            .is_some_and(|compiled| compiled.service.ports.contains_key(&port))
    }

    /// Whether any request of `identity` to `service` can be permitted.
    pub fn may_call(&self, identity: &SpiffeId, service: &ServiceName) -> bool {
        self.services
            .get(service)
            .is_some_and(|compiled| compiled.may_be_called_by(identity))
    }
}

impl Compiled {
    fn may_be_called_by(&self, identity: &SpiffeId) -> bool {
        self.ban(identity).is_none()
    }

    /// Why no request of `identity` can be permitted, if none can.
    fn ban(&self, identity: &SpiffeId) -> Option<Ban> {
        let concerns = |rule: &&Rule| {
            rule.principals
                .as_ref()
                .is_none_or(|list| list.contains(identity))
        };
        let mut rules = self.authorization.rules.iter().filter(concerns);
        let denies = |rule: &&Rule| {
            rule.action == Action::Deny && rule.methods.is_none() && rule.paths.is_none()
        };
        if let Some(rule) = rules.clone().find(denies) {
            return Some(Ban::DeniedBy(rule.policy.clone()));
        }
        if self.authorization.default == table::Default::Allow
            || rules.any(|rule| rule.action == Action::Allow)
        {
            return None;
        }
        let all = self.authorization.rules.iter();
        let mut policies: Vec<&str> = all
            .filter(|rule| rule.action == Action::Allow)
            .map(|rule| rule.policy.as_str())
            .collect();
        policies.dedup();
        policies.truncate(limits::BAN_POLICIES_MAX);
        Some(match policies.is_empty() {
            true => Ban::DeniedByDefault,
            false => Ban::AllowedByNoneOf(policies.into_iter().map(str::to_owned).collect()),
        })
    }
}

/// One rule per entry of `to`; the entries of `from` are alternatives, so their principals are joined.
fn rules(key: &Key, policy: &AuthorizationPolicySpec) -> Vec<Rule> {
    let principals = policy.from.as_ref().map(|sources| {
        let all: BTreeSet<SpiffeId> = sources
            .iter()
            .flat_map(|source| source.principals.iter().cloned())
            .collect();
        all.into_iter().collect::<Vec<_>>()
    });
    let rule = |methods, paths| Rule {
        policy: key.to_string(),
        action: policy.action,
        principals: principals.clone(),
        methods,
        paths,
    };
    match &policy.to {
        None => vec![rule(None, None)],
        Some(operations) => operations
            .iter()
            .map(|one| rule(one.methods.clone(), one.paths.clone()))
            .collect(),
    }
}

/// A failover service is reached like a backend: a workload that may call the first service learns of it, and
/// its sidecars decide about the service that was addressed, too.
fn add_failovers(services: &mut BTreeMap<ServiceName, Compiled>) {
    let mut found = Vec::new();
    let names: BTreeSet<ServiceName> = services.keys().cloned().collect();
    for (name, compiled) in services.iter_mut() {
        for port in compiled.service.ports.values_mut() {
            port.traffic
                .failover
                .take_if(|to| !names.contains(&to.service));
            if let Some(to) = &port.traffic.failover {
                compiled.backends.insert(to.service.clone());
                found.push((name.clone(), to.service.clone()));
            }
        }
    }
    for (from, to) in found {
        if let Some(compiled) = services.get_mut(&to) {
            compiled.parents.insert(from.clone());
            compiled.doors.insert(from);
        }
    }
}

/// Services that only routes may lead to learn which services those routes are of.
fn close_bypasses(services: &mut BTreeMap<ServiceName, Compiled>, set: &Set) {
    for (name, spec) in set.services() {
        if spec.callers == Callers::RouteOnly
            && let Some(compiled) = services.get_mut(&name)
        {
            compiled.authorization.parents = Some(compiled.doors.clone());
        }
    }
}

#[cfg(test)]
mod external_tests;
#[cfg(test)]
mod tests;

//! The part of a compiled revision that one sidecar sees. Equal scopes have equal tables, so that sidecars
//! that see the same can share one. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fit::{Fitted, fit};
use super::{Endpoints, Plan, Served, Sidecar};
use crate::table::{
    Authorization, Ban, Concurrency, External, Features, Forbidden, Schema, ServiceName, Table, Via,
};

/// All that a sidecar's table depends on, beside its plan and the endpoints. Services are positions in the
/// order of the plan's services, so a scope is valid only with the plan from which it was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Services that the identity may call.
    calls: Vec<usize>,
    /// Services that the sidecar registered for and may serve.
    serves: Vec<usize>,
    /// The namespace of the sidecar, if routes of it hold for its own callers only, at a Service that it may
    /// call.
    consumers: Option<String>,
    /// Services of which it learns only that it may not call them.
    forbidden: Vec<(usize, Ban)>,
    /// The features that it supports.
    features: Features,
}

impl Plan {
    /// The part that a sidecar sees.
    ///
    /// It learns of a service that it may not call in two cases, in which the mesh names that service to it
    /// anyway: the service is a backend of one that it may call, or its listeners name the service and it is
    /// of the sidecar's own namespace. For a guessed name of another namespace it gets no answer.
    pub fn scope(&self, sidecar: &Sidecar) -> Scope {
        let own = sidecar.identity.workload();
        let is_own = |name: &ServiceName| {
            own.as_ref()
                .is_some_and(|own| own.namespace == name.namespace)
        };
        let mut scope = Scope {
            calls: Vec::new(),
            serves: Vec::new(),
            consumers: None,
            forbidden: Vec::new(),
            features: sidecar.features,
        };
        let mut named: BTreeSet<&ServiceName> = sidecar
            .listens_for
            .iter()
            .filter(|name| is_own(name))
            .collect();
        for (place, (name, compiled)) in self.services.iter().enumerate() {
            if compiled.may_be_called_by(&sidecar.identity) {
                scope.calls.push(place);
                // A route names its forbidden backend anyway; without this its requests would look like those
                // to a service that does not exist.
                named.extend(&compiled.backends);
                let own = own.as_ref().map(|own| own.namespace);
                if let Some(own) = own
                    && let Some(routes) = compiled.consumers.get(own)
                {
                    named.extend(&routes.backends);
                    scope.consumers.get_or_insert_with(|| own.to_owned());
                }
            }
            if sidecar.serves.contains(name) {
                scope.serves.push(place);
            }
        }
        for (place, (name, compiled)) in self.services.iter().enumerate() {
            if named.contains(name)
                && let Some(ban) = compiled.ban(&sidecar.identity)
            {
                scope.forbidden.push((place, ban));
            }
        }
        scope
    }

    /// The table of one sidecar.
    pub fn table(&self, sidecar: &Sidecar, endpoints: &Endpoints) -> Table {
        self.fitted(&self.scope(sidecar), endpoints).table
    }

    /// The table of every sidecar that has this scope, in the form that it supports.
    pub fn fitted(&self, scope: &Scope, endpoints: &Endpoints) -> Fitted {
        fit(self.table_of(scope, endpoints), scope.features)
    }

    fn table_of(&self, scope: &Scope, endpoints: &Endpoints) -> Table {
        let has = |list: &[usize], place: usize| list.binary_search(&place).is_ok();
        let serves = scope.serves.iter();
        let served: BTreeSet<&ServiceName> = serves
            .filter_map(|place| self.services.keys().nth(*place))
            .collect();
        let is_sent_from_here = |external: &External| match &external.via {
            Some(via) => served.contains(&via.service),
            None => true,
        };
        let mut decides: BTreeSet<&ServiceName> = BTreeSet::new();
        for (place, (name, compiled)) in self.services.iter().enumerate() {
            if has(&scope.serves, place) {
                decides.insert(name);
                decides.extend(&compiled.parents);
            }
            // Beyond the sidecar that sends it, none can decide about a call that leaves the mesh: the
            // caller's own, or those of the service that it is sent through.
            let external = compiled.service.external.as_ref();
            let leaves = external.is_some_and(|external| {
                is_sent_from_here(external) && (external.via.is_some() || has(&scope.calls, place))
            });
            if leaves {
                decides.insert(name);
                decides.extend(&compiled.parents);
            }
        }
        let mut services = BTreeMap::new();
        let mut forbidden = BTreeMap::new();
        let mut closed_hosts = BTreeSet::new();
        for (place, (name, compiled)) in self.services.iter().enumerate() {
            let banned = scope
                .forbidden
                .binary_search_by_key(&place, |(one, _)| *one);
            if let Ok(at) = banned {
                let ban = &scope.forbidden[at].1;
                let ports = compiled.service.ports.iter();
                let ports = ports.map(|(number, port)| (*number, port.protocol));
                let (ports, ban) = (ports.collect(), ban.clone());
                forbidden.insert(name.clone(), Forbidden { ports, ban });
            }
            let (callable, decides) = (has(&scope.calls, place), decides.contains(name));
            if !callable
                && !self.egress.is_deny()
                && let Some(external) = &compiled.service.external
            {
                closed_hosts.extend(external.hosts.iter().cloned());
            }
            if !callable && !decides {
                continue;
            }
            let mut service = compiled.service.clone();
            let consumers = scope.consumers.as_ref();
            if callable && let Some(routes) = consumers.and_then(|own| compiled.consumers.get(own))
            {
                routes.replace(&mut service.ports);
            }
            let serves = has(&scope.serves, place);
            for (number, port) in &mut service.ports {
                if !serves {
                    // Only the sidecars that serve enforce these, and only they need to know them.
                    port.traffic.concurrency = Concurrency::default();
                    port.traffic.rate_limits.clear();
                    port.traffic.caller_rate_limits.clear();
                }
                if callable {
                    let found = endpoints_of(name, &service.external, *number, endpoints);
                    let found = found.cloned().unwrap_or_default();
                    (port.endpoints, port.absence) = (found.endpoints, found.absence);
                } else {
                    port.routes.clear();
                }
            }
            if let Some(external) = &mut service.external
                && external.via.is_some()
            {
                *external = match is_sent_from_here(external) {
                    true => Arc::new(sent_from_here(external)),
                    false => Arc::new(external.seen_by_callers()),
                };
            }
            service.authorization = decides.then(|| Authorization {
                // Such callers come to the sidecars that serve; no route leads them there.
                plaintext: compiled.authorization.plaintext && serves,
                ..compiled.authorization.clone()
            });
            services.insert(name.clone(), Arc::new(service));
        }
        let session_keys = self.session_secrets.keys_of(&services);
        Table {
            schema: Schema,
            revision: self.revision.clone(),
            trust_domain: self.trust_domain.clone(),
            services,
            forbidden,
            session_keys,
            egress: self.egress,
            closed_hosts,
        }
    }
}

/// The endpoints of a port: its own, or those of the service that it is sent through.
fn endpoints_of<'e>(
    name: &ServiceName,
    external: &Option<Arc<External>>,
    port: u16,
    endpoints: &'e Endpoints,
) -> Option<&'e Served> {
    let via = external.as_ref().and_then(|external| external.via.as_ref());
    match via {
        None => endpoints.get(&(name.clone(), port)),
        Some(via) => endpoints.get(&(via.service.clone(), *via.ports.get(&port)?)),
    }
}

/// For a sidecar that serves the service that it is sent through.
fn sent_from_here(external: &External) -> External {
    let via = external.via.clone().map(|via| Via { here: true, ..via });
    External {
        via,
        ..external.clone()
    }
}

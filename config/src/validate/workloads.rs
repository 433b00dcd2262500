//! Checks Workloads: whether their Services exist and let their identity serve, and whether two of them mean
//! one peer.

use std::collections::{BTreeMap, BTreeSet};

use weft_transport::identity::SpiffeId;

use super::{Check, RESERVED_NAMESPACE};
use crate::findings::Severity;
use crate::resources::{Key, Kind, ServedPort, ServiceSpec, WorkloadSpec};

impl Check<'_> {
    pub(super) fn workload(&mut self, key: &Key, spec: &WorkloadSpec) {
        self.identity(key, "spec.identity", &spec.identity);
        let own = spec.identity.workload();
        if own.is_some_and(|own| own.namespace == RESERVED_NAMESPACE) {
            self.error(
                key,
                "spec.identity",
                "identities of ns/weft are the control plane's",
                "name the identity of a workload",
            );
        }
        let mut seen = BTreeSet::new();
        for (i, served) in spec.services.iter().enumerate() {
            if !seen.insert(served) {
                let message = format!("{}:{} is listed twice", served.name, served.port);
                self.error(key, &format!("spec.services[{i}]"), &message, "remove one");
                continue;
            }
            let Some(service) = self.set.service(&key.namespace, &served.name) else {
                let field = format!("spec.services[{i}].name");
                let wanted = Key::new(Kind::Service, &key.namespace, &served.name);
                self.missing(Severity::Error, key, &field, &wanted);
                continue;
            };
            self.serves(key, i, served, service);
            self.may_serve(key, i, &served.name, service, &spec.identity);
        }
    }

    fn serves(&mut self, key: &Key, i: usize, served: &ServedPort, service: &ServiceSpec) {
        let has_port = service.ports.iter().any(|port| port.port == served.port);
        if has_port || self.is_broken(&key.namespace, &served.name) {
            return;
        }
        let ports: Vec<String> = service
            .ports
            .iter()
            .map(|one| one.port.to_string())
            .collect();
        let message = format!("Service {} has no port {}", served.name, served.port);
        let hint = format!("its ports are {}", ports.join(", "));
        self.error(key, &format!("spec.services[{i}].port"), &message, &hint);
    }

    fn may_serve(
        &mut self,
        key: &Key,
        i: usize,
        name: &str,
        service: &ServiceSpec,
        identity: &SpiffeId,
    ) {
        let allowed = match &service.identities {
            Some(identities) => identities.contains(identity),
            // The default, as `compile` has it.
            None => identity
                .workload()
                .is_some_and(|own| own.namespace == key.namespace && own.service_account == name),
        };
        if allowed || self.is_broken(&key.namespace, name) {
            return;
        }
        let message = format!("{identity} may not serve Service {name}");
        let hint = "name it in spec.identities of the Service, or correct it here";
        self.error(key, &format!("spec.services[{i}].name"), &message, hint);
    }

    /// Two Workloads with one address and identity are one peer, so a port of it stands in one of them.
    pub(super) fn workloads_at_one_address(&mut self) {
        let set = self.set;
        let mut first: BTreeMap<_, &Key> = BTreeMap::new();
        for (key, spec) in set.workloads() {
            for (i, served) in spec.services.iter().enumerate() {
                let peer = (&key.namespace, served, spec.address, &spec.identity);
                match first.get(&peer) {
                    Some(other) if *other != key => {
                        let message = format!(
                            "{other} has {}:{} at {} as well",
                            served.name, served.port, spec.address
                        );
                        let field = format!("spec.services[{i}]");
                        self.error(key, &field, &message, "remove it from one of them");
                    }
                    Some(_) => {}
                    None => {
                        first.insert(peer, key);
                    }
                }
            }
        }
    }
}

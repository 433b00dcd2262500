//! Services outside of the mesh: their names and ports are distinct. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::compile::references::References;
use crate::findings::Severity;
use crate::resources::{ExternalServiceSpec, Key, Kind};
use crate::table::ServiceName;

impl Check<'_> {
    /// One ExternalService by itself, and beside the Services.
    pub(super) fn external(&mut self, key: &Key, spec: &ExternalServiceSpec) {
        if self.set.service(&key.namespace, &key.name).is_some() {
            let message = format!(
                "there is a Service {} in namespace {} already",
                key.name, key.namespace
            );
            let hint = "choose another name: applications and routes name both alike";
            self.error(key, "metadata.name", &message, hint);
        }
        self.via(key, spec);
        let mut seen = BTreeSet::new();
        for (i, port) in spec.ports.iter().enumerate() {
            if !seen.insert(port.port) {
                let message = format!("port {} is listed twice", port.port);
                let field = format!("spec.ports[{i}].port");
                self.error(key, &field, &message, "remove one");
            }
        }
        let mut seen = BTreeSet::new();
        for (i, address) in spec.addresses.iter().enumerate() {
            if !seen.insert(address) {
                let field = format!("spec.addresses[{i}]");
                let message = format!("{address} is listed twice");
                self.error(key, &field, &message, "remove one");
            }
        }
        for (i, host) in spec.hosts.iter().enumerate() {
            // A Service is found first, so the name would never mean this.
            if let Ok(name) = host.parse::<ServiceName>()
                && self.set.service(&name.namespace, &name.name).is_some()
            {
                let field = format!("spec.hosts[{i}]");
                let message = format!("{host} is a Service of the mesh");
                self.error(key, &field, &message, "choose another name");
            }
        }
    }

    /// What it is sent through is a Service with a port for each of its own.
    fn via(&mut self, key: &Key, spec: &ExternalServiceSpec) {
        let Some(via) = &spec.via else { return };
        let namespace = via.namespace.as_deref().unwrap_or(&key.namespace);
        let Some(service) = self.set.service(namespace, &via.name) else {
            if self.set.external(namespace, &via.name).is_some() {
                let message = format!("{} is an ExternalService", via.name);
                let hint = "name a Service of the mesh, whose sidecars send outside";
                self.error(key, "spec.via.name", &message, hint);
                return;
            }
            let wanted = Key::new(Kind::Service, namespace, &via.name);
            self.missing(Severity::Error, key, "spec.via.name", &wanted);
            return;
        };
        if self.is_broken(namespace, &via.name) {
            return;
        }
        if !References::new(self.set).permits_via(key, namespace, &via.name) {
            let message = format!(
                "no ReferenceGrant in namespace {namespace} permits it to ExternalService of namespace {}",
                key.namespace
            );
            let hint = "add one there, or set requireReferenceGrants of the MeshConfig to false";
            self.error(key, "spec.via.namespace", &message, hint);
        }
        for (i, port) in spec.ports.iter().enumerate() {
            let Err(fit) = via.port_for(port.protocol, service) else {
                continue;
            };
            let fit: Vec<String> = fit.iter().map(u16::to_string).collect();
            let what = match port.protocol.has_requests() {
                true => "requests",
                false => "bytes of tcp",
            };
            let name = &via.name;
            let (field, message, hint) = match (via.port, fit.as_slice()) {
                (_, []) => (
                    format!("spec.ports[{i}].protocol"),
                    format!("Service {name} has no port that takes {what}"),
                    format!("give {name} one of {}", port.protocol),
                ),
                (Some(number), fit) => (
                    "spec.via.port".to_owned(),
                    format!(
                        "port {number} of Service {name} does not take {what}, as port {} does",
                        port.port
                    ),
                    format!("write one of {}", fit.join(", ")),
                ),
                (None, fit) => (
                    "spec.via.port".to_owned(),
                    format!("Service {name} has several ports that take {what}"),
                    format!("write one of {}", fit.join(", ")),
                ),
            };
            self.error(key, &field, &message, &hint);
        }
    }

    /// A name means one ExternalService in the whole mesh, so that none takes the requests of another.
    pub(super) fn hosts(&mut self) {
        let mut first: BTreeMap<&str, Key> = BTreeMap::new();
        let mut found = Vec::new();
        for (name, spec) in self.set.externals() {
            let key = Key::new(Kind::ExternalService, &name.namespace, &name.name);
            for (i, host) in spec.hosts.iter().enumerate() {
                match first.get(host.as_str()) {
                    Some(other) => found.push((key.clone(), i, host, other.clone())),
                    None => {
                        first.insert(host, key.clone());
                    }
                }
            }
        }
        for (key, i, host, other) in found {
            let message = match key == other {
                true => format!("{host} is listed twice"),
                false => format!("{host} is a host of {other} already"),
            };
            let field = format!("spec.hosts[{i}]");
            self.error(&key, &field, &message, "remove it from one of them");
        }
    }
}

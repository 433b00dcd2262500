//! Services outside of the mesh: their names and ports are distinct. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
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

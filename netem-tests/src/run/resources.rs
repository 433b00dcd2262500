//! The resources of a scenario, as `weft apply` reads them. Pure.

use std::fmt::Write as _;

use super::mesh::{NAMESPACE, SERVICE_PORT, TRUST_DOMAIN};
use crate::scenario::{Protocol, Scenario};

/// A Service for each of the scenario's, and the resources that the scenario adds.
pub(super) fn resources_of(scenario: &Scenario) -> String {
    let mut documents = String::new();
    for service in &scenario.services {
        let protocol = match service.protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            documents,
            "---\napiVersion: weft.dev/v1alpha1\nkind: Service\n\
             metadata: {{ name: {}, namespace: {NAMESPACE} }}\n\
             spec: {{ ports: [ {{ port: {SERVICE_PORT}, protocol: {protocol} }} ], \
             identities: [ \"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{}\" ] }}\n",
            service.name,
            service.beside.as_ref().unwrap_or(&service.name)
        );
    }
    if !scenario.resources.trim().is_empty() {
        documents.push_str("---\n");
        documents.push_str(&scenario.resources);
    }
    documents
}

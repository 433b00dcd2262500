//! Where the references of routes lead: to a port of a Service, or nowhere, and why. Pure. Tables, status and
//! warnings all ask here.

use std::collections::BTreeMap;

use super::attachments::needs;
use crate::resources::{BackendRef, Key, Kind, ReferenceGrantSpec, ServicePort, Set, is_core};
use crate::table::{Broken, ServiceName};

/// What references of routes can lead to.
pub(crate) struct References<'a> {
    set: &'a Set,
    /// By the namespace whose resources they speak of.
    grants: BTreeMap<&'a str, Vec<&'a ReferenceGrantSpec>>,
    /// Whether a reference to another namespace needs one. A mesh needs none (GEP-1294) unless it says so.
    requires_grants: bool,
}

/// A reference that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    /// Why, in one word.
    pub(crate) broken: Broken,
    /// The field of the reference at fault.
    pub(crate) field: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// What to write instead; empty where the name may just be misspelt.
    pub(crate) hint: String,
}

impl<'a> References<'a> {
    pub(crate) fn new(set: &'a Set) -> Self {
        let mut grants: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (key, grant) in set.grants() {
            grants.entry(&key.namespace).or_default().push(grant);
        }
        let mut mesh = set.mesh_configs();
        Self {
            set,
            grants,
            requires_grants: mesh
                .next()
                .is_some_and(|(_, mesh)| mesh.require_reference_grants),
        }
    }

    /// The Service and port that a route means.
    pub(crate) fn resolve(
        &self,
        route: &Key,
        to: &BackendRef,
    ) -> Result<(ServiceName, u16), Unresolved> {
        let unresolved = |broken, field, message, hint: &str| Unresolved {
            broken,
            field,
            message,
            hint: hint.to_owned(),
        };
        let name = target(route, to);
        let (Some(number), Some(of)) = (to.port, to.target_kind()) else {
            let kind = to.kind.as_deref().unwrap_or("Service");
            let message = format!("weft routes to no {kind}");
            let field = if to.group.as_deref().is_none_or(is_core) {
                "kind"
            } else {
                "group"
            };
            let hint = "name a Service, or an ExternalService of group weft.dev";
            return Err(unresolved(Broken::InvalidKind, field, message, hint));
        };
        if self.requires_grants
            && name.namespace != route.namespace
            && !self.permits(route, of, &name)
        {
            let message = format!(
                "no ReferenceGrant in namespace {} permits it to {} of namespace {}",
                name.namespace,
                route.kind.as_str(),
                route.namespace
            );
            let hint = "add one there, or set requireReferenceGrants of the MeshConfig to false";
            return Err(unresolved(
                Broken::RefNotPermitted,
                "namespace",
                message,
                hint,
            ));
        }
        let destination = self.set.destination(of, &name.namespace, &name.name);
        let of = of.as_str();
        let Some(service) = destination else {
            let message = format!(
                "there is no {of} {} in namespace {}",
                name.name, name.namespace
            );
            return Err(unresolved(Broken::BackendNotFound, "name", message, ""));
        };
        let Some(port) = service.ports.iter().find(|port| port.port == number) else {
            let message = format!("{of} {} has no port {number}", to.name);
            let hint = format!("it has {}", numbers(&service.ports));
            return Err(unresolved(Broken::BackendNotFound, "port", message, &hint));
        };
        if let Some((speaks, hint)) = unsupported(route.kind, port) {
            let message = format!("port {number} of {of} {} is {speaks}", to.name);
            return Err(unresolved(
                Broken::UnsupportedProtocol,
                "port",
                message,
                hint,
            ));
        }
        Ok((name, number))
    }

    /// Whether a grant of the target's namespace permits the reference.
    pub(crate) fn grants(&self, route: &Key, to: &ServiceName) -> bool {
        self.permits(route, Kind::Service, to)
    }

    /// Whether traffic of an ExternalService may be sent through a Service of that namespace.
    pub(crate) fn permits_via(&self, external: &Key, namespace: &str, name: &str) -> bool {
        let to = ServiceName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let is_own = namespace == external.namespace;
        is_own || !self.requires_grants || self.permits(external, Kind::Service, &to)
    }

    fn permits(&self, by: &Key, kind: Kind, to: &ServiceName) -> bool {
        let group = by.kind.group();
        let grants = self.grants.get(to.namespace.as_str());
        grants.into_iter().flatten().any(|grant| {
            let from = grant.from.iter().any(|from| {
                from.group == group
                    && from.kind == by.kind.as_str()
                    && from.namespace == by.namespace
            });
            let covers = grant.to.iter().any(|one| {
                is_core(&one.group)
                    && one.kind == kind.as_str()
                    && one.name.as_ref().is_none_or(|name| *name == to.name)
            });
            from && covers
        })
    }
}

/// The name that a reference has, whether there is such a Service or not.
pub(crate) fn target(route: &Key, to: &BackendRef) -> ServiceName {
    let namespace = to.namespace.as_deref().unwrap_or(&route.namespace);
    // Names of other kinds need not be labels, and a table takes no others.
    ServiceName::new(namespace, &to.name).unwrap_or_else(|_| ServiceName {
        namespace: route.namespace.clone(),
        name: "invalid-kind".to_owned(),
    })
}

/// What a port speaks, if routes of that kind cannot send it, and what to do.
fn unsupported(kind: Kind, port: &ServicePort) -> Option<(String, &'static str)> {
    let is_tcp = kind.is_of_connections();
    if port.protocol.has_requests() == is_tcp {
        let (_, hint) = needs(kind);
        return Some((port.protocol.to_string(), hint));
    }
    let is_known = |one: &&str| match *one {
        "http" | "http2" | "grpc" | "kubernetes.io/h2c" => true,
        "kubernetes.io/ws" => kind == Kind::HttpRoute,
        _ => false,
    };
    let other = port.app_protocol.as_deref();
    let other = other.filter(|one| !is_tcp && !is_known(one))?;
    let hint = "HTTPRoutes send http, grpc, kubernetes.io/h2c and kubernetes.io/ws; GRPCRoutes all but the last";
    Some((format!("declared as {other}"), hint))
}

fn numbers(ports: &[ServicePort]) -> String {
    let all: Vec<String> = ports.iter().map(|port| port.port.to_string()).collect();
    all.join(", ")
}

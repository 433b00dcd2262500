//! Checks a whole set of resources at once: whether they fit together, and whether each can have the intended
//! meaning. Pure. The contents of a single document were checked when it was read.
//!
//! Every rule here has a test whose name states it, with the message an operator sees.

mod bypass;
mod external;
mod routes;
mod sessions;
mod traffic;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};

use weft_transport::identity::{SpiffeId, TrustDomain};

use crate::findings::{Finding, Findings, Severity};
use crate::limits;
use crate::nearest::nearest;
use crate::resources::{
    AuthorizationPolicySpec, Callers, Key, Kind, Parsed, Resource, ServiceSpec, Set,
};
use crate::table::ServiceName;

/// Only identities and services of the control plane live here.
pub(crate) const RESERVED_NAMESPACE: &str = "weft";

/// Checks `set`. `parsed` are the files of the change, for places; resources that were in force before
/// are named instead. Without `trust_domain` (offline), identities are only compared with each other.
pub fn validate(set: &Set, trust_domain: Option<&TrustDomain>, parsed: &Parsed) -> Findings {
    let mut targeting: BTreeMap<ServiceName, Vec<Policy<'_>>> = BTreeMap::new();
    for (key, policy) in set.policies() {
        for target in &policy.target_refs {
            let name = ServiceName {
                namespace: key.namespace.clone(),
                name: target.name.clone(),
            };
            targeting.entry(name).or_default().push((key, policy));
        }
    }
    let mut check = Check {
        set,
        targeting,
        trust_domain,
        parsed,
        findings: Findings::default(),
    };
    check.size();
    for (key, resource) in &set.resources {
        let is_service = matches!(key.kind, Kind::Service | Kind::ExternalService);
        if key.namespace == RESERVED_NAMESPACE && is_service {
            let hint = "choose another namespace";
            check.error(
                key,
                "metadata.namespace",
                "weft is the control plane's own namespace",
                hint,
            );
        }
        match resource {
            Resource::Service(object) => check.service(key, &object.spec),
            Resource::ExternalService(object) => check.external(key, &object.spec),
            Resource::AuthorizationPolicy(object) => check.policy(key, &object.spec),
            Resource::TrafficPolicy(object) => check.traffic_policy(key, &object.spec),
            Resource::MeshConfig(object) => check.mesh_traffic(key, &object.spec.traffic),
            Resource::Workload(object) => check.workload(key, &object.spec),
            // Routes are checked together. A grant says nothing of what exists.
            Resource::HttpRoute(_)
            | Resource::GrpcRoute(_)
            | Resource::TlsRoute(_)
            | Resource::TcpRoute(_)
            | Resource::ReferenceGrant(_) => {}
        }
    }
    check.hosts();
    check.routes();
    check.workloads_at_one_address();
    for (key, _) in set.mesh_configs().skip(1) {
        check.error(
            key,
            "",
            "there is a MeshConfig already",
            "change that one instead",
        );
    }
    // A match of which only a part could be read would be compared wrongly.
    if !parsed.findings.has_errors() {
        check.conflicts();
        check.cookies();
        check.contradictions();
        check.unreachable();
        check.failover_cycles();
    }
    check.findings.sort();
    check.findings
}

/// An authorization policy with what names it.
type Policy<'a> = (&'a Key, &'a AuthorizationPolicySpec);

struct Check<'a> {
    set: &'a Set,
    /// Authorization policies by the Services that they target.
    targeting: BTreeMap<ServiceName, Vec<Policy<'a>>>,
    trust_domain: Option<&'a TrustDomain>,
    parsed: &'a Parsed,
    findings: Findings,
}

impl Check<'_> {
    fn error(&mut self, key: &Key, field: &str, message: &str, hint: &str) {
        self.push(Severity::Error, key, field, message, hint);
    }

    fn warning(&mut self, key: &Key, field: &str, message: &str, hint: &str) {
        self.push(Severity::Warning, key, field, message, hint);
    }

    fn push(&mut self, severity: Severity, key: &Key, field: &str, message: &str, hint: &str) {
        let place = self.parsed.locate(key, field);
        self.findings.push(Finding {
            severity,
            file: place.as_ref().map(|(file, _)| file.clone()),
            position: place.map(|(_, position)| position),
            resource: Some(key.to_string()),
            field: field.to_owned(),
            message: message.to_owned(),
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        });
    }

    fn size(&mut self) {
        let count = self.set.resources.len();
        if count > limits::RESOURCES_MAX
            && let Some(key) = self.set.resources.keys().next()
        {
            let message = format!("the mesh would have {count} resources");
            let hint = format!("at most {} are supported", limits::RESOURCES_MAX);
            self.error(&key.clone(), "", &message, &hint);
        }
    }

    fn identity(&mut self, key: &Key, field: &str, identity: &SpiffeId) {
        if let Some(domain) = self.trust_domain
            && identity.trust_domain() != domain
        {
            let message = format!("{identity} is outside the trust domain of this mesh");
            self.error(key, field, &message, &format!("the mesh is {domain}"));
        }
    }

    fn service(&mut self, key: &Key, spec: &ServiceSpec) {
        if !spec.mutual_tls.is_strict() && spec.callers == Callers::RouteOnly {
            let message = "lets in no caller without mutual TLS: no route leads one there, and callers is RouteOnly";
            let hint = "remove one of the two";
            self.warning(key, "spec.mutualTls", message, hint);
        }
        let mut seen = BTreeSet::new();
        for (i, port) in spec.ports.iter().enumerate() {
            if !seen.insert(port.port) {
                let message = format!("port {} is listed twice", port.port);
                self.error(
                    key,
                    &format!("spec.ports[{i}].port"),
                    &message,
                    "remove one",
                );
            }
        }
        let mut seen = BTreeSet::new();
        for (i, port) in spec.ports.iter().enumerate() {
            if let Some(name) = &port.name
                && !seen.insert(name)
            {
                let field = format!("spec.ports[{i}].name");
                let message = format!("two ports have the name {name}");
                self.error(key, &field, &message, "choose another name");
            }
        }
        let mut seen = BTreeSet::new();
        for (i, identity) in spec.identities.iter().flatten().enumerate() {
            let field = format!("spec.identities[{i}]");
            self.identity(key, &field, identity);
            if !seen.insert(identity) {
                self.error(
                    key,
                    &field,
                    &format!("{identity} is listed twice"),
                    "remove one",
                );
            }
            if identity
                .workload()
                .is_some_and(|workload| workload.namespace == RESERVED_NAMESPACE)
            {
                let hint = "give the workload an identity of its own namespace";
                self.error(
                    key,
                    &field,
                    "identities of ns/weft are the control plane's",
                    hint,
                );
            }
        }
    }

    fn policy(&mut self, key: &Key, spec: &AuthorizationPolicySpec) {
        let has_request_rules = spec.to.is_some();
        let mut seen = BTreeSet::new();
        for (i, target) in spec.target_refs.iter().enumerate() {
            let field = format!("spec.targetRefs[{i}].name");
            let kind = target.target_kind();
            let of = kind.as_str();
            if !seen.insert((kind, &target.name)) {
                let message = format!("{of} {} is listed twice", target.name);
                self.error(key, &field, &message, "remove one");
            }
            let found = self.set.destination(kind, &key.namespace, &target.name);
            let Some(service) = found else {
                let wanted = Key::new(kind, &key.namespace, &target.name);
                self.missing(Severity::Error, key, &field, &wanted);
                continue;
            };
            let tcp = service
                .ports
                .iter()
                .find(|port| !port.protocol.has_requests());
            if let (true, Some(port)) = (has_request_rules, tcp) {
                let message = format!(
                    "methods and paths cannot be checked on {of} {}, whose port {} is {}",
                    target.name, port.port, port.protocol
                );
                let hint = format!("use from alone, or split the {of}");
                self.error(key, &field, &message, &hint);
            }
        }
        let mut terms = 0;
        for (i, source) in spec.from.iter().flatten().enumerate() {
            terms += source.principals.len();
            for (j, principal) in source.principals.iter().enumerate() {
                self.identity(key, &format!("spec.from[{i}].principals[{j}]"), principal);
            }
        }
        for operation in spec.to.iter().flatten() {
            terms += operation.methods.as_ref().map_or(0, Vec::len);
            terms += operation.paths.as_ref().map_or(0, Vec::len);
        }
        if terms > limits::POLICY_TERMS_MAX {
            let message = format!("has {terms} principals, methods and paths");
            let hint = format!("at most {}; split the policy", limits::POLICY_TERMS_MAX);
            self.error(key, "spec", &message, &hint);
        }
    }

    /// A reference to a resource that does not exist. It may be one that could not be read: then that fault
    /// was reported already.
    fn missing(&mut self, severity: Severity, key: &Key, field: &str, wanted: &Key) {
        if self.parsed.may_define(wanted) {
            return;
        }
        let (kind, name, namespace) = (wanted.kind.as_str(), &wanted.name, &wanted.namespace);
        let message = format!("there is no {kind} {name} in namespace {namespace}");
        let of_namespace = self
            .set
            .resources
            .range(Key::new(wanted.kind, namespace, "")..)
            .take_while(|(other, _)| other.kind == wanted.kind && other.namespace == *namespace);
        let names: Vec<&str> = of_namespace.map(|(key, _)| key.name.as_str()).collect();
        let hint = match nearest(name, &names) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("apply the {kind} first, or in the same change"),
        };
        self.push(severity, key, field, &message, &hint);
    }

    /// Whether only a part of a Service, or of an ExternalService, could be read, so that nothing follows
    /// from what it lacks.
    fn is_broken(&self, namespace: &str, name: &str) -> bool {
        [Kind::Service, Kind::ExternalService]
            .into_iter()
            .any(|kind| self.parsed.is_broken(&Key::new(kind, namespace, name)))
    }
}

#[cfg(test)]
mod tests;

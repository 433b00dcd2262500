//! Checks a whole set of resources at once: whether they fit together, and whether each can have the intended
//! meaning. Pure. The contents of a single document were checked when it was read.
//!
//! Every rule here has a test whose name states it, with the message an operator sees.

mod bypass;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};

use weft_transport::identity::{SpiffeId, TrustDomain};

use crate::findings::{Finding, Findings, Severity};
use crate::limits;
use crate::nearest::nearest;
use crate::resources::{
    AuthorizationPolicySpec, HttpRouteRule, HttpRouteSpec, Key, Kind, Parsed, ServiceSpec, Set,
};
use crate::table::{self, Action, Protocol};

/// Only identities and services of the control plane live here.
pub(crate) const RESERVED_NAMESPACE: &str = "weft";

/// Checks `set`. `parsed` are the files of the change, for places; resources that were in force before
/// are named instead. Without `trust_domain` (offline), identities are only compared with each other.
pub fn validate(set: &Set, trust_domain: Option<&TrustDomain>, parsed: &Parsed) -> Findings {
    let mut check = Check {
        set,
        trust_domain,
        parsed,
        findings: Findings::default(),
    };
    check.size();
    for (key, resource) in &set.resources {
        if key.namespace == RESERVED_NAMESPACE && key.kind == Kind::Service {
            let hint = "choose another namespace";
            check.error(
                key,
                "metadata.namespace",
                "weft is the control plane's own namespace",
                hint,
            );
        }
        match resource {
            crate::resources::Resource::Service(object) => check.service(key, &object.spec),
            crate::resources::Resource::AuthorizationPolicy(object) => {
                check.policy(key, &object.spec)
            }
            crate::resources::Resource::HttpRoute(object) => check.route(key, &object.spec),
            crate::resources::Resource::TrafficPolicy(object) => {
                check.traffic_policy(key, &object.spec);
            }
            crate::resources::Resource::MeshConfig(object) => {
                check.mesh_traffic(key, &object.spec.traffic);
            }
        }
    }
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
        check.contradictions();
        check.unreachable();
        check.failover_cycles();
    }
    check.findings.sort();
    check.findings
}

struct Check<'a> {
    set: &'a Set,
    trust_domain: Option<&'a TrustDomain>,
    parsed: &'a Parsed,
    findings: Findings,
}

impl Check<'_> {
    fn error(&mut self, key: &Key, field: &str, message: &str, hint: &str) {
        self.push(Severity::Error, key, field, message, hint);
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
            if !seen.insert(&target.name) {
                let message = format!("Service {} is listed twice", target.name);
                self.error(key, &field, &message, "remove one");
            }
            let Some(service) = self.set.service(&key.namespace, &target.name) else {
                self.missing_service(key, &field, &target.name);
                continue;
            };
            let tcp = service
                .ports
                .iter()
                .find(|port| !port.protocol.has_requests());
            if let (true, Some(port)) = (has_request_rules, tcp) {
                let message = format!(
                    "methods and paths cannot be checked on Service {}, whose port {} is {}",
                    target.name, port.port, port.protocol
                );
                self.error(
                    key,
                    &field,
                    &message,
                    "use from alone, or split the Service",
                );
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

    fn route(&mut self, key: &Key, spec: &HttpRouteSpec) {
        let mut seen = BTreeSet::new();
        for (i, parent) in spec.parent_refs.iter().enumerate() {
            let field = format!("spec.parentRefs[{i}]");
            if !seen.insert((&parent.name, parent.port)) {
                self.error(key, &field, "the same parent is listed twice", "remove one");
            }
            let Some(service) = self.set.service(&key.namespace, &parent.name) else {
                self.missing_service(key, &format!("{field}.name"), &parent.name);
                continue;
            };
            match parent.port {
                _ if self.is_broken(&key.namespace, &parent.name) => {}
                Some(port) => self.port(key, &format!("{field}.port"), &parent.name, service, port),
                None if service
                    .ports
                    .iter()
                    .any(|port| port.protocol.has_requests()) => {}
                None => {
                    let message = format!("Service {} has no http or grpc port", parent.name);
                    let hint = "an HTTPRoute needs requests to route";
                    self.error(key, &format!("{field}.name"), &message, hint);
                }
            }
        }
        for (i, rule) in spec.rules.iter().enumerate() {
            self.rule(key, &format!("spec.rules[{i}]"), rule);
            self.bypasses(key, spec, i, rule);
        }
    }

    fn rule(&mut self, key: &Key, field: &str, rule: &HttpRouteRule) {
        if let Some(timeouts) = &rule.timeouts {
            self.timeouts(key, &format!("{field}.timeouts"), timeouts);
        }
        for (i, one) in rule.matches.iter().enumerate() {
            let mut seen = BTreeSet::new();
            for (j, header) in one.headers.iter().enumerate() {
                if !seen.insert(&header.name) {
                    let field = format!("{field}.matches[{i}].headers[{j}].name");
                    let message = format!("header {} is listed twice", header.name);
                    self.error(key, &field, &message, "one line of a header has one value");
                }
            }
            if one
                .path
                .as_ref()
                .is_some_and(|path| path.value.len() > limits::PATH_LENGTH_MAX)
            {
                let field = format!("{field}.matches[{i}].path.value");
                let hint = format!("at most {} characters", limits::PATH_LENGTH_MAX);
                self.error(key, &field, "the path is too long", &hint);
            }
        }
        let mut seen = BTreeSet::new();
        let mut sum = 0u64;
        for (i, backend) in rule.backend_refs.iter().enumerate() {
            let field = format!("{field}.backendRefs[{i}]");
            sum += u64::from(backend.weight);
            if !seen.insert((&backend.name, backend.port)) {
                let message = format!("backend {}:{} is listed twice", backend.name, backend.port);
                self.error(key, &field, &message, "add their weights");
            }
            match self.set.service(&key.namespace, &backend.name) {
                Some(_) if self.is_broken(&key.namespace, &backend.name) => {}
                Some(service) => {
                    self.port(
                        key,
                        &format!("{field}.port"),
                        &backend.name,
                        service,
                        backend.port,
                    );
                }
                None => self.missing_service(key, &format!("{field}.name"), &backend.name),
            }
        }
        let field = format!("{field}.backendRefs");
        if sum == 0 && !rule.backend_refs.is_empty() {
            let hint = "give at least one backend a weight above 0";
            self.error(
                key,
                &field,
                "the weights add up to 0, so no request could go anywhere",
                hint,
            );
        }
        if sum > limits::WEIGHT_MAX {
            let message = format!("the weights add up to {sum}");
            self.error(
                key,
                &field,
                &message,
                &format!("at most {}", limits::WEIGHT_MAX),
            );
        }
    }

    /// A port that a route names must exist and carry requests.
    fn port(&mut self, key: &Key, field: &str, name: &str, service: &ServiceSpec, number: u16) {
        match service
            .ports
            .iter()
            .find(|port| port.port == number)
            .map(|port| port.protocol)
        {
            Some(Protocol::Http | Protocol::Grpc) => {}
            Some(Protocol::Tcp) => {
                let message = format!("port {number} of Service {name} is tcp");
                self.error(
                    key,
                    field,
                    &message,
                    "an HTTPRoute needs an http or grpc port",
                );
            }
            None => {
                let ports: Vec<String> = service
                    .ports
                    .iter()
                    .map(|port| port.port.to_string())
                    .collect();
                let message = format!("Service {name} has no port {number}");
                self.error(
                    key,
                    field,
                    &message,
                    &format!("it has {}", ports.join(", ")),
                );
            }
        }
    }

    fn missing_service(&mut self, key: &Key, field: &str, name: &str) {
        let wanted = Key {
            kind: Kind::Service,
            namespace: key.namespace.clone(),
            name: name.to_owned(),
        };
        self.missing(key, field, &wanted);
    }

    /// A reference to a resource that does not exist. It may be one that could not be read: then that fault
    /// was reported already.
    fn missing(&mut self, key: &Key, field: &str, wanted: &Key) {
        if self.parsed.may_define(wanted) {
            return;
        }
        let (kind, name, namespace) = (wanted.kind.as_str(), &wanted.name, &wanted.namespace);
        let message = format!("there is no {kind} {name} in namespace {namespace}");
        let names: Vec<&str> = self
            .set
            .resources
            .keys()
            .filter(|other| other.kind == wanted.kind && other.namespace == *namespace)
            .map(|other| other.name.as_str())
            .collect();
        let hint = match nearest(name, &names) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("apply the {kind} first, or in the same change"),
        };
        self.error(key, field, &message, &hint);
    }

    /// Whether only a part of a Service could be read, so that nothing follows from what it lacks.
    fn is_broken(&self, namespace: &str, name: &str) -> bool {
        self.parsed.is_broken(&Key {
            kind: Kind::Service,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Two rules of one parent with the same conditions: the second never gets a request.
    fn conflicts(&mut self) {
        let mut first: BTreeMap<String, String> = BTreeMap::new();
        let mut found = Vec::new();
        for (key, spec) in self.set.routes() {
            let parents = spec
                .parent_refs
                .iter()
                .map(|parent| (&parent.name, parent.port));
            let parents: BTreeSet<_> = parents.collect();
            for (name, port) in parents {
                for (i, rule) in spec.rules.iter().enumerate() {
                    let mut matches: Vec<String> = rule.matches.iter().map(canonical).collect();
                    if matches.is_empty() {
                        matches.push(canonical(&crate::resources::HttpRouteMatch::default()));
                    }
                    for (j, text) in matches.into_iter().enumerate() {
                        let what = format!("{}/{name}/{port:?}/{text}", key.namespace);
                        let field = format!("spec.rules[{i}].matches[{j}]");
                        match first.get(&what) {
                            Some(other) => found.push((key.clone(), field, other.clone())),
                            None => {
                                first.insert(what, format!("{key} {field}"));
                            }
                        }
                    }
                }
            }
        }
        for (key, field, other) in found {
            let message = format!("{other} takes the same requests, so this never gets one");
            self.push(Severity::Warning, &key, &field, &message, "remove one");
        }
    }
}

/// The conditions of a match as a text that is equal for equal meaning.
fn canonical(one: &crate::resources::HttpRouteMatch) -> String {
    let path = one.path.as_ref().map_or_else(
        || "PathPrefix /".to_owned(),
        |path| format!("{:?} {}", path.kind, path.value),
    );
    let mut headers: Vec<_> = one
        .headers
        .iter()
        .map(|header| (&header.name, &header.value))
        .collect();
    headers.sort();
    format!("{path} {:?} {headers:?}", one.method)
}

/// Whether any Allow policy targets a Service.
pub(crate) fn is_allow_targeted(set: &Set, namespace: &str, name: &str) -> bool {
    set.policies().any(|(key, policy)| {
        policy.action == Action::Allow
            && key.namespace == namespace
            && policy.target_refs.iter().any(|target| target.name == name)
    })
}

/// What the mesh says about Services that no Allow policy targets.
pub(crate) fn default_authorization(set: &Set) -> table::Default {
    set.mesh_configs()
        .next()
        .map_or(table::Default::Allow, |(_, spec)| {
            spec.default_authorization
        })
}

#[cfg(test)]
mod tests;

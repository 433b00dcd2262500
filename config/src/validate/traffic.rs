//! Checks TrafficPolicies, the `traffic` of a MeshConfig and the timeouts of routes: whether each field has a
//! meaning at its place, and whether two policies contradict each other. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::findings::Severity;
use crate::resources::{
    FailoverSpec, Field, Key, Kind, RateLimitBy, ServiceSpec, TargetKind, TimeoutsSpec,
    TrafficPolicySpec, TrafficSpec, TrafficTarget,
};
use crate::table::{HashKey, Protocol, ServiceName};

impl Check<'_> {
    /// One TrafficPolicy, by itself and with its targets.
    pub(super) fn traffic_policy(&mut self, key: &Key, spec: &TrafficPolicySpec) {
        let fields = spec.traffic.fields();
        if fields.is_empty() && !self.parsed.is_broken(key) {
            let hint = "add timeouts, retry, balance or another field";
            self.error(key, "spec", "says nothing about its targets", hint);
        }
        let mut seen = BTreeSet::new();
        for (i, target) in spec.target_refs.iter().enumerate() {
            let field = format!("spec.targetRefs[{i}].name");
            if !seen.insert(target) {
                self.error(
                    key,
                    &field,
                    &format!("{target} is listed twice"),
                    "remove one",
                );
                continue;
            }
            match target.kind {
                TargetKind::HttpRoute | TargetKind::GrpcRoute => {
                    self.of_route(key, &field, target, &spec.traffic, &fields);
                }
                TargetKind::Service => {
                    self.of_service(key, &field, (Kind::Service, target), &spec.traffic, &fields);
                }
                TargetKind::ExternalService => {
                    let target = (Kind::ExternalService, target);
                    self.of_service(key, &field, target, &spec.traffic, &fields);
                    self.no_limits_outside(key, &fields);
                }
                TargetKind::Namespace => {
                    if target.name != key.namespace {
                        let message = format!("the policy is in namespace {}", key.namespace);
                        let hint = format!("put it into {}, or name its own", target.name);
                        self.error(key, &field, &message, &hint);
                    }
                    self.no_failover(key, "spec", &spec.traffic);
                }
            }
        }
        let is_route = |target: &TrafficTarget| target.kind.of_route().is_some();
        if !spec.target_refs.iter().any(is_route) {
            self.no_route_limits(key, "spec", &spec.traffic);
        }
        self.traffic(key, "spec", &spec.traffic);
    }

    /// The `traffic` of the MeshConfig.
    pub(super) fn mesh_traffic(&mut self, key: &Key, traffic: &TrafficSpec) {
        self.no_failover(key, "spec.traffic", traffic);
        self.no_route_limits(key, "spec.traffic", traffic);
        self.traffic(key, "spec.traffic", traffic);
    }

    /// The timeouts of a policy; those of a rule are checked where it is read.
    pub(super) fn timeouts(&mut self, key: &Key, at: &str, timeouts: &TimeoutsSpec) {
        if let Some((message, hint)) = timeouts.fault() {
            self.error(key, &format!("{at}.backendRequest"), message, hint);
        }
    }

    /// Two policies that set the same field of the same target.
    pub(super) fn contradictions(&mut self) {
        let mut first: BTreeMap<(Kind, &str, String, &str), &Key> = BTreeMap::new();
        let mut found = Vec::new();
        for (key, policy) in self.set.traffic_policies() {
            for target in &policy.target_refs {
                for field in policy.traffic.fields() {
                    let what = (
                        key.kind,
                        key.namespace.as_str(),
                        target.to_string(),
                        field.path,
                    );
                    match first.get(&what) {
                        Some(other) if *other != key => {
                            let target = target.to_string();
                            found.push((key.clone(), field, target, (*other).clone()));
                        }
                        Some(_) => {}
                        None => {
                            first.insert(what, key);
                        }
                    }
                }
            }
        }
        for (key, field, target, other) in found {
            let message = format!("{other} says it for {target} already");
            self.error(
                &key,
                &format!("spec.{}", field.path),
                &message,
                "remove one",
            );
        }
    }

    /// A chain of failovers that comes back to where it began.
    pub(super) fn failover_cycles(&mut self) {
        let mut next: BTreeMap<ServiceName, (ServiceName, &Key)> = BTreeMap::new();
        for (key, policy) in self.set.traffic_policies() {
            let Some(to) = &policy.traffic.failover else {
                continue;
            };
            for target in &policy.target_refs {
                let kinds = [TargetKind::Service, TargetKind::ExternalService];
                if kinds.contains(&target.kind) {
                    let from = service(&key.namespace, &target.name);
                    next.insert(from, (to.service(&key.namespace), key));
                }
            }
        }
        let mut found = Vec::new();
        for (start, (_, key)) in &next {
            let mut path = vec![start];
            let mut at = start;
            while let Some((to, _)) = next.get(at) {
                if to == start {
                    // Each cycle is reported once, at its first service. A service that names itself is
                    // reported at its own field.
                    if path.len() > 1 && path.iter().min() == Some(&start) {
                        let names: Vec<String> =
                            path.iter().map(|name| format!("{name} -> ")).collect();
                        found.push(((*key).clone(), format!("{}{start}", names.concat())));
                    }
                    break;
                }
                if path.contains(&to) {
                    break;
                }
                path.push(to);
                at = to;
            }
        }
        for (key, cycle) in found {
            let message = format!("the failover leads back to where it began: {cycle}");
            self.error(
                &key,
                "spec.failover",
                &message,
                "end the chain at one of them",
            );
        }
    }

    fn of_route(
        &mut self,
        key: &Key,
        field: &str,
        target: &TrafficTarget,
        traffic: &TrafficSpec,
        fields: &[Field],
    ) {
        let kind = target.kind.of_route().unwrap_or(Kind::HttpRoute);
        let route = Key::new(kind, &key.namespace, &target.name);
        if !self.set.resources.contains_key(&route) {
            self.missing(Severity::Error, key, field, &route);
        }
        for one in fields.iter().filter(|field| !field.on_routes) {
            let message = "concerns the endpoints of a Service, not the requests of a route";
            let hint = "move it to a policy for the Service";
            self.error(key, &format!("spec.{}", one.path), message, hint);
        }
        for (i, limit) in traffic.rate_limits.iter().flatten().enumerate() {
            if matches!(limit.by, Some(RateLimitBy::Service | RateLimitBy::Caller)) {
                let field = format!("spec.rateLimits[{i}].by");
                let message = "is enforced by the sidecars that serve, which know no routes";
                let hint = "write by: Route, or move it to a policy for the Service";
                self.error(key, &field, message, hint);
            }
        }
    }

    fn of_service(
        &mut self,
        key: &Key,
        field: &str,
        (kind, target): (Kind, &TrafficTarget),
        traffic: &TrafficSpec,
        fields: &[Field],
    ) {
        let name = service(&key.namespace, &target.name);
        let found = self.set.destination(kind, &name.namespace, &name.name);
        let Some(spec) = found else {
            let wanted = Key::new(kind, &name.namespace, &name.name);
            self.missing(Severity::Error, key, field, &wanted);
            return;
        };
        if self.is_broken(&name.namespace, &name.name) {
            return;
        }
        if let Some(to) = &traffic.failover {
            self.failover(key, &name, &spec, to);
        }
        let protocols: BTreeSet<Protocol> = spec.ports.iter().map(|port| port.protocol).collect();
        if !protocols.iter().any(|protocol| protocol.has_requests()) {
            self.of_tcp(key, &name, traffic, fields);
        }
        let hedges = traffic.hedge.after.is_some() && traffic.hedge.attempts != Some(0);
        let only_grpc = protocols.iter().all(|protocol| *protocol == Protocol::Grpc);
        if hedges && only_grpc && traffic.hedge.non_idempotent.is_none() {
            let message = format!("{} is grpc, whose calls are all POST", target.name);
            let hint = "nothing is hedged without hedge.nonIdempotent: true";
            self.push(Severity::Warning, key, "spec.hedge.after", &message, hint);
        }
    }

    /// What the sidecar that serves would enforce: outside of the mesh there is none.
    fn no_limits_outside(&mut self, key: &Key, fields: &[Field]) {
        let enforced = |path: &str| {
            ["concurrency.", "rateLimits", "callerRateLimits"]
                .iter()
                .any(|one| path.starts_with(one))
        };
        for one in fields.iter().filter(|field| enforced(field.path)) {
            let message = "is enforced where a Service is served, and an ExternalService is not";
            self.error(key, &format!("spec.{}", one.path), message, "remove it");
        }
    }

    fn of_tcp(&mut self, key: &Key, name: &ServiceName, traffic: &TrafficSpec, fields: &[Field]) {
        for one in fields.iter().filter(|field| !field.on_tcp) {
            let message = format!(
                "needs requests, but Service {} has tcp ports only",
                name.name
            );
            let hint = match one.path {
                "timeouts.streamIdle" => "a sidecar's setting timeouts.tunnel_idle is for tcp",
                _ => "remove it",
            };
            self.error(key, &format!("spec.{}", one.path), &message, hint);
        }
        if let Some(HashKey::Header(_) | HashKey::Cookie(_)) = &traffic.balance.key {
            let message = format!(
                "needs requests, but Service {} has tcp ports only",
                name.name
            );
            self.error(key, "spec.balance.key", &message, "write key: source");
        }
    }

    fn failover(&mut self, key: &Key, from: &ServiceName, spec: &ServiceSpec, to: &FailoverSpec) {
        let name = to.service(&key.namespace);
        if name == *from {
            let message = "a Service does not take over for itself";
            self.error(key, "spec.failover.name", message, "name another one");
            return;
        }
        let Some(target) = self.set.service(&name.namespace, &name.name) else {
            let wanted = Key {
                kind: Kind::Service,
                namespace: name.namespace,
                name: name.name,
            };
            self.missing(Severity::Error, key, "spec.failover.name", &wanted);
            return;
        };
        if self.is_broken(&name.namespace, &name.name) {
            return;
        }
        if to.port.is_some() && spec.ports.len() > 1 {
            let message = format!("Service {} has several ports", from.name);
            let hint = "leave it out: each port goes to the same number";
            self.error(key, "spec.failover.port", &message, hint);
            return;
        }
        for port in &spec.ports {
            let number = to.port.unwrap_or(port.port);
            let found = target.ports.iter().find(|other| other.port == number);
            let message = match found {
                Some(found) if found.protocol == port.protocol => continue,
                Some(found) => format!(
                    "port {number} of Service {name} is {}, port {} of {from} is {}",
                    found.protocol, port.port, port.protocol
                ),
                None => format!("Service {name} has no port {number}"),
            };
            let hint = "a Service that takes over speaks the same on each port";
            self.error(key, "spec.failover", &message, hint);
        }
    }

    fn no_failover(&mut self, key: &Key, at: &str, traffic: &TrafficSpec) {
        if traffic.failover.is_some() {
            let message = "one Service cannot take over for all";
            let hint = "move it to a policy for the Service";
            self.error(key, &format!("{at}.failover"), message, hint);
        }
    }

    fn no_route_limits(&mut self, key: &Key, at: &str, traffic: &TrafficSpec) {
        for (i, limit) in traffic.rate_limits.iter().flatten().enumerate() {
            if limit.by == Some(RateLimitBy::Route) {
                let field = format!("{at}.rateLimits[{i}].by");
                let hint = "write by: Service or by: Caller, or target a route";
                self.error(key, &field, "there is no route here", hint);
            }
        }
    }

    /// Rules that hold at every place.
    fn traffic(&mut self, key: &Key, at: &str, traffic: &TrafficSpec) {
        self.timeouts(key, &format!("{at}.timeouts"), &traffic.timeouts);
        if traffic.retry.non_idempotent == Some(true) {
            let message = "a request such as a POST may then be executed twice";
            let hint = "make sure that the application recognises it, or use an Idempotency-Key";
            let field = format!("{at}.retry.nonIdempotent");
            self.push(Severity::Warning, key, &field, message, hint);
        }
        if traffic.hedge.non_idempotent == Some(true) {
            let message = "a request such as a POST is then executed twice as a rule";
            let hint = "make sure that every method of the service only reads";
            let field = format!("{at}.hedge.nonIdempotent");
            self.push(Severity::Warning, key, &field, message, hint);
        }
        for (i, pattern) in traffic.overrides.callers.iter().flatten().enumerate() {
            let Some(domain) = self.trust_domain else {
                break;
            };
            if !pattern.as_str().starts_with(&format!("spiffe://{domain}/")) {
                let field = format!("{at}.overrides.callers[{i}]");
                let message = format!("{pattern} is outside the trust domain of this mesh");
                self.error(key, &field, &message, &format!("the mesh is {domain}"));
            }
        }
        let breaker = &traffic.breaker;
        if let (Some(out), Some(panic)) = (breaker.max_ejected_percent, breaker.panic_threshold)
            && out.hundredths() + panic.hundredths() > 10_000
        {
            let message = format!("ejections stop counting before {out} % are out");
            let hint = "together with maxEjectedPercent it should not exceed 100";
            let field = format!("{at}.breaker.panicThreshold");
            self.push(Severity::Warning, key, &field, &message, hint);
        }
    }
}

fn service(namespace: &str, name: &str) -> ServiceName {
    ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! The sidecars as operators see them: the list of them, and why registrations do not hold.

use std::collections::BTreeSet;

use weft_transport::identity::SpiffeId;

use super::{Inner, ServerState};
use crate::findings::{Finding, Findings, Severity};
use crate::operator::SidecarInfo;
use crate::resources::{Parsed, Spec as _, WorkloadSpec};
use crate::server::registrations::reason;
use crate::server::registry::Workload;
use crate::server::sidecars::Sidecar;
use crate::server::signals::Declared;
use crate::table::ServiceName;

impl ServerState {
    /// All sidecars that are or were connected.
    pub(in crate::server) fn sidecars(&self) -> Vec<SidecarInfo> {
        let inner = self.lock();
        inner
            .sessions
            .sidecars
            .iter()
            .map(|(workload, sidecar)| info(&inner, workload, sidecar))
            .collect()
    }

    /// The sidecars that are connected, and the edges that they name: each service that a listener is for.
    pub(in crate::server) fn callers(&self) -> (Vec<SpiffeId>, Vec<Declared>) {
        let inner = self.lock();
        let all = inner.sessions.sidecars.iter();
        let connected = all.filter(|(_, sidecar)| sidecar.is_connected());
        let (mut identities, mut declared) = (BTreeSet::new(), Vec::new());
        for (workload, sidecar) in connected {
            if identities.insert(workload.identity.clone()) {
                declared.extend(sidecar.about.listens_for.iter().map(|to| Declared {
                    from: workload.identity.clone(),
                    to: to.clone(),
                }));
            }
        }
        (identities.into_iter().collect(), declared)
    }

    /// What a change says of Workloads whose address a sidecar has registered. One of the same identity
    /// counts as that sidecar; one of another never proves the identity that the Workload names.
    pub(in crate::server) fn registered_too(&self, parsed: &Parsed) -> Findings {
        let inner = self.lock();
        let mut findings = Findings::default();
        for resource in &parsed.resources {
            let Some(object) = WorkloadSpec::of(resource) else {
                continue;
            };
            let spec = &object.spec;
            let registered: Vec<&SpiffeId> = inner.leases.registry.at(spec.address).collect();
            let Some(other) = registered.first() else {
                continue;
            };
            let (message, hint) = match registered.contains(&&spec.identity) {
                true => (
                    format!(
                        "a sidecar of {} has registered {}",
                        spec.identity, spec.address
                    ),
                    "where both serve a port, what the sidecar reports counts: remove the Workload",
                ),
                false => (
                    format!(
                        "{other} has registered {}, and not {}",
                        spec.address, spec.identity
                    ),
                    "callers refuse a peer that proves another identity: correct the address or the identity",
                ),
            };
            let (key, field) = (resource.key(), "spec.address");
            let place = parsed.locate(&key, field);
            findings.push(Finding {
                severity: Severity::Warning,
                file: place.as_ref().map(|(file, _)| file.clone()),
                position: place.map(|(_, position)| position),
                resource: Some(key.to_string()),
                field: field.to_owned(),
                message,
                hint: Some(hint.to_owned()),
            });
        }
        findings
    }

    /// Tells operators why registrations of a sidecar do not hold.
    pub(in crate::server) fn log_problems(&self, workload: &Workload) {
        let problems = {
            let inner = self.lock();
            let sidecar = inner.sessions.sidecars.get(workload);
            sidecar.map(|sidecar| problems(&inner, workload, sidecar))
        };
        for (service, problem) in problems.into_iter().flatten() {
            self.progress.registrations.log(|left_out| {
                tracing::warn!(peer = %workload.identity, instance = ?workload.instance, service,
                    problem, left_out, "a registration does not hold");
            });
        }
    }
}

/// `orders.shop:80` and why it is not registered, in words for operators.
fn problems<'a>(
    inner: &'a Inner,
    workload: &'a Workload,
    sidecar: &'a Sidecar,
) -> Vec<(String, String)> {
    let (identity, address) = (&workload.identity, sidecar.about.place.address);
    let of = |(service, port): &(ServiceName, u16)| {
        let reason = reason(&inner.in_force.plan, identity, service, *port, address)?;
        Some((format!("{service}:{port}"), reason))
    };
    sidecar.inbound.keys().filter_map(of).collect()
}

/// `orders.shop:80` and what its application fails. A registration that does not hold for another reason
/// overrides it.
fn unhealthy(sidecar: &Sidecar) -> impl Iterator<Item = (String, String)> {
    let unhealthy = sidecar
        .inbound
        .iter()
        .filter(|(_, said)| !said.healthy && !said.problem.is_empty());
    unhealthy.map(|((service, port), said)| {
        let why = format!("its application is not healthy: {}", said.problem);
        (format!("{service}:{port}"), why)
    })
}

fn info(inner: &Inner, workload: &Workload, sidecar: &Sidecar) -> SidecarInfo {
    let about = &sidecar.about;
    let expiry = jiff::Timestamp::try_from(about.not_after);
    let refused = sidecar.refused.as_ref();
    SidecarInfo {
        identity: workload.identity.clone(),
        instance: workload.instance.clone(),
        connected: sidecar.is_connected(),
        address: about.place.address,
        version: about.version.clone(),
        listens_for: about.listens_for.iter().cloned().collect(),
        serves: inner
            .leases
            .registry
            .serves(workload, &inner.in_force.plan)
            .map(|((service, port), said)| (format!("{service}:{port}"), said.healthy))
            .collect(),
        problems: unhealthy(sidecar)
            .chain(problems(inner, workload, sidecar))
            .collect(),
        revision: sidecar.acknowledged.clone(),
        refusal: refused.map(|(_, reason)| reason.clone()),
        features: about.features.names().map(str::to_owned).collect(),
        withheld: sidecar.withheld.to_vec(),
        svid_expires: expiry.map(|time| time.to_string()).unwrap_or_default(),
        last_seen: format!("{:.0}", sidecar.last_seen),
    }
}

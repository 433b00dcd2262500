//! The sidecars as operators see them: the list of them, and why registrations do not hold.

use super::{Inner, ServerState};
use crate::operator::SidecarInfo;
use crate::server::registrations::reason;
use crate::server::registry::Workload;
use crate::server::sidecars::Sidecar;
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
            .map(|((service, port), healthy)| (format!("{service}:{port}"), healthy))
            .collect(),
        problems: problems(inner, workload, sidecar).into_iter().collect(),
        revision: sidecar.acknowledged.clone(),
        refusal: refused.map(|(_, reason)| reason.clone()),
        features: about.features.names().map(str::to_owned).collect(),
        withheld: sidecar.withheld.to_vec(),
        svid_expires: expiry.map(|time| time.to_string()).unwrap_or_default(),
        last_seen: format!("{:.0}", sidecar.last_seen),
    }
}

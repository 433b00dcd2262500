//! What the config service sends, taken into a subscription's state: which table to run, and what became of
//! registrations. When streams open and end is `client.rs`.

use std::collections::BTreeMap;

use super::held::Refused;
use super::merge::Changes;
use super::{State, Subscription};
use crate::compile::Served;
use crate::proto::service_message::Kind as In;
use crate::proto::{self, ServiceMessage};
use crate::table::{NameError, ServiceName};

impl Subscription {
    pub(super) fn take(&self, message: ServiceMessage) -> Result<(), String> {
        let mut state = self.shared.lock();
        match message.kind {
            Some(In::Table(table)) => {
                self.take_table(&mut state, &table);
                Ok(())
            }
            Some(In::Endpoints(changes)) => self.take_changes(&mut state, changes),
            Some(In::Withdrawals(withdrawals)) => self.take_withdrawals(&mut state, withdrawals),
            Some(In::Registrations(registrations)) => {
                take_registrations(&mut state, registrations);
                Ok(())
            }
            // A later service may say more than this sidecar understands; tables are strict.
            None => Ok(()),
        }
    }

    fn take_table(&self, state: &mut State, message: &proto::Table) {
        let own = self.settings.credentials.svid().id().trust_domain().clone();
        let offered = match state.held.offer(message, &own) {
            Ok(offered) => offered,
            Err(refused) => return refuse(state, refused),
        };
        if let Some(before) = &offered.instead_of {
            tracing::warn!(from = %before, to = %offered.revision,
                "the config service has another store than before: it was restored or replaced");
            state.status.store_changed = true;
        }
        // It is the one that is asked about from here on, refused or not.
        state.status.refusal = None;
        let withheld = message.withheld.iter().cloned().map(Into::into).collect();
        let before = std::mem::replace(&mut state.status.withheld, withheld);
        for one in &state.status.withheld {
            if !before.contains(one) {
                tracing::warn!(
                    resource = one.resource,
                    feature = one.feature,
                    instead = one.instead,
                    "the config service does not tell this sidecar what it would not understand: run a newer weft here"
                );
            }
        }
        state.status.offered = Some(offered.revision);
        state.status.from_disk = false;
        self.publish(state);
    }

    fn take_changes(
        &self,
        state: &mut State,
        message: proto::EndpointChanges,
    ) -> Result<(), String> {
        let mut changes = Changes::new();
        for port in message.ports {
            let (port, served) = served(port)?;
            changes.insert(port, served);
        }
        state.held.change(&changes, message.settling);
        self.publish(state);
        Ok(())
    }

    fn take_withdrawals(
        &self,
        state: &mut State,
        message: proto::Withdrawals,
    ) -> Result<(), String> {
        let mut withdrawn = Vec::new();
        for port in message.ports {
            let (port, served) = served(port)?;
            withdrawn.extend(served.endpoints.into_iter().map(|one| (port.clone(), one)));
        }
        state.held.withdraw(&withdrawn);
        self.publish(state);
        Ok(())
    }

    /// The table that the sidecar should run may be another one.
    fn publish(&self, state: &mut State) {
        state.cache_is_old |= state.held.good().is_some();
        self.shared.show_newest(&state.held);
    }
}

/// Who serves a port, checked.
fn served(port: proto::PortEndpoints) -> Result<((ServiceName, u16), Served), String> {
    let service = port
        .service
        .parse()
        .map_err(|error: NameError| error.to_string())?;
    let number = u16::try_from(port.port).map_err(|error| error.to_string())?;
    let endpoints = port.endpoints.into_iter().map(TryInto::try_into);
    let absence = proto::Absence::try_from(port.absence).unwrap_or_default();
    let served = Served {
        endpoints: endpoints.collect::<Result<_, _>>()?,
        absence: absence.into(),
    };
    Ok(((service, number), served))
}

/// A table that the sidecar is not even shown.
fn refuse(state: &mut State, refused: Refused) {
    let Refused { revision, reason } = refused;
    let shown = revision.as_ref().map(ToString::to_string);
    tracing::warn!(
        revision = shown,
        reason,
        "table refused; the last good one stays"
    );
    if revision.is_some() {
        state.status.offered = revision;
    }
    state.status.refused_unseen += 1;
    state.status.refusal = Some(reason);
}

fn take_registrations(state: &mut State, message: proto::Registrations) {
    let mut problems = BTreeMap::new();
    for one in message
        .registrations
        .into_iter()
        .filter(|one| !one.problem.is_empty())
    {
        let name = format!("{}:{}", one.service, one.port);
        if state.status.registration_problems.get(&name) != Some(&one.problem) {
            tracing::warn!(
                service = name,
                problem = one.problem,
                refused = one.refused,
                "not registered"
            );
        }
        problems.insert(name, one.problem);
    }
    state.status.registration_problems = problems;
}

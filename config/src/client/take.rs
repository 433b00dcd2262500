//! Applies the messages of the config service to a subscription's state: which table to run, and the results
//! of registrations. The rest of that state is `state.rs`.

use std::collections::BTreeMap;

use weft_transport::identity::TrustDomain;

use super::SubscriptionStatus;
use super::held::Refused;
use super::merge::Changes;
use super::state::State;
use crate::compile::Served;
use crate::proto::service_message::Kind as In;
use crate::proto::{self, ServiceMessage};
use crate::table::{NameError, ServiceName};

impl State {
    /// Takes one message; an error ends the stream.
    pub(crate) fn take(
        &mut self,
        message: ServiceMessage,
        own: &TrustDomain,
    ) -> Result<(), String> {
        match message.kind {
            Some(In::Table(table)) => {
                self.take_table(&table, own);
                Ok(())
            }
            Some(In::Endpoints(changes)) => self.take_changes(changes),
            Some(In::Withdrawals(withdrawals)) => self.take_withdrawals(withdrawals),
            Some(In::Registrations(registrations)) => {
                take_registrations(&mut self.status, registrations);
                Ok(())
            }
            // A later service may send fields that this sidecar does not know; tables are strict.
            None => Ok(()),
        }
    }

    fn take_table(&mut self, message: &proto::Table, own: &TrustDomain) {
        let offered = match self.held.offer(message, own) {
            Ok(offered) => offered,
            Err(refused) => return refuse(&mut self.status, refused),
        };
        let status = &mut self.status;
        if let Some(before) = &offered.instead_of {
            tracing::warn!(from = %before, to = %offered.revision,
                "the config service has another store than before: it was restored or replaced");
            status.store_changed = true;
        }
        // From here on the service awaits the answer for this revision, refused or not.
        status.refusal = None;
        status.offered = Some(offered.revision);
        status.from_disk = false;
        let withheld = message.withheld.iter().cloned().map(Into::into).collect();
        let before = std::mem::replace(&mut status.withheld, withheld);
        for one in &status.withheld {
            if !before.contains(one) {
                tracing::warn!(
                    resource = one.resource,
                    feature = one.feature,
                    instead = one.instead,
                    "the config service leaves out parts that this sidecar does not support: run a newer weft here"
                );
            }
        }
        self.changed();
    }

    fn take_changes(&mut self, message: proto::EndpointChanges) -> Result<(), String> {
        let mut changes = Changes::new();
        for port in message.ports {
            let (port, served) = served(port)?;
            changes.insert(port, served);
        }
        self.held.change(&changes, message.settling);
        self.changed();
        Ok(())
    }

    fn take_withdrawals(&mut self, message: proto::Withdrawals) -> Result<(), String> {
        let mut withdrawn = Vec::new();
        for port in message.ports {
            let (port, served) = served(port)?;
            withdrawn.extend(served.endpoints.into_iter().map(|one| (port.clone(), one)));
        }
        self.held.withdraw(&withdrawn);
        self.changed();
        Ok(())
    }
}

/// The endpoint of a port, checked.
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

/// A table that is refused before the sidecar sees it.
fn refuse(status: &mut SubscriptionStatus, refused: Refused) {
    let Refused { revision, reason } = refused;
    let shown = revision.as_ref().map(ToString::to_string);
    tracing::warn!(
        revision = shown,
        reason,
        "table refused; the last good one stays"
    );
    if revision.is_some() {
        status.offered = revision;
    }
    status.refused_unseen += 1;
    status.refusal = Some(reason);
}

fn take_registrations(status: &mut SubscriptionStatus, message: proto::Registrations) {
    let mut problems = BTreeMap::new();
    for one in message
        .registrations
        .into_iter()
        .filter(|one| !one.problem.is_empty())
    {
        let name = format!("{}:{}", one.service, one.port);
        if status.registration_problems.get(&name) != Some(&one.problem) {
            tracing::warn!(
                service = name,
                problem = one.problem,
                refused = one.refused,
                "not registered"
            );
        }
        problems.insert(name, one.problem);
    }
    status.registration_problems = problems;
}

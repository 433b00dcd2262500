//! What the config service sends, taken into a subscription's state: which table to run, and what became of
//! registrations. When streams open and end is `client.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::merge::{self, Changes};
use super::{State, Subscription};
use crate::compile::Served;
use crate::proto::service_message::Kind as In;
use crate::proto::{self, ServiceMessage};
use crate::table::{Revision, Table};

impl Subscription {
    pub(super) fn take(&self, message: ServiceMessage) -> Result<(), String> {
        let mut state = self.shared.lock();
        match message.kind {
            Some(In::Table(table)) => {
                self.take_table(&mut state, &table);
                Ok(())
            }
            Some(In::Endpoints(changes)) => self.take_changes(&mut state, changes),
            Some(In::Registrations(registrations)) => {
                take_registrations(&mut state, registrations);
                Ok(())
            }
            // A later service may say more than this sidecar understands; tables are strict.
            None => Ok(()),
        }
    }

    fn take_table(&self, state: &mut State, message: &proto::Table) {
        let table = match serde_json::from_slice::<Table>(&message.json) {
            Ok(table) => table,
            Err(error) => {
                // The revision is needed to refuse it; without one there is nothing to say.
                let revision = serde_json::from_slice::<serde_json::Value>(&message.json)
                    .ok()
                    .and_then(|value| serde_json::from_value(value.get("revision")?.clone()).ok());
                return refuse(
                    state,
                    revision,
                    format!("the table is not understood: {error}"),
                );
            }
        };
        let own = self.settings.credentials.svid().id().trust_domain().clone();
        let held = state.good.clone();
        if let Err(unfit) = merge::check(&own, &table, held.as_deref()) {
            return refuse(state, Some(table.revision), unfit.to_string());
        }
        if let Some(held) = &held
            && held.revision.store != table.revision.store
        {
            tracing::warn!(from = %held.revision, to = %table.revision,
                "the config service has another store than before: it was restored or replaced");
            state.status.store_changed = true;
        }
        let known = held.as_deref().filter(|_| message.settling);
        let table = known.map_or_else(
            || table.clone(),
            |known| merge::keep_endpoints(&table, known),
        );
        state.status.offered = Some(table.revision.clone());
        state.status.from_disk = false;
        state.offered = Some(table.clone());
        // The same revision again, with other endpoints, needs no second acknowledgement.
        if held
            .as_ref()
            .is_some_and(|held| held.revision == table.revision)
        {
            state.good = Some(Arc::new(table.clone()));
            state.cache_is_old = true;
        }
        self.shared.tables.send_replace(Some(Arc::new(table)));
    }

    fn take_changes(
        &self,
        state: &mut State,
        message: proto::EndpointChanges,
    ) -> Result<(), String> {
        let settling = message.settling;
        let mut changes = Changes::new();
        for port in message.ports {
            let service = port
                .service
                .parse()
                .map_err(|error: crate::table::NameError| error.to_string())?;
            let number = u16::try_from(port.port).map_err(|error| error.to_string())?;
            let endpoints = port
                .endpoints
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?;
            let absence = proto::Absence::try_from(port.absence).unwrap_or_default();
            let served = Served {
                endpoints,
                absence: absence.into(),
            };
            changes.insert((service, number), served);
        }
        let merged = |table: &Table| {
            let next = merge::apply(table, &changes);
            if settling {
                merge::keep_endpoints(&next, table)
            } else {
                next
            }
        };
        let is_offered = |table: &&Table| {
            message.revision.as_ref().is_some_and(|revision| {
                revision.store == table.revision.store && revision.number == table.revision.number
            })
        };
        if let Some(offered) = state.offered.as_ref().filter(is_offered) {
            state.offered = Some(merged(offered));
        }
        // What the sidecar runs follows too, even if it refused the revision that was offered.
        state.good = state.good.as_deref().map(|good| Arc::new(merged(good)));
        state.cache_is_old |= state.good.is_some();
        let refused = state.status.refusal.is_some();
        let next = match (&state.offered, refused) {
            (Some(offered), false) => Some(Arc::new(offered.clone())),
            (Some(_), true) | (None, _) => state.good.clone(),
        };
        if next.is_some() {
            self.shared.tables.send_replace(next);
        }
        Ok(())
    }
}

/// A table that the sidecar is not even shown.
fn refuse(state: &mut State, revision: Option<Revision>, reason: String) {
    tracing::warn!(reason, "table refused; the last good one stays");
    if let Some(revision) = revision {
        state.status.offered = Some(revision.clone());
        state.acknowledgement = Some((revision, Some(reason.clone())));
    }
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

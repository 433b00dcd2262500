//! The messages that one sidecar has been sent on its stream, and the one to send next. A state machine
//! without time or IO; `subscribe.rs` knows when the sidecar takes a message.
//!
//! No message is queued: [`Sent::next`] computes the one message that brings the sidecar nearest to the
//! newest view, and [`Sent::went`] notes that it was sent. A message that was not sent is computed anew.

use std::sync::Arc;

use super::state::View;
use super::tables::{Changed, SharedTable};
use super::withdrawn::Withdrawn;
use crate::compile::Sidecar;
use crate::limits;
use crate::proto::service_message::Kind;
use crate::proto::{self, ServiceMessage};
use crate::table::Withheld;

/// The state of a sidecar that has taken everything that was sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The table, and whether it was marked as settling.
    table: Option<(Arc<SharedTable>, bool)>,
    registrations: Option<proto::Registrations>,
    /// The withdrawals sent since the last table or change, and the state of withdrawals from which they were
    /// computed.
    withdrawals: proto::Withdrawals,
    looked_at: Option<Arc<Withdrawn>>,
    /// Why no table at all can be sent to it.
    unreadable: Option<String>,
}

/// The next step for a sidecar.
#[derive(Debug)]
pub(super) enum Next {
    /// The sidecar has everything.
    Nothing,
    /// It cannot read the tables of this service, for this reason.
    CannotRead(String),
    /// Send it this; it has the second value then.
    Send(ServiceMessage, After),
}

/// The state of the sidecar once it took a message.
#[derive(Debug)]
pub(super) enum After {
    Registrations(proto::Registrations),
    Table(Arc<SharedTable>, bool),
    Withdrawals(proto::Withdrawals),
}

/// What a sent message means for operators.
#[derive(Debug)]
pub(super) enum News {
    /// None of these registrations holds.
    Problems,
    /// The table from which these parts were left out.
    Table(Arc<SharedTable>),
}

/// Why a table cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSendable {
    #[error("the table is too large to be sent")]
    TooLarge,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Sent {
    /// Nothing was sent yet. A sidecar that cannot read this service's tables gets only registrations.
    pub(super) fn nothing(unreadable: Option<String>) -> Self {
        Self {
            unreadable,
            ..Self::default()
        }
    }

    /// The next message that brings the sidecar nearer to `view` and `registrations`, if it lacks any of it.
    pub(super) fn next(
        &mut self,
        view: &View,
        sidecar: &Arc<Sidecar>,
        registrations: &proto::Registrations,
    ) -> Result<Next, NotSendable> {
        if self.registrations.as_ref() != Some(registrations) {
            let kind = Kind::Registrations(registrations.clone());
            let after = After::Registrations(registrations.clone());
            return Ok(Next::Send(message(kind), after));
        }
        if let Some(reason) = &self.unreadable {
            return Ok(Next::CannotRead(reason.clone()));
        }
        let table = view.tables.of(sidecar);
        let settling = view.settling.is_some();
        // The end of settling needs a complete table: the sidecar kept endpoints that the service never sent,
        // and only a complete list removes them.
        let changed = match &self.table {
            Some((sent, was)) if *was == settling => table.since(sent),
            Some(_) | None => Changed::More,
        };
        let kind = match changed {
            Changed::Nothing => return Ok(self.next_withdrawals(view, &table)),
            Changed::Endpoints(ports) => Kind::Endpoints(proto::EndpointChanges {
                revision: Some((&table.table().revision).into()),
                ports: Vec::clone(&ports),
                settling,
            }),
            Changed::More => {
                let json = table.json()?;
                if json.len() > limits::TABLE_MESSAGE_BYTES_MAX - limits::TABLE_ENVELOPE_BYTES_MAX {
                    return Err(NotSendable::TooLarge);
                }
                Kind::Table(proto::Table {
                    json,
                    settling,
                    revision: Some((&table.table().revision).into()),
                    withheld: named(table.withheld()),
                })
            }
        };
        Ok(Next::Send(message(kind), After::Table(table, settling)))
    }

    /// Endpoints that withdrew themselves among those that the sidecar keeps while the service settles, if
    /// there are new ones. The sidecar has this table.
    fn next_withdrawals(&mut self, view: &View, table: &Arc<SharedTable>) -> Next {
        let Some(withdrawn) = view.settling.as_ref() else {
            return Next::Nothing;
        };
        let looked = self.looked_at.as_ref();
        if looked.is_some_and(|looked| Arc::ptr_eq(looked, withdrawn)) {
            return Next::Nothing;
        }
        let ports = withdrawn.of(table.table());
        let withdrawals = proto::Withdrawals { ports };
        if self.withdrawals == withdrawals {
            self.looked_at = Some(Arc::clone(withdrawn));
            return Next::Nothing;
        }
        let kind = Kind::Withdrawals(withdrawals.clone());
        Next::Send(message(kind), After::Withdrawals(withdrawals))
    }

    /// A message was sent; returns the news in it for operators.
    pub(super) fn went(&mut self, after: After) -> Option<News> {
        match after {
            After::Registrations(registrations) => {
                let mut all = registrations.registrations.iter();
                let any = all.any(|one| !one.problem.is_empty());
                self.registrations = Some(registrations);
                any.then_some(News::Problems)
            }
            After::Table(table, settling) => {
                // It may have new ports, and endpoints that were withdrawn before.
                self.looked_at = None;
                self.withdrawals = proto::Withdrawals::default();
                self.table = Some((Arc::clone(&table), settling));
                Some(News::Table(table))
            }
            After::Withdrawals(withdrawals) => {
                self.withdrawals = withdrawals;
                None
            }
        }
    }
}

/// Only the first of them: a message has a bound, and an operator sees them all.
fn named(withheld: &[Withheld]) -> Vec<proto::Withheld> {
    let first = withheld.iter().take(limits::WITHHELD_NAMED_MAX);
    first.map(Into::into).collect()
}

fn message(kind: Kind) -> ServiceMessage {
    ServiceMessage { kind: Some(kind) }
}

#[cfg(test)]
mod tests;

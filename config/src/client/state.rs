//! All decisions of a subscription, without clock or IO: which table to run and what to answer (`held.rs`),
//! what a message changes (`take.rs`), what to report, and when to write the last good table to disk.
//! `client.rs` has the streams, `handle.rs` the data path's side.
//!
//! The order: [`State::begin_stream`], then [`State::take`] for each message, and [`State::settle`] whenever
//! the data path answers a table. After each of these, [`State::newest`] is the table to run and
//! [`State::take_answer`] the answer for the config service. [`State::due`] and [`State::written`] enclose
//! each write to disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::held::{HeldTables, Outcome};
use super::{Health, SubscriptionStatus};
use crate::limits;
use crate::proto;
use crate::table::{Details, Revision, ServiceName, Table};

#[derive(Debug, Default)]
pub(crate) struct State {
    served: BTreeMap<(ServiceName, u16), Served>,
    pub(super) held: HeldTables,
    disk: Disk,
    /// A successor registers under the same name: a report of this process would undo its reports.
    handed_over: bool,
    pub(super) status: SubscriptionStatus,
}

/// One service of this sidecar.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    pub(crate) healthy: bool,
    pub(crate) details: Details,
    /// Why it is not healthy, for operators.
    pub(crate) problem: String,
}

/// How the last good table compares with its file.
#[derive(Debug, Default)]
struct Disk {
    is_old: bool,
    /// When the write is repeated after a failure.
    retry: Option<Instant>,
}

/// The result of a write to disk, as far as it is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// As before.
    Fine,
    /// The disk takes it again.
    Again,
    /// It failed, and succeeded before or failed for another reason.
    Failed,
    /// It still does not.
    StillFailed,
}

impl State {
    /// With the table of the predecessor, and the services that this process serves.
    pub(crate) fn new(
        saved: Option<Arc<Table>>,
        served: BTreeMap<(ServiceName, u16), Served>,
    ) -> Self {
        let status = SubscriptionStatus {
            from_disk: saved.is_some(),
            ..SubscriptionStatus::default()
        };
        Self {
            served,
            held: HeldTables::of(saved),
            status,
            ..Self::default()
        }
    }

    /// The table to run.
    pub(crate) fn newest(&self) -> Option<&Arc<Table>> {
        self.held.newest()
    }

    /// The state of the subscription, as operators see it.
    pub(super) fn status(&self) -> &SubscriptionStatus {
        &self.status
    }

    /// A stream is open. It knows nothing of answers on earlier streams.
    pub(crate) fn begin_stream(&mut self) {
        self.status.connected = true;
        self.status.last_error = None;
        self.held.begin_stream();
    }

    /// The stream is over, and none follows it yet.
    pub(super) fn end_stream(&mut self, error: String) {
        self.status.connected = false;
        self.status.last_error = Some(error);
    }

    /// The data path runs a revision, or says why it does not.
    pub(crate) fn settle(&mut self, revision: &Revision, outcome: &Outcome) {
        let good = self.held.good().cloned();
        self.held.settle(revision, outcome);
        self.disk.is_old |= match (&good, self.held.good()) {
            (Some(before), Some(good)) => !Arc::ptr_eq(before, good),
            (before, good) => before.is_some() != good.is_some(),
        };
        let is_offered = self.status.offered.as_ref() == Some(revision);
        if outcome.is_ok() {
            self.status.acknowledged = Some(revision.clone());
        }
        if is_offered {
            self.status.refusal = outcome.clone().err();
        }
    }

    /// The answer for the config service to a revision, once, as long as this process owns the registration.
    pub(crate) fn take_answer(&mut self) -> Option<(Revision, Outcome)> {
        if self.handed_over {
            return None;
        }
        self.held.take_answer()
    }

    /// The held tables have changed.
    pub(super) fn changed(&mut self) {
        self.disk.is_old |= self.held.good().is_some();
    }

    /// Whether an application is healthy; true if that is a change. Another problem of one that is not is
    /// told with the next renewal.
    pub(super) fn set_health(&mut self, service: &ServiceName, port: u16, health: Health) -> bool {
        let Some(known) = self.served.get_mut(&(service.clone(), port)) else {
            return false;
        };
        let is_healthy = health == Health::Good;
        known.problem = match health {
            Health::Good => String::new(),
            Health::Bad(problem) => problem.chars().take(limits::PROBLEM_LENGTH_MAX).collect(),
        };
        std::mem::replace(&mut known.healthy, is_healthy) != is_healthy
    }

    /// Whether an application was reported as healthy.
    pub(super) fn is_healthy(&self, service: &ServiceName, port: u16) -> bool {
        let known = self.served.get(&(service.clone(), port));
        known.is_some_and(|known| known.healthy)
    }

    /// The services whose application is healthy.
    pub(super) fn healthy(&self) -> Vec<(ServiceName, u16)> {
        let healthy = self.served.iter().filter(|(_, one)| one.healthy);
        healthy.map(|(service, _)| service.clone()).collect()
    }

    /// The services that the sidecar serves.
    pub(super) fn report(&self) -> proto::Report {
        let inbound = self
            .served
            .iter()
            .map(|((service, port), one)| proto::Inbound {
                service: service.to_string(),
                port: (*port).into(),
                healthy: one.healthy,
                weight: proto::weight(&one.details),
                metadata: proto::metadata(&one.details),
                problem: one.problem.clone(),
            });
        proto::Report {
            inbound: inbound.collect(),
            leaving: false,
        }
    }

    /// A successor registers from here on.
    pub(super) fn hand_over(&mut self) {
        self.handed_over = true;
    }

    /// Whether a successor registers.
    pub(super) fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// The last good table if it should be written to disk: it changed since the last write, this process
    /// owns the file, and no write failed a moment ago.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Arc<Table>> {
        let is_too_early = self.disk.retry.is_some_and(|due| now < due);
        if self.handed_over || is_too_early || !std::mem::take(&mut self.disk.is_old) {
            return None;
        }
        self.held.good().cloned()
    }

    /// The last good table.
    pub(super) fn good(&self) -> Option<Arc<Table>> {
        self.held.good().cloned()
    }

    /// The result of a write; `Err` says why the table is not on disk.
    pub(crate) fn written(&mut self, result: Result<(), String>, now: Instant) -> Written {
        match result {
            Ok(()) => {
                self.disk.retry = None;
                match self.status.unsaved.take() {
                    Some(_) => Written::Again,
                    None => Written::Fine,
                }
            }
            Err(reason) => {
                self.disk.is_old = true;
                self.disk.retry = Some(now + limits::CACHE_RETRY);
                if self.status.unsaved.as_ref() == Some(&reason) {
                    return Written::StillFailed;
                }
                self.status.unsaved = Some(reason);
                Written::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::merge::tests::table;
    use super::*;

    fn saved() -> State {
        State::new(Some(Arc::new(table(1, &[]))), BTreeMap::new())
    }

    #[test]
    fn a_write_that_failed_is_tried_again_later_and_said_once() {
        let now = Instant::now();
        let mut state = saved();
        assert_eq!(state.due(now), None, "it came from there");
        state.changed();
        assert!(state.due(now).is_some());
        assert_eq!(state.due(now), None, "once");
        assert_eq!(state.written(Err("full".into()), now), Written::Failed);
        assert_eq!(state.due(now), None, "not at once again");
        let later = now + limits::CACHE_RETRY;
        assert!(state.due(later).is_some());
        let failed = state.written(Err("full".into()), later);
        assert_eq!(failed, Written::StillFailed);
        let later = later + limits::CACHE_RETRY + Duration::from_secs(1);
        assert!(state.due(later).is_some());
        assert_eq!(state.written(Ok(()), later), Written::Again);
        assert_eq!(state.status().unsaved, None);
        assert_eq!(state.due(later), None);
    }

    #[test]
    fn what_a_successor_has_taken_over_is_neither_answered_nor_written() {
        let mut state = saved();
        state.begin_stream();
        let offered = table(2, &[]);
        let message = proto::Table {
            json: serde_json::to_vec(&offered).unwrap().into(),
            ..proto::Table::default()
        };
        state.held.offer(&message, &offered.trust_domain).unwrap();
        state.settle(&offered.revision, &Ok(()));
        state.hand_over();
        assert_eq!(state.take_answer(), None);
        assert_eq!(state.due(Instant::now()), None);
        assert_eq!(
            state.newest().unwrap().revision.number,
            2,
            "and yet it runs"
        );
    }
}

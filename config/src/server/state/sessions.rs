//! The present sidecars: their streams, what each of them runs or refuses, and the calls that wait for that.
//! `sidecars.rs` decides which sidecars are present.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use weft_transport::limited_log::LimitedLog;

use super::ServerState;
use crate::compile::Plan;
use crate::operator::SidecarState;
use crate::proto;
use crate::server::known::Known;
use crate::server::registrations::problem;
use crate::server::registry::{Inbound, Workload};
use crate::server::sidecars::{About, Sidecars, Stream, TooManyNames};
use crate::table::{Revision, ServiceName};

#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) sidecars: Sidecars,
    /// Until when unknown sidecars may exist.
    all_known_at: Option<Instant>,
}

/// Notifies waiting calls about the sidecars, and limits the log lines about them.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) registrations: LimitedLog,
    pub(super) refusals: LimitedLog,
    refused: AtomicU64,
    /// Counts acknowledgements, refusals, arrivals and departures.
    count: watch::Sender<u64>,
    /// The present sidecars have changed since they were noted.
    unrecorded: Notify,
    /// The last stream whose sidecar is noted; see [`crate::server::known`].
    recorded: watch::Sender<u64>,
}

/// The result of a wait for a revision.
#[derive(Debug)]
pub(in crate::server) struct Settled {
    pub(in crate::server) sidecars: Vec<SidecarState>,
    /// More sidecars than these may exist.
    pub(in crate::server) more_may_come: bool,
}

impl Sessions {
    /// Sidecars that an earlier service noted are expected until `back`; if it noted none, unknown ones are.
    pub(super) fn recall(known: Option<Vec<Known>>, had_workloads: bool, back: Instant) -> Self {
        Self {
            all_known_at: (had_workloads && known.is_none()).then_some(back),
            sidecars: Sidecars::recall(known.unwrap_or_default(), back),
        }
    }

    /// Gives up on sidecars that did not come back. Returns whether anything changed.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let given_up = self.sidecars.expire(now);
        self.all_known_at.take_if(|at| *at <= now).is_some() || given_up
    }
}

impl Progress {
    pub(super) fn new(sessions: &Sessions) -> Self {
        Self {
            registrations: LimitedLog::by_callers(),
            refusals: LimitedLog::by_callers(),
            refused: AtomicU64::new(0),
            count: watch::Sender::new(0),
            unrecorded: Notify::new(),
            recorded: watch::Sender::new(match sessions.all_known_at {
                // No note is written until then, so an incomplete note misleads no later service.
                Some(_) => u64::MAX,
                None => 0,
            }),
        }
    }

    /// The set of present sidecars has changed.
    pub(super) fn sidecars_changed(&self) {
        self.unrecorded.notify_one();
        self.advance();
    }

    fn advance(&self) {
        self.count.send_modify(|count| *count += 1);
    }
}

impl ServerState {
    /// A sidecar's stream begins.
    pub(in crate::server) fn connect(
        &self,
        workload: &Workload,
        about: About,
    ) -> Result<Stream, TooManyNames> {
        let stream = self.lock().sessions.sidecars.connect(workload, about)?;
        self.progress.sidecars_changed();
        Ok(stream)
    }

    /// Its stream ended. Its lease goes on: it may come back in time.
    pub(in crate::server) fn disconnect(&self, workload: &Workload, number: u64, now: Instant) {
        self.lock()
            .sessions
            .sidecars
            .disconnect(workload, number, now);
        self.progress.sidecars_changed();
    }

    /// The services that a sidecar reports on its stream of that number.
    pub(in crate::server) fn report(
        &self,
        workload: &Workload,
        number: u64,
        inbound: Inbound,
        now: Instant,
    ) -> Result<(), TooManyNames> {
        let inbound = Arc::new(inbound);
        let mut inner = self.lock();
        let Some(sidecar) = inner.sessions.sidecars.report(workload, number, &inbound)? else {
            return Ok(());
        };
        let (place, inbound) = (sidecar.about.place.clone(), Arc::clone(&sidecar.inbound));
        let Some(address) = place.address else {
            return Ok(());
        };
        let leases = &mut inner.leases;
        if leases.report(workload, address, place.locality, inbound, now) {
            self.stale.notify_one();
        }
        Ok(())
    }

    /// A sidecar ends, and will not come back.
    pub(in crate::server) fn leave(&self, workload: &Workload, number: u64) {
        self.lock().sessions.sidecars.leave(workload, number);
        self.progress.sidecars_changed();
    }

    /// A sidecar runs a revision, or says why not.
    pub(in crate::server) fn acknowledge(
        &self,
        workload: &Workload,
        number: u64,
        revision: Revision,
        refusal: String,
    ) {
        let mut inner = self.lock();
        let Some(sidecar) = inner.sessions.sidecars.stream(workload, number) else {
            return;
        };
        sidecar.last_seen = jiff::Timestamp::now();
        if refusal.is_empty() {
            sidecar.refused = None;
            sidecar.acknowledged = Some(revision);
        } else {
            self.progress.refused.fetch_add(1, Ordering::Relaxed);
            self.progress.refusals.log(|left_out| {
                tracing::warn!(peer = %workload.identity, instance = ?workload.instance, %revision,
                    reason = ?refusal, left_out, "a sidecar refuses a revision, and goes on with what it had");
            });
            sidecar.refused = Some((revision, refusal));
        }
        drop(inner);
        self.progress.advance();
    }

    /// Waits until every present sidecar has acknowledged or refused `revision`, at most `wait`. It also
    /// waits for sidecars that are expected back, and while unknown sidecars may come.
    pub(in crate::server) async fn settle(&self, revision: &Revision, wait: Duration) -> Settled {
        let deadline = Instant::now() + wait;
        let mut progress = self.progress.count.subscribe();
        loop {
            let settled = self.settled(revision);
            let lagging = |state: &SidecarState| !state.acknowledged && state.refusal.is_none();
            if !settled.more_may_come && !settled.sidecars.iter().any(lagging) {
                return settled;
            }
            match tokio::time::timeout_at(deadline, progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return self.settled(revision),
            }
        }
    }

    fn settled(&self, revision: &Revision) -> Settled {
        let inner = self.lock();
        Settled {
            sidecars: inner.sessions.sidecars.states(revision),
            more_may_come: inner.sessions.all_known_at.is_some(),
        }
    }

    /// How often a sidecar refused a revision.
    pub(in crate::server) fn refused(&self) -> u64 {
        self.progress.refused.load(Ordering::Relaxed)
    }

    /// The answers of the present sidecars to `revision`.
    pub(in crate::server) fn states(&self, revision: &Revision) -> Vec<SidecarState> {
        self.lock().sessions.sidecars.states(revision)
    }

    /// The result of each registration of a sidecar; see [`problem`].
    pub(in crate::server) fn serves(
        &self,
        workload: &Workload,
        number: u64,
        plan: &Plan,
    ) -> (BTreeSet<ServiceName>, proto::Registrations) {
        let mut inner = self.lock();
        let Some(sidecar) = inner.sessions.sidecars.stream(workload, number) else {
            return Default::default();
        };
        let (inbound, address) = (Arc::clone(&sidecar.inbound), sidecar.about.place.address);
        drop(inner);
        let mut serves = BTreeSet::new();
        let mut registrations = Vec::new();
        for (service, port) in inbound.keys() {
            let (problem, refused) = problem(plan, &workload.identity, service, *port, address);
            if !refused && plan.may_serve(&workload.identity, service) == Some(true) {
                serves.insert(service.clone());
            }
            registrations.push(proto::Registration {
                service: service.to_string(),
                port: (*port).into(),
                problem,
                refused,
            });
        }
        (serves, proto::Registrations { registrations })
    }

    /// Ready when the present sidecars have changed since they were noted.
    pub(in crate::server) async fn unrecorded(&self) {
        self.progress.unrecorded.notified().await;
    }

    /// The note for a later service; `None` while not all sidecars are known.
    pub(in crate::server) fn to_record(&self) -> Option<(u64, Vec<Known>)> {
        let inner = self.lock();
        inner
            .sessions
            .all_known_at
            .is_none()
            .then(|| inner.sessions.sidecars.known())
    }

    /// Sidecars up to this stream are noted.
    pub(in crate::server) fn set_recorded(&self, number: u64) {
        self.progress.recorded.send_replace(number);
    }

    /// The last stream whose sidecar is noted.
    pub(in crate::server) fn recorded(&self) -> watch::Receiver<u64> {
        self.progress.recorded.subscribe()
    }
}

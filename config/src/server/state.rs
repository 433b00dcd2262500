//! The state that all calls share, under one lock: the resources in force (`state/resources.rs`), the leases
//! of workloads (`state/leases.rs`), and the present sidecars (`state/sessions.rs`). The state that sidecars
//! should see is published as a [`View`]; a slow sidecar misses views, but never the newest.

mod leases;
mod resources;
mod sessions;
mod shown;
mod withheld;

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use weft_transport::identity::{SpiffeId, TrustDomain};
use weft_transport::limited_log::LimitedLog;
use weft_transport::shares::{Bounds, Places, Portions};

use self::leases::Leases;
use self::resources::InForce;
use self::sessions::{Progress, Sessions};
use super::known::Known;
use super::signals::Signals;
use super::tables::Tables;
use super::withdrawn::Withdrawn;
use crate::limits;
use crate::store::{Store, StoreError};

/// The state that sidecars should see.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) tables: Arc<Tables>,
    /// For a lease after the start, when not every workload has registered again: what the workloads that did
    /// register have withdrawn.
    pub(super) settling: Option<Arc<Withdrawn>>,
}

#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) store: Store,
    pub(super) trust_domain: TrustDomain,
    /// Serialises changes of the resources.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// Serialises the costly work on an operator's files: parsing and checking them.
    pub(super) planning: Arc<tokio::sync::Mutex<()>>,
    /// Streams of sidecars.
    pub(super) streams: Places<SpiffeId>,
    /// Bytes of messages that sidecars of an identity have not taken yet.
    pub(super) undelivered: Portions<SpiffeId>,
    pub(super) ended: LimitedLog,
    /// What sidecars tell of their calls.
    pub(super) signals: Arc<Signals>,
    inner: Mutex<Inner>,
    views: watch::Sender<View>,
    /// Endpoints changed since the last view.
    stale: Notify,
    progress: Progress,
}

#[derive(Debug)]
struct Inner {
    in_force: InForce,
    leases: Leases,
    sessions: Sessions,
}

impl ServerState {
    /// `known` are the sidecars that an earlier service knew, if it noted them.
    pub(super) fn new(
        store: Store,
        trust_domain: TrustDomain,
        known: Option<Vec<Known>>,
        now: Instant,
    ) -> Result<Self, StoreError> {
        let (revision, set) = store.current()?;
        let secrets = store.session_secrets();
        let in_force = InForce::new(revision, trust_domain.clone(), set, &secrets);
        // Before the first revision there was no service for which a workload could have registered.
        let had_workloads = in_force.plan.revision.number > 0;
        let back = now + limits::LEASE;
        let tables = Tables::new(Arc::clone(&in_force.plan), Arc::default(), None);
        // One check later than the wait for sidecars ends, so that waiting calls learn of it first.
        let settles = had_workloads.then(|| back + limits::LEASE_CHECK);
        let inner = Inner {
            in_force,
            leases: Leases::new(settles),
            sessions: Sessions::recall(known, had_workloads, back),
        };
        Ok(Self {
            store,
            trust_domain,
            writing: tokio::sync::Mutex::default(),
            planning: Arc::default(),
            streams: Places::new(Bounds {
                places: limits::SUBSCRIBERS_MAX,
                each: limits::SUBSCRIBERS_PER_IDENTITY_MAX,
            }),
            undelivered: Portions::new(limits::UNDELIVERED_BYTES_MAX),
            ended: LimitedLog::by_callers(),
            signals: Arc::new(Signals::new(now)),
            views: watch::Sender::new(View {
                tables: Arc::new(tables),
                settling: inner.leases.settling(),
            }),
            stale: Notify::new(),
            progress: Progress::new(&inner.sessions),
            inner: Mutex::new(inner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code under the lock can leave the state half-changed in a way that matters to later calls.
        weft_transport::locks::lock(&self.inner)
    }

    pub(super) fn views(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }

    fn publish(&self, inner: &mut Inner) {
        let plan = &inner.in_force.plan;
        let endpoints = inner.leases.registry.endpoints(plan);
        let settling = inner.leases.settling();
        self.views.send_if_modified(|view| {
            let is_same = Arc::ptr_eq(view.tables.plan(), plan)
                && *view.tables.endpoints() == endpoints
                && view.settling == settling;
            if !is_same {
                let (plan, endpoints) = (Arc::clone(plan), Arc::new(endpoints));
                let tables = Tables::new(plan, endpoints, Some(&view.tables));
                *view = View {
                    tables: Arc::new(tables),
                    settling,
                };
            }
            !is_same
        });
    }

    /// Publishes changes of endpoints, at most every [`limits::PUBLISH_INTERVAL`]: more often would not help,
    /// and a workload whose health flaps costs the mesh no more than that. Never ends.
    pub(super) async fn publish_changes(&self) {
        loop {
            self.stale.notified().await;
            self.publish(&mut self.lock());
            tokio::time::sleep(limits::PUBLISH_INTERVAL).await;
        }
    }

    /// Ends leases and the time of settling; called every [`limits::LEASE_CHECK`].
    pub(super) fn tick(&self, now: Instant) {
        let mut inner = self.lock();
        if inner.leases.expire(now) {
            self.publish(&mut inner);
        }
        let given_up = inner.sessions.expire(now);
        drop(inner);
        if given_up {
            self.progress.sidecars_changed();
        }
    }

    /// Workloads whose lease is valid.
    pub(super) fn workloads(&self) -> usize {
        self.lock().leases.registry.len()
    }
}

//! The state that all calls share: the current revision, the leases, and the sidecars that are there. What
//! sidecars should see is published as a [`View`]; a slow one misses views, never the newest.

mod untold;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use weft_transport::identity::{SpiffeId, TrustDomain};
use weft_transport::rarely::Rarely;
use weft_transport::shares::{Bounds, Places, Portions};

use super::known::Known;
use super::registrations::{problem, reason};
use super::registry::{Inbound, Registry, Workload};
use super::roster::{About, Roster, Sidecar, Stream, TooManyNames};
use super::tables::Tables;
use super::withdrawn::Withdrawn;
use crate::compile::Plan;
use crate::limits;
use crate::operator::{SidecarInfo, SidecarState};
use crate::proto;
use crate::resources::Set;
use crate::store::{Store, StoreError};
use crate::table::{Revision, ServiceName};

/// What sidecars should see.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) tables: Arc<Tables>,
    /// Less than a lease after the start, not every workload has registered again: what those withdrew that did.
    pub(super) settling: Option<Arc<Withdrawn>>,
}

#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) store: Store,
    pub(super) trust_domain: TrustDomain,
    /// Serialises changes of the resources.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// Serialises what an operator's files cost: parsing and checking them.
    pub(super) planning: Arc<tokio::sync::Mutex<()>>,
    /// Streams of sidecars.
    pub(super) streams: Places<SpiffeId>,
    /// Bytes of messages that sidecars of an identity have not taken yet.
    pub(super) undelivered: Portions<SpiffeId>,
    pub(super) ended: Rarely,
    registrations: Rarely,
    refusals: Rarely,
    refused: AtomicU64,
    inner: Mutex<Inner>,
    views: watch::Sender<View>,
    /// Endpoints changed since the last view.
    stale: Notify,
    /// Counts acknowledgements, refusals, arrivals and departures.
    progress: watch::Sender<u64>,
    /// The sidecars that are there have changed since they were noted.
    unrecorded: Notify,
    /// The last stream whose sidecar is noted; see [`super::known`].
    recorded: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    set: Arc<Set>,
    plan: Arc<Plan>,
    registry: Registry,
    roster: Roster,
    settling: Option<Settling>,
    /// Until when there may be sidecars of which nothing is known.
    all_known_at: Option<Instant>,
}

#[derive(Debug)]
struct Settling {
    /// When workloads that did not register again are given up.
    until: Instant,
    withdrawn: Arc<Withdrawn>,
}

/// What became of a revision.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) sidecars: Vec<SidecarState>,
    /// There may be more sidecars than these.
    pub(super) more_may_come: bool,
}

impl Inner {
    /// What a sidecar says not to serve counts at once, also before all have registered again.
    fn withdraw(&mut self, identity: &SpiffeId, address: SocketAddr, inbound: &Inbound) -> bool {
        let Some(settling) = &mut self.settling else {
            return false;
        };
        let mut withdrawn = Withdrawn::clone(&settling.withdrawn);
        let changed = withdrawn.note(identity, address, inbound);
        if changed {
            settling.withdrawn = Arc::new(withdrawn);
        }
        changed
    }
}

impl Mesh {
    /// `known` are the sidecars of which an earlier service knew, if it noted them.
    pub(super) fn new(
        store: Store,
        trust_domain: TrustDomain,
        known: Option<Vec<Known>>,
        now: Instant,
    ) -> Result<Self, StoreError> {
        let (revision, set) = store.current()?;
        let plan = Arc::new(Plan::new(revision, trust_domain.clone(), &set));
        // Before the first revision there was no service that a workload could have registered for.
        let had_workloads = plan.revision.number > 0;
        let back = now + limits::LEASE;
        let all_known_at = (had_workloads && known.is_none()).then_some(back);
        let tables = Tables::new(Arc::clone(&plan), Arc::default(), None);
        let inner = Inner {
            set: Arc::new(set),
            plan,
            registry: Registry::default(),
            roster: Roster::recall(known.unwrap_or_default(), back),
            // One look later than sidecars are waited for: who waits for them hears it first.
            settling: had_workloads.then(|| Settling {
                until: back + limits::LEASE_CHECK,
                withdrawn: Arc::default(),
            }),
            all_known_at,
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
            ended: Rarely::by_callers(),
            registrations: Rarely::by_callers(),
            refusals: Rarely::by_callers(),
            refused: AtomicU64::new(0),
            views: watch::Sender::new(View {
                tables: Arc::new(tables),
                settling: had_workloads.then(Arc::default),
            }),
            stale: Notify::new(),
            progress: watch::Sender::new(0),
            unrecorded: Notify::new(),
            recorded: watch::Sender::new(match inner.all_known_at {
                // Nothing is noted until then, and so nothing that is missing misleads.
                Some(_) => u64::MAX,
                None => 0,
            }),
            inner: Mutex::new(inner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can leave the state half-changed in a way that later calls mind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn views(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }

    pub(super) fn current(&self) -> (Revision, Arc<Set>) {
        let inner = self.lock();
        (inner.plan.revision.clone(), inner.set.clone())
    }

    /// Puts a written revision into force.
    pub(super) fn advance(&self, revision: Revision, set: Set) {
        let plan = Arc::new(Plan::new(revision, self.trust_domain.clone(), &set));
        let mut inner = self.lock();
        inner.plan = plan;
        inner.set = Arc::new(set);
        self.publish(&mut inner);
    }

    fn publish(&self, inner: &mut Inner) {
        let endpoints = inner.registry.endpoints(&inner.plan);
        let settling = inner.settling.as_ref();
        let settling = settling.map(|settling| Arc::clone(&settling.withdrawn));
        self.views.send_if_modified(|view| {
            let is_same = Arc::ptr_eq(view.tables.plan(), &inner.plan)
                && *view.tables.endpoints() == endpoints
                && view.settling == settling;
            if !is_same {
                let (plan, endpoints) = (Arc::clone(&inner.plan), Arc::new(endpoints));
                let tables = Tables::new(plan, endpoints, Some(&view.tables));
                *view = View {
                    tables: Arc::new(tables),
                    settling,
                };
            }
            !is_same
        });
    }

    /// Publishes changes of endpoints, at most every [`limits::PUBLISH_INTERVAL`]: a workload whose health
    /// flaps costs the mesh no more than that. Never ends.
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
        let mut changed = inner.registry.expire(now);
        if inner.settling.take_if(|one| one.until <= now).is_some() {
            changed = true;
        }
        if changed {
            self.publish(&mut inner);
        }
        let mut given_up = inner.roster.expire(now);
        if inner.all_known_at.is_some_and(|at| at <= now) {
            inner.all_known_at = None;
            given_up = true;
        }
        drop(inner);
        if given_up {
            self.sidecars_changed();
        }
    }

    /// Who is there has changed.
    fn sidecars_changed(&self) {
        self.unrecorded.notify_one();
        self.progress.send_modify(|count| *count += 1);
    }

    /// A sidecar's stream begins.
    pub(super) fn connect(
        &self,
        workload: &Workload,
        about: About,
    ) -> Result<Stream, TooManyNames> {
        let stream = self.lock().roster.connect(workload, about)?;
        self.sidecars_changed();
        Ok(stream)
    }

    /// Its stream ended. Its lease goes on: it may come back in time.
    pub(super) fn disconnect(&self, workload: &Workload, number: u64, now: Instant) {
        self.lock().roster.disconnect(workload, number, now);
        self.sidecars_changed();
    }

    /// What a sidecar serves, said on its stream of that number.
    pub(super) fn report(
        &self,
        workload: &Workload,
        number: u64,
        inbound: Inbound,
        now: Instant,
    ) -> Result<(), TooManyNames> {
        let inbound = Arc::new(inbound);
        let mut inner = self.lock();
        let Some(sidecar) = inner.roster.report(workload, number, &inbound)? else {
            return Ok(());
        };
        let (place, inbound) = (sidecar.about.place.clone(), Arc::clone(&sidecar.inbound));
        let Some(address) = place.address else {
            return Ok(());
        };
        let mut changed = inner.withdraw(&workload.identity, address, &inbound);
        let registry = &mut inner.registry;
        changed |= registry.report(workload, address, place.locality, inbound, now);
        if changed {
            self.stale.notify_one();
        }
        Ok(())
    }

    /// A sidecar ends, and will not come back.
    pub(super) fn leave(&self, workload: &Workload, number: u64) {
        self.lock().roster.leave(workload, number);
        self.sidecars_changed();
    }

    /// A sidecar runs a revision, or says why not.
    pub(super) fn acknowledge(
        &self,
        workload: &Workload,
        number: u64,
        revision: Revision,
        refusal: String,
    ) {
        let mut inner = self.lock();
        let Some(sidecar) = inner.roster.stream(workload, number) else {
            return;
        };
        sidecar.last_seen = jiff::Timestamp::now();
        if refusal.is_empty() {
            sidecar.refused = None;
            sidecar.acknowledged = Some(revision);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.refusals.log(|left_out| {
                tracing::warn!(peer = %workload.identity, instance = ?workload.instance, %revision,
                    reason = ?refusal, left_out, "a sidecar refuses a revision, and goes on with what it had");
            });
            sidecar.refused = Some((revision, refusal));
        }
        drop(inner);
        self.progress.send_modify(|count| *count += 1);
    }

    /// Waits until every sidecar that is there acknowledged or refused `revision`, at most `wait`. One that
    /// is expected back is waited for, and so is the time in which one may come that is not known.
    pub(super) async fn settle(&self, revision: &Revision, wait: Duration) -> Settled {
        let deadline = Instant::now() + wait;
        let mut progress = self.progress.subscribe();
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
            sidecars: inner.roster.states(revision),
            more_may_come: inner.all_known_at.is_some(),
        }
    }

    /// How often a sidecar refused a revision.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Workloads whose lease is valid.
    pub(super) fn workloads(&self) -> usize {
        self.lock().registry.len()
    }

    /// What each sidecar that is there makes of `revision`.
    pub(super) fn states(&self, revision: &Revision) -> Vec<SidecarState> {
        self.lock().roster.states(revision)
    }

    /// All sidecars that are or were connected.
    pub(super) fn sidecars(&self) -> Vec<SidecarInfo> {
        let inner = self.lock();
        inner
            .roster
            .iter()
            .map(|(workload, sidecar)| info(&inner, workload, sidecar))
            .collect()
    }

    /// What the service thinks of each registration of a sidecar; see [`problem`].
    pub(super) fn serves(
        &self,
        workload: &Workload,
        number: u64,
        plan: &Plan,
    ) -> (BTreeSet<ServiceName>, proto::Registrations) {
        let mut inner = self.lock();
        let Some(sidecar) = inner.roster.stream(workload, number) else {
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

    /// Tells operators why registrations of a sidecar do not hold.
    pub(super) fn log_problems(&self, workload: &Workload) {
        let problems = {
            let inner = self.lock();
            let sidecar = inner.roster.get(workload);
            sidecar.map(|sidecar| problems(&inner, workload, sidecar))
        };
        for (service, problem) in problems.into_iter().flatten() {
            self.registrations.log(|left_out| {
                tracing::warn!(peer = %workload.identity, instance = ?workload.instance, service,
                    problem, left_out, "a registration does not hold");
            });
        }
    }

    /// Ready when the sidecars that are there have changed since they were noted.
    pub(super) async fn unrecorded(&self) {
        self.unrecorded.notified().await;
    }

    /// What has to be noted for a service after this one; `None` while not all sidecars are known.
    pub(super) fn to_record(&self) -> Option<(u64, Vec<Known>)> {
        let inner = self.lock();
        inner.all_known_at.is_none().then(|| inner.roster.known())
    }

    /// Sidecars up to this stream are noted.
    pub(super) fn set_recorded(&self, number: u64) {
        self.recorded.send_replace(number);
    }

    /// The last stream whose sidecar is noted.
    pub(super) fn recorded(&self) -> watch::Receiver<u64> {
        self.recorded.subscribe()
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
        let reason = reason(&inner.plan, identity, service, *port, address)?;
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
            .registry
            .serves(workload, &inner.plan)
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

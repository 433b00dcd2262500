//! The state that all calls share: the current revision, the leases, and the connected sidecars. What
//! sidecars should see is published as a [`View`]; a slow one misses views, never the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weft_transport::identity::{PeerId, SpiffeId, TrustDomain};

use super::registry::{Inbound, Registry, Workload};
use crate::compile::{Endpoints, Plan};
use crate::limits;
use crate::operator::{SidecarInfo, SidecarState};
use crate::proto;
use crate::resources::Set;
use crate::store::{Store, StoreError};
use crate::table::{Locality, Revision, ServiceName};

/// What tables are compiled from.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) plan: Arc<Plan>,
    pub(super) endpoints: Arc<Endpoints>,
    /// Less than a lease after the start, not every workload has registered again.
    pub(super) settling: bool,
}

#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) store: Store,
    pub(super) trust_domain: TrustDomain,
    /// Serialises changes of the resources.
    pub(super) writing: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    views: watch::Sender<View>,
    /// Counts acknowledgements, refusals, arrivals and departures.
    progress: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    set: Arc<Set>,
    plan: Arc<Plan>,
    registry: Registry,
    sessions: BTreeMap<Workload, Session>,
    next_session: u64,
    settled_at: Option<Instant>,
}

/// Where a sidecar is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Where its peers reach it, if it serves anything.
    pub(super) address: Option<SocketAddr>,
    /// Where it runs, if it says so.
    pub(super) locality: Option<Locality>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    connected: bool,
    peer: PeerId,
    place: Place,
    version: String,
    listens_for: BTreeSet<ServiceName>,
    inbound: Inbound,
    acknowledged: Option<Revision>,
    refused: Option<(Revision, String)>,
    last_seen: jiff::Timestamp,
}

impl Mesh {
    pub(super) fn new(store: Store, trust_domain: TrustDomain) -> Result<Self, StoreError> {
        let (revision, set) = store.current()?;
        let plan = Arc::new(Plan::new(revision, trust_domain.clone(), &set));
        // Before the first revision there was no service that a workload could have registered for.
        let had_workloads = plan.revision.number > 0;
        let view = View {
            plan: plan.clone(),
            endpoints: Arc::default(),
            settling: had_workloads,
        };
        let inner = Inner {
            set: Arc::new(set),
            plan,
            registry: Registry::default(),
            sessions: BTreeMap::new(),
            next_session: 0,
            settled_at: had_workloads.then(|| Instant::now() + limits::LEASE),
        };
        Ok(Self {
            store,
            trust_domain,
            writing: tokio::sync::Mutex::default(),
            inner: Mutex::new(inner),
            views: watch::Sender::new(view),
            progress: watch::Sender::new(0),
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
        self.publish(&inner);
    }

    fn publish(&self, inner: &Inner) {
        self.views.send_replace(View {
            plan: inner.plan.clone(),
            endpoints: Arc::new(inner.registry.endpoints(&inner.plan)),
            settling: inner.settled_at.is_some(),
        });
    }

    /// Ends leases and the time of settling; called every [`limits::LEASE_CHECK`].
    pub(super) fn tick(&self, now: Instant) {
        let mut inner = self.lock();
        let mut changed = inner.registry.expire(now);
        if inner.settled_at.is_some_and(|at| at <= now) {
            inner.settled_at = None;
            changed = true;
        }
        if changed {
            self.publish(&inner);
        }
    }

    /// A sidecar's stream begins. Returns its number, or `None` if there are too many.
    pub(super) fn connect(
        &self,
        workload: &Workload,
        peer: &PeerId,
        hello: &proto::Hello,
        listens_for: BTreeSet<ServiceName>,
        place: Place,
    ) -> Option<u64> {
        let mut inner = self.lock();
        let live = inner
            .sessions
            .iter()
            .filter(|(_, session)| session.connected);
        let same = live
            .clone()
            .filter(|(other, _)| other.identity == workload.identity)
            .count();
        if live.count() >= limits::SUBSCRIBERS_MAX || same >= limits::SUBSCRIBERS_PER_IDENTITY_MAX {
            return None;
        }
        while inner.sessions.len() >= limits::SUBSCRIBERS_MAX + limits::SIDECARS_REMEMBERED_MAX {
            let gone = inner
                .sessions
                .iter()
                .filter(|(_, session)| !session.connected);
            let oldest = gone.min_by_key(|(_, session)| session.last_seen);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            inner.sessions.remove(&key);
        }
        inner.next_session += 1;
        let number = inner.next_session;
        let session = Session {
            number,
            connected: true,
            peer: peer.clone(),
            place,
            version: hello.version.clone(),
            listens_for,
            inbound: Inbound::new(),
            acknowledged: None,
            refused: None,
            last_seen: jiff::Timestamp::now(),
        };
        inner.sessions.insert(workload.clone(), session);
        drop(inner);
        self.progress.send_modify(|count| *count += 1);
        Some(number)
    }

    /// Its stream ended. Its lease goes on: it may come back in time.
    pub(super) fn disconnect(&self, workload: &Workload, number: u64) {
        let mut inner = self.lock();
        if let Some(session) = inner.sessions.get_mut(workload)
            && session.number == number
        {
            session.connected = false;
        }
        drop(inner);
        self.progress.send_modify(|count| *count += 1);
    }

    /// What a sidecar serves.
    pub(super) fn report(&self, workload: &Workload, inbound: Inbound, now: Instant) {
        let mut inner = self.lock();
        let Some(session) = inner.sessions.get_mut(workload) else {
            return;
        };
        session.last_seen = jiff::Timestamp::now();
        session.inbound.clone_from(&inbound);
        let Some(address) = session.place.address else {
            return;
        };
        let locality = session.place.locality.clone();
        if inner
            .registry
            .report(workload, address, locality, inbound, now)
        {
            self.publish(&inner);
        }
    }

    /// A sidecar runs a revision, or says why not.
    pub(super) fn acknowledge(&self, workload: &Workload, revision: Revision, refusal: String) {
        let mut inner = self.lock();
        let Some(session) = inner.sessions.get_mut(workload) else {
            return;
        };
        session.last_seen = jiff::Timestamp::now();
        if refusal.is_empty() {
            session.refused = None;
            session.acknowledged = Some(revision);
        } else {
            session.refused = Some((revision, refusal));
        }
        drop(inner);
        self.progress.send_modify(|count| *count += 1);
    }

    /// Waits until every connected sidecar acknowledged or refused `revision`, at most `wait`.
    pub(super) async fn settle(&self, revision: &Revision, wait: Duration) -> Vec<SidecarState> {
        let deadline = Instant::now() + wait;
        let mut progress = self.progress.subscribe();
        loop {
            let states = self.states(revision);
            let lagging = |state: &SidecarState| !state.acknowledged && state.refusal.is_none();
            if !states.iter().any(lagging) {
                return states;
            }
            match tokio::time::timeout_at(deadline, progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return self.states(revision),
            }
        }
    }

    /// Workloads whose lease is valid.
    pub(super) fn workloads(&self) -> usize {
        self.lock().registry.len()
    }

    /// What each connected sidecar makes of `revision`.
    pub(super) fn states(&self, revision: &Revision) -> Vec<SidecarState> {
        let reached =
            |other: &Revision| other.store == revision.store && other.number >= revision.number;
        let inner = self.lock();
        let live = inner
            .sessions
            .iter()
            .filter(|(_, session)| session.connected);
        live.map(|(workload, session)| SidecarState {
            identity: workload.identity.clone(),
            instance: workload.instance.clone(),
            acknowledged: session.acknowledged.as_ref().is_some_and(reached),
            refusal: session
                .refused
                .as_ref()
                .filter(|(revision, _)| reached(revision))
                .map(|(_, reason)| reason.clone()),
        })
        .collect()
    }

    /// All sidecars that are or were connected.
    pub(super) fn sidecars(&self) -> Vec<SidecarInfo> {
        let inner = self.lock();
        inner
            .sessions
            .iter()
            .map(|(workload, session)| {
                let serves = inner.registry.serves(workload, &inner.plan);
                info(workload, session, serves)
            })
            .collect()
    }

    /// What the service thinks of each registration of a sidecar; see [`problem`].
    pub(super) fn serves(
        &self,
        workload: &Workload,
        plan: &Plan,
    ) -> (BTreeSet<ServiceName>, proto::Registrations) {
        let inner = self.lock();
        let Some(session) = inner.sessions.get(workload) else {
            return Default::default();
        };
        let mut serves = BTreeSet::new();
        let mut registrations = Vec::new();
        for (service, port) in session.inbound.keys() {
            let (problem, refused) = problem(
                plan,
                &workload.identity,
                service,
                *port,
                session.place.address,
            );
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
}

/// Why a registration does not hold, and whether it is refused (else it waits).
fn problem(
    plan: &Plan,
    identity: &SpiffeId,
    service: &ServiceName,
    port: u16,
    address: Option<SocketAddr>,
) -> (String, bool) {
    match plan.may_serve(identity, service) {
        None => (format!("waits: there is no Service {service} yet"), false),
        Some(false) => (may_not_serve(plan, identity, service), true),
        Some(true) if !plan.has_port(service, port) => (
            format!("waits: Service {service} has no port {port}"),
            false,
        ),
        Some(true) if address.is_none() => ("no address was advertised".to_owned(), true),
        Some(true) => (String::new(), false),
    }
}

/// Says who may instead, and both ways out.
fn may_not_serve(plan: &Plan, identity: &SpiffeId, service: &ServiceName) -> String {
    let named = plan.servers(service);
    let mut who: Vec<String> = named
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    match named.len() {
        0 => who.push("nobody".to_owned()),
        all if all > NAMED_MAX => who.push(format!("{} more", all - NAMED_MAX)),
        _ => {}
    }
    format!(
        "{identity} may not serve {service}, only {} may: start the sidecar with a token for such an \
         identity, or name this one in spec.identities of the Service",
        who.join(", ")
    )
}

/// Identities that one message names.
const NAMED_MAX: usize = 3;

fn info<'a>(
    workload: &Workload,
    session: &Session,
    serves: impl Iterator<Item = (&'a (ServiceName, u16), bool)>,
) -> SidecarInfo {
    let expiry = jiff::Timestamp::try_from(session.peer.not_after());
    SidecarInfo {
        identity: workload.identity.clone(),
        instance: workload.instance.clone(),
        connected: session.connected,
        address: session.place.address,
        version: session.version.clone(),
        listens_for: session.listens_for.iter().cloned().collect(),
        serves: serves
            .map(|((service, port), healthy)| (format!("{service}:{port}"), healthy))
            .collect(),
        revision: session.acknowledged.clone(),
        refusal: session.refused.as_ref().map(|(_, reason)| reason.clone()),
        svid_expires: expiry.map(|time| time.to_string()).unwrap_or_default(),
        last_seen: format!("{:.0}", session.last_seen),
    }
}

//! A sidecar's subscription: the table that it should run, whatever happens to the config service.
//!
//! [`Subscription::run`] is the loop: connect, say hello, report what is served, take tables and
//! changes; when the stream ends, wait with jitter and try the next address. The data path holds a
//! [`SubscriptionHandle`] and never waits for any of this. `merge.rs` decides which table to run,
//! `cache.rs` keeps the last good one on disk.

mod cache;
mod handle;
mod merge;
mod status;

pub use handle::SubscriptionHandle;
pub use status::{Registration, SubscriptionSettings, SubscriptionStatus};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::connect::{back_off, connect};
use crate::heard::Heard;
use crate::limits;
use crate::proto::discovery_client::DiscoveryClient;
use crate::proto::service_message::Kind as In;
use crate::proto::sidecar_message::Kind as Out;
use crate::proto::{self, ServiceMessage, SidecarMessage};
use crate::table::{Revision, ServiceName, Table};
use merge::Changes;

const CACHE_FILE: &str = "table.json";

/// Messages to the config service that may wait; each is small, and a full queue ends the stream.
const OUTGOING_QUEUE: usize = 16;

/// The running part; owned by whoever calls [`Self::run`].
#[derive(Debug)]
pub struct Subscription {
    settings: SubscriptionSettings,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The name that this process, or the one that it took over from, gave itself.
    instance: String,
    /// The last good table on disk.
    cache: PathBuf,
    tables: watch::Sender<Option<Arc<Table>>>,
    state: Mutex<State>,
    /// Health or an acknowledgement is to be sent.
    changed: tokio::sync::Notify,
    heard: Heard,
}

#[derive(Debug, Default)]
struct State {
    health: BTreeMap<(ServiceName, u16), bool>,
    acknowledgement: Option<(Revision, Option<String>)>,
    /// What the service sent last, with all changes since.
    offered: Option<Table>,
    /// What the sidecar runs, with all changes since.
    good: Option<Arc<Table>>,
    cache_is_old: bool,
    /// A successor registers under our name: what we said would undo what it says.
    handed_over: bool,
    status: SubscriptionStatus,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the last good table if it changed since and the file is ours.
    async fn save(&self) {
        let table = {
            let mut state = self.lock();
            if state.handed_over || !std::mem::take(&mut state.cache_is_old) {
                return;
            }
            state.good.clone()
        };
        let Some(table) = table else { return };
        let path = self.cache.clone();
        let written = tokio::task::spawn_blocking(move || cache::write(&path, &table)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the last good table was not written to disk");
            self.lock().cache_is_old = true;
        }
    }
}

/// The last good table that a sidecar with this state directory has, if there is one that can be used.
pub fn saved_table(state_dir: &Path) -> Option<Table> {
    cache::read(&state_dir.join(CACHE_FILE)).ok().flatten()
}

impl Subscription {
    /// Loads the last good table, if there is one. Nothing is sent before [`Self::run`].
    pub fn start(settings: SubscriptionSettings) -> (Self, SubscriptionHandle) {
        let path = settings.state_dir.join(CACHE_FILE);
        let domain = settings.credentials.svid().id().trust_domain().clone();
        let cached = match cache::read(&path) {
            Ok(cached) => cached
                .filter(|table| table.trust_domain == domain)
                .map(Arc::new),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the last good table cannot be used");
                None
            }
        };
        let takes_over = settings.takes_over.clone();
        // A successor goes on with what was healthy, so that callers see no gap before the first probe.
        let healthy = |one: &(ServiceName, u16)| {
            takes_over
                .as_ref()
                .is_some_and(|before| before.healthy.contains(one))
        };
        let mut state = State {
            health: settings
                .inbound
                .iter()
                .map(|one| (one.clone(), healthy(one)))
                .collect(),
            good: cached.clone(),
            ..State::default()
        };
        state.status.from_disk = cached.is_some();
        let instance = takes_over.map_or_else(
            || format!("{:016x}", rand::random::<u64>()),
            |before| before.instance,
        );
        let shared = Arc::new(Shared {
            instance,
            cache: path,
            tables: watch::Sender::new(cached),
            state: Mutex::new(state),
            changed: tokio::sync::Notify::new(),
            heard: Heard::default(),
        });
        let handle = SubscriptionHandle::new(shared.clone());
        (Self { settings, shared }, handle)
    }

    /// Follows the config service until `shutdown`, then ends the registrations.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failures = 0;
        let mut addresses = self.settings.addresses.clone();
        while !shutdown.is_cancelled() {
            if self.shared.lock().handed_over {
                // Another stream of this name would push the successor's aside.
                return shutdown.cancelled().await;
            }
            let started = Instant::now();
            let error = match self.follow(&addresses, &shutdown).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if self.shared.lock().handed_over {
                continue;
            }
            tracing::info!(%error, "the stream to the config service ended");
            // This process may be restarted before the config service is back.
            self.shared.save().await;
            {
                let mut state = self.shared.lock();
                state.status.connected = false;
                state.status.last_error = Some(error);
            }
            // A stream that lasted was a success; only attempts that fail at once add up.
            failures = if started.elapsed() > limits::LEASE {
                0
            } else {
                failures + 1
            };
            if !addresses.is_empty() {
                addresses.rotate_left(1);
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(back_off(failures)) => {}
            }
        }
        self.shared.save().await;
    }

    /// One stream from its beginning to its end; `Ok` means shutdown.
    async fn follow(
        &self,
        addresses: &[String],
        shutdown: &CancellationToken,
    ) -> Result<(), String> {
        let (outgoing, messages) = mpsc::channel(OUTGOING_QUEUE);
        let mut advertise = self.settings.advertise.clone();
        let address = *advertise.borrow_and_update();
        let hello = proto::Hello {
            version: self.settings.version.clone(),
            instance: self.shared.instance.clone(),
            listens_for: self
                .settings
                .listens_for
                .iter()
                .map(ToString::to_string)
                .collect(),
            advertise: address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            locality: self
                .settings
                .locality
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        };
        queue(&outgoing, Out::Hello(hello))?;
        queue(&outgoing, Out::Report(self.report()))?;
        let opening = async {
            let channel = connect(addresses, &self.settings.credentials, &self.shared.heard)
                .await
                .map_err(|error| error.to_string())?;
            if self.shared.lock().handed_over {
                return Err("another process registers".to_owned());
            }
            DiscoveryClient::new(channel)
                .max_decoding_message_size(limits::TABLE_MESSAGE_BYTES_MAX)
                .subscribe(ReceiverStream::new(messages))
                .await
                .map_err(|status| status.message().to_owned())
        };
        let mut incoming = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            opened = opening => opened?.into_inner(),
        };
        {
            let mut state = self.shared.lock();
            state.status.connected = true;
            state.status.last_error = None;
        }
        // What was acknowledged on an earlier stream is unknown to this one.
        let mut told = None;
        let mut renewal = tokio::time::interval(limits::LEASE_RENEWAL);
        let mut saving = tokio::time::interval(limits::CACHE_INTERVAL);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    if !self.shared.lock().handed_over {
                        let leaving = true;
                        queue(&outgoing, Out::Report(proto::Report { leaving, ..Default::default() }))?;
                    }
                    drop(outgoing);
                    // The service ends the stream when it has read to our end.
                    let drain = async { while let Ok(Some(_)) = incoming.message().await {} };
                    let _ = tokio::time::timeout(limits::SHUTDOWN_DEADLINE, drain).await;
                    return Ok(());
                }
                message = incoming.message() => {
                    let message = message.map_err(|status| status.message().to_owned())?;
                    let message = message.ok_or("the config service ended the stream")?;
                    self.take(message)?;
                }
                // A stream is for one address; that of a host that moved may be dead without knowing it.
                Ok(()) = advertise.changed() => {
                    return Err("this sidecar has another address".to_owned());
                }
                () = self.shared.changed.notified() => self.say(&outgoing)?,
                _ = renewal.tick() => self.say(&outgoing)?,
                _ = saving.tick() => self.shared.save().await,
            }
            if self.shared.lock().handed_over {
                continue;
            }
            let acknowledgement = self.shared.lock().acknowledgement.clone();
            if let Some((revision, refusal)) = acknowledgement
                && told.as_ref() != Some(&(revision.clone(), refusal.clone()))
                && self.was_offered_here(&revision)
            {
                queue(
                    &outgoing,
                    Out::Acknowledgement(proto::Acknowledgement {
                        revision: Some((&revision).into()),
                        refusal: refusal.clone().unwrap_or_default(),
                    }),
                )?;
                told = Some((revision, refusal));
            }
        }
    }

    fn was_offered_here(&self, revision: &Revision) -> bool {
        self.shared
            .lock()
            .offered
            .as_ref()
            .is_some_and(|offered| offered.revision == *revision)
    }

    /// Renews the registration, as long as it is ours.
    fn say(&self, outgoing: &mpsc::Sender<SidecarMessage>) -> Result<(), String> {
        if self.shared.lock().handed_over {
            return Ok(());
        }
        queue(outgoing, Out::Report(self.report()))
    }

    fn report(&self) -> proto::Report {
        let state = self.shared.lock();
        let inbound = state
            .health
            .iter()
            .map(|((service, port), healthy)| proto::Inbound {
                service: service.to_string(),
                port: (*port).into(),
                healthy: *healthy,
            });
        proto::Report {
            inbound: inbound.collect(),
            leaving: false,
        }
    }

    fn take(&self, message: ServiceMessage) -> Result<(), String> {
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
            changes.insert((service, number), endpoints);
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

fn queue(outgoing: &mpsc::Sender<SidecarMessage>, kind: Out) -> Result<(), String> {
    outgoing
        .try_send(SidecarMessage { kind: Some(kind) })
        .map_err(|_| "the config service does not read".to_owned())
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

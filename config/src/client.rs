//! A sidecar's subscription: provides the table that it should run, even while the config service cannot be
//! reached.
//!
//! [`Subscription::run`] is the loop: connect, send the hello, report the served services, take tables and
//! changes; when the stream ends, wait with jitter and try the next address. A stream ends with the
//! certificate that opened it, so a renewed certificate opens the next stream while the old one goes on, and
//! the registration never lapses. The data path holds a [`SubscriptionHandle`] and never waits for the config
//! service. `state.rs` makes the decisions, a machine without IO: `take.rs` takes the messages of the
//! service, `held.rs` says which table to run. `cache.rs` keeps the last good table on disk.

mod cache;
#[cfg(test)]
mod fuzz_tests;
mod handle;
mod held;
mod merge;
mod observation;
pub(crate) mod state;
mod status;
mod take;

pub use handle::SubscriptionHandle;
pub use observation::CallSource;
pub use status::{Health, Registration, SubscriptionSettings, SubscriptionStatus};

use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::{Fuse, FusedFuture as _, FutureExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;
use weft_transport::identity::TrustDomain;

use self::observation::Observed;
use self::state::{Served, State, Written};
use crate::connect::{back_off, connect};
use crate::last_heard::LastHeard;
use crate::limits;
use crate::proto::discovery_client::DiscoveryClient;
use crate::proto::sidecar_message::Kind as Out;
use crate::proto::{self, ServiceMessage, SidecarMessage};
use crate::table::{Features, Schema, ServiceName, Table};

const CACHE_FILE: &str = "table.json";

/// Messages to the config service that may wait; each is small, and a full queue ends the stream.
const OUTGOING_QUEUE: usize = 16;

/// The running part; its owner calls [`Self::run`].
#[derive(Debug)]
pub struct Subscription {
    settings: SubscriptionSettings,
    shared: Arc<Shared>,
}

/// An open stream to the config service.
struct Stream {
    connection: Channel,
    outgoing: mpsc::Sender<SidecarMessage>,
    incoming: Streaming<ServiceMessage>,
}

#[derive(Debug)]
struct Shared {
    /// The name that this process, or its predecessor, gave itself.
    instance: String,
    /// The last good table on disk.
    cache: PathBuf,
    tables: watch::Sender<Option<Arc<Table>>>,
    state: Mutex<State>,
    /// A health report or an acknowledgement is to be sent.
    changed: tokio::sync::Notify,
    last_heard: LastHeard,
    /// What is told of calls, beside the subscription.
    observed: Observed,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete in itself.
        weft_transport::locks::lock(&self.state)
    }

    /// Gives the data path the table that it should run, unless it has that very one.
    fn show_newest(&self, state: &State) {
        let Some(newest) = state.newest() else { return };
        self.tables.send_if_modified(|shown| {
            let is_new = !shown
                .as_ref()
                .is_some_and(|shown| Arc::ptr_eq(shown, newest));
            if is_new {
                *shown = Some(Arc::clone(newest));
            }
            is_new
        });
    }

    /// Takes a message of the config service.
    fn take(&self, message: ServiceMessage, own: &TrustDomain) -> Result<(), String> {
        let mut state = self.lock();
        state.take(message, own)?;
        self.show_newest(&state);
        Ok(())
    }

    /// Writes the last good table to disk if that is due.
    async fn save(&self) {
        let due = self.lock().due(Instant::now());
        if let Some(table) = due {
            self.write(table).await;
        }
    }

    /// Writes the last good table, changed or not. If another write is under way, this waits for it.
    async fn save_anyway(&self) {
        let good = self.lock().good();
        if let Some(table) = good {
            self.write(table).await;
        }
    }

    async fn write(&self, table: Arc<Table>) {
        let path = self.cache.clone();
        let written = tokio::task::spawn_blocking(move || cache::write(&path, &table)).await;
        let written = match written {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let path = self.cache.display();
        let reason = written.as_ref().err().cloned().unwrap_or_default();
        let result = written.map_err(|error| format!("{path}: {error}"));
        match self.lock().written(result, Instant::now()) {
            Written::Fine => {}
            Written::Again => tracing::info!("the last good table is on disk again"),
            Written::Failed => {
                tracing::error!(%path, error = reason, "the table in force is not on disk; a restart without the config service goes back to the last one that is");
            }
            Written::StillFailed => {
                tracing::debug!(error = reason, "the table in force is still not on disk");
            }
        }
    }
}

/// The last good table in this state directory, if there is a usable one.
pub fn saved_table(state_dir: &Path) -> Option<Table> {
    cache::read(&state_dir.join(CACHE_FILE)).ok().flatten()
}

impl Subscription {
    /// Loads the last good table, if there is one. No message is sent before [`Self::run`].
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
        // A successor registers the applications that were healthy, so that callers see no gap before its
        // first probe.
        let healthy = |one: &(ServiceName, u16)| {
            takes_over
                .as_ref()
                .is_some_and(|before| before.healthy.contains(one))
        };
        let served = settings.inbound.iter();
        let served = served.map(|(one, details)| {
            let (healthy, details) = (healthy(one), details.clone());
            let served = Served {
                healthy,
                details,
                problem: String::new(),
            };
            (one.clone(), served)
        });
        let state = State::new(cached.clone(), served.collect());
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
            last_heard: LastHeard::default(),
            observed: Observed::default(),
        });
        let handle = SubscriptionHandle::new(shared.clone());
        (Self { settings, shared }, handle)
    }

    /// Follows the config service until `shutdown`, then ends the registrations.
    pub async fn run(self, shutdown: CancellationToken) {
        let (shared, until) = (Arc::clone(&self.shared), shutdown.clone());
        let telling = shared.observed.tell(&shared.instance, &until);
        tokio::join!(self.subscribe(shutdown), telling);
    }

    async fn subscribe(self, shutdown: CancellationToken) {
        let mut failures = 0;
        let mut addresses = self.settings.addresses.clone();
        while !shutdown.is_cancelled() {
            if self.shared.lock().is_handed_over() {
                // Another stream under this name would end the successor's.
                return shutdown.cancelled().await;
            }
            let started = Instant::now();
            let error = match self.follow(&addresses, &shutdown).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if self.shared.lock().is_handed_over() {
                continue;
            }
            self.shared.observed.disconnected();
            tracing::info!(%error, "the stream to the config service ended");
            // This process may be restarted before the config service is back.
            self.shared.save().await;
            self.shared.lock().end_stream(error);
            // A stream that lasted counts as a success; only attempts that fail at once add up.
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

    /// Runs one stream from its beginning to its end, and those that follow it without a gap; `Ok` means
    /// shutdown.
    async fn follow(
        &self,
        addresses: &[String],
        shutdown: &CancellationToken,
    ) -> Result<(), String> {
        let mut advertise = self.settings.advertise.clone();
        let address = *advertise.borrow_and_update();
        // Read before the stream opens: a certificate that is swapped in afterwards opens the next stream.
        let mut swaps = self.settings.credentials.subscribe();
        let mut stream = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            opened = self.open(addresses, address) => opened?,
        };
        self.shared.lock().begin_stream();
        self.shared.observed.connected(stream.connection.clone());
        let mut renewal = tokio::time::interval(limits::LEASE_RENEWAL);
        let mut saving = tokio::time::interval(limits::CACHE_INTERVAL);
        let mut moving = pin!(Fuse::terminated());
        loop {
            let moved = tokio::select! {
                () = shutdown.cancelled() => return self.leave(stream).await,
                message = stream.incoming.message() => {
                    match message.map_err(|status| status.message().to_owned()) {
                        Ok(Some(message)) => {
                            self.take(message)?;
                            None
                        }
                        // The service may end this stream as soon as the next one begins.
                        ended if !moving.is_terminated() => tokio::select! {
                            () = shutdown.cancelled() => return self.leave(stream).await,
                            next = timeout(limits::CONNECT_TIMEOUT, &mut moving) => {
                                Some(next.map_err(|_| reason(ended))?)
                            }
                        },
                        ended => return Err(reason(ended)),
                    }
                }
                // A stream is for one address; the stream of a host that moved may be dead without notice.
                Ok(()) = advertise.changed() => {
                    return Err("this sidecar has another address".to_owned());
                }
                Ok(()) = swaps.changed() => {
                    if !self.shared.lock().is_handed_over() {
                        moving.set(self.successor(addresses, address).fuse());
                    }
                    None
                }
                next = &mut moving => Some(next),
                () = self.shared.changed.notified() => {
                    self.say(&stream.outgoing)?;
                    None
                }
                _ = renewal.tick() => {
                    self.say(&stream.outgoing)?;
                    None
                }
                _ = saving.tick() => {
                    self.shared.save().await;
                    None
                }
            };
            if let Some((next, first)) = moved {
                tracing::debug!("the stream goes on with the renewed certificate");
                stream = next;
                self.shared.lock().begin_stream();
                self.shared.observed.connected(stream.connection.clone());
                self.take(first)?;
            }
            let answer = self.shared.lock().take_answer();
            if let Some((revision, outcome)) = answer {
                queue(
                    &stream.outgoing,
                    Out::Acknowledgement(proto::Acknowledgement {
                        revision: Some((&revision).into()),
                        refusal: outcome.err().unwrap_or_default(),
                    }),
                )?;
            }
        }
    }

    /// Connects, sends the hello and reports the served services.
    async fn open(
        &self,
        addresses: &[String],
        advertise: Option<SocketAddr>,
    ) -> Result<Stream, String> {
        let (outgoing, messages) = mpsc::channel(OUTGOING_QUEUE);
        queue(&outgoing, Out::Hello(self.hello(advertise)))?;
        queue(&outgoing, Out::Report(self.report()))?;
        let channel = connect(
            addresses,
            &self.settings.credentials,
            &self.shared.last_heard,
        )
        .await
        .map_err(|error| error.to_string())?;
        if self.shared.lock().is_handed_over() {
            return Err("another process registers".to_owned());
        }
        let opened = DiscoveryClient::new(channel.clone())
            .max_decoding_message_size(limits::TABLE_MESSAGE_BYTES_MAX)
            .subscribe(ReceiverStream::new(messages))
            .await
            .map_err(|status| status.message().to_owned())?;
        Ok(Stream {
            connection: channel,
            outgoing,
            incoming: opened.into_inner(),
        })
    }

    /// Opens the stream that takes over from the present one, and sends its first message: with that the
    /// config service takes the registration from it. Tries until it succeeds, while the present stream goes
    /// on.
    async fn successor(
        &self,
        addresses: &[String],
        advertise: Option<SocketAddr>,
    ) -> (Stream, ServiceMessage) {
        let mut failures = 0;
        loop {
            let attempt = async {
                let mut stream = self.open(addresses, advertise).await?;
                let first = stream.incoming.message().await;
                let first = first.map_err(|status| status.message().to_owned())?;
                let first = first.ok_or("the config service ended the stream")?;
                Ok::<_, String>((stream, first))
            };
            match attempt.await {
                Ok(opened) => return opened,
                // Another process owns the registration: this one opens no further stream.
                Err(_) if self.shared.lock().is_handed_over() => pending().await,
                Err(error) => {
                    tracing::info!(%error, "cannot reach the config service with the renewed certificate yet");
                    failures += 1;
                    tokio::time::sleep(back_off(failures)).await;
                }
            }
        }
    }

    /// Ends the registration, unless another process owns it by now, and the stream.
    async fn leave(&self, stream: Stream) -> Result<(), String> {
        let Stream {
            connection: _connection,
            outgoing,
            mut incoming,
        } = stream;
        if !self.shared.lock().is_handed_over() {
            let farewell = proto::Report {
                leaving: true,
                ..proto::Report::default()
            };
            queue(&outgoing, Out::Report(farewell))?;
        }
        drop(outgoing);
        // The service ends the stream when it has read this side's end.
        let drain = async { while let Ok(Some(_)) = incoming.message().await {} };
        let _ = timeout(limits::SHUTDOWN_DEADLINE, drain).await;
        Ok(())
    }

    fn hello(&self, advertise: Option<SocketAddr>) -> proto::Hello {
        let settings = &self.settings;
        let text = |value: Option<String>| value.unwrap_or_default();
        proto::Hello {
            version: settings.version.clone(),
            instance: self.shared.instance.clone(),
            listens_for: settings
                .listens_for
                .iter()
                .map(ToString::to_string)
                .collect(),
            advertise: text(advertise.map(|address| address.to_string())),
            locality: text(settings.locality.as_ref().map(ToString::to_string)),
            schemas: Schema::read(),
            features: Features::all().names().map(str::to_owned).collect(),
        }
    }

    /// Renews the registration, as long as this process owns it.
    fn say(&self, outgoing: &mpsc::Sender<SidecarMessage>) -> Result<(), String> {
        if self.shared.lock().is_handed_over() {
            return Ok(());
        }
        queue(outgoing, Out::Report(self.report()))
    }

    fn report(&self) -> proto::Report {
        self.shared.lock().report()
    }

    fn take(&self, message: ServiceMessage) -> Result<(), String> {
        let svid = self.settings.credentials.svid();
        self.shared.take(message, svid.id().trust_domain())
    }
}

/// Why a stream ended without a message.
fn reason(ended: Result<Option<ServiceMessage>, String>) -> String {
    match ended {
        Ok(_) => "the config service ended the stream".to_owned(),
        Err(reason) => reason,
    }
}

fn queue(outgoing: &mpsc::Sender<SidecarMessage>, kind: Out) -> Result<(), String> {
    outgoing
        .try_send(SidecarMessage { kind: Some(kind) })
        .map_err(|_| "the config service does not read".to_owned())
}

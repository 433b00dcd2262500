//! The config service: gRPC over mutual TLS for sidecars and operators, and a local socket for backups
//! and rotations.
//!
//! [`serve`] has the order of events. `access.rs` decides which calls are allowed, by the identity that the
//! handshake proved. `state.rs` is the shared state: `state/resources.rs` has the resources in force,
//! `state/leases.rs` the leases of workloads, and `state/sessions.rs` the sidecars; `tables.rs` has the
//! tables that are sent. `subscribe.rs` is one sidecar's stream and `sent.rs` the messages on it,
//! `operate.rs` the operators' calls, `admin.rs` the local socket; `signals.rs` is what sidecars tell of
//! their calls.

mod access;
mod admin;
mod delivery;
mod known;
mod metrics;
mod operate;
mod pace;
mod registrations;
mod registry;
mod sent;
mod sidecars;
mod signals;
mod state;
mod subscribe;
mod tables;
mod withdrawn;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use weft_ca::connection::{Life, Limits, NotAccepted, accept, listen_hint};
use weft_transport::credentials::Credentials;
use weft_transport::hosts;
use weft_transport::limited_log::LimitedLog;
use weft_transport::private_socket::PrivateSocket;
use weft_transport::tasks::{TaskSet, Tasks};
use weft_transport::tcp::{ClientAuth, TlsAcceptor};
use weft_transport::vital;

use crate::connect::CONFIG_ACCOUNT;
use crate::limits;
use crate::proto::discovery_server::DiscoveryServer;
use crate::proto::observation_server::ObservationServer;
use crate::proto::operator_server::OperatorServer;
use crate::store::{Store, StoreError};
use crate::validate::RESERVED_NAMESPACE;
pub use admin::{backup, restore, rotate_session_key};
pub use metrics::MetricsHandle;
use state::ServerState;

const STORE_FILE: &str = "config.redb";
const SOCKET_FILE: &str = "admin.sock";
const KNOWN_FILE: &str = "sidecars.json";

/// The parameters of the config service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigServeSettings {
    /// Directory of the store and the socket; created if missing.
    pub dir: PathBuf,
    /// TCP address for sidecars and operators.
    pub listen: SocketAddr,
}

/// Why the config service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its certificate is another's.
    #[error("{0} is not the identity of a config service; join with a token of --role config")]
    Identity(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another one has the directory.
    #[error(
        "a config service{} serves from {} already: end it, or choose another directory with --dir",
        admin::process(*.pid), dir.display()
    )]
    Running {
        /// The directory.
        dir: PathBuf,
        /// The other process, if the system names it.
        pid: Option<i32>,
    },
    /// The address is taken, or not one of this host.
    #[error("cannot listen on {address}: {source}{}", listen_hint(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A file could not be used.
    #[error("{what}: {source}")]
    Io {
        /// The operation that failed.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The TLS or gRPC library refused.
    #[error("{0}")]
    Library(String),
}

/// A config service that has its store and its addresses and is ready to run.
#[derive(Debug)]
pub struct ConfigServer {
    state: Arc<ServerState>,
    listener: TcpListener,
    socket: PrivateSocket,
    /// The file in which the present sidecars are noted.
    known_file: PathBuf,
    credentials: Credentials,
}

/// Runs the config service until `shutdown`.
///
/// # Errors
/// When it cannot start.
pub async fn serve(
    settings: &ConfigServeSettings,
    credentials: Credentials,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    ConfigServer::bind(settings, credentials)
        .await?
        .run(shutdown)
        .await
}

impl ConfigServer {
    /// Checks the identity, opens the store and binds the addresses.
    ///
    /// # Errors
    /// When any of these fails; nothing is served then.
    pub async fn bind(
        settings: &ConfigServeSettings,
        credentials: Credentials,
    ) -> Result<Self, ServeError> {
        let own = credentials.svid().id().clone();
        let is_config = own.workload().is_some_and(|workload| {
            workload.namespace == RESERVED_NAMESPACE && workload.service_account == CONFIG_ACCOUNT
        });
        if !is_config {
            return Err(ServeError::Identity(own.to_string()));
        }
        let failed = |what: String| move |source| ServeError::Io { what, source };
        let dir = &settings.dir;
        std::fs::create_dir_all(dir).map_err(failed(dir.display().to_string()))?;
        let store = match Store::open(&dir.join(STORE_FILE)) {
            Err(error) if error.is_in_use() => return Err(admin::in_use(dir, error).await),
            opened => opened?,
        };
        let known_file = dir.join(KNOWN_FILE);
        let known = known::read(&known_file);
        let domain = own.trust_domain().clone();
        let state = Arc::new(ServerState::new(store, domain, known, Instant::now())?);
        let listener = hosts::listen(settings.listen).map_err(|source| ServeError::Listen {
            address: settings.listen,
            source,
        })?;
        let socket = admin::bind(dir)?;
        Ok(Self {
            state,
            listener,
            socket,
            known_file,
            credentials,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not tell the address.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Its counts.
    #[must_use]
    pub fn metrics(&self) -> MetricsHandle {
        MetricsHandle::new(self.state.clone())
    }

    /// Serves until `shutdown`, then ends streams and waits for them.
    ///
    /// # Errors
    /// When the TLS or gRPC library gives up.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let acceptor = TlsAcceptor::new(&self.credentials, ClientAuth::Required)
            .map_err(|error| ServeError::Library(error.to_string()))?;
        let tracker = Tasks::default();
        let (connections, incoming) = mpsc::channel(1);
        let discovery = DiscoveryServer::new(subscribe::Subscriptions {
            state: self.state.clone(),
            tracker: tracker.clone(),
            shutdown: shutdown.clone(),
        });
        let observation = ObservationServer::new(signals::observe::Observations {
            signals: Arc::clone(&self.state.signals),
            tracker: tracker.clone(),
            shutdown: shutdown.clone(),
        });
        let operator = OperatorServer::new(operate::Operations {
            state: self.state.clone(),
        });
        let mesh_side = Server::builder()
            .http2_keepalive_interval(Some(limits::KEEP_ALIVE))
            .http2_keepalive_timeout(Some(limits::KEEP_ALIVE))
            .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
            .initial_stream_window_size(limits::STREAM_WINDOW)
            .initial_connection_window_size(limits::CONNECTION_WINDOW)
            .http2_max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
            .http2_max_pending_accept_reset_streams(Some(limits::RESETS_MAX))
            .http2_max_local_error_reset_streams(Some(limits::RESETS_MAX))
            .layer(access::AccessLayer::new(tracker.clone(), shutdown.clone()))
            .add_service(
                discovery
                    .max_decoding_message_size(limits::SIDECAR_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::TABLE_MESSAGE_BYTES_MAX),
            )
            .add_service(observation.max_decoding_message_size(limits::SIGNALS_BYTES_MAX))
            .add_service(
                operator
                    .max_decoding_message_size(limits::OPERATOR_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::TABLE_MESSAGE_BYTES_MAX),
            )
            .serve_with_incoming_shutdown(
                ReceiverStream::new(incoming),
                shutdown.clone().cancelled_owned(),
            );
        let admin_place = self.socket.place();
        let local_side = admin::serve(self.socket, self.state.clone(), shutdown.clone());
        let mut tasks = TaskSet::default();
        let accepting = accept(
            self.listener,
            acceptor,
            Limits {
                handshakes: limits::HANDSHAKES,
                connections: limits::CONNECTIONS,
                life: Life::Certificate,
            },
            connections,
            report(),
            shutdown.clone(),
        );
        let ending = || shutdown.clone();
        tasks.spawn(vital::until("accepting connections", ending(), accepting));
        let ticking = tick(self.state.clone(), shutdown.clone());
        tasks.spawn(vital::until("ending leases", ending(), ticking));
        let publishing = publish(self.state.clone(), shutdown.clone());
        tasks.spawn(vital::until("publishing endpoints", ending(), publishing));
        let recording = record(self.state, self.known_file, shutdown.clone());
        tasks.spawn(vital::until("noting the sidecars", ending(), recording));
        let served = async { tokio::try_join!(mesh_side, local_side) };
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = &mut served => Some(ended),
            () = shutdown.cancelled() => None,
        };
        let told = shutdown.is_cancelled();
        // If either side ends by itself, the rest ends too.
        shutdown.cancel();
        tracker.close();
        let drained = async {
            tracker.wait().await;
            while tasks.join_next().await.is_some() {}
            match ended {
                Some(ended) => ended,
                None => served.await,
            }
        };
        let drained = tokio::time::timeout(limits::SHUTDOWN_DEADLINE, drained).await;
        // A socket that no process answers on would only confuse the next command.
        admin_place.clear();
        match drained {
            Ok(Ok(_)) if !told => Err(ServeError::Library("it stopped by itself".to_owned())),
            Ok(ended) => ended
                .map(|_| ())
                .map_err(|error| ServeError::Library(error.to_string())),
            Err(_) => Ok(()),
        }
    }
}

/// Logs connection attempts that failed.
fn report() -> impl Fn(SocketAddr, NotAccepted) + Clone + Send {
    let refusals = Arc::new(LimitedLog::by_callers());
    move |from, reason| {
        refusals.log(|left_out| tracing::info!(%from, %reason, left_out, "connection not accepted, or ended"));
    }
}

async fn tick(state: Arc<ServerState>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(limits::LEASE_CHECK);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => state.tick(Instant::now()),
        }
    }
}

async fn publish(state: Arc<ServerState>, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(state.publish_changes()).await;
}

/// Notes the present sidecars whenever they change.
async fn record(state: Arc<ServerState>, file: PathBuf, shutdown: CancellationToken) {
    let mut noted = None;
    loop {
        if let Some((stream, known)) = state.to_record() {
            if noted.as_ref() != Some(&known) {
                write_known(&file, known.clone()).await;
                noted = Some(known);
            }
            state.set_recorded(stream);
        }
        let next = async {
            sleep(limits::RECORD_INTERVAL).await;
            state.unrecorded().await;
        };
        if shutdown.run_until_cancelled(next).await.is_none() {
            return;
        }
    }
}

async fn write_known(file: &Path, known: Vec<known::Known>) {
    let path = file.to_owned();
    let written = tokio::task::spawn_blocking(move || known::write(&path, known)).await;
    if let Ok(Err(error)) = written {
        // If this fails, an apply after a restart waits longer than it must; nothing else depends on it.
        tracing::warn!(path = %file.display(), %error, "which sidecars there are was not written to disk");
    }
}

//! The config service: gRPC over mutual TLS for sidecars and operators, and a local socket for backups.
//!
//! [`serve`] tells the story; `mesh.rs` is the shared state, `subscribe.rs` one sidecar's stream,
//! `operate.rs` the operators' calls, `registry.rs` the leases. Who may do what is decided by the
//! identity that the handshake proved: `operator-*` accounts of `ns/weft` write, every identity of the
//! mesh may subscribe.

mod mesh;
mod metrics;
mod operate;
mod registry;
mod subscribe;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use weft_ca::connection::{Caller, Life, Limits, accept, listen_hint};
use weft_transport::credentials::Credentials;
use weft_transport::identity::PeerId;
use weft_transport::tcp::{ClientAuth, TlsAcceptor};

use crate::connect::CONFIG_ACCOUNT;
use crate::limits;
use crate::proto::admin_server::{Admin, AdminServer};
use crate::proto::discovery_server::DiscoveryServer;
use crate::proto::operator_server::OperatorServer;
use crate::proto::{BackupReply, BackupRequest, admin_client::AdminClient};
use crate::store::{Store, StoreError};
use crate::validate::RESERVED_NAMESPACE;
use mesh::Mesh;
pub use metrics::MetricsHandle;

const STORE_FILE: &str = "config.redb";
const SOCKET_FILE: &str = "admin.sock";

/// What the config service needs to know.
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
        process(*.pid), dir.display()
    )]
    Running {
        /// The directory.
        dir: PathBuf,
        /// The process, where the system says.
        pid: Option<i32>,
    },
    /// The address is taken or not this host's.
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
        /// Which one.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The TLS or gRPC library refused.
    #[error("{0}")]
    Library(String),
}

/// A config service that has its store and its addresses and is ready to run.
#[derive(Debug)]
pub struct ConfigServer {
    mesh: Arc<Mesh>,
    listener: TcpListener,
    socket: UnixListener,
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
            Err(error @ StoreError::InUse(_)) => return Err(in_use(dir, error).await),
            opened => opened?,
        };
        let mesh = Arc::new(Mesh::new(store, own.trust_domain().clone())?);
        let listener =
            TcpListener::bind(settings.listen)
                .await
                .map_err(|source| ServeError::Listen {
                    address: settings.listen,
                    source,
                })?;
        let socket = bind_socket(&dir.join(SOCKET_FILE))?;
        Ok(Self {
            mesh,
            listener,
            socket,
            credentials,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> MetricsHandle {
        MetricsHandle::new(self.mesh.clone())
    }

    /// Serves until `shutdown`, then ends streams and waits for them.
    ///
    /// # Errors
    /// When the TLS or gRPC library gives up.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let acceptor = TlsAcceptor::new(&self.credentials, ClientAuth::Required)
            .map_err(|error| ServeError::Library(error.to_string()))?;
        let tracker = TaskTracker::new();
        let (connections, incoming) = mpsc::channel(1);
        let discovery = DiscoveryServer::new(subscribe::Subscriptions {
            mesh: self.mesh.clone(),
            tracker: tracker.clone(),
            shutdown: shutdown.clone(),
        });
        let operator = OperatorServer::new(operate::Operations {
            mesh: self.mesh.clone(),
        });
        let mesh_side = Server::builder()
            .http2_keepalive_interval(Some(limits::KEEP_ALIVE))
            .http2_keepalive_timeout(Some(limits::KEEP_ALIVE))
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .add_service(
                discovery
                    .max_decoding_message_size(limits::SIDECAR_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::TABLE_MESSAGE_BYTES_MAX),
            )
            .add_service(
                operator
                    .max_decoding_message_size(limits::OPERATOR_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(limits::TABLE_MESSAGE_BYTES_MAX),
            )
            .serve_with_incoming_shutdown(
                ReceiverStream::new(incoming),
                shutdown.clone().cancelled_owned(),
            );
        let local_side = Server::builder()
            .add_service(AdminServer::new(Local {
                mesh: self.mesh.clone(),
            }))
            .serve_with_incoming_shutdown(
                UnixListenerStream::new(self.socket),
                shutdown.clone().cancelled_owned(),
            );
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(
            self.listener,
            acceptor,
            Limits {
                handshakes: limits::HANDSHAKES,
                connections: limits::CONNECTIONS,
                life: Life::Certificate,
            },
            connections,
            // Strangers can cause these at any rate.
            |from, reason| tracing::debug!(%from, %reason, "connection not accepted, or ended"),
            shutdown.clone(),
        ));
        tasks.spawn(tick(self.mesh.clone(), shutdown.clone()));
        let served = async { tokio::try_join!(mesh_side, local_side) };
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = &mut served => Some(ended),
            () = shutdown.cancelled() => None,
        };
        // Either side ending by itself ends the rest too.
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
        match tokio::time::timeout(limits::SHUTDOWN_DEADLINE, drained).await {
            Ok(ended) => ended
                .map(|_| ())
                .map_err(|error| ServeError::Library(error.to_string())),
            Err(_) => Ok(()),
        }
    }
}

/// A store in use is that of a running service, if one answers on its socket.
async fn in_use(dir: &Path, error: StoreError) -> ServeError {
    match tokio::net::UnixStream::connect(dir.join(SOCKET_FILE)).await {
        Ok(stream) => ServeError::Running {
            dir: dir.to_owned(),
            pid: stream.peer_cred().ok().and_then(|theirs| theirs.pid()),
        },
        Err(_) => error.into(),
    }
}

fn process(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// Calls that one connection may have open: a stream, and a few of an operator's.
const STREAMS_PER_CONNECTION: u32 = 32;

/// Who called.
fn peer<T>(request: &Request<T>) -> Result<PeerId, Status> {
    request
        .extensions()
        .get::<Caller>()
        .and_then(|caller| caller.peer.clone())
        .ok_or_else(|| Status::unauthenticated("no identity was proven"))
}

async fn tick(mesh: Arc<Mesh>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(limits::LEASE_CHECK);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => mesh.tick(Instant::now()),
        }
    }
}

fn bind_socket(path: &Path) -> Result<UnixListener, ServeError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| ServeError::Io {
        what: path.display().to_string(),
        source,
    };
    // The store's lock is held, so a socket that is there belongs to nobody.
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

struct Local {
    mesh: Arc<Mesh>,
}

#[tonic::async_trait]
impl Admin for Local {
    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<BackupReply>, Status> {
        let mesh = self.mesh.clone();
        let content = tokio::task::spawn_blocking(move || mesh.store.backup())
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(BackupReply { content }))
    }
}

/// Everything in the store of a directory, from the running service or, if none runs, from the file.
///
/// # Errors
/// When there is no store, or it is damaged.
pub async fn backup(dir: &Path) -> Result<Vec<u8>, ServeError> {
    let socket = dir.join(SOCKET_FILE);
    if let Ok(stream) = tokio::net::UnixStream::connect(&socket).await {
        let mut stream = Some(hyper_util::rt::TokioIo::new(stream));
        let channel = tonic::transport::Endpoint::from_static("http://admin.weft")
            .connect_with_connector(tower::service_fn(move |_: http::Uri| {
                let taken = stream
                    .take()
                    .ok_or_else(|| io::Error::other("the connection was lost"));
                std::future::ready(taken)
            }))
            .await
            .map_err(|error| ServeError::Library(error.to_string()))?;
        let reply = AdminClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .backup(BackupRequest {})
            .await
            .map_err(|status| ServeError::Library(status.message().to_owned()))?;
        return Ok(reply.into_inner().content);
    }
    let path = dir.join(STORE_FILE);
    if !path.exists() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(ServeError::Io {
            what: path.display().to_string(),
            source,
        });
    }
    Ok(Store::open(&path)?.backup()?)
}

/// Creates the store of a directory from a backup. Its id is a new one.
///
/// # Errors
/// When the directory has a store, or the backup is none.
pub fn restore(dir: &Path, content: &[u8]) -> Result<crate::table::Revision, ServeError> {
    std::fs::create_dir_all(dir).map_err(|source| ServeError::Io {
        what: dir.display().to_string(),
        source,
    })?;
    Ok(Store::restore(&dir.join(STORE_FILE), content)?)
}

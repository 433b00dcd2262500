//! Operations on the config service's own host: backups over a socket that only its user may open, or from
//! the file if no service runs, and restores.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use weft_ca::local;
use weft_transport::private_socket::{PrivateSocket, connect};

use super::state::ServerState;
use super::{SOCKET_FILE, STORE_FILE, ServeError};
use crate::limits;
use crate::proto::admin_server::{Admin, AdminServer};
use crate::proto::{BackupReply, BackupRequest, admin_client::AdminClient};
use crate::store::{Store, StoreError};

/// If the store is in use, a running service holds it, if one answers on its socket.
pub(super) async fn in_use(dir: &Path, error: StoreError) -> ServeError {
    match connect(&dir.join(SOCKET_FILE)).await {
        Ok(stream) => ServeError::Running {
            dir: dir.to_owned(),
            pid: stream.peer_cred().ok().and_then(|theirs| theirs.pid()),
        },
        Err(_) => error.into(),
    }
}

pub(super) fn process(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// Takes the socket of a directory whose store this process holds: a socket that is there was left by a
/// process that is gone.
pub(super) fn bind(dir: &Path) -> Result<PrivateSocket, ServeError> {
    let path = dir.join(SOCKET_FILE);
    PrivateSocket::bind(&path).map_err(|source| ServeError::Io {
        what: path.display().to_string(),
        source,
    })
}

/// Answers on the socket until `shutdown`. Its connections end when this does.
pub(super) async fn serve(
    socket: PrivateSocket,
    state: Arc<ServerState>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let local = Local {
        state,
        turn: Mutex::default(),
    };
    let stopped = CancellationToken::new();
    let _stopped = stopped.clone().drop_guard();
    let connections = local::incoming(
        socket,
        limits::ADMIN_CONNECTIONS_MAX,
        limits::ADMIN_CONNECTION_LIFE_MAX,
        stopped,
    );
    Server::builder()
        .timeout(limits::BACKUP_TIMEOUT)
        .max_concurrent_streams(limits::ADMIN_STREAMS_PER_CONNECTION)
        .add_service(AdminServer::new(local))
        .serve_with_incoming_shutdown(connections, shutdown.cancelled_owned())
        .await
}

struct Local {
    state: Arc<ServerState>,
    /// A backup is as large as the store: one is made at a time.
    turn: Mutex<()>,
}

#[tonic::async_trait]
impl Admin for Local {
    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<BackupReply>, Status> {
        let _turn = self.turn.lock().await;
        let state = self.state.clone();
        let content = tokio::task::spawn_blocking(move || state.store.backup())
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
    if let Ok(stream) = connect(&socket).await {
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
/// When the directory has a store, or the backup is invalid.
pub fn restore(dir: &Path, content: &[u8]) -> Result<crate::table::Revision, ServeError> {
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(dir).map_err(|source| ServeError::Io {
        what: dir.display().to_string(),
        source,
    })?;
    Ok(Store::restore(&dir.join(STORE_FILE), content)?)
}

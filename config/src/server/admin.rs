//! Operations on the config service's own host: backups, and rotations of the secret of sessions, over a
//! socket that only its user may open, or in the file if no service runs; and restores.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};
use weft_ca::local;
use weft_transport::private_socket::{PrivateSocket, connect};

use super::state::ServerState;
use super::{SOCKET_FILE, STORE_FILE, ServeError};
use crate::limits;
use crate::proto::admin_client::AdminClient;
use crate::proto::admin_server::{Admin, AdminServer};
use crate::proto::{BackupReply, BackupRequest, RotateSessionKeyReply, RotateSessionKeyRequest};
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

    async fn rotate_session_key(
        &self,
        request: Request<RotateSessionKeyRequest>,
    ) -> Result<Response<RotateSessionKeyReply>, Status> {
        let RotateSessionKeyRequest { forget } = request.into_inner();
        let _writing = self.state.writing.lock().await;
        let state = self.state.clone();
        tokio::task::spawn_blocking(move || state.rotate_session_secrets(forget))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::internal(error.to_string()))?;
        tracing::info!(forget, "the secret of sessions was rotated");
        Ok(Response::new(RotateSessionKeyReply {}))
    }
}

/// Everything in the store of a directory, from the running service or, if none runs, from the file.
///
/// # Errors
/// When there is no store, or it is damaged.
pub async fn backup(dir: &Path) -> Result<Vec<u8>, ServeError> {
    if let Some(mut service) = running(dir).await? {
        let reply = service.backup(BackupRequest {}).await;
        return Ok(reply
            .map_err(|status| refused(&status))?
            .into_inner()
            .content);
    }
    Ok(stopped(dir)?.backup()?)
}

/// Rotates the secret from which the keys of sessions are made, in the running service or, if none runs, in
/// the file. No session ends: what the secret before sealed is honoured until the next rotation. With
/// `forget` all secrets are new, and every session ends.
///
/// # Errors
/// When there is no store, or it cannot be written.
pub async fn rotate_session_key(dir: &Path, forget: bool) -> Result<(), ServeError> {
    if let Some(mut service) = running(dir).await? {
        let request = RotateSessionKeyRequest { forget };
        let reply = service.rotate_session_key(request).await;
        reply.map_err(|status| refused(&status))?;
        return Ok(());
    }
    stopped(dir)?.rotate_session_secrets(forget)?;
    Ok(())
}

/// The service that serves from a directory, if one runs.
async fn running(dir: &Path) -> Result<Option<AdminClient<Channel>>, ServeError> {
    let Ok(stream) = connect(&dir.join(SOCKET_FILE)).await else {
        return Ok(None);
    };
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
    Ok(Some(
        AdminClient::new(channel).max_decoding_message_size(usize::MAX),
    ))
}

/// The store of a directory from which no service serves.
fn stopped(dir: &Path) -> Result<Store, ServeError> {
    let path = dir.join(STORE_FILE);
    if !path.exists() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(ServeError::Io {
            what: path.display().to_string(),
            source,
        });
    }
    Ok(Store::open(&path)?)
}

fn refused(status: &Status) -> ServeError {
    let is_unknown = status.code() == Code::Unimplemented;
    let told = match is_unknown {
        true => "the config service that runs is of an earlier build, which cannot do this",
        false => status.message(),
    };
    ServeError::Library(told.to_owned())
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

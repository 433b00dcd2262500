//! How local commands reach a CA: through `DIR/admin.sock` when a server answers there, else by opening the
//! store.
//!
//! The operations are in `operations.rs` and `backup.rs`; the socket's server side is [`AdminService`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use weft_transport::private_socket::{connect, is_answered};

use crate::authority::Authority;
use crate::backup::{self, BackupError};
use crate::directory::{self, ADMIN_SOCKET, OpenError};
use crate::error::ErrorKind;
use crate::limits::{ADMIN_CALL_TIMEOUT, ADMIN_MESSAGE_BYTES_MAX, STORE_POLL, STORE_WAIT};
use crate::operations::{self, Inspection, TokenOrder, TokensError};
use crate::proto::admin_client::AdminClient;
use crate::proto::create_tokens_request::Subject as SubjectText;
use crate::proto::{
    self, BackupRequest, BackupResponse, CreateTokensRequest, CreateTokensResponse, InspectRequest,
    InspectResponse,
};
use crate::store::{Store, StoreError};
use crate::subject::{Role, Subject};

/// Why a local command failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket is there but cannot be used.
    #[error("cannot reach the running CA at {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The running CA refused or failed.
    #[error("{message}")]
    Running {
        /// Its words.
        message: String,
        /// What kind of failure it is.
        kind: ErrorKind,
    },
    /// The CA's directory is not usable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tokens were not made.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The backup was not made.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// A CA, running or not.
#[derive(Debug)]
pub struct Admin {
    directory: PathBuf,
    route: Route,
}

#[derive(Debug)]
enum Route {
    Running(AdminClient<Channel>),
    Stopped(Store),
}

impl Admin {
    /// Finds the CA of `directory`.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn open(directory: &Path) -> Result<Self, AdminError> {
        let deadline = Instant::now() + STORE_WAIT;
        let route = loop {
            match find(directory).await {
                // A server that is starting, or another local command: neither takes long.
                Err(AdminError::Open(OpenError::Store(error)))
                    if error.is_in_use() && Instant::now() < deadline =>
                {
                    tokio::time::sleep(STORE_POLL).await;
                }
                found => break found?,
            }
        };
        Ok(Self {
            directory: directory.to_owned(),
            route,
        })
    }

    /// Makes tokens; returns their texts.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn create_tokens(&mut self, order: &TokenOrder) -> Result<Vec<String>, AdminError> {
        match &mut self.route {
            Route::Stopped(store) => {
                let now = SystemTime::now();
                let tokens = operations::create_tokens(
                    store,
                    &self.directory,
                    order,
                    now,
                    &mut rand::rng(),
                )?;
                Ok(tokens.iter().map(ToString::to_string).collect())
            }
            Route::Running(client) => {
                let subject = match &order.subject {
                    Subject::Workload { .. } => SubjectText::Identity(order.subject.to_string()),
                    Subject::Role(Role::Config | Role::Operator(_)) => {
                        SubjectText::Role(order.subject.to_string())
                    }
                };
                let request = CreateTokensRequest {
                    subject: Some(subject),
                    ttl_seconds: order.ttl.as_secs(),
                    count: order.count,
                };
                let answer = client.create_tokens(request).await.map_err(running)?;
                Ok(answer.into_inner().tokens)
            }
        }
    }

    /// Looks at the CA.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn inspect(&mut self) -> Result<Inspection, AdminError> {
        match &mut self.route {
            Route::Stopped(store) => Ok(operations::inspect(
                store,
                &self.directory,
                SystemTime::now(),
            )?),
            Route::Running(client) => {
                let answer = client
                    .inspect(InspectRequest {})
                    .await
                    .map_err(running)?
                    .into_inner();
                serde_json::from_str(&answer.inspection_json).map_err(|error| AdminError::Running {
                    message: format!("the running CA is of another version: {error}"),
                    kind: ErrorKind::Failed,
                })
            }
        }
    }

    /// Copies the CA into the directory `target`, which must be empty or new.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn backup(&mut self, target: &Path) -> Result<(), AdminError> {
        match &mut self.route {
            Route::Stopped(store) => Ok(backup::backup(store, &self.directory, target)?),
            Route::Running(client) => {
                backup::make_target(target)?;
                let staged = staged(&self.directory)?;
                let made = copy_of_running(client, &staged).await;
                let copied = made.and_then(|()| Ok(backup::copy(&staged, target)?));
                // What is left of it lies where the keys are, and goes with the next backup of this name.
                let _ = std::fs::remove_dir_all(&staged);
                copied
            }
        }
    }

    /// The trust domain of the CA, needed to complete an identity in short form.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn trust_domain(
        &mut self,
    ) -> Result<weft_transport::identity::TrustDomain, AdminError> {
        match &mut self.route {
            Route::Stopped(store) => Ok(store.about()?.trust_domain),
            Route::Running(_) => Ok(self.inspect().await?.trust_domain),
        }
    }
}

/// Where a running CA copies itself for a local command, which takes it from there. The CA may write nowhere
/// but in its own directory (its unit says so), and the files of a backup belong to the user who asked for
/// it.
fn staged(directory: &Path) -> Result<PathBuf, BackupError> {
    // The server has another working directory.
    let directory = std::path::absolute(directory)
        .map_err(|error| crate::FileError::io("use", directory, error))?;
    let staged = directory.join(format!("backup.{}", std::process::id()));
    match std::fs::remove_dir_all(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(crate::FileError::io("remove", &staged, error).into())
        }
        Ok(()) | Err(_) => Ok(staged),
    }
}

async fn copy_of_running(
    client: &mut AdminClient<Channel>,
    target: &Path,
) -> Result<(), AdminError> {
    let Some(path) = target.to_str() else {
        return Err(AdminError::Running {
            message: format!(
                "{} is not UTF-8: a running CA takes only UTF-8 paths",
                target.display()
            ),
            kind: ErrorKind::BadData,
        });
    };
    let target = path.to_owned();
    let made = client.backup(BackupRequest { target }).await;
    made.map(|_| ()).map_err(running)
}

/// Whether a server answers on the socket of `directory`.
pub(crate) fn is_running(directory: &Path) -> bool {
    is_answered(&directory.join(ADMIN_SOCKET))
}

/// The running server, or else the store.
async fn find(directory: &Path) -> Result<Route, AdminError> {
    let path = directory.join(ADMIN_SOCKET);
    match connect(&path).await {
        Ok(stream) => Ok(Route::Running(over(stream, &path).await?)),
        // No server, or one that was killed and left its socket.
        Err(error) if is_absent(&error) => Ok(Route::Stopped(directory::open_store(directory)?)),
        Err(source) => Err(AdminError::Socket { path, source }),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

async fn over(stream: UnixStream, path: &Path) -> Result<AdminClient<Channel>, AdminError> {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        async { stream.ok_or_else(|| io::Error::other("the connection is used up")) }
    });
    let channel = Endpoint::from_static("http://admin.sock")
        .timeout(ADMIN_CALL_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|error| AdminError::Socket {
            path: path.to_owned(),
            source: io::Error::other(error),
        })?;
    Ok(AdminClient::new(channel)
        .max_decoding_message_size(ADMIN_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(ADMIN_MESSAGE_BYTES_MAX))
}

fn running(status: Status) -> AdminError {
    let kind = match status.code() {
        Code::InvalidArgument | Code::DataLoss => ErrorKind::BadData,
        Code::PermissionDenied => ErrorKind::NotPermitted,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorKind::Unreachable,
        Code::Ok
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => ErrorKind::Failed,
    };
    AdminError::Running {
        message: status.message().to_owned(),
        kind,
    }
}

/// The server side of the socket.
#[derive(Clone)]
pub(crate) struct AdminService {
    pub(crate) authority: Arc<Authority>,
    pub(crate) directory: Arc<Path>,
}

#[tonic::async_trait]
impl proto::admin_server::Admin for AdminService {
    async fn create_tokens(
        &self,
        request: Request<CreateTokensRequest>,
    ) -> Result<Response<CreateTokensResponse>, Status> {
        let request = request.into_inner();
        let issuer = self.authority.issuer();
        let subject = match request.subject {
            Some(SubjectText::Identity(text)) => {
                Subject::from_identity(issuer.trust_domain(), &text)
            }
            Some(SubjectText::Role(text)) => Subject::from_role(&text),
            None => return Err(Status::invalid_argument("the request names no subject")),
        };
        let order = TokenOrder {
            subject: subject.map_err(|error| Status::invalid_argument(error.to_string()))?,
            ttl: Duration::from_secs(request.ttl_seconds),
            count: request.count,
        };
        let this = self.clone();
        let tokens = blocking(move || {
            let store = this.authority.store();
            operations::create_tokens(
                store,
                &this.directory,
                &order,
                SystemTime::now(),
                &mut rand::rng(),
            )
            .map_err(|error| status(error.kind(), &error))
            .inspect(|_| this.authority.metrics().count_tokens(order.count))
        })
        .await?;
        let tokens = tokens.iter().map(ToString::to_string).collect();
        Ok(Response::new(CreateTokensResponse { tokens }))
    }

    async fn inspect(
        &self,
        _: Request<InspectRequest>,
    ) -> Result<Response<InspectResponse>, Status> {
        let this = self.clone();
        let inspection = blocking(move || {
            operations::inspect(this.authority.store(), &this.directory, SystemTime::now())
                .map_err(|error| status(error.kind(), &error))
        })
        .await?;
        let inspection_json = serde_json::to_string(&inspection)
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(InspectResponse { inspection_json }))
    }

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<BackupResponse>, Status> {
        let target = PathBuf::from(request.into_inner().target);
        if !target.is_absolute() {
            return Err(Status::invalid_argument(
                "the target of a backup must be an absolute path",
            ));
        }
        let this = self.clone();
        blocking(move || {
            backup::backup(this.authority.store(), &this.directory, &target)
                .map_err(|error| status(error.kind(), &error))
        })
        .await?;
        Ok(Response::new(BackupResponse {}))
    }
}

/// Runs work that waits for the disk on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(format!("the call ended early: {error}")))?
}

fn status(kind: ErrorKind, error: &dyn std::error::Error) -> Status {
    let code = match kind {
        ErrorKind::BadData => Code::InvalidArgument,
        ErrorKind::Unreachable => Code::Unavailable,
        ErrorKind::NotPermitted => Code::PermissionDenied,
        ErrorKind::Failed => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

//! `weft ca serve`: the listening sockets, their bounds, and the tasks behind them. `authority.rs` decides
//! which identity a caller gets; the calls are in `service.rs` and `admin.rs`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{FutureExt as _, TryFutureExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server as GrpcServer;
use weft_transport::credentials::Credentials;
use weft_transport::files::{self, FileError};
use weft_transport::hosts;
use weft_transport::metrics::Sample;
use weft_transport::private_socket::PrivateSocket;
use weft_transport::tasks::TaskSet;
use weft_transport::tcp::{ClientAuth, TlsAcceptor, TlsError};
use weft_transport::vital;

use crate::admin::{self, AdminService};
use crate::attest::unix_seconds;
use crate::authority::{Authority, OwnCredentialsError};
use crate::connection::{Life, Limits, NotAccepted, accept, listen_hint};
use crate::directory::{self, ADMIN_SOCKET, OpenError};
use crate::limits::{
    ADMIN_CALL_TIMEOUT, ADMIN_CONNECTION_LIFE_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_MESSAGE_BYTES_MAX,
    CALL_TIMEOUT, CALLS_PER_CONNECTION, CONNECTION_AGE_MAX, CONNECTION_LIFE_MAX, CONNECTION_WINDOW,
    CONNECTIONS, DRAIN_TIMEOUT, HANDSHAKES, KEEP_ALIVE, MAINTENANCE_INTERVAL, MESSAGE_BYTES_MAX,
    STORE_POLL, STORE_WAIT, SVID_TTL_MAX, SVID_TTL_MIN,
};
use crate::local;
use crate::proto::admin_server::AdminServer;
use crate::proto::certificate_authority_server::CertificateAuthorityServer;
use crate::service::Service;
use crate::store::{Store, StoreError};

/// The parameters of `weft ca serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeSettings {
    /// The CA's directory.
    pub directory: PathBuf,
    /// The address for workloads; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Life of the certificates it issues, from [`SVID_TTL_MIN`] to [`SVID_TTL_MAX`].
    pub svid_ttl: Duration,
    /// How long after its expiry an SVID still authenticates its renewal.
    pub renewal_grace: Duration,
}

/// Why the CA does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its directory is not usable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Out of range.
    #[error(
        "svid_ttl must be between {} s and {} h", SVID_TTL_MIN.as_secs(), SVID_TTL_MAX.as_secs() / 3600
    )]
    Ttl,
    /// Another server answers on the socket.
    #[error("a CA is already running on {0}")]
    Running(PathBuf),
    /// The address is taken, or not one of this host.
    #[error("cannot listen on {address}: {source}{}", listen_hint(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The local socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The CA's own certificate cannot be made.
    #[error(transparent)]
    Own(#[from] OwnCredentialsError),
    /// The TLS library refuses the configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A server stopped by itself; not expected.
    #[error("the CA's server stopped: {0}")]
    Stopped(String),
}

/// A CA that is bound to its sockets; [`Server::run`] serves.
pub struct Server {
    authority: Arc<Authority>,
    credentials: Credentials,
    acceptor: TlsAcceptor,
    directory: Arc<Path>,
    listener: TcpListener,
    local_address: SocketAddr,
    admin: PrivateSocket,
}

/// A handle on a running CA's counters.
#[derive(Clone)]
pub struct MetricsHandle(Arc<Authority>);

impl MetricsHandle {
    /// Every value at this moment.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.0.metrics().samples()
    }

    /// Conditions that an operator should look into: certificates of the CA that expire soon.
    #[must_use]
    pub fn concerns(&self) -> Vec<String> {
        let ending = self.0.issuer().ending(SystemTime::now());
        let say = |(file, _): &(&'static str, _)| {
            format!(
                "less than a third of the life of {file} is left{}",
                cure(file)
            )
        };
        ending.iter().map(say).collect()
    }
}

impl Server {
    /// Opens the CA's directory and takes its sockets. All errors that can exist at the start are found here,
    /// before anything is served.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(settings: &ServeSettings) -> Result<Self, ServeError> {
        if settings.svid_ttl < SVID_TTL_MIN || settings.svid_ttl > SVID_TTL_MAX {
            return Err(ServeError::Ttl);
        }
        let directory = &settings.directory;
        if admin::is_running(directory) {
            return Err(ServeError::Running(directory.clone()));
        }
        let now = SystemTime::now();
        let store = store_when_free(directory).await?;
        let trust_domain = store.about()?.trust_domain;
        if let Err(error) = directory::finish_renewal(directory, trust_domain.clone()) {
            tracing::warn!(%error, "a renewal that was cut short is not finished on disk");
        }
        let issuer = directory::load_issuer(directory, trust_domain)?;
        issuer.check_age(now).map_err(|source| OpenError::Load {
            directory: directory.clone(),
            source,
        })?;
        let authority = Authority::new(issuer, store, settings.svid_ttl, settings.renewal_grace);
        let listen_failed = |source| ServeError::Listen {
            address: settings.listen,
            source,
        };
        let listener = hosts::listen(settings.listen).map_err(listen_failed)?;
        let local_address = listener.local_addr().map_err(listen_failed)?;
        let credentials = authority.new_credentials(now, &mut rand::rng())?;
        let client = ClientAuth::Optional {
            // The authority judges how long an expired certificate may still be renewed, and logs it.
            renewal_grace: Duration::MAX,
        };
        let acceptor = TlsAcceptor::new(&credentials, client)?;
        let noted = authority
            .store()
            .write(|transaction| transaction.put_listen(local_address.to_string()));
        if let Err(error) = noted {
            tracing::error!(%error, "join tokens carry the address of an earlier start, unless `weft ca init` was given one");
        }
        Ok(Self {
            admin: bind_admin(directory)?,
            authority: Arc::new(authority),
            credentials,
            acceptor,
            directory: directory.as_path().into(),
            listener,
            local_address,
        })
    }

    /// The address that workloads connect to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> MetricsHandle {
        MetricsHandle(self.authority.clone())
    }

    /// Serves until `shutdown`, then lets running calls finish for [`DRAIN_TIMEOUT`].
    ///
    /// # Errors
    /// [`ServeError::Stopped`], not expected.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        // A child of the caller's token: when one task ends early, the others end with it, but not the
        // caller.
        let shutdown = shutdown.child_token();
        tracing::info!(address = %self.local_address, trust_domain = %self.authority.issuer().trust_domain(), "the CA serves");
        let (accepted, connections) = mpsc::channel(1);
        let service = Service::new(self.authority.clone());
        let calls = GrpcServer::builder()
            // From its head to its answer, including reading its message and waiting for a place.
            .timeout(CALL_TIMEOUT)
            .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
            .max_concurrent_streams(u32::try_from(CALLS_PER_CONNECTION).ok())
            .initial_stream_window_size(CONNECTION_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .max_connection_age(CONNECTION_AGE_MAX)
            .add_service(
                CertificateAuthorityServer::new(service)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX),
            )
            .serve_with_incoming_shutdown(
                ReceiverStream::new(connections),
                shutdown.clone().cancelled_owned(),
            );
        let admin_service = AdminService {
            authority: self.authority.clone(),
            directory: self.directory.clone(),
        };
        let admin_place = self.admin.place();
        let stopped = CancellationToken::new();
        let _stopped = stopped.clone().drop_guard();
        let admin_calls = GrpcServer::builder()
            .timeout(ADMIN_CALL_TIMEOUT)
            .max_concurrent_streams(u32::try_from(CALLS_PER_CONNECTION).ok())
            .add_service(
                AdminServer::new(admin_service)
                    .max_decoding_message_size(ADMIN_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(ADMIN_MESSAGE_BYTES_MAX),
            )
            .serve_with_incoming_shutdown(
                local::incoming(
                    self.admin,
                    ADMIN_CONNECTIONS_MAX,
                    ADMIN_CONNECTION_LIFE_MAX,
                    stopped.clone(),
                ),
                shutdown.clone().cancelled_owned(),
            );
        let mut tasks = TaskSet::default();
        let calls = calls.map_err(|error| error.to_string());
        tasks.spawn(vital::unbroken("answering workloads", calls));
        let admin_calls = admin_calls.map_err(|error| error.to_string());
        tasks.spawn(vital::unbroken("answering local commands", admin_calls));
        let limits = Limits {
            handshakes: HANDSHAKES,
            connections: CONNECTIONS,
            life: Life::AtMost(CONNECTION_LIFE_MAX),
        };
        let accepting = accept(
            self.listener,
            self.acceptor,
            limits,
            accepted,
            report(self.authority.clone()),
            shutdown.clone(),
        );
        let (name, ending) = ("accepting connections", shutdown.clone());
        tasks.spawn(vital::until(name, ending, accepting.map(Ok)));
        let maintaining = maintain(
            self.authority,
            self.credentials,
            self.directory.clone(),
            shutdown.clone(),
        );
        tasks.spawn(vital::until(
            "keeping the issuing certificate",
            shutdown.clone(),
            maintaining,
        ));

        let early = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = tasks.join_next() => ended,
        };
        let told = shutdown.is_cancelled();
        shutdown.cancel();
        if timeout(DRAIN_TIMEOUT, async {
            while tasks.join_next().await.is_some() {}
        })
        .await
        .is_err()
        {
            tracing::warn!("calls still ran when the time to stop was over");
        }
        // A socket that no process answers on would only confuse the next command.
        admin_place.clear();
        match early {
            None => Ok(()),
            Some(Ok(Ok(()))) if told => Ok(()),
            Some(Ok(Ok(()))) => Err(ServeError::Stopped("it stopped by itself".to_owned())),
            Some(Ok(Err(reason))) => Err(ServeError::Stopped(reason)),
            Some(Err(error)) => Err(ServeError::Stopped(error.to_string())),
        }
    }
}

/// Counts the connections that were not accepted or had to end.
fn report(authority: Arc<Authority>) -> impl Fn(SocketAddr, NotAccepted) + Clone + Send + Sync {
    move |source, reason| {
        authority.metrics().count_connection_ended(&reason);
        tracing::debug!(%source, %reason, "connection not accepted");
    }
}

/// Opens the store, which a local command may hold for a moment: scripts start this process and call it at
/// once.
async fn store_when_free(directory: &Path) -> Result<Store, OpenError> {
    let deadline = Instant::now() + STORE_WAIT;
    loop {
        match directory::open_store(directory) {
            Err(OpenError::Store(error)) if error.is_in_use() && Instant::now() < deadline => {
                tokio::time::sleep(STORE_POLL).await;
            }
            opened => return opened,
        }
    }
}

/// Takes `admin.sock`. A socket that no process answers on was left by a process that was killed.
fn bind_admin(directory: &Path) -> Result<PrivateSocket, ServeError> {
    if admin::is_running(directory) {
        return Err(ServeError::Running(directory.to_owned()));
    }
    let path = directory.join(ADMIN_SOCKET);
    PrivateSocket::bind(&path).map_err(|source| ServeError::Socket { path, source })
}

/// Renews the CA's own certificate, starts to use a renewed issuing certificate, forgets old records, and
/// warns of certificates that expire soon.
async fn maintain(
    authority: Arc<Authority>,
    credentials: Credentials,
    directory: Arc<Path>,
    shutdown: CancellationToken,
) -> Result<(), String> {
    let mut ticks = interval(MAINTENANCE_INTERVAL.min(authority.svid_ttl() / 4));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned = Vec::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let now = SystemTime::now();
        let left = credentials
            .svid()
            .not_after()
            .duration_since(now)
            .unwrap_or_default();
        let (this, credentials, directory) =
            (authority.clone(), credentials.clone(), directory.clone());
        let work = tokio::task::spawn_blocking(move || {
            let authority = this;
            if take_up_renewed(&authority, &directory) || left < authority.svid_ttl() / 2 {
                renew_own(&authority, &credentials, now);
            }
            if let Err(error) = authority
                .store()
                .write(|transaction| transaction.forget(now))
            {
                tracing::warn!(%error, "cannot clean the store");
            }
        });
        if let Err(error) = work.await {
            tracing::error!(%error, "maintenance failed");
        }
        warn_of_ends(&authority, now, &mut warned);
    }
}

fn renew_own(authority: &Authority, credentials: &Credentials, now: SystemTime) {
    let replaced = authority
        .own_credentials(now, &mut rand::rng())
        .map_err(|error| error.to_string())
        .and_then(|(svid, bundle)| {
            credentials
                .replace(svid, bundle)
                .map_err(|error| error.to_string())
        });
    if let Err(error) = replaced {
        tracing::error!(%error, "cannot renew the CA's own certificate");
    }
}

/// Puts the issuing certificate on disk in force if `weft ca renew` made a new one. Returns whether it did.
fn take_up_renewed(authority: &Authority, directory: &Path) -> bool {
    let issuer = authority.issuer();
    match files::read(&directory.join(directory::ISSUING)) {
        Ok(pem) if pem == issuer.issuing_pem().as_bytes() => return false,
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "cannot see whether the issuing certificate was renewed");
            return false;
        }
    }
    match directory::load_issuer(directory, issuer.trust_domain().clone()) {
        Ok(renewed) => {
            let not_after = unix_seconds(renewed.issuing_not_after());
            tracing::info!(not_after, "took up the renewed issuing certificate");
            authority.set_issuer(renewed);
            true
        }
        Err(error) => {
            tracing::error!(%error, "the issuing certificate on disk cannot be used: the one before stays in force");
            false
        }
    }
}

/// One warning for each certificate of the CA that has less than a third of its life left.
fn warn_of_ends(
    authority: &Authority,
    now: SystemTime,
    warned: &mut Vec<(&'static str, SystemTime)>,
) {
    let ending = authority.issuer().ending(now);
    for &(certificate, not_after) in &ending {
        if !warned.contains(&(certificate, not_after)) {
            tracing::warn!(
                certificate,
                not_after = unix_seconds(not_after),
                "less than a third of its life is left{}",
                cure(certificate)
            );
        }
    }
    *warned = ending;
}

/// The remedy for a certificate that expires soon.
fn cure(file: &str) -> &'static str {
    match file {
        directory::ISSUING => ": run `weft ca renew`",
        _ => ": plan for a new CA, which every workload joins anew",
    }
}

#[cfg(test)]
mod tests;

//! The UDP sockets of a sidecar and the QUIC endpoints of its workers.
//!
//! [`bind`] takes the port for all workers, in order, before any of them starts; each worker then
//! turns its [`WorkerSocket`] into a [`Listener`] and a [`Dialler`] inside its own runtime.
//! Not here: which connection a request takes (see [`crate::pool`]).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::TokioRuntime;
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;

use crate::credentials::Credentials;
use crate::http3::{ErrorCode, ServerConnection};
use crate::identity::{PeerId, SpiffeId};
use crate::limits;
use crate::quic::{self, ConfigurationError};
use crate::steering::{self, Worker};
use crate::streams::Streams;
use crate::tls;
use crate::tuning::Tuning;

pub use crate::quic::ResetKey;
pub use crate::steering::{Epoch, Workers};

/// What all workers of a sidecar share on the mesh side.
#[derive(Clone)]
pub struct MeshSettings {
    /// Address and UDP port of the mesh side; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How many workers share the port.
    pub workers: Workers,
    /// Checked transport settings.
    pub tuning: Tuning,
    /// Mark of this process in its connection IDs.
    pub epoch: Epoch,
    /// Key of the stateless reset tokens.
    pub reset_key: ResetKey,
}

/// A worker's part of the port, bound and steered, not yet read.
pub struct WorkerSocket {
    worker: Worker,
    socket: UdpSocket,
    settings: MeshSettings,
}

/// Why the mesh port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error("UDP {0} is in use by another process; stop it or choose another port")]
    InUse(SocketAddr),
    /// The kernel refused for another reason.
    #[error("cannot bind UDP {address}: {error}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel does not steer packets between workers.
    #[error("cannot steer packets to {workers} workers: {error}; set workers: 1")]
    Steer {
        /// How many workers were asked for.
        workers: u8,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Why a worker's endpoints could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration was refused.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The kernel refused a socket.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] io::Error),
}

/// Takes the mesh port for every worker.
///
/// # Errors
/// When the port is not free, or the kernel cannot steer.
pub fn bind(settings: &MeshSettings) -> Result<Vec<WorkerSocket>, BindError> {
    let wanted = settings.listen;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(wanted),
        _ => BindError::Bind {
            address: wanted,
            error,
        },
    };
    // SO_REUSEPORT would share the port with another sidecar of the same user without a word, so
    // a socket without it asks first.
    let address = socket(wanted, settings, Sharing::Alone)
        .and_then(|socket| socket.local_addr())
        .map_err(failed)?;
    let mut sockets = Vec::new();
    for worker in Worker::all(settings.workers) {
        sockets.push(WorkerSocket {
            worker,
            socket: socket(address, settings, Sharing::Workers).map_err(failed)?,
            settings: settings.clone(),
        });
    }
    if let (Some(first), true) = (sockets.first(), sockets.len() > 1) {
        steering::attach(&first.socket, settings.workers).map_err(|error| BindError::Steer {
            workers: settings.workers.get(),
            error,
        })?;
    }
    Ok(sockets)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Workers,
}

fn socket(address: SocketAddr, settings: &MeshSettings, sharing: Sharing) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if sharing == Sharing::Workers {
        socket.set_reuse_port(true)?;
    }
    set_buffers(&socket, settings)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Asks for the buffers of the settings. The kernel clamps to its own maxima without an error;
/// `weft check` compares.
fn set_buffers(socket: &Socket, settings: &MeshSettings) -> io::Result<()> {
    let bytes = usize::try_from(settings.tuning.settings().udp_buffer).unwrap_or(usize::MAX);
    socket.set_recv_buffer_size(bytes)?;
    socket.set_send_buffer_size(bytes)
}

impl WorkerSocket {
    /// The address that the mesh port got.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Makes the worker's endpoints. Call it inside the worker's runtime, which drives them.
    ///
    /// # Errors
    /// When a configuration or a socket is refused.
    pub fn start(self, credentials: &Credentials) -> Result<(Listener, Dialler), StartError> {
        let settings = &self.settings;
        let config = |worker| {
            quic::endpoint_config(
                &settings.reset_key,
                worker,
                settings.epoch,
                &settings.tuning,
            )
        };
        let listening = quinn::Endpoint::new(
            config(self.worker)?,
            Some(quic::server_config(credentials, &settings.tuning)?),
            self.socket,
            Arc::new(TokioRuntime),
        )?;
        let mut dialling = quinn::Endpoint::new(
            config(self.worker)?,
            None,
            ephemeral_socket(settings)?,
            Arc::new(TokioRuntime),
        )?;
        dialling.set_default_client_config(quic::client_config(
            credentials,
            &settings.tuning,
            self.worker,
        )?);
        let listener = Listener {
            endpoint: listening,
            handshakes: Arc::default(),
            tuning: settings.tuning.clone(),
            credentials: credentials.clone(),
        };
        let dialler = Dialler {
            endpoint: dialling,
            credentials: credentials.clone(),
            tuning: settings.tuning.clone(),
        };
        Ok((listener, dialler))
    }
}

/// A socket on a port of its own that reaches both address families where the host has both.
fn ephemeral_socket(settings: &MeshSettings) -> io::Result<UdpSocket> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    socket(both, settings, Sharing::Alone).or_else(|_| socket(v4, settings, Sharing::Alone))
}

/// Takes connections of other sidecars, for one worker.
pub struct Listener {
    endpoint: quinn::Endpoint,
    handshakes: Arc<AtomicUsize>,
    tuning: Tuning,
    credentials: Credentials,
}

/// A connection that asked to come in.
pub struct Incoming {
    incoming: quinn::Incoming,
    tuning: Tuning,
    credentials: Credentials,
    _slot: HandshakeSlot,
}

/// A connection whose peer has proven its identity.
pub struct Accepted {
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Takes its requests.
    pub http: ServerConnection,
    /// Ends the connection when the root that vouched for its peer is removed from trust. Poll it
    /// beside the requests; it ends with the connection.
    pub trust: TrustGuard,
}

/// See [`Accepted::trust`].
pub struct TrustGuard {
    connection: quinn::Connection,
    credentials: Credentials,
}

/// Why a connection did not come in.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer did not finish in time.
    #[error("the handshake took too long")]
    Timeout,
    /// A certificate was refused, or another rule of TLS or QUIC was broken.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer went away.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

impl HandshakeError {
    /// A short name for the label of a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused(_) => "refused",
            Self::Lost(_) => "lost",
        }
    }
}

impl Listener {
    /// The next connection that asks to come in; `None` once the endpoint is closed. Peers whose
    /// address is not validated are sent a Retry while many handshakes are under way, and refused
    /// while too many are.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let under_way = self.handshakes.load(Ordering::Relaxed);
            if under_way >= limits::HANDSHAKES_MAX {
                incoming.refuse();
            } else if under_way >= limits::HANDSHAKES_BEFORE_RETRY
                && !incoming.remote_address_validated()
                && incoming.may_retry()
            {
                // Cannot fail: `may_retry` was asked.
                let _ = incoming.retry();
            } else {
                return Some(Incoming {
                    incoming,
                    tuning: self.tuning.clone(),
                    credentials: self.credentials.clone(),
                    _slot: HandshakeSlot::take(&self.handshakes),
                });
            }
        }
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Closes every connection with `H3_NO_ERROR`, and waits until the peers know, or `patience`.
    pub async fn close(&self, patience: Duration) {
        close(&self.endpoint, patience).await;
    }
}

impl Incoming {
    /// Where the packet came from; not validated.
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Runs the handshake. When it returns, the peer's identity is proven: TLS 1.3 lets a client
    /// finish first, but the server's side completes only with the client's certificate verified.
    ///
    /// # Errors
    /// When the peer is refused, too slow, or gone.
    pub async fn handshake(self) -> Result<Accepted, HandshakeError> {
        let remote = self.incoming.remote_address();
        let connecting = self.incoming.accept().map_err(handshake_error)?;
        let connection = timeout(self.tuning.settings().handshake_timeout, connecting)
            .await
            .map_err(|_| HandshakeError::Timeout)?
            .map_err(handshake_error)?;
        let Some(peer) = proven_peer(&connection) else {
            connection.close(ErrorCode::H3_GENERAL_PROTOCOL_ERROR.to_quic(), b"");
            return Err(HandshakeError::Refused("no identity".to_owned()));
        };
        let streams = Streams::new(connection.clone(), &self.tuning);
        Ok(Accepted {
            remote,
            http: ServerConnection::new(connection.clone(), peer, streams),
            trust: TrustGuard {
                connection,
                credentials: self.credentials,
            },
        })
    }
}

impl TrustGuard {
    /// Runs until the connection has ended.
    pub async fn run(self) {
        let mut swaps = self.credentials.subscribe();
        loop {
            tokio::select! {
                _ = self.connection.closed() => return,
                swapped = swaps.changed() => if swapped.is_err() { return },
            }
            let trusted = presented_chain(&self.connection)
                .is_some_and(|chain| self.credentials.still_trusts(&chain));
            if !trusted {
                self.connection
                    .close(ErrorCode::H3_NO_ERROR.to_quic(), b"trust removed");
            }
        }
    }
}

/// One handshake under way, counted.
struct HandshakeSlot(Arc<AtomicUsize>);

impl HandshakeSlot {
    fn take(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens connections to other sidecars, for one worker.
#[derive(Clone)]
pub struct Dialler {
    endpoint: quinn::Endpoint,
    pub(crate) credentials: Credentials,
    pub(crate) tuning: Tuning,
}

/// Why a peer was not reached. In every case it has seen no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No answer in time.
    #[error("no answer from {0} within the handshake timeout")]
    Timeout(SocketAddr),
    /// The handshake failed: a certificate was refused on one of the sides, or QUIC's rules.
    #[error("{address} refused the handshake, or was refused: {reason}")]
    Refused {
        /// Whom we dialled.
        address: SocketAddr,
        /// What TLS or QUIC said.
        reason: String,
    },
    /// A valid peer of the mesh, but not the one that the table names.
    #[error("{address} proved to be {proven}, expected {expected}")]
    WrongIdentity {
        /// Whom we dialled.
        address: SocketAddr,
        /// Who it should be.
        expected: SpiffeId,
        /// Who it is.
        proven: SpiffeId,
    },
    /// This host could not send.
    #[error("cannot dial {address}: {reason}")]
    Local {
        /// Whom we dialled.
        address: SocketAddr,
        /// What failed.
        reason: String,
    },
    /// This worker talks to too many peers.
    #[error("too many peers (more than {})", limits::PEERS_MAX)]
    TooManyPeers,
    /// The worker is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

impl Dialler {
    /// Dials a peer and checks that it is the one expected, before any stream.
    ///
    /// # Errors
    /// When it is not reached or not that peer.
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        expected: &SpiffeId,
    ) -> Result<(quinn::Connection, PeerId), DialError> {
        let local = |reason: String| DialError::Local { address, reason };
        let connecting = self
            .endpoint
            .connect(address, tls::SERVER_NAME)
            .map_err(|error| local(error.to_string()))?;
        let connection = timeout(self.tuning.settings().handshake_timeout, connecting)
            .await
            .map_err(|_| DialError::Timeout(address))?
            .map_err(|error| match handshake_error(error) {
                HandshakeError::Timeout => DialError::Timeout(address),
                HandshakeError::Refused(reason) => DialError::Refused { address, reason },
                HandshakeError::Lost(reason) => local(reason),
            })?;
        match proven_peer(&connection) {
            Some(peer) if peer.id() == expected => Ok((connection, peer)),
            other => {
                connection.close(ErrorCode::H3_NO_ERROR.to_quic(), b"wrong identity");
                Err(match other {
                    Some(peer) => DialError::WrongIdentity {
                        address,
                        expected: expected.clone(),
                        proven: peer.id().clone(),
                    },
                    None => DialError::Refused {
                        address,
                        reason: "no identity".to_owned(),
                    },
                })
            }
        }
    }

    /// Closes every connection with `H3_NO_ERROR`, and waits until the peers know, or `patience`.
    pub async fn close(&self, patience: Duration) {
        close(&self.endpoint, patience).await;
    }
}

async fn close(endpoint: &quinn::Endpoint, patience: Duration) {
    endpoint.close(ErrorCode::H3_NO_ERROR.to_quic(), b"");
    // Whoever does not hear of it notices by silence.
    let _ = timeout(patience, endpoint.wait_idle()).await;
}

/// The chain that the peer presented and the verifier accepted.
pub(crate) fn presented_chain(
    connection: &quinn::Connection,
) -> Option<Box<Vec<CertificateDer<'static>>>> {
    connection.peer_identity()?.downcast().ok()
}

fn proven_peer(connection: &quinn::Connection) -> Option<PeerId> {
    tls::proven_peer(&presented_chain(connection)?)
}

fn handshake_error(error: quinn::ConnectionError) -> HandshakeError {
    use quinn::ConnectionError as E;
    match error {
        E::TimedOut => HandshakeError::Timeout,
        E::VersionMismatch | E::TransportError(_) | E::ConnectionClosed(_) => {
            HandshakeError::Refused(error.to_string())
        }
        E::ApplicationClosed(_) | E::Reset | E::LocallyClosed | E::CidsExhausted => {
            HandshakeError::Lost(error.to_string())
        }
    }
}

//! The UDP sockets of a sidecar and the QUIC endpoints of its workers.
//!
//! [`bind`] takes the port for all workers, in order, before any of them starts; each worker then turns its
//! [`WorkerSocket`] into a [`Listener`] and a [`Dialler`] inside its own runtime. [`inherit`] takes the port
//! from a process that ends instead, which keeps its own connections. Not here: which connection a request
//! takes (see [`crate::pool`]). Next: [`listener`] and [`dialler`]; [`shared`] for a port that two processes
//! hold.

mod admission;
mod amplification;
mod dialler;
mod forwarded;
#[cfg(test)]
mod handshake_tests;
mod listener;
mod relay;
mod shared;
mod socket;
#[cfg(test)]
mod takeover_tests;
#[cfg(test)]
mod tests;

pub use dialler::Dialler;
pub use listener::{Accepted, Incoming, Listener, TrustGuard};
pub use relay::{EarlierProcess, RelayPair};
pub use shared::{Reading, elders};

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use quinn::{AsyncUdpSocket, TokioRuntime};
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;

use crate::error::{HandshakeError, Reason};
use crate::http3::close_code;
use crate::identity::PeerId;
use crate::lag::Lag;
use crate::limits;
use crate::quic;
use crate::receive_window::{Origin, ReceivePool};
use crate::send_window::SendPool;
use crate::steering::{self, Worker};
use crate::streams::WindowPools;
use crate::tls;
use crate::tuning::Tuning;
use shared::SharedSocket;

pub use crate::quic::{ConfigurationError, MeshTls, ResetKey};
pub use crate::steering::{Epoch, Workers};

/// A socket that limits the bytes sent to addresses that are not validated (`amplification.rs`): for servers
/// that have their port for themselves.
pub(crate) fn guarded(socket: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
    SharedSocket::new(socket, Arc::new(Reading::own()))
}

/// The settings that all workers of a sidecar share on the mesh side.
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
    pub(crate) settings: MeshSettings,
    reading: Arc<Reading>,
}

/// The sockets that a process takes over from its predecessor.
pub struct Inherited {
    /// Its sockets on the mesh port, in the order of its workers.
    pub sockets: Vec<UdpSocket>,
    /// The predecessor, and those before it that still run.
    pub elders: Vec<EarlierProcess>,
}

/// Why a port cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// Packets are steered by the number of workers, which belongs to the port.
    #[error(
        "the running sidecar has {theirs} workers and the settings say {ours}: set workers: {theirs}, or stop it first"
    )]
    Workers {
        /// Of the running process.
        theirs: usize,
        /// Of this one.
        ours: usize,
    },
    /// Its descriptors are not of the expected kind.
    #[error("the running sidecar did not hand over a relay for each worker")]
    Relays,
    /// Its packets could not be told from this process's.
    #[error(
        "too many earlier processes still drain (at most {}): wait until they have ended",
        limits::PREDECESSORS_MAX
    )]
    Epochs,
}

/// Why the mesh port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error(
        "UDP {0} is in use by another process: end that, or choose another port with inbound.listen (--listen)"
    )]
    InUse(SocketAddr),
    /// The kernel refused for another reason.
    #[error("cannot bind UDP {address}: {error}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// The error of the kernel.
        error: io::Error,
    },
    /// The kernel does not steer packets between workers.
    #[error("cannot steer packets to {workers} workers: {error}; set workers: 1")]
    Steer {
        /// The number of workers that was asked for.
        workers: u8,
        /// The error of the kernel.
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
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            return BindError::InUse(wanted);
        }
        BindError::Bind {
            address: wanted,
            error,
        }
    };
    // SO_REUSEPORT would silently share the port with another sidecar of the same user, so a socket without
    // it tries first.
    let address = socket(wanted, settings, Sharing::Alone)
        .and_then(|socket| socket.local_addr())
        .map_err(failed)?;
    let mut sockets = Vec::new();
    for worker in Worker::all(settings.workers) {
        sockets.push(WorkerSocket {
            worker,
            socket: socket(address, settings, Sharing::Workers).map_err(failed)?,
            settings: settings.clone(),
            reading: Arc::new(Reading::own()),
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

/// Takes the mesh port from another process. Reading starts with [`Reading::begin`].
///
/// # Errors
/// When the sockets that were handed over do not fit the settings.
pub fn inherit(
    settings: &MeshSettings,
    inherited: Inherited,
) -> Result<Vec<WorkerSocket>, InheritError> {
    let (theirs, ours) = (inherited.sockets.len(), settings.workers.get().into());
    if theirs != ours {
        return Err(InheritError::Workers { theirs, ours });
    }
    let elders = inherited.elders;
    if elders.iter().any(|elder| elder.relays.len() != theirs) {
        return Err(InheritError::Relays);
    }
    let epochs: Vec<Epoch> = elders
        .iter()
        .flat_map(|elder| &elder.epochs)
        .copied()
        .collect();
    if epochs.len() > limits::PREDECESSORS_MAX || epochs.contains(&settings.epoch) {
        return Err(InheritError::Epochs);
    }
    // Turns an order by process and then worker into one by worker and then process.
    let mut ways: Vec<Vec<(Vec<Epoch>, OwnedFd)>> = Vec::new();
    ways.resize_with(theirs, Vec::new);
    for elder in elders {
        for (way, relay) in ways.iter_mut().zip(elder.relays) {
            way.push((elder.epochs.clone(), relay));
        }
    }
    let parts = inherited.sockets.into_iter().zip(ways);
    let sockets = Worker::all(settings.workers)
        .zip(parts)
        .map(|(worker, (socket, ways))| WorkerSocket {
            worker,
            socket,
            settings: settings.clone(),
            reading: Arc::new(Reading::inherited(relay::EarlierProcesses::new(ways))),
        });
    Ok(sockets.collect())
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
    /// The error of the kernel.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// A duplicate of the socket, for a successor.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn share(&self) -> io::Result<UdpSocket> {
        self.socket.try_clone()
    }

    /// Controls which process reads it.
    pub fn reading(&self) -> Arc<Reading> {
        Arc::clone(&self.reading)
    }

    /// Makes the worker's endpoints. Call it inside the worker's runtime, which drives them; `lag` tells
    /// whether that keeps up.
    ///
    /// # Errors
    /// When a configuration or a socket is refused.
    pub fn start(self, tls: &MeshTls, lag: &Lag) -> Result<(Listener, Dialler), StartError> {
        tls.rehearsal.run();
        let settings = &self.settings;
        let config = |worker| {
            quic::endpoint_config(
                &settings.reset_key,
                worker,
                settings.epoch,
                &settings.tuning,
            )
        };
        let datagram_max = settings.tuning.settings().mtu_max;
        let listening = quinn::Endpoint::new_with_abstract_socket(
            config(self.worker)?,
            Some(quic::server_config(tls, &settings.tuning)?),
            SharedSocket::new(socket::bounded(self.socket, datagram_max)?, self.reading),
            Arc::new(TokioRuntime),
        )?;
        let mut dialling = quinn::Endpoint::new_with_abstract_socket(
            config(self.worker)?,
            None,
            socket::bounded(ephemeral_socket(settings)?, datagram_max)?,
            Arc::new(TokioRuntime),
        )?;
        dialling.set_default_client_config(quic::client_config(
            tls,
            &settings.tuning,
            self.worker,
        )?);
        let send = SendPool::new(&settings.tuning);
        let windows = |origin| WindowPools {
            send: send.clone(),
            receive: ReceivePool::new(origin, &settings.tuning),
        };
        let listener = Listener::new(
            listening,
            quic::hurried_server_config(tls, &settings.tuning)?,
            settings.tuning.clone(),
            tls.credentials.clone(),
            lag.clone(),
            windows(Origin::Accepted),
        );
        let dialler = Dialler {
            endpoint: dialling,
            credentials: tls.credentials.clone(),
            tuning: settings.tuning.clone(),
            windows: windows(Origin::Dialled),
        };
        Ok((listener, dialler))
    }
}

/// A socket on a port of its own that reaches both address families if the host has both.
fn ephemeral_socket(settings: &MeshSettings) -> io::Result<UdpSocket> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    socket(both, settings, Sharing::Alone).or_else(|_| socket(v4, settings, Sharing::Alone))
}

async fn close(endpoint: &quinn::Endpoint, patience: Duration) {
    endpoint.close(close_code(Reason::NoError), b"");
    // A peer that the message does not reach notices by silence.
    let _ = timeout(patience, endpoint.wait_idle()).await;
}

/// The chain that the peer presented and the verifier accepted.
pub(crate) fn presented_chain(
    connection: &quinn::Connection,
) -> Option<Vec<CertificateDer<'static>>> {
    let chain = connection.peer_identity()?.downcast().ok()?;
    Some(*chain)
}

fn proven_peer(connection: &quinn::Connection) -> Option<PeerId> {
    tls::proven_peer(&presented_chain(connection)?)
}

fn handshake_error(error: quinn::ConnectionError) -> HandshakeError {
    use quinn::ConnectionError as E;
    match error {
        E::TimedOut => HandshakeError::Timeout,
        //= https://www.rfc-editor.org/rfc/rfc9000#section-20.1
        //# CONNECTION_REFUSED (0x02): The server refused to accept a new connection.
        E::ConnectionClosed(ref close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            HandshakeError::Closed
        }
        E::VersionMismatch | E::TransportError(_) | E::ConnectionClosed(_) => {
            HandshakeError::Refused(error.to_string())
        }
        E::ApplicationClosed(_) | E::Reset | E::LocallyClosed | E::CidsExhausted => {
            HandshakeError::Lost(error.to_string())
        }
    }
}

//! The UDP sockets of a sidecar and the QUIC endpoints of its workers.
//!
//! [`bind`] takes the port for all workers, in order, before any of them starts; each worker then
//! turns its [`WorkerSocket`] into a [`Listener`] and a [`Dialler`] inside its own runtime.
//! Not here: which connection a request takes (see [`crate::pool`]).
//! Next: [`listener`] and [`dialler`].

mod dialler;
mod listener;
mod socket;
#[cfg(test)]
mod tests;

pub use dialler::{DialError, Dialler};
pub use listener::{Accepted, HandshakeError, Incoming, Listener, TrustGuard};

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::TokioRuntime;
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;

use crate::credentials::Credentials;
use crate::http3::ErrorCode;
use crate::identity::PeerId;
use crate::quic;
use crate::steering::{self, Worker};
use crate::tls;
use crate::tuning::Tuning;

pub use crate::quic::{ConfigurationError, ResetKey};
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
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            return BindError::InUse(wanted);
        }
        BindError::Bind {
            address: wanted,
            error,
        }
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
        let datagram_max = settings.tuning.settings().mtu_max;
        let listening = quinn::Endpoint::new_with_abstract_socket(
            config(self.worker)?,
            Some(quic::server_config(credentials, &settings.tuning)?),
            socket::bounded(self.socket, datagram_max)?,
            Arc::new(TokioRuntime),
        )?;
        let mut dialling = quinn::Endpoint::new_with_abstract_socket(
            config(self.worker)?,
            None,
            socket::bounded(ephemeral_socket(settings)?, datagram_max)?,
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

async fn close(endpoint: &quinn::Endpoint, patience: Duration) {
    endpoint.close(ErrorCode::H3_NO_ERROR.to_quic(), b"");
    // Whoever does not hear of it notices by silence.
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
        E::VersionMismatch | E::TransportError(_) | E::ConnectionClosed(_) => {
            HandshakeError::Refused(error.to_string())
        }
        E::ApplicationClosed(_) | E::Reset | E::LocallyClosed | E::CidsExhausted => {
            HandshakeError::Lost(error.to_string())
        }
    }
}

//! The listening side of a worker: handshakes under way, bounded, and proven peers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::{close, handshake_error, presented_chain, proven_peer};
use crate::credentials::Credentials;
use crate::http3::{ErrorCode, ServerConnection};
use crate::lag::Lag;
use crate::limits;
use crate::streams::Streams;
use crate::tuning::Tuning;

/// Takes connections of other sidecars, for one worker.
pub struct Listener {
    pub(super) endpoint: quinn::Endpoint,
    pub(super) handshakes: Arc<AtomicUsize>,
    pub(super) tuning: Tuning,
    pub(super) credentials: Credentials,
    pub(super) lag: Lag,
}

/// A connection that asked to come in.
pub struct Incoming {
    incoming: quinn::Incoming,
    pub(super) tuning: Tuning,
    pub(super) credentials: Credentials,
    lag: Lag,
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
    pub(super) credentials: Credentials,
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
                    lag: self.lag.clone(),
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
        let streams = Streams::paced(connection.clone(), &self.tuning, self.lag);
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

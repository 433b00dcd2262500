//! The listening side of a worker: handshakes under way, bounded, and proven peers.
//!
//! `admission.rs` decides which clients get a handshake. Not here: the requests of a proven peer
//! ([`crate::http3`]).

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::admission::{Admission, Verdict};
use super::{close, handshake_error, presented_chain, proven_peer};
use crate::credentials::Credentials;
use crate::error::{HandshakeError, Reason, TurnedAway};
use crate::http3::{ServerConnection, close_code};
use crate::identity::SpiffeId;
use crate::lag::Lag;
use crate::limits;
use crate::shares::{Bounds, Place, Places, Source};
use crate::streams::{Streams, WindowPools};
use crate::tuning::Tuning;

/// Takes connections of other sidecars, for one worker.
pub struct Listener {
    pub(super) endpoint: quinn::Endpoint,
    tuning: Tuning,
    credentials: Credentials,
    lag: Lag,
    windows: WindowPools,
    admission: Mutex<Admission>,
    /// The configuration of handshakes while many are under way.
    hurried: Arc<quinn::ServerConfig>,
    pub(super) handshakes: Places<Source>,
    pub(super) connections: Places<SpiffeId>,
}

/// A connection attempt of a peer.
pub struct Incoming {
    incoming: quinn::Incoming,
    tuning: Tuning,
    credentials: Credentials,
    lag: Lag,
    windows: WindowPools,
    /// `None` while few handshakes are under way.
    hurried: Option<Arc<quinn::ServerConfig>>,
    place: Place<Source>,
    connections: Places<SpiffeId>,
}

/// A connection whose peer has proven its identity.
pub struct Accepted {
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Takes its requests.
    pub http: ServerConnection,
    /// Ends the connection when the root that certified its peer is removed from trust. Poll it beside the
    /// requests; it ends with the connection.
    pub trust: TrustGuard,
}

/// See [`Accepted::trust`].
pub struct TrustGuard {
    connection: quinn::Connection,
    pub(super) credentials: Credentials,
}

impl Listener {
    pub(super) fn new(
        endpoint: quinn::Endpoint,
        hurried: quinn::ServerConfig,
        tuning: Tuning,
        credentials: Credentials,
        lag: Lag,
        windows: WindowPools,
    ) -> Self {
        Self {
            endpoint,
            tuning,
            credentials,
            lag,
            windows,
            admission: Mutex::default(),
            hurried: Arc::new(hurried),
            handshakes: Places::new(Bounds {
                places: limits::HANDSHAKES_MAX,
                each: limits::HANDSHAKES_MAX,
            }),
            connections: Places::new(Bounds {
                places: limits::CONNECTIONS_MAX,
                each: limits::CONNECTIONS_EACH,
            }),
        }
    }

    /// The next connection attempt, or the news that one was turned away for now; `None` once the endpoint is
    /// closed.
    pub async fn accept(&self) -> Option<Result<Incoming, TurnedAway>> {
        let incoming = self.endpoint.accept().await?;
        let source = Source::from(incoming.remote_address().ip());
        let under_way = self.handshakes.taken();
        let validated = incoming.remote_address_validated();
        let now = Instant::now();
        let verdict = self
            .admission
            .lock()
            // No code under the lock can panic half-way.
            .unwrap_or_else(PoisonError::into_inner)
            .judge(source, validated, under_way, now);
        match verdict {
            Verdict::Begin => {}
            Verdict::Retry => {
                // Cannot fail: an address that is not validated has not answered a Retry.
                let _ = incoming.retry();
                return Some(Err(TurnedAway::Retry));
            }
            Verdict::Ignore => {
                incoming.ignore();
                return Some(Err(TurnedAway::Ignored));
            }
        }
        let many = under_way >= limits::HANDSHAKES_BEFORE_RETRY;
        Some(Ok(Incoming {
            incoming,
            tuning: self.tuning.clone(),
            credentials: self.credentials.clone(),
            lag: self.lag.clone(),
            windows: self.windows.clone(),
            hurried: many.then(|| Arc::clone(&self.hurried)),
            place: self.handshakes.enter(source),
            connections: self.connections.clone(),
        }))
    }

    /// Refuses every connection attempt until the endpoint is closed or this is dropped: peers then go
    /// elsewhere at once, instead of waiting for an answer.
    pub async fn refuse(&self) {
        while let Some(incoming) = self.endpoint.accept().await {
            incoming.refuse();
        }
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Closes every connection in good order, and waits until the peers know of it, at most for `patience`.
    pub async fn close(&self, patience: Duration) {
        close(&self.endpoint, patience).await;
    }
}

impl Incoming {
    /// The source of the packet; not validated.
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Runs the handshake. When it returns, the peer's identity is proven: TLS 1.3 lets a client
    /// finish first, but the server's side completes only with the client's certificate verified.
    ///
    /// # Errors
    /// When the peer is refused, too slow, gone, or had to make room.
    pub async fn handshake(self) -> Result<Accepted, HandshakeError> {
        let remote = self.incoming.remote_address();
        let connecting = match self.hurried {
            Some(hurried) => self.incoming.accept_with(hurried),
            None => self.incoming.accept(),
        };
        let connecting = connecting.map_err(handshake_error)?;
        let connection = tokio::select! {
            biased;
            shaken = timeout(self.tuning.settings().handshake_timeout, connecting) => shaken
                .map_err(|_| HandshakeError::Timeout)?
                .map_err(handshake_error)?,
            // The state made for it goes with `connecting`.
            () = self.place.taken_back() => return Err(HandshakeError::GivenUp),
        };
        drop(self.place);
        let Some(peer) = proven_peer(&connection) else {
            connection.close(close_code(Reason::Protocol), b"");
            return Err(HandshakeError::Refused("no identity".to_owned()));
        };
        let place = self.connections.enter(peer.id().clone());
        let windows = self.windows.windows(peer.id());
        let streams = Streams::of_worker(connection.clone(), &self.tuning, self.lag, windows);
        Ok(Accepted {
            remote,
            http: ServerConnection::new(connection.clone(), peer, streams, place),
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
                    .close(close_code(Reason::NoError), b"trust removed");
            }
        }
    }
}

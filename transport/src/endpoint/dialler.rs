//! The dialling side of a worker: one handshake, and the check of the peer's identity.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::{close, handshake_error, presented_chain, proven_peer};
use crate::credentials::Credentials;
use crate::error::{DialError, HandshakeError, Reason};
use crate::http3::{ClientConnection, Driver, close_code};
use crate::identity::{PeerId, SpiffeId};
use crate::lag::Lag;
use crate::streams::{Streams, WindowPools};
use crate::tls;
use crate::tuning::Tuning;

/// Opens connections to other sidecars, for one worker.
#[derive(Clone)]
pub struct Dialler {
    pub(super) endpoint: quinn::Endpoint,
    pub(crate) credentials: Credentials,
    pub(crate) tuning: Tuning,
    pub(super) windows: WindowPools,
}

fn check_age(
    address: SocketAddr,
    whose: &SpiffeId,
    not_after: SystemTime,
) -> Result<(), DialError> {
    match SystemTime::now().duration_since(not_after) {
        Ok(since) => Err(DialError::Expired {
            address,
            whose: whose.clone(),
            since,
        }),
        Err(_) => Ok(()),
    }
}

impl Dialler {
    /// Dials a peer and checks its identity, before any stream.
    ///
    /// # Errors
    /// When the peer is not reached or has another identity.
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        expected: &SpiffeId,
    ) -> Result<(quinn::Connection, PeerId), DialError> {
        let local = |reason: String| DialError::Local { address, reason };
        let own = self.credentials.svid();
        check_age(address, own.id(), own.not_after())?;
        let connecting = self
            .endpoint
            .connect(address, tls::SERVER_NAME)
            .map_err(|error| local(error.to_string()))?;
        let connection = timeout(self.tuning.settings().handshake_timeout, connecting)
            .await
            .map_err(|_| DialError::Timeout(address))?
            .map_err(|error| match handshake_error(error) {
                HandshakeError::Closed => DialError::Closed(address),
                HandshakeError::Timeout => DialError::Timeout(address),
                HandshakeError::Refused(reason) => DialError::Refused { address, reason },
                error @ (HandshakeError::Lost(_) | HandshakeError::GivenUp) => {
                    local(error.to_string())
                }
            })?;
        match proven_peer(&connection) {
            Some(peer) if peer.id() == expected => {
                // Handshakes allow for clocks that differ; the connection afterwards does not.
                check_age(address, peer.id(), peer.not_after()).inspect_err(|_| {
                    connection.close(close_code(Reason::NoError), b"expired");
                })?;
                Ok((connection, peer))
            }
            other => {
                connection.close(close_code(Reason::NoError), b"wrong identity");
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

    /// As [`Self::dial`], with HTTP/3 on it. The driver must be polled for the connection to work.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        expected: &SpiffeId,
    ) -> Result<(ClientConnection, Driver), DialError> {
        let (quic, peer) = self.dial(address, expected).await?;
        let windows = self.windows.windows(peer.id());
        let streams = Streams::of_worker(quic.clone(), &self.tuning, Lag::default(), windows);
        Ok(ClientConnection::new(quic, peer, streams))
    }

    /// Whether the peer of a connection would be accepted again by the trust in force.
    pub(crate) fn still_trusts(&self, connection: &ClientConnection) -> bool {
        presented_chain(connection.quic())
            .is_some_and(|chain| self.credentials.still_trusts(&chain))
    }

    /// Closes every connection in good order, and waits until the peers know of it, at most for `patience`.
    pub async fn close(&self, patience: Duration) {
        close(&self.endpoint, patience).await;
    }
}

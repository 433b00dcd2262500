//! The calling side: dials a peer, opens exchanges with it, reads the heads of responses.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use http::request::Parts;
use tokio::sync::watch;

#[cfg(any(test, feature = "testing"))]
use super::memory;
use super::{
    ConnectionError, ConnectionStatus, DialError, OpenError, Reason, ReceiveError, RecvHalf,
    SendHalf,
};
use crate::identity::{PeerId, SpiffeId};
use crate::liveness::Sample;
use crate::{endpoint, http3};

/// Opens connections to other sidecars, for one worker.
#[cfg_attr(
    any(test, feature = "testing"),
    expect(clippy::large_enum_variant, reason = "the small one is that of tests")
)]
#[derive(Clone)]
pub enum Dialler {
    /// Over QUIC.
    Http3(endpoint::Dialler),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::Dialler),
}

/// How long the pool waits in each case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// For a handshake.
    pub(crate) handshake: Duration,
    /// Until an unused connection is closed.
    pub(crate) unused: Duration,
}

impl Dialler {
    /// Dials a peer and checks its identity, before any exchange. The driver must be polled for the
    /// connection to work.
    ///
    /// # Errors
    /// When it is not reached or has another identity.
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        expected: &SpiffeId,
    ) -> Result<(ClientConnection, Driver), DialError> {
        match self {
            Self::Http3(dialler) => {
                let (connection, driver) = dialler.connect(address, expected).await?;
                Ok((ClientConnection::Http3(connection), Driver::Http3(driver)))
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(dialler) => {
                let (connection, driver) = dialler.dial(address, expected)?;
                Ok((ClientConnection::Memory(connection), Driver::Memory(driver)))
            }
        }
    }

    /// How long the pool waits in each case.
    pub(crate) fn times(&self) -> Times {
        match self {
            Self::Http3(dialler) => {
                let settings = dialler.tuning.settings();
                Times {
                    handshake: settings.handshake_timeout,
                    unused: settings.unused_timeout,
                }
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(dialler) => dialler.times(),
        }
    }

    /// When the certificate of this side expires.
    pub(crate) fn own_not_after(&self) -> SystemTime {
        match self {
            Self::Http3(dialler) => dialler.credentials.svid().not_after(),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(dialler) => dialler.own_not_after(),
        }
    }

    /// Changes when this side gets another certificate, or other roots are trusted.
    pub(crate) fn swaps(&self) -> watch::Receiver<u64> {
        match self {
            Self::Http3(dialler) => dialler.credentials.subscribe(),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(dialler) => dialler.swaps(),
        }
    }

    /// Whether the peer of a connection would be accepted again by the trust in force.
    pub(crate) fn still_trusts(&self, connection: &ClientConnection) -> bool {
        match (self, connection) {
            (Self::Http3(dialler), ClientConnection::Http3(connection)) => {
                dialler.still_trusts(connection)
            }
            // In memory, all peers are trusted for ever.
            #[cfg(any(test, feature = "testing"))]
            (Self::Http3(_) | Self::Memory(_), _) => true,
        }
    }

    /// Closes every connection in good order, and waits until the peers know of it, at most for `patience`.
    pub async fn close(&self, patience: Duration) {
        match self {
            Self::Http3(dialler) => dialler.close(patience).await,
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(dialler) => dialler.close(),
        }
    }
}

impl From<endpoint::Dialler> for Dialler {
    fn from(dialler: endpoint::Dialler) -> Self {
        Self::Http3(dialler)
    }
}

/// A connection to a proven peer of the mesh. Clones are handles to the same connection.
#[derive(Clone)]
pub enum ClientConnection {
    /// Over QUIC.
    Http3(http3::ClientConnection),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::ClientConnection),
}

impl ClientConnection {
    /// The identity that the peer proved.
    pub fn peer(&self) -> &PeerId {
        on!(self, connection => connection.peer())
    }

    /// Its figures, for the admin endpoint and the metrics.
    pub fn status(&self) -> ConnectionStatus {
        on!(self, connection => connection.status())
    }

    /// Whether a new request may be opened: not closed, not going away, peer not expired.
    pub fn is_usable(&self) -> bool {
        on!(self, connection => connection.is_usable())
    }

    /// Whether a request that may go elsewhere should: the peer is shutting down, or does not acknowledge.
    pub fn is_doubtful(&self) -> bool {
        on!(self, connection => connection.is_doubtful())
    }

    /// Sends a request head; `end` when no body follows.
    ///
    /// Method, URI with authority, and headers count. CONNECT sends only method and authority.
    ///
    /// # Errors
    /// See [`OpenError::is_unprocessed`] for whether the request may be tried elsewhere. Waits until the peer
    /// allows one more exchange; the caller sets the deadline, see [`Self::crowded_for`].
    pub async fn open(
        &self,
        head: &Parts,
        end: bool,
    ) -> Result<(SendHalf, ResponseHalf), OpenError> {
        self.reserve().await?.send(head, Bytes::new(), end).await
    }

    /// Waits until the peer allows one more exchange. The peer learns of it when the head is sent, which can
    /// then carry the time that is left. Cancel-safe.
    ///
    /// # Errors
    /// The connection takes no new requests, or has ended.
    pub fn reserve(&self) -> impl Future<Output = Result<Reserved, OpenError>> + Send {
        later!(self, connection => connection.reserve().map_ok(Reserved::from))
    }

    /// How long requests have waited, without a break, until the peer allows one more exchange. Zero if none
    /// waits.
    pub fn crowded_for(&self, now: Instant) -> Duration {
        on!(self, connection => connection.crowded_for(now))
    }

    /// The time that a message and its acknowledgement usually take.
    pub fn round_trip(&self) -> Duration {
        on!(self, connection => connection.round_trip())
    }

    /// Closes the connection at once; exchanges under way are lost. `detail` is for logs of the peer.
    pub fn close(&self, reason: Reason, detail: &'static str) {
        on!(self, connection => connection.close(reason, detail));
    }

    /// Done when the connection has ended.
    pub async fn closed(&self) -> ConnectionError {
        on!(self, connection => connection.closed().await)
    }

    /// Whether it has ended.
    pub(crate) fn is_closed(&self) -> bool {
        on!(self, connection => connection.is_closed())
    }

    /// Requests under way.
    pub(crate) fn open_exchanges(&self) -> u32 {
        on!(self, connection => connection.open_exchanges())
    }

    /// The signs by which liveness is judged.
    pub(crate) fn sample(&self) -> Sample {
        on!(self, connection => connection.sample())
    }

    /// Marks the peer as silent for good, or not. While it is marked, requests that wait for a response head
    /// fail; bodies and tunnels under way wait for the idle timeout, because networks recover.
    pub(crate) fn set_silent(&self, silent: bool) {
        on!(self, connection => connection.set_silent(silent));
    }

    /// Marks the peer as doubtful: its acknowledgements are overdue. Requests that may go elsewhere then do,
    /// and the others wait.
    pub(crate) fn set_doubtful(&self, doubtful: bool) {
        on!(self, connection => connection.set_doubtful(doubtful));
    }
}

/// Runs the parts of a connection that belong to no request. Ends with the connection and returns why.
/// Dropping it earlier closes the connection.
#[must_use = "the connection works only while its driver is polled"]
pub enum Driver {
    /// Over QUIC.
    Http3(http3::Driver),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::Driver),
}

impl Future for Driver {
    type Output = ConnectionError;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        on!(self.get_mut(), driver => Pin::new(driver).poll(cx))
    }
}

/// The permission to send one request. Dropping it leaves no trace of a request.
pub enum Reserved {
    /// Over QUIC.
    Http3(http3::Reserved),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::Reserved),
}

impl Reserved {
    /// Sends a request head with the first bytes of the body; `end` when no more follows.
    ///
    /// # Errors
    /// As [`ClientConnection::open`]. It waits only while a head is larger than the wire takes at once.
    pub fn send(
        self,
        head: &Parts,
        body: Bytes,
        end: bool,
    ) -> impl Future<Output = Result<(SendHalf, ResponseHalf), OpenError>> + Send {
        later!(self, reserved => reserved
            .send(head, body, end)
            .map_ok(|(send, response)| (send.into(), response.into())))
    }
}

impl From<http3::Reserved> for Reserved {
    fn from(reserved: http3::Reserved) -> Self {
        Self::Http3(reserved)
    }
}

#[cfg(any(test, feature = "testing"))]
impl From<memory::Reserved> for Reserved {
    fn from(it: memory::Reserved) -> Self {
        Self::Memory(it)
    }
}

/// The response to one request. Dropping it before its end cancels the rest of the response.
pub enum ResponseHalf {
    /// Over QUIC.
    Http3(http3::ResponseHalf),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::ResponseHalf),
}

impl ResponseHalf {
    /// The next response head: any number of 1xx (at most 32), then the final one.
    ///
    /// # Errors
    /// See [`ReceiveError::is_unprocessed`] for whether the request may be tried elsewhere. Cancel-safe.
    pub fn head(
        &mut self,
    ) -> impl Future<Output = Result<http::Response<()>, ReceiveError>> + Send {
        later!(self, response => response.head())
    }

    /// As [`Self::head`]; `None`, if `doubtful` asks for it, while the peer does not acknowledge. The head
    /// may still come.
    ///
    /// # Errors
    /// As [`Self::head`]. Cancel-safe.
    pub fn head_unless(
        &mut self,
        doubtful: bool,
    ) -> impl Future<Output = Result<Option<http::Response<()>>, ReceiveError>> + Send {
        later!(self, response => response.head_unless(doubtful))
    }

    /// The body or tunnel after the final head.
    pub fn into_body(self) -> RecvHalf {
        on!(self, response => response.into_body().into())
    }
}

impl From<http3::ResponseHalf> for ResponseHalf {
    fn from(response: http3::ResponseHalf) -> Self {
        Self::Http3(response)
    }
}

#[cfg(any(test, feature = "testing"))]
impl From<memory::ResponseHalf> for ResponseHalf {
    fn from(it: memory::ResponseHalf) -> Self {
        Self::Memory(it)
    }
}

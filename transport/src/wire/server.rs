//! The serving side: takes connections of proven peers, takes requests whose heads are complete, answers
//! them.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use http::{request, response};

#[cfg(any(test, feature = "testing"))]
use super::memory;
use super::{
    ConnectionError, ConnectionStatus, HandshakeError, Reason, RecvHalf, SendError, SendHalf,
    TurnedAway,
};
use crate::identity::PeerId;
use crate::{endpoint, http3};

/// Takes connections of other sidecars, for one worker.
#[cfg_attr(
    any(test, feature = "testing"),
    expect(clippy::large_enum_variant, reason = "the small one is that of tests")
)]
pub enum Listener {
    /// Over QUIC.
    Http3(endpoint::Listener),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::Listener),
}

impl Listener {
    /// The next connection attempt, or why one got no handshake, for now. `None` once closed.
    pub async fn accept(&self) -> Option<Result<Incoming, TurnedAway>> {
        match self {
            Self::Http3(listener) => {
                let incoming = listener.accept().await?;
                Some(incoming.map(Incoming::Http3))
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(listener) => listener.accept().await.map(Incoming::Memory).map(Ok),
        }
    }

    /// Refuses every connection attempt, until closed.
    pub async fn refuse(&self) {
        on!(self, listener => listener.refuse().await);
    }

    /// Closes every connection in good order, and waits until the peers know of it, at most for `patience`.
    pub async fn close(&self, patience: Duration) {
        match self {
            Self::Http3(listener) => listener.close(patience).await,
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(listener) => listener.close(),
        }
    }
}

impl From<endpoint::Listener> for Listener {
    fn from(listener: endpoint::Listener) -> Self {
        Self::Http3(listener)
    }
}

/// A connection attempt of a peer.
#[cfg_attr(
    any(test, feature = "testing"),
    expect(clippy::large_enum_variant, reason = "the small one is that of tests")
)]
pub enum Incoming {
    /// Over QUIC.
    Http3(endpoint::Incoming),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::Incoming),
}

impl Incoming {
    /// Where it comes from.
    pub fn remote_address(&self) -> SocketAddr {
        on!(self, incoming => incoming.remote_address())
    }

    /// Runs the handshake, to a peer whose identity is proven.
    ///
    /// # Errors
    /// When the peer proves no trusted identity, is too slow, or goes away.
    pub fn handshake(self) -> impl Future<Output = Result<Accepted, HandshakeError>> + Send {
        later!(self, incoming => incoming.handshake().map_ok(Accepted::from))
    }
}

/// A connection whose peer has proven its identity.
pub struct Accepted {
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Its requests.
    pub http: ServerConnection,
    /// Closes the connection when its peer is no longer trusted. Run it beside [`Self::http`].
    pub trust: TrustGuard,
}

impl From<endpoint::Accepted> for Accepted {
    fn from(accepted: endpoint::Accepted) -> Self {
        Self {
            remote: accepted.remote,
            http: ServerConnection::Http3(accepted.http),
            trust: TrustGuard::Http3(accepted.trust),
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl From<memory::Incoming> for Accepted {
    fn from(incoming: memory::Incoming) -> Self {
        let trust = incoming.trust();
        Self {
            remote: incoming.remote_address(),
            http: ServerConnection::Memory(incoming.into_connection()),
            trust: TrustGuard::Memory(trust),
        }
    }
}

/// See [`Accepted::trust`].
pub enum TrustGuard {
    /// Over QUIC.
    Http3(endpoint::TrustGuard),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::TrustGuard),
}

impl TrustGuard {
    /// Done when the connection is over.
    pub fn run(self) -> impl Future<Output = ()> + Send {
        later!(self, guard => guard.run())
    }
}

/// A connection from a proven peer of the mesh.
pub enum ServerConnection {
    /// Over QUIC.
    Http3(http3::ServerConnection),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::ServerConnection),
}

impl ServerConnection {
    /// The identity that the peer proved.
    pub fn peer(&self) -> &PeerId {
        on!(self, connection => connection.peer())
    }

    /// Its figures, for the admin endpoint and the metrics.
    pub fn status(&self) -> ConnectionStatus {
        on!(self, connection => connection.status())
    }

    /// Whether the peer's packets come from another address than at the last call.
    pub fn has_moved(&mut self) -> bool {
        on!(self, connection => connection.has_moved())
    }

    /// Whether the peer's requests had to wait since the last call, because it had cancelled too many soon
    /// after opening them.
    pub fn was_paced(&mut self) -> bool {
        on!(self, connection => connection.was_paced())
    }

    /// The next request whose head is complete and valid. Cancel-safe, and it drives the connection: keep
    /// calling it while the connection should live; dropping `self` closes it.
    ///
    /// `None` is a graceful end: the peer closed in good order, this side closed, or after [`Self::shutdown`]
    /// every accepted exchange is over and the peer had a moment to take the rest; then close it.
    ///
    /// # Errors
    /// The connection ended in another way.
    pub fn accept(
        &mut self,
    ) -> impl Future<Output = Result<Option<ServerRequest>, ConnectionError>> + Send {
        later!(self, connection => connection
            .accept()
            .map_ok(|request| request.map(ServerRequest::from)))
    }

    /// Takes no more requests: those accepted so far go on, later ones are refused as not processed. The
    /// refusal is sent while [`Self::accept`] is being called. Harmless when repeated.
    pub fn shutdown(&mut self) {
        on!(self, connection => connection.shutdown());
    }

    /// Closes the connection at once; exchanges under way are lost.
    pub fn close(&self, reason: Reason) {
        on!(self, connection => connection.close(reason));
    }
}

/// A request whose head has arrived.
pub struct ServerRequest {
    /// Method, URI (scheme, the one authority, path) and headers without `host`.
    pub head: request::Parts,
    /// The body, or for CONNECT the bytes from the client.
    pub recv: RecvHalf,
    /// Answers the request.
    pub respond: Responder,
}

impl From<http3::ServerRequest> for ServerRequest {
    fn from(request: http3::ServerRequest) -> Self {
        Self {
            head: request.head,
            recv: RecvHalf::Http3(request.recv),
            respond: Responder::Http3(request.respond),
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl From<memory::ServerRequest> for ServerRequest {
    fn from(request: memory::ServerRequest) -> Self {
        Self {
            head: request.head,
            recv: RecvHalf::Memory(request.recv),
            respond: Responder::Memory(request.respond),
        }
    }
}

/// Answers one request. Dropped without an answer it resets the stream.
pub enum Responder {
    /// Over QUIC.
    Http3(http3::Responder),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::Responder),
}

impl Responder {
    /// Sends an interim response (1xx, not 101).
    ///
    /// # Errors
    /// When the peer or the connection ends the stream, or HTTP cannot express the head.
    pub fn informational(
        &mut self,
        response: &response::Parts,
    ) -> impl Future<Output = Result<(), SendError>> + Send {
        later!(self, responder => responder.informational(response))
    }

    /// Sends the final head; `end` when no body follows.
    ///
    /// # Errors
    /// When the peer or the connection ends the stream, or HTTP cannot express the head.
    pub fn head(
        self,
        head: &response::Parts,
        end: bool,
    ) -> impl Future<Output = Result<SendHalf, SendError>> + Send {
        self.head_with(head, Bytes::new(), end)
    }

    /// As [`Self::head`], with the first bytes of the body in the same write.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn head_with(
        self,
        head: &response::Parts,
        body: Bytes,
        end: bool,
    ) -> impl Future<Output = Result<SendHalf, SendError>> + Send {
        later!(self, responder => responder.head_with(head, body, end).map_ok(SendHalf::from))
    }

    /// Refuses the request without a response; [`Reason::Unprocessed`] states that it was not processed.
    pub fn reset(self, reason: Reason) {
        on!(self, responder => responder.reset(reason));
    }

    /// Done when the client no longer wants the response. The future holds no part of the responder.
    pub fn stopped(&self) -> impl Future<Output = Option<Reason>> + Send + 'static + use<> {
        later!(self, responder => responder.stopped())
    }
}

//! The client side of a connection (signatures first, the body follows).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::error::{ConnectionError, ErrorCode, OpenError, StreamError};
use super::receive::RecvHalf;
use super::send::SendHalf;
use crate::identity::PeerId;
use crate::pool::ConnectionStatus;
use crate::streams::Streams;

/// One QUIC connection as an HTTP/3 client. Clones are handles to the same connection.
#[derive(Clone)]
pub struct ClientConnection {
    _private: (),
}

impl ClientConnection {
    /// Starts HTTP/3 on a connection whose peer is proven. The driver must be polled (spawned
    /// into the owner's task set) for the connection to work; it ends with the connection.
    ///
    /// Every exchange holds a [`crate::streams::StreamSlot`] (from `streams.enter()`) until both of
    /// its halves are dropped.
    pub(crate) fn new(
        _connection: quinn::Connection,
        _peer: PeerId,
        _streams: Arc<Streams>,
    ) -> (Self, Driver) {
        unimplemented!()
    }

    /// Numbers of the QUIC connection, for the admin endpoint and the metrics.
    pub fn status(&self) -> ConnectionStatus {
        // connection_status(&self.connection, self.streams.open())
        unimplemented!()
    }

    /// Who the peer proved to be.
    pub fn peer(&self) -> &PeerId {
        unimplemented!()
    }

    /// Whether a new request may be opened: not closed, not going away, peer not expired.
    pub fn is_usable(&self) -> bool {
        unimplemented!()
    }

    /// Sends a request head; `end` when no body follows (FIN in the same packet).
    ///
    /// Method, URI with authority, and headers count. CONNECT writes only `:method` and
    /// `:authority`, unless the head's extensions hold a [`super::Protocol`].
    pub async fn open(
        &self,
        head: &http::request::Parts,
        end: bool,
    ) -> Result<(SendHalf, ResponseHalf), OpenError> {
        self.open_with(head, Bytes::new(), end).await
    }

    /// As [`Self::open`], with the first bytes of the body in the same write.
    pub async fn open_with(
        &self,
        _head: &http::request::Parts,
        _body: Bytes,
        _end: bool,
    ) -> Result<(SendHalf, ResponseHalf), OpenError> {
        std::future::ready(()).await;
        unimplemented!()
    }

    /// Closes the connection at once; streams under way are lost.
    pub fn close(&self, _code: ErrorCode) {
        unimplemented!()
    }

    /// Done when the connection has ended.
    pub async fn closed(&self) -> ConnectionError {
        std::future::ready(()).await;
        unimplemented!()
    }
}

/// Runs what belongs to the connection and to no request: SETTINGS, GOAWAY, QPACK streams.
/// Ends with the connection and says why.
pub struct Driver {
    _private: (),
}

impl Future for Driver {
    type Output = ConnectionError;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<ConnectionError> {
        unimplemented!()
    }
}

/// The response to one request.
pub struct ResponseHalf {
    _private: (),
}

impl ResponseHalf {
    /// The next response head: any number of 1xx (at most 32), then the final one.
    pub async fn head(&mut self) -> Result<http::Response<()>, StreamError> {
        std::future::ready(()).await;
        unimplemented!()
    }

    /// The body or tunnel after the final head.
    pub fn into_body(self) -> RecvHalf {
        unimplemented!()
    }
}

//! The server side of a connection (signatures first, the body follows).

use std::sync::Arc;

use bytes::Bytes;

use super::error::{ConnectionError, ErrorCode, StreamError};
use super::receive::RecvHalf;
use super::send::SendHalf;
use crate::identity::PeerId;
use crate::pool::ConnectionStatus;
use crate::streams::Streams;

/// One QUIC connection as an HTTP/3 server.
pub struct ServerConnection {
    _private: (),
}

impl ServerConnection {
    /// Starts HTTP/3 on an accepted connection whose peer is proven.
    ///
    /// Every exchange holds a [`crate::streams::StreamSlot`] (from `streams.enter()`) until both of
    /// its halves are dropped.
    pub(crate) fn new(
        _connection: quinn::Connection,
        _peer: PeerId,
        _streams: Arc<Streams>,
    ) -> Self {
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

    /// The next request whose head is complete and valid. Cancel-safe, and the only driver of
    /// the connection's own streams: keep calling it while the connection is to live.
    ///
    /// `None` is a graceful end: the peer closed with `H3_NO_ERROR`, this side closed, or after
    /// [`Self::shutdown`] every accepted exchange is over.
    pub async fn accept(&mut self) -> Result<Option<ServerRequest>, ConnectionError> {
        std::future::ready(()).await;
        unimplemented!()
    }

    /// Sends GOAWAY: requests accepted so far go on, later ones are refused as not processed.
    pub fn shutdown(&mut self) {
        unimplemented!()
    }

    /// Closes the connection at once; streams under way are lost.
    pub fn close(&self, _code: ErrorCode) {
        unimplemented!()
    }
}

/// A request whose head has arrived.
pub struct ServerRequest {
    /// Method, URI (scheme, the one authority, path) and headers without `host`.
    pub head: http::request::Parts,
    /// The body, or for CONNECT the bytes from the client.
    pub recv: RecvHalf,
    /// Answers the request.
    pub respond: Responder,
}

/// Answers one request. Dropped without an answer it resets the stream.
pub struct Responder {
    _private: (),
}

impl Responder {
    /// Sends an interim response (1xx, not 101).
    pub async fn informational(
        &mut self,
        _response: &http::response::Parts,
    ) -> Result<(), StreamError> {
        std::future::ready(()).await;
        unimplemented!()
    }

    /// Sends the final head; `end` when no body follows (FIN in the same packet).
    pub async fn head(
        self,
        head: &http::response::Parts,
        end: bool,
    ) -> Result<SendHalf, StreamError> {
        self.head_with(head, Bytes::new(), end).await
    }

    /// As [`Self::head`], with the first bytes of the body in the same write.
    pub async fn head_with(
        self,
        _head: &http::response::Parts,
        _body: Bytes,
        _end: bool,
    ) -> Result<SendHalf, StreamError> {
        std::future::ready(()).await;
        unimplemented!()
    }

    /// Refuses the request without a response; `H3_REQUEST_REJECTED` says it was not processed.
    pub fn reset(self, _code: ErrorCode) {
        unimplemented!()
    }
}

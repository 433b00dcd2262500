//! The server side of a connection: takes requests whose heads are complete, answers them.

use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{Method, StatusCode};
use tokio::time::{Sleep, Timeout, sleep, sleep_until, timeout};

use super::client::Driver;
use super::code::ErrorCode;
use super::connection_core::RequestIds;
use super::limits;
use super::message::{decode_request, encode_response};
use super::receive::{NO_HEAD, RecvHalf};
use super::send::SendHalf;
use super::shared::{Exchange, Shared, Side};
use crate::error::{ConnectionError, HeadError, Reason, ReceiveError, SendError};
use crate::identity::{PeerId, SpiffeId};
use crate::limits::DISPLACED_GRACE;
use crate::shares::Place;
use crate::status::ConnectionStatus;
use crate::streams::Streams;

/// A connection from a proven peer of the mesh.
pub struct ServerConnection {
    connection: UnprovenServerConnection,
    peer: PeerId,
    /// The source address of its packets when [`Self::has_moved`] was last called.
    remote: SocketAddr,
    /// Its place among the connections of this worker, by identity.
    place: Place<SpiffeId>,
    /// When it is closed in favour of a newer one, if one came. Most connections never have such an end.
    ends: Option<Pin<Box<Sleep>>>,
}

/// One QUIC connection as an HTTP/3 server, with any peer. The mesh asks for a [`ServerConnection`], which
/// this cannot become; tools outside of the mesh have only this one ([`crate::external`]).
pub struct UnprovenServerConnection {
    shared: Arc<Shared>,
    /// Holds the one driver: a set polls it only when it was woken, not for each request.
    driver: FuturesUnordered<Driver>,
    /// Streams whose heads have begun and not ended.
    pending: FuturesUnordered<Timeout<ReadHead>>,
    ids: RequestIds,
    /// Whether the peer's requests had to wait because it cancelled too many.
    was_paced: bool,
}

impl ServerConnection {
    /// Starts HTTP/3 on an accepted connection whose peer is proven.
    pub(crate) fn new(
        connection: quinn::Connection,
        peer: PeerId,
        streams: Arc<Streams>,
        place: Place<SpiffeId>,
    ) -> Self {
        let expires = Some(peer.not_after());
        let remote = connection.remote_address();
        Self {
            connection: UnprovenServerConnection::start(connection, expires, streams),
            peer,
            remote,
            place,
            ends: None,
        }
    }

    /// Whether the peer's packets come from another address than at the last call: its host moved, or a NAT
    /// on the path gave it another port (RFC 9000 section 9).
    pub fn has_moved(&mut self) -> bool {
        let remote = self.connection.shared.quic.remote_address();
        std::mem::replace(&mut self.remote, remote) != remote
    }

    /// Whether the peer's requests had to wait since the last call, because it had cancelled too many soon
    /// after opening them.
    pub fn was_paced(&mut self) -> bool {
        std::mem::take(&mut self.connection.was_paced)
    }

    /// The identity that the peer proved.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Figures of the QUIC connection, for the admin endpoint and the metrics.
    pub fn status(&self) -> ConnectionStatus {
        self.connection.shared.status()
    }

    /// As [`UnprovenServerConnection::accept`]. A peer whose certificate has expired gets no further request:
    /// that is a [`Self::shutdown`]. The same happens when a newer connection needs this one's place; then
    /// requests under way have [`DISPLACED_GRACE`].
    ///
    /// # Errors
    /// The connection ended in another way.
    pub async fn accept(&mut self) -> Result<Option<ServerRequest>, ConnectionError> {
        loop {
            let displaced = self.ends.is_some();
            let end = async {
                match &mut self.ends {
                    Some(ends) => ends.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                accepted = self.connection.accept() => return accepted,
                () = self.place.taken_back(), if !displaced => {
                    self.ends = Some(Box::pin(sleep(DISPLACED_GRACE)));
                    self.connection.shutdown();
                }
                () = end => {
                    self.connection.close(Reason::NoError);
                    return Ok(None);
                }
            }
        }
    }

    /// As [`UnprovenServerConnection::shutdown`].
    pub fn shutdown(&mut self) {
        self.connection.shutdown();
    }

    /// As [`UnprovenServerConnection::close`].
    pub fn close(&self, reason: Reason) {
        self.connection.close(reason);
    }
}

impl UnprovenServerConnection {
    /// Starts HTTP/3 on a connection with any peer.
    pub(crate) fn new(connection: quinn::Connection, streams: Arc<Streams>) -> Self {
        Self::start(connection, None, streams)
    }

    fn start(
        connection: quinn::Connection,
        expires: Option<SystemTime>,
        streams: Arc<Streams>,
    ) -> Self {
        let shared = Shared::new(connection, expires, streams, Side::Server);
        let driver = FuturesUnordered::from_iter([Driver::new(Arc::clone(&shared))]);
        Self {
            shared,
            driver,
            pending: FuturesUnordered::new(),
            ids: RequestIds::default(),
            was_paced: false,
        }
    }

    /// The next request whose head is complete and valid. Cancel-safe, and the only driver of the
    /// connection's own streams: keep calling it while the connection should live; dropping `self` closes it.
    ///
    /// `None` is a graceful end: the peer closed in good order, this side closed, or after [`Self::shutdown`]
    /// every accepted exchange is over and the peer had a moment to take the rest; then close it.
    ///
    /// # Errors
    /// The connection ended in another way.
    pub async fn accept(&mut self) -> Result<Option<ServerRequest>, ConnectionError> {
        loop {
            if !self.ids.is_shut_down() && self.shared.has_expired(SystemTime::now()) {
                self.shutdown();
            }
            let drained = self.ids.is_shut_down() && self.pending.is_empty();
            let paced = self.shared.paced_until();
            self.was_paced |= paced.is_some();
            let room = self.pending.len() < limits::PENDING_HEADS && paced.is_none();
            let resumes = async {
                match paced {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(error) = self.driver.next() => return graceful(error),
                Some(result) = self.pending.next(), if !self.pending.is_empty() => {
                    // Dropping the halves when the time has passed cancels the stream.
                    if let Ok(Some(request)) = result {
                        return Ok(Some(request));
                    }
                }
                stream = self.shared.quic.accept_bi(), if room => {
                    match stream {
                        Ok((send, receive)) => {
                            if let Some(request) = self.begin(send, receive).await {
                                return Ok(Some(request));
                            }
                        }
                        Err(error) => return graceful(self.shared.lost(error)),
                    }
                }
                () = resumes => {}
                () = drained_for_a_while(&self.shared), if drained => return Ok(None),
            }
        }
    }

    /// Sends GOAWAY: requests accepted so far go on, later ones are refused as not processed. It is sent
    /// while [`Self::accept`] is being called. Harmless when repeated.
    pub fn shutdown(&mut self) {
        if let Some(id) = self.ids.shut_down() {
            self.shared
                .outlook
                .send_modify(|outlook| outlook.goaway = Some(id));
        }
    }

    /// Closes the connection at once; streams under way are lost.
    pub fn close(&self, reason: Reason) {
        let code = ErrorCode::from(reason);
        self.shared.quic.close(code.to_quic(), b"");
    }

    /// Takes a new stream. Usually its head has come with it; if not, it waits among the others.
    async fn begin(
        &mut self,
        mut send: quinn::SendStream,
        mut receive: quinn::RecvStream,
    ) -> Option<ServerRequest> {
        let id = u64::from(receive.id());
        //= https://www.rfc-editor.org/rfc/rfc9114#section-5.2
        //# Servers that rejected a request without any processing SHOULD use
        //# H3_REQUEST_REJECTED
        if !self.ids.take(id) {
            let code = ErrorCode::H3_REQUEST_REJECTED.to_quic();
            // These fail only when the stream is over already.
            let _ = send.reset(code);
            let _ = receive.stop(code);
            return None;
        }
        let (send_guard, receive_guard) = Exchange::begin(&self.shared, receive);
        let mut head = ReadHead {
            halves: Some((
                RecvHalf::new(receive_guard),
                SendHalf::new(send, send_guard),
            )),
        };
        match poll_fn(|cx| Poll::Ready(pin!(&mut head).poll(cx))).await {
            Poll::Ready(request) => request,
            Poll::Pending => {
                self.pending.push(timeout(limits::HEADER_TIMEOUT, head));
                None
            }
        }
    }
}

/// Done when no exchange is left and the peer had time to acknowledge the last one.
async fn drained_for_a_while(shared: &Shared) {
    shared.idle().await;
    sleep(limits::DRAIN_LINGER).await;
}

fn graceful(error: ConnectionError) -> Result<Option<ServerRequest>, ConnectionError> {
    match error {
        ConnectionError::ClosedHere | ConnectionError::ClosedByPeer(Reason::NoError) => Ok(None),
        ConnectionError::ClosedByPeer(_)
        | ConnectionError::PeerViolation { .. }
        | ConnectionError::TimedOut
        | ConnectionError::Reset
        | ConnectionError::Transport(_) => Err(error),
    }
}

/// Reads the head of one stream. `None` when there will be no request.
struct ReadHead {
    halves: Option<(RecvHalf, SendHalf)>,
}

impl Future for ReadHead {
    type Output = Option<ServerRequest>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((recv, _)) = self.halves.as_mut() else {
            return Poll::Ready(None);
        };
        let section = ready!(recv.poll_head(cx));
        let Some((mut recv, send)) = self.halves.take() else {
            return Poll::Ready(None);
        };
        let decoded = section.and_then(|section| {
            decode_request(&section)
                .map_err(|error| recv.shared().message_error(error))
                .map_err(|error| recv.fail(error))
        });
        let (head, length) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                refuse(&error, send, cx);
                return Poll::Ready(None);
            }
        };
        recv.accepted();
        if head.method == Method::CONNECT {
            recv.begin_tunnel();
        } else {
            recv.begin_body(length);
            // A body behind a declared length of 0 would be read by no code.
            recv.look_for_end(cx);
            if let Some(error) = recv.failure() {
                refuse(error, send, cx);
                return Poll::Ready(None);
            }
        }
        let method = head.method.clone();
        Poll::Ready(Some(ServerRequest {
            head,
            recv,
            respond: Responder { send, method },
        }))
    }
}

/// Ends a stream whose head is invalid. It does not wait: an answer that QUIC does not take at once is reset.
fn refuse(error: &ReceiveError, mut send: SendHalf, cx: &mut Context<'_>) {
    let code = match error {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2
        //# A server that receives a larger field section than it is willing to handle can send an
        //# HTTP 431 (Request Header Fields Too Large) status code
        ReceiveError::TooLarge(_) => {
            send.ended_by_peer();
            if start_refusal(&mut send).is_ok() && send.poll_finish(cx).is_ready() {
                return;
            }
            ErrorCode::H3_EXCESSIVE_LOAD
        }
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
        //# If a server does not receive a complete request, it SHOULD abort its response stream
        //# with the error code H3_REQUEST_INCOMPLETE.
        error if *error == NO_HEAD => {
            send.ended_by_peer();
            ErrorCode::H3_REQUEST_INCOMPLETE
        }
        ReceiveError::Malformed(_) => {
            send.ended_by_peer();
            ErrorCode::H3_MESSAGE_ERROR
        }
        ReceiveError::Unprocessed(_) | ReceiveError::Busy | ReceiveError::Reset(_) => {
            send.ended_by_peer();
            ErrorCode::H3_REQUEST_CANCELLED
        }
        ReceiveError::ConnectionLost(_) | ReceiveError::GivenUp | ReceiveError::Misuse(_) => {
            ErrorCode::H3_REQUEST_CANCELLED
        }
    };
    send.reset_with(code);
}

fn start_refusal(send: &mut SendHalf) -> Result<(), SendError> {
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let size_max = send.shared().field_section_size_max();
    let (frame, length) = encode_response(&head, &Method::GET, size_max)?;
    send.start_head(frame, length, Bytes::new())
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
    send: SendHalf,
    method: Method,
}

impl Responder {
    /// Sends an interim response (1xx, not 101).
    ///
    /// # Errors
    /// When the peer or the connection ends the stream, or HTTP cannot express the head.
    pub async fn informational(
        &mut self,
        response: &http::response::Parts,
    ) -> Result<(), SendError> {
        if !response.status.is_informational() {
            return Err(HeadError::InvalidStatus.into());
        }
        self.start(response, Bytes::new())?;
        self.send.send_head(false).await
    }

    /// Sends the final head; `end` when no body follows (FIN in the same packet).
    ///
    /// # Errors
    /// When the peer or the connection ends the stream, or HTTP cannot express the head.
    pub async fn head(
        self,
        head: &http::response::Parts,
        end: bool,
    ) -> Result<SendHalf, SendError> {
        self.head_with(head, Bytes::new(), end).await
    }

    /// As [`Self::head`], with the first bytes of the body in the same write.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub async fn head_with(
        mut self,
        head: &http::response::Parts,
        body: Bytes,
        end: bool,
    ) -> Result<SendHalf, SendError> {
        if head.status.is_informational() {
            return Err(HeadError::InvalidStatus.into());
        }
        self.start(head, body)?;
        self.send.send_head(end).await?;
        Ok(self.send)
    }

    /// Refuses the request without a response; [`Reason::Unprocessed`] states that it was not processed.
    pub fn reset(mut self, reason: Reason) {
        self.send.reset(reason);
    }

    /// Done when the client no longer wants the response. The future holds no part of the responder.
    pub fn stopped(&self) -> impl Future<Output = Option<Reason>> + Send + 'static + use<> {
        self.send.stopped()
    }

    fn start(&mut self, head: &http::response::Parts, body: Bytes) -> Result<(), SendError> {
        let size_max = self.send.shared().field_section_size_max();
        let (frame, length) = encode_response(head, &self.method, size_max)?;
        self.send.start_head(frame, length, body)
    }
}

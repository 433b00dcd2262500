//! The client side of a connection: opens requests, reads responses.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::code::ErrorCode;
use super::message::{decode_response, encode_request};
use super::peer_streams;
use super::receive::RecvHalf;
use super::send::SendHalf;
use super::shared::{Exchange, Outlook, Shared, Side};
use super::turns::StreamQueue;
use crate::acknowledged::asked_for;
use crate::error::{
    ConnectionError, HeadError, OpenError, Reason, ReceiveError, SendError, Unprocessed,
};
use crate::identity::PeerId;
use crate::liveness::Sample;
use crate::response_heads::{Follows, ResponseHeads};
use crate::status::ConnectionStatus;
use crate::streams::Streams;

/// A connection to a proven peer of the mesh. Clones are handles to the same connection.
#[derive(Clone)]
pub struct ClientConnection {
    connection: UnprovenConnection,
    peer: Arc<PeerId>,
}

impl ClientConnection {
    /// Starts HTTP/3 on a connection whose peer is proven. The driver must be polled (spawned
    /// into the owner's task set) for the connection to work; it ends with the connection.
    pub(crate) fn new(
        connection: quinn::Connection,
        peer: PeerId,
        streams: Arc<Streams>,
    ) -> (Self, Driver) {
        let expires = Some(peer.not_after());
        let (connection, driver) = UnprovenConnection::start(connection, expires, streams);
        let peer = Arc::new(peer);
        (Self { connection, peer }, driver)
    }

    /// The identity that the peer proved.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }
}

impl std::ops::Deref for ClientConnection {
    type Target = UnprovenConnection;

    fn deref(&self) -> &UnprovenConnection {
        &self.connection
    }
}

/// The result of opening a stream.
type Opened = Result<Fresh, OpenError>;

/// One QUIC connection as an HTTP/3 client, with any peer. The mesh asks for a [`ClientConnection`], which
/// this cannot become; tools outside of the mesh have only this one ([`crate::external`]). Clones are handles
/// to the same connection.
#[derive(Clone)]
pub struct UnprovenConnection {
    shared: Arc<Shared>,
    turns: Arc<StreamQueue<Opened>>,
}

impl UnprovenConnection {
    /// Starts HTTP/3 on a connection whose peer is not proven. The driver must be polled.
    pub(crate) fn new(connection: quinn::Connection, streams: Arc<Streams>) -> (Self, Driver) {
        Self::start(connection, None, streams)
    }

    fn start(
        connection: quinn::Connection,
        expires: Option<SystemTime>,
        streams: Arc<Streams>,
    ) -> (Self, Driver) {
        let shared = Shared::new(connection, expires, streams, Side::Client);
        let driver = Driver::new(Arc::clone(&shared));
        let turns = Arc::default();
        (Self { shared, turns }, driver)
    }

    /// Figures of the QUIC connection, for the admin endpoint and the metrics.
    pub fn status(&self) -> ConnectionStatus {
        self.shared.status()
    }

    /// Whether a new request may be opened: not closed, not going away, peer not expired.
    pub fn is_usable(&self) -> bool {
        !self.is_draining() && self.shared.quic.close_reason().is_none()
    }

    /// Sends a request head; `end` when no body follows (FIN in the same packet).
    ///
    /// Method, URI with authority, and headers count. CONNECT writes only `:method` and `:authority`.
    ///
    /// # Errors
    /// See [`OpenError::is_unprocessed`] for whether the request may be tried elsewhere. Waits
    /// until the peer allows one more stream; the caller sets the deadline, see [`Self::crowded_for`].
    pub async fn open(
        &self,
        head: &http::request::Parts,
        end: bool,
    ) -> Result<(SendHalf, ResponseHalf), OpenError> {
        self.open_with(head, Bytes::new(), end).await
    }

    /// As [`Self::open`], with the first bytes of the body in the same write.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(
        &self,
        head: &http::request::Parts,
        body: Bytes,
        end: bool,
    ) -> Result<(SendHalf, ResponseHalf), OpenError> {
        self.reserve().await?.send(head, body, end).await
    }

    /// Waits until the peer allows one more stream. The peer learns of the stream only when the head is sent,
    /// which can then carry the time that is left. Cancel-safe.
    ///
    /// # Errors
    /// The connection takes no new requests, or has ended.
    pub async fn reserve(&self) -> Result<Reserved, OpenError> {
        if self.is_draining() {
            return Err(OpenError::Draining);
        }
        let stream = self.open_stream().await?;
        Ok(Reserved {
            shared: Arc::clone(&self.shared),
            stream,
        })
    }

    /// How long requests have waited, without a break, until the peer allows one more stream. Zero if none
    /// waits.
    pub fn crowded_for(&self, now: Instant) -> Duration {
        self.turns.crowded_for(now)
    }

    /// The time that a packet and its acknowledgement usually take.
    pub fn round_trip(&self) -> Duration {
        self.shared.quic.rtt()
    }

    /// Marks the peer as silent for good, or not. While it is marked, requests that wait for a response head
    /// fail; bodies and tunnels under way wait for the idle timeout, because networks recover.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.shared.outlook.send_if_modified(|outlook| {
            let changed = outlook.silent != silent;
            outlook.silent = silent;
            changed
        });
    }

    /// Marks the peer as doubtful: its acknowledgements are overdue. Requests that may go elsewhere then do,
    /// and the others wait.
    pub(crate) fn set_doubtful(&self, doubtful: bool) {
        self.shared.outlook.send_if_modified(|outlook| {
            let changed = outlook.doubtful != doubtful;
            outlook.doubtful = doubtful;
            changed
        });
    }

    /// Whether a request that may go elsewhere should: the peer is shutting down, or does not acknowledge.
    pub fn is_doubtful(&self) -> bool {
        self.is_draining() || self.shared.outlook.borrow().doubtful
    }

    /// Closes the connection at once; streams under way are lost. `detail` is for the peer's logs.
    pub fn close(&self, reason: Reason, detail: &'static str) {
        let code = ErrorCode::from(reason);
        self.shared.quic.close(code.to_quic(), detail.as_bytes());
    }

    /// Whether it has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.quic.close_reason().is_some()
    }

    /// Requests under way.
    pub(crate) fn open_exchanges(&self) -> u32 {
        self.shared.streams.open()
    }

    /// The signs by which liveness is judged.
    pub(crate) fn sample(&self) -> Sample {
        let stats = self.shared.quic.stats();
        Sample {
            received: stats.udp_rx.datagrams,
            eliciting: asked_for(&self.shared.quic),
            rtt: stats.path.rtt,
        }
    }

    /// The QUIC connection below.
    pub(crate) fn quic(&self) -> &quinn::Connection {
        &self.shared.quic
    }

    /// Done when the connection has ended.
    pub async fn closed(&self) -> ConnectionError {
        let error = self.shared.quic.closed().await;
        self.shared.lost(error)
    }

    /// Done when the first HTTP/3 bytes of the peer have come. In TLS 1.3 a client's handshake is done before
    /// the server has judged its certificate (RFC 8446 section 4.4.2); after these bytes, it has.
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn greeted(&self) -> Result<(), ConnectionError> {
        let mut settings = self.shared.settings.subscribe();
        tokio::select! {
            // `self` holds the sender.
            _ = settings.wait_for(Option::is_some) => Ok(()),
            error = self.closed() => Err(error),
        }
    }

    /// Done when no request is under way on this connection.
    pub async fn idle(&self) {
        self.shared.idle().await;
    }

    fn is_draining(&self) -> bool {
        self.shared.outlook.borrow().goaway.is_some() || self.shared.has_expired(SystemTime::now())
    }

    async fn open_stream(&self) -> Opened {
        let mut outlook = self.shared.outlook.subscribe();
        // Not `changed()`: the change may have come between the check and the subscription.
        let draining = outlook.wait_for(|outlook| outlook.goaway.is_some());
        tokio::select! {
            biased;
            // First, because it is usually ready; then the other is not registered at all.
            opened = self.turns.take(|| self.open_unless_draining()) => opened,
            _ = draining => Err(OpenError::Draining),
        }
    }

    /// Credit for streams and a GOAWAY may have come together.
    async fn open_unless_draining(&self) -> Opened {
        let mut opening = std::pin::pin!(self.shared.quic.open_bi());
        let opened = poll_fn(|cx| {
            //= https://www.rfc-editor.org/rfc/rfc9114#section-5.2
            //# Endpoints MUST NOT initiate new requests or promise new pushes on the connection
            //# after receipt of a GOAWAY frame from the peer.
            if self.is_draining() {
                return Poll::Ready(None);
            }
            opening.as_mut().poll(cx).map(Some)
        });
        match opened.await {
            None => Err(OpenError::Draining),
            Some(Ok(stream)) => Ok(Fresh(Some(stream))),
            Some(Err(error)) => Err(OpenError::ConnectionLost(self.shared.lost(error))),
        }
    }
}

/// A stream of which the peer knows nothing yet. Dropping it leaves no trace of a request.
struct Fresh(Option<(quinn::SendStream, quinn::RecvStream)>);

impl Drop for Fresh {
    fn drop(&mut self) {
        // QUIC would end the stream in good order, and an empty request breaks HTTP's rules.
        if let Some((mut send, mut receive)) = self.0.take() {
            let code = ErrorCode::H3_REQUEST_CANCELLED.to_quic();
            // These fail only when the stream is over already.
            let _ = send.reset(code);
            let _ = receive.stop(code);
        }
    }
}

/// Leave to send one request.
pub struct Reserved {
    shared: Arc<Shared>,
    stream: Fresh,
}

impl Reserved {
    /// Sends a request head with the first bytes of the body; `end` when no more follows.
    ///
    /// # Errors
    /// As [`UnprovenConnection::open`]. It waits only while a head is larger than QUIC takes at once.
    pub async fn send(
        mut self,
        head: &http::request::Parts,
        body: Bytes,
        end: bool,
    ) -> Result<(SendHalf, ResponseHalf), OpenError> {
        let shared = &self.shared;
        let (frame, length) = encode_request(head, shared.field_section_size_max())?;
        // Another waiting request may have handed on the stream, and a GOAWAY may have come in between.
        if shared.outlook.borrow().goaway.is_some() {
            return Err(OpenError::Draining);
        }
        let Some((send, receive)) = self.stream.0.take() else {
            return Err(OpenError::Draining);
        };
        let stream_id = u64::from(receive.id());
        let (send_guard, receive_guard) = Exchange::begin(shared, receive);
        let mut send = SendHalf::new(send, send_guard);
        let response = ResponseHalf {
            stream_id,
            recv: RecvHalf::new(receive_guard),
            heads: ResponseHeads::new(head.method.clone()),
        };
        send.start_head(frame, length, body)
            .map_err(|_| HeadError::InvalidContentLength)?;
        match send.send_head(end).await {
            Ok(()) => Ok((send, response)),
            // The head may have arrived whole and been acted on: the response half knows the outcome, and the
            // request does not count as unprocessed.
            Err(SendError::Stopped(_) | SendError::ConnectionLost(_)) if send.has_begun() => {
                Ok((send, response))
            }
            Err(SendError::ConnectionLost(error)) => Err(error.into()),
            Err(SendError::Stopped(reason)) => Err(OpenError::Stopped(reason)),
            Err(SendError::InvalidHead(error)) => Err(error.into()),
            Err(SendError::Misuse(_)) => Err(HeadError::InvalidContentLength.into()),
        }
    }
}

/// Runs the streams that belong to the connection and to no request: SETTINGS, GOAWAY, QPACK streams. Ends
/// with the connection and returns why. Dropping it earlier closes the connection, which cannot live without
/// its control streams.
#[must_use = "the connection works only while its driver is polled"]
pub struct Driver {
    connection: quinn::Connection,
    future: Pin<Box<dyn Future<Output = ConnectionError> + Send>>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            connection: shared.quic.clone(),
            future: Box::pin(peer_streams::drive(shared)),
        }
    }
}

impl Future for Driver {
    type Output = ConnectionError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        self.future.as_mut().poll(cx)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Closing a connection that has ended would replace the reason that its streams and logs report.
        if self.connection.close_reason().is_none() {
            self.connection.close(ErrorCode::H3_NO_ERROR.to_quic(), b"");
        }
    }
}

/// The response to one request. Dropping it before its end cancels the rest of the response.
pub struct ResponseHalf {
    stream_id: u64,
    recv: RecvHalf,
    heads: ResponseHeads,
}

impl ResponseHalf {
    /// The next response head: any number of 1xx (at most 32), then the final one.
    ///
    /// # Errors
    /// See [`ReceiveError::is_unprocessed`] for whether the request may be tried elsewhere.
    /// Cancel-safe.
    pub async fn head(&mut self) -> Result<http::Response<()>, ReceiveError> {
        let head = self.head_unless(false).await?;
        head.ok_or(ReceiveError::Misuse("no doubt was asked for"))
    }

    /// As [`Self::head`]; `None`, if `doubtful` asks for it, while the peer does not acknowledge. The head
    /// may still come.
    ///
    /// # Errors
    /// As [`Self::head`]. Cancel-safe.
    pub async fn head_unless(
        &mut self,
        doubtful: bool,
    ) -> Result<Option<http::Response<()>>, ReceiveError> {
        let section = self.section(doubtful).await;
        let Some(section) = section.map_err(|error| self.heads.judged(error))? else {
            return Ok(None);
        };
        let decoded = decode_response(&section, self.heads.method());
        let (head, length) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                let error = self.recv.shared().message_error(error);
                return Err(self.recv.fail(error));
            }
        };
        match self.heads.came(&head) {
            Err(error) => return Err(self.recv.fail(error)),
            Ok(Follows::Head) => {}
            Ok(Follows::Tunnel) => self.recv.begin_tunnel(),
            Ok(Follows::Body) => {
                self.recv.begin_body(length);
                poll_fn(|cx| {
                    self.recv.look_for_end(cx);
                    Poll::Ready(())
                })
                .await;
            }
        }
        Ok(Some(http::Response::from_parts(head, ())))
    }

    /// The body or tunnel after the final head.
    pub fn into_body(self) -> RecvHalf {
        self.recv
    }

    /// Waits for a head, or for the news that none will come: a GOAWAY, or a silent peer.
    async fn section(&mut self, doubtful: bool) -> Result<Option<Bytes>, ReceiveError> {
        let mut outlook = self.recv.shared().outlook.subscribe();
        let stream_id = self.stream_id;
        //= https://www.rfc-editor.org/rfc/rfc9114#section-5.2
        //# Requests on stream IDs greater than or equal to the indicated value will not be
        //# processed
        let refused = |outlook: &Outlook| outlook.goaway.is_some_and(|id| stream_id >= id);
        let in_doubt = |outlook: &Outlook| doubtful && outlook.doubtful;
        let unanswerable =
            outlook.wait_for(|outlook| refused(outlook) || outlook.silent || in_doubt(outlook));
        let (refused, silent) = tokio::select! {
            biased;
            section = poll_fn(|cx| self.recv.poll_head(cx)) => return section.map(Some),
            outlook = unanswerable => outlook.map_or((false, true), |outlook| (refused(&outlook), outlook.silent)),
        };
        if !refused && !silent {
            return Ok(None);
        }
        Err(self.recv.fail(if refused {
            ReceiveError::Unprocessed(Unprocessed::GoingAway)
        } else {
            ConnectionError::TimedOut.into()
        }))
    }
}

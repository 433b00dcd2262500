//! The serving side in memory.

use std::future::{Future, Ready, poll_fn, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, request, response};

use super::client::{closed, status};
use super::halves::{Half, SendHalf};
use super::link::{Link, Piece, Side, State};
use super::receive::{RecvHalf, message_error};
use crate::error::{ConnectionError, HeadError, Reason, ReceiveError, SendError};
use crate::http3::{BodyLength, FIELD_SECTION_SIZE, decode_request, encode_response, section};
use crate::identity::PeerId;
use crate::status::ConnectionStatus;
use crate::wire::HandshakeError;

/// See [`crate::wire::Incoming`].
pub struct Incoming {
    pub(super) remote: SocketAddr,
    pub(super) connection: ServerConnection,
}

impl Incoming {
    pub(in crate::wire) fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// Takes no time, and cannot fail: the network has compared identities.
    pub(in crate::wire) fn handshake(self) -> Ready<Result<Self, HandshakeError>> {
        ready(Ok(self))
    }

    pub(in crate::wire) fn trust(&self) -> TrustGuard {
        TrustGuard(Arc::clone(&self.connection.link))
    }

    pub(in crate::wire) fn into_connection(self) -> ServerConnection {
        self.connection
    }
}

/// See [`crate::wire::TrustGuard`]. Here all peers are trusted for ever.
pub struct TrustGuard(Arc<Link>);

impl TrustGuard {
    pub(in crate::wire) async fn run(self) {
        closed(&self.0, Side::Server).await;
    }
}

/// See [`crate::wire::ServerConnection`].
pub struct ServerConnection {
    pub(super) link: Arc<Link>,
    pub(super) peer: PeerId,
}

impl ServerConnection {
    /// Allows this many exchanges at once from here on.
    pub fn allow(&self, exchanges: usize) {
        self.link.change(|state| state.exchanges_max = exchanges);
    }

    /// The connection breaks: both sides get this reason.
    pub fn lose(&self, error: &ConnectionError) {
        self.link.end(error.clone(), error.clone());
    }

    pub(in crate::wire) fn peer(&self) -> &PeerId {
        &self.peer
    }

    pub(in crate::wire) fn status(&self) -> ConnectionStatus {
        status(&self.link)
    }

    #[expect(clippy::unused_self, reason = "as on the other wires")]
    pub(in crate::wire) fn has_moved(&mut self) -> bool {
        false
    }

    #[expect(clippy::unused_self, reason = "as on the other wires")]
    pub(in crate::wire) fn was_paced(&mut self) -> bool {
        false
    }

    pub(in crate::wire) async fn accept(
        &mut self,
    ) -> Result<Option<ServerRequest>, ConnectionError> {
        loop {
            let next = poll_fn(|cx| self.link.poll(cx, next)).await?;
            let Some((id, head)) = next else {
                return Ok(None);
            };
            let half = Half {
                link: Arc::clone(&self.link),
                id,
                side: Side::Server,
            };
            let begun = poll_fn(|cx| Poll::Ready(begin(half.twin(), &head, cx))).await;
            let mut send = SendHalf::new(half);
            match begun {
                Ok((head, recv)) => {
                    let method = head.method.clone();
                    return Ok(Some(ServerRequest {
                        head,
                        recv,
                        respond: Responder { send, method },
                    }));
                }
                Err(()) => send.reset(Reason::Malformed),
            }
        }
    }

    pub(in crate::wire) fn shutdown(&mut self) {
        self.link.change(State::shut_down);
    }

    pub(in crate::wire) fn close(&self, reason: Reason) {
        self.link.close(Side::Server, reason);
    }
}

/// The next request's head.
fn next(state: &mut State) -> Poll<Result<Option<(u64, Bytes)>, ConnectionError>> {
    match state.ended(Side::Server) {
        None => {}
        Some(ConnectionError::ClosedHere | ConnectionError::ClosedByPeer(Reason::NoError)) => {
            return Poll::Ready(Ok(None));
        }
        Some(error) => return Poll::Ready(Err(error)),
    }
    while let Some(id) = state.arriving.pop_front() {
        let flow = state.flow(id, Side::Client);
        let given_up = flow.as_ref().is_none_or(|flow| flow.reset.is_some());
        match flow.and_then(|flow| flow.pieces.pop_front()) {
            Some(Piece::Head(head)) if !given_up => return Poll::Ready(Ok(Some((id, head)))),
            Some(_) | None => {
                // As over the other wires, a request that was cancelled gets no answer.
                if let Some(flow) = state.flow(id, Side::Server) {
                    flow.reset = Some(ReceiveError::Reset(Reason::Cancelled));
                }
                state.release(id, Side::Server, 2);
            }
        }
    }
    if state.goaway.is_some() && state.under_way() == 0 {
        return Poll::Ready(Ok(None));
    }
    Poll::Pending
}

fn begin(half: Half, head: &Bytes, cx: &mut Context<'_>) -> Result<(request::Parts, RecvHalf), ()> {
    let mut recv = RecvHalf::new(half);
    let decoded: Result<_, _> = decode_request(head);
    let (head, length): (request::Parts, BodyLength) = decoded.map_err(|error| {
        recv.fail(message_error(error));
    })?;
    if head.method == Method::CONNECT {
        recv.begin_tunnel();
    } else {
        recv.begin_body(length, cx);
    }
    Ok((head, recv))
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        self.link.close(Side::Server, Reason::NoError);
    }
}

/// See [`crate::wire::ServerRequest`].
pub(in crate::wire) struct ServerRequest {
    pub(in crate::wire) head: request::Parts,
    pub(in crate::wire) recv: RecvHalf,
    pub(in crate::wire) respond: Responder,
}

/// See [`crate::wire::Responder`].
pub struct Responder {
    send: SendHalf,
    method: Method,
}

impl Responder {
    /// Answers with a message that breaks HTTP's rules, as a faulty peer does.
    pub fn malformed(mut self, reason: &'static str) {
        self.send.malformed(reason);
    }

    pub(in crate::wire) fn informational(
        &mut self,
        response: &response::Parts,
    ) -> Ready<Result<(), SendError>> {
        ready(match response.status.is_informational() {
            true => self.say(response, Bytes::new(), false),
            false => Err(HeadError::InvalidStatus.into()),
        })
    }

    pub(in crate::wire) fn head_with(
        mut self,
        head: &response::Parts,
        body: Bytes,
        end: bool,
    ) -> Ready<Result<SendHalf, SendError>> {
        ready(match head.status.is_informational() {
            true => Err(HeadError::InvalidStatus.into()),
            false => self.say(head, body, end).map(|()| self.send),
        })
    }

    pub(in crate::wire) fn reset(mut self, reason: Reason) {
        self.send.reset(reason);
    }

    pub(in crate::wire) fn stopped(
        &self,
    ) -> impl Future<Output = Option<Reason>> + Send + 'static + use<> {
        self.send.stopped()
    }

    fn say(&mut self, head: &response::Parts, body: Bytes, end: bool) -> Result<(), SendError> {
        let (frame, length) = encode_response(head, &self.method, FIELD_SECTION_SIZE)?;
        self.send.head(section(frame), length, body, end)
    }
}

/// See [`crate::wire::Listener`].
pub struct Listener {
    pub(super) seat: Arc<super::Seat>,
}

impl Listener {
    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.seat.address
    }

    pub(in crate::wire) async fn accept(&self) -> Option<Incoming> {
        poll_fn(|cx| self.seat.poll_accept(cx)).await
    }

    pub(in crate::wire) async fn refuse(&self) {
        self.seat.refuse();
        std::future::pending().await
    }

    pub(in crate::wire) fn close(&self) {
        self.seat.close();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.seat.close();
    }
}

//! The request on its way from the peer to the application, with its body. A small body is kept until an
//! answer begins, because the request may have to be sent again.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use weft_transport::locks::lock;
use weft_transport::wire::{Reason as Why, ReceiveError, RecvHalf};

use super::pace::Pace;
use crate::failure::{Failure, Reason};
use crate::http::content::Content;
use crate::http::fields;
use crate::http::upload::{ReplayMemory, Sending, Upload};
use crate::limits;

/// A request body as it comes from the peer, or from the own application. Counts the bytes that pass, for the
/// idle timeout and the log.
pub(crate) struct RequestBody {
    recv: Option<Origin>,
    /// Read ahead to learn whether there is a body at all.
    first: Option<Frame<Bytes>>,
    moved: Option<Arc<Moved>>,
}

/// Where a body comes from.
enum Origin {
    /// A peer.
    Peer(RecvHalf),
    /// A client of this sidecar itself: the application, on its way out of the mesh, or a caller without
    /// mutual TLS.
    Own(Sending<Content>),
}

impl Origin {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        match self {
            Self::Peer(recv) => Pin::new(recv).poll_frame(cx),
            // The application broke off.
            Self::Own(sending) => Pin::new(sending)
                .poll_frame(cx)
                .map_err(|_| ReceiveError::GivenUp),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Peer(recv) => recv.is_end_stream(),
            Self::Own(sending) => sending.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Peer(recv) => recv.size_hint(),
            Self::Own(sending) => sending.size_hint(),
        }
    }
}

/// The bytes that have passed in one exchange.
#[derive(Default)]
pub(crate) struct Moved {
    /// Payload bytes from the caller to the application.
    pub(crate) sent: AtomicU64,
    /// Payload bytes from the application to the caller.
    pub(crate) received: AtomicU64,
    /// Whether the caller's whole request was handed to the application's connection.
    request_ended: AtomicBool,
    /// Whether an interim response declared content.
    interim_declared_content: AtomicBool,
    rest: Mutex<Rest>,
    /// How the request came.
    pub(crate) pace: Pace,
}

/// Handles the rest of a request once hyper has dropped its body. Whether the peer is told of success is
/// known only when there is an answer, or when it is certain that none comes; either may be later.
#[derive(Default)]
enum Rest {
    #[default]
    Wanted,
    LetGo(Box<RecvHalf>),
    Answered,
}

impl Moved {
    /// There is an answer. If it needs no more of the request, that is no error.
    pub(crate) fn answered(&self) {
        let before = std::mem::replace(&mut *lock(&self.rest), Rest::Answered);
        if let Rest::LetGo(recv) = before {
            stop(*recv);
        }
    }

    /// No more of the request is read.
    fn let_go(&self, recv: RecvHalf) {
        let mut rest = lock(&self.rest);
        match *rest {
            Rest::Answered => {
                drop(rest);
                stop(recv);
            }
            Rest::Wanted | Rest::LetGo(_) => *rest = Rest::LetGo(Box::new(recv)),
        }
    }

    /// Changes whenever anything moves.
    pub(crate) fn total(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) + self.received.load(Ordering::Relaxed)
    }

    /// An interim response declared content, which it never has (RFC 9110 section 15.2).
    pub(super) fn interim_declared_content(&self) {
        self.interim_declared_content.store(true, Ordering::Relaxed);
    }

    /// The request is handed over from its beginning.
    fn begins(&self) {
        self.request_ended.store(false, Ordering::Relaxed);
    }

    /// The whole request was handed over.
    fn ends(&self) {
        self.request_ended.store(true, Ordering::Relaxed);
    }

    /// Payload bytes of the request that were handed on; none once it is whole.
    pub(crate) fn sent_of_unfinished(&self) -> Option<u64> {
        let ended = self.request_ended.load(Ordering::Relaxed);
        (!ended).then(|| self.sent.load(Ordering::Relaxed))
    }

    /// Whether the exchange lets the application's connection live on: the whole request was handed over, and
    /// no interim response declared content.
    pub(crate) fn leaves_no_doubt(&self) -> bool {
        self.request_ended.load(Ordering::Relaxed)
            && !self.interim_declared_content.load(Ordering::Relaxed)
    }
}

/// The rest of the request is not needed for its answer.
///
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
//# The H3_NO_ERROR error code SHOULD be used when requesting that the client stop sending on the request
//# stream.
pub(crate) fn stop(recv: RecvHalf) {
    if !recv.is_end_stream() {
        recv.stop(Why::NoError);
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(Origin::Peer(recv)), Some(moved)) = (self.recv.take(), &self.moved) {
            moved.let_go(recv);
        }
    }
}

impl RequestBody {
    /// The bytes from the peer.
    pub(crate) fn new(recv: RecvHalf, moved: Arc<Moved>) -> Self {
        Self {
            recv: Some(Origin::Peer(recv)),
            first: None,
            moved: Some(moved),
        }
    }

    /// The bytes from the application beside this sidecar, if there are any.
    pub(crate) fn own(sending: Option<Sending<Content>>, moved: Arc<Moved>) -> Self {
        Self {
            recv: sending.map(Origin::Own),
            first: None,
            moved: Some(moved),
        }
    }

    /// There is none.
    #[cfg(test)]
    pub(super) fn none(moved: Arc<Moved>) -> Self {
        Self {
            recv: None,
            first: None,
            moved: Some(moved),
        }
    }

    /// Where the bytes are counted.
    pub(super) fn moved(&self) -> Option<&Arc<Moved>> {
        self.moved.as_ref()
    }

    /// Whether no more comes, as far as is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.recv.as_ref().is_none_or(Origin::is_end_stream)
    }

    /// Ready when it is known whether there is any body.
    ///
    /// # Errors
    /// When the peer breaks off before.
    pub(crate) fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReceiveError>> {
        let Some(recv) = &mut self.recv else {
            return Poll::Ready(Ok(()));
        };
        match ready!(recv.poll_frame(cx)) {
            None => self.recv = None,
            Some(Ok(frame)) => self.first = Some(frame),
            Some(Err(error)) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        let this = self.get_mut();
        let frame = match (this.first.take(), &mut this.recv) {
            (Some(first), _) => Some(Ok(first)),
            (None, Some(recv)) => match recv.poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if let Some(moved) = &this.moved {
                        moved.pace.waits(Instant::now());
                    }
                    return Poll::Pending;
                }
            },
            (None, None) => None,
        };
        if let Some(moved) = &this.moved
            && moved.pace.is_waiting()
        {
            moved.pace.comes(Instant::now());
        }
        if frame.is_none() {
            this.recv = None;
        }
        if let Some(Ok(frame)) = &frame
            && frame.trailers_ref().is_some_and(fields::has_twin)
        {
            let error =
                ReceiveError::Misuse("a trailer that applications take for one of the mesh");
            return Poll::Ready(Some(Err(error)));
        }
        let frame = frame.map(|outcome| {
            outcome.map(|frame| match frame.into_data() {
                Ok(data) => {
                    if let Some(moved) = &this.moved {
                        moved.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
                    }
                    Frame::data(data)
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(mut trailers) => {
                        fields::strip_trailers(&mut trailers);
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                },
            })
        });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.first, &self.recv) {
            (None, Some(recv)) => recv.size_hint(),
            (Some(_), Some(_)) => SizeHint::default(),
            (_, None) => SizeHint::with_exact(0),
        }
    }
}

/// A request that the application should get once, or again if that is safe.
pub(crate) struct Outgoing {
    /// None while a connection has its only copy.
    head: Option<Parts>,
    idempotent: bool,
    /// None if there is no body.
    upload: Option<Arc<Upload<RequestBody>>>,
    moved: Option<Arc<Moved>>,
}

impl Outgoing {
    /// No byte of it is sent yet. The bytes kept of its body are taken from `room`.
    pub(crate) fn new(request: Request<RequestBody>, room: &Arc<ReplayMemory>) -> Self {
        let (head, body) = request.into_parts();
        let moved = body.moved.clone();
        // A body that is known to be larger is not kept at all.
        let most = match limits::APPLICATION_REPLAY_BYTES_MAX {
            most if body.size_hint().lower() > most as u64 => 0,
            most => most,
        };
        let upload = (!body.is_empty()).then(|| Upload::new(body, most, Arc::clone(room)));
        Self {
            idempotent: head.method.is_idempotent(),
            head: Some(head),
            upload,
            moved,
        }
    }

    /// Whether its method may be executed twice (RFC 9110 section 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// Whether it could be sent from its beginning.
    pub(crate) fn is_whole(&self) -> bool {
        let body = |upload: &Arc<Upload<_>>| upload.is_repeatable();
        self.head.is_some() && self.upload.as_ref().is_none_or(body)
    }

    /// The request from its beginning. With `keep` it stays here, too, for another attempt.
    pub(super) fn take(&mut self, keep: bool) -> Result<(Parts, OutgoingBody), Failure> {
        let head = if keep {
            self.head.clone()
        } else {
            self.head.take()
        };
        let head = head.ok_or_else(|| Failure::new(Reason::Internal, "no request to send"))?;
        let body = OutgoingBody {
            sending: self.upload.as_ref().map(Upload::attempt),
            moved: self.moved.clone(),
        };
        if let Some(moved) = &body.moved {
            moved.begins();
        }
        body.look_for_end();
        Ok((head, body))
    }

    /// A connection gave it back untouched.
    pub(super) fn put_back(&mut self, request: Request<OutgoingBody>) {
        self.head = Some(request.into_parts().0);
    }

    /// An answer begins: the request will not be sent again.
    pub(super) fn settle(&self) {
        if let Some(upload) = &self.upload {
            upload.settle();
        }
    }
}

/// The body of one attempt. Notes when all of it was handed over.
pub(crate) struct OutgoingBody {
    sending: Option<Sending<RequestBody>>,
    moved: Option<Arc<Moved>>,
}

impl OutgoingBody {
    /// hyper asks for no more once it has the declared length.
    fn look_for_end(&self) {
        if let Some(moved) = &self.moved
            && (self.is_end_stream() || self.size_hint().exact() == Some(0))
        {
            moved.ends();
        }
    }
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        let this = self.get_mut();
        let frame = match &mut this.sending {
            Some(sending) => ready!(Pin::new(sending).poll_frame(cx)),
            None => None,
        };
        match &frame {
            None => {
                this.sending = None;
                this.look_for_end();
            }
            Some(Ok(_)) => this.look_for_end(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.sending.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.sending {
            Some(sending) => sending.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

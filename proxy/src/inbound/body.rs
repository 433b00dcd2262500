//! The request body on its way from the peer to the application.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use weft_transport::http3::{ErrorCode, RecvHalf, StreamError};

use super::pace::Pace;
use crate::http::fields;
use crate::metrics::lock;

/// A request body that hyper reads. Counts what moves, for the idle timeout and the log.
pub(crate) struct RequestBody {
    recv: Option<RecvHalf>,
    /// Read ahead to learn whether there is a body at all.
    first: Option<Frame<Bytes>>,
    moved: Option<Arc<Moved>>,
}

/// What has passed of one exchange.
#[derive(Default)]
pub(crate) struct Moved {
    /// Payload bytes from the caller to the application.
    pub(crate) sent: AtomicU64,
    /// Payload bytes from the application to the caller.
    pub(crate) received: AtomicU64,
    /// Whether the caller's whole request was handed to the application's connection.
    request_ended: AtomicBool,
    /// Whether an interim response spoke of content.
    interim_declared_content: AtomicBool,
    rest: Mutex<Rest>,
    /// How the request came.
    pub(super) pace: Pace,
}

/// What becomes of the rest of a request whose body nobody reads on. Whether the peer hears that all is well with it is
/// known once there is an answer, or will be none, and hyper may let go of the body before that.
#[derive(Default)]
enum Rest {
    #[default]
    Wanted,
    LetGo(RecvHalf),
    Answered,
}

impl Moved {
    /// There is an answer: if it wants no more of the request, that is no error.
    pub(super) fn answered(&self) {
        let before = std::mem::replace(&mut *lock(&self.rest), Rest::Answered);
        if let Rest::LetGo(recv) = before {
            stop(recv);
        }
    }

    /// Nobody reads on.
    fn let_go(&self, recv: RecvHalf) {
        let mut rest = lock(&self.rest);
        match *rest {
            Rest::Answered => {
                drop(rest);
                stop(recv);
            }
            Rest::Wanted | Rest::LetGo(_) => *rest = Rest::LetGo(recv),
        }
    }

    /// Changes whenever anything moves.
    pub(crate) fn total(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) + self.received.load(Ordering::Relaxed)
    }

    /// An interim response spoke of content, which it never has (RFC 9110 section 15.2).
    pub(super) fn interim_declared_content(&self) {
        self.interim_declared_content.store(true, Ordering::Relaxed);
    }

    /// Payload bytes of the request that were handed on; none once it is whole.
    pub(super) fn sent_of_unfinished(&self) -> Option<u64> {
        let ended = self.request_ended.load(Ordering::Relaxed);
        (!ended).then(|| self.sent.load(Ordering::Relaxed))
    }

    /// Whether the application's connection may live as far as the course of the exchange tells: the whole
    /// request was handed to it, and no interim response spoke of content.
    pub(super) fn leaves_no_doubt(&self) -> bool {
        self.request_ended.load(Ordering::Relaxed)
            && !self.interim_declared_content.load(Ordering::Relaxed)
    }
}

/// The rest of the request is not needed for its answer.
///
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
//# The H3_NO_ERROR error code SHOULD be used when requesting that the client stop sending on the request stream.
pub(super) fn stop(recv: RecvHalf) {
    if !recv.is_end_stream() {
        recv.stop(ErrorCode::H3_NO_ERROR);
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(recv), Some(moved)) = (self.recv.take(), &self.moved) {
            moved.let_go(recv);
        }
    }
}

impl RequestBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self {
            recv: None,
            first: None,
            moved: None,
        }
    }

    /// What the peer sends.
    pub(crate) fn new(recv: RecvHalf, moved: Arc<Moved>) -> Self {
        let body = Self {
            recv: Some(recv),
            first: None,
            moved: Some(moved),
        };
        body.look_for_end();
        body
    }

    /// Notes when nothing more comes: hyper asks for no more once it has what was declared.
    fn look_for_end(&self) {
        if let Some(moved) = &self.moved
            && (self.is_empty() || self.size_hint().exact() == Some(0))
        {
            moved.request_ended.store(true, Ordering::Relaxed);
        }
    }

    /// Where it is counted what passes.
    pub(super) fn moved(&self) -> Option<&Arc<Moved>> {
        self.moved.as_ref()
    }

    /// Whether nothing will come, as far as is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.recv.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Ready when it is known whether there is any body.
    ///
    /// # Errors
    /// When the peer breaks off before.
    pub(crate) fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let Some(recv) = &mut self.recv else {
            return Poll::Ready(Ok(()));
        };
        match ready!(Pin::new(recv).poll_frame(cx)) {
            None => {
                self.recv = None;
                self.look_for_end();
            }
            Some(Ok(frame)) => self.first = Some(frame),
            Some(Err(error)) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let this = self.get_mut();
        let frame = match (this.first.take(), &mut this.recv) {
            (Some(first), _) => Some(Ok(first)),
            (None, Some(recv)) => match Pin::new(recv).poll_frame(cx) {
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
        this.look_for_end();
        if let Some(Ok(frame)) = &frame
            && frame.trailers_ref().is_some_and(fields::has_twin)
        {
            let error = StreamError::Misuse("a trailer that applications take for one of the mesh");
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

//! The request body on its way from the peer to the application.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use weft_transport::http3::{RecvHalf, StreamError};

use crate::http::fields;

/// A request body that hyper reads. Counts what moves, for the idle timeout and the log.
pub(crate) struct RequestBody {
    recv: Option<RecvHalf>,
    /// Read ahead to learn whether there is a body at all.
    first: Option<Frame<Bytes>>,
    moved: Option<Arc<Moved>>,
}

/// Payload bytes of one exchange that have passed.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// From the caller to the application.
    pub(crate) sent: AtomicU64,
    /// From the application to the caller.
    pub(crate) received: AtomicU64,
}

impl Moved {
    /// Changes whenever anything moves.
    pub(crate) fn total(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) + self.received.load(Ordering::Relaxed)
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
        Self {
            recv: Some(recv),
            first: None,
            moved: Some(moved),
        }
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
            None => self.recv = None,
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
            (None, Some(recv)) => ready!(Pin::new(recv).poll_frame(cx)),
            (None, None) => None,
        };
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

//! The two directions of an exchange, for both sides. A tunnel (CONNECT) is the same two halves with bytes
//! instead of a body.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

#[cfg(any(test, feature = "testing"))]
use super::memory;
use super::{Reason, ReceiveError, SendError};
use crate::http3;

/// The sending half of an exchange. Dropped before [`SendHalf::finish`] it resets the stream
/// ([`Reason::Cancelled`]), so that a broken body never looks complete.
///
/// Every operation is cancel-safe: bytes that a cancelled call has queued are sent before those of the next
/// call.
pub enum SendHalf {
    /// Over QUIC.
    Http3(http3::SendHalf),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::SendHalf),
}

impl SendHalf {
    /// Sends a piece of the body; done when the wire has taken it (back-pressure).
    ///
    /// # Errors
    /// When the peer or the connection ends the stream, or the body exceeds its length.
    pub async fn send_data(&mut self, data: Bytes) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_data(data)?;
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Sends the trailers and ends the stream. Fields that trailers may not hold are left out.
    ///
    /// # Errors
    /// As [`SendHalf::finish`], and when HTTP cannot express the trailers.
    pub fn send_trailers<'a>(
        &'a mut self,
        trailers: &'a HeaderMap,
    ) -> impl Future<Output = Result<(), SendError>> + Send {
        later!(self, half => half.send_trailers(trailers))
    }

    /// Ends the stream cleanly after all queued bytes. Harmless when repeated.
    ///
    /// # Errors
    /// When the peer or the connection ends the stream, or the body is shorter than declared.
    pub fn finish(&mut self) -> impl Future<Output = Result<(), SendError>> + Send {
        later!(self, half => half.finish())
    }

    /// Ends the stream at once and tells the peer why; unsent bytes are lost.
    pub fn reset(&mut self, reason: Reason) {
        on!(self, half => half.reset(reason));
    }

    /// Done when the peer will read no more: `Some(reason)` when it asked to stop, `None` when all was
    /// acknowledged after the end or the connection is gone. The future holds no part of the half.
    pub fn stopped(&self) -> impl Future<Output = Option<Reason>> + Send + 'static + use<> {
        later!(self, half => half.stopped())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        on!(self, half => half.poll_ready(cx))
    }

    fn start_data(&mut self, data: Bytes) -> Result<(), SendError> {
        on!(self, half => half.start_data(data))
    }
}

impl From<http3::SendHalf> for SendHalf {
    fn from(half: http3::SendHalf) -> Self {
        Self::Http3(half)
    }
}

#[cfg(any(test, feature = "testing"))]
impl From<memory::SendHalf> for SendHalf {
    fn from(it: memory::SendHalf) -> Self {
        Self::Memory(it)
    }
}

/// The receiving half of an exchange: a body with trailers, or one direction of a tunnel.
///
/// Dropped before its end it tells the peer to stop sending ([`Reason::Cancelled`]).
pub enum RecvHalf {
    /// Over QUIC.
    Http3(http3::RecvHalf),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::RecvHalf),
}

impl RecvHalf {
    /// Appends received payload to `chunks`, many at once; returns how many were appended.
    ///
    /// `0` is the clean end. Trailers, if there were any, are then to be had from [`Self::take_trailers`].
    pub fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<usize, ReceiveError>> {
        on!(self, half => half.poll_chunks(cx, chunks))
    }

    /// The trailers, once [`Self::poll_chunks`] has come to the end.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        on!(self, half => half.take_trailers())
    }

    /// Whether the message ends here. Waits until more of it or its end has come, takes the end, and leaves
    /// anything else for the next read. It is for heads that must say whether a body follows.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        on!(self, half => half.poll_end(cx))
    }

    /// Tells the peer to stop sending, and why.
    ///
    /// [`Reason::NoError`] is for a server whose response is complete without the rest of the request.
    pub fn stop(self, reason: Reason) {
        on!(self, half => half.stop(reason));
    }
}

impl From<http3::RecvHalf> for RecvHalf {
    fn from(half: http3::RecvHalf) -> Self {
        Self::Http3(half)
    }
}

#[cfg(any(test, feature = "testing"))]
impl From<memory::RecvHalf> for RecvHalf {
    fn from(it: memory::RecvHalf) -> Self {
        Self::Memory(it)
    }
}

impl Body for RecvHalf {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        on!(self.get_mut(), half => Pin::new(half).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        on!(self, half => half.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        on!(self, half => half.size_hint())
    }
}

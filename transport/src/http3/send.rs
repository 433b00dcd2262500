//! The sending half of a stream (signatures first, the body follows).

use std::future::Future;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::error::{ErrorCode, StreamError};

/// The sending half of an exchange. Dropped before [`SendHalf::finish`] it resets the stream
/// (`H3_REQUEST_CANCELLED`), so that a broken body never looks complete.
///
/// Every operation is cancel-safe: what a cancelled call has queued goes out before what follows.
pub struct SendHalf {
    _private: (),
}

impl SendHalf {
    /// Ready when all that was queued has been handed to QUIC.
    pub fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        unimplemented!()
    }

    /// Queues one DATA frame; call after [`SendHalf::poll_ready`] and then poll that again.
    ///
    /// # Errors
    /// When the body would exceed its declared content-length.
    pub fn start_data(&mut self, _data: Bytes) -> Result<(), StreamError> {
        unimplemented!()
    }

    /// As [`SendHalf::start_data`] with several chunks, which are drained, in one DATA frame.
    ///
    /// # Errors
    /// When the body would exceed its declared content-length.
    pub fn start_chunks(&mut self, _chunks: &mut Vec<Bytes>) -> Result<(), StreamError> {
        unimplemented!()
    }

    /// Sends one DATA frame; done when QUIC has taken it (back-pressure).
    pub async fn send_data(&mut self, data: Bytes) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_data(data)?;
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Sends several chunks, which are drained, in one DATA frame.
    pub async fn send_chunks(&mut self, chunks: &mut Vec<Bytes>) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_chunks(chunks)?;
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Sends the trailers and ends the stream.
    pub async fn send_trailers(&mut self, _trailers: &HeaderMap) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Ends the stream cleanly (FIN) after all that was queued.
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Ends the stream at once with a code; what is unsent is lost.
    pub fn reset(&mut self, _code: ErrorCode) {
        unimplemented!()
    }

    /// Done when the peer will read no more: `Some(code)` when it asked to stop, `None` when all
    /// was acknowledged after the end or the connection is gone. Holds nothing of the half.
    pub fn stopped(&self) -> impl Future<Output = Option<ErrorCode>> + Send + 'static + use<> {
        async { None }
    }
}

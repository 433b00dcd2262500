//! The sending half of a stream: head, DATA frames, trailers and the end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::HeaderMap;

use super::code::ErrorCode;
use super::frame::{HEADER_MAX, put_data_header};
use super::message::{BodyLength, encode_trailers};
use super::shared::{HalfGuard, Shared};
use crate::error::{ConnectionError, Reason, SendError};

/// Room for many frame headers in one allocation.
const HEADERS_CAPACITY: usize = 256;

/// The sending half of an exchange. Dropped before [`SendHalf::finish`] it resets the stream
/// (`H3_REQUEST_CANCELLED`), so that a broken body never looks complete.
///
/// Every operation is cancel-safe: bytes that a cancelled call has queued are sent before those of the next
/// call.
pub struct SendHalf {
    stream: quinn::SendStream,
    guard: HalfGuard,
    /// Bytes that QUIC has not taken yet; empty between calls that were not cancelled.
    queue: Vec<Bytes>,
    /// The buffer in which headers of DATA frames are built.
    headers: BytesMut,
    length: BodyLength,
    state: State,
    /// QUIC has taken some bytes: the peer may see them.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    TrailersQueued,
    Ended,
}

impl SendHalf {
    pub(super) fn new(stream: quinn::SendStream, guard: HalfGuard) -> Self {
        Self {
            stream,
            guard,
            queue: Vec::new(),
            headers: BytesMut::new(),
            length: BodyLength::UNDECLARED,
            state: State::Open,
            begun: false,
        }
    }

    /// Ready when all queued bytes have been handed to QUIC.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while !self.queue.is_empty() {
            // The future holds no state of its own between polls, so it need not be kept.
            let result = ready!(pin!(self.stream.write_chunks(&mut self.queue)).poll(cx));
            match result {
                Ok(written) => {
                    self.begun = true;
                    self.guard.shared().streams.wrote(written.bytes);
                    self.queue.drain(..written.chunks);
                }
                Err(error) => {
                    self.queue.clear();
                    return Poll::Ready(Err(self.write_error(error)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Queues one DATA frame; call it after [`SendHalf::poll_ready`], and then poll that again.
    ///
    /// # Errors
    /// When the body would exceed its declared content-length.
    pub fn start_data(&mut self, data: Bytes) -> Result<(), SendError> {
        if self.begin_data(data.len())? {
            self.queue.push(data);
        }
        Ok(())
    }

    /// As [`SendHalf::start_data`] with several chunks, which are drained, in one DATA frame.
    ///
    /// # Errors
    /// When the body would exceed its declared content-length.
    pub fn start_chunks(&mut self, chunks: &mut Vec<Bytes>) -> Result<(), SendError> {
        if self.begin_data(chunks.iter().map(Bytes::len).sum())? {
            self.queue.append(chunks);
        }
        chunks.clear();
        Ok(())
    }

    /// Sends one DATA frame; done when QUIC has taken it (back-pressure).
    ///
    /// # Errors
    /// When the peer or the connection ends the stream, or the body exceeds its length.
    pub async fn send_data(&mut self, data: Bytes) -> Result<(), SendError> {
        self.flush().await?;
        self.start_data(data)?;
        self.flush().await
    }

    /// Sends several chunks, which are drained, in one DATA frame.
    ///
    /// # Errors
    /// As [`SendHalf::send_data`].
    pub async fn send_chunks(&mut self, chunks: &mut Vec<Bytes>) -> Result<(), SendError> {
        self.flush().await?;
        self.start_chunks(chunks)?;
        self.flush().await
    }

    /// Sends the trailers and ends the stream. Fields that trailers may not hold are left out.
    ///
    /// # Errors
    /// As [`SendHalf::finish`], and when HTTP cannot express the trailers.
    pub async fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<(), SendError> {
        self.flush().await?;
        if self.state != State::Open {
            return Err(SendError::Misuse("the body is over"));
        }
        let size_max = self.guard.shared().field_section_size_max();
        let frame = encode_trailers(trailers, size_max)?;
        self.queue.push(frame.freeze());
        self.state = State::TrailersQueued;
        self.finish().await
    }

    /// Ends the stream cleanly (FIN) after all queued bytes. Harmless when repeated.
    ///
    /// # Errors
    /// When the peer or the connection ends the stream, or the body is shorter than declared.
    pub async fn finish(&mut self) -> Result<(), SendError> {
        self.flush().await?;
        self.end()
    }

    /// Ends the stream at once with a reason; unsent bytes are lost.
    pub fn reset(&mut self, reason: Reason) {
        self.reset_with(reason.into());
    }

    /// As [`Self::reset`], with a code.
    pub(super) fn reset_with(&mut self, code: ErrorCode) {
        self.queue.clear();
        if self.state != State::Ended {
            if let Some(Ok(Some(_))) = self.stream.stopped().now_or_never() {
                self.guard.ended_by_peer();
            }
            // Fails only when the stream is over already.
            let _ = self.stream.reset(code.to_quic());
            self.state = State::Ended;
        }
    }

    /// Done when the peer will read no more: `Some(reason)` when it asked to stop, `None` when all was
    /// acknowledged after the end or the connection is gone. The future holds no part of the half.
    pub fn stopped(&self) -> impl Future<Output = Option<Reason>> + Send + 'static + use<> {
        let stopped = self.stream.stopped();
        async move {
            let code = stopped.await.ok().flatten()?;
            Some(ErrorCode::from_quic(code).reason())
        }
    }

    /// Queues a head, and with it the first bytes of the body.
    pub(super) fn start_head(
        &mut self,
        mut head: BytesMut,
        length: BodyLength,
        body: Bytes,
    ) -> Result<(), SendError> {
        self.length = length;
        if !self.length.take(body.len()) {
            return Err(SendError::Misuse("more body than content-length"));
        }
        if !body.is_empty() {
            put_data_header(body.len() as u64, &mut head);
        }
        self.queue.push(head.freeze());
        if !body.is_empty() {
            self.queue.push(body);
        }
        Ok(())
    }

    /// Waits until QUIC has the head, and when `end`, until it has everything and the stream has ended.
    pub(super) async fn send_head(&mut self, end: bool) -> Result<(), SendError> {
        if end {
            return self.finish().await;
        }
        // Once only the body is left the caller may go on: the answer may come before the peer takes the
        // body.
        let with_body = self.queue.len() > 1;
        poll_fn(|cx| match self.poll_ready(cx) {
            Poll::Pending if with_body && self.queue.len() == 1 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(result),
        })
        .await
    }

    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        ready!(self.poll_ready(cx))?;
        Poll::Ready(self.end())
    }

    /// The peer made this side end the stream.
    pub(super) fn ended_by_peer(&self) {
        self.guard.ended_by_peer();
    }

    /// Whether the peer may have seen any byte of this half.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn shared(&self) -> &Shared {
        self.guard.shared()
    }

    fn end(&mut self) -> Result<(), SendError> {
        if self.state == State::Ended {
            return Ok(());
        }
        if !self.length.is_complete() {
            return Err(SendError::Misuse("less body than content-length"));
        }
        self.stream
            .finish()
            .map_err(|_| SendError::Misuse("the stream is closed"))?;
        self.state = State::Ended;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Queues the header of a DATA frame; `false` when there is nothing to send.
    fn begin_data(&mut self, length: usize) -> Result<bool, SendError> {
        if self.state != State::Open {
            return Err(SendError::Misuse("the body is over"));
        }
        if length == 0 {
            return Ok(false);
        }
        if !self.length.take(length) {
            return Err(SendError::Misuse("more body than content-length"));
        }
        if self.headers.capacity() < HEADER_MAX {
            self.headers.reserve(HEADERS_CAPACITY);
        }
        put_data_header(length as u64, &mut self.headers);
        self.queue.push(self.headers.split().freeze());
        Ok(true)
    }

    fn write_error(&mut self, error: quinn::WriteError) -> SendError {
        match error {
            quinn::WriteError::Stopped(code) => {
                self.guard.ended_by_peer();
                SendError::Stopped(ErrorCode::from_quic(code).reason())
            }
            quinn::WriteError::ConnectionLost(error) => self.guard.shared().lost(error).into(),
            quinn::WriteError::ClosedStream => SendError::Misuse("the stream is closed"),
            quinn::WriteError::ZeroRttRejected => {
                ConnectionError::Transport("0-RTT rejected".into()).into()
            }
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        // QUIC would finish the stream, and a body cut short would look complete.
        self.reset(Reason::Cancelled);
    }
}

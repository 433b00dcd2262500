//! The receiving half of a stream: frames to head, body, trailers or tunnelled bytes.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::chunks::Chunks;
use super::code::ErrorCode;
use super::frame::{Event, FrameReader, StreamKind};
use super::limits;
use super::message::{BodyLength, decode_trailers};
use super::shared::{HalfGuard, Shared, Side};
use crate::error::{ConnectionError, Reason, ReceiveError, Unprocessed};
use crate::limits::SHORT_BODY;
use crate::streams::LongBody;

/// The receiving half of an exchange: a body with trailers, or one direction of a tunnel.
///
/// Dropped before its end it tells the peer to stop sending (`H3_REQUEST_CANCELLED`).
pub struct RecvHalf {
    guard: HalfGuard,
    frames: FrameReader,
    chunks: Chunks,
    finished: bool,
    phase: Phase,
    length: BodyLength,
    /// While much may come.
    long: Option<LongBody>,
    trailers: Option<Box<HeaderMap>>,
}

/// The stream ended where a head was expected.
pub(super) const NO_HEAD: ReceiveError = ReceiveError::Malformed("the stream ended without a head");

/// What may come next.
#[derive(Debug)]
enum Phase {
    /// A head.
    Head,
    /// DATA, trailers or the end.
    Body,
    /// DATA or the end.
    Tunnel,
    /// The end only.
    AfterTrailers,
    /// Nothing: the end was seen.
    Ended,
    /// Nothing: every further read returns this.
    Failed(ReceiveError),
}

impl RecvHalf {
    pub(super) fn new(guard: HalfGuard) -> Self {
        let client = guard.shared().side == Side::Client;
        Self {
            guard,
            frames: FrameReader::new(StreamKind::Request { client }),
            chunks: Chunks::default(),
            finished: false,
            phase: Phase::Head,
            length: BodyLength::UNDECLARED,
            long: None,
            trailers: None,
        }
    }

    /// Appends received payload to `chunks`, many at once; returns how many were appended.
    ///
    /// `0` is the clean end (FIN); a reset is [`ReceiveError::Reset`] with its reason. Trailers, if
    /// there were any, are then to be had from [`Self::take_trailers`].
    pub fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<usize, ReceiveError>> {
        let Some(data) = ready!(self.poll_data(cx))? else {
            return Poll::Ready(Ok(0));
        };
        chunks.push(data);
        let mut count = 1;
        // Chunks that have arrived are returned first; an error among them is for the next call.
        while matches!(self.phase, Phase::Body | Phase::Tunnel) && !self.chunks.is_empty() {
            let next = match self.frames.next(&mut self.chunks) {
                Ok(None) => break,
                Ok(Some(event)) => self.payload(event),
                Err(error) => Err(self.guard.shared().frame_error(error)),
            };
            match next {
                Ok(Some(data)) => {
                    chunks.push(data);
                    count += 1;
                }
                Ok(None) => {}
                Err(error) => {
                    self.fail(error);
                }
            }
        }
        Poll::Ready(Ok(count))
    }

    /// The trailers, once [`Self::poll_chunks`] has come to the end.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(|trailers| *trailers)
    }

    /// Whether the message ends here. Waits until more of it or its end has come, takes the end, and leaves
    /// anything else for the next read. It is for heads that must say whether a body follows.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while matches!(self.phase, Phase::Body) && self.chunks.is_empty() {
            let seen = match (self.finished, self.frames.is_between_frames()) {
                (true, true) => self.end(),
                // A truncated frame, which the next read reports.
                (true, false) => break,
                (false, _) => ready!(self.poll_fill(cx)),
            };
            if let Err(error) = seen {
                self.fail(error);
            }
        }
        Poll::Ready(matches!(self.phase, Phase::Ended))
    }

    /// Tells the peer to stop sending, and why.
    ///
    /// [`Reason::NoError`] is for a server whose response is complete without the rest of the request.
    pub fn stop(mut self, reason: Reason) {
        self.stop_stream(reason.into());
    }

    /// The encoded field section of the next head.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, ReceiveError>> {
        if let Phase::Failed(error) = &self.phase {
            return Poll::Ready(Err(error.clone()));
        }
        let head = match ready!(self.poll_event(cx)) {
            Ok(Some(Event::Headers(section))) => Ok(section),
            Ok(Some(Event::Data(_) | Event::Control(..))) => {
                Err(self.unexpected("DATA before HEADERS"))
            }
            Ok(None) => Err(NO_HEAD),
            Err(error) => Err(error),
        };
        Poll::Ready(head.map_err(|error| self.fail(error)))
    }

    /// After the final head: the kind of content that follows it.
    pub(super) fn begin_body(&mut self, length: BodyLength) {
        self.length = length;
        self.phase = Phase::Body;
        self.guard.streams().message_came();
        // Without a declared length, the end may have arrived already.
        if length.left().is_some() {
            self.note_long_body();
        }
    }

    /// After the head of a tunnel.
    pub(super) fn begin_tunnel(&mut self) {
        self.phase = Phase::Tunnel;
        self.guard.streams().message_came();
        self.note_long_body();
    }

    fn note_long_body(&mut self) {
        let long = self.length.left().is_none_or(|left| left > SHORT_BODY);
        if long && self.long.is_none() && matches!(self.phase, Phase::Body | Phase::Tunnel) {
            self.long = Some(self.guard.streams().long_body());
        }
    }

    /// Why nothing more can be read.
    pub(super) fn failure(&self) -> Option<&ReceiveError> {
        match &self.phase {
            Phase::Failed(error) => Some(error),
            Phase::Head | Phase::Body | Phase::Tunnel | Phase::AfterTrailers | Phase::Ended => None,
        }
    }

    /// The request is handed out to be served.
    pub(super) fn accepted(&self) {
        self.guard.accepted();
    }

    pub(super) fn shared(&self) -> &Shared {
        self.guard.shared()
    }

    /// Ends this half with an error found in the peer's message. Returns it for convenience.
    pub(super) fn fail(&mut self, error: ReceiveError) -> ReceiveError {
        match &error {
            //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2
            //# Malformed requests or responses that are detected MUST be treated as a stream
            //# error of type H3_MESSAGE_ERROR.
            ReceiveError::Malformed(_) => {
                self.guard.ended_by_peer();
                self.stop_stream(ErrorCode::H3_MESSAGE_ERROR);
            }
            //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
            //# the server MAY request that the client stop transmission of a request without error by
            //# aborting reading of the request stream with error code H3_NO_ERROR
            ReceiveError::TooLarge(_) if self.awaits_request() => {
                self.guard.ended_by_peer();
                self.stop_stream(ErrorCode::H3_NO_ERROR);
            }
            ReceiveError::TooLarge(_) => {
                self.guard.ended_by_peer();
                self.stop_stream(ErrorCode::H3_EXCESSIVE_LOAD);
            }
            ReceiveError::Unprocessed(Unprocessed::Refused)
            | ReceiveError::Busy
            | ReceiveError::Reset(_) => self.guard.ended_by_peer(),
            ReceiveError::Unprocessed(Unprocessed::GoingAway) => {
                self.stop_stream(ErrorCode::H3_REQUEST_CANCELLED);
            }
            ReceiveError::ConnectionLost(_) | ReceiveError::GivenUp | ReceiveError::Misuse(_) => {}
        }
        self.long = None;
        self.phase = Phase::Failed(error.clone());
        error
    }

    /// The next payload; `None` at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReceiveError>> {
        loop {
            match &self.phase {
                Phase::Body | Phase::Tunnel | Phase::AfterTrailers => {}
                Phase::Ended => return Poll::Ready(Ok(None)),
                Phase::Failed(error) => return Poll::Ready(Err(error.clone())),
                Phase::Head => {
                    return Poll::Ready(Err(ReceiveError::Misuse("the head was not read")));
                }
            }
            let payload = match ready!(self.poll_event(cx)) {
                Ok(Some(event)) => self.payload(event),
                Ok(None) => self.end().map(|()| None),
                Err(error) => Err(error),
            };
            match payload {
                Ok(Some(data)) => return Poll::Ready(Ok(Some(data))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            }
        }
    }

    /// After the last declared byte: takes the end if it has arrived. Readers that know the length ask for no
    /// more, and an unread end would cancel the stream.
    pub(super) fn look_for_end(&mut self, cx: &mut Context<'_>) {
        while self.length.left() == Some(0)
            && matches!(self.phase, Phase::Body | Phase::AfterTrailers)
        {
            let seen = match self.poll_event(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(None)) => self.end(),
                Poll::Ready(Ok(Some(event))) => self.payload(event).map(drop),
                Poll::Ready(Err(error)) => Err(error),
            };
            if let Err(error) = seen {
                self.fail(error);
            }
        }
    }

    /// Judges a frame after the head. `None` for trailers, which are kept.
    fn payload(&mut self, event: Event) -> Result<Option<Bytes>, ReceiveError> {
        match (event, &self.phase) {
            (Event::Data(data), Phase::Body) => {
                //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2
                //# a Content-Length header field whose value does not equal the sum of the DATA
                //# frame lengths received
                if !self.length.take(data.len()) {
                    return Err(ReceiveError::Malformed("more body than content-length"));
                }
                Ok(Some(data))
            }
            (Event::Data(data), Phase::Tunnel) => Ok(Some(data)),
            (Event::Headers(section), Phase::Body) => {
                if !self.length.is_complete() {
                    return Err(ReceiveError::Malformed("less body than content-length"));
                }
                let trailers = decode_trailers(&section)
                    .map_err(|error| self.guard.shared().message_error(error))?;
                self.trailers = Some(Box::new(trailers));
                self.phase = Phase::AfterTrailers;
                Ok(None)
            }
            //= https://www.rfc-editor.org/rfc/rfc9114#section-4.4
            //# Receipt of any other known frame type MUST be treated as a connection error of
            //# type H3_FRAME_UNEXPECTED.
            (Event::Headers(_), Phase::Tunnel) => Err(self.unexpected("HEADERS in a tunnel")),
            //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
            //# Receipt of an invalid sequence of frames MUST be treated as a connection error of
            //# type H3_FRAME_UNEXPECTED.
            _ => Err(self.unexpected("a frame after the trailers")),
        }
    }

    fn end(&mut self) -> Result<(), ReceiveError> {
        if !self.length.is_complete() {
            return Err(ReceiveError::Malformed("less body than content-length"));
        }
        self.long = None;
        self.phase = Phase::Ended;
        Ok(())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, ReceiveError>> {
        loop {
            match self.frames.next(&mut self.chunks) {
                Ok(None) => {}
                Ok(Some(event)) => return Poll::Ready(Ok(Some(event))),
                Err(error) => return Poll::Ready(Err(self.guard.shared().frame_error(error))),
            }
            if self.finished {
                if self.frames.is_between_frames() {
                    return Poll::Ready(Ok(None));
                }
                let error = self
                    .guard
                    .shared()
                    .violation(ErrorCode::H3_FRAME_ERROR, "a truncated frame");
                return Poll::Ready(Err(error.into()));
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    /// Takes the bytes that QUIC has: few packets while a head is awaited, many at once in a body.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReceiveError>> {
        match self.phase {
            Phase::Head => self.poll_read::<{ limits::CHUNKS_PER_HEAD_READ }>(cx),
            Phase::Body
            | Phase::Tunnel
            | Phase::AfterTrailers
            | Phase::Ended
            | Phase::Failed(_) => self.poll_read::<{ limits::CHUNKS_PER_READ }>(cx),
        }
    }

    fn poll_read<const CHUNKS: usize>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ReceiveError>> {
        let mut read = [const { Bytes::new() }; CHUNKS];
        let Some(result) = self.guard.read(|stream| {
            // The future holds no state of its own between polls, so it need not be kept.
            pin!(stream.read_chunks(&mut read)).poll(cx)
        }) else {
            return Poll::Ready(Err(ReceiveError::GivenUp));
        };
        if !matches!(result, Poll::Ready(Ok(None) | Err(_))) {
            self.note_long_body();
        }
        match ready!(result) {
            Ok(Some(count)) => {
                for chunk in read.into_iter().take(count) {
                    self.chunks.push(chunk);
                }
                Poll::Ready(Ok(()))
            }
            Ok(None) => {
                self.finished = true;
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.read_error(error))),
        }
    }

    fn read_error(&self, error: quinn::ReadError) -> ReceiveError {
        match error {
            quinn::ReadError::Reset(code) => {
                ReceiveError::reset(ErrorCode::from_quic(code).reason())
            }
            quinn::ReadError::ConnectionLost(error) => self.guard.shared().lost(error).into(),
            quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead => {
                ReceiveError::Misuse("the stream is closed")
            }
            quinn::ReadError::ZeroRttRejected => {
                ConnectionError::Transport("0-RTT rejected".into()).into()
            }
        }
    }

    fn unexpected(&self, reason: &'static str) -> ReceiveError {
        self.guard
            .shared()
            .violation(ErrorCode::H3_FRAME_UNEXPECTED, reason)
            .into()
    }

    /// A server has not seen the whole head of the request yet, and so can still answer it.
    fn awaits_request(&self) -> bool {
        self.guard.shared().side == Side::Server && matches!(self.phase, Phase::Head)
    }

    fn stop_stream(&mut self, code: ErrorCode) {
        self.guard.stop_receiving(code);
        self.long = None;
        self.phase = Phase::Ended;
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        // QUIC would send STOP_SENDING with code 0, which has no meaning in HTTP/3.
        match self.phase {
            Phase::Ended | Phase::Failed(_) => self.guard.end_receiving(),
            Phase::Head | Phase::Body | Phase::Tunnel | Phase::AfterTrailers => {
                self.stop_stream(ErrorCode::H3_REQUEST_CANCELLED);
            }
        }
    }
}

impl Body for RecvHalf {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        let this = self.get_mut();
        match ready!(this.poll_data(cx)) {
            Ok(Some(data)) => {
                this.look_for_end(cx);
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(None) => {
                let trailers = this.take_trailers();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.phase, Phase::Ended) && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .left()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

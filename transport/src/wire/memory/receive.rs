//! The receiving half of an exchange in memory: pieces to head, body, trailers or tunnelled bytes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::halves::Half;
use super::link::Piece;
use crate::error::{Reason, ReceiveError, Unprocessed};
use crate::http3::{BodyLength, MessageError, decode_trailers};

/// See [`crate::wire::RecvHalf`].
pub struct RecvHalf {
    half: Half,
    phase: Phase,
    length: BodyLength,
    trailers: Option<Box<HeaderMap>>,
}

/// What may come next, as over HTTP/3.
enum Phase {
    Head,
    Body,
    Tunnel,
    AfterTrailers,
    Ended,
    Failed(ReceiveError),
}

impl RecvHalf {
    pub(super) fn new(half: Half) -> Self {
        Self {
            half,
            phase: Phase::Head,
            length: BodyLength::UNDECLARED,
            trailers: None,
        }
    }

    pub(super) fn half(&self) -> &Half {
        &self.half
    }

    pub(super) fn begin_body(&mut self, length: BodyLength, cx: &mut Context<'_>) {
        self.length = length;
        self.phase = Phase::Body;
        self.look_for_end(cx);
    }

    pub(super) fn begin_tunnel(&mut self) {
        self.phase = Phase::Tunnel;
    }

    /// The next head.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, ReceiveError>> {
        if let Phase::Failed(error) = &self.phase {
            return Poll::Ready(Err(error.clone()));
        }
        let head = match ready!(self.poll_piece(cx)) {
            Ok(Some(Piece::Head(section))) => Ok(section),
            Ok(Some(Piece::Malformed(reason))) => Err(ReceiveError::Malformed(reason)),
            Ok(Some(Piece::Data(_) | Piece::Trailers(_)) | None) => {
                Err(ReceiveError::Malformed("the stream ended without a head"))
            }
            Err(error) => Err(error),
        };
        Poll::Ready(head.map_err(|error| self.fail(error)))
    }

    /// Ends this half with an error found in the peer's message. Returns it for convenience.
    pub(super) fn fail(&mut self, error: ReceiveError) -> ReceiveError {
        match &error {
            ReceiveError::Malformed(_) => self.tell(Reason::Malformed),
            ReceiveError::TooLarge(_) => self.tell(Reason::Busy),
            ReceiveError::Unprocessed(Unprocessed::GoingAway) => self.tell(Reason::Cancelled),
            ReceiveError::Unprocessed(Unprocessed::Refused)
            | ReceiveError::Busy
            | ReceiveError::Reset(_)
            | ReceiveError::ConnectionLost(_)
            | ReceiveError::GivenUp
            | ReceiveError::Misuse(_) => {}
        }
        self.phase = Phase::Failed(error.clone());
        error
    }

    pub(in crate::wire) fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<usize, ReceiveError>> {
        let Some(data) = ready!(self.poll_data(cx))? else {
            return Poll::Ready(Ok(0));
        };
        chunks.push(data);
        Poll::Ready(Ok(1))
    }

    pub(in crate::wire) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(|trailers| *trailers)
    }

    pub(in crate::wire) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if matches!(self.phase, Phase::Body) {
            let has_more = ready!(self.poll_come(cx));
            if !has_more {
                self.look_for_end_of(cx);
            }
        }
        Poll::Ready(matches!(self.phase, Phase::Ended))
    }

    pub(in crate::wire) fn stop(mut self, reason: Reason) {
        self.tell(reason);
        self.phase = Phase::Ended;
    }

    /// Whether a piece is there; `false` at the end and for errors.
    fn poll_come(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let (id, sender, side) = (self.half.id, self.half.other_side(), self.half.side);
        self.half.link.poll(cx, |state| {
            let is_lost = state.ended(side).is_some();
            match state.flow(id, sender) {
                Some(flow) if !flow.pieces.is_empty() => Poll::Ready(true),
                Some(flow) if !flow.ended && flow.reset.is_none() && !is_lost => Poll::Pending,
                Some(_) | None => Poll::Ready(false),
            }
        })
    }

    fn tell(&self, reason: Reason) {
        let (id, sender) = (self.half.id, self.half.other_side());
        self.half.link.change(|state| {
            if let Some(flow) = state.flow(id, sender)
                && flow.stopped.is_none()
            {
                flow.stopped = Some(reason);
                flow.pieces.clear();
                flow.bytes = 0;
            }
        });
    }

    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, ReceiveError>> {
        let (id, sender, side) = (self.half.id, self.half.other_side(), self.half.side);
        self.half.link.poll(cx, |state| {
            let lost = state.ended(side);
            let Some(flow) = state.flow(id, sender) else {
                return Poll::Ready(Ok(None));
            };
            if let Some(error) = &flow.reset {
                return Poll::Ready(Err(error.clone()));
            }
            if let Some(piece) = flow.pieces.pop_front() {
                if let Piece::Data(data) = &piece {
                    flow.bytes -= data.len();
                }
                return Poll::Ready(Ok(Some(piece)));
            }
            match lost {
                _ if flow.ended => Poll::Ready(Ok(None)),
                Some(error) => Poll::Ready(Err(error.into())),
                None => Poll::Pending,
            }
        })
    }

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
            let payload = match ready!(self.poll_piece(cx)) {
                Ok(Some(piece)) => self.payload(piece),
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

    fn payload(&mut self, piece: Piece) -> Result<Option<Bytes>, ReceiveError> {
        match piece {
            Piece::Data(data) if !self.length.take(data.len()) => {
                Err(ReceiveError::Malformed("more body than content-length"))
            }
            Piece::Data(data) => Ok(Some(data)),
            Piece::Trailers(section) => {
                self.end()?;
                let trailers = decode_trailers(&section).map_err(message_error)?;
                self.trailers = Some(Box::new(trailers));
                self.phase = Phase::AfterTrailers;
                Ok(None)
            }
            Piece::Malformed(reason) => Err(ReceiveError::Malformed(reason)),
            Piece::Head(_) => Err(ReceiveError::Malformed("a head after the head")),
        }
    }

    fn end(&mut self) -> Result<(), ReceiveError> {
        if !self.length.is_complete() {
            return Err(ReceiveError::Malformed("less body than content-length"));
        }
        self.phase = Phase::Ended;
        Ok(())
    }

    /// After the last declared byte: takes the end if it has arrived.
    fn look_for_end(&mut self, cx: &mut Context<'_>) {
        if self.length.left() == Some(0) {
            self.look_for_end_of(cx);
        }
    }

    fn look_for_end_of(&mut self, cx: &mut Context<'_>) {
        while matches!(self.phase, Phase::Body | Phase::AfterTrailers) {
            let seen = match self.poll_piece(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(None)) => self.end(),
                Poll::Ready(Ok(Some(piece))) => self.payload(piece).map(drop),
                Poll::Ready(Err(error)) => Err(error),
            };
            if let Err(error) = seen {
                self.fail(error);
            }
        }
    }
}

/// Why a section is not a message.
pub(super) fn message_error(error: MessageError) -> ReceiveError {
    match error {
        MessageError::Connection(_, reason) | MessageError::Malformed(reason) => {
            ReceiveError::Malformed(reason)
        }
        MessageError::TooLarge => ReceiveError::TooLarge("field section"),
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        match self.phase {
            Phase::Ended | Phase::Failed(_) => {}
            Phase::Head | Phase::Body | Phase::Tunnel | Phase::AfterTrailers => {
                self.tell(Reason::Cancelled);
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

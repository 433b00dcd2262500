//! The sending half of an exchange in memory, and the state that both halves share. The receiving half is in
//! `receive.rs`.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::limits::WINDOW;
use super::link::{Flow, Link, Piece, Side, State};
use crate::error::{Reason, ReceiveError, SendError};
use crate::http3::{BodyLength, FIELD_SECTION_SIZE, encode_trailers, section};

/// One half of one exchange.
pub(super) struct Half {
    pub(super) link: Arc<Link>,
    pub(super) id: u64,
    pub(super) side: Side,
}

impl Half {
    /// The other half of the same side.
    pub(super) fn twin(&self) -> Self {
        Self {
            link: Arc::clone(&self.link),
            id: self.id,
            side: self.side,
        }
    }

    pub(super) fn other_side(&self) -> Side {
        match self.side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.link
            .change(|state| state.release(self.id, self.side, 1));
    }
}

/// See [`crate::wire::SendHalf`].
pub struct SendHalf {
    half: Half,
    /// Bytes that wait for room.
    queue: Vec<Bytes>,
    length: BodyLength,
    is_over: bool,
}

impl SendHalf {
    pub(super) fn new(half: Half) -> Self {
        Self {
            half,
            queue: Vec::new(),
            length: BodyLength::UNDECLARED,
            is_over: false,
        }
    }

    /// Sends a head, with the first bytes of the body; `end` when no more follows.
    pub(super) fn head(
        &mut self,
        head: Bytes,
        mut length: BodyLength,
        body: Bytes,
        end: bool,
    ) -> Result<(), SendError> {
        if !length.take(body.len()) {
            return Err(SendError::Misuse("more body than content-length"));
        }
        if end && !length.is_complete() {
            return Err(SendError::Misuse("less body than content-length"));
        }
        self.length = length;
        self.write(|flow| {
            flow.pieces.push_back(Piece::Head(head));
            if !body.is_empty() {
                flow.bytes += body.len();
                flow.pieces.push_back(Piece::Data(body));
            }
            flow.ended = end;
        })?;
        self.is_over = end;
        Ok(())
    }

    /// Sends a message that breaks HTTP's rules, as a faulty peer does.
    pub(super) fn malformed(&mut self, reason: &'static str) {
        // The peer may have stopped reading, and then it learns nothing.
        let _ = self.write(|flow| flow.pieces.push_back(Piece::Malformed(reason)));
        self.is_over = true;
    }

    pub(in crate::wire) fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        if self.queue.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let (half, queue) = (&self.half, &mut self.queue);
        half.link.poll(cx, |state| {
            if let Some(error) = broken(state, half) {
                queue.clear();
                return Poll::Ready(Err(error));
            }
            let Some(flow) = state.flow(half.id, half.side) else {
                return Poll::Ready(Ok(()));
            };
            if flow.bytes >= WINDOW {
                return Poll::Pending;
            }
            for data in queue.drain(..) {
                flow.bytes += data.len();
                flow.pieces.push_back(Piece::Data(data));
            }
            Poll::Ready(Ok(()))
        })
    }

    pub(in crate::wire) fn start_data(&mut self, data: Bytes) -> Result<(), SendError> {
        if self.is_over {
            return Err(SendError::Misuse("the body is over"));
        }
        if !self.length.take(data.len()) {
            return Err(SendError::Misuse("more body than content-length"));
        }
        if !data.is_empty() {
            self.queue.push(data);
        }
        Ok(())
    }

    pub(in crate::wire) async fn send_trailers(
        &mut self,
        trailers: &HeaderMap,
    ) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        if self.is_over {
            return Err(SendError::Misuse("the body is over"));
        }
        let trailers = section(encode_trailers(trailers, FIELD_SECTION_SIZE)?);
        self.write(|flow| flow.pieces.push_back(Piece::Trailers(trailers)))?;
        self.finish().await
    }

    pub(in crate::wire) async fn finish(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        if self.is_over {
            return Ok(());
        }
        if !self.length.is_complete() {
            return Err(SendError::Misuse("less body than content-length"));
        }
        self.is_over = true;
        self.write(|flow| flow.ended = true)
    }

    pub(in crate::wire) fn reset(&mut self, reason: Reason) {
        self.queue.clear();
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.half.link.change(|state| {
            // When the connection is over, the peer learns nothing more.
            if state.ended(self.half.side).is_some() {
                return;
            }
            if let Some(flow) = state.flow(self.half.id, self.half.side) {
                flow.pieces.clear();
                flow.bytes = 0;
                flow.reset = Some(ReceiveError::reset(reason));
            }
        });
    }

    pub(in crate::wire) fn stopped(
        &self,
    ) -> impl Future<Output = Option<Reason>> + Send + 'static + use<> {
        let (link, id, side) = (Arc::clone(&self.half.link), self.half.id, self.half.side);
        poll_fn(move |cx| {
            link.poll(cx, |state| {
                let is_lost = state.ended(side).is_some();
                match state.flow(id, side) {
                    Some(flow) if flow.stopped.is_some() => Poll::Ready(flow.stopped),
                    Some(flow) if !flow.ended && !is_lost => Poll::Pending,
                    Some(_) | None => Poll::Ready(None),
                }
            })
        })
    }

    fn write(&self, write: impl FnOnce(&mut Flow)) -> Result<(), SendError> {
        self.half.link.change(|state| {
            if let Some(error) = broken(state, &self.half) {
                return Err(error);
            }
            if let Some(flow) = state.flow(self.half.id, self.half.side) {
                write(flow);
            }
            Ok(())
        })
    }
}

/// Why no more can be sent.
fn broken(state: &mut State, half: &Half) -> Option<SendError> {
    let flow = state.flow(half.id, half.side)?;
    if let Some(reason) = flow.stopped {
        return Some(SendError::Stopped(reason));
    }
    Some(state.ended(half.side)?.into())
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.reset(Reason::Cancelled);
    }
}

//! A request body that can be sent again from its beginning, as long as all bytes that were read of it are
//! still kept. Keeping them copies nothing: the pieces are shared with those that are sent.
//!
//! A request may keep a bounded number of bytes and of pieces, and a worker a bounded number of bytes
//! ([`ReplayMemory`]). A body beyond one of these bounds streams on and can no longer be sent again, so it is
//! never sent in part.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use weft_transport::locks::lock;

use crate::limits;

/// Bytes that one worker may keep of all bodies.
#[derive(Debug)]
pub(crate) struct ReplayMemory(AtomicUsize);

impl ReplayMemory {
    /// The memory of a worker, all of it free.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A body that several attempts may send, one after the other.
pub(crate) struct Upload<B> {
    source: Mutex<Source<B>>,
    room: Arc<ReplayMemory>,
}

struct Source<B> {
    body: B,
    /// The pieces that were read and may be sent again; once settled, only the pieces that were not sent yet.
    kept: VecDeque<Piece>,
    /// The piece of `kept` that the present attempt sends next.
    next: usize,
    /// Bytes of `kept`.
    bytes: usize,
    bytes_max: usize,
    state: State,
    /// The body was read to its end.
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Every piece that is read is kept.
    Keeping,
    /// More was read than may be kept.
    Lost,
    /// No attempt will follow.
    Settled,
}

/// Of a body.
#[derive(Clone)]
pub(crate) enum Piece {
    /// Content.
    Data(Bytes),
    /// The end of the body. Boxed, because most pieces are content and should be small.
    Trailers(Box<HeaderMap>),
}

impl Piece {
    fn to_frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers((**trailers).clone()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            // Each piece is bounded when it is read; it counts at least this much because no piece is free.
            Self::Trailers(trailers) => trailers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum(),
        }
    }
}

impl<B> Upload<B> {
    /// A body of which nothing was read. At most `bytes_max` are kept; with 0 none ever are.
    pub(crate) fn new(body: B, bytes_max: usize, room: Arc<ReplayMemory>) -> Arc<Self> {
        Arc::new(Self {
            source: Mutex::new(Source {
                body,
                kept: VecDeque::new(),
                next: 0,
                bytes: 0,
                bytes_max,
                state: State::Keeping,
                ended: false,
            }),
            room,
        })
    }

    /// Whether an attempt would send the body whole.
    pub(crate) fn is_repeatable(&self) -> bool {
        lock(&self.source).state == State::Keeping
    }

    /// Begins an attempt. The one before must be over.
    pub(crate) fn attempt(self: &Arc<Self>) -> Sending<B> {
        lock(&self.source).next = 0;
        Sending::Shared(Arc::clone(self))
    }

    /// The body for a copy that is sent beside the present attempt: only if all of it has arrived.
    pub(crate) fn whole(&self) -> Option<Sending<B>>
    where
        B: Body,
    {
        let source = lock(&self.source);
        let is_whole = source.ended || source.body.is_end_stream();
        (is_whole && source.state == State::Keeping).then(|| Sending::Whole(source.kept.clone()))
    }

    /// No attempt will follow: the pieces that were sent are dropped.
    pub(crate) fn settle(&self) {
        let mut source = lock(&self.source);
        source.state = State::Settled;
        let sent = source.next.min(source.kept.len());
        let bytes = source.kept.drain(..sent).map(|piece| piece.bytes()).sum();
        source.next = 0;
        source.bytes -= bytes;
        self.room.give_back(bytes);
    }
}

impl<B> Drop for Upload<B> {
    fn drop(&mut self) {
        self.room.give_back(lock(&self.source).bytes);
    }
}

/// One attempt's way through the body.
pub(crate) enum Sending<B> {
    /// By the attempt that reads it.
    Shared(Arc<Upload<B>>),
    /// The whole body.
    Whole(VecDeque<Piece>),
}

impl<B> Body for Sending<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let upload = match self.get_mut() {
            Self::Shared(upload) => upload,
            Self::Whole(pieces) => {
                let frame = pieces.pop_front().map(|piece| Ok(piece.to_frame()));
                return Poll::Ready(frame);
            }
        };
        let mut source = lock(&upload.source);
        let source = &mut *source;
        if let Some(piece) = source.kept.get(source.next) {
            let frame = piece.to_frame();
            if source.state == State::Settled {
                let bytes = piece.bytes();
                source.kept.pop_front();
                source.bytes -= bytes;
                upload.room.give_back(bytes);
            } else {
                source.next += 1;
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        let frame = match ready!(Pin::new(&mut source.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                source.ended = true;
                return Poll::Ready(None);
            }
        };
        if source.state == State::Keeping {
            source.keep(&frame, &upload.room);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Shared(upload) => {
                let source = lock(&upload.source);
                source.next >= source.kept.len() && source.body.is_end_stream()
            }
            Self::Whole(pieces) => pieces.is_empty(),
        }
    }

    /// What this attempt has still to send after all kept pieces.
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Shared(upload) => {
                let source = lock(&upload.source);
                if source.next < source.kept.len() {
                    SizeHint::default()
                } else {
                    source.body.size_hint()
                }
            }
            Self::Whole(_) => SizeHint::default(),
        }
    }
}

impl<B> Source<B> {
    fn keep(&mut self, frame: &Frame<Bytes>, room: &ReplayMemory) {
        let piece = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Piece::Data(data.clone()),
            (None, Some(trailers)) => Piece::Trailers(Box::new(trailers.clone())),
            (None, None) => return,
        };
        let bytes = piece.bytes();
        let fits =
            self.bytes + bytes <= self.bytes_max && self.kept.len() < limits::REPLAY_PIECES_MAX;
        if !fits || !room.take(bytes) {
            self.state = State::Lost;
            self.kept = VecDeque::new();
            self.next = 0;
            room.give_back(std::mem::take(&mut self.bytes));
            return;
        }
        self.bytes += bytes;
        self.kept.push_back(piece);
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    type Frames = StreamBody<
        futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>,
    >;

    /// An upload of these pieces and a trailer.
    fn upload(
        pieces: &[&'static str],
        bytes_max: usize,
        room: &Arc<ReplayMemory>,
    ) -> Arc<Upload<Frames>> {
        let mut trailers = HeaderMap::new();
        trailers.insert("x", http::HeaderValue::from_static("1"));
        let data = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from(*piece))));
        let frames: Vec<_> = data.chain([Ok(Frame::trailers(trailers))]).collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Upload::new(body, bytes_max, Arc::clone(room))
    }

    /// The next piece, or the trailer as `x`.
    fn next(sending: &mut Sending<Frames>) -> Option<String> {
        let frame = sending.frame().now_or_never().unwrap()?.unwrap();
        Some(match frame.data_ref() {
            Some(data) => String::from_utf8(data.to_vec()).unwrap(),
            None => "x".into(),
        })
    }

    fn rest(sending: &mut Sending<Frames>) -> Vec<String> {
        std::iter::from_fn(|| next(sending)).collect()
    }

    fn left(room: &ReplayMemory) -> usize {
        room.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_second_attempt_sends_all_from_the_beginning() {
        let room = Arc::new(ReplayMemory::new(100));
        let upload = upload(&["one", "two", "three"], 64, &room);
        let mut first = upload.attempt();
        assert_eq!(next(&mut first).as_deref(), Some("one"));
        assert_eq!(next(&mut first).as_deref(), Some("two"));
        drop(first);
        assert!(upload.is_repeatable());
        assert_eq!(left(&room), 94);
        let mut second = upload.attempt();
        assert_eq!(rest(&mut second), ["one", "two", "three", "x"]);
        let mut third = upload.attempt();
        assert_eq!(rest(&mut third), ["one", "two", "three", "x"]);
        drop((second, third, upload));
        assert_eq!(left(&room), 100);
    }

    #[test]
    fn once_settled_nothing_that_was_not_sent_is_lost_and_nothing_more_is_kept() {
        let room = Arc::new(ReplayMemory::new(100));
        let upload = upload(&["one", "two", "three"], 64, &room);
        let mut first = upload.attempt();
        next(&mut first);
        next(&mut first);
        let mut second = upload.attempt();
        assert_eq!(next(&mut second).as_deref(), Some("one"));
        upload.settle();
        assert_eq!(rest(&mut second), ["two", "three", "x"]);
        assert_eq!(left(&room), 100);
        assert!(!upload.is_repeatable());
    }

    #[test]
    fn a_body_in_more_pieces_than_are_kept_streams_on_and_is_not_kept() {
        let room = Arc::new(ReplayMemory::new(1 << 20));
        let pieces = vec!["x"; limits::REPLAY_PIECES_MAX + 1];
        let upload = upload(&pieces, 1 << 20, &room);
        let mut first = upload.attempt();
        assert_eq!(rest(&mut first).len(), pieces.len() + 1);
        assert!(!upload.is_repeatable());
        assert_eq!(left(&room), 1 << 20);
    }

    #[test]
    fn a_copy_is_made_only_of_what_is_here_whole() {
        let room = Arc::new(ReplayMemory::new(100));
        let upload = upload(&["one", "two"], 64, &room);
        let mut first = upload.attempt();
        next(&mut first);
        assert!(upload.whole().is_none());
        rest(&mut first);
        let mut copy = upload.whole().unwrap();
        assert_eq!(rest(&mut copy), ["one", "two", "x"]);
        upload.settle();
        assert!(upload.whole().is_none());
    }

    #[test]
    fn beyond_a_bound_the_body_streams_on_and_is_not_repeatable() {
        for (bytes_max, room) in [(5, 100), (64, 5), (0, 100)] {
            let all = Arc::new(ReplayMemory::new(room));
            let upload = upload(&["one", "two", "three"], bytes_max, &all);
            assert!(upload.is_repeatable(), "nothing was read yet");
            let mut first = upload.attempt();
            assert_eq!(rest(&mut first), ["one", "two", "three", "x"]);
            assert!(!upload.is_repeatable());
            assert_eq!(left(&all), room);
        }
    }
}

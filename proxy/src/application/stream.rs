//! A connection of HTTP/2 to the application, and one stream of it.
//!
//! It uses h2 itself: hyper's client silently queues requests beyond the application's limit, and does not
//! tell which requests an application has not processed.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::request::Parts;
use http::{Request, StatusCode};
use http_body::Body as _;

use super::answer::{AnswerBody, Answered};
use super::body::OutgoingBody;
use super::interim::Interims;
use super::lost::{Fate, Lost, UnprocessedReason};
use super::places::Places;
use super::upload::{Uploading, poll_upload};
use super::{Leased, no_room};
use crate::failure::{Failure, Reason};
use crate::limits;
use crate::resilience::limit::Caller;

/// A connection that requests of one caller share.
pub(super) struct StreamConnection {
    sender: SendRequest<Bytes>,
    /// Streams under way.
    streams: Arc<AtomicUsize>,
    places: Arc<Places<Caller>>,
}

impl StreamConnection {
    pub(super) fn new(sender: SendRequest<Bytes>, places: Arc<Places<Caller>>) -> Self {
        Self {
            sender,
            streams: Arc::default(),
            places,
        }
    }

    /// Whether new streams may begin: no GOAWAY came, and the connection lives.
    pub(super) fn is_usable(&mut self) -> bool {
        matches!(look(&mut self.sender), Poll::Ready(Ok(())))
    }

    /// Opens one more stream, if the application allows it.
    pub(super) fn stream(&self) -> Option<Stream> {
        let under_way = self.streams.load(Ordering::Relaxed);
        if under_way >= self.sender.current_max_send_streams() {
            return None;
        }
        self.streams.store(under_way + 1, Ordering::Relaxed);
        Some(Stream {
            sender: self.sender.clone(),
            place: StreamPlace {
                streams: Arc::clone(&self.streams),
                places: Arc::clone(&self.places),
            },
        })
    }
}

/// Whether another stream can begin; pending while the last one of this handle has not.
fn look(sender: &mut SendRequest<Bytes>) -> Poll<Result<(), h2::Error>> {
    sender.poll_ready(&mut Context::from_waker(Waker::noop()))
}

/// A stream that may be begun.
pub(super) struct Stream {
    sender: SendRequest<Bytes>,
    place: StreamPlace,
}

/// Counts as one stream of its connection until it is dropped.
pub(super) struct StreamPlace {
    streams: Arc<AtomicUsize>,
    places: Arc<Places<Caller>>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
        self.places.queue.free();
    }
}

impl Stream {
    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        mut self,
        head: Parts,
        body: OutgoingBody,
        interims: Option<&Interims>,
    ) -> Result<Answered, Lost> {
        let (end, handed) = (body.is_end_stream(), Instant::now());
        let request = Request::from_parts(head, ());
        let sent = self.sender.send_request(request, end);
        let (mut response, stream) = sent.map_err(|error| Lost::of_opening(&error))?;
        if look(&mut self.sender).is_pending() {
            // The application lowered its limit in the meantime, so h2 holds the request back.
            let opened = tokio::time::timeout(limits::APPLICATION_WAIT, self.sender.ready());
            if Box::pin(opened).await.is_err() {
                return Err(Lost {
                    fate: Fate::Unprocessed(UnprocessedReason::Refused),
                    failure: no_room("allows no more streams"),
                });
            }
        }
        let mut upload = (!end).then(|| Uploading::new(body, stream));
        let answered = std::future::poll_fn(|cx| {
            if let Err(failure) = poll_upload(&mut upload, cx) {
                return Poll::Ready(Err(Lost::end(failure)));
            }
            if let Err(lost) = take_interims(&mut response, interims, cx) {
                return Poll::Ready(Err(lost));
            }
            let polled = Pin::new(&mut response).poll(cx);
            polled.map(|outcome| outcome.map_err(|error| Lost::of_stream(&error)))
        });
        let response = answered.await?.map(AnswerBody::of_stream);
        let leased = Leased::Stream(self.place);
        Ok(Answered::new(response, leased, handed, upload))
    }
}

/// Takes all interim responses that have arrived, even those that no caller wants: h2 would keep any number
/// of them.
fn take_interims(
    response: &mut ResponseFuture,
    wanted: Option<&Interims>,
    cx: &mut Context<'_>,
) -> Result<(), Lost> {
    while let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
        let interim = interim.map_err(|error| Lost::of_stream(&error))?;
        //= https://www.rfc-editor.org/rfc/rfc9113#section-8.6
        //# HTTP/2 does not support the 101 (Switching Protocols) informational status code
        if interim.status() == StatusCode::SWITCHING_PROTOCOLS {
            let switched = "the application switched protocols over HTTP/2";
            return Err(Lost::end(Failure::new(Reason::ResponseMalformed, switched)));
        }
        if let Some(wanted) = wanted {
            wanted.came(interim.status(), interim.headers());
        }
    }
    Ok(())
}

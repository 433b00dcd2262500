//! An application's answer as it comes, over HTTP/1.1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::lost::{exchange_failure, stream_failure};
use super::upload::Uploading;
use super::{Lease, Leased};
use crate::failure::Failure;

/// A response, and the connection or stream that carries it.
pub(crate) struct Answered {
    /// Head and body as received; not yet checked.
    pub(crate) response: Response<AnswerBody>,
    pub(super) lease: Lease,
    /// When the request was handed to its connection.
    pub(crate) handed: Instant,
    /// The request, if part of it is still unsent.
    pub(super) upload: Option<Uploading>,
}

impl Answered {
    pub(super) fn new(
        response: Response<AnswerBody>,
        leased: Leased,
        handed: Instant,
        upload: Option<Uploading>,
    ) -> Self {
        Self {
            response,
            handed,
            lease: Lease(leased),
            upload,
        }
    }

    /// Splits off the rest of the request, which must go on while the response is relayed.
    pub(crate) fn take_upload(&mut self) -> Option<Uploading> {
        self.upload.take()
    }

    /// Splits off the lease, which must outlive the reading of the body.
    pub(crate) fn into_parts(self) -> (Response<AnswerBody>, Lease) {
        (self.response, self.lease)
    }
}

/// The body of an answer. Remembers why it broke off.
pub(crate) struct AnswerBody {
    source: Source,
    broken: Option<Failure>,
}

enum Source {
    Exchange(Incoming),
    Stream { recv: h2::RecvStream, ended: bool },
}

/// It broke off: [`AnswerBody::take_failure`] says why.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off")]
pub(crate) struct Broken;

impl AnswerBody {
    pub(super) fn of_exchange(body: Incoming) -> Self {
        Self {
            source: Source::Exchange(body),
            broken: None,
        }
    }

    pub(super) fn of_stream(recv: h2::RecvStream) -> Self {
        Self {
            source: Source::Stream { recv, ended: false },
            broken: None,
        }
    }

    /// Why it broke off, if it did.
    pub(crate) fn take_failure(&mut self) -> Option<Failure> {
        self.broken.take()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Exchange(body) => ready!(Pin::new(body).poll_frame(cx))
                .map(|frame| frame.map_err(|error| exchange_failure(&error))),
            Source::Stream { recv, ended } => ready!(poll_stream(recv, ended, cx))
                .map(|frame| frame.map_err(|error| stream_failure(&error))),
        };
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|failure| {
                this.broken = Some(failure);
                Broken
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Exchange(body) => body.is_end_stream(),
            Source::Stream { recv, ended } => *ended || recv.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Exchange(body) => body.size_hint(),
            Source::Stream { .. } => SizeHint::default(),
        }
    }
}

/// `ended`: all data came. h2 judges a declared length.
fn poll_stream(
    recv: &mut h2::RecvStream,
    ended: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
    if !*ended {
        match ready!(recv.poll_data(cx)) {
            Some(Ok(data)) => {
                // It fails only for more than was received.
                let _ = recv.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => *ended = true,
        }
    }
    let trailers = ready!(recv.poll_trailers(cx));
    Poll::Ready(trailers.map(|some| some.map(Frame::trailers)).transpose())
}

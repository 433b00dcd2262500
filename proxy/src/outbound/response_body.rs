//! The body of an answer to the application, or to a caller without mutual TLS, as hyper asks for it. It owns
//! the answer *and* the pump of the request that may still be running, and polls both. Dropping it resets
//! what is not finished.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{StatusCode, Version};
use http_body::{Body, Frame, SizeHint};

use super::answer_stream::{AnswerStream, sent};
use crate::failure::{Failure, Reason};
use crate::http::body::{Pump, poll_pump};
use crate::http::{answer, fields};
use crate::idle::{Expired, Idle};
use crate::record::Record;

/// The body of a response to the application.
pub(crate) struct ResponseBody {
    source: Source,
    record: Option<Record>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the common one: a box would be one more allocation per request"
)]
enum Source {
    /// Complete: an answer of the mesh.
    Whole(Bytes),
    /// From the peer.
    Peer {
        recv: AnswerStream,
        pump: Option<Pump>,
        idle: Idle,
        received: u64,
        contents: Contents,
    },
}

/// How the content of a response is declared to hyper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// The next frame of the body.
    Told,
    /// The response has no content by its method or status, whatever its fields say. Over HTTP/1 hyper knows
    /// that rule itself. It would refuse the length that a 304 may have (RFC 9110 section 8.6) beside a body
    /// that also declares itself empty.
    UntoldOverHttp1,
    /// The same over HTTP/2: the end must go with the head. A length of 0 would be wrong for HEAD and in a
    /// 204, and an empty body after another length is malformed.
    EndWithHead,
}

impl ResponseBody {
    /// An answer of the mesh.
    pub(crate) fn whole(text: Bytes, record: Record) -> Self {
        Self {
            source: Source::Whole(text),
            record: Some(record),
        }
    }

    /// A response of the destination to a client of that version, with the request body that may still be
    /// under way.
    pub(crate) fn peer(
        recv: AnswerStream,
        pump: Option<Pump>,
        idle: Idle,
        record: Record,
        version: Version,
    ) -> Self {
        let contents = match (record.has_no_content(), version) {
            (false, _) => Contents::Told,
            (true, Version::HTTP_2) => Contents::EndWithHead,
            (true, _) => Contents::UntoldOverHttp1,
        };
        Self {
            source: Source::Peer {
                recv,
                pump,
                idle,
                received: 0,
                contents,
            },
            record: Some(record),
        }
    }

    fn end(&mut self, outcome: Result<(), Failure>) {
        if let Some(mut record) = self.record.take() {
            if let Source::Peer {
                recv,
                received,
                pump,
                ..
            } = &self.source
            {
                record.received = *received;
                record.sent = sent(recv, pump.as_ref()).unwrap_or(record.sent);
            }
            record.end(outcome);
        }
    }
}

/// The response broke off. hyper closes the connection on it, so that the client sees the truncation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BrokenBody(Failure);

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let this = self.get_mut();
        let outcome = match &mut this.source {
            Source::Whole(text) if text.is_empty() => Ok(()),
            Source::Whole(text) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Source::Peer {
                recv,
                pump,
                idle,
                received,
                contents: _,
            } => {
                if let Err(broken) = poll_pump(pump, cx) {
                    Err(broken.failure())
                } else {
                    match Pin::new(&mut *recv).poll_frame(cx) {
                        Poll::Ready(Some(Ok(frame))) => {
                            let frame = match frame.into_data() {
                                Ok(data) => {
                                    *received += data.len() as u64;
                                    Frame::data(data)
                                }
                                Err(frame) => match frame.into_trailers() {
                                    Ok(mut trailers) => {
                                        if let Some(record) = &mut this.record {
                                            record.trailers(&trailers);
                                            let told = answer::told(&trailers, StatusCode::OK);
                                            record.failure = record.failure.take().or(told);
                                        }
                                        fields::strip_trailers(&mut trailers);
                                        Frame::trailers(trailers)
                                    }
                                    Err(frame) => frame,
                                },
                            };
                            return Poll::Ready(Some(Ok(frame)));
                        }
                        Poll::Ready(Some(Err(failure))) => Err(failure),
                        Poll::Ready(None) => Ok(()),
                        Poll::Pending => {
                            let moved = *received + sent(recv, pump.as_ref()).unwrap_or(0);
                            match idle.poll(cx, moved) {
                                Poll::Pending => return Poll::Pending,
                                Poll::Ready(Expired::Stalled) => Err(Failure::new(
                                    Reason::ResponseTimeout,
                                    "the response makes no progress",
                                )),
                                Poll::Ready(Expired::Deadline) => Err(Failure::new(
                                    Reason::DeadlineExceeded,
                                    "the deadline passed before the end of the response",
                                )),
                            }
                        }
                    }
                }
            }
        };
        this.end(outcome.clone());
        match outcome {
            Ok(()) => Poll::Ready(None),
            Err(failure) => Poll::Ready(Some(Err(BrokenBody(failure)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(text) => text.is_empty(),
            Source::Peer { recv, contents, .. } => match contents {
                Contents::Told => recv.is_end_stream(),
                Contents::UntoldOverHttp1 => false,
                Contents::EndWithHead => true,
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(text) => SizeHint::with_exact(text.len() as u64),
            Source::Peer { recv, contents, .. } => match contents {
                Contents::Told => recv.size_hint(),
                Contents::UntoldOverHttp1 => SizeHint::default(),
                Contents::EndWithHead => SizeHint::with_exact(0),
            },
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // hyper does not poll bodies that it knows to be empty (HEAD, 204, 304), nor after the last byte of a
        // declared length. So an unread end is no failure if nothing was left to read.
        let complete = self.is_end_stream()
            || self.size_hint().exact() == Some(0)
            || self.record.as_ref().is_some_and(Record::is_bodiless);
        let outcome = if complete {
            Ok(())
        } else {
            Err(Failure::new(Reason::CallerGone, "the client went away"))
        };
        self.end(outcome);
    }
}

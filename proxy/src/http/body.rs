//! Bodies that stream through: nothing is gathered, and no task is spawned for a request.
//!
//! [`Pump`] moves a request body from the application to the peer; [`ResponseBody`] owns the response half
//! *and* the pump that may still be running, and polls both. Dropping it resets what is not finished.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use weft_transport::wire::{Reason as Why, SendError, SendHalf};

use super::answer_stream::{AnswerStream, sent};
use super::{answer, fields};
use crate::failure::{Failure, Reason};
use crate::idle::{Expired, Idle};
use crate::limits;
use crate::record::Record;

/// Why a pump stopped before the end of its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PumpError {
    /// The sender of the body ended it with this code.
    Source(Broken),
    /// The receiver of the body broke off.
    Peer(SendError),
}

/// How a body ends that is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// With its connection or stream.
    Off,
    /// It breaks HTTP's rules.
    Malformed,
}

impl Broken {
    /// Classifies an error of a body; hyper gives the kind as that of an IO error.
    fn by(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        let is_malformed = causes.any(|cause| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| {
                let kind = error.kind();
                matches!(
                    kind,
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
                )
            })
        });
        if is_malformed {
            Self::Malformed
        } else {
            Self::Off
        }
    }

    /// The answer to a request with such a body, if the client still reads.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Off => Failure::new(Reason::CallerGone, "the application broke off its request"),
            Self::Malformed => Failure::new(
                Reason::BadRequest,
                "the request's content breaks HTTP's rules",
            ),
        }
    }
}

/// Sends a whole body with its trailers, then ends the stream. `moved` counts payload bytes. Returns the
/// trailers that were sent.
pub(crate) async fn pump<B>(
    mut body: B,
    send: &mut SendHalf,
    moved: &AtomicU64,
) -> Result<Option<HeaderMap>, PumpError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    enum Step<E> {
        Frame(Option<Result<Frame<Bytes>, E>>),
        Stopped(Option<Why>),
    }
    let mut stopped = pin!(send.stopped());
    let mut next = None;
    loop {
        if next.is_none() && body.is_end_stream() {
            send.finish().await.map_err(PumpError::Peer)?;
            return Ok(None);
        }
        // A silent source must not hide that the client has left: server-sent events can pause for hours.
        let step = std::future::poll_fn(|cx| {
            if let Some(frame) = next.take() {
                return Poll::Ready(Step::Frame(frame));
            }
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Step::Frame(frame)),
                Poll::Pending => stopped.as_mut().poll(cx).map(Step::Stopped),
            }
        })
        .await;
        match step {
            Step::Frame(Some(Ok(frame))) => match frame.into_data() {
                Ok(mut data) => {
                    if data.len() < limits::BODY_PIECE_SMALL {
                        next = std::future::poll_fn(|cx| {
                            Poll::Ready(gather(&mut body, cx, &mut data))
                        })
                        .await;
                    }
                    let bytes = data.len();
                    send.send_data(data).await.map_err(PumpError::Peer)?;
                    moved.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                Err(frame) => {
                    let Ok(mut trailers) = frame.into_trailers() else {
                        continue;
                    };
                    if fields::has_twin(&trailers) {
                        return Err(PumpError::Source(Broken::Malformed));
                    }
                    fields::strip_trailers(&mut trailers);
                    send.send_trailers(&trailers)
                        .await
                        .map_err(PumpError::Peer)?;
                    return Ok(Some(trailers));
                }
            },
            Step::Frame(Some(Err(error))) => {
                return Err(PumpError::Source(Broken::by(&error)));
            }
            Step::Frame(None) => {
                send.finish().await.map_err(PumpError::Peer)?;
                return Ok(None);
            }
            Step::Stopped(why) => {
                let why = why.unwrap_or(Why::Cancelled);
                return Err(PumpError::Peer(SendError::Stopped(why)));
            }
        }
    }
}

/// Joins a small piece with the data that is already behind it. Returns anything that came instead of more
/// data.
fn gather<B>(
    body: &mut B,
    cx: &mut Context<'_>,
    data: &mut Bytes,
) -> Option<Option<Result<Frame<Bytes>, B::Error>>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut all = BytesMut::new();
    let mut other = None;
    while data.len().max(all.len()) < limits::BODY_PIECE_SMALL && !body.is_end_stream() {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(more) => {
                    if all.is_empty() {
                        all.extend_from_slice(data);
                    }
                    all.extend_from_slice(&more);
                }
                Err(frame) => {
                    other = Some(Some(Ok(frame)));
                    break;
                }
            },
            Poll::Ready(end) => {
                other = Some(end);
                break;
            }
            Poll::Pending => break,
        }
    }
    if !all.is_empty() {
        *data = all.freeze();
    }
    other
}

/// Done when a client that asked for `100 Continue` sends content without waiting.
pub(crate) type Proof = Pin<Box<dyn Future<Output = ()> + Send>>;

type PumpWork = Pin<Box<dyn Future<Output = Result<(), PumpError>> + Send>>;

/// A request body on its way to the peer, or delivered.
pub(crate) struct Pump {
    /// None when it is over.
    work: Option<PumpWork>,
    moved: Arc<AtomicU64>,
    go: Option<Arc<Notify>>,
}

impl Pump {
    /// Polling the body makes hyper send `100 Continue` to the client. So a body whose client waits for that
    /// begins when [`Pump::go_on`] is called, when the client shows that it does not wait, or after
    /// [`limits::CONTINUE_WAIT`]; any other body begins when it is first polled.
    pub(crate) fn new<B>(body: B, mut send: SendHalf, wait: Option<Proof>) -> Self
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::error::Error + Send + 'static,
    {
        let moved = Arc::new(AtomicU64::new(0));
        let go = wait.is_some().then(|| Arc::new(Notify::new()));
        let count = Arc::clone(&moved);
        let gate = go.clone().zip(wait);
        let work = Box::pin(async move {
            if let Some((gate, proof)) = gate {
                tokio::select! {
                    () = gate.notified() => {}
                    () = proof => {}
                    () = tokio::time::sleep(limits::CONTINUE_WAIT) => {}
                }
            }
            pump(body, &mut send, &count).await.map(drop)
        });
        Self {
            work: Some(work),
            moved,
            go,
        }
    }

    /// The peer said 100: the body may come.
    pub(crate) fn go_on(&self) {
        if let Some(go) = &self.go {
            go.notify_one();
        }
    }

    /// Payload bytes sent so far.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// When the source broke off. If the peer broke off, its response tells.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        let Some(work) = &mut self.work else {
            return Ok(());
        };
        let Poll::Ready(outcome) = work.as_mut().poll(cx) else {
            return Ok(());
        };
        self.work = None;
        match outcome {
            Err(PumpError::Source(broken)) => Err(broken),
            Err(PumpError::Peer(_)) | Ok(()) => Ok(()),
        }
    }
}

/// Moves a request body, if there is one.
pub(crate) fn poll_pump(pump: &mut Option<Pump>, cx: &mut Context<'_>) -> Result<(), Broken> {
    pump.as_mut().map_or(Ok(()), |pump| pump.poll(cx))
}

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
            Err(Failure::new(
                Reason::CallerGone,
                "the application went away",
            ))
        };
        self.end(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pump(outcome: Result<(), PumpError>) -> Option<Pump> {
        Some(Pump {
            work: Some(Box::pin(std::future::ready(outcome))),
            moved: Arc::new(AtomicU64::new(7)),
            go: None,
        })
    }

    #[test]
    fn small_pieces_that_are_there_are_joined_up_to_a_bound_and_nothing_is_lost() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        let pieces = (0..5000).map(|_| Ok(Frame::data(Bytes::from_static(b"x"))));
        let frames: Vec<Result<_, std::convert::Infallible>> =
            pieces.chain([Ok(Frame::trailers(trailers))]).collect();
        let mut body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let mut first = Bytes::from_static(b"y");
        assert!(gather(&mut body, &mut cx, &mut first).is_none());
        assert_eq!(first.len(), limits::BODY_PIECE_SMALL);
        let mut second = Bytes::from_static(b"z");
        let other = gather(&mut body, &mut cx, &mut second);
        assert!(matches!(other, Some(Some(Ok(frame))) if frame.is_trailers()));
        assert_eq!(first.len() + second.len(), 5002);
        assert!(first.starts_with(b"yx") && second.starts_with(b"zx"));
    }

    #[test]
    fn a_finished_upload_keeps_its_count() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut pump = pump(Ok(()));
        for _ in 0..2 {
            assert!(poll_pump(&mut pump, &mut cx).is_ok());
        }
        assert_eq!(pump.as_ref().map(Pump::moved), Some(7));
    }

    #[test]
    fn only_a_caller_that_broke_off_ends_the_exchange() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let stopped = SendError::Stopped(Why::NoError);
        assert!(poll_pump(&mut pump(Err(PumpError::Peer(stopped))), &mut cx).is_ok());
        assert!(poll_pump(&mut pump(Err(PumpError::Source(Broken::Off))), &mut cx).is_err());
        assert!(poll_pump(&mut None, &mut cx).is_ok());
    }
}

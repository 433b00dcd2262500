//! Bodies that stream through: nothing is gathered, and no task is spawned for a request.
//!
//! [`Pump`] moves a request body from the application to the peer; [`ResponseBody`] owns the response half
//! *and* the pump that may still be running, and polls both. Dropping it resets what is not finished.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use weft_transport::http3::{ErrorCode, RecvHalf, SendHalf, StreamError};

use super::fields;
use crate::failure::{Failure, Reason};
use crate::idle::Idle;
use crate::limits;
use crate::record::Record;

/// Why a pump stopped before the end of its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PumpError {
    /// Whoever produced the body broke off.
    Source,
    /// Whoever takes it broke off.
    Peer(StreamError),
}

/// Sends a whole body with its trailers, then ends the stream. `moved` counts payload bytes.
pub(crate) async fn pump<B>(
    mut body: B,
    send: &mut SendHalf,
    moved: &AtomicU64,
) -> Result<(), PumpError>
where
    B: Body<Data = Bytes> + Unpin,
{
    enum Step<E> {
        Frame(Option<Result<Frame<Bytes>, E>>),
        Stopped(Option<ErrorCode>),
    }
    let mut stopped = pin!(send.stopped());
    loop {
        if body.is_end_stream() {
            return send.finish().await.map_err(PumpError::Peer);
        }
        // A silent source must not hide that nobody listens any more: server-sent events can pause for hours.
        let step = std::future::poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Step::Frame(frame)),
            Poll::Pending => stopped.as_mut().poll(cx).map(Step::Stopped),
        })
        .await;
        match step {
            Step::Frame(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let bytes = data.len();
                    send.send_data(data).await.map_err(PumpError::Peer)?;
                    moved.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                Err(frame) => {
                    let Ok(mut trailers) = frame.into_trailers() else {
                        continue;
                    };
                    fields::strip_trailers(&mut trailers);
                    return send.send_trailers(&trailers).await.map_err(PumpError::Peer);
                }
            },
            Step::Frame(Some(Err(_))) => return Err(PumpError::Source),
            Step::Frame(None) => return send.finish().await.map_err(PumpError::Peer),
            Step::Stopped(code) => {
                let code = code.unwrap_or(ErrorCode::H3_REQUEST_CANCELLED);
                return Err(PumpError::Peer(StreamError::Stopped(code)));
            }
        }
    }
}

/// A request body on its way to the peer.
pub(crate) struct Pump {
    work: Pin<Box<dyn Future<Output = Result<(), PumpError>> + Send>>,
    moved: Arc<AtomicU64>,
    go: Option<Arc<Notify>>,
}

impl Pump {
    /// Begins when first polled, or with `wait` when [`Pump::go_on`] is called or after
    /// [`limits::CONTINUE_WAIT`]: polling the body is what makes hyper tell the client `100 Continue`.
    pub(crate) fn new<B>(body: B, mut send: SendHalf, wait: bool) -> Self
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Send,
    {
        let moved = Arc::new(AtomicU64::new(0));
        let go = wait.then(|| Arc::new(Notify::new()));
        let (count, gate) = (Arc::clone(&moved), go.clone());
        let work = Box::pin(async move {
            if let Some(gate) = gate {
                // Elapsed means go, too.
                let _ = tokio::time::timeout(limits::CONTINUE_WAIT, gate.notified()).await;
            }
            pump(body, &mut send, &count).await
        });
        Self { work, moved, go }
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
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        self.work.as_mut().poll(cx)
    }
}

/// A request body under way, or over.
pub(crate) fn poll_pump(pump: &mut Option<Pump>, cx: &mut Context<'_>) -> Result<(), PumpError> {
    let Some(running) = pump else { return Ok(()) };
    match running.poll(cx) {
        Poll::Pending => Ok(()),
        Poll::Ready(outcome) => {
            *pump = None;
            match outcome {
                // The response tells more than the refusal to read on does.
                Err(PumpError::Peer(_)) | Ok(()) => Ok(()),
                Err(PumpError::Source) => outcome,
            }
        }
    }
}

/// The body of a response to the application.
pub(crate) struct ResponseBody {
    source: Source,
    record: Option<Record>,
}

enum Source {
    /// Known whole: an answer of the mesh.
    Whole(Bytes),
    /// From the peer.
    Peer {
        recv: RecvHalf,
        pump: Option<Pump>,
        idle: Idle,
        received: u64,
    },
}

impl ResponseBody {
    /// An answer of the mesh.
    pub(crate) fn whole(text: Bytes, record: Record) -> Self {
        Self {
            source: Source::Whole(text),
            record: Some(record),
        }
    }

    /// A response of the destination, with the request body that may still be under way.
    pub(crate) fn peer(recv: RecvHalf, pump: Option<Pump>, idle: Duration, record: Record) -> Self {
        Self {
            source: Source::Peer {
                recv,
                pump,
                idle: Idle::new(idle),
                received: 0,
            },
            record: Some(record),
        }
    }

    fn end(&mut self, outcome: Result<(), Failure>) {
        if let Some(mut record) = self.record.take() {
            if let Source::Peer { received, pump, .. } = &self.source {
                record.received = *received;
                record.sent = pump.as_ref().map_or(record.sent, Pump::moved);
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
            } => {
                if poll_pump(pump, cx).is_err() {
                    Err(Failure::new(
                        Reason::CallerGone,
                        "the application broke off its request",
                    ))
                } else {
                    match Pin::new(recv).poll_frame(cx) {
                        Poll::Ready(Some(Ok(frame))) => {
                            let frame = match frame.into_data() {
                                Ok(data) => {
                                    *received += data.len() as u64;
                                    Frame::data(data)
                                }
                                Err(frame) => match frame.into_trailers() {
                                    Ok(mut trailers) => {
                                        fields::strip_trailers(&mut trailers);
                                        if let Some(record) = &mut this.record {
                                            record.trailers(&trailers);
                                        }
                                        Frame::trailers(trailers)
                                    }
                                    Err(frame) => frame,
                                },
                            };
                            return Poll::Ready(Some(Ok(frame)));
                        }
                        Poll::Ready(Some(Err(error))) => Err(crate::mesh::stream_failure(&error)),
                        Poll::Ready(None) => Ok(()),
                        Poll::Pending => {
                            let moved = *received + pump.as_ref().map_or(0, Pump::moved);
                            if idle.poll(cx, moved).is_pending() {
                                return Poll::Pending;
                            }
                            Err(Failure::new(
                                Reason::ResponseTimeout,
                                "the response stands still",
                            ))
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
            Source::Peer { recv, .. } => recv.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(text) => SizeHint::with_exact(text.len() as u64),
            Source::Peer { recv, .. } => recv.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // hyper does not poll bodies that it knows to be empty (HEAD, 204, 304), nor after the last byte of
        // a declared length, so an end that was not read is no failure if there was nothing more to read.
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

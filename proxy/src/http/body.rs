//! Bodies that stream through: nothing is gathered, and no task is spawned for a request.
//!
//! [`pump`] moves a body to the peer, and [`Pump`] that of a request while its answer may have begun. Not
//! here: the body of an answer to the application (`outbound/response_body.rs`).

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::Notify;
use weft_transport::wire::{Reason as Why, SendError, SendHalf};

use super::fields;
use crate::failure::{Failure, Reason};
use crate::limits;

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

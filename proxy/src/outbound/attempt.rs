//! One attempt of an exchange: it opens a stream and sends the request; then a response head comes, or the
//! attempt fails. [`Ending`] describes its end in terms of HTTP; [`crate::resilience::verdict`] decides what
//! follows.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Response, StatusCode};
use weft_transport::wire::{ReceiveError, ResponseHalf, SendHalf, Unprocessed};

use super::answer_stream::AnswerStream;
use super::connection::Activity;
use super::exchange::Exchange;
use super::open::{NotOpened, Opened, Picked, open};
use crate::cluster::Flight;
use crate::failure::{Failure, Reason};
use crate::http::answer;
use crate::http::body::{Broken, Proof, Pump};
use crate::http::content::Content;
use crate::http::upload::Sending;
use crate::idle::{Expired, Idle};
use crate::limits;
use crate::outside::Link;
use crate::record::attempt::Attempt;
use crate::resilience::deadline::{self, Clock};
use crate::resilience::retry::{GRPC_STATUS, RetryCause};
use crate::resilience::verdict::{Ending, Verdict};
use crate::transport_failure::stream_failure;

/// The head of the response has come.
pub(super) struct Answered {
    pub(super) response: Response<()>,
    pub(super) body: AnswerStream,
    pub(super) upward: Upward,
    pub(super) flight: Flight,
    /// The time by which this attempt must be over.
    pub(super) deadline: Option<Instant>,
    /// When the head came.
    pub(super) at: Instant,
    /// Why another attempt might get a better answer.
    pub(super) cause: Option<RetryCause>,
}

/// The other direction of an exchange whose answer has begun.
pub(super) enum Upward {
    /// The direction has ended.
    Ended,
    /// The request's body is on its way.
    Body(Pump),
    /// A tunnel is open. Boxed, because requests outnumber tunnels and should not carry their size.
    Open(Box<SendHalf>),
    /// A connection that leads out of the mesh, both directions of it.
    Outside(Box<Link>),
}

impl Upward {
    /// The body on its way.
    pub(super) fn into_pump(self) -> Option<Pump> {
        match self {
            Self::Body(pump) => Some(pump),
            Self::Ended | Self::Open(_) | Self::Outside(_) => None,
        }
    }
}

/// No answer came.
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// None if no further attempt is allowed.
    pub(super) cause: Option<RetryCause>,
    /// The time at which the outcome was known.
    pub(super) at: Instant,
    /// Bytes of the body that were sent.
    pub(super) sent: u64,
    /// The retry budget has been asked for the next attempt.
    pub(super) paid: bool,
}

impl Failed {
    /// No stream was opened.
    pub(super) fn unopened(NotOpened { failure, cause }: NotOpened, at: Instant) -> Self {
        Self {
            failure,
            cause,
            at,
            sent: 0,
            paid: false,
        }
    }
}

impl Exchange {
    /// Makes one attempt, which lasts until that clock ends. Its parts are timed for the record.
    pub(super) async fn attempt(
        &self,
        body: Option<Sending<Content>>,
        mut picked: Picked,
        clock: &Clock,
        parts: &mut Attempt,
    ) -> Result<Answered, Failed> {
        if let Some(outside) = picked.outside(&self.route.cluster) {
            // Boxed, because most requests stay in the mesh.
            let outside = Arc::clone(outside);
            let attempt = self.attempt_outside(outside, body, picked, clock, parts);
            return Box::pin(attempt).await;
        }
        let end = body.is_none() && !self.is_tunnel();
        let mut may_leave = picked.has_alternative() && self.rules().may_break();
        let (worker, cluster) = (&*self.worker, &*self.route.cluster);
        let opened = open(worker, cluster, &mut picked, &self.head, end, clock, parts).await;
        let Opened {
            mut send,
            mut response,
        } = opened.map_err(|error| Failed::unopened(error, read_clock()))?;
        let mut upward = if let Some(body) = body {
            Upward::Body(Pump::new(body, send, proof(&self.head)))
        } else if self.is_tunnel() {
            Upward::Open(Box::new(send))
        } else {
            // The end went with the head, so only the stream's result is left to read. If it failed, the
            // response tells.
            let _ = send.finish().await;
            Upward::Ended
        };
        let mut idle = Idle::new(self.idle()).until(clock.end());
        let (answered, at) = loop {
            let answered = response_head(&mut response, &mut upward, &mut idle, may_leave).await;
            let at = read_clock();
            match answered {
                Err(HeadError::Doubtful) if !self.rules().leave(self.is_repeatable(), at) => {
                    may_leave = false;
                }
                answered => break (answered, at),
            }
        };
        let head = match answered {
            Ok(head) => head.into_parts().0,
            Err(error) => {
                let sent = moved(&upward);
                return Err(self.failed(error, &mut picked.flight, clock, at, sent));
            }
        };
        let cause = self.judge(&head, &mut picked.flight, clock, at)?;
        let mut body = response.into_body();
        if !self.is_tunnel() && head.headers.contains_key(GRPC_STATUS) {
            // Trailers-Only: gRPC clients expect the end of the stream on this head, so hyper must know of
            // the end in time. The peer sends both at once.
            let end = std::future::poll_fn(|cx| body.poll_end(cx));
            let wait = clock.end().map_or(limits::TRAILERS_ONLY_WAIT, |deadline| {
                let left = deadline.saturating_duration_since(at);
                left.min(limits::TRAILERS_ONLY_WAIT)
            });
            let _ = tokio::time::timeout(wait, end).await;
        }
        Ok(Answered {
            response: Response::from_parts(head, ()),
            body: AnswerStream::Peer(body),
            upward,
            flight: picked.flight,
            deadline: clock.end(),
            at,
            cause,
        })
    }

    /// The time without progress after which the stream is reset. Before a tunnel is open no bytes pass; the
    /// time for opening is shorter.
    pub(super) fn idle(&self) -> Duration {
        if self.is_tunnel() {
            return deadline::LONGEST;
        }
        let timeouts = &self.route.traffic.timeouts;
        timeouts
            .stream_idle
            .unwrap_or(self.worker.shared.timeouts.stream_idle)
    }

    /// Judges a final head. Returns why the answer may be a failure; a refusal of CONNECT is not one.
    pub(super) fn judge(
        &self,
        head: &http::response::Parts,
        flight: &mut Flight,
        clock: &Clock,
        at: Instant,
    ) -> Result<Option<RetryCause>, Failed> {
        if !self.is_tunnel() {
            let broken = answer::says_broken(&head.headers);
            let verdict = Verdict::of_response(head, self.is_grpc(), broken, clock, at);
            flight.judge(verdict.evidence, at);
            return Ok(verdict.cause);
        }
        let refused = (!head.status.is_success()).then(|| refusal(head));
        let is_unprocessed = refused
            .as_ref()
            .is_some_and(|it| it.reason.is_unprocessed());
        let verdict = Verdict::of_connect(head, is_unprocessed);
        flight.judge(verdict.evidence, at);
        match refused {
            None => Ok(None),
            Some(failure) => Err(Failed {
                failure,
                cause: verdict.cause,
                at,
                sent: 0,
                paid: false,
            }),
        }
    }

    fn failed(
        &self,
        error: HeadError,
        flight: &mut Flight,
        clock: &Clock,
        at: Instant,
        sent: u64,
    ) -> Failed {
        let (failure, ending) = match error {
            HeadError::Doubtful => {
                let silent = "the peer does not acknowledge what it is sent";
                let failure = Failure::new(Reason::ConnectionTerminated, silent);
                (failure, Ending::Silent)
            }
            HeadError::Request(broken) => (broken.failure(), Ending::Own),
            HeadError::Expired(Expired::Stalled) => {
                let stalled = "no response within the idle timeout";
                let failure = Failure::new(Reason::ResponseTimeout, stalled);
                (failure, Ending::Stalled)
            }
            HeadError::Expired(Expired::Deadline) => (self.late(clock, at), Ending::Late),
            HeadError::Stream(error) => (stream_failure(&error), ending(&error)),
        };
        let verdict = ending.verdict(clock, false, at);
        flight.judge(verdict.evidence, at);
        Failed {
            failure,
            cause: verdict.cause,
            at,
            sent,
            paid: ending.is_paid(),
        }
    }

    /// No answer came in time.
    pub(super) fn late(&self, clock: &Clock, at: Instant) -> Failure {
        if self.is_tunnel() {
            let late = "the peer did not answer CONNECT in time";
            Failure::new(Reason::ConnectionTimeout, late)
        } else if clock.is_over(at) {
            let passed = "the deadline passed before a response came";
            Failure::new(Reason::DeadlineExceeded, passed)
        } else {
            let slow = "no response within the time of an attempt";
            Failure::new(Reason::ResponseTimeout, slow)
        }
    }
}

/// How the exchange broke before its head, in terms of HTTP.
fn ending(error: &ReceiveError) -> Ending {
    match error {
        ReceiveError::Unprocessed(Unprocessed::GoingAway) => Ending::Leaving,
        ReceiveError::Unprocessed(Unprocessed::Refused) => Ending::Refused,
        ReceiveError::Busy => Ending::Busy,
        ReceiveError::Reset(_) => Ending::Reset,
        ReceiveError::ConnectionLost(_) => Ending::Lost,
        ReceiveError::Malformed(_) | ReceiveError::TooLarge(_) => Ending::Malformed,
        ReceiveError::GivenUp | ReceiveError::Misuse(_) => Ending::Own,
    }
}

/// The reason that the peer gave for refusing a tunnel.
fn refusal(head: &http::response::Parts) -> Failure {
    if let Some(told) = answer::told(&head.headers, head.status) {
        return told;
    }
    let reason = match head.status.as_u16() {
        403 => Reason::Denied,
        421 => Reason::Misdirected,
        502 => Reason::ConnectionRefused,
        503 => Reason::Overloaded,
        504 => Reason::ConnectionTimeout,
        _ => Reason::ConnectionTerminated,
    };
    let answered = format!("the peer answered {} to CONNECT", head.status.as_u16());
    Failure::new(reason, answered)
}

/// For a client that waits for permission to send the body: reports when it does not wait. Over HTTP/2,
/// reading on grants no permission.
fn proof(head: &Parts) -> Option<Proof> {
    let activity = Arc::clone(head.extensions.get::<Arc<Activity>>()?);
    Some(Box::pin(async move { activity.content().await }))
}

/// The only place where an attempt reads the clock: when it is over.
pub(super) fn read_clock() -> Instant {
    Instant::now()
}

enum HeadError {
    /// The peer does not acknowledge what was sent; the answer may still come.
    Doubtful,
    Stream(ReceiveError),
    Expired(Expired),
    Request(Broken),
}

/// Waits for the final head while the request body is sent.
async fn response_head(
    response: &mut ResponseHalf,
    upward: &mut Upward,
    idle: &mut Idle,
    may_leave: bool,
) -> Result<Response<()>, HeadError> {
    loop {
        let head = {
            let mut next = pin!(response.head_unless(may_leave));
            std::future::poll_fn(|cx| {
                if let Upward::Body(pump) = upward
                    && let Err(broken) = pump.poll(cx)
                {
                    return Poll::Ready(Err(HeadError::Request(broken)));
                }
                if let Poll::Ready(head) = next.as_mut().poll(cx) {
                    let head = head.map_err(HeadError::Stream);
                    return Poll::Ready(head.and_then(|head| head.ok_or(HeadError::Doubtful)));
                }
                idle.poll(cx, moved(upward))
                    .map(|expired| Err(HeadError::Expired(expired)))
            })
            .await?
        };
        if !head.status().is_informational() {
            return Ok(head);
        }
        // hyper's server side sends no other interim response, so 103 ends here.
        if head.status() == StatusCode::CONTINUE
            && let Upward::Body(pump) = upward
        {
            pump.go_on();
        }
    }
}

/// Bytes of the body that were sent.
fn moved(upward: &Upward) -> u64 {
    match upward {
        Upward::Body(pump) => pump.moved(),
        Upward::Ended | Upward::Open(_) | Upward::Outside(_) => 0,
    }
}

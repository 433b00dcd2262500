//! One attempt of a request: a stream is opened, the request goes out, and a response head comes, or not.
//! What went wrong is told in the terms in which retries are decided.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use weft_transport::wire::{ReceiveError, RecvHalf, ResponseHalf, Unprocessed};

use super::connection::Activity;
use super::open::{NotOpened, Opened, Picked, choose, open};
use super::pick::Wish;
use super::route::Route;
use crate::cluster::{Cluster, Flight};
use crate::failure::{Failure, Reason};
use crate::http::body::{Broken, Proof, Pump, poll_pump};
use crate::http::is_event_stream;
use crate::http::upload::{Sending, Upload};
use crate::idle::{Expired, Idle};
use crate::limits;
use crate::mesh::stream_failure;
use crate::resilience::deadline::{self, Clock};
use crate::resilience::retry::{self, Facts, GRPC_STATUS, Trouble};
use crate::resilience::standing::Outcome;
use crate::worker::Worker;

/// What all attempts of one request have in common.
pub(super) struct Call<'a> {
    pub(super) worker: &'a Worker,
    pub(super) route: Route,
    /// The body, if there is one.
    pub(super) upload: Option<Arc<Upload<Incoming>>>,
    pub(super) grpc: bool,
    /// When the answer is no longer wanted.
    pub(super) deadline: Option<Instant>,
    /// The same by the word of an operator alone.
    pub(super) policy_deadline: Option<Instant>,
    /// Whether the timeouts of the route are an operator's word, and not what the caller asked for.
    pub(super) by_policy: bool,
}

/// The head of the response has come.
pub(super) struct Answered {
    pub(super) response: Response<()>,
    pub(super) body: RecvHalf,
    pub(super) pump: Option<Pump>,
    pub(super) flight: Flight,
    /// When this attempt has to be over.
    pub(super) deadline: Option<Instant>,
    /// When the head came.
    pub(super) at: Instant,
}

/// No head came.
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// None where another attempt is out of the question.
    pub(super) trouble: Option<Trouble>,
    /// When that was known.
    pub(super) at: Instant,
    /// Bytes of the body that were sent.
    pub(super) sent: u64,
    /// The retry budget has been asked for the next attempt.
    pub(super) paid: bool,
}

impl Call<'_> {
    /// Takes the endpoints of the newest table for a further attempt: those of before may be why the last
    /// one failed.
    pub(super) fn renew(&mut self, wish: &mut Wish) {
        renew(self.worker, &mut self.route, wish);
    }

    /// Picks an endpoint for an attempt that begins `now`.
    pub(super) fn pick(&self, wish: &mut Wish, now: Instant) -> Result<Picked, Failed> {
        choose(self.worker, &self.route.cluster, wish, now).map_err(|error| not_opened(error, now))
    }

    /// The body from its beginning, if there is one.
    pub(super) fn body(&self) -> Option<Sending<Incoming>> {
        self.upload.as_ref().map(Upload::attempt)
    }

    /// Makes one attempt, which begins `now`.
    pub(super) async fn attempt(
        &self,
        head: &Parts,
        body: Option<Sending<Incoming>>,
        picked: Picked,
        now: Instant,
    ) -> Result<Answered, Failed> {
        let end = body.is_none();
        let own = self.route.traffic.timeouts.backend_request;
        let clock = Clock {
            request: self.deadline,
            attempt: own.map(|timeout| now + timeout),
        };
        let mut may_leave = picked.has_alternative() && self.may_break(head);
        let opened = open(self.worker, &self.route.cluster, picked, head, end, clock).await;
        let Opened {
            mut send,
            mut response,
            mut flight,
        } = opened.map_err(|error| not_opened(error, read_clock()))?;
        let mut pump = None;
        if let Some(body) = body {
            pump = Some(Pump::new(body, send, proof(head)));
        } else {
            // The end went with the head; what remains is to hear that all was well. What went wrong
            // with it is told by the response.
            let _ = send.finish().await;
        }
        let deadline = clock.end();
        let mut idle = Idle::new(self.idle()).until(deadline);
        let (answered, at) = loop {
            let answered = response_head(&mut response, &mut pump, &mut idle, may_leave).await;
            let at = read_clock();
            match answered {
                Err(HeadError::Doubtful) if !self.leaves(at) => may_leave = false,
                answered => break (answered, at),
            }
        };
        let response_head = match answered {
            Ok(head) => head,
            Err(error) => {
                let sent = pump.as_ref().map_or(0, Pump::moved);
                return Err(self.failed(error, &mut flight, clock, at, sent));
            }
        };
        let (head, ()) = response_head.into_parts();
        let is_near = |deadline: Instant| deadline <= at + limits::DEADLINE_SLACK;
        if deadline.is_some_and(is_near) && self.says_too_late(&head) {
            // The deadline that this side told has passed on the other one a moment before.
            flight.late(self.ends_by_policy(clock, at), at);
        } else {
            flight.answered(Outcome::of(&head, self.grpc), at);
        }
        let mut body = response.into_body();
        if head.headers.contains_key(GRPC_STATUS) {
            // Trailers-Only: gRPC clients want the end of the stream on this very head, so hyper must know
            // of it in time. The peer sends both at once.
            let end = std::future::poll_fn(|cx| body.poll_end(cx));
            let wait = deadline.map_or(limits::TRAILERS_ONLY_WAIT, |deadline| {
                let left = deadline.saturating_duration_since(at);
                left.min(limits::TRAILERS_ONLY_WAIT)
            });
            let _ = tokio::time::timeout(wait, end).await;
        }
        Ok(Answered {
            response: Response::from_parts(head, ()),
            body,
            pump,
            flight,
            deadline,
            at,
        })
    }

    /// Whether all of the body that was sent could be sent again.
    pub(super) fn is_repeatable(&self) -> bool {
        self.upload
            .as_ref()
            .is_none_or(|upload| upload.is_repeatable())
    }

    /// Whether a request that breaks off without an answer may be sent again.
    fn may_break(&self, head: &Parts) -> bool {
        let facts = Facts {
            idempotent: head.method.is_idempotent(),
            repeatable: true,
            gamble: false,
        };
        retry::is_permitted(&self.route.traffic.retry, Trouble::Broken, facts)
    }

    /// Whether the request leaves an endpoint that does not acknowledge: it can be sent whole, and there are means for
    /// it. Else it waits, as networks heal.
    fn leaves(&self, at: Instant) -> bool {
        let cluster = &self.route.cluster;
        let budget = &cluster.destination.budget;
        self.is_repeatable() && budget.spend(at, &cluster.traffic.retry_budget)
    }

    /// Time in which nothing moves, after which the stream is reset.
    fn idle(&self) -> std::time::Duration {
        let timeouts = &self.route.traffic.timeouts;
        timeouts
            .stream_idle
            .unwrap_or(self.worker.shared.timeouts.stream_idle)
    }

    /// Takes a response for the answer: nothing will be sent again. Tells what bounds its body.
    pub(super) fn settle(&self, head: &Parts, answered: Answered) -> (Answered, Idle) {
        if let Some(upload) = &self.upload {
            upload.settle();
        }
        let idle = Idle::new(self.idle()).until(self.deadline_of_body(head, &answered));
        (answered, idle)
    }

    /// When the response's body has to be over: a stream whose end nobody waits for may go on.
    fn deadline_of_body(&self, head: &Parts, answered: &Answered) -> Option<Instant> {
        let endless = if self.grpc {
            // gRPC's own deadline is of the whole call; without it a call may be a stream.
            !head.headers.contains_key(deadline::GRPC_TIMEOUT)
        } else {
            is_event_stream(answered.response.headers())
        };
        answered.deadline.filter(|_| !endless)
    }

    /// Whether a response says that there was too little time.
    fn says_too_late(&self, head: &http::response::Parts) -> bool {
        head.status == StatusCode::GATEWAY_TIMEOUT
            || self.grpc && retry::grpc_code(&head.headers) == Some(retry::DEADLINE_EXCEEDED)
    }

    /// Whether it is an operator's word by which an attempt is over at that time.
    fn ends_by_policy(&self, clock: Clock, at: Instant) -> bool {
        let over = |end: Option<Instant>| end.is_some_and(|end| end <= at);
        self.by_policy && (over(clock.attempt) || over(self.policy_deadline))
    }

    fn failed(
        &self,
        error: HeadError,
        flight: &mut Flight,
        clock: Clock,
        at: Instant,
        sent: u64,
    ) -> Failed {
        let paid = matches!(error, HeadError::Doubtful);
        let (failure, trouble, outcome) = match error {
            HeadError::Doubtful => {
                let silent = "the peer does not acknowledge what it is sent";
                let failure = Failure::new(Reason::ConnectionTerminated, silent);
                (failure, Some(Trouble::Broken), Some(Outcome::Badly))
            }
            HeadError::Request(broken) => (broken.failure(), None, None),
            HeadError::Expired(Expired::Stalled) => {
                let stalled = "no response within the idle timeout";
                let failure = Failure::new(Reason::ResponseTimeout, stalled);
                (failure, None, Some(Outcome::Badly))
            }
            HeadError::Expired(Expired::Deadline) => {
                flight.late(self.ends_by_policy(clock, at), at);
                if clock.is_over(at) {
                    let passed = "the deadline passed before a response came";
                    (Failure::new(Reason::DeadlineExceeded, passed), None, None)
                } else {
                    let slow = "no response within the time of an attempt";
                    let failure = Failure::new(Reason::ResponseTimeout, slow);
                    (failure, Some(Trouble::TooSlow), None)
                }
            }
            HeadError::Stream(error) => {
                let (trouble, outcome) = judge(&error);
                (stream_failure(&error), trouble, outcome)
            }
        };
        if let Some(outcome) = outcome {
            flight.tell(outcome, at);
        }
        Failed {
            failure,
            trouble,
            at,
            sent,
            paid,
        }
    }
}

/// What the break of an exchange before its head says: about another attempt, and about the endpoint.
pub(super) fn judge(error: &ReceiveError) -> (Option<Trouble>, Option<Outcome>) {
    let busy = Outcome::Busy(limits::SPARED);
    match error {
        // It goes away in good order, or has too much to do.
        ReceiveError::Unprocessed(Unprocessed::GoingAway) => (Some(Trouble::Unprocessed), None),
        ReceiveError::Unprocessed(Unprocessed::Refused) => (Some(Trouble::Unprocessed), Some(busy)),
        ReceiveError::Busy => (Some(Trouble::Broken), Some(busy)),
        ReceiveError::Reset(_) | ReceiveError::ConnectionLost(_) => {
            (Some(Trouble::Broken), Some(Outcome::Badly))
        }
        ReceiveError::Malformed(_) | ReceiveError::TooLarge(_) => (None, Some(Outcome::Badly)),
        // Not the endpoint's doing.
        ReceiveError::GivenUp | ReceiveError::Misuse(_) => (None, None),
    }
}

/// Takes the endpoints of the newest table for a further attempt.
pub(super) fn renew(worker: &Worker, route: &mut Route, wish: &mut Wish) {
    if let Some(cluster) = worker.directory().successor(&route.cluster) {
        wish.tried = wish.tried.moved(&route.cluster, &cluster);
        route.cluster = cluster;
    }
}

/// If the client waits to be told that it may send the body: what tells when it does not wait. Over HTTP/2 it is told
/// nothing by reading on.
fn proof(head: &Parts) -> Option<Proof> {
    let activity = Arc::clone(head.extensions.get::<Arc<Activity>>()?);
    Some(Box::pin(async move { activity.content().await }))
}

/// The failure of the last attempt; says so where it hit an endpoint that was out, for want of any other.
pub(super) fn with_standing(mut failure: Failure, cluster: &Cluster) -> Failure {
    if cluster.is_all_out() {
        let out = "; every endpoint is out of rotation for failures before (weft endpoints)";
        failure.detail.to_mut().push_str(out);
    }
    failure
}

fn not_opened(NotOpened { failure, trouble }: NotOpened, at: Instant) -> Failed {
    Failed {
        failure,
        trouble,
        at,
        sent: 0,
        paid: false,
    }
}

/// The one place where an attempt reads the clock: when it is over.
fn read_clock() -> Instant {
    Instant::now()
}

enum HeadError {
    /// The peer does not acknowledge what it was sent; the answer may still come.
    Doubtful,
    Stream(ReceiveError),
    Expired(Expired),
    Request(Broken),
}

/// Waits for the final head, while the request body goes out.
async fn response_head(
    response: &mut ResponseHalf,
    pump: &mut Option<Pump>,
    idle: &mut Idle,
    may_leave: bool,
) -> Result<Response<()>, HeadError> {
    loop {
        let head = {
            let mut next = pin!(response.head_unless(may_leave));
            std::future::poll_fn(|cx| {
                if let Err(broken) = poll_pump(pump, cx) {
                    return Poll::Ready(Err(HeadError::Request(broken)));
                }
                if let Poll::Ready(head) = next.as_mut().poll(cx) {
                    let head = head.map_err(HeadError::Stream);
                    return Poll::Ready(head.and_then(|head| head.ok_or(HeadError::Doubtful)));
                }
                let moved = pump.as_ref().map_or(0, Pump::moved);
                idle.poll(cx, moved)
                    .map(|expired| Err(HeadError::Expired(expired)))
            })
            .await?
        };
        if !head.status().is_informational() {
            return Ok(head);
        }
        // hyper's server side sends no other interim response, so 103 ends here.
        if head.status() == StatusCode::CONTINUE
            && let Some(pump) = pump
        {
            pump.go_on();
        }
    }
}

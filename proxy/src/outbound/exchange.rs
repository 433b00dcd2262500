//! One exchange of the application from its plan to its answer: a request, or the opening of a tunnel. It
//! owns all that it needs, so that a copy of it may outlive the task that asked for it.
//!
//! Stages: [`super::plan`] makes it, [`super::filters`] change it, [`Exchange::answer`] attempts until there
//! is an answer ([`super::attempt`], [`super::hedge`]), and [`super::request`] or [`super::tunnel`] relays
//! that. Whether it is sent again is decided in [`crate::resilience::attempts`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http_body::Body as _;
use hyper::body::Incoming;
use weft_transport::locks::lock;

use super::attempt::{Answered, Failed};
use super::filters::cors::Grant;
use super::filters::mirror::Mirrored;
use super::open::{Picked, pick_endpoint};
use super::route::Route;
use crate::cluster::Cluster;
use crate::cluster::pick::Criteria;
use crate::failure::{Failure, Reason};
use crate::http::answer;
use crate::http::content::Content;
use crate::http::upload::{Sending, Upload};
use crate::limits;
use crate::metrics::Shard;
use crate::record::Record;
use crate::record::attempt::Ended;
use crate::resilience::attempts::{Attempts, FailedAttempt, Next, Rules};
use crate::resilience::deadline::{self, Deadline};
use crate::resilience::destination::{Counts, Event};
use crate::resilience::propagation::TraceId;
use crate::resilience::retry::RetryAdvice;
use crate::worker::{Count, Worker};

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) worker: Arc<Worker>,
    /// As it crosses the mesh.
    pub(super) head: Parts,
    pub(super) route: Route,
    /// The criteria by which an endpoint is picked, with those that were tried.
    pub(super) criteria: Criteria,
    pub(super) carries: Carries,
    pub(super) deadline: Deadline,
    /// Links it to the request that the application is serving.
    pub(super) trace: Option<TraceId>,
    /// What its answer says to pages of other origins, where its route does. Boxed, as most need no room for
    /// it.
    pub(super) grant: Option<Box<Grant>>,
    /// Copies that its route drew and that are not sent yet.
    pub(super) mirrored: Option<Box<Mirrored>>,
}

/// The body, or the bytes of a tunnel, that follow the head to the peer.
#[derive(Clone)]
pub(super) enum Carries {
    /// A request.
    Request {
        /// Its body, if there is one. Retries and copies read it again; see [`Exchange::copy_of_body`].
        body: Option<Arc<Upload<Content>>>,
        /// Whether it is a call of gRPC.
        grpc: bool,
    },
    /// Bytes, once the far side has accepted: none are read from the application before that.
    Tunnel,
}

/// What follows an attempt.
enum Then {
    /// Another one, after this pause.
    Again(Duration),
    /// Its outcome is the answer.
    Answer,
    /// No answer is to be had.
    GiveUp,
}

/// The body of a copy that is sent beside an exchange.
pub(super) enum CopyOfBody {
    /// The exchange has none.
    None,
    /// The whole body.
    Whole(Sending<Content>),
    /// Part of it has not arrived, or it is larger than may be kept.
    NotHere,
}

impl Exchange {
    /// Takes the request's body. It is kept for another attempt if one is allowed and the body fits within
    /// the bounds.
    pub(super) fn take_body(&mut self, incoming: Incoming) {
        let retry = &self.route.traffic.retry;
        let of_retries = match retry.attempts {
            0 => 0,
            _ => usize::try_from(retry.body_replay).unwrap_or(0),
        };
        let of_mirrors = match self.mirrored {
            Some(_) => limits::MIRROR_BODY_BYTES_MAX,
            None => 0,
        };
        let least = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
        let most = Some(of_retries.max(of_mirrors)).filter(|most| least <= *most);
        if let Carries::Request { body, .. } = &mut self.carries
            && !incoming.is_end_stream()
        {
            let room = Arc::clone(&self.worker.room);
            let content = Content::new(incoming, self.worker.tasks.clone());
            *body = Some(Upload::new(content, most.unwrap_or(0), room));
        }
    }

    /// Makes attempts until there is an answer to relay, or no further attempt is allowed.
    pub(super) async fn answer(
        &mut self,
        record: &mut Record,
        mut now: Instant,
    ) -> Result<Answered, Failure> {
        let budget = &self.route.cluster.destination.budget;
        budget.request(record.started);
        let mut attempts = Attempts::default();
        loop {
            let Some(clock) = attempts.begin(&self.deadline, self.timeout(), now) else {
                return Err(self.passed());
            };
            self.tell_deadline(now);
            record.attempts = attempts.made();
            let traced = self.begin_span(record);
            let parts = record.kept.begin(now);
            parts.span = traced;
            let pause = {
                let outcome = match self.hedge() {
                    // Rare, and large: most requests need no room for it.
                    Some(hedge) => {
                        let traced = record.traced.as_deref_mut();
                        Box::pin(self.hedged(hedge, &mut attempts, clock, now, (parts, traced)))
                            .await
                    }
                    None => match self.pick(now) {
                        Ok(picked) => {
                            let again = attempts.may_go_on(&self.route.traffic.retry);
                            let picked = picked.repeatable(again);
                            self.attempt(self.body(), picked, &clock, parts).await
                        }
                        Err(failed) => Err(failed),
                    },
                };
                match &outcome {
                    Ok(answered) => {
                        let status = answered.response.status().as_u16();
                        parts.finish(Ended::Answered(status), answered.at);
                    }
                    Err(failed) => parts.finish(Ended::Failed(failed.failure.reason), failed.at),
                }
                let (last, name) = (self.criteria.tried.last(), self.route.name.as_ref());
                let (cluster, count) = (&self.route.cluster, self.count());
                record.counted = self.worker.leaving(cluster, last, name, count);
                match self.then(&outcome, attempts, record) {
                    // Its stream is reset here, before the pause.
                    Then::Again(pause) => pause,
                    Then::Answer => {
                        let told = |failed: Failed| with_standing(failed.failure, cluster);
                        return outcome.map_err(told);
                    }
                    Then::GiveUp => {
                        let failure = in_vain(outcome, attempts.made());
                        return Err(with_standing(failure, cluster));
                    }
                }
            };
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            self.renew();
            now = Instant::now();
        }
    }

    /// Makes the next attempt a span, if there are any, and tells its next hop. Returns the span's id.
    fn begin_span(&mut self, record: &mut Record) -> u64 {
        let Some(traced) = &mut record.traced else {
            return 0;
        };
        if let Some(displaced) = record.kept.displaced() {
            traced.keep(*displaced);
        }
        let span = self.worker.span_id();
        traced.tell(span, &mut self.head.headers);
        span
    }

    /// The rules that bind its attempts now.
    pub(super) fn rules(&self) -> Rules<'_> {
        let cluster = &self.route.cluster;
        Rules {
            retry: &self.route.traffic.retry,
            budget: &cluster.destination.budget,
            allowance: &cluster.traffic.retry_budget,
            deadline: self.deadline,
            idempotent: self.head.method.is_idempotent(),
        }
    }

    /// How long one attempt may take by the policy of its route. All attempts of a tunnel have one time.
    pub(super) fn timeout(&self) -> Option<Duration> {
        match self.carries {
            Carries::Request { .. } => self.route.traffic.timeouts.backend_request,
            Carries::Tunnel => None,
        }
    }

    /// Picks an endpoint for an attempt that begins `now`.
    pub(super) fn pick(&mut self, now: Instant) -> Result<Picked, Failed> {
        let (worker, cluster) = (&self.worker, &self.route.cluster);
        pick_endpoint(worker, cluster, &mut self.criteria, now)
            .map_err(|error| Failed::unopened(error, now))
    }

    /// Whether it is a call of gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        matches!(self.carries, Carries::Request { grpc: true, .. })
    }

    /// Whether it opens a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        match self.carries {
            Carries::Request { .. } => false,
            Carries::Tunnel => true,
        }
    }

    /// The body from its beginning, if there is one.
    pub(super) fn body(&self) -> Option<Sending<Content>> {
        self.upload().map(Upload::attempt)
    }

    /// A copy of the request's body for a request that is sent beside the present attempt, such as a hedge.
    /// The bounds of retries hold for it: the policy's `retry.bodyReplay`,
    /// [`crate::limits::REPLAY_PIECES_MAX`], and [`crate::limits::REPLAY_BYTES_MAX`] for all requests of a
    /// worker.
    pub(super) fn copy_of_body(&self) -> CopyOfBody {
        match self.upload().map(|upload| upload.whole()) {
            None => CopyOfBody::None,
            Some(Some(whole)) => CopyOfBody::Whole(whole),
            Some(None) => CopyOfBody::NotHere,
        }
    }

    /// Whether all of the body that was sent could be sent again.
    pub(super) fn is_repeatable(&self) -> bool {
        self.upload().is_none_or(|upload| upload.is_repeatable())
    }

    /// Accepts this response as the answer: the request will not be sent again, and the sent part of the body
    /// is dropped.
    pub(super) fn settle(&self) {
        if let Some(upload) = self.upload() {
            upload.settle();
        }
    }

    fn upload(&self) -> Option<&Arc<Upload<Content>>> {
        match &self.carries {
            Carries::Request { body, .. } => body.as_ref(),
            Carries::Tunnel => None,
        }
    }

    /// The Service and port that the application addressed, as `orders.shop:80`.
    pub(super) fn addressed(&self) -> Arc<str> {
        let addressed = self.route.parent.as_ref().unwrap_or(&self.route.cluster);
        Arc::clone(&addressed.label)
    }

    /// The events of the Service and port that the application addressed.
    pub(super) fn counts(&self) -> Arc<Counts> {
        let addressed = self.route.parent.as_ref().unwrap_or(&self.route.cluster);
        Arc::clone(&addressed.destination.counts)
    }

    /// Where it is counted.
    fn count(&self) -> Count {
        match self.carries {
            Carries::Request { .. } => Shard::requests,
            Carries::Tunnel => Shard::tunnels,
        }
    }

    /// Tells the next hop what is left of the deadline.
    pub(super) fn tell_deadline(&mut self, now: Instant) {
        if let Some(end) = self.deadline.of_answer() {
            let left = end.saturating_duration_since(now);
            deadline::tell(&mut self.head.headers, left);
        }
    }

    /// What follows an attempt that ended like this.
    fn then(
        &self,
        outcome: &Result<Answered, Failed>,
        attempts: Attempts,
        record: &mut Record,
    ) -> Then {
        let repeatable = self.is_repeatable();
        let (setback, at) = match outcome {
            Ok(answered) => {
                // A good answer is relayed.
                if answered.cause.is_none() {
                    return Then::Answer;
                }
                let setback = FailedAttempt {
                    cause: answered.cause,
                    advice: RetryAdvice::of(answered.response.headers()),
                    repeatable,
                    on_trial: answered.flight.is_on_trial(),
                    paid: false,
                };
                (setback, answered.at)
            }
            Err(failed) => {
                record.sent = failed.sent;
                let setback = FailedAttempt {
                    cause: failed.cause,
                    advice: RetryAdvice::None,
                    repeatable,
                    on_trial: false,
                    paid: failed.paid,
                };
                (setback, failed.at)
            }
        };
        let random = &mut *lock(&self.worker.random);
        let next = attempts.next(&self.rules(), &setback, at, random);
        let counts = &self.route.cluster.destination.counts;
        let event = setback.cause.map(|cause| Event::of(&next, cause));
        if let Some(event) = event.flatten() {
            counts.add(event);
        }
        if let Next::Withheld(why) = next {
            record.withheld = Some(why);
        }
        if let Next::Retry(pause) = next {
            if !self.is_tunnel() {
                record.retried = Some(Arc::clone(counts));
            }
            return Then::Again(pause);
        }
        if let Some(trace) = self.trace
            && attempts.is_spent(setback.advice, next)
        {
            self.worker.shared.propagation.spend(trace);
        }
        match Attempts::is_in_vain(&self.route.traffic.retry, setback.cause, next) {
            true => Then::GiveUp,
            false => Then::Answer,
        }
    }

    /// Takes the endpoints of the newest table for a further attempt: the last one may have failed because
    /// they are outdated.
    fn renew(&mut self) {
        let (route, criteria) = (&mut self.route, &mut self.criteria);
        // It was tried, or was out of rotation by then.
        criteria.preferred = None;
        if let Some(cluster) = self.worker.directory().successor(&route.cluster) {
            criteria.tried = criteria.tried.moved(&route.cluster, &cluster);
            route.cluster = cluster;
        }
    }

    /// No time is left for an attempt.
    fn passed(&self) -> Failure {
        match self.carries {
            Carries::Request { .. } => Failure::new(
                Reason::DeadlineExceeded,
                "the deadline had passed before the request was sent",
            ),
            Carries::Tunnel => Failure::new(
                Reason::ConnectionTimeout,
                "the time to open a tunnel had passed before another endpoint was asked",
            ),
        }
    }
}

/// The failure of a request whose attempts all failed by their connections.
fn in_vain(outcome: Result<Answered, Failed>, made: u32) -> Failure {
    let last = match outcome {
        Ok(Answered { response, .. }) => answer::told(response.headers(), response.status()),
        Err(failed) => Some(failed.failure),
    };
    let last = last.map_or_else(String::new, |failure| format!("; the last: {failure}"));
    let detail = format!("no connection lasted until an answer in {made} attempts{last}");
    Failure::new(Reason::NoEndpoint, detail)
}

/// The failure of the last attempt; says so if it hit an endpoint that was out, because no other was left.
fn with_standing(mut failure: Failure, cluster: &Cluster) -> Failure {
    if cluster.is_all_out() {
        let out = "; every endpoint is out of rotation for failures before (weft endpoints)";
        failure.detail.to_mut().push_str(out);
    }
    failure
}

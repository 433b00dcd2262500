//! The record of one request or tunnel. It is kept while the exchange runs, and passed to its observers once,
//! when the exchange ends or is dropped. The observers are its metrics and those of its worker
//! ([`Observers`]), such as the access log; another one is one more entry in the list that `run/stages.rs`
//! makes. Tunnels count their bytes as they pass ([`TunnelSeries`]), because tunnels may last for days.
//!
//! The timing of its attempts is in `record/attempt.rs`, what its spans need in `record/trace.rs`, what its
//! route did to it in `record/routed.rs`.

pub(crate) mod attempt;
mod routed;
pub(crate) mod trace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri};

use attempt::{AttemptHistory, Ended};
pub(crate) use routed::Routed;
use trace::Traced;

use crate::cluster::Flight;
use crate::failure::{Failure, Reason};
use crate::metrics::{self, Counted, Series, TunnelSeries};
use crate::resilience::attempts::WithheldReason;
use crate::resilience::destination::{Counts, Event};
use crate::resilience::retry;
use crate::resilience::standing::Outcome;
use crate::serving_time::ServingTime;

/// One request under way. Filled in as facts become known.
pub(crate) struct Record {
    /// Where the exchange is counted, and its labels in logs.
    pub(crate) counted: Arc<Counted>,
    /// Those of its worker.
    observers: Arc<Observers>,
    /// When its head was complete.
    pub(crate) started: Instant,
    /// Its method.
    pub(crate) method: Method,
    /// Its target.
    pub(crate) uri: Uri,
    /// Its id, if it has one (tunnels have none).
    pub(crate) request_id: Option<HeaderValue>,
    /// The revision whose routes and policies decided about it. A further attempt asks endpoints of a newer
    /// one, where there is a newer one; what else was decided stays.
    pub(crate) revision: Option<u64>,
    /// The status of the answer; 0 while there is none.
    pub(crate) status: u16,
    /// Why the mesh answered, if it did.
    pub(crate) failure: Option<Failure>,
    /// How a route answered, if it did: that is no failure.
    pub(crate) reply: Option<Reply>,
    /// The time that it took on the serving side, if that told it.
    pub(crate) serving: Option<ServingTime>,
    /// The gRPC code, where one was seen.
    pub(crate) grpc_status: Option<u8>,
    /// Bytes of the request's content.
    pub(crate) sent: u64,
    /// Bytes of the response's content.
    pub(crate) received: u64,
    /// Counts against the endpoint while it runs, and gets the status at the end of a gRPC call.
    pub(crate) flight: Option<Flight>,
    /// Attempts that were made; 0 if it was never sent.
    pub(crate) attempts: u32,
    /// Why it was not sent once more, although such failures are.
    pub(crate) withheld: Option<WithheldReason>,
    /// The first attempts and the last one, with the duration of each of their parts.
    pub(crate) kept: AttemptHistory,
    /// What its spans need, if they are recorded. Boxed, because few exchanges have any.
    pub(crate) traced: Option<Box<Traced>>,
    /// Where repeated attempts are counted, if there were any.
    pub(crate) retried: Option<Arc<Counts>>,
    /// What its route did to it. Boxed, as most requests need no room for it.
    pub(crate) routed: Option<Box<Routed>>,
    ended: bool,
}

/// An answer that a route gives in the destination's place, as it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Another URL.
    Redirect,
    /// What pages of other origins may do.
    Preflight,
}

impl Reply {
    /// Its name in logs and in `proxy-status`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Preflight => "preflight",
        }
    }
}

/// An exchange that is over, as its observers see it.
pub(crate) struct Finished<'a> {
    /// The facts known of it.
    pub(crate) record: &'a Record,
    /// The time at which the exchange ended.
    pub(crate) ended: Instant,
    /// How it ended.
    pub(crate) outcome: metrics::Outcome,
    /// The answer had begun, and did not reach its end.
    pub(crate) is_broken_off: bool,
}

/// Gets each exchange that is over. It must not wait, because the exchange's task would wait with it.
pub(crate) trait Observer {
    /// Takes the record of an exchange that has ended.
    fn observe(&self, finished: &Finished<'_>);
}

/// Who is told of every exchange of a worker that is over, in this order, after the metrics of that exchange.
pub(crate) struct Observers(Vec<Box<dyn Observer + Send + Sync>>);

impl Observers {
    /// These.
    pub(crate) fn new(all: Vec<Box<dyn Observer + Send + Sync>>) -> Self {
        Self(all)
    }
}

impl Finished<'_> {
    /// How long it took in all.
    pub(crate) fn duration(&self) -> Duration {
        self.ended.saturating_duration_since(self.record.started)
    }

    /// How long it took from the head of the answer to the end, if an attempt received one.
    pub(crate) fn body(&self) -> Option<Duration> {
        let last = self.record.kept.last()?;
        let answered = matches!(last.ended, Some(Ended::Answered(_)));
        answered.then(|| self.ended.saturating_duration_since(last.over()))
    }
}

impl Finished<'_> {
    /// The time until the head of the answer, as far as this side knows it.
    pub(crate) fn head(&self) -> Option<Duration> {
        match (self.record.kept.last(), self.record.serving) {
            (Some(last), _) => Some(last.over().saturating_duration_since(self.record.started)),
            (None, Some(serving)) => Some(serving.application() + serving.sidecar()),
            (None, None) => None,
        }
    }

    /// The mesh's part of the time until the head of the answer: in the calling sidecar all but what the
    /// application took, in the serving one what that one took. None where the serving side did not tell.
    pub(crate) fn mesh(&self) -> Option<Duration> {
        let serving = self.record.serving?;
        Some(self.head()?.saturating_sub(serving.application()))
    }
}

impl Record {
    /// The record of a call that begins.
    pub(crate) fn new(
        counted: Arc<Counted>,
        observers: Arc<Observers>,
        started: Instant,
        head: &http::request::Parts,
        request_id: Option<HeaderValue>,
    ) -> Self {
        Self {
            counted,
            observers,
            started,
            method: head.method.clone(),
            uri: head.uri.clone(),
            request_id,
            revision: None,
            status: 0,
            failure: None,
            reply: None,
            serving: None,
            grpc_status: None,
            sent: 0,
            received: 0,
            flight: None,
            attempts: 0,
            withheld: None,
            kept: AttemptHistory::default(),
            traced: None,
            retried: None,
            routed: None,
            ended: false,
        }
    }

    /// Notes the service that the request was for, if the target does not name it: the request may be refused
    /// before it is written there.
    pub(crate) fn name_authority(&mut self, head: &http::request::Parts) {
        let host = head.headers.get(HOST).map(HeaderValue::as_bytes);
        let host = host.and_then(|host| Authority::try_from(host).ok());
        if self.uri.authority().is_none()
            && let Some(host) = host
        {
            let mut parts = self.uri.clone().into_parts();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(host);
            parts
                .path_and_query
                .get_or_insert(PathAndQuery::from_static("/"));
            self.uri = Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone());
        }
    }

    /// A response without content, whatever its fields say (RFC 9110 section 6.4.1).
    pub(crate) fn is_bodiless(&self) -> bool {
        self.method == Method::HEAD || matches!(self.status, 204 | 205 | 304)
    }

    /// As [`Self::is_bodiless`] except for 205, whose end is framed like that of any response (RFC 9112
    /// section 6.3).
    pub(crate) fn has_no_content(&self) -> bool {
        self.status != 205 && self.is_bodiless()
    }

    /// Counts the tunnel as open; returns the series that counts its bytes.
    pub(crate) fn open_tunnel(&self) -> Option<Arc<TunnelSeries>> {
        match &self.counted.series {
            Series::Tunnels(series) => {
                series.open();
                Some(Arc::clone(series))
            }
            Series::Requests(_) => None,
        }
    }

    /// Notes the result of a gRPC call.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(value) = trailers.get("grpc-status") {
            self.grpc_status = value.to_str().ok().and_then(|text| text.parse().ok());
        }
    }

    /// Ends the record: the observers count and log it.
    pub(crate) fn end(mut self, outcome: Result<(), Failure>) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Result<(), Failure>) {
        self.ended = true;
        let is_broken_off = outcome.is_err();
        if let Err(failure) = outcome {
            self.failure.get_or_insert(failure);
        }
        let now = Instant::now();
        self.kept.give_up(now);
        if let Some(mut flight) = self.flight.take()
            && let Some(code) = self.grpc_status
        {
            match code {
                retry::DEADLINE_EXCEEDED => flight.late(false, now),
                code => flight.tell(Outcome::of_grpc(code), now),
            }
        }
        let outcome = metrics::Outcome {
            status: self.status,
            error: self
                .failure
                .as_ref()
                .map_or("", |failure| failure.reason.token()),
            failed: self.failed(),
        };
        if let Some(counts) = &self.retried {
            counts.add(if outcome.failed {
                Event::NotRecovered
            } else {
                Event::Recovered
            });
        }
        let finished = Finished {
            record: self,
            ended: now,
            outcome,
            is_broken_off,
        };
        self.counted.observe(&finished);
        for observer in &self.observers.0 {
            observer.observe(&finished);
        }
    }

    /// The mesh or the application failed. A refusal by policy, or of a bad request, counts as well if the
    /// mesh made it.
    fn failed(&self) -> bool {
        let grpc = self.grpc_status.is_some_and(retry::is_grpc_failure);
        self.failure.is_some() || self.status >= 500 || grpc
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // hyper drops the work of a caller that went away while it waited.
        if !self.ended {
            self.finish(Err(Failure::new(
                Reason::CallerGone,
                "broken off before its end",
            )));
        }
    }
}

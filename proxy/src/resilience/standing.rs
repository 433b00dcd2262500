//! One worker's view of one endpoint: how busy and how slow it is, whether it is in rotation, and whether it
//! asked for fewer requests. Pure except for one lock, which only this worker and the admin endpoint take.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weft_config::table;
use weft_transport::locks::lock;

use super::balance::Candidate;
use super::breaker::{Admission, Breaker, Cause, OutStatus};
use super::latency::{Latency, Usual};
use super::load::{Load, Slice, UnderWay};
use super::retry::{self, is_grpc_failure};
use crate::limits;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Names it for consistent hashing.
    name: u64,
    /// When it joined endpoints that were there before; none if it was among the first.
    joined: Option<Instant>,
    /// How many endpoints of its port are out of rotation, in any snapshot: the endpoint counts itself in and
    /// out.
    out: Arc<AtomicUsize>,
    judged: Mutex<Judged>,
}

#[derive(Debug, Default)]
struct Judged {
    /// Requests and tunnels that this worker has under way to it.
    load: Load,
    latency: Latency,
    usual: Usual,
    breaker: Breaker,
    /// Until then it gets less than its share.
    spared_until: Option<Instant>,
}

/// How one request to it ended, as far as that tells about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The endpoint answered.
    Well,
    /// It was not reached, the connection broke, or it answered with an error of its own.
    Badly,
    /// It reported that it is overloaded, and for how long.
    Busy(Duration),
}

/// The gRPC code that corresponds to 503.
const UNAVAILABLE: u8 = 14;

impl Outcome {
    /// By the code of a gRPC response. With RESOURCE_EXHAUSTED an endpoint reports that it is busy.
    pub(crate) fn of_grpc(code: u8) -> Self {
        match code {
            8 => Self::Busy(limits::SPARED),
            code if is_grpc_failure(code) => Self::Badly,
            _ => Self::Well,
        }
    }

    /// By the head of a response. An endpoint that answers 429 or 503 and says when to come back is busy,
    /// which is no failure. None for a gRPC response whose result is yet to come.
    pub(crate) fn of(head: &http::response::Parts, grpc: bool) -> Option<Self> {
        let busy = retry::retry_after(&head.headers);
        match (head.status.as_u16(), busy) {
            (429, time) => Some(Self::Busy(time.unwrap_or(limits::SPARED))),
            (503, Some(time)) => Some(Self::Busy(time)),
            // 421: it does not serve the service that the table says.
            (421 | 500.., _) => Some(Self::Badly),
            // The gRPC form of the same answer.
            (_, Some(time)) if grpc && retry::grpc_code(&head.headers) == Some(UNAVAILABLE) => {
                Some(Self::Busy(time))
            }
            (_, _) if grpc => retry::grpc_code(&head.headers).map(Self::of_grpc),
            (_, _) => Some(Self::Well),
        }
    }
}

/// The role that a request has for the endpoint at which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// It is the probe by which the endpoint may return.
    pub(crate) probe: bool,
    /// The endpoint was out, and came back recently: that may be why the request fails.
    pub(crate) on_trial: bool,
}

/// A change that a report made, for metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is out, or would be if the breaker were enforced.
    Out(Cause),
    /// It is back.
    Back,
}

/// The state that the admin endpoint shows.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) load: u32,
    pub(crate) latency: Option<f64>,
    pub(crate) share: f64,
    pub(crate) out: Option<OutStatus>,
}

impl Standing {
    /// A new endpoint without history. `name` is the same in every process that knows the endpoint; `out`
    /// counts those of its port that are out of rotation.
    pub(crate) fn new(name: u64, joined: Option<Instant>, out: Arc<AtomicUsize>) -> Self {
        Self {
            name,
            joined,
            out,
            judged: Mutex::default(),
        }
    }

    /// The facts that the pick needs.
    pub(crate) fn candidate(&self, now: Instant, slow_start: Duration) -> Candidate {
        let mut judged = lock(&self.judged);
        Candidate {
            load: judged.load.under_way(now),
            latency: judged.latency.seconds(now, limits::LATENCY_DECAY),
            share: self.share(&judged, now, slow_start),
            name: self.name,
        }
    }

    /// Whether a request may go there.
    pub(crate) fn admission(&self, now: Instant) -> Admission {
        lock(&self.judged).breaker.admission(now)
    }

    /// Whether it is out of rotation.
    pub(crate) fn is_out(&self) -> bool {
        lock(&self.judged).breaker.is_out()
    }

    /// For how long a probe has been due.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Duration> {
        lock(&self.judged).breaker.overdue(now)
    }

    /// A request goes there.
    pub(crate) fn begin(&self, now: Instant, policy: &table::Breaker) -> Begun {
        let mut judged = lock(&self.judged);
        judged.load.begin();
        let probe = judged.breaker.begin(now);
        Begun {
            probe,
            on_trial: probe || judged.breaker.is_on_trial(now, policy),
        }
    }

    /// A response head came after this time. A head that reports a failure never makes the endpoint look
    /// quicker.
    pub(crate) fn answered(&self, took: Duration, well: bool, now: Instant) -> Slice {
        let mut judged = lock(&self.judged);
        judged.measure(took, well, now);
        judged.load.answered(now)
    }

    /// A request was given up after this time: a response would have taken at least as long.
    pub(crate) fn given_up(&self, took: Duration, now: Instant) {
        lock(&self.judged).measure(took, false, now);
    }

    /// The usual time of an answer, if any ever came.
    pub(crate) fn usual(&self) -> Option<Duration> {
        lock(&self.judged).usual.get()
    }

    /// Counts what a request showed about the endpoint. `others_suffice` says whether the other endpoints
    /// suffice without it.
    pub(crate) fn report(
        &self,
        outcome: Outcome,
        probe: bool,
        now: Instant,
        policy: &table::Breaker,
        others_suffice: impl FnOnce() -> bool,
    ) -> Option<Change> {
        // Asked before the lock is taken: counting the others locks each of them, and this one, too.
        let others_suffice = outcome == Outcome::Badly && others_suffice();
        let mut judged = lock(&self.judged);
        let was_out = judged.breaker.is_out();
        let change = match outcome {
            Outcome::Well => judged
                .breaker
                .succeeded(probe, now, policy)
                .then_some(Change::Back),
            Outcome::Badly => judged
                .breaker
                .failed(probe, now, policy, || others_suffice)
                .map(Change::Out),
            Outcome::Busy(time) => {
                let until = now + time.min(limits::SPARED_MAX);
                judged.spared_until = judged.spared_until.max(Some(until));
                // It answers, so it exists.
                judged
                    .breaker
                    .succeeded(probe, now, policy)
                    .then_some(Change::Back)
            }
        };
        match (was_out, judged.breaker.is_out()) {
            (false, true) => drop(self.out.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.out.fetch_sub(1, Ordering::Relaxed)),
            (true, true) | (false, false) => {}
        }
        change
    }

    /// A request is over, and was answered in `answered`, if at all. `probe_unresolved`: it was the probe and
    /// gave no result.
    pub(crate) fn end(&self, answered: Option<Slice>, probe_unresolved: bool) {
        let mut judged = lock(&self.judged);
        judged.load.end(answered);
        if probe_unresolved {
            judged.breaker.abandoned();
        }
    }

    /// The known state, for the admin endpoint.
    pub(crate) fn status(&self, now: Instant, slow_start: Duration) -> Status {
        let mut judged = lock(&self.judged);
        let UnderWay { busy, settled } = judged.load.under_way(now);
        Status {
            load: busy + settled,
            latency: judged.latency.seconds(now, limits::LATENCY_DECAY),
            share: self.share(&judged, now, slow_start),
            out: judged.breaker.status(),
        }
    }

    fn share(&self, judged: &Judged, now: Instant, slow_start: Duration) -> f64 {
        let grown = match self.joined {
            Some(joined) if !slow_start.is_zero() => {
                let age = now.saturating_duration_since(joined).as_secs_f64();
                (age / slow_start.as_secs_f64()).clamp(limits::SLOW_START_SHARE, 1.0)
            }
            Some(_) | None => 1.0,
        };
        match judged.spared_until {
            Some(until) if now < until => grown * limits::SPARED_SHARE,
            Some(_) | None => grown,
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if self.is_out() {
            self.out.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Judged {
    fn measure(&mut self, took: Duration, well: bool, now: Instant) {
        let expected = self.latency.seconds(now, limits::LATENCY_DECAY);
        if well || expected.is_some_and(|expected| took.as_secs_f64() > expected) {
            self.latency.observe(took, now, limits::LATENCY_DECAY);
        }
        if well {
            self.usual.observe(took);
        }
    }
}

/// Whether a passed deadline counts against an endpoint that has not answered by then. `usual` is its usual
/// answer time; `policy` if an operator set the deadline, not a caller.
pub(crate) fn is_late(waited: Duration, usual: Option<Duration>, policy: bool) -> bool {
    let least = match (usual, policy) {
        (Some(usual), true) => usual * limits::LATE_TIMES,
        (Some(usual), false) => (usual * limits::LATE_TIMES).max(limits::LATE_LEAST),
        (None, true) => Duration::ZERO,
        (None, false) => limits::LATE_UNKNOWN,
    };
    waited >= least
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::balance::{Method, choose_endpoint};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_new_endpoint_grows_to_its_share() {
        let now = Instant::now();
        let new = Standing::new(1, Some(now), Arc::default());
        let share = |after: Duration| new.candidate(now + after, SECOND * 10).share;
        assert_eq!(share(Duration::ZERO), limits::SLOW_START_SHARE);
        assert_eq!(share(SECOND * 5), 0.5);
        assert_eq!(share(SECOND * 20), 1.0);
        let first = Standing::new(1, None, Arc::default());
        assert_eq!(first.candidate(now, SECOND * 10).share, 1.0);
    }

    #[test]
    fn one_that_is_busy_is_spared_for_as_long_as_it_says_and_stays_in_rotation() {
        let now = Instant::now();
        let busy = Standing::new(1, None, Arc::default());
        let policy = table::Breaker::default();
        for _ in 0..50 {
            busy.report(Outcome::Busy(SECOND), false, now, &policy, || true);
        }
        assert_eq!(busy.admission(now), Admission::Yes);
        assert_eq!(
            busy.candidate(now, Duration::ZERO).share,
            limits::SPARED_SHARE
        );
        assert_eq!(busy.candidate(now + SECOND, Duration::ZERO).share, 1.0);
    }

    #[test]
    fn a_refusal_for_overload_is_no_failure_in_either_language() {
        let of = |status: u16, fields: &[(&'static str, &'static str)], grpc| {
            let mut response = http::Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            Outcome::of(&response.body(()).unwrap().into_parts().0, grpc)
        };
        let later = ("retry-after", "1");
        assert_eq!(of(503, &[later], false), Some(Outcome::Busy(SECOND)));
        assert_eq!(of(503, &[], false), Some(Outcome::Badly));
        let unavailable = ("grpc-status", "14");
        let busy = of(200, &[later, unavailable], true);
        assert_eq!(busy, Some(Outcome::Busy(SECOND)));
        assert_eq!(of(200, &[unavailable], true), Some(Outcome::Badly));
        // Its result comes with the trailers.
        assert_eq!(of(200, &[], true), None);
    }

    #[test]
    fn quick_failures_do_not_make_it_look_quick() {
        let now = Instant::now();
        let standing = Standing::new(1, None, Arc::default());
        let ms = Duration::from_millis(1);
        standing.answered(ms * 100, true, now);
        standing.answered(ms, false, now);
        assert_eq!(standing.candidate(now, SECOND).latency, Some(0.1));
        standing.answered(ms * 200, false, now);
        assert_eq!(standing.candidate(now, SECOND).latency, Some(0.2));
    }

    /// Requests at an even pace to endpoints that answer after their own time, for this many seconds. Counts
    /// how many requests of the last ten seconds took longer than a second.
    fn slow_ones(latencies: &[Duration], per_second: u32, seconds: u32) -> (usize, u32) {
        let mut random = StdRng::seed_from_u64(1);
        let start = Instant::now();
        let endpoints: Vec<_> = (0..latencies.len() as u64)
            .map(|name| Standing::new(name, None, Arc::default()))
            .collect();
        let mut under_way: Vec<(Instant, Instant, usize)> = Vec::new();
        let mut slow = 0;
        for number in 0..per_second * seconds {
            let now = start + SECOND * number / per_second;
            under_way.retain(|(end, began, index)| {
                if *end > now {
                    return true;
                }
                let slice = endpoints[*index].answered(*end - *began, true, *end);
                endpoints[*index].end(Some(slice), false);
                false
            });
            let candidate = |index: usize| endpoints[index].candidate(now, Duration::ZERO);
            let chosen = choose_endpoint(
                Method::PeakEwma,
                (endpoints.len(), None),
                |_| true,
                candidate,
                &mut random,
            );
            let index = chosen.unwrap();
            endpoints[index].begin(now, &table::Breaker::default());
            under_way.push((now + latencies[index], now, index));
            if latencies[index] > SECOND && number >= per_second * (seconds - 10) {
                slow += 1;
            }
        }
        (slow, per_second * 10)
    }

    #[test]
    fn one_of_five_that_is_two_seconds_slow_gets_less_than_one_request_in_a_hundred() {
        let quick = Duration::from_millis(5);
        let latencies = [quick, quick, SECOND * 2, quick, quick];
        for per_second in [50, 500] {
            let (slow, of) = slow_ones(&latencies, per_second, 20);
            assert!(slow as f64 <= f64::from(of) * 0.01, "{slow} of {of}");
        }
    }
}

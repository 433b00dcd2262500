//! What one worker thinks of one endpoint: how busy and how slow it is, whether it is in rotation, and
//! whether it asked to be spared. Pure but for one lock, which only this worker and the admin endpoint
//! take.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use weft_config::table;

use super::balance::Candidate;
use super::breaker::{Admission, Breaker, Cause, OutStatus};
use super::latency::Latency;
use super::retry;
use crate::limits;
use crate::metrics::lock;
use crate::record::is_grpc_failure;

/// See the module.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Requests and tunnels that this worker has under way to it.
    load: AtomicU32,
    /// Names it for consistent hashing.
    name: u64,
    /// When it joined others that were there before; none if it was among the first.
    joined: Option<Instant>,
    judged: Mutex<Judged>,
}

#[derive(Debug, Default)]
struct Judged {
    latency: Latency,
    breaker: Breaker,
    /// It gets less than its share until then.
    spared_until: Option<Instant>,
}

/// How one request to it ended, as far as it tells about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered.
    Well,
    /// It was not reached, broke off, or answered with an error of its own.
    Badly,
    /// It said that it has too much to do, and for how long.
    Busy(Duration),
}

/// The gRPC code that corresponds to 503.
const UNAVAILABLE: u8 = 14;

impl Outcome {
    /// By the code of a gRPC response. RESOURCE_EXHAUSTED is the endpoint's word that it is busy.
    pub(crate) fn of_grpc(code: u8) -> Self {
        match code {
            8 => Self::Busy(limits::SPARED),
            code if is_grpc_failure(code) => Self::Badly,
            _ => Self::Well,
        }
    }

    /// By the head of a response. With 429 or 503 and a word on when to come back it is busy, which is
    /// not the same as ill. None for a gRPC response whose result is yet to come.
    pub(crate) fn of(head: &http::response::Parts, grpc: bool) -> Option<Self> {
        let busy = retry::retry_after(&head.headers);
        match (head.status.as_u16(), busy) {
            (429, time) => Some(Self::Busy(time.unwrap_or(limits::SPARED))),
            (503, Some(time)) => Some(Self::Busy(time)),
            // 421: it does not serve what the table says.
            (421 | 500.., _) => Some(Self::Badly),
            // The same word in gRPC's language.
            (_, Some(time)) if grpc && retry::grpc_code(&head.headers) == Some(UNAVAILABLE) => {
                Some(Self::Busy(time))
            }
            (_, _) if grpc => retry::grpc_code(&head.headers).map(Self::of_grpc),
            (_, _) => Some(Self::Well),
        }
    }
}

/// A change that a report made, for metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is out, or would be if that were enforced.
    Out(Cause),
    /// It is back.
    Back,
}

/// What the admin endpoint shows.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) load: u32,
    pub(crate) latency: Option<f64>,
    pub(crate) share: f64,
    pub(crate) out: Option<OutStatus>,
}

impl Standing {
    /// Nothing is known of it. `name` is the same in every process that knows the endpoint.
    pub(crate) fn new(name: u64, joined: Option<Instant>) -> Self {
        Self {
            load: AtomicU32::new(0),
            name,
            joined,
            judged: Mutex::default(),
        }
    }

    /// Requests under way to it from this worker.
    pub(crate) fn load(&self) -> u32 {
        self.load.load(Ordering::Relaxed)
    }

    /// What the choice needs to know.
    pub(crate) fn candidate(&self, now: Instant, slow_start: Duration) -> Candidate {
        let judged = lock(&self.judged);
        Candidate {
            load: self.load(),
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

    /// A request goes there. True if it is the one by which the endpoint may come back. `tried` says
    /// whether it may be out at all, which spares the question.
    pub(crate) fn begin(&self, may_be_out: bool, now: Instant) -> bool {
        self.load.fetch_add(1, Ordering::Relaxed);
        may_be_out && lock(&self.judged).breaker.begin(now)
    }

    /// A response head came after this time. One that tells of a failure never makes it look quicker.
    pub(crate) fn answered(&self, took: Duration, well: bool, now: Instant) {
        let mut judged = lock(&self.judged);
        let usual = judged.latency.seconds(now, limits::LATENCY_DECAY);
        if well || usual.is_some_and(|usual| took.as_secs_f64() > usual) {
            judged.latency.observe(took, now, limits::LATENCY_DECAY);
        }
    }

    /// A request told something about it. `bearable` is asked whether the others suffice without it.
    pub(crate) fn report(
        &self,
        outcome: Outcome,
        probe: bool,
        now: Instant,
        policy: &table::Breaker,
        bearable: impl FnOnce() -> bool,
    ) -> Option<Change> {
        // Asked before the lock is taken: the others are locked to count them, and this one among them.
        let bearable = outcome == Outcome::Badly && bearable();
        let mut judged = lock(&self.judged);
        match outcome {
            Outcome::Well => judged
                .breaker
                .succeeded(probe, now, policy)
                .then_some(Change::Back),
            Outcome::Badly => judged
                .breaker
                .failed(probe, now, policy, || bearable)
                .map(Change::Out),
            Outcome::Busy(time) => {
                let until = now + time.min(limits::SPARED_MAX);
                judged.spared_until = judged.spared_until.max(Some(until));
                // It answers, so it is there.
                judged
                    .breaker
                    .succeeded(probe, now, policy)
                    .then_some(Change::Back)
            }
        }
    }

    /// A request is over. `untold` if it was the one that tried the endpoint and told nothing.
    pub(crate) fn end(&self, untold: bool) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        if untold {
            lock(&self.judged).breaker.abandoned();
        }
    }

    /// What is known, for the admin endpoint.
    pub(crate) fn status(&self, now: Instant, slow_start: Duration) -> Status {
        let judged = lock(&self.judged);
        Status {
            load: self.load(),
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::balance::{Method, choose};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_new_endpoint_grows_to_its_share() {
        let now = Instant::now();
        let new = Standing::new(1, Some(now));
        let share = |after: Duration| new.candidate(now + after, SECOND * 10).share;
        assert_eq!(share(Duration::ZERO), limits::SLOW_START_SHARE);
        assert_eq!(share(SECOND * 5), 0.5);
        assert_eq!(share(SECOND * 20), 1.0);
        let first = Standing::new(1, None);
        assert_eq!(first.candidate(now, SECOND * 10).share, 1.0);
    }

    #[test]
    fn one_that_is_busy_is_spared_for_as_long_as_it_says_and_stays_in_rotation() {
        let now = Instant::now();
        let busy = Standing::new(1, None);
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
        let standing = Standing::new(1, None);
        let ms = Duration::from_millis(1);
        standing.answered(ms * 100, true, now);
        standing.answered(ms, false, now);
        assert_eq!(standing.candidate(now, SECOND).latency, Some(0.1));
        standing.answered(ms * 200, false, now);
        assert_eq!(standing.candidate(now, SECOND).latency, Some(0.2));
    }

    /// Requests at an even pace to endpoints that answer after their own time, for so many seconds of
    /// which the last ten are looked at: how many of those took longer than a second.
    fn slow_ones(latencies: &[Duration], per_second: u32, seconds: u32) -> (usize, u32) {
        let mut random = StdRng::seed_from_u64(1);
        let start = Instant::now();
        let endpoints: Vec<_> = (0..latencies.len() as u64)
            .map(|name| Standing::new(name, None))
            .collect();
        let mut under_way: Vec<(Instant, Instant, usize)> = Vec::new();
        let mut slow = 0;
        for number in 0..per_second * seconds {
            let now = start + SECOND * number / per_second;
            under_way.retain(|(end, began, index)| {
                if *end > now {
                    return true;
                }
                endpoints[*index].answered(*end - *began, true, *end);
                endpoints[*index].end(false);
                false
            });
            let candidate = |index: usize| endpoints[index].candidate(now, Duration::ZERO);
            let chosen = choose(
                Method::PeakEwma,
                endpoints.len(),
                |_| true,
                candidate,
                &mut random,
            );
            let index = chosen.unwrap();
            endpoints[index].begin(false, now);
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

//! Whether an endpoint is in rotation. Failures in a row, or too few successes, take it out for a time that
//! grows; it returns when one real request succeeds. Pure: events, the time and the limits are arguments.
//!
//! ```text
//!        failed (over a limit, and the rest may bear it)
//!   In ───────────────────────────────────────────────▶ Out { until }
//!   ▲                                                     │ probe (from `until` on, one request)
//!   │ the probe succeeded                                  ▼
//!   └──────────────────────────────────────────────── Probing
//!                      the probe failed: Out, for twice as long
//!                      the probe told nothing: Out, may be probed at once
//! ```
//! A probe is decided by the head of its response, or by a time limit: after that another request may probe.
//!
//! One success proves little for an endpoint that fails half of the time. So a single failure takes a
//! returned endpoint out again, until it has answered as many requests as a success rate needs, or has been
//! back for the longest ejection time.
//!
//! When the breaker only observes, time alone moves it into `Out` and out of it, and every request is still
//! admitted.

use std::time::{Duration, Instant};

use weft_config::table::{self, Mode};

use crate::limits::PROBE_DECIDES;

/// Why an endpoint is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// This many failures in a row.
    Consecutive,
    /// Too few successes in the window.
    SuccessRate,
}

impl Cause {
    /// As metrics and the admin endpoint name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive_failures",
            Self::SuccessRate => "success_rate",
        }
    }
}

/// Whether a request may go to the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is in rotation.
    Yes,
    /// It is out, and due for a probe by one request.
    Probe,
    /// It is out.
    No,
}

/// The state that the admin endpoint shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutStatus {
    /// Why.
    pub(crate) cause: Cause,
    /// From when it may be probed.
    pub(crate) until: Instant,
    /// Whether a request is probing it.
    pub(crate) probing: bool,
    /// Whether it really gets no requests.
    pub(crate) enforced: bool,
    /// How often in a row it was out.
    pub(crate) times: u32,
}

/// The state of one endpoint.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    consecutive: u32,
    window: Window,
    /// How often in a row it was out; forgotten after a time in rotation.
    times: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    In {
        /// If it was out before.
        back: Option<Back>,
    },
    Out {
        until: Instant,
        cause: Cause,
        enforced: bool,
    },
    Probing {
        cause: Cause,
        until: Instant,
        /// When its time limit ends.
        ends: Instant,
    },
}

/// In rotation again.
#[derive(Clone, Copy, Debug)]
struct Back {
    since: Instant,
    /// Requests that it has answered since.
    succeeded: u32,
}

impl Back {
    fn is_on_trial(&self, now: Instant, limits: &table::Breaker) -> bool {
        now.saturating_duration_since(self.since) < limits.ejection_max
            && self.succeeded < limits.success_rate.requests_min
    }
}

impl State {
    fn back(now: Instant) -> Self {
        Self::In {
            back: Some(Back {
                since: now,
                succeeded: 1,
            }),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::In { back: None },
            consecutive: 0,
            window: Window::default(),
            times: 0,
        }
    }
}

impl Breaker {
    /// Whether a request may go there.
    pub(crate) fn admission(&self, now: Instant) -> Admission {
        match self.state {
            State::In { .. }
            | State::Out {
                enforced: false, ..
            } => Admission::Yes,
            State::Out { until, .. } | State::Probing { ends: until, .. } if until <= now => {
                Admission::Probe
            }
            State::Out { .. } | State::Probing { .. } => Admission::No,
        }
    }

    /// Whether it gets no requests, or only a probe.
    pub(crate) fn is_out(&self) -> bool {
        match self.state {
            State::In { .. } => false,
            State::Out { enforced, .. } => enforced,
            State::Probing { .. } => true,
        }
    }

    /// How long it has been due for a probe.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Out {
                until,
                enforced: true,
                ..
            }
            | State::Probing { ends: until, .. } => now.checked_duration_since(until),
            State::Out { .. } | State::In { .. } => None,
        }
    }

    /// A request goes there now; true if it is the probe.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let (until, cause) = match self.state {
            State::Out {
                until,
                cause,
                enforced: true,
            } => (until, cause),
            State::Probing { until, cause, ends } if ends <= now => (until, cause),
            State::Out { .. } | State::In { .. } | State::Probing { .. } => return false,
        };
        // Sent there before the time, because no other endpoint was left: its outcome decides as well.
        self.state = State::Probing {
            cause,
            until: until.min(now),
            ends: now + PROBE_DECIDES,
        };
        true
    }

    /// Whether it has been back for so short a time that a single failure takes it out again.
    pub(crate) fn is_on_trial(&self, now: Instant, limits: &table::Breaker) -> bool {
        match self.state {
            State::In { back: Some(back) } => back.is_on_trial(now, limits),
            State::In { back: None } | State::Out { .. } | State::Probing { .. } => false,
        }
    }

    /// A request succeeded. True if this brings the endpoint back into rotation.
    pub(crate) fn succeeded(&mut self, probe: bool, now: Instant, limits: &table::Breaker) -> bool {
        self.consecutive = 0;
        match self.state {
            State::In { back } => {
                self.window.count(true, now, limits.success_rate.interval);
                if let Some(back) = back {
                    // It has worked for as long as the longest ejection: the earlier ejections are forgotten.
                    let over = now.duration_since(back.since) >= limits.ejection_max;
                    if over {
                        self.times = 0;
                    }
                    let succeeded = back.succeeded.saturating_add(1);
                    let back = (!over).then_some(Back { succeeded, ..back });
                    self.state = State::In { back };
                }
                false
            }
            State::Probing { .. } if probe => {
                self.window = Window::default();
                self.state = State::back(now);
                true
            }
            State::Out {
                enforced: false,
                until,
                ..
            } if until <= now => {
                self.window = Window::default();
                self.state = State::back(now);
                false
            }
            State::Out { .. } | State::Probing { .. } => false,
        }
    }

    /// A request failed. Returns the cause if this takes the endpoint out; only then `others_suffice` is
    /// asked whether the other endpoints suffice.
    pub(crate) fn failed(
        &mut self,
        probe: bool,
        now: Instant,
        limits: &table::Breaker,
        others_suffice: impl FnOnce() -> bool,
    ) -> Option<Cause> {
        let mut on_trial = false;
        match self.state {
            State::In { back } => {
                on_trial = back.is_some_and(|back| back.is_on_trial(now, limits));
            }
            State::Out {
                enforced: false,
                until,
                ..
            } if until <= now => self.window = Window::default(),
            State::Probing { cause, .. } if probe => {
                self.leave(cause, now, limits, true);
                return Some(cause);
            }
            State::Out { .. } | State::Probing { .. } => return None,
        }
        self.consecutive = self.consecutive.saturating_add(1);
        self.window.count(false, now, limits.success_rate.interval);
        let cause = if self.consecutive >= limits.consecutive_failures {
            Cause::Consecutive
        } else if on_trial || self.window.is_below(&limits.success_rate) {
            Cause::SuccessRate
        } else {
            return None;
        };
        if !others_suffice() {
            return None;
        }
        self.leave(cause, now, limits, limits.mode == Mode::Enforce);
        Some(cause)
    }

    /// The probe ended without a result, because its caller went away.
    pub(crate) fn abandoned(&mut self) {
        if let State::Probing { cause, until, .. } = self.state {
            self.state = State::Out {
                until,
                cause,
                enforced: true,
            };
        }
    }

    /// Why it is out, if it is.
    pub(crate) fn status(&self) -> Option<OutStatus> {
        let (cause, until, probing, enforced) = match self.state {
            State::In { .. } => return None,
            State::Out {
                until,
                cause,
                enforced,
            } => (cause, until, false, enforced),
            State::Probing { cause, until, .. } => (cause, until, true, true),
        };
        Some(OutStatus {
            cause,
            until,
            probing,
            enforced,
            times: self.times,
        })
    }

    fn leave(&mut self, cause: Cause, now: Instant, limits: &table::Breaker, enforced: bool) {
        let doubled = 1_u32.checked_shl(self.times).unwrap_or(u32::MAX);
        let time = limits
            .ejection_base
            .saturating_mul(doubled)
            .min(limits.ejection_max);
        self.times = self.times.saturating_add(1);
        self.consecutive = 0;
        self.window = Window::default();
        self.state = State::Out {
            until: now + time,
            cause,
            enforced,
        };
    }
}

/// Successes and failures of the recent past, in slices that are dropped one by one.
#[derive(Debug, Default)]
struct Window {
    slices: [Slice; Self::SLICES],
    /// The current slice, and when it began.
    current: Option<(usize, Instant)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    succeeded: u32,
    failed: u32,
}

impl Window {
    const SLICES: usize = 5;

    fn count(&mut self, success: bool, now: Instant, window: Duration) {
        let length = window / 5;
        let (mut index, mut began) = self.current.unwrap_or((0, now));
        let mut passed = 0;
        while now.saturating_duration_since(began) >= length && passed < Self::SLICES {
            index = (index + 1) % Self::SLICES;
            self.slices[index] = Slice::default();
            began += length;
            passed += 1;
        }
        if passed == Self::SLICES {
            // All slices are forgotten: they begin anew here, however long the silence was.
            began = now;
        }
        self.current = Some((index, began));
        let slice = &mut self.slices[index];
        if success {
            slice.succeeded = slice.succeeded.saturating_add(1);
        } else {
            slice.failed = slice.failed.saturating_add(1);
        }
    }

    fn is_below(&self, limit: &table::SuccessRate) -> bool {
        let sum = |read: fn(&Slice) -> u32| -> u64 {
            self.slices.iter().map(|slice| u64::from(read(slice))).sum()
        };
        let (succeeded, failed) = (sum(|slice| slice.succeeded), sum(|slice| slice.failed));
        let all = succeeded + failed;
        all >= u64::from(limit.requests_min)
            && (succeeded as f64) < limit.percent.fraction() * all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> table::Breaker {
        table::Breaker::default()
    }

    fn second(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    /// Fails until it is out; returns that time.
    fn put_out(breaker: &mut Breaker, now: Instant) -> Option<Cause> {
        (0..5).find_map(|_| breaker.failed(false, now, &limits(), || true))
    }

    /// One request probes it, and succeeds.
    fn come_back(breaker: &mut Breaker, now: Instant) {
        assert!(breaker.begin(now));
        assert!(breaker.succeeded(true, now, &limits()));
    }

    #[test]
    fn five_failures_in_a_row_put_it_out_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert_eq!(breaker.failed(false, now, &limits(), || true), None);
        }
        assert!(!breaker.succeeded(false, now, &limits()));
        assert_eq!(put_out(&mut breaker, now), Some(Cause::Consecutive));
        assert_eq!(breaker.admission(now), Admission::No);
        assert_eq!(breaker.admission(now + second(2.9)), Admission::No);
        assert_eq!(breaker.admission(now + second(3.0)), Admission::Probe);
    }

    #[test]
    fn half_of_twenty_requests_failing_put_it_out_although_never_in_a_row() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let mut requests = 0;
        let cause = loop {
            breaker.succeeded(false, now, &limits());
            requests += 2;
            if let Some(cause) = breaker.failed(false, now, &limits(), || true) {
                break cause;
            }
        };
        assert_eq!((cause, requests), (Cause::SuccessRate, 20));
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..9 {
            breaker.failed(false, start, &limits(), || true);
            breaker.succeeded(false, start, &limits());
        }
        let later = start + second(6.0);
        for _ in 0..19 {
            breaker.succeeded(false, later, &limits());
        }
        assert_eq!(breaker.failed(false, later, &limits(), || true), None);
    }

    #[test]
    fn one_request_probes_and_its_success_brings_it_back() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        put_out(&mut breaker, now);
        let due = now + second(3.0);
        assert!(breaker.begin(due));
        assert_eq!(breaker.admission(due), Admission::No);
        // A request that began before the ejection no longer counts.
        assert!(!breaker.succeeded(false, due, &limits()));
        assert_eq!(breaker.failed(false, due, &limits(), || true), None);
        assert!(breaker.succeeded(true, due, &limits()));
        assert_eq!(breaker.admission(due), Admission::Yes);
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        put_out(&mut breaker, now);
        for seconds in [3.0, 6.0, 12.0, 20.0, 20.0] {
            let until = breaker.status().unwrap().until;
            assert_eq!(until - now, second(seconds));
            now = until;
            assert!(breaker.begin(now));
            assert!(breaker.failed(true, now, &limits(), || false).is_some());
        }
    }

    #[test]
    fn the_time_starts_small_again_after_a_while_in_rotation() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        put_out(&mut breaker, now);
        let back = now + second(3.0);
        come_back(&mut breaker, back);
        let soon = back + second(1.0);
        put_out(&mut breaker, soon);
        assert_eq!(breaker.status().unwrap().until - soon, second(6.0));
        let back = soon + second(6.0);
        come_back(&mut breaker, back);
        let later = back + second(20.0);
        breaker.succeeded(false, later, &limits());
        put_out(&mut breaker, later);
        assert_eq!(breaker.status().unwrap().until - later, second(3.0));
    }

    #[test]
    fn one_that_is_back_is_on_trial_until_it_has_answered_twenty_requests() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        put_out(&mut breaker, now);
        let back = now + second(3.0);
        come_back(&mut breaker, back);
        for _ in 0..18 {
            breaker.succeeded(false, back, &limits());
        }
        let cause = breaker.failed(false, back, &limits(), || true);
        assert_eq!(cause, Some(Cause::SuccessRate));
        let again = back + second(6.0);
        come_back(&mut breaker, again);
        for _ in 0..19 {
            breaker.succeeded(false, again, &limits());
        }
        assert_eq!(breaker.failed(false, again, &limits(), || true), None);
    }

    #[test]
    fn the_trial_of_one_that_is_asked_little_ends_with_time() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        put_out(&mut breaker, now);
        let back = now + second(3.0);
        come_back(&mut breaker, back);
        let hour = back + second(3600.0);
        assert_eq!(breaker.failed(false, hour, &limits(), || true), None);
    }

    #[test]
    fn an_abandoned_probe_leaves_it_due() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        put_out(&mut breaker, now);
        let due = now + second(3.0);
        breaker.begin(due);
        breaker.abandoned();
        assert_eq!(breaker.admission(due), Admission::Probe);
        assert_eq!(breaker.overdue(due + second(1.0)), Some(second(1.0)));
    }

    #[test]
    fn a_probe_that_tells_nothing_for_long_lets_another_one_try_and_may_still_bring_it_back() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        put_out(&mut breaker, now);
        let due = now + second(3.0);
        assert!(breaker.begin(due));
        let later = due + PROBE_DECIDES;
        assert_eq!(breaker.admission(later - second(0.1)), Admission::No);
        assert!(!breaker.begin(later - second(0.1)));
        assert_eq!(breaker.admission(later), Admission::Probe);
        assert_eq!(breaker.overdue(later), Some(second(0.0)));
        assert!(breaker.begin(later) && breaker.is_out());
        assert_eq!(breaker.admission(later), Admission::No);
        assert!(breaker.succeeded(true, later, &limits()));
    }

    #[test]
    fn it_stays_in_when_the_others_would_not_suffice() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..50 {
            assert_eq!(breaker.failed(false, now, &limits(), || false), None);
        }
        assert_eq!(breaker.admission(now), Admission::Yes);
    }

    #[test]
    fn observing_tells_but_admits() {
        let observed = table::Breaker {
            mode: Mode::Observe,
            ..limits()
        };
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let tripped = (0..50).filter(|_| breaker.failed(false, now, &observed, || true).is_some());
        assert_eq!(tripped.count(), 1);
        assert_eq!(breaker.admission(now), Admission::Yes);
        assert!(!breaker.is_out() && !breaker.begin(now));
        let later = now + second(4.0);
        breaker.succeeded(false, later, &observed);
        assert_eq!(breaker.status(), None);
    }
}

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
mod tests;

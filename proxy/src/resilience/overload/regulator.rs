//! How many requests may wait while a service is overloaded. Pure.
//!
//! The regulator finds the limit by trial, in generations. A generation is the set of requests let in under
//! one limit. Once the requests let in before it are finished, the generation is judged by how its requests
//! ended and by how much the application answered in that time. While requests are lost or wait in a queue,
//! the limit is halved. If the application then answers less, the limit was cut below the application's own
//! concurrency, and the cut is taken back. While no request waits, the limit grows. The regulator assumes
//! nothing about the application: neither the order in which it serves, nor its concurrency, nor how long an
//! answer should take.

use std::time::{Duration, Instant};

use super::watch::{Measured, QUEUED, Seen};

/// The least limit.
const LEAST: u32 = 4;
/// A generation is judged after this many of its requests have ended and this time ...
const JUDGED: u32 = 64;
const JUDGED_TIME: Duration = Duration::from_millis(200);
/// ... or a few and a longer time ...
const JUDGED_FEW: u32 = 16;
const JUDGED_FEW_TIME: Duration = Duration::from_secs(1);
/// ... or after the longest time.
const JUDGED_MAX: Duration = Duration::from_secs(4);
/// ... or as soon as most of this many are lost.
const MOSTLY_LOST: u32 = 8;
/// The requests let in before are waited for at most this long.
const SETTLED_MAX: Duration = Duration::from_secs(3);
/// They are finished when this many times the limit have ended their wait.
const SETTLED: f64 = 1.25;

/// Requests are lost if this share of a generation is.
const LOST: f64 = 0.05;
/// A cut went too deep if answers fall below this share, unless as many requests are still lost: those waited
/// behind older work of the application.
const CUT_KEEPS: f64 = 0.8;
const CUT_LOSES: f64 = 0.2;
/// If most of a generation is lost, a cut goes deeper.
const MOST: f64 = 0.5;
/// A larger limit is worth it if answers grow by this.
const GROWTH_GAINS: f64 = 1.1;
/// Nothing waits if answers take less than this many times the usual time.
const UNQUEUED: f64 = 1.5;
/// The application can answer nearly all requests if at most this share is refused.
const REFUSED_FEW: f64 = 0.1;
/// The step by which a limit grows.
const GROW: f64 = 1.25;
/// Generations after which a step that was taken back is tried again: twice as many each time, at most this
/// many.
const RETRY_MAX: u32 = 16;

/// A limit that refused less than this share for this time is no longer needed.
const NEEDED: f64 = 0.02;
const UNNEEDED: Duration = Duration::from_secs(5);
/// If for this time less than this share of the earlier rate was answered, the limit does not help.
const USELESS: Duration = Duration::from_secs(20);
const USELESS_KEEPS: f64 = 0.5;

/// The result of a generation.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shown {
    /// Work answered per second: each answer counts the usual time of its class.
    rate: f64,
    /// Share that was lost.
    lost: f64,
    /// How many times the usual time answers took.
    ratio: f64,
    /// Share of the arriving requests that was refused.
    refused: f64,
}

/// The last change of the limit.
#[derive(Clone, Copy, Debug)]
enum Step {
    None,
    Cut { from: u32, before: Shown },
    Grown { from: u32, before: Shown },
}

/// When a step that was taken back is tried again.
#[derive(Clone, Copy, Debug)]
struct StepBackoff {
    wait: u32,
    next: u32,
}

impl StepBackoff {
    const NEW: Self = Self { wait: 0, next: 1 };

    fn fail(&mut self) {
        self.wait = self.next;
        self.next = (self.next * 2).min(RETRY_MAX);
    }

    fn pass(&mut self) {
        self.wait = self.wait.saturating_sub(1);
    }
}

/// How the limit goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It goes on.
    On,
    /// It is needed no more.
    Over,
    /// It does not help.
    Useless,
}

/// The limit of an overloaded service.
#[derive(Debug)]
pub(super) struct Regulator {
    limit: u32,
    generation: u32,
    step: Step,
    cuts: StepBackoff,
    growths: StepBackoff,
    began: Instant,
    /// Since when this generation is measured.
    measured: Option<Instant>,
    work: f64,
    ended: u32,
    lost: u32,
    ratios: f64,
    rated: u32,
    refused: u32,
    needed_last: Instant,
    /// The rate before it acted.
    rate_before: f64,
    helped_last: Instant,
}

impl Regulator {
    /// Begins with a cut of the waiting requests, in proportion to how many times the usual time answers
    /// take. If the limit began at the present number, the queue would stay full until it is judged. This cut
    /// has no earlier generation to compare with; if it is too deep, the limit grows.
    pub(super) fn new(waiting: u32, seen: Seen, now: Instant) -> Self {
        Self {
            limit: cut_by(waiting, seen.ratio).max(LEAST),
            // Requests let in before it acted belong to no generation.
            generation: 1,
            step: Step::None,
            cuts: StepBackoff::NEW,
            growths: StepBackoff { wait: 2, next: 1 },
            began: now,
            measured: None,
            work: 0.0,
            ended: 0,
            lost: 0,
            ratios: 0.0,
            rated: 0,
            refused: 0,
            needed_last: now,
            rate_before: seen.rate,
            helped_last: now,
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// The generation of a request that is let in now.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// A request was refused.
    pub(super) fn refused(&mut self) {
        self.refused += 1;
    }

    /// A request of that generation no longer waits.
    pub(super) fn ended(&mut self, generation: u32, request: Measured) {
        self.work += request.work();
        if generation != self.generation {
            return;
        }
        self.ended += 1;
        if let Some(ratio) = request.ratio {
            self.ratios += ratio;
            self.rated += 1;
            self.lost += u32::from(request.is_lost());
        }
    }

    /// Judges the generation if it is time. A limit that is not `enforced` stays as it is, because its effect
    /// cannot be measured.
    pub(super) fn look(&mut self, waiting: u32, enforced: bool, now: Instant) -> Course {
        let since = |then: Instant| now.saturating_duration_since(then);
        let few = f64::from(self.refused) <= NEEDED * f64::from(self.refused + self.ended);
        if few && since(self.needed_last) >= UNNEEDED {
            return Course::Over;
        }
        if !enforced && since(self.began) >= JUDGED_FEW_TIME {
            if !few {
                self.needed_last = now;
            }
            self.begin(now);
        }
        if !enforced {
            return Course::On;
        }
        if since(self.helped_last) >= USELESS {
            return Course::Useless;
        }
        let share = |part: f64, all: u32| part / f64::from(all.max(1));
        let lost = share(f64::from(self.lost), self.ended);
        let mostly_lost =
            self.ended >= MOSTLY_LOST && lost > MOST && since(self.began) >= JUDGED_TIME;
        let Some(measured) = self.measured.or(mostly_lost.then_some(self.began)) else {
            let settled = self.ended > 0 && f64::from(waiting) <= SETTLED * f64::from(self.limit);
            if settled || since(self.began) >= SETTLED_MAX {
                self.measured = Some(now);
                self.work = 0.0;
            }
            return Course::On;
        };
        let lasted = since(measured);
        let due = (self.ended >= JUDGED && lasted >= JUDGED_TIME)
            || (self.ended >= JUDGED_FEW && lasted >= JUDGED_FEW_TIME)
            || lasted >= JUDGED_MAX;
        if due || mostly_lost {
            let shown = Shown {
                rate: self.work / lasted.as_secs_f64(),
                lost,
                ratio: share(self.ratios, self.rated),
                refused: share(f64::from(self.refused), self.refused + self.ended),
            };
            if shown.refused >= NEEDED || shown.lost > LOST {
                self.needed_last = now;
            }
            if shown.rate > USELESS_KEEPS * self.rate_before {
                self.helped_last = now;
            }
            self.judge(shown);
            self.begin(now);
        }
        Course::On
    }

    fn begin(&mut self, now: Instant) {
        self.generation = self.generation.wrapping_add(1);
        self.began = now;
        self.measured = None;
        self.work = 0.0;
        (self.ended, self.lost) = (0, 0);
        (self.ratios, self.rated) = (0.0, 0);
        self.refused = 0;
    }

    fn judge(&mut self, shown: Shown) {
        self.cuts.pass();
        self.growths.pass();
        match std::mem::replace(&mut self.step, Step::None) {
            Step::Cut { from, before }
                if shown.rate < CUT_KEEPS * before.rate && shown.lost <= CUT_LOSES =>
            {
                self.limit = from;
                self.cuts.fail();
                return;
            }
            Step::Grown { from, before }
                if shown.rate < GROWTH_GAINS * before.rate
                    && shown.ratio > UNQUEUED
                    && (before.refused >= REFUSED_FEW || shown.lost > LOST) =>
            {
                self.limit = from;
                self.growths.fail();
                return;
            }
            Step::Cut { .. } => {
                self.cuts = StepBackoff::NEW;
                self.growths.wait = self.growths.wait.max(2);
            }
            Step::Grown { .. } => self.growths = StepBackoff::NEW,
            Step::None => {}
        }
        let (lost, queued) = (shown.lost > LOST, shown.ratio >= QUEUED);
        let room = shown.ratio < UNQUEUED || shown.refused < REFUSED_FEW;
        if !lost && shown.refused > 0.0 && (room || self.growths.wait == 0) {
            self.grow(shown);
        } else if (lost || (queued && shown.refused >= REFUSED_FEW))
            && self.cuts.wait == 0
            && self.limit > LEAST
        {
            self.cut(shown);
        }
    }

    fn grow(&mut self, shown: Shown) {
        let from = self.limit;
        self.limit = (f64::from(from) * GROW).ceil() as u32;
        self.step = Step::Grown {
            from,
            before: shown,
        };
    }

    fn cut(&mut self, shown: Shown) {
        let from = self.limit;
        let cut = match shown {
            // There is nothing to lose.
            Shown { rate: 0.0, .. } => LEAST,
            Shown { lost, .. } if lost > MOST => from / 8,
            Shown { ratio, .. } if self.cuts.next == 1 => cut_by(from, ratio),
            Shown { .. } => from / 2,
        };
        self.limit = cut.max(LEAST);
        self.step = Step::Cut {
            from,
            before: shown,
        };
    }
}

/// Answers take as many times the usual time as there are more requests than the application works on at once
/// (Little's law).
fn cut_by(waiting: u32, ratio: f64) -> u32 {
    (f64::from(waiting) * (UNQUEUED / ratio).clamp(1.0 / 16.0, 0.5)) as u32
}

//! Whether a service that answered everything so far is overloaded. Pure.
//!
//! Slow answers alone are no overload: a cold cache, a slower database and another mix of requests make
//! answers slow as well, and the application still answers every request. So there are two signs. Both need a
//! measured queue: answers take several times the usual time of their class while more than a few requests
//! wait:
//!
//! - **Loss**: callers gave up a tenth of the requests that arrived within a second, or the fixed cap refused
//!   them.
//! - **Growth**: for half a second the application answered far fewer requests than arrived, answers took
//!   longer and longer, and the application answered at its earlier speed. An application that is only slower
//!   than before answers fewer at first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Outcome;

/// The length of a stretch, if enough requests ended in it. It is longer if the slowest class usually takes
/// more than twice as long, because all workers of an application may be busy with slow requests for a while.
const TICK: Duration = Duration::from_millis(50);
const TICK_SLOWEST: f64 = 0.4;
const TICK_ENDED: u32 = 16;
/// A stretch with fewer requests ends after this time.
const TICK_MAX: Duration = Duration::from_secs(1);
/// Loss is judged over this many stretches, growth over this many.
const LOSS_TICKS: usize = 20;
const GROWTH_TICKS: usize = 5;

/// There is a queue if answers take this many times the usual time.
pub(super) const QUEUED: f64 = 3.0;
/// And if this many requests wait: for loss, and for growth, which must be certain before any request was
/// lost.
const LOSS_WAITING: u32 = 8;
const GROWTH_WAITING: u32 = 48;
/// Of the requests that arrived, this share was lost, and at least this many.
const LOSS_SHARE: f64 = 0.1;
const LOSS_MIN: u32 = 10;
/// A caller that gives up sooner tells nothing about a queue.
const LOSS_AGE: Duration = Duration::from_millis(50);
/// Of the requests that arrived, this share did not end, and by this many standard deviations of a random
/// number of arrivals.
const GROWTH_SHARE: f64 = 0.3;
const GROWTH_DEVIATIONS: f64 = 5.0;
/// As fast as before: at least this share of the answers per second without a queue, and in the second half
/// between this share and that of those in the first half.
const GROWTH_STEADY: f64 = 0.8;
const GROWTH_STEADY_MOST: f64 = 1.25;
/// Weight of one stretch without a queue in the average pace of such stretches.
const PACE: f64 = 0.1;
/// Answers of the last stretch took this many times as long as those of the first.
const GROWTH_SLOWER: f64 = 1.5;

/// Why a limit begins to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Requests are lost.
    Loss,
    /// The queue grows.
    Growth,
}

/// An overload, as it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) sign: Sign,
    /// How many times the usual time answers take.
    pub(super) ratio: f64,
    /// Work answered per second in the last stretches: each answer counts the usual time of its class.
    pub(super) rate: f64,
}

/// A request that no longer waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
    /// Seconds that its class usually takes, and how many times that it took, if the class tells about a
    /// queue.
    pub(super) usual: Option<f64>,
    pub(super) ratio: Option<f64>,
}

impl Measured {
    /// The work that the application did for it: none if it did not answer, and little for a class that is
    /// not known yet.
    pub(super) fn work(&self) -> f64 {
        match self.outcome {
            Outcome::Answered => self.usual.unwrap_or(1e-3),
            Outcome::Declined | Outcome::GivenUp | Outcome::Other => 0.0,
        }
    }

    /// Whether its caller gave up because of a queue.
    pub(super) fn is_lost(&self) -> bool {
        self.outcome == Outcome::GivenUp
            && self.took >= LOSS_AGE
            && self.ratio.is_some_and(|ratio| ratio >= QUEUED)
    }
}

/// The events of one stretch of time.
#[derive(Clone, Copy, Debug)]
struct Tick {
    began: Instant,
    arrived: u32,
    ended: u32,
    lost: u32,
    ratios: f64,
    measured: u32,
    queued: u32,
    /// Answers, each counted by the usual time of its class.
    work: f64,
}

impl Tick {
    fn new(began: Instant) -> Self {
        Self {
            began,
            arrived: 0,
            ended: 0,
            lost: 0,
            ratios: 0.0,
            measured: 0,
            queued: 0,
            work: 0.0,
        }
    }

    /// Whether most requests that ended had waited in a queue: if only some requests are slow, there is no
    /// queue common to all.
    fn is_queued(&self) -> bool {
        self.queued > 0 && 2 * self.queued >= self.measured
    }

    /// How many times the usual time answers took.
    fn ratio(&self) -> Option<f64> {
        (self.measured > 0).then(|| self.ratios / f64::from(self.measured))
    }
}

/// The last stretches.
#[derive(Debug)]
pub(super) struct Watch {
    running: Tick,
    past: VecDeque<Tick>,
    /// Ends a second while there was no queue.
    pace: f64,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            running: Tick::new(now),
            past: VecDeque::with_capacity(LOSS_TICKS),
            pace: 0.0,
        }
    }

    /// A request begins to wait.
    pub(super) fn arrived(&mut self) {
        self.running.arrived += 1;
    }

    /// A request was refused by the fixed cap.
    pub(super) fn capped(&mut self) {
        self.running.arrived += 1;
        self.running.lost += 1;
    }

    /// A request waits no more.
    pub(super) fn ended(&mut self, measured: Measured) {
        self.running.ended += 1;
        self.running.work += measured.work();
        if let Some(ratio) = measured.ratio {
            self.running.ratios += ratio;
            self.running.measured += 1;
            self.running.queued += u32::from(ratio >= QUEUED);
            self.running.lost += u32::from(measured.is_lost());
        }
    }

    /// Looks at the stretch that ends now, if one does.
    pub(super) fn look(
        &mut self,
        waiting: u32,
        slowest: impl FnOnce() -> f64,
        now: Instant,
    ) -> Option<Seen> {
        let lasted = now.saturating_duration_since(self.running.began);
        let told = self.running.ended + self.running.lost >= TICK_ENDED;
        if lasted < TICK || (!told && lasted < TICK_MAX) {
            return None;
        }
        if lasted < TICK_MAX && lasted.as_secs_f64() < TICK_SLOWEST * slowest() {
            return None;
        }
        if lasted >= 2 * TICK_MAX {
            // Nothing happened for a while.
            self.past.clear();
        }
        if self.past.len() == LOSS_TICKS {
            self.past.pop_front();
        }
        let tick = std::mem::replace(&mut self.running, Tick::new(now));
        self.past.push_back(tick);
        let Some(ratio) = tick.ratio().filter(|_| tick.is_queued()) else {
            let pace = f64::from(tick.ended) / lasted.as_secs_f64();
            self.pace += PACE * (pace - self.pace);
            return None;
        };
        if waiting >= LOSS_WAITING && self.is_lossy() {
            return Some(self.seen(Sign::Loss, ratio));
        }
        (waiting >= GROWTH_WAITING && self.grows(ratio)).then(|| self.seen(Sign::Growth, ratio))
    }

    fn seen(&self, sign: Sign, ratio: f64) -> Seen {
        let began = self
            .past
            .front()
            .map_or(self.running.began, |tick| tick.began);
        let seconds = self.running.began.saturating_duration_since(began);
        let work: f64 = self.past.iter().map(|tick| tick.work).sum();
        Seen {
            sign,
            ratio,
            rate: work / seconds.as_secs_f64().max(1e-3),
        }
    }

    fn is_lossy(&self) -> bool {
        // At most a second old: a stretch may last that long.
        let now = self.running.began;
        let recent = self
            .past
            .iter()
            .rev()
            .take_while(|tick| now.saturating_duration_since(tick.began) <= TICK_MAX + TICK);
        let (lost, arrived) = recent.fold((0, 0), |(lost, arrived), tick| {
            (lost + tick.lost, arrived + tick.arrived)
        });
        lost >= LOSS_MIN && f64::from(lost) >= LOSS_SHARE * f64::from(arrived)
    }

    fn grows(&self, ratio: f64) -> bool {
        if self.past.len() < GROWTH_TICKS {
            return false;
        }
        let last: Vec<&Tick> = self.past.iter().rev().take(GROWTH_TICKS).collect();
        let sum = |ticks: &[&Tick], of: fn(&Tick) -> u32| -> f64 {
            ticks.iter().map(|tick| f64::from(of(tick))).sum()
        };
        let arrived = sum(&last, |tick| tick.arrived);
        let over = arrived - sum(&last, |tick| tick.ended);
        let sure = (GROWTH_DEVIATIONS * arrived.sqrt()).max(f64::from(GROWTH_WAITING));
        if over < GROWTH_SHARE * arrived || over < sure {
            return false;
        }
        let slower = last.windows(2).all(|pair| {
            let (late, early) = (pair[0].ratio(), pair[1].ratio());
            late.zip(early).is_some_and(|(late, early)| late >= early)
        });
        let first = last.last().and_then(|tick| tick.ratio());
        // The newest come first. The middle one belongs to neither half.
        let half = GROWTH_TICKS / 2;
        let (late, early) = (&last[..half], &last[GROWTH_TICKS - half..]);
        let rate = |ticks: &[&Tick], end: Instant| {
            let began = ticks.last().map_or(end, |tick| tick.began);
            let seconds = end.saturating_duration_since(began).as_secs_f64();
            sum(ticks, |tick| tick.ended) / seconds.max(1e-3)
        };
        let late = rate(late, self.running.began);
        let early = rate(early, last[GROWTH_TICKS - half - 1].began);
        let steady =
            late >= GROWTH_STEADY * early.max(self.pace) && late <= GROWTH_STEADY_MOST * early;
        slower && steady && first.is_some_and(|first| ratio >= GROWTH_SLOWER * first)
    }
}

//! How many requests of one service are let through at once: a fixed cap, and a limit that follows the
//! application's latency. Pure but for atomics and one lock that is never waited for: shared by all
//! workers.
//!
//! The adaptive limit is a gradient: while responses take about as long as usual it grows, by about the
//! square root of itself at a time; when they take longer it shrinks by that ratio. It is judged once for
//! each [`WINDOW`] responses, by their mean against a slow average of such means. A limit that is not in
//! use does not move.
//!
//! No caller may have all of either limit: each leaves some places to others, see [`leaves_room`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use weft_config::table::{self, Mode, Priority};
use weft_transport::identity::SpiffeId;
use weft_transport::shares::leaves_room;

use super::destination::Event;
use crate::metrics::lock;

/// Responses after which the limit is judged anew.
const WINDOW: u32 = 32;
/// Where it begins, and the least that it falls to.
const START: f64 = 64.0;
const LEAST: f64 = 4.0;
/// How much slower than usual responses may be before the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// It loses at most this share at a time.
const SHRINK_MOST: f64 = 0.5;
/// Weight of a slower window in what is usual while the limit is not in use: no queue made it slow.
const LEARN_IDLE: f64 = 0.02;
/// The same while it is in use. What is usual must not follow the queue that the limit lets in.
const LEARN_IN_USE: f64 = 0.0005;
/// Weight of what a window asks for: one bad window moves the limit by a fifth of the way.
const SMOOTHING: f64 = 0.2;

/// Requests under way of one service, and how many may be.
#[derive(Debug)]
pub(crate) struct Concurrency {
    in_flight: AtomicU32,
    adaptive: AtomicU32,
    gradient: Mutex<Gradient>,
    callers: Mutex<BTreeMap<SpiffeId, Weak<AtomicU32>>>,
}

/// One caller of a service, whatever connection it uses: the same identity is the same caller. It counts the requests
/// that it has under way, and is remembered while any of its connections holds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Arc<AtomicU32>);

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What stands in the way of one more request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// The limit that is reached, or that this caller has its share of.
    pub(crate) limit: u32,
    /// What is reached.
    pub(crate) kind: Kind,
}

/// What is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The cap.
    Fixed,
    /// The limit that follows the latency.
    Adaptive,
    /// The caller's share of one of these.
    Share,
}

/// What is said about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Why it is refused; none if it was counted as under way.
    pub(crate) refused: Option<Full>,
    /// What a limit that only observes would have refused it for.
    pub(crate) observed: Option<Full>,
}

/// The limits in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The cap.
    pub(crate) max: u32,
    /// Whether the cap refuses.
    pub(crate) fixed: Mode,
    /// Whether the adaptive limit refuses; none where latency says nothing, as with tunnels.
    pub(crate) adaptive: Option<Mode>,
    /// Whether the last tenth is for requests of high priority: where requests say theirs.
    pub(crate) reserve: bool,
}

impl Limits {
    /// Of a port, with the cap of the sidecar where the policy names none.
    pub(crate) fn of(policy: &table::Concurrency, max: u32, requests: bool) -> Self {
        Self {
            max: policy.max.unwrap_or(max),
            fixed: policy.mode,
            adaptive: requests.then_some(policy.adaptive),
            reserve: policy.priority.is_some(),
        }
    }
}

impl Full {
    /// How it is counted, by whether it was refused.
    pub(crate) fn event(self, refused: bool) -> Event {
        match (self.kind, refused) {
            (Kind::Fixed, true) => Event::RefusedFixed,
            (Kind::Adaptive, true) => Event::RefusedAdaptive,
            (Kind::Share, true) => Event::RefusedShare,
            (Kind::Share, false) => Event::ObservedShare,
            (Kind::Fixed, false) => Event::ObservedFixed,
            (Kind::Adaptive, false) => Event::ObservedAdaptive,
        }
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            adaptive: AtomicU32::new(START as u32),
            gradient: Mutex::default(),
            callers: Mutex::default(),
        }
    }
}

impl Concurrency {
    /// The caller of that identity.
    pub(crate) fn caller(&self, identity: &SpiffeId) -> Caller {
        let mut callers = lock(&self.callers);
        if let Some(known) = callers.get(identity).and_then(Weak::upgrade) {
            return Caller(known);
        }
        // As many callers as have connections, which are bounded.
        callers.retain(|_, caller| caller.strong_count() > 0);
        let caller = Caller::default();
        callers.insert(identity.clone(), Arc::downgrade(&caller.0));
        caller
    }

    /// Asks for one more request of a caller. What is not refused must be ended by [`Self::end`].
    pub(crate) fn begin(&self, limits: &Limits, priority: Priority, caller: &Caller) -> Verdict {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let own = caller.0.fetch_add(1, Ordering::Relaxed);
        let adaptive = self.adaptive.load(Ordering::Relaxed).min(limits.max);
        let mut verdict = Verdict {
            refused: None,
            observed: None,
        };
        for (kind, limit, mode) in [
            (Kind::Fixed, limits.max, Some(limits.fixed)),
            (Kind::Adaptive, adaptive, limits.adaptive),
        ] {
            let Some(mode) = mode else { continue };
            let room = room(limit, priority, limits.reserve);
            let kind = if before >= room {
                kind
            } else if leaves_room(room, before, own) {
                continue;
            } else {
                Kind::Share
            };
            let place = match mode {
                Mode::Enforce => &mut verdict.refused,
                Mode::Observe => &mut verdict.observed,
            };
            place.get_or_insert(Full { limit, kind });
        }
        if verdict.refused.is_some() {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            caller.0.fetch_sub(1, Ordering::Relaxed);
        }
        verdict
    }

    /// A request of this caller is over. `took` is the time to its response's head, if the application gave one.
    pub(crate) fn end(&self, took: Option<Duration>, caller: &Caller) {
        caller.0.fetch_sub(1, Ordering::Relaxed);
        let in_flight = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Some(took) = took else { return };
        // Whoever finds it taken leaves one sample out, which harms nothing.
        if let Ok(mut gradient) = self.gradient.try_lock()
            && let Some(limit) = gradient.sample(took, in_flight)
        {
            self.adaptive.store(limit, Ordering::Relaxed);
        }
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The adaptive limit as it is.
    pub(crate) fn adaptive(&self) -> u32 {
        self.adaptive.load(Ordering::Relaxed)
    }
}

/// How far requests of this priority may fill a limit: those of low priority leave a quarter free.
fn room(limit: u32, priority: Priority, reserve: bool) -> u32 {
    let kept = match priority {
        Priority::High => 0,
        Priority::Normal if reserve => limit / 10,
        Priority::Normal => 0,
        Priority::Low => limit / 4,
    };
    limit - kept
}

#[derive(Debug)]
struct Gradient {
    limit: f64,
    /// Seconds that a response usually takes.
    usual: Option<f64>,
    sum: f64,
    samples: u32,
    in_flight_max: u32,
}

impl Default for Gradient {
    fn default() -> Self {
        Self {
            limit: START,
            usual: None,
            sum: 0.0,
            samples: 0,
            in_flight_max: 0,
        }
    }
}

impl Gradient {
    /// One more response; the new limit when a window is full.
    fn sample(&mut self, took: Duration, in_flight: u32) -> Option<u32> {
        self.sum += took.as_secs_f64();
        self.samples += 1;
        self.in_flight_max = self.in_flight_max.max(in_flight);
        if self.samples < WINDOW {
            return None;
        }
        let mean = (self.sum / f64::from(self.samples)).max(1e-6);
        let in_use = f64::from(self.in_flight_max) * 2.0 >= self.limit;
        (self.sum, self.samples, self.in_flight_max) = (0.0, 0, 0);
        let usual = match self.usual {
            // Quicker than usual is believed at once: it was only ever slower by queues.
            Some(usual) if mean > usual => {
                usual + (mean - usual) * if in_use { LEARN_IN_USE } else { LEARN_IDLE }
            }
            Some(usual) => usual + (mean - usual) * SMOOTHING,
            None => mean,
        };
        self.usual = Some(usual);
        if !in_use {
            return None;
        }
        let gradient = (TOLERANCE * usual / mean).clamp(SHRINK_MOST, 1.0);
        let asked = self.limit * gradient + self.limit.sqrt();
        self.limit = (self.limit + (asked - self.limit) * SMOOTHING).clamp(LEAST, 1e6);
        Some(self.limit as u32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BinaryHeap;

    use super::*;

    fn limits(max: u32) -> Limits {
        Limits {
            max,
            fixed: Mode::Enforce,
            adaptive: Some(Mode::Observe),
            reserve: false,
        }
    }

    /// How many of a priority are let in, of a caller that has none yet, until one is refused.
    fn let_in(concurrency: &Concurrency, limits: &Limits, priority: Priority) -> usize {
        let caller = Caller::default();
        (0..10_000)
            .take_while(|_| {
                concurrency
                    .begin(limits, priority, &caller)
                    .refused
                    .is_none()
            })
            .count()
    }

    #[test]
    fn one_caller_leaves_places_to_others_under_either_limit() {
        let concurrency = Concurrency::default();
        assert_eq!(let_in(&concurrency, &limits(1024), Priority::Normal), 964);
        let caller = Caller::default();
        let verdict = concurrency.begin(&limits(1024), Priority::Normal, &caller);
        assert_eq!(verdict.refused, None);
        let adaptive = Limits {
            adaptive: Some(Mode::Enforce),
            ..limits(1024)
        };
        let concurrency = Concurrency::default();
        assert_eq!(let_in(&concurrency, &adaptive, Priority::Normal), 61);
        assert!(let_in(&concurrency, &adaptive, Priority::Normal) > 0);
    }

    #[test]
    fn what_is_over_a_share_is_told_as_such_and_not_counted() {
        let concurrency = Concurrency::default();
        let caller = Caller::default();
        let refused = (0..)
            .find_map(|_| {
                concurrency
                    .begin(&limits(100), Priority::Normal, &caller)
                    .refused
            })
            .unwrap();
        let share = Full {
            limit: 100,
            kind: Kind::Share,
        };
        assert_eq!(refused, share);
        let under_way = concurrency.in_flight();
        assert_eq!(caller.0.load(Ordering::Relaxed), under_way);
        (0..under_way).for_each(|_| concurrency.end(None, &caller));
        assert_eq!(
            (caller.0.load(Ordering::Relaxed), concurrency.in_flight()),
            (0, 0)
        );
    }

    #[test]
    fn connections_of_one_caller_share_a_count_that_ends_with_them() {
        let concurrency = Concurrency::default();
        let caller = |account: &str| {
            let identity = format!("spiffe://demo.test/ns/shop/sa/{account}");
            concurrency.caller(&identity.parse().unwrap())
        };
        let (one, two) = (caller("a"), caller("a"));
        assert_eq!(one, two);
        assert_ne!(one, caller("c"));
        drop((one, two));
        let _other = caller("b");
        assert_eq!(lock(&concurrency.callers).len(), 1);
    }

    #[test]
    fn calls_beyond_the_cap_are_refused_until_one_ends() {
        let concurrency = Concurrency::default();
        assert_eq!(let_in(&concurrency, &limits(7), Priority::Normal), 7);
        concurrency.end(None, &Caller(Arc::new(AtomicU32::new(1))));
        assert_eq!(let_in(&concurrency, &limits(7), Priority::Normal), 1);
        assert_eq!(concurrency.in_flight(), 7);
    }

    #[test]
    fn the_less_important_is_refused_first() {
        let concurrency = Concurrency::default();
        let limits = Limits {
            reserve: true,
            ..limits(100)
        };
        let full = |priority| {
            (0..3)
                .map(|_| let_in(&concurrency, &limits, priority))
                .sum::<usize>()
        };
        assert_eq!(full(Priority::Low), 75);
        assert_eq!(full(Priority::Normal), 15);
        assert_eq!(full(Priority::High), 10);
    }

    #[test]
    fn one_caller_leaves_places_of_each_priority_to_others() {
        for (priority, most) in [
            (Priority::Low, 71),
            (Priority::Normal, 85),
            (Priority::High, 95),
        ] {
            let concurrency = Concurrency::default();
            let limits = Limits {
                reserve: true,
                ..limits(100)
            };
            assert_eq!(let_in(&concurrency, &limits, priority), most);
            assert!(let_in(&concurrency, &limits, priority) > 0);
        }
    }

    #[test]
    fn what_observes_tells_and_lets_in() {
        let concurrency = Concurrency::default();
        let limits = Limits {
            fixed: Mode::Observe,
            ..limits(1)
        };
        let caller = Caller::default();
        let first = concurrency.begin(&limits, Priority::Normal, &caller);
        assert_eq!(first.observed, None);
        let verdict = concurrency.begin(&limits, Priority::Normal, &caller);
        let full = Full {
            limit: 1,
            kind: Kind::Fixed,
        };
        assert_eq!((verdict.refused, verdict.observed), (None, Some(full)));
        assert_eq!(concurrency.in_flight(), 2);
    }

    /// An application of so many workers that each take 10 ms, offered requests at an even pace: the
    /// limit at the end, and the goodput of the last second in requests.
    fn offered(workers: usize, per_second: u64) -> (u32, usize) {
        let concurrency = Concurrency::default();
        let limits = Limits {
            adaptive: Some(Mode::Enforce),
            ..limits(1024)
        };
        let caller = Caller::default();
        const SERVICE: u64 = 10_000;
        let mut free = vec![0_u64; workers];
        let mut under_way = BinaryHeap::new();
        let mut done = Vec::new();
        // First a minute at half of what it can do, which shows what is usual.
        let capacity = workers as u64 * 1_000_000 / SERVICE;
        let calm = (0..60 * capacity / 2).map(|number| number * 2_000_000 / capacity);
        let storm = (0..30 * per_second).map(|number| 60_000_000 + number * 1_000_000 / per_second);
        for now in calm.chain(storm) {
            while let Some(&std::cmp::Reverse((end, began))) = under_way.peek() {
                if end > now {
                    break;
                }
                under_way.pop();
                concurrency.end(Some(Duration::from_micros(end - began)), &caller);
                done.push(end);
            }
            if concurrency
                .begin(&limits, Priority::Normal, &caller)
                .refused
                .is_some()
            {
                continue;
            }
            let worker = free.iter_mut().min().unwrap();
            *worker = (*worker).max(now) + SERVICE;
            under_way.push(std::cmp::Reverse((*worker, now)));
        }
        let late = done.iter().filter(|end| **end > 89_000_000);
        (concurrency.adaptive(), late.count())
    }

    #[test]
    fn at_ten_times_the_capacity_the_queue_stays_short_and_the_goodput_whole() {
        let (limit, goodput) = offered(8, 8_000);
        assert!((8..64).contains(&limit), "{limit}");
        assert!(goodput >= 780, "{goodput}");
    }

    #[test]
    fn a_limit_that_is_not_in_use_does_not_move() {
        let (limit, _) = offered(8, 400);
        assert_eq!(limit, START as u32);
    }
}

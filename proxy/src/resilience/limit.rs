//! How many requests of one service are let through at once: a fixed cap, and a limit that acts while the
//! application is overloaded. Pure except for atomics and a lock that is held for a few instructions: all
//! workers share it.
//!
//! No caller may have all of the cap: it must leave some places to others, see [`leaves_room`]. Callers that
//! prove no identity have half of it together. The adaptive limit ([`super::overload`]) refuses the callers
//! with most requests first: at the limit a caller may still have its even share of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use weft_config::table::{self, Mode, Priority};
use weft_transport::identity::SpiffeId;
use weft_transport::locks::lock;
use weft_transport::shares::{Source, leaves_room};

use super::destination::Event;
use super::overload::classes::Class;
use super::overload::{Change, Outcome, Overload, Ticket};
use crate::limits::PLAINTEXT_PARTS;

/// Requests under way of one service, and how many may be.
#[derive(Debug)]
pub(crate) struct Concurrency {
    in_flight: AtomicU32,
    /// Of these, the requests of callers that prove no identity.
    of_sources: AtomicU32,
    adaptive: Mutex<Adaptive>,
    callers: Known<SpiffeId>,
    /// Callers that prove no identity.
    sources: Known<Source>,
}

/// Callers that are remembered, by what tells them apart.
#[derive(Debug)]
struct Known<K>(Mutex<BTreeMap<K, Weak<Load>>>);

impl<K: Ord + Clone> Known<K> {
    fn caller(&self, key: &K, is_source: bool) -> Caller {
        let mut callers = lock(&self.0);
        if let Some(known) = callers.get(key).and_then(Weak::upgrade) {
            return Caller(known);
        }
        // As many callers as have connections; the number of connections is bounded.
        callers.retain(|_, caller| caller.strong_count() > 0);
        let caller = Caller(Arc::new(Load {
            is_source,
            ..Load::default()
        }));
        callers.insert(key.clone(), Arc::downgrade(&caller.0));
        caller
    }
}

/// The adaptive limit, and how many callers have requests that wait.
#[derive(Debug)]
struct Adaptive {
    overload: Overload,
    callers: u32,
}

/// One caller of a service, whatever connection it uses: the same identity is the same caller, and without
/// one the same source address. It counts the requests that it has under way. It is remembered while one of
/// its connections refers to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Arc<Load>);

/// The share of a service that a caller uses.
#[derive(Debug, Default)]
struct Load {
    under_way: AtomicU32,
    /// It proves no identity.
    is_source: bool,
    /// Requests that wait for the head of their answer; the lock of [`Adaptive`] guards the count.
    waiting: AtomicU32,
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The limit that refuses one more request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// The limit that is reached, as a whole or by this caller's share.
    pub(crate) limit: u32,
    /// The limit that is reached.
    pub(crate) kind: Kind,
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The cap.
    Fixed,
    /// The limit that follows the latency.
    Adaptive,
    /// The caller's share of one of these.
    Share,
}

/// The decision about one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    /// Its place if it was let in; the reason if it was refused.
    pub(crate) outcome: Result<Place, Full>,
    /// The limit that would have refused it but only observes.
    pub(crate) observed: Option<Full>,
    /// What the adaptive limit began or stopped doing.
    pub(crate) change: Option<Change>,
}

/// A request that was let in. It has a ticket if the adaptive limit counts it.
pub(crate) type Place = Option<Ticket>;

/// One more request, as the limits see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// Its caller.
    pub(crate) caller: &'a Caller,
    /// The priority of the request.
    pub(crate) priority: Priority,
    /// Its class; none for tunnels.
    pub(crate) class: Option<Class>,
    /// The time at which the request came.
    pub(crate) now: Instant,
}

/// The limits in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The cap.
    pub(crate) max: u32,
    /// Whether the cap refuses.
    pub(crate) fixed: Mode,
    /// Whether the adaptive limit refuses; none if latency tells nothing, as with tunnels.
    pub(crate) adaptive: Option<Mode>,
    /// Whether the last tenth is reserved for requests of high priority: if requests state a priority.
    pub(crate) reserve: bool,
}

impl Limits {
    /// For a port, with the cap of the sidecar if the policy names none.
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

impl Concurrency {
    /// For a service that had no request yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            of_sources: AtomicU32::new(0),
            adaptive: Mutex::new(Adaptive {
                overload: Overload::new(now),
                callers: 0,
            }),
            callers: Known(Mutex::default()),
            sources: Known(Mutex::default()),
        }
    }

    /// The caller of that identity.
    pub(crate) fn caller(&self, identity: &SpiffeId) -> Caller {
        self.callers.caller(identity, false)
    }

    /// The caller at that address, which proves no identity.
    pub(crate) fn caller_at(&self, source: Source) -> Caller {
        self.sources.caller(&source, true)
    }

    /// Asks for one more request. A request that is let in must later call [`Self::end`], and before that
    /// give its ticket to [`Self::answered`].
    pub(crate) fn begin(&self, limits: &Limits, ask: &Ask<'_>) -> Verdict {
        let load = &*ask.caller.0;
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let own = load.under_way.fetch_add(1, Ordering::Relaxed);
        let mut verdict = Verdict {
            outcome: Ok(None),
            observed: None,
            change: None,
        };
        if let Some(full) = fixed(limits, ask.priority, before, own) {
            verdict.say(limits.fixed, full);
        }
        if load.is_source {
            let strangers = self.of_sources.fetch_add(1, Ordering::Relaxed);
            if strangers >= limits.max.div_ceil(PLAINTEXT_PARTS) {
                let (limit, kind) = (limits.max, Kind::Share);
                verdict.say(limits.fixed, Full { limit, kind });
            }
        }
        if let (Some(mode), Some(class)) = (limits.adaptive, ask.class) {
            let adaptive = &mut *lock(&self.adaptive);
            adaptive.overload.enforce(mode == Mode::Enforce);
            if verdict.outcome.is_err() {
                adaptive.overload.capped();
            } else {
                if let Some(full) = adaptive.full(limits, ask, load) {
                    verdict.say(mode, full);
                }
                verdict.outcome = match verdict.outcome {
                    Ok(_) => Ok(Some(adaptive.enter(class, load, ask.now))),
                    refused @ Err(_) => refused,
                };
            }
            verdict.change = adaptive.overload.look(ask.now);
        }
        if verdict.outcome.is_err() {
            self.end(ask.caller);
        }
        verdict
    }

    /// A request of this caller no longer waits for the head of its answer.
    pub(crate) fn answered(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        caller: &Caller,
        now: Instant,
    ) -> Option<Change> {
        let adaptive = &mut *lock(&self.adaptive);
        if ticket.counts && caller.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            adaptive.callers -= 1;
        }
        adaptive.overload.end(ticket, outcome, now);
        adaptive.overload.look(now)
    }

    /// A request of this caller is over.
    pub(crate) fn end(&self, caller: &Caller) {
        caller.0.under_way.fetch_sub(1, Ordering::Relaxed);
        if caller.0.is_source {
            self.of_sources.fetch_sub(1, Ordering::Relaxed);
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The state of the adaptive limit, and what it began or stopped doing: without requests only time ends
    /// it.
    pub(crate) fn adaptive(&self, now: Instant) -> (AdaptiveState, Option<Change>) {
        let adaptive = &mut *lock(&self.adaptive);
        let change = adaptive.overload.look(now);
        let state = AdaptiveState {
            limit: adaptive.overload.limit(),
            since: adaptive.overload.since(),
            waiting: adaptive.overload.waiting(now),
        };
        (state, change)
    }
}

/// The state of the adaptive limit, to be shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdaptiveState {
    /// How many requests may wait; none while the limit does not act.
    pub(crate) limit: Option<u32>,
    /// Since when it acts, or does not.
    pub(crate) since: Instant,
    /// How many wait for the head of their answer.
    pub(crate) waiting: u32,
}

impl Adaptive {
    /// The limit that refuses one more waiting request.
    fn full(&mut self, limits: &Limits, ask: &Ask<'_>, load: &Load) -> Option<Full> {
        let limit = self.overload.limit()?;
        let own = load.waiting.load(Ordering::Relaxed);
        let room = room(limit, ask.priority, limits.reserve);
        let callers = self.callers + u32::from(own == 0);
        // Light callers are let in at the limit, too: together no more than their even shares of it.
        let share = (room / callers.max(1)).max(1);
        if self.overload.waiting(ask.now) < room || own < share {
            return None;
        }
        self.overload.refused();
        Some(Full {
            limit,
            kind: Kind::Adaptive,
        })
    }

    fn enter(&mut self, class: Class, load: &Load, now: Instant) -> Ticket {
        let ticket = self.overload.begin(class, now);
        if ticket.counts && load.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.callers += 1;
        }
        ticket
    }
}

impl Verdict {
    /// Records the refusing limit, unless one was recorded before.
    fn say(&mut self, mode: Mode, full: Full) {
        match mode {
            Mode::Enforce if self.outcome.is_ok() => self.outcome = Err(full),
            Mode::Enforce => {}
            Mode::Observe => {
                self.observed.get_or_insert(full);
            }
        }
    }
}

/// Which part of the cap refuses, with this many requests under way, of which this many are the caller's.
fn fixed(limits: &Limits, priority: Priority, before: u32, own: u32) -> Option<Full> {
    let room = room(limits.max, priority, limits.reserve);
    let kind = if before >= room {
        Kind::Fixed
    } else if leaves_room(room, before, own) {
        return None;
    } else {
        Kind::Share
    };
    Some(Full {
        limit: limits.max,
        kind,
    })
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn new() -> Concurrency {
        Concurrency::new(Instant::now())
    }

    fn limits(max: u32) -> Limits {
        Limits {
            max,
            fixed: Mode::Enforce,
            adaptive: Some(Mode::Observe),
            reserve: false,
        }
    }

    fn ask(priority: Priority, caller: &Caller) -> Ask<'_> {
        Ask {
            caller,
            priority,
            class: None,
            now: Instant::now(),
        }
    }

    fn refusal(concurrency: &Concurrency, limits: &Limits, caller: &Caller) -> Option<Full> {
        let verdict = concurrency.begin(limits, &ask(Priority::Normal, caller));
        verdict.outcome.err()
    }

    /// How many of a priority are let in, of a caller that has none yet, until one is refused.
    fn let_in(concurrency: &Concurrency, limits: &Limits, priority: Priority) -> usize {
        let caller = Caller::default();
        let ask = ask(priority, &caller);
        (0..10_000)
            .take_while(|_| concurrency.begin(limits, &ask).outcome.is_ok())
            .count()
    }

    #[test]
    fn one_caller_leaves_places_of_the_cap_to_others() {
        let concurrency = new();
        assert_eq!(let_in(&concurrency, &limits(1024), Priority::Normal), 964);
        let caller = Caller::default();
        assert_eq!(refusal(&concurrency, &limits(1024), &caller), None);
    }

    #[test]
    fn however_many_addresses_they_have_callers_without_identity_leave_half_of_the_cap_to_others() {
        let concurrency = new();
        let limits = limits(100);
        let strangers: Vec<Caller> = (0..100)
            .map(|last| concurrency.caller_at(Source::from(IpAddr::from([192, 0, 2, last]))))
            .collect();
        let refused = strangers
            .iter()
            .filter_map(|one| refusal(&concurrency, &limits, one));
        let refused: Vec<Full> = refused.collect();
        assert_eq!((refused.len(), concurrency.in_flight()), (50, 50));
        assert!(refused.iter().all(|full| full.kind == Kind::Share));
        let identity = concurrency.caller(&"spiffe://demo.test/ns/shop/sa/a".parse().unwrap());
        for _ in 0..40 {
            assert_eq!(refusal(&concurrency, &limits, &identity), None);
        }
        // What ends makes room for another one.
        concurrency.end(&strangers[0]);
        assert_eq!(refusal(&concurrency, &limits, &strangers[99]), None);
        assert!(refusal(&concurrency, &limits, &strangers[98]).is_some());
    }

    #[test]
    fn a_request_over_a_share_is_refused_as_such_and_not_counted() {
        let concurrency = new();
        let caller = Caller::default();
        let refused = (0..)
            .find_map(|_| refusal(&concurrency, &limits(100), &caller))
            .unwrap();
        let share = Full {
            limit: 100,
            kind: Kind::Share,
        };
        assert_eq!(refused, share);
        let under_way = concurrency.in_flight();
        assert_eq!(caller.0.under_way.load(Ordering::Relaxed), under_way);
        (0..under_way).for_each(|_| concurrency.end(&caller));
        assert_eq!(
            (
                caller.0.under_way.load(Ordering::Relaxed),
                concurrency.in_flight()
            ),
            (0, 0)
        );
    }

    #[test]
    fn connections_of_one_caller_share_a_count_that_ends_with_them() {
        let concurrency = new();
        let caller = |account: &str| {
            let identity = format!("spiffe://demo.test/ns/shop/sa/{account}");
            concurrency.caller(&identity.parse().unwrap())
        };
        let (one, two) = (caller("a"), caller("a"));
        assert_eq!(one, two);
        assert_ne!(one, caller("c"));
        drop((one, two));
        let _other = caller("b");
        assert_eq!(lock(&concurrency.callers.0).len(), 1);
    }

    #[test]
    fn calls_beyond_the_cap_are_refused_until_one_ends() {
        let concurrency = new();
        assert_eq!(let_in(&concurrency, &limits(7), Priority::Normal), 7);
        let caller = Caller::default();
        caller.0.under_way.store(1, Ordering::Relaxed);
        concurrency.end(&caller);
        assert_eq!(let_in(&concurrency, &limits(7), Priority::Normal), 1);
        assert_eq!(concurrency.in_flight(), 7);
    }

    #[test]
    fn the_less_important_is_refused_first() {
        let concurrency = new();
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
            let concurrency = new();
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
        let concurrency = new();
        let limits = Limits {
            fixed: Mode::Observe,
            ..limits(1)
        };
        let caller = Caller::default();
        let first = concurrency.begin(&limits, &ask(Priority::Normal, &caller));
        assert_eq!(first.observed, None);
        let verdict = concurrency.begin(&limits, &ask(Priority::Normal, &caller));
        let full = Full {
            limit: 1,
            kind: Kind::Fixed,
        };
        assert!(verdict.outcome.is_ok());
        assert_eq!(verdict.observed, Some(full));
        assert_eq!(concurrency.in_flight(), 2);
    }
}

//! The adaptive limit of a service whose application gets more requests than it can answer. Pure: time is an
//! argument.
//!
//! Without overload there is no limit. [`watch`] looks for the signs of overload, [`regulator`] then finds
//! the limit and ends it. [`classes`] knows the usual times, [`waiting`] counts the requests that wait. The
//! reasons are in docs/adr/0022-adaptive-limit.md.

pub(crate) mod classes;
#[cfg(test)]
mod limit_simulations;
mod regulator;
mod waiting;
pub(crate) mod watch;

use std::time::{Duration, Instant};

use classes::{Class, Classes};
use regulator::{Course, Regulator};
use waiting::{QUEUED_MAX, Waiting};
use watch::{Measured, Sign, Watch};

/// After a limit that did not help, no limit is tried for this time: twice as long each time, at most this.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(960);

/// How a request's wait for the head of its answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The application answered.
    Answered,
    /// The application refused the request (4xx). Such an answer is often quicker than a good one, so it does
    /// not show the usual time.
    Declined,
    /// Its caller gave up, or its deadline passed.
    GivenUp,
    /// Any other end: it tells nothing about a queue.
    Other,
}

/// One request that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    class: Class,
    since: Instant,
    generation: u32,
    /// Whether it counts as a part of a queue.
    pub(crate) counts: bool,
}

/// What the limit began or stopped doing, to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The limit begins to act.
    Acts(Sign),
    /// It has stopped acting: it was not needed for a while.
    Over,
    /// It has stopped acting: it did not help.
    Useless,
}

/// The adaptive limit of one service.
#[derive(Debug)]
pub(crate) struct Overload {
    classes: Classes,
    waiting: Waiting,
    state: State,
    enforced: bool,
    pause: Duration,
    since: Instant,
}

#[derive(Debug)]
enum State {
    Calm { watch: Watch, not_before: Instant },
    Acting(Regulator),
}

impl Overload {
    /// Of a service that was asked nothing yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            classes: Classes::default(),
            waiting: Waiting::new(now),
            state: calm(now, now),
            enforced: false,
            pause: PAUSE,
            since: now,
        }
    }

    /// Whether [`Self::limit`] is enforced, or only observed.
    pub(crate) fn enforce(&mut self, enforced: bool) {
        self.enforced = enforced;
    }

    /// How many requests may wait, while the limit acts.
    pub(crate) fn limit(&self) -> Option<u32> {
        match &self.state {
            State::Calm { .. } => None,
            State::Acting(regulator) => Some(regulator.limit()),
        }
    }

    /// Since when it acts, or does not.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// How many requests wait.
    pub(crate) fn waiting(&mut self, now: Instant) -> u32 {
        self.waiting.count(now)
    }

    /// A request is let in.
    pub(crate) fn begin(&mut self, class: Class, now: Instant) -> Ticket {
        let counts = !self.classes.waits(class);
        if counts {
            self.waiting.begin(now);
        }
        let generation = match &mut self.state {
            State::Calm { watch, .. } => {
                watch.arrived();
                0
            }
            State::Acting(regulator) => regulator.generation(),
        };
        Ticket {
            class,
            since: now,
            generation,
            counts,
        }
    }

    /// A request was refused by the fixed cap.
    pub(crate) fn capped(&mut self) {
        if let State::Calm { watch, .. } = &mut self.state {
            watch.capped();
        }
    }

    /// A request was refused by this limit.
    pub(crate) fn refused(&mut self) {
        if let State::Acting(regulator) = &mut self.state {
            regulator.refused();
        }
    }

    /// A request waits no more.
    pub(crate) fn end(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        if ticket.counts {
            self.waiting.end(ticket.since, now);
        }
        let took = now.saturating_duration_since(ticket.since);
        let told = took <= QUEUED_MAX && outcome != Outcome::Other;
        let usual = self.classes.usual(ticket.class).filter(|_| told);
        let measured = Measured {
            outcome,
            took,
            usual,
            ratio: usual.map(|usual| took.as_secs_f64() / usual),
        };
        match &mut self.state {
            State::Calm { watch, .. } => watch.ended(measured),
            State::Acting(regulator) => regulator.ended(ticket.generation, measured),
        }
        if outcome == Outcome::Answered {
            self.classes.answered(ticket.class, took, now);
        }
    }

    /// To be called after any of the above.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Change> {
        let waiting = self.waiting.count(now);
        let change = match &mut self.state {
            State::Calm { watch, not_before } => {
                let slowest = || self.classes.slowest();
                let sign = watch.look(waiting, slowest, now);
                let seen = sign.filter(|_| now >= *not_before)?;
                self.state = State::Acting(Regulator::new(waiting, seen, now));
                Change::Acts(seen.sign)
            }
            State::Acting(regulator) => match regulator.look(waiting, self.enforced, now) {
                Course::On => return None,
                Course::Over => {
                    self.pause = PAUSE;
                    self.state = calm(now, now);
                    Change::Over
                }
                Course::Useless => {
                    self.state = calm(now, now + self.pause);
                    self.pause = (2 * self.pause).min(PAUSE_MAX);
                    Change::Useless
                }
            },
        };
        self.since = now;
        Some(change)
    }
}

fn calm(now: Instant, not_before: Instant) -> State {
    State::Calm {
        watch: Watch::new(now),
        not_before,
    }
}

//! An application, its callers and the adaptive limit before it, in simulated time: what each request of each
//! flow comes to.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_config::table::{Mode, Priority};

use super::super::classes::Class;
use super::super::{Change, Outcome, Ticket};
use crate::resilience::limit::{Ask, Caller, Concurrency, Limits};

const MICROS: f64 = 1e6;

/// In which order an application takes the requests that wait for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    Oldest,
    Newest,
    Random,
}

/// An application: its concurrency, and the order in which it serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct App {
    pub(super) workers: usize,
    pub(super) order: Order,
    /// Whether it notices that the caller of a waiting request gave up.
    pub(super) notices: bool,
}

impl App {
    /// Works on all at once, as an application does that itself waits for other services.
    pub(super) const UNBOUNDED: Self = Self {
        workers: usize::MAX,
        order: Order::Oldest,
        notices: true,
    };

    pub(super) fn pool(workers: usize) -> Self {
        Self {
            workers,
            order: Order::Oldest,
            notices: false,
        }
    }
}

/// Requests of one caller and one class.
pub(super) struct Flow {
    pub(super) caller: usize,
    pub(super) path: &'static str,
    /// Requests per second, as a function of the time in seconds.
    pub(super) rate: fn(f64) -> f64,
    /// Seconds of work of one request at that time, by a random number.
    pub(super) work: fn(f64, f64) -> f64,
    /// Seconds after which the caller gives up.
    pub(super) patience: f64,
}

impl Flow {
    pub(super) fn new(rate: fn(f64) -> f64, work: fn(f64, f64) -> f64) -> Self {
        Self {
            caller: 0,
            path: "/",
            rate,
            work,
            patience: 1.0,
        }
    }
}

/// The results of each flow's requests, by the second in which they arrived.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Second {
    pub(super) good: u32,
    pub(super) refused: u32,
    pub(super) capped: u32,
    pub(super) lost: u32,
}

struct Request {
    flow: usize,
    arrived: u64,
    ticket: Option<Ticket>,
    work: u64,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival(usize),
    Done(usize),
    GivenUp(usize, u64),
}

pub(super) struct Simulation<'a> {
    app: App,
    flows: &'a [Flow],
    random: StdRng,
    began: Instant,
    concurrency: Concurrency,
    callers: Vec<Caller>,
    pub(super) limits: Limits,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    requests: Vec<Request>,
    free: Vec<usize>,
    queue: VecDeque<usize>,
    busy: usize,
    simulated: Vec<Vec<Second>>,
    changes: Vec<(u64, Change)>,
}

impl<'a> Simulation<'a> {
    pub(super) fn new(app: App, flows: &'a [Flow], seed: u64) -> Self {
        let began = Instant::now();
        let callers = flows.iter().map(|flow| flow.caller).max().unwrap_or(0) + 1;
        Self {
            app,
            flows,
            random: StdRng::seed_from_u64(seed),
            began,
            concurrency: Concurrency::new(began),
            callers: (0..callers).map(|_| Caller::default()).collect(),
            limits: Limits {
                max: 1024,
                fixed: Mode::Enforce,
                adaptive: Some(Mode::Enforce),
                reserve: false,
            },
            events: BinaryHeap::new(),
            requests: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            busy: 0,
            simulated: vec![Vec::new(); flows.len()],
            changes: Vec::new(),
        }
    }

    pub(super) fn at(&self, micros: u64) -> Instant {
        self.began + Duration::from_micros(micros)
    }

    pub(super) fn second(&mut self, flow: usize, micros: u64) -> &mut Second {
        let second = (micros / 1_000_000) as usize;
        let simulated = &mut self.simulated[flow];
        if simulated.len() <= second {
            simulated.resize(second + 1, Second::default());
        }
        &mut simulated[second]
    }

    pub(super) fn next_arrival(&mut self, flow: usize, now: u64) {
        let rate = (self.flows[flow].rate)(now as f64 / MICROS).max(1e-3);
        // A change of the rate takes effect within a second.
        let gap: f64 = -self.random.random_range(1e-12..1.0_f64).ln() / rate;
        let at = now + (gap * MICROS) as u64;
        self.events.push(Reverse((at, Event::Arrival(flow))));
    }

    pub(super) fn arrive(&mut self, flow: usize, now: u64) {
        self.next_arrival(flow, now);
        let of = &self.flows[flow];
        let verdict = self.concurrency.begin(
            &self.limits,
            &Ask {
                caller: &self.callers[of.caller],
                priority: Priority::Normal,
                class: Some(Class::of("GET", of.path, false)),
                now: self.at(now),
            },
        );
        self.changes
            .extend(verdict.change.map(|change| (now, change)));
        let ticket = match verdict.outcome {
            Ok(ticket) => ticket,
            Err(full) => {
                let adaptive = full.kind == crate::resilience::limit::Kind::Adaptive;
                let second = self.second(flow, now);
                if adaptive {
                    second.refused += 1;
                } else {
                    second.capped += 1;
                }
                return;
            }
        };
        let work = (of.work)(now as f64 / MICROS, self.random.random());
        let request = Request {
            flow,
            arrived: now,
            ticket,
            work: (work * MICROS) as u64,
            over: false,
        };
        let patience = (of.patience * MICROS) as u64;
        let id = match self.free.pop() {
            Some(id) => {
                self.requests[id] = request;
                id
            }
            None => {
                self.requests.push(request);
                self.requests.len() - 1
            }
        };
        self.events
            .push(Reverse((now + patience, Event::GivenUp(id, now))));
        self.queue.push_back(id);
        self.take(now);
    }

    /// Gives waiting requests to free workers.
    pub(super) fn take(&mut self, now: u64) {
        while self.busy < self.app.workers && !self.queue.is_empty() {
            let last = self.queue.len() - 1;
            let place = match self.app.order {
                Order::Oldest => 0,
                Order::Newest => last,
                Order::Random => self.random.random_range(0..=last),
            };
            let id = match self.app.order {
                Order::Random => self.queue.swap_remove_back(place),
                Order::Oldest | Order::Newest => self.queue.remove(place),
            };
            let Some(id) = id else { return };
            if self.requests[id].over && self.app.notices {
                self.free.push(id);
                continue;
            }
            self.busy += 1;
            let done = now + self.requests[id].work.max(1);
            self.events.push(Reverse((done, Event::Done(id))));
        }
    }

    /// The sidecar's part of a request is over.
    pub(super) fn over(&mut self, id: usize, outcome: Outcome, now: u64) {
        let request = &mut self.requests[id];
        request.over = true;
        let (flow, arrived) = (request.flow, request.arrived);
        let ticket = request.ticket.take();
        let caller = self.callers[self.flows[flow].caller].clone();
        let at = self.at(now);
        if let Some(ticket) = ticket {
            let change = self.concurrency.answered(ticket, outcome, &caller, at);
            self.changes.extend(change.map(|change| (now, change)));
        }
        self.concurrency.end(&caller);
        let second = self.second(flow, arrived);
        match outcome {
            Outcome::Answered => second.good += 1,
            Outcome::GivenUp | Outcome::Declined | Outcome::Other => second.lost += 1,
        }
    }

    pub(super) fn run(mut self, seconds: u64) -> Simulated {
        for flow in 0..self.flows.len() {
            self.next_arrival(flow, 0);
        }
        while let Some(Reverse((now, event))) = self.events.pop() {
            if now >= seconds * 1_000_000 {
                break;
            }
            match event {
                Event::Arrival(flow) => self.arrive(flow, now),
                Event::GivenUp(id, arrived) => {
                    let request = &self.requests[id];
                    if request.arrived == arrived && !request.over {
                        self.over(id, Outcome::GivenUp, now);
                    }
                }
                Event::Done(id) => {
                    self.busy -= 1;
                    if !self.requests[id].over {
                        self.over(id, Outcome::Answered, now);
                    }
                    self.free.push(id);
                    self.take(now);
                }
            }
        }
        Simulated {
            flows: self.simulated,
            changes: self.changes,
        }
    }
}

pub(super) struct Simulated {
    pub(super) flows: Vec<Vec<Second>>,
    pub(super) changes: Vec<(u64, Change)>,
}

impl Simulated {
    /// Sum of the results of all flows from one second to another.
    pub(super) fn sum(&self, from: usize, to: usize) -> Second {
        self.flows
            .iter()
            .map(|flow| of(flow, from, to))
            .fold(Second::default(), |sum, one| Second {
                good: sum.good + one.good,
                refused: sum.refused + one.refused,
                capped: sum.capped + one.capped,
                lost: sum.lost + one.lost,
            })
    }
}

pub(super) fn of(flow: &[Second], from: usize, to: usize) -> Second {
    let mut sum = Second::default();
    for one in flow.iter().take(to).skip(from) {
        sum.good += one.good;
        sum.refused += one.refused;
        sum.capped += one.capped;
        sum.lost += one.lost;
    }
    sum
}

pub(super) fn simulate(app: App, flows: &[Flow], seed: u64, seconds: u64) -> Simulated {
    Simulation::new(app, flows, seed).run(seconds)
}

/// An exponentially distributed time of this mean.
pub(super) fn exponential(mean: f64, random: f64) -> f64 {
    -mean * (1.0 - random).ln()
}

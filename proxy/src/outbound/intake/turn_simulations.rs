//! A model of the intake in random orders of what may happen to it: connections with something to read come,
//! are called, close, time out and are found to be gone, listeners would accept, and cycles begin with any
//! portion. What the intake calls and whom it lets in is compared with the model at each step. Time is
//! simulated; a failure names its seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

const SEEDS: u64 = 300;
const STEPS: u32 = 400;
const MS: Duration = Duration::from_millis(1);
/// Listeners of the worker.
const DOORS: u32 = 3;

/// Names a connection or a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Connection(u32),
    Door(u32),
}

/// Notes who was woken.
struct Note {
    who: Who,
    woken: Arc<Mutex<Vec<Who>>>,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        lock(&self.woken).push(self.who);
    }
}

/// What should happen, in the plainest words: those that wait stand in a list.
#[derive(Debug, Default)]
struct Model {
    left: u32,
    /// In the order in which they came.
    waiting: Vec<(u32, Instant)>,
    doors: Vec<u32>,
    gone: Option<Instant>,
    called: u32,
    accepted: Option<Instant>,
    woken: Vec<Who>,
}

impl Model {
    fn begin(&mut self, requests: u32, now: Instant) {
        self.left = requests;
        let kept = self.kept(now);
        while self.left > kept && !self.waiting.is_empty() {
            self.left -= 1;
            let newest = self.callers_give_up(now) && {
                self.called += 1;
                !self.called.is_multiple_of(limits::INTAKE_OLDEST_ONE_IN)
            };
            let place = if newest { self.waiting.len() - 1 } else { 0 };
            let (who, _) = self.waiting.remove(place);
            self.woken.push(Who::Connection(who));
        }
        self.woken.extend(self.doors.drain(..).map(Who::Door));
    }

    fn kept(&mut self, now: Instant) -> u32 {
        if self.doors.is_empty() || self.waiting.is_empty() {
            return 0;
        }
        if !self.callers_give_up(now) {
            return self.left / 2;
        }
        let each = limits::INTAKE_ACCEPTS_EACH;
        let is_due = self.accepted.is_none_or(|before| now - before >= each);
        if is_due {
            self.accepted = Some(now);
        }
        u32::from(is_due)
    }

    fn callers_give_up(&self, now: Instant) -> bool {
        self.gone
            .is_some_and(|gone| now - gone < limits::INTAKE_PATIENCE)
    }

    fn take(&mut self) -> bool {
        let may = self.left > 0;
        self.left -= u32::from(may);
        may
    }

    fn pass_on(&mut self, now: Instant) {
        let oldest = self.waiting.first();
        if oldest.is_some_and(|(_, since)| now - *since >= limits::INTAKE_WAIT) {
            self.gone = Some(now);
        }
        if self.waiting.is_empty() {
            self.left += 1;
        } else {
            let (who, _) = self.waiting.remove(0);
            self.woken.push(Who::Connection(who));
        }
    }

    fn leave(&mut self, who: u32) {
        self.waiting.retain(|(one, _)| *one != who);
    }

    fn is_waiting(&self, who: u32) -> bool {
        self.waiting.iter().any(|(one, _)| *one == who)
    }
}

/// The intake beside its model.
struct World {
    random: StdRng,
    intake: Arc<Intake>,
    model: Model,
    woken: Arc<Mutex<Vec<Who>>>,
    wakers: BTreeMap<Who, Waker>,
    turns: BTreeMap<u32, Turn>,
    doors: BTreeMap<u32, BoxFuture<'static, ()>>,
    next: u32,
    /// Turns that were had since the cycle began.
    had: u32,
    /// The portion of the cycle, with those that were called before it.
    portion: u32,
    seen: Seen,
}

/// What happened in all worlds, so that no check is idle.
#[derive(Debug, Default)]
struct Seen {
    at_once: u32,
    called: u32,
    closed: u32,
    closed_when_called: u32,
    passed_on: u32,
    accepted: u32,
    gave_up: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let intake = Arc::new(Intake::default());
        intake.limited.store(true, Ordering::Relaxed);
        Self {
            random: StdRng::seed_from_u64(seed),
            intake,
            model: Model::default(),
            woken: Arc::default(),
            wakers: BTreeMap::new(),
            turns: BTreeMap::new(),
            doors: BTreeMap::new(),
            next: 0,
            had: 0,
            portion: 0,
            seen: Seen::default(),
        }
    }

    /// The same for each poll, as that of a task is.
    fn waker(&mut self, who: Who) -> Waker {
        let woken = Arc::clone(&self.woken);
        let make = || Waker::from(Arc::new(Note { who, woken }));
        self.wakers.entry(who).or_insert_with(make).clone()
    }

    fn any(&mut self) -> Option<u32> {
        let count = self.turns.len();
        let place = (count > 0).then(|| self.random.random_range(0..count))?;
        self.turns.keys().nth(place).copied()
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..40 => self.come(),
            40..55 => {
                if let Some(who) = self.any() {
                    self.close(who);
                }
            }
            55..75 => {
                if let Some(who) = self.any() {
                    self.look(who);
                }
            }
            75..85 => self.begin(),
            85..91 => self.knock(),
            91..94 => self.turn_away(),
            _ => tokio::time::advance(MS * self.random.random_range(0..100)).await,
        }
        let now = Instant::now();
        self.seen.gave_up += u32::from(self.model.callers_give_up(now));
        self.check();
    }

    /// A connection has something to read.
    fn come(&mut self) {
        let who = self.next;
        self.next += 1;
        let mut turn = Turn::new(&self.intake);
        let waker = self.waker(Who::Connection(who));
        let has = turn.poll(&mut Context::from_waker(&waker)).is_ready();
        assert_eq!(has, self.model.take(), "connection {who}");
        if has {
            self.seen.at_once += 1;
            self.read(turn);
        } else {
            self.model.waiting.push((who, Instant::now()));
            self.turns.insert(who, turn);
        }
    }

    /// It is looked at again, because it was called or for no reason.
    fn look(&mut self, who: u32) {
        let waker = self.waker(Who::Connection(who));
        let turn = self.turns.get_mut(&who).unwrap();
        let has = turn.poll(&mut Context::from_waker(&waker)).is_ready();
        assert_eq!(has, !self.model.is_waiting(who), "connection {who}");
        if has {
            self.seen.called += 1;
            let turn = self.turns.remove(&who).unwrap();
            self.read(turn);
        }
    }

    /// It has its turn, and is there or gone.
    fn read(&mut self, turn: Turn) {
        if self.random.random_range(0..4) == 0 {
            self.seen.passed_on += 1;
            turn.pass_on();
            self.model.pass_on(Instant::now());
        } else {
            self.had += 1;
            assert!(self.had <= self.portion, "more than the portion");
        }
    }

    /// It closes or times out, called or not.
    fn close(&mut self, who: u32) {
        self.turns.remove(&who);
        if self.model.is_waiting(who) {
            self.seen.closed += 1;
        } else {
            self.seen.closed_when_called += 1;
        }
        self.model.leave(who);
    }

    fn begin(&mut self) {
        let requests = self.random.random_range(0..12);
        let now = Instant::now();
        // Those that were called before and did not come yet still have their turns.
        let called = self
            .turns
            .keys()
            .filter(|who| !self.model.is_waiting(**who));
        self.portion = requests + u32::try_from(called.count()).unwrap();
        self.had = 0;
        lock(&self.intake.cycle).begin(requests, now);
        self.model.begin(requests, now);
    }

    /// A listener would accept, or is looked at again for no reason.
    fn knock(&mut self) {
        let who = self.random.random_range(0..DOORS);
        let intake = Arc::clone(&self.intake);
        let fresh = || async move { intake.accepts().await }.boxed();
        let mut door = self.doors.remove(&who).unwrap_or_else(fresh);
        let waker = self.waker(Who::Door(who));
        let has = door.poll_unpin(&mut Context::from_waker(&waker)).is_ready();
        assert_eq!(has, self.model.take(), "listener {who}");
        if has {
            self.seen.accepted += 1;
            self.had += 1;
            assert!(self.had <= self.portion, "more than the portion");
            return;
        }
        if !self.model.doors.contains(&who) {
            self.model.doors.push(who);
        }
        self.doors.insert(who, door);
    }

    /// A listener waits for something else.
    fn turn_away(&mut self) {
        let who = self.random.random_range(0..DOORS);
        self.doors.remove(&who);
    }

    fn check(&mut self) {
        let woken = std::mem::take(&mut *lock(&self.woken));
        assert_eq!(woken, std::mem::take(&mut self.model.woken));
        let cycle = lock(&self.intake.cycle);
        assert_eq!(cycle.left, self.model.left);
        assert!(
            cycle.acceptors.len() <= DOORS as usize,
            "a listener waits twice"
        );
        let waits = !self.model.waiting.is_empty() || !self.model.doors.is_empty();
        assert_eq!(cycle.is_waited_for(), waits);
    }

    /// Nothing more comes: each that waits has a turn, in as many cycles of one as there are.
    fn end(&mut self) {
        self.doors.clear();
        for _ in 0..=self.turns.len() {
            let now = Instant::now();
            lock(&self.intake.cycle).begin(1, now);
            self.model.begin(1, now);
            let waiting: Vec<u32> = self.turns.keys().copied().collect();
            for who in waiting {
                if !self.model.is_waiting(who) {
                    let waker = self.waker(Who::Connection(who));
                    let mut turn = self.turns.remove(&who).unwrap();
                    assert!(turn.poll(&mut Context::from_waker(&waker)).is_ready());
                }
            }
        }
        assert!(
            self.turns.is_empty(),
            "{:?} never had a turn",
            self.turns.keys()
        );
        assert!(!lock(&self.intake.cycle).is_waited_for());
    }
}

#[tokio::test(start_paused = true)]
async fn in_any_order_the_intake_calls_who_is_next_and_no_more_than_the_portion() {
    let mut all = Seen::default();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            let step = std::panic::AssertUnwindSafe(world.step());
            let step = step.catch_unwind().await;
            step.unwrap_or_else(|_| panic!("seed {seed}"));
        }
        world.end();
        let seen = world.seen;
        all.at_once += seen.at_once;
        all.called += seen.called;
        all.closed += seen.closed;
        all.closed_when_called += seen.closed_when_called;
        all.passed_on += seen.passed_on;
        all.accepted += seen.accepted;
        all.gave_up += seen.gave_up;
    }
    let Seen {
        at_once,
        called,
        closed,
        closed_when_called,
        passed_on,
        accepted,
        gave_up,
    } = all;
    let least = [
        at_once,
        called,
        closed,
        closed_when_called,
        passed_on,
        accepted,
        gave_up,
    ];
    assert!(least.iter().all(|count| *count > 100), "{all:?}");
}

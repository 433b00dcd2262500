//! Endpoints, a policy and the callers that meet them, in simulated time. Each step of an exchange checks the
//! rules that must always hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::response::Parts;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weft_config::table::{GrpcCode, Hedge, HedgeAfter, Percent, Retry, RetryBudget, Traffic};

use crate::cluster::pick::{Criteria, TriedEndpoints, pick};
use crate::cluster::{Cluster, Flight};
use crate::directory::tests::placed;
use crate::resilience::attempts::{Attempts, FailedAttempt, Hedging, Next, Rules};
use crate::resilience::breaker::Admission;
use crate::resilience::budget::Budget;
use crate::resilience::deadline::{Clock, Deadline};
use crate::resilience::retry::{GRPC_STATUS, RetryAdvice, RetryCause, SAFE, WEFT_RETRY};
use crate::resilience::standing::Outcome;
use crate::resilience::verdict::{Ending, Evidence, Verdict};

const MS: Duration = Duration::from_millis(1);

/// More failures than a simulated world has.
const ON_TRIAL: u32 = 1 << 20;

/// Endpoints, a policy, and the callers that meet them.
pub(super) struct World {
    cluster: Arc<Cluster>,
    random: StdRng,
    pub(super) start: Instant,
    pub(super) now: Instant,
    retry: Retry,
    hedge: Option<Hedge>,
    allowance: RetryBudget,
    budget: Budget,
    requests: u32,
    /// Retries taken from the budget, counted independently.
    paid: u32,
    /// By endpoint: attempts that failed before it left rotation for the first time.
    failures: Vec<u32>,
    pub(super) seen: Seen,
}

/// Events counted over all worlds, so that each check is known to have run.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) again: u32,
    pub(super) copies: u32,
    pub(super) withheld: u32,
    pub(super) answered: u32,
    pub(super) late: u32,
    pub(super) left: u32,
    pub(super) out: u32,
    pub(super) twice: u32,
}

/// One attempt under way.
struct UnderWay {
    flight: Flight,
    index: usize,
    clock: Clock,
    last: bool,
    end: Instant,
    fate: Fate,
}

/// How an attempt ends.
enum Fate {
    Ends(Ending),
    Answers(Box<Parts>),
}

/// What a failed or doubtful round leaves for the next one.
struct Round {
    setback: FailedAttempt,
    /// An application may have processed the request.
    processed: bool,
}

/// One exchange.
struct Asked {
    idempotent: bool,
    grpc: bool,
    repeatable: bool,
    deadline: Deadline,
    timeout: Option<Duration>,
    criteria: Criteria,
    hedged: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let retry = Retry {
            attempts: random.random_range(0..4),
            reset_before_response: random.random(),
            codes: vec![503],
            grpc_codes: if random.random() {
                vec![GrpcCode::Unavailable]
            } else {
                vec![]
            },
            non_idempotent: random.random_range(0..4) == 0,
            ..Retry::default()
        };
        let hedge = random.random::<bool>().then(|| Hedge {
            after: HedgeAfter::Delay(MS * 5),
            attempts: random.random_range(1..3),
            non_idempotent: random.random(),
        });
        let allowance = RetryBudget {
            percent: Percent::whole(random.random_range(0..100)),
            retries_per_second_min: random.random_range(0..3),
            ..RetryBudget::default()
        };
        let start = Instant::now();
        let cluster = endpoints(&mut random);
        Self {
            failures: vec![0; cluster.endpoints.len()],
            cluster,
            start,
            now: start,
            retry,
            hedge,
            budget: Budget::new(allowance.interval, start),
            allowance,
            requests: 0,
            paid: 0,
            random,
            seen: Seen::default(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    pub(super) fn millis(&mut self, most: u32) -> Duration {
        MS * self.random.random_range(0..most)
    }

    fn rules<'a>(&'a self, asked: &Asked) -> Rules<'a> {
        Rules {
            retry: &self.retry,
            budget: &self.budget,
            allowance: &self.allowance,
            deadline: asked.deadline,
            idempotent: asked.idempotent,
        }
    }

    /// Asks the budget, and counts what it grants.
    fn spending<T>(&mut self, ask: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let before = self.budget.left(self.now, &self.allowance);
        let answer = ask(self);
        let taken = before - self.budget.left(self.now, &self.allowance);
        assert!(taken == 0.0 || (taken - 1.0).abs() < 1e-6, "{taken}");
        self.paid += u32::from(taken > 0.0);
        let floor = f64::from(self.allowance.retries_per_second_min)
            * self.allowance.interval.as_secs_f64();
        let most = f64::from(self.requests) * self.allowance.percent.fraction() + floor;
        assert!(f64::from(self.paid) <= most + 1e-6, "more than the budget");
        (answer, taken > 0.0)
    }

    fn asked(&mut self) -> Asked {
        let tunnel = self.chance(20);
        let end = self.now + MS + self.millis(200);
        let deadline = match (tunnel, self.chance(60)) {
            (true, _) => Deadline::of_tunnel(end),
            (false, true) => Deadline::of_request(Some(end), None),
            (false, false) => Deadline::of_request(None, None),
        };
        let idempotent = !tunnel && self.chance(60);
        Asked {
            idempotent,
            grpc: !tunnel && !idempotent && self.chance(50),
            repeatable: self.chance(90),
            deadline,
            timeout: self.chance(30).then(|| MS + self.millis(60)),
            criteria: Criteria {
                preferred: None,
                tried: TriedEndpoints::default(),
                key: None,
                repeatable: tunnel || idempotent,
            },
            hedged: !tunnel,
        }
    }

    /// From the first attempt to the last.
    pub(super) fn exchange(&mut self) {
        let mut asked = self.asked();
        let mut attempts = Attempts::default();
        self.requests += 1;
        self.budget.request(self.now);
        let mut processed = false;
        loop {
            let clock = attempts.begin(&asked.deadline, asked.timeout, self.now);
            let Some(clock) = clock else {
                panic!("there was time when the attempt was decided, and at the beginning");
            };
            assert!(attempts.made() <= self.retry.attempts + 1);
            let round = self.round(&mut asked, &mut attempts, clock);
            let Some(round) = round else { return };
            processed |= round.processed;
            let (setback, at) = (round.setback, self.now);
            let mut random = StdRng::seed_from_u64(self.random.random());
            let (next, taken) = self
                .spending(|world| attempts.next(&world.rules(&asked), &setback, at, &mut random));
            let Next::Retry(pause) = next else {
                assert!(!taken, "what is not sent costs nothing");
                self.seen.withheld += u32::from(next != Next::End);
                return;
            };
            self.seen.again += 1;
            let cause = setback.cause.unwrap();
            assert!(setback.repeatable && attempts.made() <= self.retry.attempts);
            assert!(taken || setback.paid || cause == RetryCause::NotReached);
            assert!(!processed || self.may_come_twice(&asked));
            self.seen.twice += u32::from(processed);
            self.now += pause;
            let left = asked.deadline.left(self.now);
            assert!(left.is_none_or(|left| !left.is_zero()));
            self.renew(&mut asked);
        }
    }

    /// Whether the request may be processed twice: by its method, or because an operator allows it.
    fn may_come_twice(&self, asked: &Asked) -> bool {
        let by_hedge = self.hedge.as_ref().is_some_and(|one| one.non_idempotent);
        // An operator that lists a code states that the methods can be repeated.
        let by_code = asked.grpc && !self.retry.grpc_codes.is_empty();
        let by_operator = self.retry.non_idempotent || by_code || asked.hedged && by_hedge;
        asked.idempotent || by_operator
    }

    /// Runs one attempt with its copies until there is an answer (returns none), or until no attempt is under
    /// way.
    fn round(&mut self, asked: &mut Asked, attempts: &mut Attempts, clock: Clock) -> Option<Round> {
        let again = attempts.may_go_on(&self.retry);
        let mut under_way = vec![self.send(asked, clock)];
        let hedge = self.hedge.clone().filter(|_| asked.hedged);
        let harmless = |hedge: &Hedge| asked.idempotent || hedge.non_idempotent;
        let hedge = hedge.filter(harmless);
        let mut timer = hedge.as_ref().map(|_| self.now + MS * 5);
        let (mut sent, mut processed) = (0, false);
        loop {
            let ends = under_way.iter().map(|one| one.end).enumerate();
            let (next, end) = ends.min_by_key(|(_, end)| *end).unwrap();
            if let (Some(hedge), Some(at)) = (&hedge, timer)
                && at < end
            {
                self.now = at;
                timer = None;
                let left =
                    (0..self.cluster.endpoints.len()).any(|one| !asked.criteria.tried.has(one));
                let possible = left && asked.repeatable;
                let (copy, taken) =
                    self.spending(|world| attempts.copy(&world.rules(asked), hedge, possible, at));
                assert_eq!(taken, copy == Hedging::Send);
                if copy == Hedging::Send {
                    sent += 1;
                    self.seen.copies += 1;
                    assert!(sent <= hedge.attempts && possible);
                    let clock = asked.deadline.attempt(at, asked.timeout);
                    under_way.push(self.send(asked, clock));
                    timer = (sent < hedge.attempts).then_some(at + MS * 5);
                }
                continue;
            }
            self.now = end;
            let mut one = under_way.swap_remove(next);
            let verdict = match &one.fate {
                Fate::Answers(head) => {
                    Verdict::of_response(head, asked.grpc, false, &one.clock, end)
                }
                Fate::Ends(Ending::Silent) => {
                    let may_leave = again && !one.last && self.rules(asked).may_break();
                    let repeatable = asked.repeatable;
                    let leave =
                        |world: &mut Self| may_leave && world.rules(asked).leave(repeatable, end);
                    if !self.spending(leave).0 {
                        // It waits on, and an answer may still come.
                        (one.end, one.fate) = self.fate(&one.clock, false);
                        under_way.push(one);
                        continue;
                    }
                    self.seen.left += 1;
                    Ending::Silent.verdict(&one.clock, one.last, end)
                }
                Fate::Ends(ending) => ending.verdict(&one.clock, one.last, end),
            };
            self.judge(&mut one, verdict.evidence);
            let (advice, paid) = match &one.fate {
                Fate::Answers(head) => (RetryAdvice::of(&head.headers), false),
                Fate::Ends(ending) => (RetryAdvice::None, ending.is_paid()),
            };
            processed |= is_processed(&one.fate, advice);
            let answers = matches!(one.fate, Fate::Answers(_));
            if answers && verdict.cause.is_none() {
                self.seen.answered += 1;
                return None;
            }
            if answers || under_way.is_empty() {
                // The requests of the other copies are cancelled, and may have been processed.
                processed |= !under_way.is_empty();
                let setback = FailedAttempt {
                    cause: verdict.cause,
                    advice,
                    repeatable: asked.repeatable,
                    on_trial: answers && one.flight.is_on_trial(),
                    paid,
                };
                return Some(Round { setback, processed });
            }
        }
    }

    /// Reports the attempt's evidence to its endpoint, and later that of the call's end.
    fn judge(&mut self, one: &mut UnderWay, evidence: Evidence) {
        let endpoint = &self.cluster.endpoints[one.index];
        let was_out = endpoint.standing.is_out();
        self.seen.late += u32::from(matches!(evidence, Evidence::Late { .. }));
        self.failures[one.index] += u32::from(!matches!(
            evidence,
            Evidence::Nothing
                | Evidence::Answered(None | Some(Outcome::Well | Outcome::Busy(_)))
                | Evidence::Outcome(Outcome::Well | Outcome::Busy(_))
        ));
        one.flight.judge(evidence, self.now);
        if let Evidence::Answered(Some(outcome)) = evidence {
            // The end of a gRPC call reports the same once more.
            one.flight.tell(outcome, self.now);
            one.flight.tell(outcome, self.now);
        }
        if !was_out && endpoint.standing.is_out() {
            // After its return it is on trial, and fewer failures take it out.
            let failures = std::mem::replace(&mut self.failures[one.index], ON_TRIAL);
            assert!(failures >= 5, "out after {failures} attempts that failed");
            self.seen.out += 1;
        }
    }

    /// One attempt is sent.
    fn send(&mut self, asked: &mut Asked, clock: Clock) -> UnderWay {
        let now = self.now;
        let left = asked.deadline.left(now);
        assert!(left.is_none_or(|left| !left.is_zero()), "after its time");
        let all = Arc::clone(&self.cluster);
        let index = pick(&all, &asked.criteria, now, &mut self.random).unwrap();
        let healthy = |one: &usize| all.endpoints[*one].standing.admission(now) == Admission::Yes;
        let mut untried = (0..all.endpoints.len()).filter(|one| !asked.criteria.tried.has(*one));
        assert!(
            !asked.criteria.tried.has(index) || !untried.any(|one| healthy(&one)),
            "an endpoint is tried twice although another one is well and was not tried"
        );
        let flight = all.start(index, now).unwrap();
        asked.criteria.tried.add(index);
        let last = asked.criteria.tried.all(all.endpoints.len());
        let (end, fate) = self.fate(&clock, true);
        UnderWay {
            flight,
            index,
            clock,
            last,
            end,
            fate,
        }
    }

    /// How an attempt goes on from now, within its clock.
    fn fate(&mut self, clock: &Clock, may_be_silent: bool) -> (Instant, Fate) {
        let most = if self.random.random() { 5 } else { 90 };
        let end = self.now + self.millis(most);
        if let Some(over) = clock.end()
            && over <= end
        {
            let late = [Ending::UnreachedInTime, Ending::UnaskedInTime, Ending::Late];
            let late = late[self.random.random_range(0..3)];
            return (over.max(self.now), Fate::Ends(late));
        }
        let endings = [
            Ending::Doubtful,
            Ending::Undialled,
            Ending::Unreached,
            Ending::NoRoom,
            Ending::LostUnasked,
            Ending::Leaving,
            Ending::Refused,
            Ending::Busy,
            Ending::Reset,
            Ending::Lost,
            Ending::Malformed,
            Ending::Stalled,
            Ending::Own,
            Ending::Silent,
        ];
        if self.chance(60) {
            let among = endings.len() - usize::from(!may_be_silent);
            return (end, Fate::Ends(endings[self.random.random_range(0..among)]));
        }
        let status = [200, 200, 404, 429, 500, 503, 504][self.random.random_range(0..7)];
        let mut answer = http::Response::builder().status(status);
        if self.chance(30) {
            answer = answer.header(GRPC_STATUS, self.random.random_range(0..17));
        }
        if status == 503 && self.chance(40) {
            answer = match self.random.random_range(0..4) {
                0 => answer.header(WEFT_RETRY, SAFE),
                1 => answer.header(WEFT_RETRY, "spent"),
                2 => answer.header("retry-after", "0"),
                _ => answer.header("retry-after", u64::MAX),
            };
        }
        let head = answer.body(()).unwrap().into_parts().0;
        (end, Fate::Answers(Box::new(head)))
    }

    /// From time to time a newer table has other endpoints.
    fn renew(&mut self, asked: &mut Asked) {
        if !self.chance(10) {
            return;
        }
        let newer = endpoints(&mut self.random);
        asked.criteria.tried = asked.criteria.tried.moved(&self.cluster, &newer);
        self.failures = vec![0; newer.endpoints.len()];
        self.cluster = newer;
    }
}

/// Some endpoints, here and far away.
fn endpoints(random: &mut StdRng) -> Arc<Cluster> {
    let count = random.random_range(1..6);
    let mut place = || ["eu/a", "eu/b", "us/a"][random.random_range(0..3)];
    let places: Vec<_> = (0..count).map(|_| Some(place())).collect();
    placed(&places, Some("eu/a"), Traffic::default())
}

/// Whether an application may have processed a request that ended like this.
fn is_processed(fate: &Fate, advice: RetryAdvice) -> bool {
    match fate {
        Fate::Answers(_) => advice != RetryAdvice::Safe,
        Fate::Ends(ending) => match ending {
            Ending::Doubtful
            | Ending::Undialled
            | Ending::Unreached
            | Ending::UnreachedInTime
            | Ending::UnaskedInTime
            | Ending::NoRoom
            | Ending::LostUnasked
            | Ending::Leaving
            | Ending::Refused => false,
            Ending::Busy
            | Ending::Reset
            | Ending::Lost
            | Ending::Malformed
            | Ending::Silent
            | Ending::Stalled
            | Ending::Late
            | Ending::Own => true,
        },
    }
}

//! The attempts of one exchange, a request or the opening of a tunnel: how many there may be, when the next
//! one begins, whether a copy is sent beside a slow one, and what the budget pays. Pure: time and randomness
//! are arguments. So are the policy and the budget, because a newer table may change them between two
//! attempts.
//!
//! The driver calls, in this order: [`Attempts::begin`]; while that attempt runs [`Attempts::copy`] if the
//! policy hedges, and [`Rules::leave`] if the peer falls silent; [`Attempts::next`] once no attempt is under
//! way. [`super::verdict`] says what an attempt tells about its endpoint, [`super::retry`] which requests may
//! be sent again at all. Not here: which endpoint takes an attempt (`cluster/pick.rs`).

use std::time::{Duration, Instant};

use rand::Rng;
use weft_config::table::{Hedge, Retry, RetryBudget};

use super::budget::Budget;
use super::deadline::{Clock, Deadline};
use super::retry::{Facts, RetryAdvice, RetryCause, is_permitted, pause};
use crate::limits;

/// The rules for the attempts of one exchange, as they are in force at this moment.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    /// Of the route.
    pub(crate) retry: &'a Retry,
    /// Of the destination, shared by all its callers in this process.
    pub(crate) budget: &'a Budget,
    /// The share and the number that the policy allows for the budget.
    pub(crate) allowance: &'a RetryBudget,
    /// Of the exchange.
    pub(crate) deadline: Deadline,
    /// Its method may be executed twice (RFC 9110 section 9.2.2).
    pub(crate) idempotent: bool,
}

impl Rules<'_> {
    /// Whether an exchange that breaks off without an answer may be sent again.
    pub(crate) fn may_break(&self) -> bool {
        let facts = Facts {
            idempotent: self.idempotent,
            repeatable: true,
            on_trial: false,
        };
        is_permitted(self.retry, RetryCause::Broken, facts)
    }

    /// Whether an attempt leaves an endpoint that does not acknowledge: the request can be sent whole, and
    /// the budget pays for the next attempt, which a yes takes from it. Otherwise it waits, because networks
    /// recover.
    pub(crate) fn leave(&self, repeatable: bool, now: Instant) -> bool {
        repeatable && self.spend(now)
    }

    fn spend(&self, now: Instant) -> bool {
        self.budget.spend(now, self.allowance)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.deadline.left(now).is_some_and(|left| left.is_zero())
    }
}

/// An attempt that went wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedAttempt {
    /// How it failed; none if another attempt would fail in the same way.
    pub(crate) cause: Option<RetryCause>,
    /// What its response says about sending the request again.
    pub(crate) advice: RetryAdvice,
    /// All that was sent of its body can be sent again.
    pub(crate) repeatable: bool,
    /// See [`Facts::on_trial`].
    pub(crate) on_trial: bool,
    /// The budget has paid for the next attempt already: by [`Rules::leave`].
    pub(crate) paid: bool,
}

/// The attempts of one exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    made: u32,
    /// Copies sent beside the attempt that was begun last.
    copies: u32,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another one, after this pause.
    Retry(Duration),
    /// Nothing: this is not retried.
    End,
    /// Nothing, although this is retried.
    Withheld(WithheldReason),
}

/// Why a request that would be retried is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WithheldReason {
    /// The policy allows no more attempts.
    Attempts,
    /// The budget is spent.
    Budget,
    /// The deadline leaves no time, or the response asks for too long a wait.
    Deadline,
    /// A sidecar farther along the path, or the application, forbids it.
    Told,
    /// The body was not kept whole.
    Body,
}

impl WithheldReason {
    /// As logs name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::Told => "told",
            Self::Body => "body",
        }
    }
}

/// Whether a copy is sent beside an attempt that is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hedging {
    /// A copy is sent, and is paid for.
    Send,
    /// The budget does not pay for it now.
    Withheld,
    /// Neither now nor later beside this attempt.
    Never,
}

impl Attempts {
    /// Begins one more attempt, which may take the time that its route's policy allows; none if the deadline
    /// has passed.
    pub(crate) fn begin(
        &mut self,
        deadline: &Deadline,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Option<Clock> {
        if deadline.left(now).is_some_and(|left| left.is_zero()) {
            return None;
        }
        self.made = self.made.saturating_add(1);
        self.copies = 0;
        Some(deadline.attempt(now, timeout))
    }

    /// Attempts made so far, not counting copies.
    pub(crate) fn made(self) -> u32 {
        self.made
    }

    /// Whether one more attempt may follow the latest one.
    pub(crate) fn may_go_on(self, policy: &Retry) -> bool {
        self.made <= policy.attempts
    }

    /// Judges whether a copy is due beside the attempt that was begun last. `possible`: all of the body has
    /// arrived, and an untried endpoint is left. The budget is asked last.
    pub(crate) fn copy(
        &mut self,
        rules: &Rules<'_>,
        hedge: &Hedge,
        possible: bool,
        now: Instant,
    ) -> Hedging {
        let harmless = rules.idempotent || hedge.non_idempotent;
        let more = self.copies < hedge.attempts;
        if !harmless || !more || !possible || rules.is_over(now) {
            return Hedging::Never;
        }
        if !rules.spend(now) {
            return Hedging::Withheld;
        }
        self.copies += 1;
        Hedging::Send
    }

    /// Judges the attempt that failed at that time. The budget is asked last.
    pub(crate) fn next(
        self,
        rules: &Rules<'_>,
        setback: &FailedAttempt,
        at: Instant,
        random: &mut impl Rng,
    ) -> Next {
        let Rules {
            retry, idempotent, ..
        } = *rules;
        let FailedAttempt {
            cause,
            advice,
            repeatable,
            on_trial,
            paid,
        } = *setback;
        let facts = Facts {
            idempotent,
            repeatable,
            on_trial,
        };
        let cause = match (cause, advice) {
            (None, _) => return Next::End,
            (Some(_), RetryAdvice::Safe) => RetryCause::Unprocessed,
            (Some(cause), RetryAdvice::None | RetryAdvice::Never | RetryAdvice::After(_)) => cause,
        };
        if retry.attempts == 0 || !is_permitted(retry, cause, facts) {
            return Next::End;
        }
        if !facts.repeatable {
            return Next::Withheld(WithheldReason::Body);
        }
        if advice == RetryAdvice::Never {
            return Next::Withheld(WithheldReason::Told);
        }
        if !self.may_go_on(retry) {
            return Next::Withheld(WithheldReason::Attempts);
        }
        let least = retry.backoff.at_least;
        let (pause, least) = match (advice, cause) {
            (RetryAdvice::After(time), _) if retry.respect_retry_after => {
                if time > limits::PUSHBACK_MAX {
                    return Next::Withheld(WithheldReason::Deadline);
                }
                let time = time.max(least);
                (time, time)
            }
            // It goes to another endpoint, which had no part in the failure.
            (_, RetryCause::NotReached | RetryCause::Unprocessed) if self.made == 1 => {
                (least, least)
            }
            (_, _) => (pause(&retry.backoff, self.made, random), least),
        };
        // What was drawn on top of the least is to spread callers; there is no sense in missing the deadline
        // for it.
        let longest = rules.deadline.left(at).map(|left| {
            let end = left.checked_sub(limits::ATTEMPT_TIME_MIN);
            end.filter(|longest| least < *longest)
        });
        let pause = match longest {
            None => pause,
            Some(Some(longest)) => pause.min(longest),
            Some(None) => return Next::Withheld(WithheldReason::Deadline),
        };
        // An attempt that sent nothing has cost the destination nothing.
        if cause != RetryCause::NotReached && !paid && !rules.spend(at) {
            return Next::Withheld(WithheldReason::Budget);
        }
        Next::Retry(pause)
    }

    /// Whether the destination counts as unavailable (RFC 9209 section 2.3.3, "recent attempts to communicate
    /// with it may have failed"): a rule asked for retries, all of them were made, and the last connection
    /// failed as the ones before.
    pub(crate) fn is_in_vain(retry: &Retry, cause: Option<RetryCause>, next: Next) -> bool {
        retry.of_rule
            && next == Next::Withheld(WithheldReason::Attempts)
            && cause.is_some_and(RetryCause::is_of_connection)
    }

    /// Whether all allowed attempts were made, so that the caller of this application should not multiply
    /// them.
    pub(crate) fn is_spent(self, advice: RetryAdvice, next: Next) -> bool {
        self.made > 1
            || advice == RetryAdvice::Never
            || next == Next::Withheld(WithheldReason::Budget)
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use weft_config::table::{HedgeAfter, Percent};

    use super::*;

    const UNAVAILABLE: RetryCause = RetryCause::Status(StatusCode::SERVICE_UNAVAILABLE);

    /// One exchange that failed once or more.
    struct Case {
        retry: Retry,
        method: Method,
        made: u32,
        setback: FailedAttempt,
        left_ms: Option<u64>,
        allowance: RetryBudget,
    }

    impl Case {
        fn new(made: u32, cause: RetryCause) -> Self {
            Self {
                retry: Retry::default(),
                method: Method::GET,
                made,
                setback: FailedAttempt {
                    cause: Some(cause),
                    advice: RetryAdvice::None,
                    repeatable: true,
                    on_trial: false,
                    paid: false,
                },
                left_ms: Some(1000),
                allowance: RetryBudget::default(),
            }
        }

        fn next(&self) -> Next {
            let now = Instant::now();
            let budget = Budget::new(self.allowance.interval, now);
            let rules = Rules {
                retry: &self.retry,
                budget: &budget,
                allowance: &self.allowance,
                deadline: Deadline::of_request(
                    self.left_ms.map(|ms| now + Duration::from_millis(ms)),
                    None,
                ),
                idempotent: self.method.is_idempotent(),
            };
            let attempts = Attempts {
                made: self.made,
                copies: 0,
            };
            let mut random = StdRng::seed_from_u64(1);
            attempts.next(&rules, &self.setback, now, &mut random)
        }
    }

    /// An allowance of nothing.
    fn broke() -> RetryBudget {
        RetryBudget {
            percent: Percent::whole(0),
            retries_per_second_min: 0,
            ..RetryBudget::default()
        }
    }

    #[test]
    fn what_cannot_be_sent_whole_is_not_sent_again() {
        let mut half = Case::new(1, RetryCause::Unprocessed);
        half.setback.repeatable = false;
        assert_eq!(half.next(), Next::Withheld(WithheldReason::Body));
    }

    #[test]
    fn two_more_attempts_are_made_the_first_at_once_if_no_application_saw_the_request() {
        let again = |made, cause| Case::new(made, cause).next();
        assert_eq!(
            again(1, RetryCause::Unprocessed),
            Next::Retry(Duration::ZERO)
        );
        for (made, cause) in [(1, RetryCause::Broken), (2, RetryCause::Unprocessed)] {
            let Next::Retry(pause) = again(made, cause) else {
                panic!()
            };
            assert!(!pause.is_zero());
        }
        assert_eq!(
            again(3, RetryCause::Broken),
            Next::Withheld(WithheldReason::Attempts)
        );
        assert_eq!(again(1, UNAVAILABLE), Next::End);
    }

    #[test]
    fn the_mark_of_an_inner_hop_stops_retries_or_makes_them_safe() {
        let mut broken = Case::new(1, RetryCause::Broken);
        broken.setback.advice = RetryAdvice::Never;
        assert_eq!(broken.next(), Next::Withheld(WithheldReason::Told));
        let mut safe = Case::new(1, UNAVAILABLE);
        safe.method = Method::POST;
        safe.setback.advice = RetryAdvice::Safe;
        assert_eq!(safe.next(), Next::Retry(Duration::ZERO));
    }

    #[test]
    fn a_response_that_asks_to_wait_is_obeyed_if_there_is_time() {
        let after = |time, left_ms| {
            let mut case = Case::new(1, UNAVAILABLE);
            case.retry.codes = vec![503];
            case.setback.advice = RetryAdvice::After(time);
            case.left_ms = left_ms;
            case.next()
        };
        let ms = Duration::from_millis;
        assert_eq!(after(ms(40), Some(100)), Next::Retry(ms(40)));
        assert_eq!(
            after(ms(100), Some(100)),
            Next::Withheld(WithheldReason::Deadline)
        );
        assert_eq!(
            after(ms(11_000), None),
            Next::Withheld(WithheldReason::Deadline)
        );
        // A response may ask for an absurd wait.
        let longest = after(Duration::MAX, Some(100));
        assert_eq!(longest, Next::Withheld(WithheldReason::Deadline));
    }

    #[test]
    fn no_attempt_begins_before_the_least_wait_not_even_one_that_cost_nothing() {
        let least = Duration::from_millis(200);
        for (cause, advice) in [
            (RetryCause::NotReached, RetryAdvice::None),
            (RetryCause::Broken, RetryAdvice::None),
            (UNAVAILABLE, RetryAdvice::After(Duration::from_millis(1))),
        ] {
            let mut case = Case::new(1, cause);
            case.retry.backoff.at_least = least;
            case.retry.codes = vec![503];
            case.setback.advice = advice;
            let next = case.next();
            assert!(
                matches!(next, Next::Retry(pause) if pause >= least),
                "X31: {next:?}"
            );
            // One that would begin after the deadline is not made.
            case.left_ms = Some(200);
            assert_eq!(case.next(), Next::Withheld(WithheldReason::Deadline));
        }
    }

    #[test]
    fn a_wait_that_was_drawn_is_cut_rather_than_miss_the_deadline() {
        let mut case = Case::new(8, RetryCause::Broken);
        case.retry.attempts = 10;
        case.left_ms = Some(3);
        let next = case.next();
        let left = Duration::from_millis(2);
        assert!(
            matches!(next, Next::Retry(pause) if pause <= left),
            "G44d: {next:?}"
        );
        case.left_ms = Some(1);
        assert_eq!(case.next(), Next::Withheld(WithheldReason::Deadline));
    }

    #[test]
    fn the_budget_is_asked_last_and_not_for_what_was_never_sent() {
        let next = |cause, paid| {
            let mut case = Case::new(1, cause);
            case.allowance = broke();
            case.setback.paid = paid;
            case.next()
        };
        let withheld = Next::Withheld(WithheldReason::Budget);
        assert_eq!(next(RetryCause::Unprocessed, false), withheld);
        assert_eq!(
            next(RetryCause::NotReached, false),
            Next::Retry(Duration::ZERO)
        );
        assert_eq!(next(UNAVAILABLE, false), Next::End);
        // The budget was asked when the attempt left its silent peer.
        assert_eq!(
            next(RetryCause::Unprocessed, true),
            Next::Retry(Duration::ZERO)
        );
    }

    #[test]
    fn no_attempt_begins_once_the_deadline_has_passed() {
        let now = Instant::now();
        let deadline = Deadline::of_request(Some(now), None);
        let mut attempts = Attempts::default();
        assert!(attempts.begin(&deadline, None, now).is_none());
        assert_eq!(attempts.made(), 0);
        let open = Deadline::of_tunnel(now);
        assert!(attempts.begin(&open, None, now).is_none());
        assert!(attempts.begin(&Deadline::default(), None, now).is_some());
        assert_eq!(attempts.made(), 1);
    }

    #[test]
    fn copies_are_bounded_paid_for_and_only_of_what_may_come_twice() {
        let now = Instant::now();
        let hedge = Hedge {
            after: HedgeAfter::Delay(Duration::ZERO),
            attempts: 2,
            non_idempotent: false,
        };
        let (retry, allowance) = (Retry::default(), RetryBudget::default());
        let budget = Budget::new(allowance.interval, now);
        let rules = Rules {
            retry: &retry,
            budget: &budget,
            allowance: &allowance,
            deadline: Deadline::default(),
            idempotent: true,
        };
        let mut attempts = Attempts::default();
        attempts.begin(&rules.deadline, None, now);
        let left = budget.left(now, &allowance);
        assert_eq!(attempts.copy(&rules, &hedge, false, now), Hedging::Never);
        assert_eq!(attempts.copy(&rules, &hedge, true, now), Hedging::Send);
        assert_eq!(attempts.copy(&rules, &hedge, true, now), Hedging::Send);
        assert_eq!(attempts.copy(&rules, &hedge, true, now), Hedging::Never);
        assert_eq!(budget.left(now, &allowance), left - 2.0);
        let post = Rules {
            idempotent: false,
            ..rules
        };
        attempts.begin(&rules.deadline, None, now);
        assert_eq!(attempts.copy(&post, &hedge, true, now), Hedging::Never);
        let nothing = broke();
        let poor = Rules {
            allowance: &nothing,
            ..rules
        };
        assert_eq!(attempts.copy(&poor, &hedge, true, now), Hedging::Withheld);
    }

    #[test]
    fn only_where_a_rule_asks_and_all_connections_failed_is_a_destination_unavailable() {
        let policy = Retry::default();
        let rule = Retry {
            of_rule: true,
            ..Retry::default()
        };
        let spent = Next::Withheld(WithheldReason::Attempts);
        for cause in [RetryCause::NotReached, RetryCause::Broken] {
            assert!(Attempts::is_in_vain(&rule, Some(cause), spent));
            assert!(!Attempts::is_in_vain(&policy, Some(cause), spent));
            for other in [
                Next::End,
                Next::Withheld(WithheldReason::Budget),
                Next::Withheld(WithheldReason::Deadline),
            ] {
                assert!(!Attempts::is_in_vain(&rule, Some(cause), other));
            }
        }
        for cause in [Some(UNAVAILABLE), Some(RetryCause::TooSlow), None] {
            assert!(!Attempts::is_in_vain(&rule, cause, spent));
        }
    }
}

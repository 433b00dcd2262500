//! The attempts of one exchange, be it a request or the opening of a tunnel: how many there may be, when
//! the next one begins, whether a copy is sent beside one that is slow, and what that costs. Pure: time and
//! randomness are arguments, and so are the policy and the budget, as a newer table may bring others between
//! two attempts.
//!
//! The driver calls, in this order: [`Attempts::begin`]; while that attempt runs [`Attempts::copy`] where the
//! policy hedges, and [`Rules::leave`] where the peer falls silent; [`Attempts::next`] once no attempt is under
//! way. What an attempt says of its endpoint is in [`super::verdict`], what may be sent again at all in
//! [`super::retry`]. Not here: which endpoint takes an attempt (`outbound/pick.rs`).

use std::time::{Duration, Instant};

use rand::Rng;
use weft_config::table::{Hedge, Retry, RetryBudget};

use super::budget::Budget;
use super::deadline::{Clock, Deadline};
use super::retry::{Facts, Trouble, Word, is_permitted, pause};
use crate::limits;

/// What binds the attempts of one exchange, as it is in force at this moment.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    /// Of the route.
    pub(crate) retry: &'a Retry,
    /// Of the destination, shared by all its callers in this process.
    pub(crate) budget: &'a Budget,
    /// What that budget allows.
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
            gamble: false,
        };
        is_permitted(self.retry, Trouble::Broken, facts)
    }

    /// Whether an attempt leaves an endpoint that does not acknowledge: it can be sent whole, and there are means for
    /// the next one, which are taken with a yes. Else it waits, as networks heal.
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
pub(crate) struct Setback {
    /// How; none where another attempt would fare no better.
    pub(crate) trouble: Option<Trouble>,
    /// What its response says about it.
    pub(crate) word: Word,
    /// All that was sent of its body can be sent again.
    pub(crate) repeatable: bool,
    /// See [`Facts::gamble`].
    pub(crate) gamble: bool,
    /// The budget was asked for the next attempt already: by [`Rules::leave`].
    pub(crate) paid: bool,
}

/// The attempts of one exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    made: u32,
    /// Beside the one that was begun last.
    copies: u32,
}

/// What comes after an attempt that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another one, after this pause.
    Again(Duration),
    /// Nothing: this is not retried.
    End,
    /// Nothing, although this is retried.
    Withheld(Why),
}

/// Why what would be retried is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// So many were made.
    Attempts,
    /// The budget is spent.
    Budget,
    /// The deadline leaves no time, or the response asks for too much of it.
    Deadline,
    /// A hop farther in, or the application, says so.
    Told,
    /// The body was not kept whole.
    Body,
}

/// Whether a copy is sent beside an attempt that is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hedging {
    /// It is, and is paid for.
    Send,
    /// There are no means for it now.
    Withheld,
    /// Neither now nor later beside this attempt.
    Never,
}

impl Attempts {
    /// Begins one more, which may take so long by the policy of its route; none where the deadline has passed.
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

    /// So many were made, not counting copies.
    pub(crate) fn made(self) -> u32 {
        self.made
    }

    /// Whether one more may follow that which was begun last.
    pub(crate) fn may_go_on(self, policy: &Retry) -> bool {
        self.made <= policy.attempts
    }

    /// Judges whether a copy is due beside the attempt that was begun last. `possible`: the body is there whole, and an
    /// endpoint is left that was not tried. The budget is asked last.
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

    /// Judges the attempt that went wrong at that time. The budget is asked last.
    pub(crate) fn next(
        self,
        rules: &Rules<'_>,
        setback: &Setback,
        at: Instant,
        random: &mut impl Rng,
    ) -> Next {
        let Rules {
            retry, idempotent, ..
        } = *rules;
        let Setback {
            trouble,
            word,
            repeatable,
            gamble,
            paid,
        } = *setback;
        let facts = Facts {
            idempotent,
            repeatable,
            gamble,
        };
        let trouble = match (trouble, word) {
            (None, _) => return Next::End,
            (Some(_), Word::Safe) => Trouble::Unprocessed,
            (Some(trouble), Word::None | Word::Never | Word::After(_)) => trouble,
        };
        if retry.attempts == 0 || !is_permitted(retry, trouble, facts) {
            return Next::End;
        }
        if !facts.repeatable {
            return Next::Withheld(Why::Body);
        }
        if word == Word::Never {
            return Next::Withheld(Why::Told);
        }
        if !self.may_go_on(retry) {
            return Next::Withheld(Why::Attempts);
        }
        let least = retry.backoff.at_least;
        let (pause, least) = match (word, trouble) {
            (Word::After(time), _) if retry.respect_retry_after => {
                if time > limits::PUSHBACK_MAX {
                    return Next::Withheld(Why::Deadline);
                }
                let time = time.max(least);
                (time, time)
            }
            // It goes to another endpoint, which has done nothing yet.
            (_, Trouble::NotReached | Trouble::Unprocessed) if self.made == 1 => (least, least),
            (_, _) => (pause(&retry.backoff, self.made, random), least),
        };
        // What was drawn on top of the least is to spread callers; there is no sense in missing the deadline for it.
        let longest = rules.deadline.left(at).map(|left| {
            let end = left.checked_sub(limits::ATTEMPT_TIME_MIN);
            end.filter(|longest| least < *longest)
        });
        let pause = match longest {
            None => pause,
            Some(Some(longest)) => pause.min(longest),
            Some(None) => return Next::Withheld(Why::Deadline),
        };
        // An attempt that sent nothing has cost the destination nothing.
        if trouble != Trouble::NotReached && !paid && !rules.spend(at) {
            return Next::Withheld(Why::Budget);
        }
        Next::Again(pause)
    }

    /// Whether as much was tried as may be, so that the caller of this application shall not multiply it.
    pub(crate) fn is_spent(self, word: Word, next: Next) -> bool {
        self.made > 1 || word == Word::Never || next == Next::Withheld(Why::Budget)
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use weft_config::table::{HedgeAfter, Percent};

    use super::*;

    const UNAVAILABLE: Trouble = Trouble::Status(StatusCode::SERVICE_UNAVAILABLE);

    /// One exchange that went wrong once or more.
    struct Case {
        retry: Retry,
        method: Method,
        made: u32,
        setback: Setback,
        left_ms: Option<u64>,
        allowance: RetryBudget,
    }

    impl Case {
        fn new(made: u32, trouble: Trouble) -> Self {
            Self {
                retry: Retry::default(),
                method: Method::GET,
                made,
                setback: Setback {
                    trouble: Some(trouble),
                    word: Word::None,
                    repeatable: true,
                    gamble: false,
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
        let mut half = Case::new(1, Trouble::Unprocessed);
        half.setback.repeatable = false;
        assert_eq!(half.next(), Next::Withheld(Why::Body));
    }

    #[test]
    fn two_more_attempts_are_made_the_first_at_once_where_nobody_saw_the_request() {
        let again = |made, trouble| Case::new(made, trouble).next();
        assert_eq!(again(1, Trouble::Unprocessed), Next::Again(Duration::ZERO));
        for (made, trouble) in [(1, Trouble::Broken), (2, Trouble::Unprocessed)] {
            let Next::Again(pause) = again(made, trouble) else {
                panic!()
            };
            assert!(!pause.is_zero());
        }
        assert_eq!(again(3, Trouble::Broken), Next::Withheld(Why::Attempts));
        assert_eq!(again(1, UNAVAILABLE), Next::End);
    }

    #[test]
    fn the_mark_of_an_inner_hop_stops_retries_or_makes_them_safe() {
        let mut broken = Case::new(1, Trouble::Broken);
        broken.setback.word = Word::Never;
        assert_eq!(broken.next(), Next::Withheld(Why::Told));
        let mut safe = Case::new(1, UNAVAILABLE);
        safe.method = Method::POST;
        safe.setback.word = Word::Safe;
        assert_eq!(safe.next(), Next::Again(Duration::ZERO));
    }

    #[test]
    fn a_response_that_asks_to_wait_is_obeyed_if_there_is_time() {
        let after = |time, left_ms| {
            let mut case = Case::new(1, UNAVAILABLE);
            case.retry.codes = vec![503];
            case.setback.word = Word::After(time);
            case.left_ms = left_ms;
            case.next()
        };
        let ms = Duration::from_millis;
        assert_eq!(after(ms(40), Some(100)), Next::Again(ms(40)));
        assert_eq!(after(ms(100), Some(100)), Next::Withheld(Why::Deadline));
        assert_eq!(after(ms(11_000), None), Next::Withheld(Why::Deadline));
        // What a response asks for may be absurd.
        let longest = after(Duration::MAX, Some(100));
        assert_eq!(longest, Next::Withheld(Why::Deadline));
    }

    #[test]
    fn no_attempt_begins_before_the_least_wait_not_even_one_that_cost_nothing() {
        let least = Duration::from_millis(200);
        for (trouble, word) in [
            (Trouble::NotReached, Word::None),
            (Trouble::Broken, Word::None),
            (UNAVAILABLE, Word::After(Duration::from_millis(1))),
        ] {
            let mut case = Case::new(1, trouble);
            case.retry.backoff.at_least = least;
            case.retry.codes = vec![503];
            case.setback.word = word;
            let next = case.next();
            assert!(
                matches!(next, Next::Again(pause) if pause >= least),
                "X31: {next:?}"
            );
            // One that would begin after the deadline is not made.
            case.left_ms = Some(200);
            assert_eq!(case.next(), Next::Withheld(Why::Deadline));
        }
    }

    #[test]
    fn a_wait_that_was_drawn_is_cut_rather_than_miss_the_deadline() {
        let mut case = Case::new(8, Trouble::Broken);
        case.retry.attempts = 10;
        case.left_ms = Some(3);
        let next = case.next();
        let left = Duration::from_millis(2);
        assert!(
            matches!(next, Next::Again(pause) if pause <= left),
            "G44d: {next:?}"
        );
        case.left_ms = Some(1);
        assert_eq!(case.next(), Next::Withheld(Why::Deadline));
    }

    #[test]
    fn the_budget_is_asked_last_and_not_for_what_was_never_sent() {
        let next = |trouble, paid| {
            let mut case = Case::new(1, trouble);
            case.allowance = broke();
            case.setback.paid = paid;
            case.next()
        };
        let withheld = Next::Withheld(Why::Budget);
        assert_eq!(next(Trouble::Unprocessed, false), withheld);
        assert_eq!(
            next(Trouble::NotReached, false),
            Next::Again(Duration::ZERO)
        );
        assert_eq!(next(UNAVAILABLE, false), Next::End);
        // It was asked when the attempt left its silent peer.
        assert_eq!(
            next(Trouble::Unprocessed, true),
            Next::Again(Duration::ZERO)
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
}

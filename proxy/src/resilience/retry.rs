//! Whether a request that went wrong is sent once more, and when. Pure.
//!
//! What may be sent again is decided by what is known: what no application can have seen always may;
//! what may have been seen only if seeing it twice does no harm, or if the policy says so. Whether there
//! are means for it is the [`super::budget`]'s question.

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rand::Rng;
use weft_config::table::{Backoff, Retry};
use weft_transport::backoff::{Spread, wait};

use crate::limits;

/// On a response: what the mesh knows about sending the request again. `safe`: no application has seen
/// it. `spent`: a hop farther in has tried several times, so that more attempts would only multiply.
pub(crate) const WEFT_RETRY: HeaderName = HeaderName::from_static("weft-retry");
/// See [`WEFT_RETRY`].
pub(crate) const SAFE: HeaderValue = HeaderValue::from_static("safe");
/// See [`WEFT_RETRY`].
pub(crate) const SPENT: HeaderValue = HeaderValue::from_static("spent");

/// Where a gRPC call says how it ended.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The gRPC code that says that the deadline passed.
pub(crate) const DEADLINE_EXCEEDED: u8 = 4;
/// The server's word on gRPC retries (gRFC A6, "Pushback").
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// How one attempt went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No connection: nothing was sent.
    NotReached,
    /// The peer states that no application has seen it.
    Unprocessed,
    /// The stream or connection broke before a response head.
    Broken,
    /// No response head within the time of one attempt.
    TooSlow,
    /// A response with this status.
    Status(StatusCode),
    /// A gRPC response with this code in its head.
    Grpc(u8),
}

/// What is known about the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Its method may be executed twice (RFC 9110 section 9.2.2).
    pub(crate) idempotent: bool,
    /// All that was sent of its body can be sent again.
    pub(crate) repeatable: bool,
    /// It was sent to an endpoint that had been out of rotation, to see whether that one is well: what comes of it is
    /// not the caller's to bear.
    pub(crate) gamble: bool,
}

/// Whether the policy lets the request be sent again after this trouble, if there are attempts and means
/// left.
pub(crate) fn is_permitted(policy: &Retry, trouble: Trouble, facts: Facts) -> bool {
    let harmless = facts.idempotent || policy.non_idempotent;
    match trouble {
        Trouble::NotReached | Trouble::Unprocessed => true,
        Trouble::Broken | Trouble::TooSlow => policy.reset_before_response && harmless,
        Trouble::Status(status) if facts.gamble && status.is_server_error() => harmless,
        Trouble::Status(status) => harmless && policy.codes.contains(&status.as_u16()),
        Trouble::Grpc(code) => policy.grpc_codes.iter().any(|one| one.number() == code),
    }
}

/// The pause before the attempt after `made` ones: exponential with full jitter, so that callers that
/// failed together do not come back together.
pub(crate) fn pause(backoff: &Backoff, made: u32, random: &mut impl Rng) -> Duration {
    wait(backoff.base, backoff.max, Spread::Zero, made, random)
}

/// What a response says about sending its request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Nothing.
    None,
    /// No application has seen it.
    Safe,
    /// It shall not be sent again.
    Never,
    /// It may be, after this time and not before.
    After(Duration),
}

impl Word {
    /// Reads the fields of a response head.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if let Some(mark) = headers.get(WEFT_RETRY) {
            return if *mark == SAFE {
                Self::Safe
            } else {
                Self::Never
            };
        }
        match headers.get(GRPC_PUSHBACK) {
            None => retry_after(headers).map_or(Self::None, Self::After),
            // gRFC A6: a value that is negative or no number means not to retry.
            Some(value) => value
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .map_or(Self::Never, |ms| Self::After(Duration::from_millis(ms))),
        }
    }
}

/// An attempt that went wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setback {
    /// How.
    pub(crate) trouble: Trouble,
    /// What its response says about it.
    pub(crate) word: Word,
    /// Of the request.
    pub(crate) facts: Facts,
    /// Time before the deadline, if there is one.
    pub(crate) left: Option<Duration>,
}

/// The attempts of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    made: u32,
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

impl Attempts {
    /// One more is being made.
    pub(crate) fn begin(&mut self) {
        self.made = self.made.saturating_add(1);
    }

    /// So many were made.
    pub(crate) fn made(self) -> u32 {
        self.made
    }

    /// Whether one more may follow that which was begun last.
    pub(crate) fn may_go_on(self, policy: &Retry) -> bool {
        self.made <= policy.attempts
    }

    /// Judges one that went wrong. `spend` takes from the budget and is asked last.
    pub(crate) fn next(
        self,
        policy: &Retry,
        setback: &Setback,
        spend: impl FnOnce() -> bool,
        random: &mut impl Rng,
    ) -> Next {
        let Setback {
            trouble,
            word,
            facts,
            left,
        } = *setback;
        let trouble = match word {
            Word::Safe => Trouble::Unprocessed,
            Word::None | Word::Never | Word::After(_) => trouble,
        };
        if policy.attempts == 0 || !is_permitted(policy, trouble, facts) {
            return Next::End;
        }
        if !facts.repeatable {
            return Next::Withheld(Why::Body);
        }
        if word == Word::Never {
            return Next::Withheld(Why::Told);
        }
        if !self.may_go_on(policy) {
            return Next::Withheld(Why::Attempts);
        }
        let pause = match (word, trouble) {
            (Word::After(time), _) if policy.respect_retry_after => time,
            // It goes to another endpoint, which has done nothing yet.
            (_, Trouble::NotReached | Trouble::Unprocessed) if self.made == 1 => Duration::ZERO,
            (_, _) => pause(&policy.backoff, self.made, random),
        };
        let in_time = left.is_none_or(|left| pause + limits::ATTEMPT_TIME_MIN < left);
        if !in_time || pause > limits::PUSHBACK_MAX {
            return Next::Withheld(Why::Deadline);
        }
        // An attempt that sent nothing has cost the destination nothing.
        if trouble != Trouble::NotReached && !spend() {
            return Next::Withheld(Why::Budget);
        }
        Next::Again(pause)
    }
}

/// The code in a response's head: of a gRPC response that has nothing else.
pub(crate) fn grpc_code(headers: &HeaderMap) -> Option<u8> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// How long a `Retry-After` field asks to wait (RFC 9110 section 10.2.3). A date is taken against that of the same
/// response: it is the sender's clock that both are of.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let wanted = text(RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(wanted).ok()?;
    let sent = httpdate::parse_http_date(text(DATE)?).ok()?;
    Some(until.duration_since(sent).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use weft_config::table::GrpcCode;

    use super::*;

    /// What is known of a request whose body is at hand.
    fn of(method: &Method) -> Facts {
        Facts {
            idempotent: method.is_idempotent(),
            repeatable: true,
            gamble: false,
        }
    }

    const UNAVAILABLE: Trouble = Trouble::Status(StatusCode::SERVICE_UNAVAILABLE);

    #[test]
    fn what_no_application_has_seen_may_be_sent_again_whatever_its_method() {
        for trouble in [Trouble::NotReached, Trouble::Unprocessed] {
            assert!(is_permitted(&Retry::default(), trouble, of(&Method::POST)));
        }
    }

    #[test]
    fn a_break_is_retried_for_idempotent_methods_only() {
        for trouble in [Trouble::Broken, Trouble::TooSlow] {
            assert!(is_permitted(&Retry::default(), trouble, of(&Method::PUT)));
            assert!(!is_permitted(&Retry::default(), trouble, of(&Method::POST)));
        }
    }

    #[test]
    fn an_answer_of_the_application_is_an_answer_unless_the_policy_says_otherwise() {
        let get = of(&Method::GET);
        let post = of(&Method::POST);
        assert!(!is_permitted(&Retry::default(), UNAVAILABLE, get));
        assert!(!is_permitted(&Retry::default(), Trouble::Grpc(14), post));
        let told = Retry {
            codes: vec![503],
            grpc_codes: vec![GrpcCode::Unavailable],
            ..Retry::default()
        };
        assert!(is_permitted(&told, UNAVAILABLE, get) && !is_permitted(&told, UNAVAILABLE, post));
        // gRPC is always POST.
        assert!(
            is_permitted(&told, Trouble::Grpc(14), post)
                && !is_permitted(&told, Trouble::Grpc(13), post)
        );
        let any = Retry {
            non_idempotent: true,
            ..told
        };
        assert!(is_permitted(&any, UNAVAILABLE, post));
    }

    #[test]
    fn what_failed_because_it_tried_an_endpoint_that_was_out_is_sent_again_if_that_does_no_harm() {
        let gamble = |method| Facts {
            gamble: true,
            ..of(method)
        };
        let permitted = |trouble, method| is_permitted(&Retry::default(), trouble, gamble(method));
        assert!(permitted(UNAVAILABLE, &Method::GET) && !permitted(UNAVAILABLE, &Method::POST));
        assert!(!permitted(
            Trouble::Status(StatusCode::NOT_FOUND),
            &Method::GET
        ));
    }

    fn next(made: u32, trouble: Trouble, word: Word, facts: Facts, left_ms: u64) -> Next {
        let mut random = StdRng::seed_from_u64(1);
        let left = Some(Duration::from_millis(left_ms));
        let attempts = Attempts { made };
        let setback = Setback {
            trouble,
            word,
            facts,
            left,
        };
        attempts.next(&Retry::default(), &setback, || true, &mut random)
    }

    #[test]
    fn what_cannot_be_sent_whole_is_not_sent_again() {
        let half = Facts {
            repeatable: false,
            ..of(&Method::GET)
        };
        let next = next(1, Trouble::Unprocessed, Word::None, half, 1000);
        assert_eq!(next, Next::Withheld(Why::Body));
    }

    #[test]
    fn two_more_attempts_are_made_the_first_at_once_where_nobody_saw_the_request() {
        let get = of(&Method::GET);
        let again = |made, trouble| next(made, trouble, Word::None, get, 1000);
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
        let get = of(&Method::GET);
        let broken = next(1, Trouble::Broken, Word::Never, get, 1000);
        assert_eq!(broken, Next::Withheld(Why::Told));
        let post = of(&Method::POST);
        let safe = next(1, UNAVAILABLE, Word::Safe, post, 1000);
        assert_eq!(safe, Next::Again(Duration::ZERO));
    }

    #[test]
    fn a_response_that_asks_to_wait_is_obeyed_if_there_is_time() {
        let policy = Retry {
            codes: vec![503],
            ..Retry::default()
        };
        let mut random = StdRng::seed_from_u64(1);
        let mut after = |ms, left: Option<u64>| {
            let setback = Setback {
                trouble: UNAVAILABLE,
                word: Word::After(Duration::from_millis(ms)),
                facts: of(&Method::GET),
                left: left.map(Duration::from_millis),
            };
            Attempts { made: 1 }.next(&policy, &setback, || true, &mut random)
        };
        assert_eq!(after(40, Some(100)), Next::Again(Duration::from_millis(40)));
        assert_eq!(after(100, Some(100)), Next::Withheld(Why::Deadline));
        assert_eq!(after(11_000, None), Next::Withheld(Why::Deadline));
    }

    #[test]
    fn the_budget_is_asked_last_and_not_for_what_was_never_sent() {
        let mut random = StdRng::seed_from_u64(1);
        let mut broke = |trouble| {
            let setback = Setback {
                trouble,
                word: Word::None,
                facts: of(&Method::GET),
                left: None,
            };
            Attempts { made: 1 }.next(&Retry::default(), &setback, || false, &mut random)
        };
        assert_eq!(broke(Trouble::Unprocessed), Next::Withheld(Why::Budget));
        assert_eq!(broke(Trouble::NotReached), Next::Again(Duration::ZERO));
        assert_eq!(broke(UNAVAILABLE), Next::End);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread_from_zero() {
        let mut random = StdRng::seed_from_u64(1);
        for (made, longest) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (60, 250)] {
            let pauses: Vec<_> = (0..1000)
                .map(|_| pause(&Retry::default().backoff, made, &mut random).as_secs_f64() * 1000.0)
                .collect();
            let most = pauses.iter().copied().fold(0.0, f64::max);
            let least = pauses.iter().copied().fold(f64::MAX, f64::min);
            let longest = f64::from(longest);
            assert!(most <= longest && most > longest * 0.95, "{made}: {most}");
            assert!(least < longest * 0.05, "{made}: {least}");
        }
    }

    #[test]
    fn the_word_of_the_response_is_read_and_doubt_means_no() {
        let word = |name: HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            Word::of(&headers)
        };
        assert_eq!(Word::of(&HeaderMap::new()), Word::None);
        assert_eq!(word(WEFT_RETRY, "safe"), Word::Safe);
        assert_eq!(word(WEFT_RETRY, "spent"), Word::Never);
        assert_eq!(word(WEFT_RETRY, "what"), Word::Never);
        let after = Word::After(Duration::from_millis(40));
        assert_eq!(word(GRPC_PUSHBACK, "40"), after);
        assert_eq!(word(GRPC_PUSHBACK, "-1"), Word::Never);
        assert_eq!(word(GRPC_PUSHBACK, "soon"), Word::Never);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_senders_own_clock() {
        let wait = |after: &'static str, date: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(after));
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_static(date));
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let sent = Some("Sun, 06 Nov 1994 08:49:07 GMT");
        assert_eq!(wait(" 120 ", None), Some(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", sent), Some(30));
        assert_eq!(wait("Sunday, 06-Nov-94 08:49:37 GMT", sent), Some(30));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:00 GMT", sent), Some(0));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", None), None);
        assert_eq!(wait("soon", sent), None);
    }
}

//! Whether a request that went wrong is sent once more, and when. Pure.
//!
//! What may be sent again is decided by what is known: what no application can have seen always may;
//! what may have been seen only if seeing it twice does no harm, or if the policy says so. How often, and
//! whether there are means for it, is the question of [`super::attempts`].

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rand::Rng;
use weft_config::table::{Backoff, Retry};
use weft_transport::backoff::{Spread, wait};

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

/// The pause before the attempt after `made` ones: exponential with full jitter on top of the least, so that callers that
/// failed together do not come back together.
pub(crate) fn pause(backoff: &Backoff, made: u32, random: &mut impl Rng) -> Duration {
    let drawn = wait(backoff.base, backoff.max, Spread::Zero, made, random);
    backoff.at_least.saturating_add(drawn)
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

/// UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS: not the caller's fault.
pub(crate) fn is_grpc_failure(code: u8) -> bool {
    matches!(code, 2 | 4 | 13 | 14 | 15)
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
    fn the_least_pause_is_that_of_the_route_and_spread_goes_up_from_there() {
        let backoff = Backoff {
            at_least: Duration::from_millis(200),
            ..Retry::default().backoff
        };
        let mut random = StdRng::seed_from_u64(1);
        for made in [1, 2, 3, 60] {
            for _ in 0..1000 {
                let pause = pause(&backoff, made, &mut random);
                assert!(pause >= backoff.at_least, "X31: {pause:?} after {made}");
                assert!(pause <= backoff.at_least + backoff.max, "{pause:?}");
            }
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

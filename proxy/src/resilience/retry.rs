//! Whether a failed request is sent again, and when. Pure.
//!
//! A request that no application can have seen may always be sent again. A request that an application may
//! have seen may be sent again only if processing it twice does no harm, or if the policy allows it.
//! [`super::attempts`] decides how often, and whether the budget pays for it.

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rand::Rng;
use weft_config::table::{Backoff, Retry};
use weft_transport::backoff::{Spread, wait};

/// On a response: what the mesh knows about sending the request again. `safe`: no application has seen it.
/// `spent`: a sidecar farther along has tried several times, so that more attempts would only multiply.
pub(crate) const WEFT_RETRY: HeaderName = HeaderName::from_static("weft-retry");
/// See [`WEFT_RETRY`].
pub(crate) const SAFE: HeaderValue = HeaderValue::from_static("safe");
/// See [`WEFT_RETRY`].
pub(crate) const SPENT: HeaderValue = HeaderValue::from_static("spent");

/// The field in which a gRPC call carries its status.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The gRPC code for a deadline that has passed.
pub(crate) const DEADLINE_EXCEEDED: u8 = 4;
/// The server's pushback on gRPC retries (gRFC A6).
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// How one attempt went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryCause {
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

impl RetryCause {
    /// Whether there was no response: the connection was not there, or ended before one.
    pub(crate) fn is_of_connection(self) -> bool {
        match self {
            Self::NotReached | Self::Broken => true,
            Self::Unprocessed | Self::TooSlow | Self::Status(_) | Self::Grpc(_) => false,
        }
    }
}

/// The facts known about the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Its method may be executed twice (RFC 9110 section 9.2.2).
    pub(crate) idempotent: bool,
    /// All that was sent of its body can be sent again.
    pub(crate) repeatable: bool,
    /// It was sent as a probe to an endpoint that had been out of rotation, so the caller should not suffer
    /// from the result.
    pub(crate) on_trial: bool,
}

/// Whether the policy allows the request to be sent again after an attempt that failed for this cause, if
/// attempts and budget are left.
pub(crate) fn is_permitted(policy: &Retry, cause: RetryCause, facts: Facts) -> bool {
    let harmless = facts.idempotent || policy.non_idempotent;
    match cause {
        RetryCause::NotReached | RetryCause::Unprocessed => true,
        RetryCause::Broken | RetryCause::TooSlow => policy.reset_before_response && harmless,
        RetryCause::Status(status) if facts.on_trial && status.is_server_error() => harmless,
        RetryCause::Status(status) => harmless && policy.codes.contains(&status.as_u16()),
        RetryCause::Grpc(code) => policy.grpc_codes.iter().any(|one| one.number() == code),
    }
}

/// The pause before the attempt after `made` ones: exponential with full jitter on top of the least, so that
/// callers that failed together do not come back together.
pub(crate) fn pause(backoff: &Backoff, made: u32, random: &mut impl Rng) -> Duration {
    let drawn = wait(backoff.base, backoff.max, Spread::Zero, made, random);
    backoff.at_least.saturating_add(drawn)
}

/// What a response advises about sending its request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryAdvice {
    /// Nothing.
    None,
    /// No application has seen it.
    Safe,
    /// It must not be sent again.
    Never,
    /// It may be sent again after this time, and not before.
    After(Duration),
}

impl RetryAdvice {
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
            // gRFC A6: a value that is negative or not a number forbids a retry.
            Some(value) => value
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .map_or(Self::Never, |ms| Self::After(Duration::from_millis(ms))),
        }
    }
}

/// The code in a response's head: of a gRPC response that has only a head.
pub(crate) fn grpc_code(headers: &HeaderMap) -> Option<u8> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// How long a `Retry-After` field asks to wait (RFC 9110 section 10.2.3). A date is compared with the `Date`
/// of the same response, because both are from the sender's clock.
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

    /// The facts about a request whose body is kept.
    fn of(method: &Method) -> Facts {
        Facts {
            idempotent: method.is_idempotent(),
            repeatable: true,
            on_trial: false,
        }
    }

    const UNAVAILABLE: RetryCause = RetryCause::Status(StatusCode::SERVICE_UNAVAILABLE);

    #[test]
    fn what_no_application_has_seen_may_be_sent_again_whatever_its_method() {
        for cause in [RetryCause::NotReached, RetryCause::Unprocessed] {
            assert!(is_permitted(&Retry::default(), cause, of(&Method::POST)));
        }
    }

    #[test]
    fn a_break_is_retried_for_idempotent_methods_only() {
        for cause in [RetryCause::Broken, RetryCause::TooSlow] {
            assert!(is_permitted(&Retry::default(), cause, of(&Method::PUT)));
            assert!(!is_permitted(&Retry::default(), cause, of(&Method::POST)));
        }
    }

    #[test]
    fn an_answer_of_the_application_is_an_answer_unless_the_policy_says_otherwise() {
        let get = of(&Method::GET);
        let post = of(&Method::POST);
        assert!(!is_permitted(&Retry::default(), UNAVAILABLE, get));
        assert!(!is_permitted(&Retry::default(), RetryCause::Grpc(14), post));
        let told = Retry {
            codes: vec![503],
            grpc_codes: vec![GrpcCode::Unavailable],
            ..Retry::default()
        };
        assert!(is_permitted(&told, UNAVAILABLE, get) && !is_permitted(&told, UNAVAILABLE, post));
        // gRPC is always POST.
        assert!(
            is_permitted(&told, RetryCause::Grpc(14), post)
                && !is_permitted(&told, RetryCause::Grpc(13), post)
        );
        let any = Retry {
            non_idempotent: true,
            ..told
        };
        assert!(is_permitted(&any, UNAVAILABLE, post));
    }

    #[test]
    fn what_failed_because_it_tried_an_endpoint_that_was_out_is_sent_again_if_that_does_no_harm() {
        let on_trial = |method| Facts {
            on_trial: true,
            ..of(method)
        };
        let permitted = |cause, method| is_permitted(&Retry::default(), cause, on_trial(method));
        assert!(permitted(UNAVAILABLE, &Method::GET) && !permitted(UNAVAILABLE, &Method::POST));
        assert!(!permitted(
            RetryCause::Status(StatusCode::NOT_FOUND),
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
    fn the_advice_of_the_response_is_read_and_what_is_unclear_forbids_a_retry() {
        let advice = |name: HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            RetryAdvice::of(&headers)
        };
        assert_eq!(RetryAdvice::of(&HeaderMap::new()), RetryAdvice::None);
        assert_eq!(advice(WEFT_RETRY, "safe"), RetryAdvice::Safe);
        assert_eq!(advice(WEFT_RETRY, "spent"), RetryAdvice::Never);
        assert_eq!(advice(WEFT_RETRY, "what"), RetryAdvice::Never);
        let after = RetryAdvice::After(Duration::from_millis(40));
        assert_eq!(advice(GRPC_PUSHBACK, "40"), after);
        assert_eq!(advice(GRPC_PUSHBACK, "-1"), RetryAdvice::Never);
        assert_eq!(advice(GRPC_PUSHBACK, "soon"), RetryAdvice::Never);
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

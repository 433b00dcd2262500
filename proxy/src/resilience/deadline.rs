//! The time after which the answer to a request is no longer wanted, as HTTP, gRPC and the mesh express it.
//! Pure.
//!
//! One rule for every field, however absurd its value: of several lines the smallest counts; a negative
//! number is 0; a number above [`LONGEST`] is [`LONGEST`], and so is a value that is not a number. A field
//! that is present always sets a deadline, and no deadline is infinite.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Milliseconds that are left; every hop of the mesh that knows a deadline writes it.
pub(crate) const WEFT_DEADLINE: HeaderName = HeaderName::from_static("weft-deadline");
/// The same, of gRPC: up to 8 digits and a unit.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The same, of Envoy: milliseconds.
pub(crate) const ENVOY_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// No deadline is farther away. A caller that allows more than a day does not wait for the answer.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// When one exchange has to be over, as set by its client, by an operator, or by a call farther out: made
/// once, before the first attempt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadline {
    /// When the answer to a request is no longer wanted, or by when a tunnel has to be open, however many
    /// endpoints are tried.
    pub(crate) end: Option<Instant>,
    /// Whether this is the deadline of an answer, which the next hop is told. An open tunnel has no deadline.
    is_of_answer: bool,
    /// When it is over by an operator's setting alone.
    pub(crate) policy: Option<Instant>,
    /// Whether an operator set the time of one attempt, rather than the caller.
    pub(crate) by_policy: bool,
}

impl Deadline {
    /// For a request whose answer is no longer wanted at `end`, and to which an operator allows the time
    /// until `policy`.
    pub(crate) fn of_request(end: Option<Instant>, policy: Option<Instant>) -> Self {
        Self {
            end,
            is_of_answer: true,
            policy,
            by_policy: true,
        }
    }

    /// Of a tunnel that has to be open by then.
    pub(crate) fn of_tunnel(open: Instant) -> Self {
        Self {
            end: Some(open),
            by_policy: true,
            ..Self::default()
        }
    }

    /// When the answer is no longer wanted.
    pub(crate) fn of_answer(&self) -> Option<Instant> {
        self.end.filter(|_| self.is_of_answer)
    }

    /// The time left before it, if there is one: zero when it has passed.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        Some(self.end?.saturating_duration_since(now))
    }

    /// The clock of an attempt that begins now and may take the time that its route's policy allows.
    pub(crate) fn attempt(&self, now: Instant, timeout: Option<Duration>) -> Clock {
        let own = self.end.filter(|_| !self.is_of_answer);
        let attempt = earlier(timeout.map(|timeout| now + timeout), own);
        let policy = earlier(attempt, self.policy).filter(|_| self.by_policy);
        Clock {
            request: self.of_answer(),
            attempt,
            policy,
        }
    }
}

/// The times by which one attempt has to be over: from the pick of an endpoint through the connection and the
/// stream to the head of its response.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// When the answer to the request is no longer wanted.
    pub(crate) request: Option<Instant>,
    /// The end of this attempt alone.
    attempt: Option<Instant>,
    /// The first end that an operator set.
    policy: Option<Instant>,
}

impl Clock {
    /// When the attempt is over.
    pub(crate) fn end(&self) -> Option<Instant> {
        earlier(self.request, self.attempt)
    }

    /// The end, or a time later than any attempt lives.
    pub(crate) fn end_or_never(&self, now: Instant) -> Instant {
        self.end().unwrap_or_else(|| now + LONGEST)
    }

    /// Whether the request has no time left, so that no other attempt has any either.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.request.is_some_and(|request| request <= now)
    }

    /// Whether an operator set the limit that ends the attempt at that time.
    pub(crate) fn ends_by_policy(&self, now: Instant) -> bool {
        self.policy.is_some_and(|policy| policy <= now)
    }
}

/// The time that the fields leave, if any of them sets a limit.
pub(crate) fn said(headers: &HeaderMap) -> Option<Duration> {
    let of = |name: HeaderName, read: fn(&str) -> Option<Duration>| {
        let lines = headers.get_all(name).into_iter();
        lines.map(move |line| {
            line.to_str()
                .ok()
                .and_then(read)
                .unwrap_or(LONGEST)
                .min(LONGEST)
        })
    };
    of(WEFT_DEADLINE, milliseconds)
        .chain(of(ENVOY_TIMEOUT, milliseconds))
        .chain(of(GRPC_TIMEOUT, grpc_timeout))
        .min()
}

/// Writes the time that is left for the next hop: in the mesh's field, and again in the fields that are
/// present.
pub(crate) fn tell(headers: &mut HeaderMap, left: Duration) {
    headers.insert(WEFT_DEADLINE, HeaderValue::from(milliseconds_of(left)));
    tell_present(headers, left);
}

fn milliseconds_of(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

/// The same where the next hop is not of the mesh: in the fields that are present.
pub(crate) fn tell_present(headers: &mut HeaderMap, left: Duration) {
    let ms = milliseconds_of(left);
    if headers.contains_key(ENVOY_TIMEOUT) {
        headers.insert(ENVOY_TIMEOUT, HeaderValue::from(ms));
    }
    if headers.contains_key(GRPC_TIMEOUT) {
        // A day in milliseconds has 8 digits, the most that gRPC allows.
        let text = format!("{ms}m");
        headers.insert(
            GRPC_TIMEOUT,
            HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0m")),
        );
    }
}

/// Whether the next hop is told exactly the time that is left.
pub(crate) fn is_told(headers: &HeaderMap, left: Duration) -> bool {
    let told = headers.get(WEFT_DEADLINE).map(HeaderValue::to_str);
    let told = told.and_then(Result::ok).and_then(milliseconds);
    told.is_some_and(|told| told.as_millis() == left.as_millis())
}

/// The earlier of two deadlines.
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    number(text).map(Duration::from_millis)
}

//= https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
//# Timeout → "grpc-timeout" TimeoutValue TimeoutUnit
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count = number(digits)?;
    Some(match unit {
        "H" => Duration::from_secs(count.saturating_mul(3600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A whole number; one that is too large becomes the largest, a negative one 0.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if negative {
        return Some(0);
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_smallest_of_all_that_is_said_counts() {
        let headers = map(&[
            (&WEFT_DEADLINE, "400"),
            (&WEFT_DEADLINE, "500"),
            (&GRPC_TIMEOUT, "1S"),
            (&ENVOY_TIMEOUT, "300"),
        ]);
        assert_eq!(said(&headers), Some(Duration::from_millis(300)));
        assert_eq!(said(&HeaderMap::new()), None);
    }

    #[test]
    fn every_unit_of_grpc_is_known() {
        for (text, nanos) in [
            ("2H", 7_200_000_000_000),
            ("3M", 180_000_000_000),
            ("4S", 4_000_000_000),
            ("5m", 5_000_000),
            ("6u", 6000),
            ("7n", 7_u64),
        ] {
            let said = said(&map(&[(&GRPC_TIMEOUT, text)]));
            assert_eq!(said, Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn absurd_values_follow_the_rule_and_are_never_infinite() {
        for (text, expected) in [
            ("-5", Duration::ZERO),
            ("0", Duration::ZERO),
            ("99999999999999999999999999", LONGEST),
            ("1e3", LONGEST),
            ("NaN", LONGEST),
            ("", LONGEST),
            ("-", LONGEST),
            ("+5", LONGEST),
            ("5 ms", LONGEST),
            ("infinity", LONGEST),
        ] {
            for name in [WEFT_DEADLINE, ENVOY_TIMEOUT] {
                assert_eq!(said(&map(&[(&name, text)])), Some(expected), "{text:?}");
            }
        }
        for text in ["", "S", "5", "5x", "99999999999999999999H", "-5S", "\u{e4}"] {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_str(text).unwrap());
            let expected = if text == "-5S" {
                Duration::ZERO
            } else {
                LONGEST
            };
            assert_eq!(said(&headers), Some(expected), "{text:?}");
        }
        // A readable line beside an absurd one wins, because it is smaller.
        let doubled = map(&[(&WEFT_DEADLINE, "x"), (&WEFT_DEADLINE, "250")]);
        assert_eq!(said(&doubled), Some(Duration::from_millis(250)));
    }

    #[test]
    fn the_time_left_is_written_in_every_field_that_was_present() {
        let mut headers = map(&[(&GRPC_TIMEOUT, "1H"), (&ENVOY_TIMEOUT, "9999")]);
        assert!(!is_told(&headers, Duration::from_millis(120)));
        tell(&mut headers, Duration::from_millis(120));
        assert!(is_told(&headers, Duration::from_micros(120_400)));
        assert!(!is_told(&headers, Duration::from_millis(119)));
        assert_eq!(headers[WEFT_DEADLINE], "120");
        assert_eq!(headers[GRPC_TIMEOUT], "120m");
        assert_eq!(headers[ENVOY_TIMEOUT], "120");
        tell(&mut headers, LONGEST);
        assert_eq!(headers[GRPC_TIMEOUT], "86400000m");
        let mut silent = HeaderMap::new();
        tell(&mut silent, Duration::from_millis(120));
        assert_eq!(silent.len(), 1);
    }

    #[test]
    fn the_clock_of_an_attempt_ends_with_its_own_time_or_that_of_the_request() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let deadline = Deadline::of_request(Some(now + 3 * second), Some(now + 4 * second));
        let first = deadline.attempt(now, Some(2 * second));
        assert_eq!(first.end(), Some(now + 2 * second));
        assert!(!first.is_over(now + 2 * second) && first.ends_by_policy(now + 2 * second));
        let second_one = deadline.attempt(now + 2 * second, Some(2 * second));
        assert_eq!(second_one.end(), Some(now + 3 * second));
        // The caller set it, whatever the operator would have allowed.
        assert!(second_one.is_over(now + 3 * second));
        assert!(!second_one.ends_by_policy(now + 3 * second));
        assert_eq!(deadline.left(now + 5 * second), Some(Duration::ZERO));
        let overridden = Deadline {
            by_policy: false,
            ..deadline
        };
        let asked_for = overridden.attempt(now, Some(second));
        assert!(!asked_for.ends_by_policy(now + 5 * second));
        let endless = Deadline::default().attempt(now, None);
        assert_eq!((endless.end(), Deadline::default().left(now)), (None, None));
    }

    #[test]
    fn all_attempts_of_a_tunnel_share_one_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let deadline = Deadline::of_tunnel(now + second);
        let late = deadline.attempt(now + second / 2, None);
        assert_eq!(late.end(), Some(now + second));
        assert!(late.ends_by_policy(now + second) && late.request.is_none());
        assert_eq!(deadline.left(now + second / 2), Some(second / 2));
    }
}

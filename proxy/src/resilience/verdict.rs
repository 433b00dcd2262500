//! How an attempt ended, in terms of HTTP, and what follows for its endpoint and for another attempt. One
//! table for requests and tunnels. Pure.
//!
//! Not here: what the errors of the wire mean ([`crate::transport_failure`] and `outbound/attempt.rs`
//! translate them), whether another attempt is made ([`super::attempts`]), and how an endpoint's state
//! changes ([`super::standing`]).

use std::time::Instant;

use http::StatusCode;
use http::response::Parts;

use super::deadline::Clock;
use super::retry::{self, RetryCause};
use super::standing::Outcome;
use crate::limits;

/// How one attempt ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The handshake with the peer may fail, and another endpoint is left.
    Doubtful,
    /// This sidecar has no room for one more peer, or is ending: the peer was not even dialled.
    Undialled,
    /// There is no connection to it.
    Unreached,
    /// The time ran out before there was a connection.
    UnreachedInTime,
    /// The time ran out before there was a stream.
    UnaskedInTime,
    /// It allows no more streams.
    NoRoom,
    /// The connection ended before there was a stream.
    LostUnasked,
    /// It goes away in good order, and has not processed the request.
    Leaving,
    /// It refused the stream unprocessed, because it is overloaded.
    Refused,
    /// It is overloaded, and does not say that it processed nothing.
    Busy,
    /// It broke off before an answer.
    Reset,
    /// The connection ended before an answer.
    Lost,
    /// Its answer breaks HTTP's rules, or is too large.
    Malformed,
    /// It does not acknowledge what it is sent, and the attempt left it: see
    /// [`super::attempts::Rules::leave`].
    Silent,
    /// No bytes passed for the idle timeout.
    Stalled,
    /// The time ran out before an answer.
    Late,
    /// Not the endpoint's fault: the caller or this sidecar broke off.
    Own,
}

/// The evidence that an attempt gives about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Nothing.
    Nothing,
    /// The endpoint's state changes by this outcome.
    Outcome(Outcome),
    /// An answer's head came, with this outcome, if it shows one.
    Answered(Option<Outcome>),
    /// The time ran out during a handshake; how long it had decides whether that counts.
    Unreached,
    /// The time ran out before an answer; `by_policy` if an operator set it.
    Late {
        /// See above.
        by_policy: bool,
    },
}

/// What follows from the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// For another attempt: none if it would fail in the same way.
    pub(crate) cause: Option<RetryCause>,
    /// Of the endpoint.
    pub(crate) evidence: Evidence,
}

impl Ending {
    /// Judges. `last`: no other endpoint is left to try, so dialling this one again at once, or waiting for
    /// its streams, would only double the wait.
    pub(crate) fn verdict(self, clock: &Clock, last: bool, at: Instant) -> Verdict {
        let elsewhere = |cause| (!last).then_some(cause);
        let in_time = |cause: Option<RetryCause>| cause.filter(|_| !clock.is_over(at));
        let badly = Evidence::Outcome(Outcome::Badly);
        let busy = Evidence::Outcome(Outcome::Busy(limits::SPARED));
        let (cause, evidence) = match self {
            Self::Own => (None, Evidence::Nothing),
            Self::Doubtful => (Some(RetryCause::NotReached), Evidence::Unreached),
            Self::Undialled => (elsewhere(RetryCause::NotReached), Evidence::Nothing),
            Self::Unreached => (elsewhere(RetryCause::NotReached), badly),
            Self::UnreachedInTime => {
                let cause = in_time(elsewhere(RetryCause::NotReached));
                (cause, Evidence::Unreached)
            }
            Self::UnaskedInTime => {
                let cause = in_time(elsewhere(RetryCause::Unprocessed));
                (cause, Evidence::Nothing)
            }
            Self::NoRoom => (elsewhere(RetryCause::Unprocessed), busy),
            Self::LostUnasked => (Some(RetryCause::Unprocessed), badly),
            // An endpoint that goes away in good order has not failed.
            Self::Leaving => (Some(RetryCause::Unprocessed), Evidence::Nothing),
            Self::Refused => (Some(RetryCause::Unprocessed), busy),
            Self::Busy => (Some(RetryCause::Broken), busy),
            Self::Reset | Self::Lost | Self::Silent => (Some(RetryCause::Broken), badly),
            Self::Malformed | Self::Stalled => (None, badly),
            Self::Late => {
                let by_policy = clock.ends_by_policy(at);
                (
                    in_time(Some(RetryCause::TooSlow)),
                    Evidence::Late { by_policy },
                )
            }
        };
        Verdict { cause, evidence }
    }

    /// Whether the budget was asked for the next attempt already.
    pub(crate) fn is_paid(self) -> bool {
        self == Self::Silent
    }
}

impl Verdict {
    /// Of the head of a response. `broken`: the far sidecar says that its application broke off before an
    /// answer.
    pub(crate) fn of_response(
        head: &Parts,
        grpc: bool,
        broken: bool,
        clock: &Clock,
        at: Instant,
    ) -> Self {
        let code = retry::grpc_code(&head.headers).filter(|_| grpc);
        let cause = match code {
            Some(code) if code != 0 => Some(RetryCause::Grpc(code)),
            _ if broken => Some(RetryCause::Broken),
            _ if head.status.as_u16() >= 400 => Some(RetryCause::Status(head.status)),
            _ => None,
        };
        let is_near = |end: Instant| end <= at + limits::DEADLINE_SLACK;
        let says_too_late =
            head.status == StatusCode::GATEWAY_TIMEOUT || code == Some(retry::DEADLINE_EXCEEDED);
        let evidence = if says_too_late && clock.end().is_some_and(is_near) {
            // The deadline that this side sent passed on the other side a moment earlier.
            let by_policy = clock.ends_by_policy(at);
            Evidence::Late { by_policy }
        } else {
            Evidence::Answered(Outcome::of(head, grpc))
        };
        Self { cause, evidence }
    }

    /// For the head of an answer to CONNECT. `is_unprocessed`: the peer says that its application was not
    /// reached, so that another endpoint's may be up, and no byte was taken yet.
    pub(crate) fn of_connect(head: &Parts, is_unprocessed: bool) -> Self {
        let is_open = head.status.is_success();
        let evidence = match is_open {
            true => Some(Outcome::Well),
            false => Outcome::of(head, false),
        };
        Self {
            cause: (!is_open && is_unprocessed).then_some(RetryCause::Unprocessed),
            evidence: Evidence::Answered(evidence),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resilience::deadline::Deadline;

    const BADLY: Evidence = Evidence::Outcome(Outcome::Badly);
    const BUSY: Evidence = Evidence::Outcome(Outcome::Busy(limits::SPARED));

    #[test]
    fn every_ending_has_one_verdict() {
        let late = Evidence::Late { by_policy: false };
        for (ending, cause, of_last, evidence) in [
            (
                Ending::Doubtful,
                Some(RetryCause::NotReached),
                Some(RetryCause::NotReached),
                Evidence::Unreached,
            ),
            (
                Ending::Undialled,
                Some(RetryCause::NotReached),
                None,
                Evidence::Nothing,
            ),
            (Ending::Unreached, Some(RetryCause::NotReached), None, BADLY),
            (
                Ending::UnreachedInTime,
                Some(RetryCause::NotReached),
                None,
                Evidence::Unreached,
            ),
            (
                Ending::UnaskedInTime,
                Some(RetryCause::Unprocessed),
                None,
                Evidence::Nothing,
            ),
            (Ending::NoRoom, Some(RetryCause::Unprocessed), None, BUSY),
            (
                Ending::LostUnasked,
                Some(RetryCause::Unprocessed),
                Some(RetryCause::Unprocessed),
                BADLY,
            ),
            (
                Ending::Leaving,
                Some(RetryCause::Unprocessed),
                Some(RetryCause::Unprocessed),
                Evidence::Nothing,
            ),
            (
                Ending::Refused,
                Some(RetryCause::Unprocessed),
                Some(RetryCause::Unprocessed),
                BUSY,
            ),
            (
                Ending::Busy,
                Some(RetryCause::Broken),
                Some(RetryCause::Broken),
                BUSY,
            ),
            (
                Ending::Reset,
                Some(RetryCause::Broken),
                Some(RetryCause::Broken),
                BADLY,
            ),
            (
                Ending::Lost,
                Some(RetryCause::Broken),
                Some(RetryCause::Broken),
                BADLY,
            ),
            (
                Ending::Silent,
                Some(RetryCause::Broken),
                Some(RetryCause::Broken),
                BADLY,
            ),
            (Ending::Malformed, None, None, BADLY),
            (Ending::Stalled, None, None, BADLY),
            (
                Ending::Late,
                Some(RetryCause::TooSlow),
                Some(RetryCause::TooSlow),
                late,
            ),
            (Ending::Own, None, None, Evidence::Nothing),
        ] {
            let now = Instant::now();
            let clock = Clock::default();
            let one = ending.verdict(&clock, false, now);
            assert_eq!(one, Verdict { cause, evidence }, "{ending:?}");
            let last = ending.verdict(&clock, true, now);
            let cause = of_last;
            assert_eq!(last, Verdict { cause, evidence }, "{ending:?}, the last");
        }
    }

    #[test]
    fn once_the_request_has_no_time_left_no_other_attempt_fares_better() {
        let now = Instant::now();
        let deadline = Deadline::of_request(Some(now), None);
        let clock = deadline.attempt(now, None);
        for ending in [Ending::UnreachedInTime, Ending::UnaskedInTime, Ending::Late] {
            assert_eq!(ending.verdict(&clock, false, now).cause, None);
        }
    }

    fn head(status: u16, grpc_status: Option<&'static str>) -> Parts {
        let mut response = http::Response::builder().status(status);
        if let Some(code) = grpc_status {
            response = response.header(retry::GRPC_STATUS, code);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn an_answer_that_says_too_late_near_the_deadline_tells_of_the_deadline() {
        let now = Instant::now();
        let deadline = Deadline::of_request(None, Some(now));
        let near = deadline.attempt(now, Some(Duration::from_millis(5)));
        let of = |head: &Parts, grpc, clock: &Clock| {
            let verdict = Verdict::of_response(head, grpc, false, clock, now);
            verdict.evidence
        };
        let late = Evidence::Late { by_policy: true };
        assert_eq!(of(&head(504, None), false, &near), late);
        assert_eq!(of(&head(200, Some("4")), true, &near), late);
        let badly = Evidence::Answered(Some(Outcome::Badly));
        assert_eq!(of(&head(503, None), false, &near), badly);
        assert_eq!(of(&head(504, None), false, &Clock::default()), badly);
    }

    #[test]
    fn the_cause_to_retry_is_the_grpc_code_or_the_status_of_the_answer() {
        let cause = |head: &Parts, grpc| {
            let (clock, now) = (Clock::default(), Instant::now());
            Verdict::of_response(head, grpc, false, &clock, now).cause
        };
        let broken = |grpc| {
            let (clock, now) = (Clock::default(), Instant::now());
            let head = head(502, grpc);
            Verdict::of_response(&head, grpc.is_some(), true, &clock, now).cause
        };
        assert_eq!(broken(None), Some(RetryCause::Broken));
        assert_eq!(broken(Some("14")), Some(RetryCause::Grpc(14)));
        assert_eq!(cause(&head(200, None), false), None);
        assert_eq!(cause(&head(200, Some("14")), false), None);
        assert_eq!(cause(&head(200, Some("0")), true), None);
        assert_eq!(
            cause(&head(200, Some("14")), true),
            Some(RetryCause::Grpc(14))
        );
        let teapot = StatusCode::IM_A_TEAPOT;
        assert_eq!(
            cause(&head(418, None), true),
            Some(RetryCause::Status(teapot))
        );
    }

    #[test]
    fn a_tunnel_that_is_refused_goes_elsewhere_only_if_no_application_was_reached() {
        let open = Verdict::of_connect(&head(200, None), true);
        assert_eq!(open.cause, None);
        assert_eq!(open.evidence, Evidence::Answered(Some(Outcome::Well)));
        let down = Verdict::of_connect(&head(502, None), true);
        assert_eq!(down.cause, Some(RetryCause::Unprocessed));
        assert_eq!(down.evidence, Evidence::Answered(Some(Outcome::Badly)));
        let denied = Verdict::of_connect(&head(403, None), false);
        assert_eq!(denied.cause, None);
        assert_eq!(denied.evidence, Evidence::Answered(Some(Outcome::Well)));
    }
}

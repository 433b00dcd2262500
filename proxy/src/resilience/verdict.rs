//! How an attempt ended, in words of HTTP, and what that says: of the endpoint, and of another attempt.
//! One table for requests and tunnels. Pure.
//!
//! Not here: what the wire says ([`crate::mesh`] and `outbound/attempt.rs` translate its errors), whether another
//! attempt is made ([`super::attempts`]), and what becomes of an endpoint ([`super::standing`]).

use std::time::Instant;

use http::StatusCode;
use http::response::Parts;

use super::deadline::Clock;
use super::retry::{self, Trouble};
use super::standing::Outcome;
use crate::limits;

/// How one attempt ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The handshake with the peer is in doubt, and another endpoint is left.
    Doubtful,
    /// This sidecar has no room for one more peer, or ends: it was not even dialled.
    Undialled,
    /// There is no connection to it.
    Unreached,
    /// The time was over before there was a connection.
    UnreachedInTime,
    /// The time was over before there was a stream.
    UnaskedInTime,
    /// It allows no more streams.
    NoRoom,
    /// The connection ended before there was a stream.
    LostUnasked,
    /// It goes away in good order, and has not processed the request.
    Leaving,
    /// It refused the stream unprocessed, as it has too much to do.
    Refused,
    /// It has too much to do, and does not say that it processed nothing.
    Busy,
    /// It broke off before an answer.
    Reset,
    /// The connection ended before an answer.
    Lost,
    /// What it answered breaks HTTP's rules, or is too large.
    Malformed,
    /// It does not acknowledge what it is sent, and the attempt left it: see [`super::attempts::Rules::leave`].
    Silent,
    /// Nothing moved for the idle timeout.
    Stalled,
    /// The time was over before an answer.
    Late,
    /// Not the endpoint's doing: the caller or this sidecar broke off.
    Own,
}

/// What an attempt says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Nothing.
    Nothing,
    /// So much.
    Outcome(Outcome),
    /// An answer's head came, and says so much, if it does.
    Answered(Option<Outcome>),
    /// The time for a handshake was over, whose length decides.
    Unreached,
    /// The time for an answer was over; `by_policy` if an operator set it.
    Late {
        /// See above.
        by_policy: bool,
    },
}

/// What follows from the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Of another attempt: none where that would fare no better.
    pub(crate) trouble: Option<Trouble>,
    /// Of the endpoint.
    pub(crate) says: Says,
}

impl Ending {
    /// Judges. `last`: no other endpoint is left to try, so that dialling this one again at once, or waiting for its
    /// streams, would only double the wait.
    pub(crate) fn verdict(self, clock: &Clock, last: bool, at: Instant) -> Verdict {
        let elsewhere = |trouble| (!last).then_some(trouble);
        let in_time = |trouble: Option<Trouble>| trouble.filter(|_| !clock.is_over(at));
        let badly = Says::Outcome(Outcome::Badly);
        let busy = Says::Outcome(Outcome::Busy(limits::SPARED));
        let (trouble, says) = match self {
            Self::Own => (None, Says::Nothing),
            Self::Doubtful => (Some(Trouble::NotReached), Says::Unreached),
            Self::Undialled => (elsewhere(Trouble::NotReached), Says::Nothing),
            Self::Unreached => (elsewhere(Trouble::NotReached), badly),
            Self::UnreachedInTime => {
                let trouble = in_time(elsewhere(Trouble::NotReached));
                (trouble, Says::Unreached)
            }
            Self::UnaskedInTime => {
                let trouble = in_time(elsewhere(Trouble::Unprocessed));
                (trouble, Says::Nothing)
            }
            Self::NoRoom => (elsewhere(Trouble::Unprocessed), busy),
            Self::LostUnasked => (Some(Trouble::Unprocessed), badly),
            // One that goes away in good order is not ill.
            Self::Leaving => (Some(Trouble::Unprocessed), Says::Nothing),
            Self::Refused => (Some(Trouble::Unprocessed), busy),
            Self::Busy => (Some(Trouble::Broken), busy),
            Self::Reset | Self::Lost | Self::Silent => (Some(Trouble::Broken), badly),
            Self::Malformed | Self::Stalled => (None, badly),
            Self::Late => {
                let by_policy = clock.ends_by_policy(at);
                (in_time(Some(Trouble::TooSlow)), Says::Late { by_policy })
            }
        };
        Verdict { trouble, says }
    }

    /// Whether the budget was asked for the next attempt already.
    pub(crate) fn is_paid(self) -> bool {
        self == Self::Silent
    }
}

impl Verdict {
    /// Of the head of a response. `broken`: the far sidecar says that its application broke off before an answer.
    pub(crate) fn of_response(
        head: &Parts,
        grpc: bool,
        broken: bool,
        clock: &Clock,
        at: Instant,
    ) -> Self {
        let code = retry::grpc_code(&head.headers).filter(|_| grpc);
        let trouble = match code {
            Some(code) if code != 0 => Some(Trouble::Grpc(code)),
            _ if broken => Some(Trouble::Broken),
            _ if head.status.as_u16() >= 400 => Some(Trouble::Status(head.status)),
            _ => None,
        };
        let is_near = |end: Instant| end <= at + limits::DEADLINE_SLACK;
        let says_too_late =
            head.status == StatusCode::GATEWAY_TIMEOUT || code == Some(retry::DEADLINE_EXCEEDED);
        let says = if says_too_late && clock.end().is_some_and(is_near) {
            // The deadline that this side told has passed on the other one a moment before.
            let by_policy = clock.ends_by_policy(at);
            Says::Late { by_policy }
        } else {
            Says::Answered(Outcome::of(head, grpc))
        };
        Self { trouble, says }
    }

    /// Of the head of an answer to CONNECT. `is_unprocessed`: the peer says that its application was not reached, so
    /// that another one's may be up, and no byte was taken yet.
    pub(crate) fn of_connect(head: &Parts, is_unprocessed: bool) -> Self {
        let is_open = head.status.is_success();
        let says = match is_open {
            true => Some(Outcome::Well),
            false => Outcome::of(head, false),
        };
        Self {
            trouble: (!is_open && is_unprocessed).then_some(Trouble::Unprocessed),
            says: Says::Answered(says),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resilience::deadline::Deadline;

    const BADLY: Says = Says::Outcome(Outcome::Badly);
    const BUSY: Says = Says::Outcome(Outcome::Busy(limits::SPARED));

    #[test]
    fn every_ending_has_one_verdict() {
        let late = Says::Late { by_policy: false };
        for (ending, trouble, of_last, says) in [
            (
                Ending::Doubtful,
                Some(Trouble::NotReached),
                Some(Trouble::NotReached),
                Says::Unreached,
            ),
            (
                Ending::Undialled,
                Some(Trouble::NotReached),
                None,
                Says::Nothing,
            ),
            (Ending::Unreached, Some(Trouble::NotReached), None, BADLY),
            (
                Ending::UnreachedInTime,
                Some(Trouble::NotReached),
                None,
                Says::Unreached,
            ),
            (
                Ending::UnaskedInTime,
                Some(Trouble::Unprocessed),
                None,
                Says::Nothing,
            ),
            (Ending::NoRoom, Some(Trouble::Unprocessed), None, BUSY),
            (
                Ending::LostUnasked,
                Some(Trouble::Unprocessed),
                Some(Trouble::Unprocessed),
                BADLY,
            ),
            (
                Ending::Leaving,
                Some(Trouble::Unprocessed),
                Some(Trouble::Unprocessed),
                Says::Nothing,
            ),
            (
                Ending::Refused,
                Some(Trouble::Unprocessed),
                Some(Trouble::Unprocessed),
                BUSY,
            ),
            (
                Ending::Busy,
                Some(Trouble::Broken),
                Some(Trouble::Broken),
                BUSY,
            ),
            (
                Ending::Reset,
                Some(Trouble::Broken),
                Some(Trouble::Broken),
                BADLY,
            ),
            (
                Ending::Lost,
                Some(Trouble::Broken),
                Some(Trouble::Broken),
                BADLY,
            ),
            (
                Ending::Silent,
                Some(Trouble::Broken),
                Some(Trouble::Broken),
                BADLY,
            ),
            (Ending::Malformed, None, None, BADLY),
            (Ending::Stalled, None, None, BADLY),
            (
                Ending::Late,
                Some(Trouble::TooSlow),
                Some(Trouble::TooSlow),
                late,
            ),
            (Ending::Own, None, None, Says::Nothing),
        ] {
            let now = Instant::now();
            let clock = Clock::default();
            let one = ending.verdict(&clock, false, now);
            assert_eq!(one, Verdict { trouble, says }, "{ending:?}");
            let last = ending.verdict(&clock, true, now);
            let trouble = of_last;
            assert_eq!(last, Verdict { trouble, says }, "{ending:?}, the last");
        }
    }

    #[test]
    fn once_the_request_has_no_time_left_no_other_attempt_fares_better() {
        let now = Instant::now();
        let deadline = Deadline::of_request(Some(now), None);
        let clock = deadline.attempt(now, None);
        for ending in [Ending::UnreachedInTime, Ending::UnaskedInTime, Ending::Late] {
            assert_eq!(ending.verdict(&clock, false, now).trouble, None);
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
            verdict.says
        };
        let late = Says::Late { by_policy: true };
        assert_eq!(of(&head(504, None), false, &near), late);
        assert_eq!(of(&head(200, Some("4")), true, &near), late);
        let badly = Says::Answered(Some(Outcome::Badly));
        assert_eq!(of(&head(503, None), false, &near), badly);
        assert_eq!(of(&head(504, None), false, &Clock::default()), badly);
    }

    #[test]
    fn the_trouble_of_an_answer_is_its_code_or_its_status() {
        let trouble = |head: &Parts, grpc| {
            let (clock, now) = (Clock::default(), Instant::now());
            Verdict::of_response(head, grpc, false, &clock, now).trouble
        };
        let broken = |grpc| {
            let (clock, now) = (Clock::default(), Instant::now());
            let head = head(502, grpc);
            Verdict::of_response(&head, grpc.is_some(), true, &clock, now).trouble
        };
        assert_eq!(broken(None), Some(Trouble::Broken));
        assert_eq!(broken(Some("14")), Some(Trouble::Grpc(14)));
        assert_eq!(trouble(&head(200, None), false), None);
        assert_eq!(trouble(&head(200, Some("14")), false), None);
        assert_eq!(trouble(&head(200, Some("0")), true), None);
        assert_eq!(
            trouble(&head(200, Some("14")), true),
            Some(Trouble::Grpc(14))
        );
        let teapot = StatusCode::IM_A_TEAPOT;
        assert_eq!(
            trouble(&head(418, None), true),
            Some(Trouble::Status(teapot))
        );
    }

    #[test]
    fn a_tunnel_that_is_refused_goes_elsewhere_only_if_no_application_was_reached() {
        let open = Verdict::of_connect(&head(200, None), true);
        assert_eq!(open.trouble, None);
        assert_eq!(open.says, Says::Answered(Some(Outcome::Well)));
        let down = Verdict::of_connect(&head(502, None), true);
        assert_eq!(down.trouble, Some(Trouble::Unprocessed));
        assert_eq!(down.says, Says::Answered(Some(Outcome::Badly)));
        let denied = Verdict::of_connect(&head(403, None), false);
        assert_eq!(denied.trouble, None);
        assert_eq!(denied.says, Says::Answered(Some(Outcome::Well)));
    }
}

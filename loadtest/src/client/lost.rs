//! Requests that got no answer, and whether they may be sent again. Pure.
//!
//! Not here: sending them again ([`super::Lane::exchange`]).

use crate::sample::ErrorKind;

/// A request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The server has not processed it, or processing it twice does no harm: it may be sent again.
    Unprocessed(ErrorKind),
    /// The request failed and is not sent again.
    Final(ErrorKind),
}

impl Lost {
    /// The failure of an attempt; the server may have said that it did not process it.
    pub(super) fn of(kind: ErrorKind, unprocessed: bool) -> Self {
        if unprocessed {
            Self::Unprocessed(kind)
        } else {
            Self::Final(kind)
        }
    }
}

impl From<ErrorKind> for Lost {
    fn from(kind: ErrorKind) -> Self {
        Self::Final(kind)
    }
}

/// A connection of HTTP/1.1 that ended without a byte of the answer. A server closes idle connections without
/// notice, so a request that meets this on a kept connection is sent again: with any method if none of it was
/// written, otherwise if it is idempotent (RFC 9112 section 9.3.1). On a new connection it is a failure.
pub(super) fn without_answer(kind: ErrorKind, end: Unanswered) -> Lost {
    let is_end = matches!(kind, ErrorKind::Closed | ErrorKind::Reset);
    let harmless = end.idempotent || !end.written;
    Lost::of(kind, is_end && end.reused && harmless)
}

/// The facts about a request on such a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered {
    /// The connection had answered before.
    pub(super) reused: bool,
    /// Some of the request had been written.
    pub(super) written: bool,
    /// Twice does what once does.
    pub(super) idempotent: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_on_a_kept_connection_and_where_twice_is_as_once_an_end_without_an_answer_is_no_failure()
    {
        let end = |reused, written, idempotent| Unanswered {
            reused,
            written,
            idempotent,
        };
        for (kind, end, again) in [
            (ErrorKind::Closed, end(true, true, true), true),
            (ErrorKind::Reset, end(true, true, true), true),
            (ErrorKind::Closed, end(true, false, false), true),
            (ErrorKind::Closed, end(true, true, false), false),
            (ErrorKind::Closed, end(false, true, true), false),
            (ErrorKind::Closed, end(false, false, true), false),
            (ErrorKind::Tls, end(true, true, true), false),
            (ErrorKind::Protocol, end(true, true, true), false),
        ] {
            assert_eq!(
                without_answer(kind, end),
                Lost::of(kind, again),
                "{kind:?} {end:?}"
            );
        }
    }
}

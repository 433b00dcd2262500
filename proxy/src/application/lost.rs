//! How far an unanswered request got, and which failure its caller gets. Pure.

use std::io;

use h2::Reason as Code;

use crate::failure::{Failure, Reason};

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Lost {
    /// How far the request got.
    pub(super) fate: Fate,
    /// The failure that its caller gets, if it is not sent again.
    pub(super) failure: Failure,
}

/// What the application may have done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing.
    Unprocessed(UnprocessedReason),
    /// It may have processed the request, but sent no byte of an answer before its connection ended.
    Unanswered,
    /// The application may have processed it, or it would fail again in the same way.
    Final,
}

/// How it is known that a request was not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnprocessedReason {
    /// GOAWAY named a lower stream as the last one (RFC 9113 section 6.8).
    GoAway,
    /// Its stream was refused (RFC 9113 section 8.7).
    Refused,
    /// The connection had ended before anything was written.
    Closed,
}

impl Lost {
    /// It would fail again in the same way.
    pub(super) fn end(failure: Failure) -> Self {
        Self {
            fate: Fate::Final,
            failure,
        }
    }

    /// A stream of HTTP/2 that failed before its response began.
    pub(super) fn of_stream(error: &h2::Error) -> Self {
        let fate = fate(error);
        Self {
            fate,
            failure: match fate {
                Fate::Unprocessed(why) => unprocessed(why),
                Fate::Unanswered | Fate::Final => stream_failure(error),
            },
        }
    }

    /// A stream of HTTP/2 that could not be opened: none of it was written.
    pub(super) fn of_opening(error: &h2::Error) -> Self {
        match fate(error) {
            Fate::Unprocessed(why) => Self {
                fate: Fate::Unprocessed(why),
                failure: unprocessed(why),
            },
            Fate::Unanswered => Self {
                fate: Fate::Unprocessed(UnprocessedReason::Closed),
                failure: unprocessed(UnprocessedReason::Closed),
            },
            Fate::Final => Self::end(stream_failure(error)),
        }
    }

    /// An exchange of HTTP/1.1 that failed before its response began. `unsent`: hyper gave the request back.
    /// `reused`: its connection had answered before, and so may have been closed for being idle.
    pub(super) fn of_exchange(error: &hyper::Error, unsent: bool, reused: bool) -> Self {
        if unsent {
            return Self {
                fate: Fate::Unprocessed(UnprocessedReason::Closed),
                failure: unprocessed(UnprocessedReason::Closed),
            };
        }
        Self {
            fate: if reused && was_reset(error) {
                Fate::Unanswered
            } else {
                Fate::Final
            },
            failure: exchange_failure(error),
        }
    }
}

fn fate(error: &h2::Error) -> Fate {
    let refused = error.reason() == Some(Code::REFUSED_STREAM);
    if error.is_remote() && error.is_go_away() {
        // h2 gives this error only to streams that GOAWAY reports as not processed.
        Fate::Unprocessed(UnprocessedReason::GoAway)
    } else if error.is_remote() && error.is_reset() && refused {
        Fate::Unprocessed(UnprocessedReason::Refused)
    } else if error.is_io() {
        Fate::Unanswered
    } else {
        Fate::Final
    }
}

fn unprocessed(why: UnprocessedReason) -> Failure {
    let detail = match why {
        UnprocessedReason::GoAway => "the application ended one connection after the other",
        UnprocessedReason::Refused => "the application refused the stream",
        UnprocessedReason::Closed => {
            "the application closed its connection before the request was sent"
        }
    };
    Failure::new(Reason::ConnectionRefused, detail)
}

/// What an error of HTTP/2 tells about the application.
pub(super) fn stream_failure(error: &h2::Error) -> Failure {
    let detail = format!("the application: {error}");
    let reason = match error.reason() {
        Some(code) if error.is_remote() && error.is_reset() => Reason::StreamReset {
            grpc: grpc_code(code),
        },
        _ if error.is_library() => Reason::ResponseMalformed,
        _ if error.is_io() || error.is_remote() => Reason::ConnectionTerminated,
        _ => Reason::Internal,
    };
    Failure::new(reason, detail)
}

/// The gRPC code of a stream that was reset ("gRPC over HTTP2", section "HTTP2 Transport Mapping", "Errors").
fn grpc_code(code: Code) -> u8 {
    match code {
        Code::REFUSED_STREAM => 14,
        Code::CANCEL => 1,
        Code::ENHANCE_YOUR_CALM => 8,
        Code::INADEQUATE_SECURITY => 7,
        _ => 13,
    }
}

/// The connection ended before any part of a response.
fn was_reset(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || io.is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionAborted
            )
        })
}

/// What hyper's error tells about the application.
pub(super) fn exchange_failure(error: &hyper::Error) -> Failure {
    let reason = if error.is_parse_too_large() {
        Reason::ResponseHeadTooLarge
    } else if error.is_parse() {
        Reason::ResponseMalformed
    } else if error.is_timeout() {
        Reason::ResponseTimeout
    } else if error.is_user() {
        // The body that the sidecar sent broke off: the caller went away.
        Reason::CallerGone
    } else {
        Reason::ConnectionTerminated
    };
    Failure::new(reason, format!("the application: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_http2_are_those_that_grpc_says() {
        for (code, grpc) in [
            (Code::NO_ERROR, 13),
            (Code::PROTOCOL_ERROR, 13),
            (Code::INTERNAL_ERROR, 13),
            (Code::FLOW_CONTROL_ERROR, 13),
            (Code::FRAME_SIZE_ERROR, 13),
            (Code::REFUSED_STREAM, 14),
            (Code::CANCEL, 1),
            (Code::COMPRESSION_ERROR, 13),
            (Code::CONNECT_ERROR, 13),
            (Code::ENHANCE_YOUR_CALM, 8),
            (Code::INADEQUATE_SECURITY, 7),
        ] {
            assert_eq!(grpc_code(code), grpc, "{code:?}");
        }
    }
}

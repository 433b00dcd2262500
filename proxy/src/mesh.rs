//! What errors of the transport mean to a caller. Pure.

use weft_transport::endpoint::DialError;
use weft_transport::http3::{ConnectionError, ErrorCode, HeadError, OpenError, StreamError};

use crate::failure::{Failure, Reason};

/// The peer was not reached; it has seen nothing.
pub(crate) fn dial_failure(error: &DialError) -> Failure {
    let reason = match error {
        DialError::Timeout(_) | DialError::Doubtful(_) => Reason::ConnectionTimeout,
        DialError::Closed(_) => Reason::ConnectionRefused,
        DialError::Refused { .. } | DialError::WrongIdentity { .. } | DialError::Expired { .. } => {
            Reason::Identity
        }
        DialError::Local { .. } => Reason::ConnectionRefused,
        DialError::TooManyPeers => Reason::Overloaded,
        DialError::ShuttingDown => Reason::NotReady,
    };
    Failure::new(reason, error.to_string())
}

/// The request could not be started.
pub(crate) fn open_failure(error: &OpenError) -> Failure {
    let reason = match error {
        OpenError::InvalidHead(HeadError::TooLarge) => Reason::HeadTooLarge,
        OpenError::InvalidHead(_) => Reason::BadRequest,
        OpenError::Draining | OpenError::ConnectionLost(_) | OpenError::Stopped(_) => {
            Reason::ConnectionTerminated
        }
        OpenError::Broken(error) => return stream_failure(error),
    };
    Failure::new(reason, error.to_string())
}

/// The exchange broke.
pub(crate) fn stream_failure(error: &StreamError) -> Failure {
    let reason = match error {
        StreamError::Reset(code) | StreamError::Stopped(code)
            if *code == ErrorCode::H3_EXCESSIVE_LOAD =>
        {
            Reason::Overloaded
        }
        StreamError::ConnectionLost(ConnectionError::TimedOut) => Reason::ResponseTimeout,
        StreamError::Reset(_)
        | StreamError::Stopped(_)
        | StreamError::ConnectionLost(_)
        | StreamError::NotProcessed => Reason::ConnectionTerminated,
        StreamError::GivenUp => Reason::CallerGone,
        StreamError::Malformed(_) => Reason::ResponseMalformed,
        StreamError::TooLarge(_) => Reason::ResponseHeadTooLarge,
        StreamError::Misuse(_) | StreamError::InvalidHead(_) => Reason::Internal,
    };
    Failure::new(reason, error.to_string())
}

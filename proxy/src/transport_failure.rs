//! Translates errors of the transport into the failures that a caller gets. Pure.

use weft_transport::wire::{
    ConnectionError, DialError, HeadError, OpenError, Reason as Why, ReceiveError, SendError,
};

use crate::failure::{Failure, Reason};

/// The peer was not reached; it has seen nothing of the request.
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
    };
    Failure::new(reason, error.to_string())
}

/// The peer's part of the exchange broke.
pub(crate) fn stream_failure(error: &ReceiveError) -> Failure {
    let reason = match error {
        ReceiveError::Busy => Reason::Overloaded,
        ReceiveError::ConnectionLost(error) => lost(error),
        ReceiveError::Unprocessed(_) | ReceiveError::Reset(_) => Reason::ConnectionTerminated,
        ReceiveError::GivenUp => Reason::CallerGone,
        ReceiveError::Malformed(_) => Reason::ResponseMalformed,
        ReceiveError::TooLarge(_) => Reason::ResponseHeadTooLarge,
        ReceiveError::Misuse(_) => Reason::Internal,
    };
    Failure::new(reason, error.to_string())
}

/// Sending to the peer failed.
pub(crate) fn send_failure(error: &SendError) -> Failure {
    let reason = match error {
        SendError::Stopped(Why::Busy) => Reason::Overloaded,
        SendError::Stopped(_) => Reason::ConnectionTerminated,
        SendError::ConnectionLost(error) => lost(error),
        SendError::InvalidHead(_) | SendError::Misuse(_) => Reason::Internal,
    };
    Failure::new(reason, error.to_string())
}

fn lost(error: &ConnectionError) -> Reason {
    match error {
        ConnectionError::TimedOut => Reason::ResponseTimeout,
        ConnectionError::ClosedByPeer(_)
        | ConnectionError::PeerViolation { .. }
        | ConnectionError::ClosedHere
        | ConnectionError::Reset
        | ConnectionError::Transport(_) => Reason::ConnectionTerminated,
    }
}

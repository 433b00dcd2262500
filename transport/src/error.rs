//! Errors between two sidecars, in terms of HTTP, whatever wire carries it.
//!
//! One enum per operation, by direction: [`DialError`] and [`HandshakeError`] (a connection that does not
//! come about), [`OpenError`] (starting a request), [`ReceiveError`] and [`SendError`] (the two halves of an
//! exchange) and [`ConnectionError`] (the whole connection). A [`Reason`] is what one side tells the other
//! when it ends something early. Not here: how a wire encodes it (`http3/code.rs`). Re-exported by
//! [`crate::wire`].

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::identity::SpiffeId;
use crate::limits;

/// Why one side ends an exchange or a connection before its end, as it tells the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No error: a graceful end, or the rest of a request is not needed.
    NoError,
    /// The request was not processed at all: it may be sent again, whatever its method.
    Unprocessed,
    /// The request or its response is no longer wanted.
    Cancelled,
    /// It costs too much.
    Busy,
    /// The request ended before it was complete.
    Incomplete,
    /// The message breaks HTTP's rules.
    Malformed,
    /// The TCP connection of a tunnel broke.
    TunnelBroke,
    /// A fault in the side that sends this reason.
    Internal,
    /// The other side broke a rule of the wire.
    Protocol,
    /// A code for which HTTP has no name. A peer may send codes that this version does not know.
    Other {
        /// The number on the wire.
        code: u64,
        /// The name of the error in the wire's RFC; empty if it has none.
        name: &'static str,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::NoError => "no error",
            Self::Unprocessed => "not processed",
            Self::Cancelled => "no longer wanted",
            Self::Busy => "too much load",
            Self::Incomplete => "the request is incomplete",
            Self::Malformed => "malformed message",
            Self::TunnelBroke => "the connection behind the tunnel broke",
            Self::Internal => "internal error",
            Self::Protocol => "protocol error",
            Self::Other { code, name: "" } => return write!(f, "{code:#x}"),
            Self::Other { name, .. } => name,
        };
        f.write_str(word)
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectionError {
    /// The peer closed it. [`Reason::NoError`] is a graceful end.
    #[error("closed by the peer: {0}")]
    ClosedByPeer(Reason),
    /// This side closed it because the peer broke the protocol.
    #[error("the peer broke the protocol: {reason} ({code})")]
    PeerViolation {
        /// The reason with which this side closed it.
        code: Reason,
        /// The rule that was broken.
        reason: &'static str,
    },
    /// This side closed it by its own decision.
    #[error("closed here")]
    ClosedHere,
    /// The peer was silent for longer than the idle timeout.
    #[error("the peer is silent")]
    TimedOut,
    /// The peer lost its state, usually by a restart.
    #[error("the peer restarted")]
    Reset,
    /// The layer below failed.
    #[error("transport: {0}")]
    Transport(std::sync::Arc<str>),
}

/// How the peer said that it has not processed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unprocessed {
    /// It shuts down in good order.
    #[error("the peer is going away")]
    GoingAway,
    /// It refused this one.
    #[error("the peer refused it")]
    Refused,
}

/// Why no more of a message comes. The connection lives on unless the variant says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReceiveError {
    /// The peer states that it did not process the request: any method may be tried again elsewhere.
    #[error("not processed: {0}")]
    Unprocessed(Unprocessed),
    /// The peer stopped sending because it lacks resources, perhaps after it began to process the request.
    #[error("reset by the peer: too much load")]
    Busy,
    /// The peer stopped sending; bytes that it had sent before may be lost. Never for the two reasons above.
    #[error("reset by the peer: {0}")]
    Reset(Reason),
    /// The peer's message breaks HTTP (RFC 9114 section 4.1.2, RFC 9113 section 8.1.1).
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// The peer's message is over a limit of this side.
    #[error("over the limit: {0}")]
    TooLarge(&'static str),
    /// The connection ended.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// This side gave the stream up: its reader stopped while other streams had no room left.
    #[error("given up: its reader stood still while other streams had to wait")]
    GivenUp,
    /// This side called the half in a wrong way.
    #[error("misuse: {0}")]
    Misuse(&'static str),
}

impl ReceiveError {
    /// The peer stopped sending for that reason.
    pub(crate) fn reset(reason: Reason) -> Self {
        if reason == Reason::Unprocessed {
            Self::Unprocessed(Unprocessed::Refused)
        } else if reason == Reason::Busy {
            Self::Busy
        } else {
            Self::Reset(reason)
        }
    }

    /// Whether the peer states that it did not process the request, so that any method may be tried again
    /// elsewhere.
    ///
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.1
    //# the server has not performed any application processing
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Unprocessed(_))
    }
}

/// Why no more of a message can be sent. The connection lives on unless the variant says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The peer reads no more of what this side sends. A response may still come.
    #[error("stopped by the peer: {0}")]
    Stopped(Reason),
    /// The connection ended.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// HTTP cannot express the head or trailers. Never sent.
    #[error("cannot be sent: {0}")]
    InvalidHead(#[from] HeadError),
    /// This side called the half in a wrong way: nothing invalid was sent.
    #[error("misuse: {0}")]
    Misuse(&'static str),
}

/// Why a request could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The peer is shutting down or its identity has expired: dial again.
    #[error("the connection takes no new requests")]
    Draining,
    /// The connection ended before the peer had the whole head.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// The peer refused the stream while the head was being sent.
    #[error("stopped by the peer: {0}")]
    Stopped(Reason),
    /// HTTP cannot express the head, or the peer does not accept it. Never sent.
    #[error("cannot be sent: {0}")]
    InvalidHead(#[from] HeadError),
}

impl OpenError {
    /// Whether the request may be tried on another connection whatever its method is: no part of the head was
    /// sent. The response tells of later failures.
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::Draining | Self::ConnectionLost(_) | Self::Stopped(_) => true,
            Self::InvalidHead(_) => false,
        }
    }
}

/// Why a message head or trailers cannot be expressed: the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// A field that belongs to one HTTP/1 connection (RFC 9114 section 4.2).
    #[error("connection-specific field")]
    ConnectionSpecific,
    /// No authority in the URI and no `host` field.
    #[error("no authority")]
    NoAuthority,
    /// `host` contradicts the authority of the URI.
    #[error("host contradicts the authority")]
    ContradictedAuthority,
    /// CONNECT needs `host:port` (RFC 9114 section 4.4).
    #[error("CONNECT without a port")]
    ConnectWithoutPort,
    /// The path is not one that HTTP allows.
    #[error("invalid path")]
    InvalidPath,
    /// The content-length is not a number, or there are several.
    #[error("invalid content-length")]
    InvalidContentLength,
    /// A status that does not exist in this protocol (101, or 1xx as final).
    #[error("status not allowed")]
    InvalidStatus,
    /// More than the peer or this side accepts.
    #[error("too large")]
    TooLarge,
}

/// Why a peer was not reached. In every case it has seen no request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DialError {
    /// No answer in time.
    #[error("no answer from {0} within the handshake timeout")]
    Timeout(SocketAddr),
    /// It takes no new connections: it is about to end.
    #[error("{0} takes no new connections")]
    Closed(SocketAddr),
    /// It goes away, does not acknowledge what it is sent, or has not answered yet: another peer is to be
    /// preferred.
    #[error("{0} goes away, or does not answer")]
    Doubtful(SocketAddr),
    /// The handshake failed: a certificate was refused on one of the sides, or the wire's rules.
    #[error("{address} refused the handshake, or was refused: {reason}")]
    Refused {
        /// Whom we dialled.
        address: SocketAddr,
        /// What TLS or the wire said.
        reason: String,
    },
    /// A valid peer of the mesh, but not the one that the table names.
    #[error("{address} proved to be {proven}, expected {expected}")]
    WrongIdentity {
        /// Whom we dialled.
        address: SocketAddr,
        /// Who it should be.
        expected: SpiffeId,
        /// Who it is.
        proven: SpiffeId,
    },
    /// A certificate is over by the clock of this host, so nothing would be asked on the connection.
    #[error("no connection to {address}: the certificate of {whose} expired {} s ago", since.as_secs())]
    Expired {
        /// Whom we dialled.
        address: SocketAddr,
        /// The peer, or this side.
        whose: SpiffeId,
        /// For how long it has been over.
        since: Duration,
    },
    /// This host could not send.
    #[error("cannot dial {address}: {reason}")]
    Local {
        /// Whom we dialled.
        address: SocketAddr,
        /// What failed.
        reason: String,
    },
    /// This worker talks to too many peers.
    #[error("too many peers (more than {})", limits::PEERS_MAX)]
    TooManyPeers,
    /// The worker is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

/// Why a peer that asked to come in got no handshake, for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Many handshakes are under way, and it must first show that it receives at its address.
    Retry,
    /// As many began in this second as may.
    Ignored,
}

/// Why a connection did not come in.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The peer did not finish in time.
    #[error("the handshake took too long")]
    Timeout,
    /// A certificate was refused, or another rule of TLS or the wire was broken.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer takes no new connections.
    #[error("refused: no new connections are taken")]
    Closed,
    /// The peer went away.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// It was the oldest one when a newer one came and none more may be under way.
    #[error("given up for a newer one: too many handshakes are under way")]
    GivenUp,
}

impl TurnedAway {
    /// A short name for the label of a metric.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Ignored => "ignored",
        }
    }
}

impl HandshakeError {
    /// A short name for the label of a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused(_) | Self::Closed => "refused",
            Self::Lost(_) => "lost",
            Self::GivenUp => "given_up",
        }
    }
}

//! What can go wrong on an HTTP/3 connection, and whose fault it is.
//!
//! Three operations, three enums: [`OpenError`] (starting a request), [`StreamError`] (one
//! exchange under way) and [`ConnectionError`] (the whole connection). [`ErrorCode`] is what goes
//! over the wire.

use std::fmt;

use thiserror::Error;

/// An HTTP/3 or QPACK application error code (RFC 9114 section 8.1, RFC 9204 section 6).
///
/// Any 62-bit value is possible: a peer may send codes that this version does not know.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(u64);

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $value:literal;)*) => {
        impl ErrorCode {
            $($(#[$meta])* pub const $name: Self = Self($value);)*

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-8.1
//= https://www.rfc-editor.org/rfc/rfc9204#section-6
codes! {
    /// Graceful end, or no more interest in the rest of a request body.
    H3_NO_ERROR = 0x0100;
    /// The peer broke a rule that has no code of its own.
    H3_GENERAL_PROTOCOL_ERROR = 0x0101;
    /// A fault in the endpoint that sends the code.
    H3_INTERNAL_ERROR = 0x0102;
    /// The peer opened a stream that it may not open.
    H3_STREAM_CREATION_ERROR = 0x0103;
    /// A control or QPACK stream was closed.
    H3_CLOSED_CRITICAL_STREAM = 0x0104;
    /// A frame where it is not allowed.
    H3_FRAME_UNEXPECTED = 0x0105;
    /// A frame with a wrong size or layout.
    H3_FRAME_ERROR = 0x0106;
    /// The peer's behaviour costs too much.
    H3_EXCESSIVE_LOAD = 0x0107;
    /// A push or stream ID used wrongly.
    H3_ID_ERROR = 0x0108;
    /// A bad SETTINGS frame.
    H3_SETTINGS_ERROR = 0x0109;
    /// The control stream did not begin with SETTINGS.
    H3_MISSING_SETTINGS = 0x010a;
    /// The server did not process the request: it may be tried again.
    H3_REQUEST_REJECTED = 0x010b;
    /// The request or its response is no longer wanted.
    H3_REQUEST_CANCELLED = 0x010c;
    /// The request ended before it was complete.
    H3_REQUEST_INCOMPLETE = 0x010d;
    /// A malformed HTTP message.
    H3_MESSAGE_ERROR = 0x010e;
    /// The TCP connection of a CONNECT tunnel was reset.
    H3_CONNECT_ERROR = 0x010f;
    /// The request should be tried over HTTP/1.1.
    H3_VERSION_FALLBACK = 0x0110;
    /// A field section could not be decoded.
    QPACK_DECOMPRESSION_FAILED = 0x0200;
    /// An instruction on the encoder stream could not be obeyed.
    QPACK_ENCODER_STREAM_ERROR = 0x0201;
    /// An instruction on the decoder stream makes no sense.
    QPACK_DECODER_STREAM_ERROR = 0x0202;
}

impl ErrorCode {
    /// The code as the number on the wire.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// For the QUIC layer; codes are below 2^62 by construction, the fallback is never taken.
    pub(crate) fn to_quic(self) -> quinn::VarInt {
        quinn::VarInt::from_u64(self.0).unwrap_or(quinn::VarInt::MAX)
    }

    pub(super) fn from_quic(code: quinn::VarInt) -> Self {
        Self(code.into_inner())
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectionError {
    /// The peer closed it with an HTTP/3 code. `H3_NO_ERROR` is a graceful end.
    #[error("closed by the peer: {0}")]
    ClosedByPeer(ErrorCode),
    /// This side closed it because the peer broke the protocol.
    #[error("the peer broke the protocol: {reason} ({code})")]
    PeerViolation {
        /// What this side closed with.
        code: ErrorCode,
        /// The rule that was broken.
        reason: &'static str,
    },
    /// This side closed it on its own wish.
    #[error("closed here")]
    ClosedHere,
    /// The peer was silent for longer than the idle timeout.
    #[error("the peer is silent")]
    TimedOut,
    /// The peer lost its state, usually by a restart (stateless reset).
    #[error("the peer restarted")]
    Reset,
    /// QUIC itself failed.
    #[error("QUIC: {0}")]
    Transport(std::sync::Arc<str>),
}

impl From<quinn::ConnectionError> for ConnectionError {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Quic;
        match error {
            Quic::ApplicationClosed(close) => {
                Self::ClosedByPeer(ErrorCode::from_quic(close.error_code))
            }
            Quic::LocallyClosed => Self::ClosedHere,
            Quic::TimedOut => Self::TimedOut,
            Quic::Reset => Self::Reset,
            Quic::VersionMismatch
            | Quic::TransportError(_)
            | Quic::ConnectionClosed(_)
            | Quic::CidsExhausted => Self::Transport(error.to_string().into()),
        }
    }
}

/// Why an exchange on one stream failed. The connection lives on unless the variant says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The peer gave up sending; what it had sent before may be lost.
    #[error("reset by the peer: {0}")]
    Reset(ErrorCode),
    /// The peer reads no more of what this side sends. A response may still come.
    #[error("stopped by the peer: {0}")]
    Stopped(ErrorCode),
    /// The connection ended.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// The peer's message breaks HTTP (RFC 9114 section 4.1.2).
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// The peer's message is over a limit of this side.
    #[error("over the limit: {0}")]
    TooLarge(&'static str),
    /// The peer said by GOAWAY that it did not process this request.
    #[error("not processed: the peer is going away")]
    NotProcessed,
    /// This side gave the stream up: its reader stopped while the others had no room left.
    #[error("given up: its reader stood still while other streams had to wait")]
    GivenUp,
    /// The head or trailers cannot be said in HTTP/3. Never sent.
    #[error("cannot be sent: {0}")]
    InvalidHead(#[from] HeadError),
    /// This side used the stream wrongly: nothing invalid was sent.
    #[error("misuse: {0}")]
    Misuse(&'static str),
}

impl StreamError {
    /// Whether the peer states that it did not process the request, so that any method may be
    /// tried again elsewhere.
    ///
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1.1
    //# the server has not performed any application processing
    pub fn is_unprocessed(&self) -> bool {
        matches!(
            self,
            Self::NotProcessed
                | Self::Reset(ErrorCode::H3_REQUEST_REJECTED)
                | Self::Stopped(ErrorCode::H3_REQUEST_REJECTED)
        )
    }

    /// The code that the peer sent, if it sent one for this stream.
    pub fn peer_code(&self) -> Option<ErrorCode> {
        match self {
            Self::Reset(code) | Self::Stopped(code) => Some(*code),
            Self::ConnectionLost(_)
            | Self::Malformed(_)
            | Self::TooLarge(_)
            | Self::NotProcessed
            | Self::GivenUp
            | Self::InvalidHead(_)
            | Self::Misuse(_) => None,
        }
    }
}

/// Why a request could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The peer goes away or its identity has expired: dial again.
    #[error("the connection takes no new requests")]
    Draining,
    /// The connection ended before the whole head was handed to QUIC.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// The peer refused the stream while the head was being sent.
    #[error("stopped by the peer: {0}")]
    Stopped(ErrorCode),
    /// The head cannot be said in HTTP/3, or the peer does not take it. Never sent.
    #[error("cannot be sent: {0}")]
    InvalidHead(#[from] HeadError),
    /// Something else, after which it is not known what the peer has seen.
    #[error("{0}")]
    Broken(StreamError),
}

impl OpenError {
    /// Whether the request may be tried on another connection whatever its method is: QUIC had taken nothing of the
    /// head. What fails later is told by the response.
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::Draining | Self::ConnectionLost(_) | Self::Stopped(_) => true,
            Self::InvalidHead(_) | Self::Broken(_) => false,
        }
    }
}

/// Why a message head or trailers cannot be expressed in HTTP/3: the caller's fault.
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
    /// A status that HTTP/3 does not have here (101, or 1xx as final).
    #[error("status not allowed")]
    InvalidStatus,
    /// More than the peer or this side accepts.
    #[error("too large")]
    TooLarge,
}

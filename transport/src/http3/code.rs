//! Error codes of HTTP/3 and QPACK, and their meaning in terms of HTTP. No code outside of this folder sees
//! them: the rest of weft uses [`Reason`] and the errors of [`crate::error`].

use std::fmt;

use crate::error::{ConnectionError, Reason};

/// An HTTP/3 or QPACK application error code (RFC 9114 section 8.1, RFC 9204 section 6).
///
/// Any 62-bit value is possible: a peer may send codes that this version does not know.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ErrorCode(u64);

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $value:literal;)*) => {
        impl ErrorCode {
            $(
                $(#[$meta])*
                #[allow(dead_code, reason = "a peer may send a code that this side never does")]
                pub(super) const $name: Self = Self($value);
            )*

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
    /// Graceful end, or the rest of a request body is not needed.
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
    /// An instruction on the encoder stream could not be carried out.
    QPACK_ENCODER_STREAM_ERROR = 0x0201;
    /// An instruction on the decoder stream makes no sense.
    QPACK_DECODER_STREAM_ERROR = 0x0202;
}

impl ErrorCode {
    /// For the QUIC layer; codes are below 2^62 by construction, the fallback is never taken.
    pub(crate) fn to_quic(self) -> quinn::VarInt {
        quinn::VarInt::from_u64(self.0).unwrap_or(quinn::VarInt::MAX)
    }

    pub(super) fn from_quic(code: quinn::VarInt) -> Self {
        Self(code.into_inner())
    }

    /// The meaning of the code when a peer sends it.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::H3_NO_ERROR => Reason::NoError,
            Self::H3_REQUEST_REJECTED => Reason::Unprocessed,
            Self::H3_REQUEST_CANCELLED => Reason::Cancelled,
            Self::H3_EXCESSIVE_LOAD => Reason::Busy,
            Self::H3_REQUEST_INCOMPLETE => Reason::Incomplete,
            Self::H3_MESSAGE_ERROR => Reason::Malformed,
            Self::H3_CONNECT_ERROR => Reason::TunnelBroke,
            Self::H3_INTERNAL_ERROR => Reason::Internal,
            Self::H3_GENERAL_PROTOCOL_ERROR => Reason::Protocol,
            other => Reason::Other {
                code: other.0,
                name: other.name().unwrap_or_default(),
            },
        }
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

impl From<Reason> for ErrorCode {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NoError => Self::H3_NO_ERROR,
            Reason::Unprocessed => Self::H3_REQUEST_REJECTED,
            Reason::Cancelled => Self::H3_REQUEST_CANCELLED,
            Reason::Busy => Self::H3_EXCESSIVE_LOAD,
            Reason::Incomplete => Self::H3_REQUEST_INCOMPLETE,
            Reason::Malformed => Self::H3_MESSAGE_ERROR,
            Reason::TunnelBroke => Self::H3_CONNECT_ERROR,
            Reason::Internal => Self::H3_INTERNAL_ERROR,
            Reason::Protocol => Self::H3_GENERAL_PROTOCOL_ERROR,
            Reason::Other { code, .. } => Self(code),
        }
    }
}

/// The QUIC code of a reason, for code that closes connections before HTTP/3 runs on them.
pub(crate) fn close_code(reason: Reason) -> quinn::VarInt {
    ErrorCode::from(reason).to_quic()
}

impl From<quinn::ConnectionError> for ConnectionError {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Quic;
        match error {
            Quic::ApplicationClosed(close) => {
                Self::ClosedByPeer(ErrorCode::from_quic(close.error_code).reason())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_crosses_the_wire_unchanged_and_an_unknown_code_keeps_its_number() {
        for code in [
            0x100, 0x101, 0x102, 0x107, 0x108, 0x10b, 0x10c, 0x10d, 0x10e, 0x10f, 0x4242,
        ] {
            let code = ErrorCode(code);
            assert_eq!(ErrorCode::from(code.reason()), code);
        }
        let named = ErrorCode::H3_ID_ERROR.reason();
        assert_eq!(named.to_string(), "H3_ID_ERROR");
        assert_eq!(ErrorCode(0x4242).reason().to_string(), "0x4242");
    }
}

//! Heads and trailers of HTTP messages as field sections, strictly, both ways. Pure.
//!
//! Any message that passes here may be sent on as HTTP/1.1: framing fields, pseudo-headers, names and values
//! have been judged (RFC 9114 sections 4.2 to 4.4). [`request`] and [`response`] hold the rules of each;
//! [`fields`] those that both share; [`length`] compares content-length with DATA.

mod fields;
mod length;
mod request;
mod response;

use super::code::ErrorCode;
use super::qpack::DecodeError;

pub(crate) use fields::{decode_trailers, encode_trailers};
pub(crate) use length::BodyLength;
pub(crate) use request::{decode_request, encode_request};
pub(crate) use response::{decode_response, encode_response};

/// Why a received section is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageError {
    /// A connection error: the section cannot be read at all.
    Connection(ErrorCode, &'static str),
    /// A stream error, `H3_MESSAGE_ERROR`.
    Malformed(&'static str),
    /// Over this side's limits.
    TooLarge,
}

impl From<DecodeError> for MessageError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Failed => Self::Connection(
                ErrorCode::QPACK_DECOMPRESSION_FAILED,
                "a field section that cannot be decoded",
            ),
            DecodeError::TooLarge => Self::TooLarge,
        }
    }
}

/// The content of a HEADERS frame that this side sends.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn section(mut frame: bytes::BytesMut) -> bytes::Bytes {
    for _ in ["type", "length"] {
        let length = super::varint::decode(&frame).map_or(0, |(_, length)| length);
        bytes::Buf::advance(&mut frame, length);
    }
    frame.freeze()
}

//! The rules that the fields of heads and trailers share. Pure.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::MessageError;
use crate::error::HeadError;
use crate::http3::limits;
use crate::http3::qpack::{self, Encoder, Field, Limits};

/// A decoded head: the pseudo-headers as they came, and the checked rest.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) method: Option<Bytes>,
    pub(super) scheme: Option<Bytes>,
    pub(super) authority: Option<Bytes>,
    pub(super) path: Option<Bytes>,
    pub(super) status: Option<Bytes>,
    pub(super) headers: HeaderMap,
    pub(super) content_length: Option<u64>,
    cookie: Option<BytesMut>,
    regular_seen: bool,
}

impl Section {
    pub(super) fn decode(section: &Bytes) -> Result<Self, MessageError> {
        let mut head = Self::default();
        qpack::decode(section, section_limits(), |field| head.add(field))?;
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.2.1
        //# these MUST be concatenated into a single byte string using the two-byte delimiter of
        //# "; "
        if let Some(cookie) = head.cookie.take() {
            let value = field_value(cookie.freeze())?;
            append(&mut head.headers, header::COOKIE, value)?;
        }
        Ok(head)
    }

    fn add(&mut self, field: Field) -> Result<(), MessageError> {
        if field.name.first() == Some(&b':') {
            return self.add_pseudo(field);
        }
        self.regular_seen = true;
        let name = field_name(&field.name)?;
        let value = field_value(field.value)?;
        check_connection_specific(&name, &value).map_err(|_| CONNECTION_SPECIFIC)?;
        if name == header::COOKIE {
            match self.cookie.as_mut() {
                None => self.cookie = Some(BytesMut::from(value.as_bytes())),
                Some(cookie) => {
                    cookie.extend_from_slice(b"; ");
                    cookie.extend_from_slice(value.as_bytes());
                }
            }
            return Ok(());
        }
        if name == header::CONTENT_LENGTH {
            let length = content_length(&value)
                .ok_or(MessageError::Malformed("content-length is not a number"))?;
            if self.content_length.replace(length).is_some() {
                return Err(MessageError::Malformed("several content-lengths"));
            }
        }
        append(&mut self.headers, name, value)
    }

    fn add_pseudo(&mut self, field: Field) -> Result<(), MessageError> {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
        //# All pseudo-header fields MUST appear in the header section before regular header
        //# fields.
        if self.regular_seen {
            return Err(MessageError::Malformed("pseudo-header after a field"));
        }
        let slot = match &field.name[..] {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":status" => &mut self.status,
            //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
            //# Endpoints MUST treat a request or response that contains undefined or invalid
            //# pseudo-header fields as malformed.
            _ => return Err(MessageError::Malformed("unknown pseudo-header")),
        };
        if slot.replace(field.value).is_some() {
            return Err(MessageError::Malformed("pseudo-header twice"));
        }
        Ok(())
    }
}

/// Reads trailers. Fields that are not allowed there are dropped, as RFC 9110 section 6.5.1 allows: if they
/// were merged into a head they would change the meaning of the message.
pub(crate) fn decode_trailers(section: &Bytes) -> Result<HeaderMap, MessageError> {
    let mut trailers = HeaderMap::new();
    qpack::decode(section, section_limits(), |field| {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
        //# Pseudo-header fields MUST NOT appear in trailer sections.
        if field.name.first() == Some(&b':') {
            return Err(MessageError::Malformed("pseudo-header in trailers"));
        }
        let name = field_name(&field.name)?;
        let value = field_value(field.value)?;
        check_connection_specific(&name, &value).map_err(|_| CONNECTION_SPECIFIC)?;
        if is_forbidden_in_trailers(&name) {
            return Ok(());
        }
        append(&mut trailers, name, value)
    })?;
    Ok(trailers)
}

/// Writes trailers as a HEADERS frame.
pub(crate) fn encode_trailers(trailers: &HeaderMap, size_max: u64) -> Result<BytesMut, HeadError> {
    let mut writer = Writer::new(size_max);
    for (name, value) in trailers {
        check_connection_specific(name, value)?;
        if !is_forbidden_in_trailers(name) {
            writer.field(name.as_str().as_bytes(), value)?;
        }
    }
    Ok(writer.finish())
}

/// Writes a section, within the limits of both sides.
pub(super) struct Writer {
    encoder: Encoder,
    size_left: u64,
    fields_left: usize,
}

impl Writer {
    pub(super) fn new(size_max: u64) -> Self {
        Self {
            encoder: Encoder::new(),
            size_left: size_max.min(limits::FIELD_SECTION_SIZE),
            fields_left: limits::FIELDS,
        }
    }

    pub(super) fn pseudo(&mut self, name: &'static str, value: &[u8]) -> Result<(), HeadError> {
        self.write(name.as_bytes(), value, false)
    }

    pub(super) fn field(&mut self, name: &[u8], value: &HeaderValue) -> Result<(), HeadError> {
        self.write(name, value.as_bytes(), value.is_sensitive())
    }

    pub(super) fn finish(self) -> BytesMut {
        self.encoder.into_headers_frame()
    }

    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2
    //# An implementation that has received this parameter SHOULD NOT send an HTTP message header
    //# that exceeds the indicated size
    fn write(&mut self, name: &[u8], value: &[u8], sensitive: bool) -> Result<(), HeadError> {
        let cost = (name.len() + value.len()) as u64 + limits::FIELD_OVERHEAD;
        self.size_left = self
            .size_left
            .checked_sub(cost)
            .ok_or(HeadError::TooLarge)?;
        self.fields_left = self.fields_left.checked_sub(1).ok_or(HeadError::TooLarge)?;
        self.encoder.field(name, value, sensitive);
        Ok(())
    }
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
//# an intermediary transforming an HTTP/1.x message to HTTP/3 MUST remove connection-specific
//# header fields; any message containing them MUST be treated as malformed.
pub(super) fn check_connection_specific(
    name: &HeaderName,
    value: &HeaderValue,
) -> Result<(), HeadError> {
    let refused = match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
        //# when it is, it MUST NOT contain any value other than "trailers"
        "te" => !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
        _ => false,
    };
    if refused {
        return Err(HeadError::ConnectionSpecific);
    }
    Ok(())
}

/// The value of a content-length: digits only (no sign, no list).
pub(super) fn content_length(value: &HeaderValue) -> Option<u64> {
    let bytes = value.as_bytes();
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    bytes.iter().try_fold(0u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// The content-length that a head to be sent declares.
pub(super) fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let length = content_length(value).ok_or(HeadError::InvalidContentLength)?;
    if values.next().is_some() {
        return Err(HeadError::InvalidContentLength);
    }
    Ok(Some(length))
}

const CONNECTION_SPECIFIC: MessageError = MessageError::Malformed("connection-specific field");

fn section_limits() -> Limits {
    Limits {
        size: limits::FIELD_SECTION_SIZE,
        fields: limits::FIELDS,
        overhead: limits::FIELD_OVERHEAD,
    }
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
//# Characters in field names MUST be converted to lowercase prior to their encoding. A request or
//# response containing uppercase characters in field names MUST be treated as malformed.
fn field_name(name: &[u8]) -> Result<HeaderName, MessageError> {
    HeaderName::from_lowercase(name).map_err(|_| MessageError::Malformed("invalid field name"))
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-10.3
//# Any request or response that contains a character not permitted in a field value MUST be
//# treated as malformed.
fn field_value(value: Bytes) -> Result<HeaderValue, MessageError> {
    let padded = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if padded(value.first()) || padded(value.last()) {
        return Err(MessageError::Malformed("field value in white space"));
    }
    HeaderValue::from_maybe_shared(value)
        .map_err(|_| MessageError::Malformed("invalid field value"))
}

fn append(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: HeaderValue,
) -> Result<(), MessageError> {
    headers
        .try_append(name, value)
        .map_err(|_| MessageError::TooLarge)?;
    Ok(())
}

/// Framing, routing, authentication and content format: RFC 9110 section 6.5.1.
fn is_forbidden_in_trailers(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-length"
            | "host"
            | "te"
            | "trailer"
            | "expect"
            | "max-forwards"
            | "authorization"
            | "proxy-authorization"
            | "www-authenticate"
            | "proxy-authenticate"
            | "cookie"
            | "set-cookie"
            | "content-encoding"
            | "content-type"
            | "content-range"
    )
}

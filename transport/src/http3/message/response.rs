//! Response heads (RFC 9114 sections 4.1 and 4.3.2). Pure.

use bytes::{Bytes, BytesMut};
use http::header;
use http::response::Parts;
use http::{Method, StatusCode, Version};

use super::fields::{Section, Writer, check_connection_specific, declared_length};
use super::{BodyLength, MessageError};
use crate::error::HeadError;

/// Reads a response head to a request with `method`, and which body it may have.
pub(crate) fn decode_response(
    section: &Bytes,
    method: &Method,
) -> Result<(Parts, BodyLength), MessageError> {
    let mut section = Section::decode(section)?;
    let request_only = [
        &section.method,
        &section.scheme,
        &section.authority,
        &section.path,
    ];
    if request_only.iter().any(|pseudo| pseudo.is_some()) {
        return Err(MessageError::Malformed(
            "request pseudo-header in a response",
        ));
    }
    let status = section
        .status
        .take()
        .ok_or(MessageError::Malformed("no :status"))?;
    let status =
        StatusCode::from_bytes(&status).map_err(|_| MessageError::Malformed("invalid :status"))?;
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.5
    //# HTTP/3 does not support the HTTP Upgrade mechanism or the 101 (Switching Protocols)
    //# informational status code
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(MessageError::Malformed("status 101"));
    }
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = status;
    head.version = Version::HTTP_3;
    head.headers = section.headers;
    let length = body_length(status, method, section.content_length);
    if has_no_length(status, method) {
        //= https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
        //# A client MUST ignore any Content-Length or Transfer-Encoding header fields received in
        //# a successful response to CONNECT.
        head.headers.remove(header::CONTENT_LENGTH);
    }
    Ok((head, length))
}

/// Writes the head of a response to a request with `method` as a HEADERS frame; also returns which body it
/// may have.
pub(crate) fn encode_response(
    head: &Parts,
    method: &Method,
    size_max: u64,
) -> Result<(BytesMut, BodyLength), HeadError> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(HeadError::InvalidStatus);
    }
    let mut writer = Writer::new(size_max);
    writer.pseudo(":status", head.status.as_str().as_bytes())?;
    let length = declared_length(&head.headers)?;
    for (name, value) in &head.headers {
        if name == header::CONTENT_LENGTH && has_no_length(head.status, method) {
            continue;
        }
        check_connection_specific(name, value)?;
        writer.field(name.as_str().as_bytes(), value)?;
    }
    Ok((writer.finish(), body_length(head.status, method, length)))
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-8.6
//# A server MUST NOT send a Content-Length header field in any response with a status
//# code of 1xx (Informational) or 204 (No Content) ... or any 2xx to CONNECT.
/// Whether a length has no meaning here. It is then not passed on in either direction, because the next hop
/// may rely on it.
fn has_no_length(status: StatusCode, method: &Method) -> bool {
    is_tunnel(status, method) || status.is_informational() || status == StatusCode::NO_CONTENT
}

/// Whether the stream carries tunnelled bytes after this head.
fn is_tunnel(status: StatusCode, method: &Method) -> bool {
    method == Method::CONNECT && status.is_success()
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-6.3
//# Any response to a HEAD request and any response with a 1xx, 204, or 304 status code is always
//# terminated ... regardless of the header fields present in the message
fn body_length(status: StatusCode, method: &Method, declared: Option<u64>) -> BodyLength {
    if is_tunnel(status, method) {
        return BodyLength::UNDECLARED;
    }
    let bodiless = method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless {
        return BodyLength::NONE;
    }
    BodyLength::declared(declared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http3::qpack::Encoder;

    fn decode(
        fields: &[(&str, &str)],
        method: &Method,
    ) -> Result<(Parts, BodyLength), MessageError> {
        let mut encoder = Encoder::new();
        for (name, value) in fields {
            encoder.field(name.as_bytes(), value.as_bytes(), false);
        }
        decode_response(&Bytes::copy_from_slice(encoder.section()), method)
    }

    #[test]
    fn a_head_survives_the_round_trip() {
        let (head, ()) = http::Response::builder()
            .status(503)
            .header("content-length", "7")
            .header("set-cookie", "a")
            .header("set-cookie", "b")
            .body(())
            .unwrap()
            .into_parts();
        let (frame, length) = encode_response(&head, &Method::GET, u64::MAX).unwrap();
        assert_eq!(length.left(), Some(7));
        let (back, length) = decode_response(&frame.freeze().slice(5..), &Method::GET).unwrap();
        assert_eq!(length.left(), Some(7));
        assert_eq!((back.status, back.headers), (head.status, head.headers));
    }

    #[test]
    fn bodies_follow_status_and_method() {
        let length = ("content-length", "9");
        for (status, method, left) in [
            ("200", Method::GET, Some(9)),
            ("200", Method::HEAD, Some(0)),
            ("304", Method::GET, Some(0)),
            ("204", Method::GET, Some(0)),
            ("103", Method::GET, Some(0)),
            ("200", Method::CONNECT, None),
            ("404", Method::CONNECT, Some(9)),
        ] {
            let (head, found) = decode(&[(":status", status), length], &method).unwrap();
            assert_eq!(found.left(), left, "{status} {method}");
            let kept = !matches!(
                (status, method),
                ("200", Method::CONNECT) | ("204" | "103", _)
            );
            assert_eq!(
                head.headers.contains_key("content-length"),
                kept,
                "{status}"
            );
        }
    }

    #[test]
    fn malformed_heads_are_refused() {
        let ok = (":status", "200");
        for fields in [
            &[][..],
            &[(":status", "101")],
            &[(":status", "20")],
            &[(":status", "099")],
            &[(":status", "2000")],
            &[ok, ok],
            &[ok, (":path", "/")],
            &[ok, (":method", "GET")],
            &[("x", "1"), ok],
            &[ok, ("transfer-encoding", "chunked")],
            &[ok, ("content-length", "1"), ("content-length", "2")],
        ] {
            let found = decode(fields, &Method::GET);
            assert!(
                matches!(found, Err(MessageError::Malformed(_))),
                "{fields:?}"
            );
        }
    }
}

//! Which responses of an application are accepted. Pure.
//!
//! hyper refuses most broken responses itself; it keeps Content-Length beside Transfer-Encoding, which is
//! how one response becomes two for the next hop, so that is refused here.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, StatusCode, Version};

use super::fields;
use crate::failure::{Failure, Reason};

/// Checks a response head from the application and removes what may not cross.
//= https://www.rfc-editor.org/rfc/rfc9112#section-6.3
//# If a message is received with both a Transfer-Encoding and a Content-Length header field, the
//# Transfer-Encoding overrides the Content-Length. Such a message might indicate an attempt to perform
//# request smuggling or response splitting and ought to be handled as an error.
pub(crate) fn check(head: &mut Parts) -> Result<(), Failure> {
    let headers = &head.headers;
    let lengths = headers.get_all(CONTENT_LENGTH);
    let mut values = lengths.iter();
    if let Some(first) = values.next() {
        if headers.contains_key(TRANSFER_ENCODING) {
            return Err(bad("response has Content-Length and Transfer-Encoding"));
        }
        if values.next().is_some() {
            return Err(bad("response has more than one Content-Length"));
        }
        if !first.as_bytes().iter().all(u8::is_ascii_digit) || first.is_empty() {
            return Err(bad("response has a bad Content-Length"));
        }
    }
    if headers.contains_key(TRANSFER_ENCODING) && !is_plain_chunked(headers) {
        // HTTP/3 has no transfer codings, and undoing gzip is not a proxy's business.
        return Err(bad("response has a transfer coding other than chunked"));
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(bad("application switched protocols unasked"));
    }
    if head.headers.len() > crate::limits::FIELDS_MAX {
        return Err(Failure::new(
            Reason::ResponseHeadTooLarge,
            "response has too many fields",
        ));
    }
    fields::strip(&mut head.headers);
    head.version = Version::HTTP_11;
    Ok(())
}

fn is_plain_chunked(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    matches!((values.next(), values.next()), (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

fn bad(detail: &'static str) -> Failure {
    Failure::new(Reason::ResponseMalformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(fields: &[(&str, &str)]) -> Result<(), Failure> {
        let mut builder = http::Response::builder();
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        check(&mut builder.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn two_framings_are_refused() {
        assert!(verdict(&[("content-length", "5"), ("transfer-encoding", "chunked")]).is_err());
        assert!(verdict(&[("content-length", "5"), ("content-length", "6")]).is_err());
        assert!(verdict(&[("content-length", "5, 5")]).is_err());
        assert!(verdict(&[("content-length", "+5")]).is_err());
        assert!(verdict(&[("transfer-encoding", "gzip, chunked")]).is_err());
        assert!(
            verdict(&[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked")
            ])
            .is_err()
        );
    }

    #[test]
    fn one_framing_passes() {
        assert!(verdict(&[("content-length", "5")]).is_ok());
        assert!(verdict(&[("transfer-encoding", "Chunked")]).is_ok());
        assert!(verdict(&[]).is_ok());
    }
}

//! Which responses of an application are accepted, and which let its connection live on. Pure.
//!
//! A connection of HTTP/1.1 is used for another request only after a response whose end is certain. All of
//! this must hold; otherwise the connection is closed with the response:
//!
//! - The head passes [`check`]: it has one framing, or none if there is no content.
//! - A response that has no content by its kind (1xx, 204, 304, to HEAD) declares none: an application that
//!   forgets that rule sends the declared content a moment later.
//! - The content was read to its declared end, and hyper found no bytes behind it.
//! - It had no trailers. hyper forgives line ends there that other readers take for the end of the response.
//! - The application did not say `Connection: close`, and did not end the response by closing.
//! - It did not answer in HTTP/1.0, a version that cannot carry a request of unknown length.
//! - The whole request had been handed over when the response ended: the application may read later bytes as
//!   another request.
//!
//! It is used again only while no unread bytes wait on it, and only for requests of the same caller: see
//! `application/`.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, StatusCode, Version};

use super::fields;
use crate::failure::{Failure, Reason};
use crate::limits;

/// Whether the head of a response lets its connection be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionReuse {
    /// It may carry another request.
    Lives,
    /// The connection is closed.
    Ends,
}

impl ConnectionReuse {
    /// The same once the content was read, with these trailers behind it.
    pub(crate) fn behind(self, trailers: Option<&HeaderMap>) -> Self {
        if trailers.is_some() { Self::Ends } else { self }
    }
}

/// Checks a response head from the application and removes fields that must not cross. `to_head`: the request
/// was HEAD.
//= https://www.rfc-editor.org/rfc/rfc9112#section-6.3
//# If a message is received with both a Transfer-Encoding and a Content-Length header field, the
//# Transfer-Encoding overrides the Content-Length. Such a message might indicate an attempt to perform
//# request smuggling or response splitting and ought to be handled as an error.
pub(crate) fn check(head: &mut Parts, to_head: bool) -> Result<ConnectionReuse, Failure> {
    judge(head)?;
    let afterwards = afterwards(head, to_head);
    //= https://www.rfc-editor.org/rfc/rfc9110#section-8.6
    //# A server MUST NOT send a Content-Length header field in any response with a status code of 1xx
    //# (Informational) or 204 (No Content).
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    }
    fields::strip(&mut head.headers);
    head.version = Version::HTTP_11;
    Ok(afterwards)
}

/// Why a response may not be passed on, if so.
pub(crate) fn judge(head: &Parts) -> Result<(), Failure> {
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
    if fields::has_other_coding(headers) {
        return Err(bad("response has a transfer coding other than chunked"));
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(bad("application switched protocols unasked"));
    }
    if head.headers.len() > limits::FIELDS_MAX {
        let many = "the response has too many fields";
        return Err(Failure::new(Reason::ResponseHeadTooLarge, many));
    }
    if !fields::fit(&head.headers) {
        let large = "the response's head is too large";
        return Err(Failure::new(Reason::ResponseHeadTooLarge, large));
    }
    Ok(())
}

fn afterwards(head: &Parts, to_head: bool) -> ConnectionReuse {
    let bodiless = to_head || is_bodiless(head.status);
    // hyper answers in HTTP/1.0 on a connection that used it, and would send a body without a length as no
    // body at all.
    let is_old = head.version == Version::HTTP_10;
    if is_old || fields::says_close(&head.headers) || (bodiless && declares_content(head)) {
        ConnectionReuse::Ends
    } else {
        ConnectionReuse::Lives
    }
}

/// Whether a response of this status has no content, whatever its fields say (RFC 9112 section 6.3).
pub(crate) fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether a response without content declares some. To HEAD and in a 304 the length may be that of another
/// response (RFC 9110 section 8.6); a length of zero declares nothing there.
fn declares_content(head: &Parts) -> bool {
    let never = !matches!(head.status, StatusCode::NOT_MODIFIED) && is_bodiless(head.status);
    let length = head.headers.get(CONTENT_LENGTH);
    head.headers.contains_key(TRANSFER_ENCODING)
        || length.is_some_and(|length| never || *length != "0")
}

/// Whether the fields of an interim response (1xx) declare content, which it never has.
pub(crate) fn interim_declares_content(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING)
}

fn bad(detail: &'static str) -> Failure {
    Failure::new(Reason::ResponseMalformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn afterwards_of(
        status: u16,
        to_head: bool,
        fields: &[(&str, &str)],
    ) -> Result<(ConnectionReuse, HeaderMap), Failure> {
        let mut builder = http::Response::builder().status(status);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let mut head = builder.body(()).unwrap().into_parts().0;
        check(&mut head, to_head).map(|afterwards| (afterwards, head.headers))
    }

    fn verdict(fields: &[(&str, &str)]) -> Result<(), Failure> {
        afterwards_of(200, false, fields).map(|_| ())
    }

    #[test]
    fn a_response_with_trailers_is_the_last_of_its_connection() {
        assert_eq!(ConnectionReuse::Lives.behind(None), ConnectionReuse::Lives);
        let trailers = HeaderMap::new();
        for before in [ConnectionReuse::Lives, ConnectionReuse::Ends] {
            assert_eq!(before.behind(Some(&trailers)), ConnectionReuse::Ends);
        }
    }

    #[test]
    fn a_response_without_content_that_declares_some_ends_its_connection() {
        let (length, none, chunked) = (
            ("content-length", "43"),
            ("content-length", "0"),
            ("transfer-encoding", "chunked"),
        );
        let after = |status, to_head, field| afterwards_of(status, to_head, &[field]).unwrap().0;
        for status in [204, 304] {
            assert_eq!(
                after(status, false, length),
                ConnectionReuse::Ends,
                "{status}"
            );
            assert_eq!(
                after(status, false, chunked),
                ConnectionReuse::Ends,
                "{status}"
            );
        }
        assert_eq!(after(200, true, length), ConnectionReuse::Ends);
        assert_eq!(after(200, true, chunked), ConnectionReuse::Ends);
        // A length of zero is right in every response except 204, where any length is wrong.
        assert_eq!(after(304, false, none), ConnectionReuse::Lives);
        assert_eq!(after(200, true, none), ConnectionReuse::Lives);
        assert_eq!(after(204, false, none), ConnectionReuse::Ends);
        for field in [length, none, chunked] {
            assert_eq!(
                after(200, false, field),
                ConnectionReuse::Lives,
                "{field:?}"
            );
        }
    }

    #[test]
    fn a_response_that_says_close_ends_its_connection() {
        let (afterwards, headers) = afterwards_of(200, false, &[("connection", "close")]).unwrap();
        assert_eq!((afterwards, headers.len()), (ConnectionReuse::Ends, 0));
    }

    #[test]
    fn a_response_of_http10_ends_its_connection_though_it_says_keep_alive() {
        let mut head = http::Response::builder()
            .version(Version::HTTP_10)
            .header("connection", "keep-alive")
            .header("content-length", "2")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        assert_eq!(check(&mut head, false), Ok(ConnectionReuse::Ends));
        assert_eq!(head.version, Version::HTTP_11);
    }

    #[test]
    fn a_204_crosses_without_a_length_and_a_304_keeps_it() {
        let headers = |status| {
            afterwards_of(status, false, &[("content-length", "43")])
                .unwrap()
                .1
        };
        assert!(headers(204).is_empty());
        assert_eq!(headers(304)["content-length"], "43");
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
    fn a_head_over_the_limit_is_too_large_and_not_malformed() {
        let value = "x".repeat(limits::HEAD_BYTES_MAX / 2);
        let reason = |fields: &[(&str, &str)]| verdict(fields).map_err(|failure| failure.reason);
        assert_eq!(reason(&[("a", &value)]), Ok(()));
        assert_eq!(
            reason(&[("a", &value), ("b", &value)]),
            Err(Reason::ResponseHeadTooLarge)
        );
        let many = vec![("a", "x"); limits::FIELDS_MAX + 1];
        assert_eq!(reason(&many), Err(Reason::ResponseHeadTooLarge));
    }

    #[test]
    fn one_framing_passes() {
        assert!(verdict(&[("content-length", "5")]).is_ok());
        assert!(verdict(&[("transfer-encoding", "Chunked")]).is_ok());
        assert!(verdict(&[]).is_ok());
    }
}

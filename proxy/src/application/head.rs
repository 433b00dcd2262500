//! The head of a request in the form that an application takes: that of HTTP/1.1 or HTTP/2, and with a word
//! on whether there is a body, where its caller's sidecar does not say so.

use std::task::Poll;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::body::RequestBody;
use crate::failure::Failure;
use crate::http::fields;
use crate::transport_failure::stream_failure;

/// Gives the head the form of HTTP/1.1, or of HTTP/2 if it is `multiplexed`.
pub(crate) fn shape(head: &mut Parts, scheme: http::uri::Scheme, multiplexed: bool) {
    let path = head.uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    if multiplexed {
        head.version = http::Version::HTTP_2;
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.scheme = Some(scheme);
        parts.path_and_query = Some(path);
        head.uri = Uri::from_parts(parts).unwrap_or_default();
        return;
    }
    head.version = http::Version::HTTP_11;
    fields::join_cookies(&mut head.headers);
    if let Some(host) = head
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        head.headers.insert(HOST, host);
    }
    if head.headers.contains_key(TE) {
        // RFC 9110 section 10.1.4: a sender of TE lists it in Connection.
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("te"));
    }
    head.uri = Uri::from(path);
}

/// HTTP/1.1 tells before the body whether there is one; HTTP/2 tells with the head that there is none. HTTP/3
/// has no such sign: without a body the end comes with the head. Methods that rarely have a body wait for the
/// first frame or the end. For other methods one look is enough, because an application may answer such a
/// head before its body comes.
pub(crate) async fn declare_length(
    request: &mut Request<RequestBody>,
    multiplexed: bool,
) -> Result<(), Failure> {
    let headers = request.headers();
    if headers.contains_key(CONTENT_LENGTH) {
        return Ok(());
    }
    let rare = has_rarely_content(request.method());
    // A caller that waits for permission to send a body has one, and the application grants the permission: a
    // sidecar that waited for the body first would deadlock with the caller (RFC 9110 section 10.1.1).
    if !headers.contains_key(EXPECT) {
        std::future::poll_fn(|cx| match request.body_mut().poll_peek(cx) {
            Poll::Pending if !rare => Poll::Ready(Ok(())),
            seen @ (Poll::Ready(_) | Poll::Pending) => seen,
        })
        .await
        .map_err(|error| stream_failure(&error))?;
    }
    let is_empty = request.body().is_empty();
    let method = request.method().clone();
    declare(&method, request.headers_mut(), is_empty, multiplexed);
    Ok(())
}

/// Says whether there is a body, where no length does.
pub(crate) fn declare(method: &Method, headers: &mut HeaderMap, is_empty: bool, multiplexed: bool) {
    if headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    // hyper chunks a body of unknown length on its own, but not one of these methods.
    if has_rarely_content(method) && !multiplexed && !is_empty {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    //= https://www.rfc-editor.org/rfc/rfc9110#section-8.6
    //# A user agent SHOULD send Content-Length in a request when the method defines a meaning for enclosed
    //# content and it is not sending Transfer-Encoding.
    // Some servers require it over HTTP/2, too.
    let means_content = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    if means_content && is_empty {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

fn has_rarely_content(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

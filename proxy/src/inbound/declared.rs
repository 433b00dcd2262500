//! Says towards the application whether a request has a body, where its caller's sidecar does not.

use std::task::Poll;

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request};

use super::body::RequestBody;
use crate::failure::Failure;
use crate::transport_failure::stream_failure;

/// HTTP/1.1 tells before the body whether there is one; HTTP/2 tells with the head that there is none. HTTP/3
/// has no such sign: without a body the end comes with the head. Methods that rarely have a body wait for the
/// first frame or the end. For other methods one look is enough, because an application may answer such a
/// head before its body comes.
pub(super) async fn declare_length(
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

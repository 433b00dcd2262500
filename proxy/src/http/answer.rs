//! Turns a [`Failure`] into a response: an HTTP response, or a gRPC trailers-only response if the request was
//! gRPC (a gRPC client would otherwise only report "unexpected content type"). Pure.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::fields::{WEFT_ERROR, X_REQUEST_ID};
use crate::failure::{Failure, Reason};

pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// Seconds; the smallest value of the field, because the overload of a sidecar ends with the requests under
/// way.
const RETRY_SOON: HeaderValue = HeaderValue::from_static("1");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The response head and body text for a failure. The body is empty for gRPC and for HEAD (`bodiless`), whose
/// content length still gives the size (RFC 9110 section 9.3.2).
pub(crate) fn answer(
    failure: &Failure,
    grpc: bool,
    bodiless: bool,
    request_id: Option<&HeaderValue>,
) -> (Response<()>, Bytes) {
    let mut response = Response::new(());
    let text = if grpc {
        Bytes::new()
    } else {
        Bytes::from(format!("weft: {failure}\n"))
    };
    let headers = response.headers_mut();
    headers.insert(PROXY_STATUS, proxy_status(failure));
    if failure.reason.is_passing() {
        headers.insert(RETRY_AFTER, RETRY_SOON);
    }
    if let Some(id) = request_id {
        headers.insert(X_REQUEST_ID, id.clone());
    }
    if grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.extend(grpc_trailers(failure));
        *response.status_mut() = StatusCode::OK;
        return (response, text);
    }
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.status_mut() = failure.reason.status();
    (response, if bodiless { Bytes::new() } else { text })
}

/// The trailers that end a gRPC response that fails after its head was sent.
pub(crate) fn grpc_trailers(failure: &Failure) -> HeaderMap {
    let code = u16::from(failure.reason.grpc_code());
    HeaderMap::from_iter([
        (GRPC_STATUS, HeaderValue::from(code)),
        (GRPC_MESSAGE, grpc_message(failure)),
    ])
}

/// Marks this answer, or these trailers, as made by this sidecar: `TOKEN; policy="..."`. The calling sidecar
/// trusts the mark, because applications cannot send fields of the mesh; they can copy a `proxy-status` from
/// anywhere.
pub(crate) fn sign(headers: &mut HeaderMap, failure: &Failure) {
    let token = failure.reason.token();
    let value = match &failure.policy {
        None => Ok(HeaderValue::from_static(token)),
        Some(policy) => HeaderValue::try_from(format!("{token}; policy=\"{policy}\"")),
    };
    // The name of a policy is made of DNS labels.
    let value = value.unwrap_or(HeaderValue::from_static(token));
    headers.insert(WEFT_ERROR, value);
}

/// What the far sidecar reports of a failure that it answered itself, which [`sign`] marks.
pub(crate) fn told(headers: &HeaderMap, status: StatusCode) -> Option<Failure> {
    let signed = headers.get(WEFT_ERROR)?.to_str().ok()?;
    let (token, policy) = match signed.split_once("; policy=\"") {
        Some((token, policy)) => (token, policy.strip_suffix('"')),
        None => (signed, None),
    };
    let reason = Reason::of(token, status)?;
    let words = |name| headers.get(name)?.to_str().ok();
    let details = words(PROXY_STATUS).and_then(|text| {
        let (_, details) = text.split_once("; details=\"")?;
        details.strip_suffix('"')
    });
    let details = details.or_else(|| words(GRPC_MESSAGE)).unwrap_or("");
    let failure = Failure::new(reason, format!("the far sidecar: {details}"));
    Some(failure.by(policy))
}

/// Whether the far sidecar says that its application broke off before an answer ([`sign`]).
pub(crate) fn says_broken(headers: &HeaderMap) -> bool {
    let token = Reason::ConnectionTerminated.token().as_bytes();
    headers.get(WEFT_ERROR).is_some_and(|signed| {
        let rest = signed.as_bytes().strip_prefix(token);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b";"))
    })
}

/// `weft; error=TOKEN; details="..."` (RFC 9209 section 2).
pub(crate) fn proxy_status(failure: &Failure) -> HeaderValue {
    // A Structured Fields string (RFC 8941 section 3.3.3) is printable ASCII with \ and " escaped.
    let details: String = failure
        .detail
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .map(|c| if matches!(c, '"' | '\\') { '\'' } else { c })
        .collect();
    let text = format!(
        "weft; error={}; details=\"{details}\"",
        failure.reason.token()
    );
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("weft"))
}

/// As [`proxy_status`] for an answer that a route gives and that is no failure: `weft; details="WHAT of
/// ROUTE"`.
pub(crate) fn proxy_status_of_reply(what: &str, route: &str) -> HeaderValue {
    // The name of a route is made of DNS labels.
    let text = format!("weft; details=\"{what} of {route}\"");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("weft"))
}

/// Percent-encoded as gRPC over HTTP/2 asks (Status-Message).
fn grpc_message(failure: &Failure) -> HeaderValue {
    let mut text = String::new();
    for byte in format!("weft: {failure}").bytes() {
        if (byte.is_ascii_graphic() || byte == b' ') && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("weft"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Reason;

    #[test]
    fn http_gets_status_proxy_status_and_request_id() {
        let id = HeaderValue::from_static("r1");
        let failure = Failure::new(Reason::NoEndpoint, "no healthy endpoint of \"orders.shop\"");
        let (response, body) = answer(&failure, false, false, Some(&id));
        assert_eq!(response.status(), 503);
        assert_eq!(
            response.headers()[PROXY_STATUS],
            "weft; error=destination_unavailable; details=\"no healthy endpoint of 'orders.shop'\""
        );
        assert_eq!(response.headers()[X_REQUEST_ID], "r1");
        assert_eq!(response.headers()[CONTENT_LENGTH], body.len().to_string());
    }

    #[test]
    fn grpc_gets_trailers_only() {
        let failure = Failure::new(Reason::Denied, "no\n");
        let (response, body) = answer(&failure, true, false, None);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[GRPC_STATUS], "7");
        assert_eq!(
            response.headers()[GRPC_MESSAGE],
            "weft: http_request_denied: no%0A"
        );
        assert!(body.is_empty());
    }

    #[test]
    fn the_calling_sidecar_learns_what_the_far_one_answered_for_and_believes_no_application() {
        let policy = Some("AuthorizationPolicy/shop/a");
        let failure = Failure::new(Reason::Denied, "no").by(policy);
        let (mut response, _) = answer(&failure, false, false, None);
        assert_eq!(told(response.headers(), response.status()), None);
        sign(response.headers_mut(), &failure);
        let heard = told(response.headers(), response.status()).unwrap();
        assert_eq!(heard.reason, Reason::Denied);
        assert_eq!(heard.detail, "the far sidecar: no");
        assert_eq!(heard.policy.as_deref(), policy);
        // Of gRPC, and without a policy.
        let failure = Failure::new(Reason::ConnectionRefused, "it is down");
        let mut trailers = grpc_trailers(&failure);
        sign(&mut trailers, &failure);
        let heard = told(&trailers, StatusCode::OK).unwrap();
        assert_eq!(heard.reason, Reason::ConnectionRefused);
        assert!(!says_broken(&trailers));
        sign(
            &mut trailers,
            &Failure::new(Reason::ConnectionTerminated, "it broke off"),
        );
        assert!(says_broken(&trailers));
        assert!(heard.detail.contains("it is down") && heard.policy.is_none());
        for odd in ["", "made_up", "http_request_denied; policy=\"", "\""] {
            let mut headers = HeaderMap::new();
            headers.insert(WEFT_ERROR, HeaderValue::from_static(odd));
            let heard = told(&headers, StatusCode::FORBIDDEN);
            assert!(heard.is_none_or(|one| one.policy.is_none()), "{odd}");
        }
    }

    #[test]
    fn head_gets_the_length_without_the_body() {
        let (response, body) = answer(&Failure::new(Reason::NoRoute, "x"), false, true, None);
        assert!(body.is_empty());
        assert_ne!(response.headers()[CONTENT_LENGTH], "0");
    }
}

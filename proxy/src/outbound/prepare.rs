//! Reads an application's request head as the mesh understands it, or says why it may not be sent. Pure.
//!
//! Not here: what its route changes in it (`filters/forward.rs`).

use http::header::{CONNECTION, HeaderMap, UPGRADE, VIA};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri, Version};

use super::route::{Destination, Route};
use crate::failure::{Failure, Reason};
use crate::http::authority;
use crate::http::fields;
use crate::limits;

/// Refuses requests that no destination accepts.
pub(crate) fn check(head: &Parts, via: &str) -> Result<(), Failure> {
    if head.method == Method::CONNECT {
        return Err(Failure::new(
            Reason::MethodRefused,
            "CONNECT: tunnels need a listener of a TCP service",
        ));
    }
    if head.version == Version::HTTP_11 && wants_upgrade(&head.headers) {
        return Err(Failure::new(
            Reason::UpgradeUnsupported,
            "HTTP Upgrade is not supported",
        ));
    }
    //= https://www.rfc-editor.org/rfc/rfc9112#section-6.1
    //# A server that receives a request message with a transfer coding it does not understand SHOULD respond
    //# with 501 (Not Implemented).
    if fields::has_other_coding(&head.headers) {
        return Err(Failure::new(
            Reason::CodingUnsupported,
            "a transfer coding other than chunked",
        ));
    }
    fields::check_expectation(&head.headers)?;
    if head.headers.len() > limits::FIELDS_MAX {
        return Err(Failure::new(Reason::HeadTooLarge, "too many header fields"));
    }
    if head.headers.contains_key(VIA)
        && fields::count_via(&head.headers, via) >= limits::VIA_OWN_MAX
    {
        return Err(Failure::new(
            Reason::Loop,
            "the request came through this sidecar before",
        ));
    }
    Ok(())
}

/// h2c is an offer that may be ignored (RFC 9110 section 7.8); other upgrades would leave the client waiting.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers.contains_key(CONNECTION)
        && headers
            .get_all(UPGRADE)
            .iter()
            .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

/// Rewrites `OPTIONS http://orders` as `OPTIONS *`, before the path decides anything.
//= https://www.rfc-editor.org/rfc/rfc9112#section-3.2.4
//# If a proxy receives an OPTIONS request with an absolute-form of request-target in which the URI has an
//# empty path and no query component, then the last proxy on the request chain MUST send a request-target of
//# "*" when it forwards the request to the indicated origin server.
pub(crate) fn mean_whole_server(head: &mut Parts) {
    if head.method != Method::OPTIONS || head.version > Version::HTTP_11 || has_path(&head.uri) {
        return;
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("*"));
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Whether a path or a query was written. The URI type reads `/` if neither was. Only the buffer shows the
/// difference: a written path stands directly behind the authority.
fn has_path(uri: &Uri) -> bool {
    let (Some(authority), Some(path)) = (uri.authority(), uri.path_and_query()) else {
        return true;
    };
    path.as_str() != "/"
        || authority.as_str().as_bytes().as_ptr_range().end == path.as_str().as_ptr()
}

/// Refuses to act as an open proxy: an absolute URI must name the listener's destination.
pub(super) fn check_target(
    head: &Parts,
    destination: &Destination,
    authority: Option<&authority::Authority<'_>>,
) -> Result<(), Failure> {
    let absolute = head.version <= Version::HTTP_11 && head.uri.authority().is_some();
    match (destination, authority) {
        (Destination::Service { name, text, .. }, Some(authority)) if absolute => {
            if authority.host == **text || authority.host == name.name {
                return Ok(());
            }
            Err(Failure::new(
                Reason::MethodRefused,
                format!("this listener leads to {name} only"),
            ))
        }
        (_, _) => Ok(()),
    }
}

/// The `:authority` to send: what the application sent, or for HTTP/1.0 without Host the service's name.
pub(super) fn authority_to_send(
    authority: Option<&authority::Authority<'_>>,
    route: &Route,
) -> Result<Authority, Failure> {
    let text = authority.map_or(&*route.cluster.label, |authority| authority.text);
    Authority::try_from(text)
        .map_err(|_| Failure::new(Reason::BadRequest, "Host is not an authority"))
}

/// Rewrites the target as the mesh sends it: the authority that was found, and a path.
pub(crate) fn aim(head: &mut Parts, authority: Authority) -> Result<(), Failure> {
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority);
    parts.path_and_query = Some(match parts.path_and_query.take() {
        None => PathAndQuery::from_static("/"),
        //= https://www.rfc-editor.org/rfc/rfc9112#section-3.2.1
        //# If the target URI's path component is empty, the client MUST send "/" as the path within the
        //# origin-form of request-target.
        // Written out it has that.
        Some(path) if path.as_str().starts_with('?') => {
            PathAndQuery::try_from(path.to_string()).map_err(|_| bad_target())?
        }
        Some(path) => path,
    });
    head.uri = Uri::from_parts(parts).map_err(|_| bad_target())?;
    Ok(())
}

fn bad_target() -> Failure {
    Failure::new(Reason::BadRequest, "bad request target")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::name;
    use crate::http::authority::canonical;

    fn head(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn reason(outcome: Result<(), Failure>) -> Option<Reason> {
        outcome.err().map(|failure| failure.reason)
    }

    #[test]
    fn requests_that_no_destination_accepts_are_refused() {
        let check = |head: Parts| reason(check(&head, "weft-1"));
        assert_eq!(
            check(head("CONNECT", "a:1", &[])),
            Some(Reason::MethodRefused)
        );
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
        assert_eq!(
            check(head("GET", "/", &upgrade)),
            Some(Reason::UpgradeUnsupported)
        );
        assert_eq!(
            check(head(
                "GET",
                "/",
                &[("connection", "upgrade"), ("upgrade", "h2c")]
            )),
            None
        );
        for coding in ["gzip, chunked", "chunked, chunked", "identity", ""] {
            assert_eq!(
                check(head("POST", "/", &[("transfer-encoding", coding)])),
                Some(Reason::CodingUnsupported),
                "{coding}"
            );
        }
        let lines = [
            ("transfer-encoding", "gzip"),
            ("transfer-encoding", "chunked"),
        ];
        assert_eq!(
            check(head("POST", "/", &lines)),
            Some(Reason::CodingUnsupported)
        );
        assert_eq!(
            check(head("POST", "/", &[("transfer-encoding", "Chunked")])),
            None
        );
        assert_eq!(
            check(head("GET", "/", &[("expect", "x")])),
            Some(Reason::ExpectationFailed)
        );
        assert_eq!(check(head("GET", "/", &[("expect", "100-Continue")])), None);
        assert_eq!(
            check(head("GET", "/", &[("via", "1.1 weft-1, 1.1 weft-1")])),
            Some(Reason::Loop)
        );
        assert_eq!(
            check(head("GET", "/", &[("via", "1.1 weft-1, 1.1 weft-2")])),
            None
        );
    }

    #[test]
    fn options_for_a_server_without_a_path_are_for_all_of_it() {
        for (method, uri, path) in [
            ("OPTIONS", "http://orders", "*"),
            ("OPTIONS", "HTTP://orders:80", "*"),
            ("OPTIONS", "http://orders/", "/"),
            ("OPTIONS", "http://orders?a", "/?a"),
            ("OPTIONS", "*", "*"),
            ("OPTIONS", "/", "/"),
            ("GET", "http://orders", "/"),
        ] {
            // As hyper builds it from the bytes that it reads.
            let text = bytes::Bytes::from(format!("GET {uri} HTTP/1.1"));
            let uri = Uri::from_maybe_shared(text.slice(4..4 + uri.len())).unwrap();
            let mut head = head(method, "/", &[("host", "orders")]);
            head.uri = uri;
            mean_whole_server(&mut head);
            let sent = head.uri.path_and_query().unwrap().to_string();
            assert_eq!(sent, path, "{method} {}", head.uri);
        }
    }

    #[test]
    fn an_absolute_uri_to_elsewhere_is_refused_on_a_listener_of_one_service() {
        let destination = Destination::Service {
            name: name("orders"),
            text: "orders.shop".into(),
            port: 80,
        };
        let check = |uri, host| {
            let head = head("GET", uri, &[("host", host)]);
            let authority = canonical(&head).unwrap();
            reason(check_target(&head, &destination, authority.as_ref()))
        };
        assert_eq!(
            check("http://example.com/", "example.com"),
            Some(Reason::MethodRefused)
        );
        assert_eq!(check("http://orders.shop/", "orders.shop"), None);
        assert_eq!(check("/", "127.0.0.1:5001"), None);
    }
}

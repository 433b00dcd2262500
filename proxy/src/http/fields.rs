//! Which fields cross the mesh. Pure, and in place: a header map is never copied.
//!
//! Hop-by-hop fields end here in both directions. `weft-*` fields belong to the mesh and are dropped when
//! they come from outside. `Via` reveals loops. A request with a twin of such a field, see [`is_twin`], is
//! refused.

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};

use super::traceparent::{TRACEPARENT, TRACESTATE, TraceParent};
use crate::failure::{Failure, Reason};
use crate::limits;

/// Says which service and port a request is for: `orders.shop:80`.
pub(crate) const WEFT_SERVICE: HeaderName = HeaderName::from_static("weft-service");
/// Says which service was addressed, where a route chose another as backend.
pub(crate) const WEFT_ROUTE_PARENT: HeaderName = HeaderName::from_static("weft-route-parent");
/// Says how important a request is, if its caller's route says so.
pub(crate) const WEFT_PRIORITY: HeaderName = HeaderName::from_static("weft-priority");
/// See [`WEFT_PRIORITY`].
pub(crate) const HIGH: HeaderValue = HeaderValue::from_static("high");
/// See [`WEFT_PRIORITY`].
pub(crate) const LOW: HeaderValue = HeaderValue::from_static("low");
/// Tells the calling sidecar that the far sidecar answers in place of the application, and why.
pub(crate) const WEFT_ERROR: HeaderName = HeaderName::from_static("weft-error");
/// Tells the application by which revision its request was routed, where the settings ask for that.
pub(crate) const WEFT_REVISION: HeaderName = HeaderName::from_static("weft-revision");
/// Tells the application who called: the proven SPIFFE ID.
pub(crate) const WEFT_CLIENT_ID: HeaderName = HeaderName::from_static("weft-client-id");
/// Names the request across hops.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Prefix of the mesh's own fields.
const MESH_PREFIX: &str = "weft-";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Removes fields that concern one connection only, and fields of identity that a peer must not set.
//= https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
//# Intermediaries MUST parse a received Connection header field before a message is forwarded and, for
//# each connection-option in this field, remove any header or trailer field(s) from the message with
//# the same name as the connection-option, and then remove the Connection header field itself.
pub(crate) fn strip(headers: &mut HeaderMap) {
    strip_present(headers, Present::of(headers));
}

/// As [`strip`], and also removes trace context that breaks its own rules. Refuses a twin.
pub(crate) fn strip_request(headers: &mut HeaderMap) -> Result<(), Failure> {
    let present = Present::of(headers);
    if present.twin
        && let Some(name) = headers.keys().find(|name| is_twin(name.as_str()))
    {
        let detail = format!("some applications take the field {name} for one of the mesh");
        return Err(Failure::new(Reason::BadRequest, detail));
    }
    strip_present(headers, present);
    if present.trace {
        check_trace(headers);
    }
    Ok(())
}

/// Refuses an expectation that no hop implements (RFC 9110 section 10.1.1).
pub(crate) fn check_expectation(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(EXPECT) {
        Some(expect) if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Failure::new(
                Reason::ExpectationFailed,
                "only Expect: 100-continue is known",
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether a message of HTTP/1.1 has a transfer coding other than chunked, or that twice. HTTP/3 has no
/// transfer codings, and undoing gzip is not a proxy's business.
pub(crate) fn has_other_coding(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => false,
        (Some(one), None) => !one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

/// Whether some applications would read a field of this name as one that only the mesh may set, or as one
/// that frames a message. Such applications write `_` for any character that is neither a letter nor a digit
/// (RFC 3875 section 4.1.18, as in WSGI and CGI), so `weft_client_id` arrives as `weft-client-id` does.
pub(crate) fn is_twin(name: &str) -> bool {
    is_foldable(name)
        && (folds_to_prefix(name, MESH_PREFIX)
            || [CONTENT_LENGTH, TRANSFER_ENCODING]
                .iter()
                .chain(&HOP_BY_HOP)
                .any(|other| folds_to(name, other.as_str())))
}

/// Whether no route may change the field: what frames a message or ends at the next hop, what the mesh says
/// itself, and what some applications take for that.
pub(crate) fn is_reserved(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | CONTENT_LENGTH | EXPECT | TE | VIA)
        || HOP_BY_HOP.contains(name)
        || name.as_str().starts_with(MESH_PREFIX)
        || is_twin(name.as_str())
}

/// Whether some applications take a field of this name for the field `other`.
pub(crate) fn is_twin_of(name: &str, other: &str) -> bool {
    name != other && folds_to(name, other)
}

/// Whether the name has characters that fold into a dash; few names have.
fn is_foldable(name: &str) -> bool {
    name.bytes().any(|byte| FOLDABLE[usize::from(byte)])
}

/// Which bytes of a name fold. It is a table, because each byte of each name is looked up.
const FOLDABLE: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0;
    while byte < table.len() {
        let known = byte as u8;
        table[byte] = !(known.is_ascii_alphanumeric() || known == b'-');
        byte += 1;
    }
    table
};

fn folds_to(name: &str, other: &str) -> bool {
    name.len() == other.len() && folds_to_prefix(name, other)
}

fn folds_to_prefix(name: &str, prefix: &str) -> bool {
    let fold = |byte: u8| match byte {
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_lowercase(),
        _ => b'-',
    };
    name.len() >= prefix.len()
        && name
            .bytes()
            .map(fold)
            .zip(prefix.bytes().map(fold))
            .all(|(a, b)| a == b)
}

/// Which kinds of fields the head has at all, found in one pass: a look-up for each name would cost more than
/// all other work on a head.
#[derive(Clone, Copy, Default)]
struct Present {
    connection: bool,
    hop_by_hop: bool,
    te: bool,
    mesh: bool,
    trace: bool,
    twin: bool,
}

/// Beside `Connection` and TE, which have rules of their own.
const HOP_BY_HOP: [HeaderName; 6] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
    X_FORWARDED_CLIENT_CERT,
];

impl Present {
    fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => present.connection = true,
                "te" => present.te = true,
                "traceparent" | "tracestate" | "baggage" => present.trace = true,
                name if name.starts_with(MESH_PREFIX) => {
                    present.mesh = true;
                    present.twin |= is_foldable(name);
                }
                _ if HOP_BY_HOP.contains(name) => present.hop_by_hop = true,
                name if is_twin(name) => present.twin = true,
                _ => {}
            }
        }
        present
    }
}

fn strip_present(headers: &mut HeaderMap, present: Present) {
    if present.connection {
        strip_connection_options(headers);
    }
    if present.hop_by_hop {
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
    }
    if present.te {
        let trailers = headers.get_all(TE).iter().any(|value| {
            value.to_str().is_ok_and(|text| {
                text.split(',')
                    .any(|one| one.trim().eq_ignore_ascii_case("trailers"))
            })
        });
        // RFC 9114 section 4.2: TE may be present, with no other value than "trailers".
        if trailers {
            headers.insert(TE, TRAILERS);
        } else {
            headers.remove(TE);
        }
    }
    if present.mesh {
        remove_all(headers, |name| name.starts_with(MESH_PREFIX));
    }
    if present.twin {
        remove_all(headers, is_twin);
    }
}

fn strip_connection_options(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // A `Connection` field must not remove these: they decide framing, routing and TE's own rule.
        .filter(|name| !matches!(*name, HOST | CONTENT_LENGTH | TE | AUTHORIZATION | COOKIE))
        .take(limits::FIELDS_MAX)
        .collect();
    for name in listed {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

/// Whether these fields leave room in a head, which has [`limits::HEAD_BYTES_MAX`], for the fields that the
/// mesh adds.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2
//# The size of a field list is calculated based on the uncompressed size of fields, including the length of
//# the name and value in bytes plus an overhead of 32 bytes for each field.
pub(crate) fn fit(headers: &HeaderMap) -> bool {
    const OVERHEAD: usize = 32;
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + OVERHEAD)
        .sum();
    size <= limits::HEAD_BYTES_MAX - limits::HEAD_BYTES_OF_MESH
}

/// Whether the sender ends the connection after this message (RFC 9112 section 9.6).
pub(crate) fn says_close(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("close"))
}

fn remove_all(headers: &mut HeaderMap, which: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| which(name.as_str())).cloned() {
        headers.remove(name);
    }
}

/// Removes trace context that breaks its own rules, as if the sender had sent none (W3C Trace Context section
/// 3.2.2: a vendor that cannot parse traceparent restarts the trace).
fn check_trace(headers: &mut HeaderMap) {
    if headers.contains_key(TRACEPARENT) && TraceParent::of(headers).is_none() {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
    }
    for (name, bytes_max) in [
        (TRACESTATE, limits::TRACESTATE_BYTES_MAX),
        (BAGGAGE, limits::BAGGAGE_BYTES_MAX),
    ] {
        if headers.contains_key(&name) {
            let bytes: usize = headers.get_all(&name).iter().map(HeaderValue::len).sum();
            if bytes > bytes_max {
                headers.remove(&name);
            }
        }
    }
}

/// How often `own` (this sidecar's Via entry without the protocol) stands in `Via`.
pub(crate) fn count_via(headers: &HeaderMap, own: &str) -> usize {
    headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter(|entry| entry.split_ascii_whitespace().nth(1) == Some(own))
        .count()
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-6.5.1
//# Many fields cannot be processed outside the header section because their evaluation is necessary
//# prior to receiving the content, such as those that describe message framing, routing,
//# authentication, request modifiers, response controls, or content format.
/// Removes fields that may not stand in trailers. A request whose trailers have a twin was broken off before:
/// see [`has_twin`].
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [HeaderName; 15] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        HOST,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
    ];
    for name in FORBIDDEN {
        // gRPC puts content-type into trailers-only responses, which are headers, so nothing is lost.
        if trailers.contains_key(&name) {
            trailers.remove(&name);
        }
    }
    strip(trailers);
}

/// Whether any field is a twin, see [`is_twin`].
pub(crate) fn has_twin(fields: &HeaderMap) -> bool {
    fields.keys().any(|name| is_twin(name.as_str()))
}

/// Joins several Cookie lines into one, which HTTP/1.1 requires (RFC 9114 section 4.2.1).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let joined = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    match HeaderValue::from_bytes(&joined) {
        Ok(value) => headers.insert(COOKIE, value),
        Err(_) => headers.remove(COOKIE),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_lists_are_dropped() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "keep-alive"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("accept", "*/*"),
        ]);
        strip(&mut headers);
        assert_eq!(names(&headers), ["accept"]);
    }

    #[test]
    fn close_is_one_option_among_others_in_any_case() {
        for value in ["close", "Close", "keep-alive, close", "x,close ,y"] {
            assert!(says_close(&map(&[("connection", value)])), "{value}");
        }
        assert!(says_close(&map(&[
            ("connection", "te"),
            ("connection", "close")
        ])));
        assert!(!says_close(&map(&[("connection", "keep-alive, closed")])));
        assert!(!says_close(&map(&[])));
    }

    #[test]
    fn connection_cannot_remove_what_decides_framing_or_identity() {
        let mut headers = map(&[
            ("connection", "content-length, authorization, cookie, host"),
            ("content-length", "1"),
            ("authorization", "a"),
            ("cookie", "b"),
            ("host", "c"),
        ]);
        strip(&mut headers);
        assert_eq!(
            names(&headers),
            ["authorization", "content-length", "cookie", "host"]
        );
    }

    #[test]
    fn te_survives_only_as_trailers() {
        let mut headers = map(&[("te", "gzip;q=0.5, Trailers")]);
        strip(&mut headers);
        assert_eq!(headers[TE], "trailers");
        let mut headers = map(&[("te", "gzip")]);
        strip(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn identity_fields_from_outside_are_dropped() {
        let mut headers = map(&[
            ("weft-client-id", "x"),
            ("weft-service", "y"),
            ("weft-new", "z"),
            ("x-forwarded-client-cert", "w"),
        ]);
        strip(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn a_name_that_folds_into_one_of_the_mesh_or_of_framing_is_a_twin() {
        for name in [
            "weft_client-id",
            "weft-client_id",
            "weft.service",
            "weft_any-thing",
            "content_length",
            "transfer_encoding",
            "transfer.encoding",
            "keep_alive",
            "x_forwarded-client_cert",
        ] {
            assert!(is_twin(name), "{name}");
            let mut headers = map(&[(name, "x")]);
            assert!(strip_request(&mut headers).is_err(), "{name}");
            strip(&mut headers);
            assert!(headers.is_empty(), "{name}");
        }
        for name in [
            "weft-client-id",
            "api_key",
            "x_request_id",
            "wefty_x",
            "content_lengths",
            "x.content-length",
            "content-length",
        ] {
            assert!(!is_twin(name), "{name}");
        }
        assert!(is_twin_of("x_priority", "x-priority"));
        assert!(is_twin_of("x-priority", "x_priority"));
        assert!(!is_twin_of("x-priority", "x-priority"));
        assert!(!is_twin_of("x_priorities", "x-priority"));
    }

    #[test]
    fn broken_trace_context_is_dropped() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = map(&[("traceparent", good), ("tracestate", "a=b")]);
        check_trace(&mut headers);
        assert_eq!(headers.len(), 2);
        for bad in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "short",
        ] {
            let mut headers = map(&[("traceparent", bad), ("tracestate", "a=b")]);
            check_trace(&mut headers);
            assert!(headers.is_empty(), "{bad}");
        }
    }

    #[test]
    fn oversized_baggage_is_dropped() {
        let mut headers = HeaderMap::new();
        headers.insert(
            BAGGAGE,
            HeaderValue::from_str(&"a".repeat(limits::BAGGAGE_BYTES_MAX + 1)).unwrap(),
        );
        check_trace(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn via_counts_only_own_entries() {
        let headers = map(&[
            ("via", "1.1 weft-aa, 2 nginx"),
            ("via", "1.1 weft-aa"),
            ("via", "1.1 weft-bb"),
        ]);
        assert_eq!(count_via(&headers, "weft-aa"), 2);
        assert_eq!(count_via(&headers, "weft-a"), 0);
    }

    #[test]
    fn forbidden_trailers_are_dropped_and_order_of_repeats_is_kept() {
        let mut trailers = map(&[
            ("content-length", "1"),
            ("host", "a"),
            ("authorization", "b"),
            ("weft-client-id", "c"),
            ("x-sum", "1"),
            ("x-sum", "2"),
            ("grpc-status", "0"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status", "x-sum"]);
        assert_eq!(
            trailers.get_all("x-sum").iter().collect::<Vec<_>>(),
            ["1", "2"]
        );
    }

    #[test]
    fn cookies_are_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(
            headers.get_all(COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2"]
        );
    }
}

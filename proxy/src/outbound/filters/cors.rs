//! Which pages of other origins may call (Fetch standard, section 3.3; Gateway API v1, HTTPCORSFilter). Pure.
//!
//! A preflight is answered here and never reaches an application. Any other request passes, whatever its
//! origin: it is the browser that keeps the answer from a page, by the fields that are written or left out
//! here. Where the filter is in force it alone says so: what an application says of these things is replaced.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use weft_config::table::Cors;

use super::super::instead::Reply;
use crate::record;

const ANY: &str = "*";
const STAR: HeaderValue = HeaderValue::from_static(ANY);
const TRUE: HeaderValue = HeaderValue::from_static("true");
/// The origin, for which an answer is, and what a preflight asks.
const BY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
const BY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "origin, access-control-request-method, access-control-request-headers",
);

/// What the answer to a request says to the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Grant {
    /// The request says that it comes from a page.
    has_origin: bool,
    /// Who may read the answer: the origin of the request, all, or none.
    allowed: Option<HeaderValue>,
    credentials: bool,
    exposed: Option<HeaderValue>,
    /// The answer would say something else to another origin.
    varies: bool,
}

impl Grant {
    /// Of a request.
    pub(super) fn of(cors: &Cors, headers: &HeaderMap) -> Self {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (origin, more) = (origins.next(), origins.next());
        let to_all = is_any(&cors.origins);
        // Two origins are none.
        let origin = origin.filter(|_| more.is_none());
        let known = origin.filter(|origin| to_all || is_allowed(cors, origin));
        let as_all = to_all && !cors.credentials;
        Self {
            has_origin: origin.is_some() || more.is_some(),
            allowed: known.map(|origin| if as_all { STAR } else { origin.clone() }),
            credentials: cors.credentials,
            // With credentials a star would be the name of a field, and there is nothing to name in its
            // place.
            exposed: (!is_any(&cors.exposed) || !cors.credentials)
                .then(|| joined(&cors.exposed))
                .flatten(),
            varies: !as_all,
        }
    }

    /// Whether the request says that it comes from a page.
    pub(super) fn has_origin(&self) -> bool {
        self.has_origin
    }

    /// Writes it into an answer.
    pub(in super::super) fn write(&self, headers: &mut HeaderMap) {
        if self.has_origin {
            headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
            headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
            headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        }
        if let Some(allowed) = &self.allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed.clone());
            if self.credentials {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
            }
            if let Some(exposed) = &self.exposed {
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
            }
        }
        if self.varies {
            headers.append(VARY, BY_ORIGIN);
        }
    }
}

/// The answer to a preflight; none if the request is none.
pub(super) fn preflight(cors: &Cors, head: &Parts, route: &Arc<str>) -> Option<Reply> {
    let asked = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
        return None;
    }
    let grant = Grant::of(cors, &head.headers);
    let mut headers = HeaderMap::new();
    if grant.allowed.is_some() {
        let methods = listed(&cors.methods, cors.credentials, || Some(asked.clone()));
        // These need no permission (Fetch, CORS-safelisted method).
        let methods = methods.unwrap_or(HeaderValue::from_static("GET, HEAD, POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        let wanted = || wanted_headers(&head.headers);
        if let Some(allowed) = listed(&cors.headers, cors.credentials, wanted) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.into());
    }
    grant.write(&mut headers);
    if grant.varies {
        headers.insert(VARY, BY_PREFLIGHT);
    }
    Some(Reply {
        kind: record::Reply::Preflight,
        status: StatusCode::NO_CONTENT,
        headers,
        route: Arc::clone(route),
    })
}

/// What is listed; a star for all where no credentials come along, and else what was asked for.
fn listed(
    list: &[String],
    credentials: bool,
    asked: impl FnOnce() -> Option<HeaderValue>,
) -> Option<HeaderValue> {
    match (is_any(list), credentials) {
        (true, true) => asked(),
        (true, false) => Some(STAR),
        (false, _) => joined(list),
    }
}

/// The fields that a preflight asks for, as it names them.
fn wanted_headers(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines: Vec<&[u8]> = lines(headers, &ACCESS_CONTROL_REQUEST_HEADERS).collect();
    let whole = lines.join(&b", "[..]);
    (!whole.is_empty()).then(|| HeaderValue::from_bytes(&whole).ok())?
}

fn lines<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

fn is_any(list: &[String]) -> bool {
    list.iter().any(|one| one == ANY)
}

fn joined(list: &[String]) -> Option<HeaderValue> {
    let text = list.join(", ");
    (!text.is_empty()).then(|| HeaderValue::try_from(text).ok())?
}

fn is_allowed(cors: &Cors, origin: &HeaderValue) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(Origin::parse) else {
        return false;
    };
    let mut entries = cors.origins.iter().filter_map(|entry| Origin::parse(entry));
    entries.any(|entry| entry.covers(&origin))
}

/// An origin, or an entry of those that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u16,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (host, port) = match rest.rsplit_once(':') {
            // Not within an address of IPv6.
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (rest, None),
        };
        let well_known = if scheme.eq_ignore_ascii_case("https") {
            443
        } else {
            80
        };
        (!host.is_empty()).then_some(Self {
            scheme,
            host,
            port: port.unwrap_or(well_known),
        })
    }

    /// Whether this entry allows the origin. A star stands for any text before what follows it, dots
    /// included, but not for none.
    fn covers(&self, origin: &Origin<'_>) -> bool {
        let same_host = match self.host.strip_prefix(ANY) {
            None => self.host.eq_ignore_ascii_case(origin.host),
            Some(end) => {
                let before = origin.host.len().checked_sub(end.len());
                let before = before.filter(|before| *before > 0);
                before
                    .and_then(|before| origin.host.get(before..))
                    .is_some_and(|one| one.eq_ignore_ascii_case(end))
            }
        };
        same_host && self.port == origin.port && self.scheme.eq_ignore_ascii_case(origin.scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|one| (*one).to_owned()).collect()
    }

    fn cors(
        origins: &[&str],
        methods: &[&str],
        headers: &[&str],
        exposed: &[&str],
        credentials: bool,
    ) -> Cors {
        Cors {
            origins: strings(origins),
            credentials,
            methods: strings(methods),
            headers: strings(headers),
            exposed: strings(exposed),
            max_age: 3600,
        }
    }

    fn rules() -> [Cors; 5] {
        let all = ["*"];
        [
            cors(
                &["https://www.foo.com", "https://*.bar.com"],
                &["GET", "OPTIONS"],
                &["x-1", "x-2"],
                &["x-3", "x-4"],
                true,
            ),
            cors(&["https://www.foo.com"], &all, &[], &[], false),
            cors(&all, &["PUT"], &[], &[], false),
            cors(&all, &all, &all, &[], true),
            cors(&all, &all, &all, &[], false),
        ]
    }

    fn head(method: &str, origin: &str, asks: Option<&str>, wants: Option<&str>) -> Parts {
        let mut request = http::Request::builder()
            .method(method)
            .header(ORIGIN, origin);
        if let Some(asks) = asks {
            request = request.header(ACCESS_CONTROL_REQUEST_METHOD, asks);
        }
        if let Some(wants) = wants {
            request = request.header(ACCESS_CONTROL_REQUEST_HEADERS, wants);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// `NAME: VALUE` of what a browser reads, in the order of names; the prefix `access-control-` is left
    /// out.
    fn said(headers: &HeaderMap) -> Vec<String> {
        let mut said: Vec<String> = headers
            .iter()
            .filter_map(|(name, value)| {
                let name = name.as_str().strip_prefix("access-control-")?;
                Some(format!("{name}: {}", value.to_str().unwrap()))
            })
            .collect();
        said.sort();
        said
    }

    #[test]
    fn preflights_are_answered_by_the_table_of_g47() {
        let c1 = |origin: &str| {
            vec![
                "allow-credentials: true".into(),
                "allow-headers: x-1, x-2".into(),
                "allow-methods: GET, OPTIONS".into(),
                format!("allow-origin: {origin}"),
                "expose-headers: x-3, x-4".into(),
                "max-age: 3600".into(),
            ]
        };
        let list = |list: &[&str]| strings(list);
        let foo = "https://www.foo.com";
        let c2 = list(&[
            "allow-methods: *",
            "allow-origin: https://www.foo.com",
            "max-age: 3600",
        ]);
        let c3 = list(&["allow-methods: PUT", "allow-origin: *", "max-age: 3600"]);
        let c4 = list(&[
            "allow-credentials: true",
            "allow-headers: x-1, x-2",
            "allow-methods: PUT",
            "allow-origin: https://other.foo.com",
            "max-age: 3600",
        ]);
        let c5 = list(&[
            "allow-headers: *",
            "allow-methods: *",
            "allow-origin: *",
            "max-age: 3600",
        ]);
        let both = Some("x-1, x-2");
        let other = "https://other.foo.com";
        let bar = "https://www.bar.com";
        let deep = "https://xpto.www.bar.com";
        for (id, rule, origin, asks, wants, expected) in [
            ("G47.1", 0, foo, "GET", both, c1(foo)),
            ("G47.2", 0, bar, "GET", both, c1(bar)),
            ("G47.3", 0, deep, "GET", both, c1(deep)),
            ("G47.4", 0, "https://foobar.com", "GET", None, vec![]),
            ("not bar.com", 0, "https://bar.com", "GET", None, vec![]),
            (
                "another scheme",
                0,
                "http://www.foo.com",
                "GET",
                None,
                vec![],
            ),
            (
                "another port",
                0,
                "https://www.foo.com:8443",
                "GET",
                None,
                vec![],
            ),
            (
                "its port, written",
                0,
                "https://www.foo.com:443",
                "GET",
                both,
                c1("https://www.foo.com:443"),
            ),
            ("no origin at all", 0, "null", "GET", None, vec![]),
            ("G47.8", 1, foo, "POST", None, c2),
            ("G47.10", 2, "https://foobar.com", "PUT", None, c3.clone()),
            ("G47.11", 2, "https://foobar.com:12345", "PUT", None, c3),
            ("G47.14", 3, other, "PUT", both, c4),
            ("G47.15", 4, other, "PUT", both, c5),
        ] {
            let head = head("OPTIONS", origin, Some(asks), wants);
            let reply = preflight(&rules()[rule], &head, &Arc::from("r")).unwrap();
            assert_eq!(reply.status, StatusCode::NO_CONTENT, "{id}");
            assert_eq!(said(&reply.headers), expected, "{id}");
        }
        // With credentials nothing is allowed that was not asked for.
        let head = head("OPTIONS", other, Some("PUT"), None);
        let reply = preflight(&rules()[3], &head, &Arc::from("r")).unwrap();
        assert!(!reply.headers.contains_key(ACCESS_CONTROL_ALLOW_HEADERS));
    }

    #[test]
    fn any_other_request_passes_and_its_answer_says_who_may_read_it() {
        let exposed = "expose-headers: x-3, x-4";
        for (id, method, rule, origin, expected) in [
            (
                "G47.5",
                "GET",
                0,
                "https://www.foo.com",
                vec![
                    "allow-credentials: true",
                    "allow-origin: https://www.foo.com",
                    exposed,
                ],
            ),
            ("G47.7", "GET", 0, "https://foobar.com", vec![]),
            (
                "G47.12",
                "PUT",
                2,
                "https://foobar.com:12345",
                vec!["allow-origin: *"],
            ),
            (
                "G47.16",
                "GET",
                3,
                "https://other.foo.com",
                vec![
                    "allow-credentials: true",
                    "allow-origin: https://other.foo.com",
                ],
            ),
            (
                "G47.17",
                "GET",
                4,
                "https://other.foo.com",
                vec!["allow-origin: *"],
            ),
        ] {
            // A request that is no OPTIONS is no preflight, whatever it says beside.
            let head = head(method, origin, Some("GET"), Some("x-1"));
            assert!(
                preflight(&rules()[rule], &head, &Arc::from("r")).is_none(),
                "{id}"
            );
            let mut answer = HeaderMap::new();
            answer.insert(
                ACCESS_CONTROL_ALLOW_ORIGIN,
                HeaderValue::from_static("https://evil.com"),
            );
            Grant::of(&rules()[rule], &head.headers).write(&mut answer);
            assert_eq!(said(&answer), expected, "{id}");
            let varies = answer.contains_key(VARY);
            assert_eq!(varies, !expected.contains(&"allow-origin: *"), "{id}");
        }
        let options = head("OPTIONS", "https://www.foo.com", None, None);
        assert!(preflight(&rules()[0], &options, &Arc::from("r")).is_none());
    }

    #[test]
    fn an_answer_to_no_page_keeps_what_the_application_says() {
        let mut answer = HeaderMap::new();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, STAR);
        Grant::of(&rules()[0], &HeaderMap::new()).write(&mut answer);
        assert_eq!(said(&answer), ["allow-origin: *"]);
        assert_eq!(answer[VARY], "origin");
    }

    #[test]
    fn exposing_all_with_credentials_names_nothing() {
        let cors = cors(&["*"], &[], &[], &["*"], true);
        let head = head("GET", "https://a.com", None, None);
        assert_eq!(Grant::of(&cors, &head.headers).exposed, None);
    }
}

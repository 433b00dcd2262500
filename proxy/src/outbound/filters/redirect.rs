//! Answers with another URL (Gateway API v1, HTTPRequestRedirectFilter). Pure.

use std::sync::Arc;

use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use weft_config::table::{Redirect, Scheme};

use super::super::instead::Reply;
use super::{Addressed, rewrite};
use crate::failure::{Failure, Reason};
use crate::record;

pub(super) fn answer(
    redirect: &Redirect,
    head: &Parts,
    addressed: Addressed<'_>,
    route: &Arc<str>,
) -> Result<Reply, Failure> {
    let location = location(redirect, head, addressed);
    let location = HeaderValue::try_from(&location).map_err(|_| {
        let detail = format!("{route} redirects to {location:?}, which no field can say");
        Failure::new(Reason::NoBackend, detail)
    })?;
    let status = StatusCode::from_u16(redirect.status).ok();
    Ok(Reply {
        kind: record::Reply::Redirect,
        // The default of Gateway API.
        status: status
            .filter(StatusCode::is_redirection)
            .unwrap_or(StatusCode::FOUND),
        headers: HeaderMap::from_iter([(LOCATION, location)]),
        route: Arc::clone(route),
    })
}

/// The URL. What the filter does not say is that of the request, whose scheme is `http`: sidecars are spoken
/// to in no other. Its port is that of the Service that was addressed, as clients of a listener write ports
/// that mean nothing elsewhere.
fn location(redirect: &Redirect, head: &Parts, addressed: Addressed<'_>) -> String {
    let scheme = redirect.scheme.unwrap_or(Scheme::Http);
    let well_known = match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => well_known,
        (None, None) => addressed.port(),
    };
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let host = redirect.host.as_deref().unwrap_or(addressed.host());
    let path = head.uri.path();
    let query = head.uri.query();
    let target = match (&redirect.path, query) {
        (Some(change), _) => rewrite::target(path, query, change),
        (None, Some(query)) => format!("{path}?{query}"),
        (None, None) => path.to_owned(),
    };
    // `OPTIONS *` has no path to go to.
    let target = if target.starts_with('/') {
        &*target
    } else {
        "/"
    };
    if port == well_known {
        format!("{scheme}://{host}{target}")
    } else {
        format!("{scheme}://{host}:{port}{target}")
    }
}

#[cfg(test)]
mod tests {
    use weft_config::table::PathChange;

    use super::*;

    /// What a redirect answers to a request for the Service's port.
    fn answered(change: impl Fn(&mut Redirect), target: &str, port: u16) -> (u16, String) {
        let mut redirect = Redirect {
            scheme: None,
            host: None,
            path: None,
            port: None,
            status: 302,
        };
        change(&mut redirect);
        let request = http::Request::builder().uri(target);
        let head = request.body(()).unwrap().into_parts().0;
        let label = format!("echo.mesh:{port}");
        let addressed = Addressed {
            authority: Some("Echo:5001"),
            label: &label,
        };
        let reply = answer(&redirect, &head, addressed, &Arc::from("r")).unwrap();
        let location = reply.headers[LOCATION].to_str().unwrap();
        (reply.status.as_u16(), location.to_owned())
    }

    #[test]
    fn the_port_is_the_services_unless_a_scheme_or_a_port_is_said() {
        use Scheme::{Http, Https};
        for (id, addressed, scheme, port, expected) in [
            ("G39", 80, None, None, "http://example.org/x"),
            ("G39", 80, None, Some(80), "http://example.org/x"),
            ("G39", 80, None, Some(8080), "http://example.org:8080/x"),
            ("G39", 80, Some(Https), None, "https://example.org/x"),
            ("G39", 80, Some(Https), Some(443), "https://example.org/x"),
            (
                "G39",
                80,
                Some(Https),
                Some(8443),
                "https://example.org:8443/x",
            ),
            ("G39", 8080, None, None, "http://example.org:8080/x"),
            ("G39", 8080, None, Some(80), "http://example.org/x"),
            ("G39", 8080, Some(Https), None, "https://example.org/x"),
            ("G39", 8080, Some(Http), None, "http://example.org/x"),
            (
                "443 is not plain",
                443,
                None,
                None,
                "http://example.org:443/x",
            ),
        ] {
            let change = |redirect: &mut Redirect| {
                redirect.host = Some("example.org".into());
                redirect.scheme = scheme;
                redirect.port = port;
            };
            assert_eq!(
                answered(change, "/x", addressed).1,
                expected,
                "{id}: {addressed}"
            );
        }
    }

    #[test]
    fn what_is_not_said_is_that_of_the_request() {
        let prefix = |matched: &str, with: &str| {
            Some(PathChange::Prefix {
                matched: matched.into(),
                with: with.into(),
            })
        };
        let full = |path: &str| Some(PathChange::Full(path.into()));
        for (id, host, path, status, target, expected) in [
            (
                "M10",
                Some("example.org"),
                None,
                301,
                "/host",
                (301, "http://example.org/host"),
            ),
            (
                "M11",
                None,
                None,
                303,
                "/redirect",
                (303, "http://Echo/redirect"),
            ),
            (
                "M12",
                None,
                None,
                307,
                "/t?q=%20",
                (307, "http://Echo/t?q=%20"),
            ),
            ("M13", None, None, 308, "/p", (308, "http://Echo/p")),
            (
                "M14",
                None,
                prefix("/original-prefix", "/replacement-prefix"),
                302,
                "/original-prefix/lemon?a=b",
                (302, "http://Echo/replacement-prefix/lemon?a=b"),
            ),
            (
                "M14",
                None,
                full("/full-path-replacement"),
                302,
                "/full/path/original",
                (302, "http://Echo/full-path-replacement"),
            ),
            (
                "M14",
                Some("example.org"),
                prefix("/path-and-host", "/replacement-prefix"),
                302,
                "/path-and-host",
                (302, "http://example.org/replacement-prefix"),
            ),
            (
                "no status of a redirect",
                None,
                None,
                200,
                "/",
                (302, "http://Echo/"),
            ),
            (
                "a target without a path",
                None,
                None,
                302,
                "*",
                (302, "http://Echo/"),
            ),
            (
                "an absolute target",
                None,
                None,
                302,
                "http://Echo?a",
                (302, "http://Echo/?a"),
            ),
        ] {
            let change = |redirect: &mut Redirect| {
                redirect.host = host.map(str::to_owned);
                redirect.path = path.clone();
                redirect.status = status;
            };
            let (status, location) = answered(change, target, 80);
            assert_eq!((status, &*location), expected, "{id}: {target}");
        }
        let port = |redirect: &mut Redirect| redirect.port = Some(8083);
        assert_eq!(
            answered(port, "/port", 80).1,
            "http://Echo:8083/port",
            "M15"
        );
        let scheme = |redirect: &mut Redirect| redirect.scheme = Some(Scheme::Https);
        assert_eq!(
            answered(scheme, "/scheme", 80).1,
            "https://Echo/scheme",
            "M16"
        );
    }
}

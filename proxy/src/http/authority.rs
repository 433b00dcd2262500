//! One canonical authority per request: the value that weft routes by is the value that policies judge and
//! that is sent on, whatever else the request says. Pure.

use std::borrow::Cow;

use http::header::HOST;
use http::request::Parts;
use http::{Uri, Version};

use crate::failure::{Failure, Reason};

/// The service that a request names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    /// As the application sent it. The destination gets this value.
    pub(crate) text: &'a str,
    /// Lower case and without a trailing dot: the value to route by.
    pub(crate) host: Cow<'a, str>,
    /// The port, if one was written.
    pub(crate) port: Option<u16>,
}

/// Finds the one authority of a request; `None` for HTTP/1.0 without Host.
///
//= https://www.rfc-editor.org/rfc/rfc9112#section-3.2
//# A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
//# lacks a Host header field and to any request message that contains more than one Host header
//# field line or a Host header field with an invalid field value.
//
//= https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
//# When a proxy receives a request with an absolute-form of request-target, the proxy MUST ignore the
//# received Host header field (if any) and instead replace it with the host information of the
//# request-target.
//
// HTTP/2 has no absolute form: there a Host beside another `:authority` is malformed (RFC 9113 section
// 8.3.1).
pub(crate) fn canonical(head: &Parts) -> Result<Option<Authority<'_>>, Failure> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(host.to_str().map_err(|_| bad("Host is not ASCII"))?),
        (Some(_), Some(_)) => return Err(bad("more than one Host")),
    };
    let target = head.uri.authority().map(http::uri::Authority::as_str);
    let text = match (target, host) {
        (None, None) if head.version == Version::HTTP_10 => return Ok(None),
        (_, None) if head.version == Version::HTTP_11 => return Err(bad("no Host")),
        (None, None) => return Err(bad("no :authority and no Host")),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(target), Some(host)) if head.version <= Version::HTTP_11 => {
            if !host.is_empty() {
                parse(host)?;
            }
            target
        }
        (Some(target), Some(host)) if same(&head.uri, target, host) => host,
        (Some(_), Some(_)) => return Err(bad("Host differs from :authority")),
    };
    parse(text).map(Some)
}

/// Equal but for case and the scheme's default port.
fn same(uri: &Uri, target: &str, host: &str) -> bool {
    let plain = |text: &str| -> usize {
        let default = if uri.scheme_str() == Some("https") {
            ":443"
        } else {
            ":80"
        };
        text.strip_suffix(default).unwrap_or(text).len()
    };
    target
        .get(..plain(target))
        .zip(host.get(..plain(host)))
        .is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// Splits and normalises `host[:port]`.
fn parse(text: &str) -> Result<Authority<'_>, Failure> {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text[colon..].contains(']') => (
            &text[..colon],
            Some(port(&text[colon + 1..]).ok_or_else(|| bad("Host has a bad port"))?),
        ),
        _ => (text, None),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let valid = match literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        // Names and IPv4 only: no userinfo, no percent-encoding, no sub-delimiters.
        None => {
            host.split('.').all(|label| !label.is_empty())
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        }
    };
    if !valid {
        return Err(bad("Host is not a name or address"));
    }
    let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    };
    Ok(Authority { text, host, port })
}

fn port(text: &str) -> Option<u16> {
    // u16's FromStr would take a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn bad(detail: &'static str) -> Failure {
    Failure::new(Reason::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, uri: &str, hosts: &[&str]) -> Parts {
        let mut builder = http::Request::builder().version(version).uri(uri);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn one_host_is_normalised_for_routing_and_kept_for_sending() {
        let head = head(Version::HTTP_11, "/", &["Orders.Shop.:80"]);
        let authority = canonical(&head).unwrap().unwrap();
        assert_eq!(
            (authority.host.as_ref(), authority.port),
            ("orders.shop", Some(80))
        );
        assert_eq!(authority.text, "Orders.Shop.:80");
    }

    #[test]
    fn unclear_hosts_are_refused() {
        for hosts in [
            &[][..],
            &["a", "b"],
            &["a", "a"],
            &[""],
            &["."],
            &["a.."],
            &[".a"],
            &["a..b"],
            &["user@a"],
            &["a:80@b"],
            &["a:"],
            &["a:+80"],
            &["a:65536"],
            &["a:80:80"],
            &["a b"],
            &["a/b"],
            &["a,b"],
            &["[::1"],
            &["::1"],
            &["[zz]"],
        ] {
            let outcome = canonical(&head(Version::HTTP_11, "/", hosts)).map(|_| ());
            // An empty port is refused, too: no client writes one on purpose.
            assert_eq!(
                outcome.map_err(|failure| failure.reason),
                Err(Reason::BadRequest),
                "{hosts:?}"
            );
        }
    }

    #[test]
    fn an_absolute_uri_comes_before_host_which_must_be_there_and_valid() {
        for version in [Version::HTTP_10, Version::HTTP_11] {
            for host in ["a.b", "A.b", "c.d", "c.d:81", ""] {
                let head = head(version, "http://a.b:80/x", &[host]);
                let authority = canonical(&head).unwrap().unwrap();
                assert_eq!((authority.text, authority.port), ("a.b:80", Some(80)));
            }
            for hosts in [&["c d"][..], &["c.d", "c.d"]] {
                assert!(canonical(&head(version, "http://a.b/x", hosts)).is_err());
            }
        }
        assert!(canonical(&head(Version::HTTP_11, "http://a.b/x", &[])).is_err());
        assert!(canonical(&head(Version::HTTP_10, "http://a.b/x", &[])).is_ok());
    }

    #[test]
    fn http2_needs_no_host() {
        assert_eq!(
            canonical(&head(Version::HTTP_2, "http://a.b/x", &[]))
                .unwrap()
                .unwrap()
                .host,
            "a.b"
        );
        assert!(canonical(&head(Version::HTTP_2, "http://a.b/x", &["c.d"])).is_err());
    }

    #[test]
    fn http10_may_lack_host() {
        assert_eq!(canonical(&head(Version::HTTP_10, "/", &[])), Ok(None));
    }

    #[test]
    fn an_ipv6_literal_is_a_host() {
        let head = head(Version::HTTP_11, "/", &["[::1]:5001"]);
        assert_eq!(canonical(&head).unwrap().unwrap().port, Some(5001));
    }
}

//! Request heads (RFC 9114 sections 4.3.1 and 4.4). Pure. Extended CONNECT (RFC 9220) is not announced, so
//! `:protocol` counts as an undefined pseudo-header field.

use bytes::{Bytes, BytesMut};
use http::header;
use http::request::Parts;
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version};

use super::fields::{Section, Writer, check_connection_specific, declared_length};
use super::{BodyLength, MessageError};
use crate::error::HeadError;

/// Reads a request head, and which body it may have.
///
/// The URI holds the one authority; `host` is not among the headers.
pub(crate) fn decode_request(section: &Bytes) -> Result<(Parts, BodyLength), MessageError> {
    let mut section = Section::decode(section)?;
    if section.status.is_some() {
        return malformed(":status in a request");
    }
    let method = section
        .method
        .take()
        .ok_or(MessageError::Malformed("no :method"))?;
    let method =
        Method::from_bytes(&method).map_err(|_| MessageError::Malformed("invalid :method"))?;
    let authority = authority(&mut section)?;

    let (mut head, ()) = http::Request::new(()).into_parts();
    let mut length = BodyLength::declared(section.content_length);
    head.uri = if method == Method::CONNECT {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.4
        //# The :scheme and :path pseudo-header fields are omitted
        if section.scheme.is_some() || section.path.is_some() {
            return malformed("CONNECT with :scheme or :path");
        }
        //= https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
        //# A CONNECT request message does not have content.
        if section.content_length.is_some() {
            return malformed("CONNECT with content-length");
        }
        length = BodyLength::UNDECLARED;
        let authority = authority
            .filter(|authority| authority.port_u16().is_some())
            .ok_or(MessageError::Malformed("CONNECT without host and port"))?;
        let mut parts = uri::Parts::default();
        parts.authority = Some(authority);
        uri(parts)?
    } else {
        target(&mut section, &method, authority)?
    };
    head.method = method;
    head.version = Version::HTTP_3;
    head.headers = section.headers;
    Ok((head, length))
}

/// Writes a request head as a HEADERS frame; also returns which body it may have.
pub(crate) fn encode_request(
    head: &Parts,
    size_max: u64,
) -> Result<(BytesMut, BodyLength), HeadError> {
    let host = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = head.uri.authority().map(|a| a.as_str().as_bytes());
    let authority = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(HeadError::ContradictedAuthority);
        }
        (Some(authority), _) => authority,
        (None, Some(host)) if !host.is_empty() => host,
        (None, _) => return Err(HeadError::NoAuthority),
    };

    let tunnel = head.method == Method::CONNECT;
    let mut writer = Writer::new(size_max);
    writer.pseudo(":method", head.method.as_str().as_bytes())?;
    if tunnel && head.uri.port_u16().is_none() {
        return Err(HeadError::ConnectWithoutPort);
    }
    if !tunnel {
        let scheme = head.uri.scheme_str().unwrap_or("https");
        writer.pseudo(":scheme", scheme.as_bytes())?;
    }
    writer.pseudo(":authority", authority)?;
    if !tunnel {
        let path = match head.uri.path_and_query().map(PathAndQuery::as_str) {
            None | Some("") if head.method == Method::OPTIONS => "*",
            None | Some("") => "/",
            Some(path) => path,
        };
        if !is_path(path.as_bytes(), &head.method) {
            return Err(HeadError::InvalidPath);
        }
        writer.pseudo(":path", path.as_bytes())?;
    }
    let length = declared_length(&head.headers)?;
    for (name, value) in &head.headers {
        if name == header::HOST || (tunnel && name == header::CONTENT_LENGTH) {
            continue;
        }
        check_connection_specific(name, value)?;
        writer.field(name.as_str().as_bytes(), value)?;
    }
    let length = if tunnel {
        BodyLength::UNDECLARED
    } else {
        BodyLength::declared(length)
    };
    Ok((writer.finish(), length))
}

/// The one authority of a request, from `:authority` and `host`; `host` is removed.
fn authority(section: &mut Section) -> Result<Option<Authority>, MessageError> {
    let mut hosts = section.headers.get_all(header::HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return malformed("several hosts");
    }
    section.headers.remove(header::HOST);
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
    //# If both fields are present, they MUST contain the same value. If neither is present in the
    //# request, the request MUST NOT be treated as valid; they MUST NOT be empty.
    let raw = match (section.authority.take(), host) {
        (Some(authority), Some(host)) if authority != host.as_bytes() => {
            return malformed("host contradicts :authority");
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => Bytes::copy_from_slice(host.as_bytes()),
        (None, None) => return Ok(None),
    };
    let invalid = MessageError::Malformed("invalid authority");
    let authority = Authority::from_maybe_shared(raw).map_err(|_| invalid)?;
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
    //# The authority MUST NOT include the deprecated userinfo subcomponent
    let text = authority.as_str();
    if text.contains('@') {
        return Err(invalid);
    }
    let host = authority.host();
    let port = text.strip_prefix(host).ok_or(invalid)?;
    let port_is_valid = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
        });
    if host.is_empty() || !port_is_valid {
        return Err(invalid);
    }
    Ok(Some(authority))
}

fn target(
    section: &mut Section,
    method: &Method,
    authority: Option<Authority>,
) -> Result<Uri, MessageError> {
    let scheme = section
        .scheme
        .take()
        .ok_or(MessageError::Malformed("no :scheme"))?;
    let scheme =
        Scheme::try_from(&scheme[..]).map_err(|_| MessageError::Malformed("invalid :scheme"))?;
    let path = section
        .path
        .take()
        .ok_or(MessageError::Malformed("no :path"))?;
    if !is_path(&path, method) {
        return malformed("invalid :path");
    }
    let path = PathAndQuery::from_maybe_shared(path)
        .map_err(|_| MessageError::Malformed("invalid :path"))?;
    let mut parts = uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority.ok_or(MessageError::Malformed("no authority"))?);
    parts.path_and_query = Some(path);
    uri(parts)
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
//# This pseudo-header field MUST NOT be empty for "http" or "https" URIs; ... MUST include a value
//# of '/' ... An OPTIONS request that does not include a path component includes the value '*'.
fn is_path(path: &[u8], method: &Method) -> bool {
    match path {
        b"*" => method == Method::OPTIONS,
        // A fragment is not part of a request target; the URI type would silently cut it off.
        [b'/', rest @ ..] => rest.iter().all(|b| b.is_ascii_graphic() && *b != b'#'),
        _ => false,
    }
}

fn uri(parts: uri::Parts) -> Result<Uri, MessageError> {
    Uri::from_parts(parts).map_err(|_| MessageError::Malformed("invalid URI"))
}

fn malformed<T>(reason: &'static str) -> Result<T, MessageError> {
    Err(MessageError::Malformed(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http3::qpack::Encoder;

    fn decode(fields: &[(&str, &str)]) -> Result<(Parts, BodyLength), MessageError> {
        let mut encoder = Encoder::new();
        for (name, value) in fields {
            encoder.field(name.as_bytes(), value.as_bytes(), false);
        }
        decode_request(&Bytes::copy_from_slice(encoder.section()))
    }

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "orders.shop"),
        (":path", "/a?b=c"),
    ];

    fn get_with(extra: &[(&str, &str)]) -> Result<(Parts, BodyLength), MessageError> {
        decode(&[&GET[..], extra].concat())
    }

    fn without(name: &str) -> Vec<(&'static str, &'static str)> {
        GET.iter().copied().filter(|f| f.0 != name).collect()
    }

    #[test]
    fn a_head_survives_the_round_trip() {
        let request = http::Request::post("https://orders.shop:8080/x/y?z=1")
            .header("content-length", "5")
            .header("x-one", "1")
            .header("x-one", "2")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (head, ()) = request.into_parts();
        let (frame, length) = encode_request(&head, u64::MAX).unwrap();
        assert_eq!(length.left(), Some(5));
        let (back, length) = decode_request(&frame.freeze().slice(5..)).unwrap();
        assert_eq!(length.left(), Some(5));
        assert_eq!(back.method, head.method);
        assert_eq!(back.uri, head.uri);
        assert_eq!(back.headers, head.headers);
        assert_eq!(back.version, Version::HTTP_3);
    }

    #[test]
    fn connect_says_method_and_authority_only() {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = Method::CONNECT;
        head.uri = "orders.shop:5432".parse().unwrap();
        let (frame, _) = encode_request(&head, u64::MAX).unwrap();
        let section = frame.freeze().slice(5..);
        let mut names = Vec::new();
        let limits = crate::http3::qpack::Limits {
            size: 1000,
            fields: 10,
            overhead: 32,
        };
        crate::http3::qpack::decode(&section, limits, |field| {
            names.push(field.name);
            Ok::<_, MessageError>(())
        })
        .unwrap();
        assert_eq!(names, [":method", ":authority"]);
        let (back, length) = decode_request(&section).unwrap();
        assert_eq!(back.uri.authority().unwrap(), "orders.shop:5432");
        assert_eq!(length, BodyLength::UNDECLARED);
        head.uri = "orders.shop".parse().unwrap();
        assert_eq!(
            encode_request(&head, u64::MAX).unwrap_err(),
            HeadError::ConnectWithoutPort
        );
    }

    #[test]
    fn malformed_pseudo_headers_are_refused() {
        let connect = (":method", "CONNECT");
        for fields in [
            without(":method"),
            without(":scheme"),
            without(":authority"),
            without(":path"),
            [&GET[..], &GET[..1]].concat(),
            [&GET[..], &[(":status", "200")]].concat(),
            [&GET[..], &[(":unknown", "1")]].concat(),
            [&GET[..], &[(":protocol", "websocket")]].concat(),
            [&[("x-early", "1")], &GET[..]].concat(),
            [&without(":path")[..], &[(":path", "")]].concat(),
            [&without(":path")[..], &[(":path", "a")]].concat(),
            [&without(":path")[..], &[(":path", "*")]].concat(),
            [&without(":path")[..], &[(":path", "/a#b")]].concat(),
            [&without(":path")[..], &[(":path", "/a b")]].concat(),
            [&without(":path")[..], &[(":path", "/a\u{e9}")]].concat(),
            [&without(":scheme")[..], &[(":scheme", "h ttp")]].concat(),
            [&without(":authority")[..], &[(":authority", "")]].concat(),
            [&without(":authority")[..], &[(":authority", "u@h")]].concat(),
            [&without(":authority")[..], &[(":authority", "a:80@b")]].concat(),
            [&without(":authority")[..], &[(":authority", "h:99999")]].concat(),
            [&without(":authority")[..], &[(":authority", "h:+80")]].concat(),
            [&without(":authority")[..], &[(":authority", ":80")]].concat(),
            [&without(":authority")[..], &[(":authority", "h/x")]].concat(),
            [&without(":method")[..], &[(":method", "G T")]].concat(),
            vec![connect],
            vec![connect, (":authority", "h")],
            vec![connect, (":authority", "h:1"), (":path", "/")],
            vec![connect, (":authority", "h:1"), (":scheme", "https")],
            vec![connect, (":authority", "h:1"), ("content-length", "0")],
            vec![connect, (":authority", "h:1"), (":protocol", "x")],
            [
                &[connect, (":protocol", "websocket")],
                &without(":method")[..],
            ]
            .concat(),
        ] {
            assert!(
                matches!(decode(&fields), Err(MessageError::Malformed(_))),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn smuggling_fields_are_refused() {
        for field in [
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
            ("X-Upper", "1"),
            ("x y", "1"),
            ("", "1"),
            ("x", " padded"),
            ("x", "padded\t"),
            ("x", "a\r\nb: c"),
            ("x", "a\0b"),
            ("content-length", "+5"),
            ("content-length", "5, 5"),
            ("content-length", ""),
            ("content-length", "99999999999999999999"),
            ("host", "other.shop"),
        ] {
            assert!(
                matches!(get_with(&[field]), Err(MessageError::Malformed(_))),
                "{field:?}"
            );
        }
        for pair in [
            [("content-length", "5"), ("content-length", "5")],
            [("host", "orders.shop"), ("host", "orders.shop")],
        ] {
            assert!(matches!(get_with(&pair), Err(MessageError::Malformed(_))));
        }
    }

    #[test]
    fn host_becomes_the_authority_and_cookies_are_joined() {
        let fields = [
            &without(":authority")[..],
            &[("host", "a.b:1"), ("cookie", "x=1"), ("cookie", "y=2")],
        ]
        .concat();
        let (head, _) = decode(&fields).unwrap();
        assert_eq!(head.uri.authority().unwrap(), "a.b:1");
        assert!(!head.headers.contains_key("host"));
        assert_eq!(head.headers.get_all("cookie").iter().count(), 1);
        assert_eq!(head.headers["cookie"], "x=1; y=2");
        let (head, _) = get_with(&[("host", "orders.shop")]).unwrap();
        assert!(!head.headers.contains_key("host"));
    }

    #[test]
    fn options_may_address_the_whole_server() {
        let fields = [
            (":method", "OPTIONS"),
            (":scheme", "https"),
            (":authority", "h"),
            (":path", "*"),
        ];
        assert_eq!(decode(&fields).unwrap().0.uri.path(), "*");
    }

    #[test]
    fn what_cannot_be_said_is_not_sent() {
        let (mut head, ()) = http::Request::get("/x").body(()).unwrap().into_parts();
        assert_eq!(
            encode_request(&head, 1000).unwrap_err(),
            HeadError::NoAuthority
        );
        head.headers.insert("host", HeaderValue::from_static("h"));
        assert!(encode_request(&head, 1000).is_ok());
        assert_eq!(encode_request(&head, 100).unwrap_err(), HeadError::TooLarge);
        head.headers
            .insert("transfer-encoding", HeaderValue::from_static("chunked"));
        assert_eq!(
            encode_request(&head, 1000).unwrap_err(),
            HeadError::ConnectionSpecific
        );
    }

    #[test]
    fn too_many_fields_are_too_large() {
        let many = vec![("x", "1"); 200];
        assert_eq!(get_with(&many).unwrap_err(), MessageError::TooLarge);
    }
}

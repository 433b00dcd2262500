//! Where a message ends, in every version and direction: HTTP/1 marks it by a length, a coding or the end of
//! the connection, HTTP/2 and the wire by the end of a stream, so each must be translated into the others.
//! The applications here record what they receive; real servers are in `framing_of_servers.rs`, and the
//! fields that pass in `framing_of_fields.rs`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::harness::{
    Answer, Client, Connection, Content, Http2, Mesh, Origin, Reply, Seen, Shop, Version,
};

const VERSIONS: [Version; 3] = [Version::Http10, Version::Http11, Version::Http2];

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW",
];

const CONTENTS: [Content; 6] = [
    Content::None,
    Content::Sized(""),
    Content::Sized("abc"),
    Content::Streamed(&[]),
    Content::Streamed(&["ab", "c"]),
    Content::Trailed(&["abc"], ("x-sum", "294")),
];

/// Of the response: each names the application's behaviour.
const PATHS: [&str; 9] = [
    "/sized",
    "/streamed",
    "/trailed",
    "/empty",
    "/no-content",
    "/not-modified",
    "/closing",
    "/old",
    "/old-kept",
];

/// An application that records.
enum Application {
    Http1(Origin),
    Http2(Http2, Arc<Mutex<Vec<Seen>>>),
}

impl Application {
    fn http1(mesh: &Mesh) -> Self {
        Self::Http1(Origin::http(mesh.address(), |request, out| {
            let is_head = request.line.starts_with("HEAD ");
            let (head, body, goes_on) = match request.path() {
                "/empty" => ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", "", true),
                "/no-content" => ("HTTP/1.1 204 No Content\r\n", "", true),
                "/not-modified" => (
                    "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n",
                    "",
                    true,
                ),
                "/streamed" => (
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n",
                    "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                    true,
                ),
                "/trailed" => (
                    "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n",
                    "3\r\nabc\r\n0\r\nx-sum: 294\r\n\r\n",
                    true,
                ),
                "/closing" => ("HTTP/1.1 200 OK\r\n", "abc", false),
                "/old" => ("HTTP/1.0 200 OK\r\n", "abc", false),
                "/old-kept" => (
                    "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 3\r\n",
                    "abc",
                    true,
                ),
                _ => ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n", "abc", true),
            };
            write!(out, "{head}\r\n{}", if is_head { "" } else { body })?;
            Ok(goes_on)
        }))
    }

    fn http2(mesh: &Mesh) -> Self {
        let (application, requests) = Http2::recording(mesh.address(), |request| {
            let is_head = request.line.starts_with("HEAD ");
            let length = |status, length: Option<&str>| {
                let head = Response::builder().status(status);
                match length {
                    Some(length) => head.header("content-length", length),
                    None => head,
                }
                .body(())
                .unwrap()
            };
            let (head, pieces, trailers) = match request.path() {
                "/empty" => (length(200, None), &[][..], false),
                "/no-content" => (length(204, None), &[][..], false),
                "/not-modified" => (length(304, Some("3")), &[][..], false),
                "/streamed" => (length(200, None), &["ab", "c"][..], false),
                "/trailed" => (length(200, None), &["abc"][..], true),
                _ => (length(200, Some("3")), &["abc"][..], false),
            };
            let mut answer = Answer {
                head,
                ..Answer::default()
            };
            if trailers {
                let headers = answer.head.headers_mut();
                headers.insert("trailer", HeaderValue::from_static("x-sum"));
            }
            if !is_head {
                answer.pieces = pieces.to_vec();
                let sum = (
                    HeaderName::from_static("x-sum"),
                    HeaderValue::from_static("294"),
                );
                answer.trailers = trailers.then(|| HeaderMap::from_iter([sum]));
            }
            answer
        });
        Self::Http2(application, requests)
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(origin) => origin.address,
            Self::Http2(application, _) => application.address,
        }
    }

    fn protocol(&self) -> &'static str {
        match self {
            Self::Http1(_) => "http",
            Self::Http2(..) => "grpc",
        }
    }

    /// Whether its version can answer so.
    fn answers(&self, path: &str) -> bool {
        matches!(self, Self::Http1(_)) || !matches!(path, "/closing" | "/old" | "/old-kept")
    }

    fn requests(&self) -> Vec<Seen> {
        match self {
            Self::Http1(origin) => origin.requests(),
            Self::Http2(_, requests) => requests.lock().unwrap().clone(),
        }
    }

    /// What it must see of a request: its content, and one mark of its end that its version knows.
    fn expect(&self, seen: &Seen, method: &str, content: Content, what: &str) {
        let what = format!("{what}: {seen:?}");
        assert_eq!(
            String::from_utf8_lossy(&seen.body),
            content.text(),
            "{what}"
        );
        assert!(seen.line.starts_with(&format!("{method} /")), "{what}");
        let length = seen.header("content-length");
        let coding = seen.header("transfer-encoding");
        if let Content::Sized(text) = content {
            assert_eq!(length, Some(text.len().to_string().as_str()), "{what}");
        }
        if let Content::Trailed(_, (name, value)) = content {
            assert_eq!(
                seen.trailers,
                [(name.to_owned(), value.to_owned())],
                "{what}"
            );
        } else {
            assert_eq!(seen.trailers, [], "{what}");
        }
        // RFC 9110 section 8.6: a method for which content has a meaning declares that there is none, others
        // declare nothing.
        let means_content = matches!(method, "POST" | "PUT" | "PATCH");
        match self {
            Self::Http1(_) => {
                assert!(length.is_none() || coding.is_none(), "{what}");
                // RFC 9112 section 6.1: the last coding is chunked; weft uses no other.
                assert!(coding.is_none_or(|coding| coding == "chunked"), "{what}");
                if content == Content::None {
                    assert_eq!(length, means_content.then_some("0"), "{what}");
                    assert_eq!(coding, None, "{what}");
                } else if means_content {
                    assert!(length.is_some() || coding.is_some(), "{what}");
                }
            }
            // RFC 9113 section 8.2.2: no coding; section 8.1: the end is that of the stream.
            Self::Http2(..) => {
                assert_eq!(coding, None, "{what}");
                if content == Content::None {
                    assert!(seen.ends_with_head, "{what}");
                    assert_eq!(length, means_content.then_some("0"), "{what}");
                } else if !content.text().is_empty() && !matches!(content, Content::Sized(_)) {
                    assert_eq!(length, None, "{what}");
                }
            }
        }
    }
}

/// What a client must get of a response: its content, and one mark of its end that its version knows.
fn expect_reply(reply: &Reply, version: Version, method: &str, path: &str, what: &str) {
    let what = format!("{what}: {reply:?}");
    let status = match path {
        "/no-content" => 204,
        "/not-modified" => 304,
        _ => 200,
    };
    assert_eq!(reply.status, status, "{what}");
    let is_head = method == "HEAD";
    let bodiless = is_head || status != 200;
    let body = if bodiless || path == "/empty" {
        ""
    } else {
        "abc"
    };
    assert_eq!(reply.body, body, "{what}");
    let length = reply.header("content-length");
    let coding = reply.header("transfer-encoding");
    assert!(length.is_none() || coding.is_none(), "{what}");
    match (path, length.as_deref()) {
        ("/sized" | "/old-kept", length) => assert_eq!(length, Some("3"), "{what}"),
        // RFC 9110 section 8.6: the length that a GET would have got, or none.
        ("/not-modified", length) => assert_eq!(length, Some("3"), "{what}"),
        ("/empty", length) => assert!(length.is_none_or(|length| length == "0"), "{what}"),
        (_, length) => assert_eq!(length, None, "{what}"),
    }
    if version != Version::Http11 {
        assert_eq!(coding, None, "{what}");
    }
    if status == 204 {
        assert_eq!(coding, None, "{what}");
    }
    // A connection that stays open marks where the message ends.
    if version == Version::Http11 && !bodiless {
        assert!(
            length.is_some() || coding.as_deref() == Some("chunked"),
            "{what}"
        );
    }
    if version != Version::Http2 && !is_head && path == "/empty" {
        assert!(length.is_some() || coding.is_some() || version == Version::Http10);
    }
    let trailers = match (path, version) {
        ("/trailed", Version::Http11 | Version::Http2) if !is_head => {
            vec![("x-sum".to_owned(), "294".to_owned())]
        }
        _ => Vec::new(),
    };
    assert_eq!(reply.trailers, trailers, "{what}");
    for name in ["keep-alive", "proxy-connection", "upgrade", "te"] {
        assert_eq!(reply.header(name), None, "{what}");
    }
}

/// Requests everything with every method in every version. Each version but HTTP/1.0 has one connection for
/// all of it, so that each message also follows all those before.
fn ask_everything(application: impl FnOnce(&Mesh) -> Application) {
    let mesh = Mesh::start();
    let application = application(&mesh);
    let shop = Shop::planned(
        mesh,
        application.protocol(),
        application.address(),
        |orders| orders,
        |shop| shop.setting("workers: 1"),
    );
    let mut asked = 0;
    for version in VERSIONS {
        let mut client = Client::open(version, shop.address);
        let fields: &[(&str, &str)] = match version {
            Version::Http10 => &[],
            Version::Http11 => &[("te", "trailers"), ("connection", "te")],
            Version::Http2 => &[("te", "trailers")],
        };
        for path in PATHS.into_iter().filter(|path| application.answers(path)) {
            for method in METHODS {
                for content in CONTENTS {
                    if !content.is_of(version) {
                        continue;
                    }
                    let what = format!("{version:?}: {method} {path} with {content:?}");
                    let reply = client
                        .ask(method, path, fields, content)
                        .unwrap_or_else(|error| panic!("{what}: {error}"));
                    asked += 1;
                    let requests = application.requests();
                    assert_eq!(requests.len(), asked, "{what}");
                    application.expect(&requests[asked - 1], method, content, &what);
                    expect_reply(&reply, version, method, path, &what);
                }
            }
        }
    }
}

#[test]
fn over_http1_a_message_has_the_length_or_the_coding_that_its_receiver_needs_and_no_other() {
    ask_everything(Application::http1);
}

#[test]
fn over_http2_a_message_ends_with_its_stream_and_only_an_empty_one_gets_a_length() {
    ask_everything(Application::http2);
}

#[test]
fn a_body_of_unknown_length_reaches_an_application_that_answered_in_http10_before() {
    let mesh = Mesh::start();
    let application = Application::http1(&mesh);
    let shop = Shop::start(mesh, application.address());
    let mut client = Client::open(Version::Http11, shop.address);
    for path in ["/old-kept", "/sized", "/old-kept", "/old-kept"] {
        let content = Content::Streamed(&["ab", "c"]);
        // PUT may be sent over any connection that is kept.
        let reply = client.ask("PUT", path, &[], content).unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (200, "abc"), "{path}");
    }
    let bodies = application.requests().into_iter().map(|seen| seen.body);
    assert!(bodies.eq([b"abc"; 4].map(Vec::from)));
}

/// RFC 9112 section 9.3: the connection of an HTTP/1.0 client that asks for it stays open, if the client can
/// tell where a message ends.
#[test]
fn a_client_of_http10_keeps_its_connection_only_behind_an_answer_with_a_length() -> io::Result<()> {
    let mesh = Mesh::start();
    let application = Application::http1(&mesh);
    let shop = Shop::start(mesh, application.address());
    for (path, is_kept) in [
        ("/sized", true),
        ("/empty", true),
        ("/no-content", true),
        ("/not-modified", true),
        ("/streamed", false),
        ("/trailed", false),
        ("/closing", false),
    ] {
        let mut connection = Connection::open(shop.address)?;
        let request = format!("GET {path} HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        connection.send(request.as_bytes())?;
        // Without a length it is read to the end of the connection.
        let response = connection.receive(false)?;
        let kept = response.header("connection") == Some("keep-alive");
        assert_eq!(kept, is_kept, "{path}: {response:?}");
        if is_kept {
            connection.send(b"GET /sized HTTP/1.0\r\n\r\n")?;
            assert_eq!(connection.receive(false)?.text(), "abc", "{path}");
        } else {
            assert_eq!(response.text(), "abc", "{path}");
        }
    }
    Ok(())
}

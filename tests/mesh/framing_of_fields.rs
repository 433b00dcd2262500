//! The other parts of a message that change with its version: fields of one connection, interim responses,
//! heads that are too large, and the target of a whole server. Where a message ends: `framing.rs`.

use std::io::{BufRead as _, Write as _};

use bytes::Bytes;
use http::{HeaderValue, Response};

use crate::harness::{
    Answer, Client, Connection, Content, Http2, Mesh, Need, Origin, Seen, Shop, Version, exchange,
    need, python,
};

/// An HTTP/2 application's answer with these fields.
fn answer_with(fields: &[(&'static str, &str)]) -> Answer {
    let mut head = Response::new(());
    for (name, value) in fields {
        let value = HeaderValue::try_from(*value).unwrap();
        head.headers_mut().append(*name, value);
    }
    Answer {
        head,
        pieces: vec!["abc"],
        ..Answer::default()
    }
}

/// The service `orders` over HTTP/2.
fn over_http2(mesh: Mesh, application: &Http2) -> Shop {
    let same = |plan| plan;
    Shop::planned(mesh, "grpc", application.address, same, same)
}

fn names(fields: &[(String, String)]) -> Vec<&str> {
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

/// Fields of one connection (RFC 9110 section 7.6.1), and one that its sender makes such a field.
const OF_A_CONNECTION: [(&str, &str); 6] = [
    (
        "connection",
        "x-hop, keep-alive, te, upgrade, http2-settings",
    ),
    ("x-hop", "1"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("upgrade", "h2c"),
    ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
];

fn expect_none_of_a_connection(seen: &Seen) {
    for (name, _) in OF_A_CONNECTION {
        let found = seen.header(name);
        match (name, seen.line.ends_with("HTTP/1.1")) {
            // RFC 9110 section 10.1.4: TE is named there, by weft itself.
            ("connection", true) => assert_eq!(found, Some("te"), "{seen:?}"),
            _ => assert_eq!(found, None, "{name}: {seen:?}"),
        }
    }
    assert_eq!(seen.header("te"), Some("trailers"), "{seen:?}");
    assert_eq!(seen.header("trailer"), Some("x-sum"), "{seen:?}");
    assert_eq!(seen.header("x-end"), Some("1"), "{seen:?}");
}

#[test]
fn fields_of_one_connection_end_there_and_what_is_said_of_trailers_passes() {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |request, out| {
        let is_head = request.line.starts_with("HEAD ");
        write!(
            out,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nx-end: 1\r\n"
        )?;
        for (name, value) in OF_A_CONNECTION {
            write!(out, "{name}: {value}\r\n")?;
        }
        let body = "3\r\nabc\r\n0\r\nx-sum: 294\r\nkeep-alive: 1\r\n\r\n";
        write!(out, "\r\n{}", if is_head { "" } else { body })?;
        Ok(true)
    });
    let shop = Shop::start(mesh, origin.address);
    let mut fields = OF_A_CONNECTION.to_vec();
    fields.extend([("te", "gzip;q=0.5, Trailers"), ("x-end", "1")]);
    let content = Content::Trailed(&["abc"], ("x-sum", "294"));
    let of_http2: &[(&str, &str)] = &[("te", "trailers"), ("x-end", "1")];
    for (version, fields) in [(Version::Http11, &*fields), (Version::Http2, of_http2)] {
        let mut client = Client::open(version, shop.address);
        for method in ["POST", "HEAD", "POST"] {
            let reply = client.ask(method, "/", fields, content).unwrap();
            assert_eq!(reply.status, 200, "{reply:?}");
            expect_none_of_a_connection(&origin.requests().pop().unwrap());
            assert_eq!(reply.header("x-end").as_deref(), Some("1"), "{reply:?}");
            for (name, _) in OF_A_CONNECTION {
                assert_eq!(reply.header(name), None, "{version:?}: {reply:?}");
            }
            if method != "HEAD" {
                assert_eq!(reply.header("trailer").as_deref(), Some("x-sum"));
                assert_eq!(names(&reply.trailers), ["x-sum"], "{version:?}");
            }
        }
    }
}

#[test]
fn an_application_of_http2_gets_no_field_of_a_connection_of_http1() {
    let mesh = Mesh::start();
    let (application, requests) =
        Http2::recording(mesh.address(), |_| answer_with(&[("x-end", "1")]));
    let shop = over_http2(mesh, &application);
    let mut fields = OF_A_CONNECTION.to_vec();
    fields.extend([("te", "gzip;q=0.5, trailers"), ("x-end", "1")]);
    let mut client = Client::open(Version::Http11, shop.address);
    let content = Content::Trailed(&["abc"], ("x-sum", "294"));
    let reply = client.ask("POST", "/", &fields, content).unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "abc"));
    let seen = requests.lock().unwrap().pop().unwrap();
    expect_none_of_a_connection(&seen);
    assert_eq!(names(&seen.trailers), ["x-sum"]);
}

/// RFC 9112 section 3.2.4.
#[test]
fn options_for_a_server_without_a_path_reach_the_whole_of_it() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let (application, requests) = Http2::recording(mesh.address(), |_| answer_with(&[]));
    let of_http2 = Mesh::start();
    let shop = Shop::start(mesh, origin.address);
    let other = over_http2(of_http2, &application);
    for (target, path) in [
        ("http://orders", "*"),
        ("http://orders.shop:80", "*"),
        ("*", "*"),
        ("http://orders/", "/"),
        ("http://orders?a", "/?a"),
        ("/", "/"),
    ] {
        let request =
            format!("OPTIONS {target} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
        for address in [shop.address, other.address] {
            let response = exchange(address, request.as_bytes()).unwrap();
            assert_eq!(response.status, 200, "{target}: {response:?}");
        }
        assert_eq!(origin.requests().pop().unwrap().path(), path, "{target}");
        let seen = requests.lock().unwrap().pop().unwrap();
        assert_eq!(seen.path(), path, "{target}");
    }
    let mut client = Client::open(Version::Http2, shop.address);
    client.ask("OPTIONS", "/", &[], Content::None).unwrap();
    assert_eq!(origin.requests().pop().unwrap().path(), "/");
}

fn early_hints(count: usize) -> Vec<Response<()>> {
    let hint = |_| {
        let hint = Response::builder().status(103).header("link", "</a>");
        hint.body(()).unwrap()
    };
    (0..count).map(hint).collect()
}

/// The answer for a client of the mesh's wire, which may understand interim responses.
fn of_a_peer(shop: &Shop, path: &str) -> serde_json::Value {
    let address = shop.orders.mesh_address().to_string();
    let identity = shop.sidecar.state();
    let flags = ["--identity", identity.to_str().unwrap(), "--path", path];
    python("h3_client.py", &[&["get", &address], &flags[..]].concat())
}

#[test]
fn interim_responses_of_either_version_pass_to_a_peer_and_harm_no_client_of_its_sidecar() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let (application, _) = Http2::recording(mesh.address(), |request| Answer {
        interim: early_hints(if request.path() == "/many" { 500 } else { 2 }),
        ..answer_with(&[])
    });
    let other = Mesh::start();
    let origin = Origin::http(other.address(), |request, out| {
        let count = if request.path() == "/many" { 500 } else { 2 };
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(count);
        write!(
            out,
            "{hints}HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
        )?;
        Ok(true)
    });
    for mut shop in [
        over_http2(mesh, &application),
        Shop::start(other, origin.address),
    ] {
        let seen = of_a_peer(&shop, "/");
        assert_eq!(
            (&seen["status"], &seen["body"]),
            (&200.into(), &"abc".into())
        );
        let hint = serde_json::json!([[":status", "103"], ["link", "</a>"]]);
        assert_eq!(seen["interim"], serde_json::json!([hint, hint]), "{seen}");
        // No more than a peer takes.
        let seen = of_a_peer(&shop, "/many");
        assert_eq!(seen["status"], 200, "{seen}");
        assert_eq!(seen["interim"].as_array().unwrap().len(), 32, "{seen}");
        for version in [Version::Http10, Version::Http11, Version::Http2] {
            let mut client = Client::open(version, shop.address);
            for path in ["/", "/many", "/"] {
                let reply = client.ask("GET", path, &[], Content::None).unwrap();
                assert_eq!((reply.status, reply.body.as_str()), (200, "abc"));
                // hyper's server side cannot send them.
                assert!(reply.interim.is_empty(), "{version:?}: {reply:?}");
            }
        }
        shop.expect_unharmed();
    }
}

#[test]
fn an_application_of_http2_tells_a_client_of_http1_to_go_on() {
    let mesh = Mesh::start();
    let application = Http2::start(mesh.address(), 100, |request, mut respond| {
        Box::pin(async move {
            let mut body = request.into_body();
            let go_on = Response::builder().status(100).body(()).unwrap();
            respond.send_informational(go_on).unwrap();
            let piece = body.data().await.unwrap().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(piece, true).unwrap();
        })
    });
    let shop = over_http2(mesh, &application);
    let mut connection = Connection::open(shop.address).unwrap();
    for body in ["abc", "def"] {
        let began = std::time::Instant::now();
        connection
            .send(
                b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
            )
            .unwrap();
        let mut line = String::new();
        connection.reader().read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 100"), "{line}");
        // Not because a second was over.
        assert!(began.elapsed() < std::time::Duration::from_millis(900));
        connection.reader().read_line(&mut line).unwrap();
        connection.send(body.as_bytes()).unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), body);
    }
}

#[test]
fn a_head_that_is_too_large_over_http2_is_answered_as_such_and_ends_nothing_else() {
    let mesh = Mesh::start();
    let (application, requests) = Http2::recording(mesh.address(), |request| {
        match request.path() {
            // Each is more than weft takes, and less than what it reads.
            "/large" => answer_with(&[("x-large", &"x".repeat(100 * 1024))]),
            "/many" => answer_with(&[("x-many", "x"); 150]),
            _ => answer_with(&[]),
        }
    });
    let shop = over_http2(mesh, &application);
    for version in [Version::Http11, Version::Http2] {
        let mut client = Client::open(version, shop.address);
        for path in ["/large", "/many"] {
            let reply = client.ask("GET", path, &[], Content::None).unwrap();
            assert_eq!(reply.status, 502, "{path}: {reply:?}");
            let told = reply.header("proxy-status").unwrap_or_default();
            assert!(told.contains("http_response_header_section_size"), "{told}");
            let reply = client.ask("GET", "/", &[], Content::None).unwrap();
            assert_eq!(reply.status, 200, "behind {path}: {reply:?}");
        }
    }
    requests.lock().unwrap().clear();
    let mut client = Client::open(Version::Http2, shop.address);
    let large = "x".repeat(100 * 1024);
    let many = [("x-many", "x"); 150];
    for fields in [&[("x-large", large.as_str())][..], &many] {
        let reply = client.ask("GET", "/", fields, Content::None).unwrap();
        assert_eq!(reply.status, 431, "{reply:?}");
        let told = reply.header("proxy-status").unwrap_or_default();
        assert!(told.contains("http_request_error"), "{told}");
        let grpc = [&[("content-type", "application/grpc")], fields].concat();
        let reply = client.ask("POST", "/", &grpc, Content::None).unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        // RESOURCE_EXHAUSTED
        assert_eq!(reply.header("grpc-status").as_deref(), Some("8"));
        let reply = client.ask("GET", "/", &[], Content::None).unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!(requests.lock().unwrap().len(), 2);
}

/// RFC 9113 section 8.6.
#[test]
fn an_application_that_switches_protocols_over_http2_is_a_502_and_the_next_request_is_good() {
    let mesh = Mesh::start();
    let application = Http2::start(mesh.address(), 100, |request, mut respond| {
        Box::pin(async move {
            if request.uri().path() == "/switch" {
                let switch = Response::builder().status(101).body(()).unwrap();
                let _ = respond.send_informational(switch);
            }
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let _ = stream.send_data(Bytes::from_static(b"abc"), true);
        })
    });
    let shop = over_http2(mesh, &application);
    let mut client = Client::open(Version::Http11, shop.address);
    for (path, status) in [("/", 200), ("/switch", 502), ("/", 200)] {
        let reply = client.ask("GET", path, &[], Content::None).unwrap();
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
}

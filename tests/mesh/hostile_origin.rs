//! An application that breaks HTTP's rules, on default settings: the caller gets 502 and the reason, and
//! never a byte that belongs to another answer.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::{Connection, Mesh, Origin, Sidecar, get, pause, service};

/// Answers each path with its bytes in `responses`, and `/good` with "good".
fn behind_sidecars(
    responses: Vec<(&'static str, Vec<u8>)>,
) -> (Mesh, Origin, Sidecar, Sidecar, SocketAddr) {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), move |request, out| {
        let path = request.path();
        let canned = responses.iter().find(|(name, _)| path == *name);
        match canned {
            Some((_, bytes)) => out.write_all(bytes)?,
            None => out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")?,
        }
        Ok(true)
    });
    mesh.apply(&service("orders", 80, "http"));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let address = shop.listener("orders:80");
    (mesh, origin, orders, shop, address)
}

#[test]
fn a_response_that_breaks_the_rules_is_a_502_and_poisons_no_other() {
    let million = "x".repeat(1 << 20);
    let responses: Vec<(&str, Vec<u8>)> = vec![
        (
            "/two-lengths",
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nstray".to_vec(),
        ),
        (
            "/bad-length",
            b"HTTP/1.1 200 OK\r\ncontent-length: +4\r\n\r\nstray".to_vec(),
        ),
        (
            "/bad-chunk",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nstray\r\n0\r\n\r\n"
                .to_vec(),
        ),
        (
            "/no-colon",
            b"HTTP/1.1 200 OK\r\nthis is no header\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
        (
            "/nul",
            b"HTTP/1.1 200 OK\r\nx-a: a\0b\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
        (
            "/huge-header",
            format!("HTTP/1.1 200 OK\r\nx-a: {million}\r\ncontent-length: 0\r\n\r\n").into_bytes(),
        ),
        ("/not-http", b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()),
        (
            "/bad-status",
            b"HTTP/1.1 99999 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
        (
            "/unknown-coding",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nstray".to_vec(),
        ),
    ];
    let paths: Vec<&str> = responses.iter().map(|(path, _)| *path).collect();
    let (_mesh, origin, mut orders, mut shop, address) = behind_sidecars(responses);
    for path in paths {
        let mut connection = Connection::open(address).unwrap();
        let bad = connection.get(path);
        match bad {
            // A head that was already sent on can only be followed by an abort.
            Err(_) => assert!(path == "/bad-chunk" || path == "/unknown-coding", "{path}"),
            Ok(response) => {
                assert_eq!(response.status, 502, "{path}: {response:?}");
                assert!(response.header("proxy-status").is_some(), "{path}");
                assert!(!response.text().contains("stray"), "{path}");
            }
        }
        let next = get(address, "/good").unwrap();
        assert_eq!(
            (next.status, next.text().as_str()),
            (200, "good"),
            "after {path}"
        );
        // The connection that broke the rules was not used again.
        let requests = origin.requests();
        let at = requests.iter().position(|request| request.path() == path);
        let (bad, later) = requests[at.unwrap()..].split_first().unwrap();
        let again = later
            .iter()
            .find(|request| request.connection == bad.connection);
        assert!(again.is_none(), "{path}: {again:?}");
    }
    orders.expect_alive();
    shop.expect_alive();
}

/// Faults only behind a correct answer.
#[test]
fn stray_bytes_behind_an_answer_reach_no_caller() {
    let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray";
    let responses: Vec<(&str, Vec<u8>)> = vec![
        ("/extra", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngoodstray".to_vec()),
        ("/two", format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood{smuggled}").into_bytes()),
        ("/both", format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{smuggled}").into_bytes()),
        ("/no-content", format!("HTTP/1.1 204 No Content\r\n\r\n{smuggled}").into_bytes()),
    ];
    let paths: Vec<&str> = responses.iter().map(|(path, _)| *path).collect();
    let (_mesh, _origin, mut orders, mut shop, address) = behind_sidecars(responses);
    for path in paths {
        for _ in 0..5 {
            // The treatment of the bad answer itself does not matter here, only who gets the bytes behind it.
            let first = get(address, path);
            if let Ok(first) = first {
                assert!(!first.text().contains("stray"), "{path}: {first:?}");
                if path == "/both" && first.status == 200 {
                    assert_eq!(first.header("content-length"), None, "{first:?}");
                }
            }
            let next = get(address, "/good").unwrap();
            assert_eq!(
                (next.status, next.text().as_str()),
                (200, "good"),
                "after {path}"
            );
        }
    }
    orders.expect_alive();
    shop.expect_alive();
}

#[test]
fn bodies_where_there_are_none_do_not_shift_the_next_answer() {
    let responses: Vec<(&str, Vec<u8>)> = vec![
        ("/head", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_vec()),
        ("/204", b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nstray".to_vec()),
        ("/304", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"a\"\r\n\r\n".to_vec()),
        ("/304-body", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nstray".to_vec()),
        ("/103", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood".to_vec()),
        ("/205", b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n".to_vec()),
    ];
    let (_mesh, origin, mut orders, mut shop, address) = behind_sidecars(responses);
    let mut connection = Connection::open(address).unwrap();
    for (method, path, status) in [
        ("HEAD", "/head", 200),
        ("GET", "/304", 304),
        ("GET", "/103", 200),
        ("GET", "/205", 205),
        ("HEAD", "/head", 200),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        connection.send(request.as_bytes()).unwrap();
        let response = connection.receive(method == "HEAD").unwrap();
        assert_eq!(response.status, status, "{path}");
        let next = connection.get("/good").unwrap();
        assert_eq!(next.text(), "good", "after {path}");
    }
    for path in ["/204", "/304-body"] {
        let response = get(address, path).unwrap();
        assert_eq!(response.text(), "", "{path}");
        let next = get(address, "/good").unwrap();
        assert_eq!(
            (next.status, next.text().as_str()),
            (200, "good"),
            "after {path}"
        );
    }
    // Requests with bodies that few expect.
    for method in ["GET", "DELETE"] {
        let mut connection = Connection::open(address).unwrap();
        let request = format!("{method} /good HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
        for _ in 0..3 {
            connection.send(request.as_bytes()).unwrap();
            assert_eq!(connection.receive(false).unwrap().text(), "good");
        }
        assert_eq!(origin.requests().last().unwrap().body, b"abc");
    }
    orders.expect_alive();
    shop.expect_alive();
}

/// What an application sends in two writes, some time apart: by path, both parts.
const TWO_WRITES: [(&str, &str, &str); 14] = [
    (
        "/204-length",
        "HTTP/1.1 204 No Content\r\ncontent-length: 43\r\n\r\n",
        STRAY,
    ),
    (
        "/204-chunked",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
        STRAY,
    ),
    ("/204", "HTTP/1.1 204 No Content\r\n\r\n", STRAY),
    (
        "/304-length",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 43\r\n\r\n",
        STRAY,
    ),
    (
        "/103-length",
        "HTTP/1.1 103 Early Hints\r\ncontent-length: 43\r\n\r\n",
        STRAY,
    ),
    (
        "/100-chunked",
        "HTTP/1.1 100 Continue\r\ntransfer-encoding: chunked\r\n\r\n",
        STRAY,
    ),
    (
        "/more",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        STRAY,
    ),
    (
        "/less",
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nok",
        STRAY,
    ),
    (
        "/chunks",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        STRAY,
    ),
    (
        "/both",
        "HTTP/1.1 200 OK\r\ncontent-length: 43\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        STRAY,
    ),
    (
        "/lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 45\r\n\r\nok",
        STRAY,
    ),
    (
        "/same-lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
        STRAY,
    ),
    (
        "/listed-lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 45\r\n\r\nok",
        STRAY,
    ),
    (
        "/split",
        "HTTP/1.1 200 OK\r\ncontent-len",
        "gth: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray",
    ),
];

/// A whole response of 43 bytes that no caller asked for.
const STRAY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray";

#[test]
fn what_an_application_sends_a_moment_late_never_reaches_another_caller() {
    assert_eq!(STRAY.len(), 43);
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |request, out| {
        let path = request.path();
        let mut parts = path.split('?');
        let canned = parts
            .next()
            .and_then(|path| TWO_WRITES.iter().find(|(name, ..)| path == *name));
        let Some((_, first, second)) = canned else {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")?;
            return Ok(true);
        };
        let late: u64 = parts.next().and_then(|late| late.parse().ok()).unwrap_or(0);
        out.write_all(first.as_bytes())?;
        if late > 0 {
            pause(Duration::from_micros(late));
        }
        out.write_all(second.as_bytes())?;
        // The missing bytes of a response that is too short never come.
        Ok(!path.starts_with("/less"))
    });
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    let bystander = mesh.sidecar("bystander").calls("orders:80").start();
    for sidecar in [&shop, &bystander] {
        sidecar.wait_endpoints("orders:80", 1);
    }
    let mut behind = Connection::open(bystander.listener("orders:80")).unwrap();
    for late in [0, 300, 1_000, 10_000] {
        for attempt in 0..1_000 {
            let (path, ..) = TWO_WRITES[attempt % TWO_WRITES.len()];
            let method = if attempt % 3 == 0 { "POST" } else { "GET" };
            let request = format!(
                "{method} {path}?{late} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            );
            // The result concerns only this caller and its application.
            if let Ok(mut first) = Connection::open(shop.listener("orders:80")) {
                first.send(request.as_bytes()).unwrap();
                let _ = first.receive(false);
            }
            let next = behind.get("/good").unwrap();
            assert_eq!(
                (next.status, next.text().as_str()),
                (200, "good"),
                "behind {path}, {late} us late"
            );
        }
    }
    orders.expect_alive();
}

#[test]
fn a_response_that_comes_before_its_whole_request_ends_the_connection() {
    let mesh = Mesh::start();
    // It answers with only a head, and takes the rest of the body for the next request.
    let origin = Origin::raw(mesh.address(), |mut tap| {
        let mut buffer = [0; 4096];
        loop {
            if std::io::Read::read(&mut tap, &mut buffer)? == 0 {
                return Ok(());
            }
            tap.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")?;
        }
    });
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let address = shop.listener("orders:80");
    let mut early = Connection::open(address).unwrap();
    early
        .send(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nfour")
        .unwrap();
    assert_eq!(early.receive(false).unwrap().text(), "good");
    let before = origin.connections();
    assert_eq!(get(address, "/next").unwrap().text(), "good");
    assert_eq!(origin.connections(), before + 1);
    let _ = early.send(b"rest!");
}

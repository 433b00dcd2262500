//! Answers that the mesh makes itself: each names its maker and the reason, has a request id, is counted and
//! is logged, even for bytes that are not a request.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::harness::{
    Connection, Load, Mesh, Origin, Response, Shop, Sidecar, connect, eventually, exchange, get,
    pause,
};

/// How often requests were counted that the sidecar answered with a status.
fn counted(sidecar: &Sidecar, status: u16) -> u64 {
    let metrics = sidecar.admin_get("/metrics").unwrap().text();
    let label = format!("status=\"{status}\"");
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("weft_requests_total") && line.contains(&label));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

/// The access log's entry of a request.
fn logged(sidecar: &Sidecar, id: &str) -> Option<serde_json::Value> {
    let log = sidecar.process.log();
    let line = log.lines().find(|line| line.contains(id))?;
    serde_json::from_str(line).ok()
}

#[track_caller]
fn expect_told(sidecar: &Sidecar, response: &Response, before: u64, what: &str) {
    let status = response.status;
    let told = response.header("proxy-status").unwrap_or_default();
    assert!(told.starts_with("weft; error="), "{what}: {response:?}");
    let id = response
        .header("x-request-id")
        .unwrap_or_default()
        .to_owned();
    assert!(!id.is_empty(), "{what}: {response:?}");
    eventually(&format!("{what} is counted as {status} and logged"), || {
        counted(sidecar, status) > before
            && logged(sidecar, &id).is_some_and(|line| line["status"] == status)
    });
}

#[test]
fn what_does_not_parse_is_answered_counted_and_logged_like_any_failure() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let pair = Shop::calling(mesh, origin.address, |shop| {
        shop.setting("workers: 1")
            .setting("timeouts: { request_headers: 1s }")
    });
    let (shop, address) = (&pair.sidecar, pair.address);
    let bystander = Load::start(address, "/", 1, Duration::from_millis(20));
    let long = "x".repeat(200 * 1024);
    let fields: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let cases = [
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("G(T / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\0\x01\0\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        (
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned(),
            400,
        ),
        (
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"
                .to_owned(),
            400,
        ),
        ("GET / HTTP/3.0\r\nhost: a\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.9\r\nhost: a\r\n\r\n".to_owned(), 505),
        (
            format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"),
            431,
        ),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414),
        // Heads that do not end.
        ("GET / HTTP/1.1\r\nhost: a\r\n".to_owned(), 408),
        ("POST / HT".to_owned(), 408),
    ];
    for (request, status) in &cases {
        let what = &request[..request.len().min(60)];
        let before = counted(shop, *status);
        // Some of these follow a good request on the same connection.
        for first in ["", "GET /first HTTP/1.1\r\nhost: a\r\n\r\n"] {
            if first.is_empty() || *status != 408 {
                let mut connection = Connection::open(address).unwrap();
                connection.send(first.as_bytes()).unwrap();
                // All of it may not be taken.
                let _ = connection.send(request.as_bytes());
                if !first.is_empty() {
                    assert_eq!(connection.receive(false).unwrap().status, 200);
                }
                let response = connection
                    .receive(false)
                    .unwrap_or_else(|error| panic!("{what:?} after {first:?}: {error}"));
                assert_eq!(response.status, *status, "{what:?}");
                assert_eq!(response.header("connection"), Some("close"), "{what:?}");
                expect_told(shop, &response, before, what);
                let mut rest = Vec::new();
                let _ = connection.reader().read_to_end(&mut rest);
                assert!(rest.is_empty(), "{what:?}");
            }
        }
    }
    // A head that ends with its connection, of which the client may still read.
    let mut stream = connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
    // A body that is none.
    let before = counted(shop, 400);
    let request = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n";
    let response = exchange(address, request).unwrap();
    assert_eq!(response.status, 400, "{response:?}");
    expect_told(shop, &response, before, "a malformed chunk");
    bystander.finish_after(10).expect_all_good(10);
}

#[test]
fn without_descriptors_the_log_is_quiet_and_the_admin_endpoint_answers() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let pair = Shop::start(mesh, origin.address);
    let (shop, address) = (&pair.sidecar, pair.address);
    assert_eq!(get(address, "/").unwrap().status, 200);
    let mut bystander = Connection::open(address).unwrap();
    assert_eq!(bystander.get("/").unwrap().status, 200);
    let open = shop.process.descriptors();
    shop.process.limit_descriptors(open + 20);
    let lines = || shop.process.log().lines().count();
    let before = lines();
    let crowd: Vec<TcpStream> = (0..200).map(|_| connect(address).unwrap()).collect();
    eventually("few descriptors are left", || {
        shop.process.descriptors() > open + 5
    });
    let mut expect_served = |what: &str| {
        for _ in 0..10 {
            pause(Duration::from_millis(200));
            for path in ["/live", "/metrics"] {
                let response = shop.admin_get(path).unwrap();
                assert_eq!(response.status, 200, "{what}: {path}: {response:?}");
            }
            assert_eq!(bystander.get("/").unwrap().status, 200, "{what}");
        }
    };
    expect_served("with few left");
    // The bytes kept for the rest are gone, too.
    shop.process.limit_descriptors(shop.process.descriptors());
    expect_served("with none left");
    let written = lines() - before;
    assert!((1..=10).contains(&written), "{written} lines");
    shop.process.limit_descriptors(open + 200);
    drop(crowd);
    eventually("connections are accepted again", || {
        get(address, "/").is_ok_and(|response| response.status == 200)
    });
}

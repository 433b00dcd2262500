//! Clients that break HTTP/1.1's rules or test its limits, on default settings, by raw sockets.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{
    Connection, Load, Mesh, Origin, Response, Shop, SidecarPlan, connect, eventually, exchange,
    get, pause, service,
};

struct Target {
    origin: Origin,
    shop: Shop,
    address: SocketAddr,
}

fn target() -> Target {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = Shop::calling(mesh, origin.address, SidecarPlan::calls_by_host);
    let address = shop.address;
    // Buffers, pools and connections that any traffic brings.
    for _ in 0..50 {
        let response = get(address, "/").unwrap();
        assert_eq!(response.status, 200, "{response:?}");
    }
    Target {
        origin,
        shop,
        address,
    }
}

#[test]
fn a_host_is_one_canonical_authority_or_refused() {
    let mut target = target();
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nhost: orders\r\nhost: orders\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nhost: orders\r\nhost: admin\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a:80@orders\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: orders:99999\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: ord ers\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: orders/path\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: or\0ders\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost : orders\r\n\r\n", 400),
        ("GET http://adm in/ HTTP/1.1\r\nhost: orders\r\n\r\n", 400),
        // The absolute form counts, and names a service that does not exist.
        ("GET http://admin/ HTTP/1.1\r\nhost: orders\r\n\r\n", 503),
        ("GET / HTTP/1.1\r\nhost: ORDERS.shop\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nhost: orders.shop:80\r\n\r\n", 200),
    ] {
        let before = target.origin.requests().len();
        let response = exchange(target.shop.sidecar.by_host(), request.as_bytes());
        let got = response.map_or(0, |response| response.status);
        let seen = target.origin.requests().split_off(before);
        if status == 200 {
            assert_eq!(got, 200, "{request:?}");
        } else {
            assert_eq!(got, status, "{request:?}");
            assert!(seen.is_empty(), "{request:?}: {seen:?}");
        }
    }
    // An empty host is valid if the target needs none; it names no service.
    let empty = exchange(
        target.shop.sidecar.by_host(),
        b"GET / HTTP/1.1\r\nhost:\r\n\r\n",
    )
    .unwrap();
    assert!((400..500).contains(&empty.status), "{empty:?}");
    target.shop.expect_unharmed();
}

/// A message has one framing, or none. Bytes behind a message that is refused, or that declares two framings,
/// are not a request.
#[test]
fn ambiguous_framing_is_refused_and_smuggles_nothing() {
    let mut target = target();
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    // RFC 9112 section 6.3: a coding overrides a length, and the connection ends behind such a request.
    let both = [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    ];
    let neither = [
        "content-length: 0\r\ncontent-length: 30\r\n\r\n",
        "content-length: 0, 30\r\n\r\n",
        "content-length: +5\r\n\r\n",
        "content-length: 0x5\r\n\r\n",
        "content-length: -1\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0;\n\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0\n\n",
        "x: a\r\n b\r\n\r\n",
        "x: a\rtransfer-encoding: chunked\r\n\r\n",
    ];
    // It has one end, and content that no hop behind would decode.
    let coded = [
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ];
    let heads = both.iter().map(|head| (head, "200"));
    let heads = heads.chain(neither.iter().map(|head| (head, "400")));
    for (head, status) in heads.chain(coded.iter().map(|head| (head, "501"))) {
        let is_read = status == "200";
        let before = target.origin.requests().len();
        let request = format!("POST /first HTTP/1.1\r\nhost: a\r\n{head}{smuggled}");
        let mut stream = connect(target.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        // One answer, and then the end.
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let begins = answer.starts_with(&format!("HTTP/1.1 {status} "));
        assert!(begins, "{head:?}: {answer:?}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count() - usize::from(is_read),
            1,
            "{answer:?}"
        );
        let seen = target.origin.requests().split_off(before);
        assert_eq!(seen.len(), usize::from(is_read), "{head:?}: {seen:?}");
        for request in seen {
            assert_eq!(request.line, "POST /first HTTP/1.1", "{head:?}");
            assert_eq!(request.body, b"", "{head:?}");
            assert_eq!(
                request.header("content-length").unwrap_or("0"),
                "0",
                "{head:?}"
            );
        }
    }
    let bytes = target.origin.bytes();
    assert!(!String::from_utf8_lossy(&bytes).contains("smuggled"));
    target.shop.expect_unharmed();
}

#[test]
fn sizes_beyond_the_limits_are_refused_in_constant_memory() {
    let mut target = target();
    let long = |length: usize| "a".repeat(length);
    let many = |count: usize| -> String { (0..count).map(|n| format!("x-{n}: y\r\n")).collect() };
    let requests = [
        (
            "headers of 100 KiB",
            format!(
                "GET / HTTP/1.1\r\nhost: a\r\nx-a: {}\r\nx-b: {}\r\n\r\n",
                long(50_000),
                long(50_000)
            ),
        ),
        (
            "300 headers",
            format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", many(300)),
        ),
        (
            "one header of 1 MB",
            format!(
                "GET / HTTP/1.1\r\nhost: a\r\nx-a: {}\r\n\r\n",
                long(1 << 20)
            ),
        ),
        (
            "100 000 headers",
            format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", many(100_000)),
        ),
        (
            "a target of 128 KiB",
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", long(128 << 10)),
        ),
    ];
    let before = target.origin.requests().len();
    // Code is resident from its first use on, so the small cases come before the measurement.
    for (what, request) in requests
        .iter()
        .filter(|(_, request)| request.len() < 200_000)
    {
        expect_refused(target.address, what, request);
    }
    let resident = target.shop.sidecar.process.resident();
    target.shop.sidecar.process.forget_peak();
    for (what, request) in &requests {
        for _ in 0..5 {
            expect_refused(target.address, what, request);
        }
    }
    assert_eq!(target.origin.requests().len(), before);
    // A header line that never ends.
    let mut endless = TcpStream::connect(target.address).unwrap();
    endless.write_all(b"GET / HTTP/1.1\r\nx-endless: ").unwrap();
    let block = [b'a'; 65536];
    let sent = (0..160)
        .take_while(|_| endless.write_all(&block).is_ok())
        .count();
    assert!(sent < 160, "10 MiB of one header line were taken");
    let grown = target
        .shop
        .sidecar
        .process
        .resident_peak()
        .saturating_sub(resident);
    assert!(grown <= 1 << 10, "grew by {grown} KiB");
    target.shop.expect_unharmed();
}

/// By an answer, or by a close while the rest was still on its way.
#[track_caller]
fn expect_refused(address: SocketAddr, what: &str, request: &str) {
    match exchange(address, request.as_bytes()) {
        Ok(response) => assert!(
            matches!(response.status, 400 | 414 | 431),
            "{what}: {}",
            response.status
        ),
        Err(error) => assert!(
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            ),
            "{what}: {error}"
        ),
    }
}

/// Bodies in the smallest pieces.
#[test]
fn a_body_of_single_bytes_and_a_chunk_extension_of_a_megabyte_cost_no_memory() {
    let mut target = target();
    let in_single_bytes = |count: usize| {
        let head =
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}{}0\r\n\r\n", "1\r\na\r\n".repeat(count))
    };
    let with_extension = |bytes: usize| {
        let head =
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}1;{}\r\na\r\n0\r\n\r\n", "e".repeat(bytes))
    };
    // Code and buffers are resident from their first use on: the small kind of both comes before the
    // measurement.
    for _ in 0..10 {
        exchange(target.address, in_single_bytes(20_000).as_bytes()).unwrap();
        let _ = exchange(target.address, with_extension(32 << 10).as_bytes());
    }
    let resident = target.shop.sidecar.process.resident() + target.shop.orders.process.resident();
    target.shop.sidecar.process.forget_peak();
    target.shop.orders.process.forget_peak();
    let response = exchange(target.address, in_single_bytes(200_000).as_bytes()).unwrap();
    assert!(response.text().ends_with(" 200000"), "{response:?}");
    if let Ok(response) = exchange(target.address, with_extension(1 << 20).as_bytes()) {
        assert!((400..600).contains(&response.status), "{}", response.status);
    }
    let peak =
        target.shop.sidecar.process.resident_peak() + target.shop.orders.process.resident_peak();
    let grown = peak.saturating_sub(resident);
    // Windows of 1 MiB and read buffers, in two sidecars: kept piece by piece it would be
    // 6 MiB in each.
    assert!(grown <= 5 << 10, "grew by {grown} KiB");
    target.shop.expect_unharmed();
}

#[test]
fn forbidden_trailers_are_dropped_and_many_are_bounded() {
    let mut target = target();
    let request = |trailers: &str| {
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{trailers}\r\n"
        )
    };
    let forbidden = "content-length: 99\r\ntransfer-encoding: chunked\r\nhost: evil\r\nauthorization: Basic eA==\r\nweft-service: admin.shop:80\r\nx-a: 1\r\nx-a: 2\r\n";
    let response = exchange(target.address, request(forbidden).as_bytes());
    let seen = target.origin.requests();
    let last = seen.last().unwrap();
    if response.is_ok_and(|response| response.status == 200) {
        for name in [
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "weft-service",
        ] {
            let found = last
                .trailers
                .iter()
                .any(|(key, _)| key.eq_ignore_ascii_case(name));
            assert!(!found, "{name} in {:?}", last.trailers);
        }
        let repeated: Vec<&str> = last
            .trailers
            .iter()
            .filter(|(name, _)| name == "x-a")
            .map(|(_, value)| value.as_str())
            .collect();
        assert!(repeated.is_empty() || repeated == ["1", "2"], "{last:?}");
    }
    let resident = target.shop.sidecar.process.resident();
    target.shop.sidecar.process.forget_peak();
    let many: String = (0..10_000).map(|n| format!("x-{n}: y\r\n")).collect();
    if let Ok(response) = exchange(target.address, request(&many).as_bytes()) {
        assert!(
            (400..600).contains(&response.status)
                || target.origin.requests().last().unwrap().trailers.len() <= 128,
            "{response:?}"
        );
    }
    let grown = target
        .shop
        .sidecar
        .process
        .resident_peak()
        .saturating_sub(resident);
    assert!(grown <= 2048, "grew by {grown} KiB");
    target.shop.expect_unharmed();
}

#[test]
fn what_is_not_http_is_answered_or_closed_at_once() {
    let mut target = target();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.9\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame at all",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(target.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(bytes).unwrap();
        // It may be closed already, which counts as an answer.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(begin.elapsed() < Duration::from_secs(12), "{bytes:?}");
    }
    target.shop.expect_unharmed();
}

/// A client that goes away in the middle of an upload, or of a download.
#[test]
fn a_client_that_goes_away_during_a_body_costs_its_own_stream_only() {
    let mut target = target();
    let load = Load::start(target.address, "/", 2, Duration::from_millis(20));
    for n in 0..50 {
        let mut connection = Connection::open(target.address).unwrap();
        connection
            .send(b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
            .unwrap();
        connection.send(&vec![b'x'; 1000 * n]).unwrap();
        if n % 2 == 0 {
            let _ = connection
                .reader()
                .get_ref()
                .shutdown(std::net::Shutdown::Write);
            pause(Duration::from_millis(5));
        }
    }
    eventually("no upload is left open", || {
        let dump = target.shop.orders.admin_get("/metrics").unwrap().text();
        dump.lines()
            .filter(|line| line.starts_with("weft_requests_in_flight"))
            .all(|line| line.ends_with(" 0"))
    });
    let report = load.finish_after(10);
    report.expect_all_good(10);
    // None of them was turned into a complete request.
    let whole = target
        .origin
        .requests()
        .iter()
        .filter(|request| request.path() == "/upload")
        .count();
    assert_eq!(whole, 0);
    target.shop.expect_unharmed();
}

/// The bytes of a response that the application cut off are never passed on as a complete one.
#[test]
fn a_response_that_ends_early_is_never_a_whole_one() {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |request, out| {
        match request.path() {
            "/length" => {
                out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")?
            }
            _ => out
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nonly\r\n")?,
        }
        Ok(false)
    });
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let mut shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    for path in ["/length", "/chunked"] {
        let response: io::Result<Response> = get(shop.listener("orders:80"), path);
        assert!(
            response.is_err()
                || response
                    .as_ref()
                    .is_ok_and(|response| response.status == 502),
            "{path}: {response:?}"
        );
    }
    orders.expect_alive();
    shop.expect_alive();
}

#[test]
fn what_a_caller_writes_is_shown_in_the_access_log_and_does_not_act_there() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    let long = "x".repeat(20_000);
    for path in [
        "/\u{202e}gpj.exe\u{2066}",
        "/\u{9b}2J\u{85}\u{2028}",
        &format!("/{long}"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
        // No sidecar serves it, which is logged.
        let response = exchange(shop.listener("orders:80"), request.as_bytes()).unwrap();
        assert_eq!(response.status, 503, "{path}");
    }
    let lines = || -> Vec<String> {
        let log = shop.process.log();
        let lines = log.split('\n').filter(|line| line.contains("\"path\""));
        lines.map(str::to_owned).collect()
    };
    eventually("three requests are logged", || lines().len() == 3);
    let lines = lines();
    for line in &lines {
        assert!(line.len() < 4096, "{}", line.len());
        assert!(line.is_ascii() || line.contains('…'), "{line}");
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert!(lines[0].contains("/\\u202egpj.exe\\u2066"), "{}", lines[0]);
    assert!(
        lines[1].contains("/\\u009b2J\\u0085\\u2028"),
        "{}",
        lines[1]
    );
    assert!(lines[2].contains("xxx…"), "{}", lines[2]);
}

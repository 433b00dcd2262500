//! Callers without mutual TLS while their services move into the mesh: taken as long as the Service is
//! `Permissive`, named by their addresses, and refused from the moment on in which it is `Strict`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use http::{HeaderName, Response};

use crate::authorization::allow;
use crate::harness::{
    Answer, Client, Connection, Content, Http2, Load, Mesh, Origin, Shop, Sidecar, Streams,
    Version, connect, eventually, exchange, expect_echo, get,
};

const LISTENER_PORT: u16 = 8081;

/// The Service `orders`.
pub(crate) fn orders(protocol: &str, mutual_tls: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{ name: orders, namespace: shop }}\nspec: {{ ports: [ {{ port: 80, protocol: {protocol} }} ], mutualTls: {mutual_tls} }}\n"
    )
}

/// A mesh whose sidecar of `orders` listens for callers without mutual TLS, and where.
fn moving(mesh: Mesh, protocol: &str, application: SocketAddr) -> (Shop, SocketAddr) {
    moving_with(mesh, protocol, application, "")
}

pub(crate) fn moving_with(
    mesh: Mesh,
    protocol: &str,
    application: SocketAddr,
    setting: &str,
) -> (Shop, SocketAddr) {
    let listen = SocketAddr::from((mesh.address(), LISTENER_PORT));
    let shop = Shop::planned(
        mesh,
        protocol,
        application,
        |orders| {
            orders
                .service_setting(&format!("plaintext_listen: \"{listen}\""))
                .setting("access_log: all")
                .setting(setting)
        },
        |shop| shop,
    );
    (shop, listen)
}

/// What the sidecar shows of callers without mutual TLS.
pub(crate) fn shown(sidecar: &Sidecar) -> serde_json::Value {
    sidecar.admin_json("/endpoints")["served"][0]["plaintext"].clone()
}

fn metric(sidecar: &Sidecar, line: &str) -> u64 {
    let page = sidecar.admin_get("/metrics").unwrap().text();
    let value = page.lines().find_map(|one| one.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

fn connections(sidecar: &Sidecar, result: &str) -> u64 {
    let labels = format!("{{service=\"orders.shop:80\",result=\"{result}\"}}");
    metric(
        sidecar,
        &format!("weft_inbound_plaintext_connections_total{labels}"),
    )
}

/// Whether the other side has ended the connection.
fn is_ended(stream: &mut impl std::io::Read) -> bool {
    match stream.read(&mut [0; 1024]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock && error.kind() != ErrorKind::TimedOut,
    }
}

/// Whether a connection of TCP ends without a byte. It may be reset before the client has looked at it.
fn is_refused(address: SocketAddr) -> bool {
    connect(address).map_or(true, |mut stream| is_ended(&mut stream))
}

#[test]
fn a_service_is_open_to_plaintext_while_it_is_permissive_and_the_mesh_notices_nothing_of_the_switch()
 {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let (mut shop, plaintext) = moving(mesh, "http", origin.address);
    let load = Load::start(shop.address, "/mesh", 2, Duration::from_millis(10));

    // As it was before: only the mesh.
    let refused = get(plaintext, "/plain").unwrap();
    assert_eq!(refused.status, 403, "{refused:?}");
    let why = refused.header("proxy-status").unwrap();
    assert!(why.contains("mutualTls: Strict"), "{why}");
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(origin.requests().iter().all(|one| one.path() == "/mesh"));
    assert_eq!(connections(&shop.orders, "refused"), 1);
    assert_eq!(connections(&shop.orders, "taken"), 0);

    shop.mesh.apply(&orders("http", "Permissive"));
    for version in [Version::Http10, Version::Http11, Version::Http2] {
        let mut client = Client::open(version, plaintext);
        for content in [
            Content::None,
            Content::Sized("12345"),
            Content::Streamed(&["ab", "cd"]),
        ] {
            if content.is_of(version) {
                let reply = client.ask("POST", "/plain", &[], content).unwrap();
                assert_eq!(reply.status, 200, "{version:?} {content:?} {reply:?}");
                let length = content.text().len();
                assert_eq!(reply.body, format!("orders POST /plain HTTP/1.1 {length}"));
            }
        }
        assert_eq!(
            client
                .ask("HEAD", "/plain", &[], Content::None)
                .unwrap()
                .status,
            200
        );
    }
    let page = shown(&shop.orders);
    assert_eq!(page["mutual_tls"], "Permissive");
    assert_eq!(page["callers"][0]["address"], "127.0.0.1", "{page}");
    assert_eq!(page["callers"][0]["refused"], 1);
    assert!(
        page["callers"][0]["connections"].as_u64() >= Some(3),
        "{page}"
    );
    assert!(page["callers"][0]["last"].as_str().unwrap().ends_with('Z'));
    let labels = "{service=\"orders.shop:80\"}";
    assert_eq!(
        metric(
            &shop.orders,
            &format!("weft_inbound_plaintext_callers{labels}")
        ),
        1
    );
    let admin = shop.orders.admin().to_string();
    let text = shop.mesh.weft(&["endpoints", "--admin", &admin]).ok();
    let row = text.lines().find(|line| line.contains("127.0.0.1 "));
    assert!(row.is_some_and(|row| row.contains("Permissive")), "{text}");

    shop.mesh.apply(&orders("http", "Strict"));
    assert_eq!(get(plaintext, "/plain").unwrap().status, 403);
    assert_eq!(shown(&shop.orders)["mutual_tls"], "Strict");
    load.finish_after(100).expect_all_good(100);
    shop.expect_unharmed();
}

#[test]
fn a_plaintext_caller_says_nothing_of_who_it_is() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let (shop, plaintext) = moving(mesh, "http", origin.address);
    shop.mesh.apply(&orders("http", "Permissive"));
    let forged = [
        ("weft-client-id", "spiffe://demo.test/ns/shop/sa/shop"),
        ("weft-service", "orders.shop:80"),
        ("weft-route-parent", "front.shop"),
        ("weft-deadline", "1"),
        (
            "x-forwarded-client-cert",
            "URI=spiffe://demo.test/ns/shop/sa/shop",
        ),
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("x-other", "kept"),
    ];
    for version in [Version::Http11, Version::Http2] {
        let fields = forged
            .iter()
            .filter(|(name, _)| version != Version::Http2 || *name != "connection");
        let fields: Vec<_> = fields.copied().collect();
        let mut client = Client::open(version, plaintext);
        let reply = client.ask("GET", "/", &fields, Content::None).unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        let seen = origin.requests().pop().unwrap();
        let named = |name: &str| seen.header(name);
        let of_mesh = |(name, _): &&(String, String)| {
            let name = name.to_ascii_lowercase();
            name.starts_with("weft-") || name == "x-forwarded-client-cert"
        };
        assert_eq!(seen.headers.iter().find(of_mesh), None, "{seen:?}");
        assert_eq!(
            (named("x-other"), named("host")),
            (Some("kept"), Some("orders"))
        );
        assert!(named("via").is_some() && named("x-request-id").is_some());
    }
    // Each of its calls is in the access log, by its address and without a name.
    eventually("the access log names the address", || {
        let log = shop.orders.process.log();
        log.lines().any(|line| {
            line.contains("\"source\":\"\",\"source_address\":\"127.0.0.1\"")
                && line.contains("\"status\":200")
        })
    });
    // Spellings that WSGI and CGI take for the mesh's own.
    let twin = b"GET / HTTP/1.1\r\nhost: orders\r\nweft_client_id: me\r\n\r\n";
    assert_eq!(exchange(plaintext, twin).unwrap().status, 400);
    // The mesh itself still says who calls.
    get(shop.address, "/").unwrap();
    let seen = origin.requests().pop().unwrap();
    assert_eq!(
        seen.header("weft-client-id"),
        Some("spiffe://demo.test/ns/shop/sa/shop")
    );
}

#[test]
fn a_policy_that_names_principals_refuses_plaintext_and_one_for_any_caller_lets_it_in() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let (mut shop, plaintext) = moving(mesh, "http", origin.address);
    let policy = |action: &str, rest: &str| {
        format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: {}, namespace: shop }}\nspec:\n  targetRefs: [ {{ kind: Service, name: orders }} ]\n  action: {action}\n{rest}",
            action.to_lowercase()
        )
    };
    let permissive = orders("http", "Permissive");
    shop.mesh
        .apply(&format!("{permissive}{}", allow("orders", &["shop"])));
    let refused = get(plaintext, "/").unwrap();
    assert_eq!(refused.status, 403);
    let why = refused.header("proxy-status").unwrap();
    assert!(why.contains("a caller that proves no identity"), "{why}");
    assert_eq!(get(shop.address, "/").unwrap().status, 200);

    let read = policy("Allow", "  to: [ { methods: [GET] } ]\n");
    shop.mesh.apply(&format!("{permissive}{read}"));
    let status = |method: &str| {
        let request = format!("{method} / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
        exchange(plaintext, request.as_bytes()).unwrap().status
    };
    assert_eq!((status("GET"), status("DELETE")), (200, 403));
    // It may be the one that is denied.
    let deny = policy(
        "Deny",
        "  from: [ { principals: [\"spiffe://demo.test/ns/shop/sa/mallory\"] } ]\n",
    );
    shop.mesh.apply(&format!("{permissive}{deny}"));
    assert_eq!(status("GET"), 403);
    shop.expect_unharmed();
}

#[test]
fn what_runs_over_plaintext_ends_when_the_service_becomes_strict() {
    let mesh = Mesh::start();
    // It begins an answer at once, and ends none of `/stream`; `/wait` gets no head.
    let origin = Origin::http(mesh.address(), |request, out| {
        match request.path() {
            "/stream" => out.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n",
            )?,
            "/wait" => {}
            _ => out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?,
        }
        // The connection stays until the sidecar ends it.
        Ok(true)
    });
    let (mut shop, plaintext) = moving(mesh, "http", origin.address);
    shop.mesh.apply(&orders("http", "Permissive"));
    let mut idle = Connection::open(plaintext).unwrap();
    assert_eq!(idle.get("/").unwrap().status, 200);
    let mut waits = Connection::open(plaintext).unwrap();
    waits
        .send(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut streams = connect(plaintext).unwrap();
    streams
        .write_all(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: 1\n\n") && !String::from_utf8_lossy(&seen).contains("data: 1") {
        let mut buffer = [0; 1024];
        let read = streams.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..read]);
    }
    let mut silent = connect(plaintext).unwrap();
    let mut of_mesh = Connection::open(shop.address).unwrap();
    assert_eq!(of_mesh.get("/").unwrap().status, 200);
    eventually("all are under way", || {
        origin.requests().iter().any(|one| one.path() == "/wait")
            && shown(&shop.orders)["connections"] == 4
    });

    shop.mesh.apply(&orders("http", "Strict"));
    assert_eq!(waits.receive(false).unwrap().status, 403);
    assert!(is_ended(waits.reader()) && is_ended(idle.reader()));
    let mut rest = Vec::new();
    // Broken off: neither the last chunk nor more events.
    let _ = streams.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    assert!(is_ended(&mut silent));
    assert_eq!(of_mesh.get("/").unwrap().status, 200);
    eventually("no connection is left", || {
        shown(&shop.orders)["connections"] == 0
    });
    shop.expect_unharmed();
}

#[test]
fn tcp_passes_over_plaintext_both_ways_to_its_ends_until_the_service_is_strict() {
    let mesh = Mesh::start();
    let origin = Origin::raw(mesh.address(), |mut tap| {
        tap.write_all(b"ready")?;
        let mut buffer = [0; 65536];
        loop {
            match tap.read(&mut buffer)? {
                0 => return tap.write_all(b"bye"),
                read => tap.write_all(&buffer[..read])?,
            }
        }
    });
    let (shop, plaintext) = moving(mesh, "tcp", origin.address);
    let open = |address: SocketAddr| {
        let mut stream = connect(address).unwrap();
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"ready");
        stream
    };
    assert!(is_refused(plaintext));

    shop.mesh.apply(&orders("tcp", "Permissive"));
    let mut of_mesh = open(shop.address);
    let mut stream = open(plaintext);
    expect_echo(&mut stream, b"a query");
    let large = vec![b'x'; 300_000];
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn({
        let large = large.clone();
        move || {
            writer.write_all(&large).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        }
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == [large, b"bye".to_vec()].concat());

    let mut running = open(plaintext);
    assert_eq!(shown(&shop.orders)["callers"][0]["connections"], 2);
    shop.mesh.apply(&orders("tcp", "Strict"));
    assert!(is_ended(&mut running));
    assert!(is_refused(plaintext));
    expect_echo(&mut of_mesh, b"the mesh goes on");
}

#[test]
fn grpc_passes_over_plaintext_and_is_refused_in_its_own_words() {
    let mesh = Mesh::start();
    let (application, seen) = Http2::recording(mesh.address(), |_| Answer {
        head: Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap(),
        pieces: vec!["\0\0\0\0\0"],
        trailers: Some(
            [(HeaderName::from_static("grpc-status"), "0".parse().unwrap())]
                .into_iter()
                .collect(),
        ),
        ..Answer::default()
    });
    let (shop, plaintext) = moving(mesh, "grpc", application.address);
    let strict = Streams::open(plaintext, 1).unary("/shop.Orders/Get", 1, 1);
    assert!(!strict[0].is_good(), "{strict:?}");
    assert!(seen.lock().unwrap().is_empty());
    shop.mesh.apply(&orders("grpc", "Permissive"));
    let calls = Streams::open(plaintext, 2).unary("/shop.Orders/Get", 50, 10);
    assert!(calls.iter().all(|call| call.is_good()), "{calls:?}");
}

#[test]
fn odd_clients_of_the_plaintext_listener_harm_none() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let (mut shop, plaintext) = moving_with(
        mesh,
        "http",
        origin.address,
        "timeouts: { request_headers: 1s }",
    );
    shop.mesh.apply(&orders("http", "Permissive"));
    let load = Load::start(shop.address, "/mesh", 2, Duration::from_millis(10));
    // Half-closed after a whole request: it is answered.
    let mut half = Connection::open(plaintext).unwrap();
    half.send(b"GET /half HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    half.reader().get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(half.receive(false).unwrap().status, 200);
    // Silent, and slow within the head.
    let mut silent = connect(plaintext).unwrap();
    let mut slow = Connection::open(plaintext).unwrap();
    slow.send(b"GET / HTTP/1.1\r\nhost:").unwrap();
    assert_eq!(slow.receive(false).unwrap().status, 408);
    assert!(is_ended(&mut silent));
    // Bytes that are no request, or one that no destination takes.
    for (bytes, status) in [
        (
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
            400,
        ),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"CONNECT other:22 HTTP/1.1\r\nhost: other:22\r\n\r\n", 405),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            501,
        ),
        (b"GET / HTTP/3.0\r\nhost: a\r\n\r\n", 505),
    ] {
        let response = exchange(plaintext, bytes).unwrap();
        assert_eq!(response.status, status, "{response:?}");
    }
    let huge = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    assert_eq!(exchange(plaintext, huge.as_bytes()).unwrap().status, 431);
    let mut garbage = connect(plaintext).unwrap();
    garbage
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff")
        .unwrap();
    let _ = garbage.read_to_end(&mut Vec::new());
    // Many that only connect.
    let idle: Vec<_> = (0..300).map(|_| connect(plaintext).unwrap()).collect();
    assert_eq!(get(plaintext, "/beside").unwrap().status, 200);
    drop(idle);
    eventually("no connection is left", || {
        shown(&shop.orders)["connections"] == 0
    });
    load.finish_after(100).expect_all_good(100);
    shop.expect_unharmed();
}

#[test]
fn a_process_that_takes_over_has_the_plaintext_listener_and_no_caller_notices() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let setting = "takeover_socket: takeover.sock";
    let (mut shop, plaintext) = moving_with(mesh, "http", origin.address, setting);
    shop.mesh.apply(&orders("http", "Permissive"));
    let load = Load::start(plaintext, "/plain", 3, Duration::from_millis(10));
    let mut old = shop.orders.take_over();
    assert!(old.wait_exit(Duration::from_secs(40)).success());
    load.finish_after(200).expect_all_good(200);
    assert_eq!(shown(&shop.orders)["mutual_tls"], "Permissive");
    shop.expect_unharmed();
}

/// RFC 9112 section 6.3: an interim response has no content, so what follows it may be anything.
#[test]
fn a_connection_whose_interim_response_declares_content_serves_no_second_plaintext_request() {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |request, out| {
        if request.path() == "/odd" {
            out.write_all(b"HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\n")?;
        }
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(true)
    });
    let (shop, plaintext) = moving_with(mesh, "http", origin.address, "workers: 1");
    shop.mesh.apply(&orders("http", "Permissive"));
    let connections = |path: &str| {
        for path in [path, "/", "/"] {
            assert_eq!(get(plaintext, path).unwrap().status, 200);
        }
        origin.connections()
    };
    let before = connections("/");
    assert_eq!(connections("/"), before, "a connection is used again");
    assert_eq!(connections("/odd"), before + 1);
}

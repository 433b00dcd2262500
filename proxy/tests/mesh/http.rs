//! HTTP/1.1 and HTTP/2 through the pair.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use weft_config::table::{Action, Default, Rule};

use crate::http_ends::*;
use crate::sidecars::{Applications, Mesh, To, id, listener};

#[tokio::test(flavor = "multi_thread")]
async fn a_get_reaches_the_application_with_the_callers_identity() {
    let (mesh, _tasks) = mesh().await;
    let request = Request::builder()
        .uri("/a/b?c")
        .header("host", "anything:1")
        .header("weft-client-id", "forged");
    let answer = call(
        mesh.listener(To::Orders),
        request.body(Full::<Bytes>::default()).unwrap(),
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["x-path"], "/a/b");
    assert_eq!(answer.headers["x-host"], "anything:1");
    assert_eq!(answer.headers["x-client"], id("frontend").as_str());
    assert_eq!(answer.headers["x-weft-headers"], "1");
    assert!(!answer.headers.contains_key("x-private"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_arrive_whole_in_both_directions() {
    let (mesh, _tasks) = mesh().await;
    for size in [0, 1, 100_000, 5_000_000] {
        let body: Vec<u8> = (0..size).map(|index: u32| (index % 251) as u8).collect();
        let request = Request::builder()
            .method("POST")
            .uri("/")
            .header("host", "orders");
        let answer = call(
            mesh.listener(To::Host),
            request.body(Full::from(body.clone())).unwrap(),
        )
        .await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways_without_forbidden_ones() {
    let (mesh, _tasks) = mesh().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    let frames = [
        Ok::<_, Infallible>(Frame::data(Bytes::from("data"))),
        Ok(Frame::trailers(trailers)),
    ];
    let request = Request::builder()
        .method("POST")
        .uri("/")
        .header("host", "orders")
        .header("te", "trailers")
        .header("trailer", "x-sum");
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let answer = call(mesh.listener(To::Orders), request.body(body).unwrap()).await;
    assert_eq!(answer.body, "data");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_with_prior_knowledge_passes_trailers() {
    let (mesh, _tasks) = mesh().await;
    let (mut sender, _connection) = grpc_client(mesh.listener(To::Grpc)).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let answer = grpc_call(&mut sender, trailers).await;
    assert_eq!(
        (answer.status, &answer.body[..]),
        (StatusCode::OK, &b"data"[..])
    );
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");

    // A refusal of the mesh takes the form that gRPC expects.
    mesh.allow(Default::Deny, vec![]).await;
    let answer = grpc_call(&mut sender, HeaderMap::new()).await;
    assert_eq!(answer.headers["grpc-status"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_waits_for_leave_arrives_whatever_the_method_and_framing() {
    let (mesh, _tasks) = mesh().await;
    for to in [To::Orders, To::Grpc] {
        let address = mesh.listener(to);
        for method in ["GET", "DELETE", "OPTIONS", "POST"] {
            for (framing, body) in [
                ("content-length: 4", "body"),
                ("transfer-encoding: chunked", "4\r\nbody\r\n0\r\n\r\n"),
            ] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let head = format!(
                    "{method} / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n{framing}\r\nconnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut leave = [0; 12];
                stream.read_exact(&mut leave).await.unwrap();
                assert_eq!(&leave, b"HTTP/1.1 100", "{method} {framing}");
                stream.write_all(body.as_bytes()).await.unwrap();
                let mut seen = String::new();
                stream.read_to_string(&mut seen).await.unwrap();
                let final_head = seen.contains("HTTP/1.1 200 OK\r\n");
                assert!(
                    final_head && seen.contains("body"),
                    "{method} {framing}: {seen}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_http2_that_waits_for_leave_arrives_whatever_the_method() {
    let (mesh, _tasks) = mesh().await;
    for (to, uri) in [
        (To::Orders, "http://orders.shop/"),
        (To::Grpc, "http://127.0.0.1/"),
    ] {
        let (mut sender, _connection) = grpc_client(mesh.listener(to)).await;
        for method in ["GET", "DELETE", "OPTIONS", "POST"] {
            let frames = [
                Ok(Frame::data(Bytes::from("bo"))),
                Ok(Frame::data(Bytes::from("dy"))),
            ];
            let request = Request::builder()
                .method(method)
                .uri(uri)
                .header("expect", "100-continue")
                .body(StreamBody::new(futures_util::stream::iter(frames)))
                .unwrap();
            let answer = answer(sender.send_request(request).await.unwrap()).await;
            assert_eq!(
                (answer.status.as_u16(), &answer.body[..]),
                (200, &b"body"[..]),
                "{method}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_says_clearly_why_it_refuses() {
    let (mesh, _tasks) = mesh().await;
    let by_host = mesh.listener(To::Host);
    for (host, status, token) in [
        ("nope.shop", 503, "destination_not_found"),
        ("secret.shop", 403, "http_request_denied"),
        ("empty.shop", 503, "destination_unavailable"),
        ("db.shop:5432", 400, "http_request_error"),
    ] {
        let answer = call(by_host, get(host, "/")).await;
        assert_eq!(answer.status, status, "{host}");
        let proxy_status = answer.headers["proxy-status"].to_str().unwrap();
        assert!(
            proxy_status.starts_with(&format!("weft; error={token}; details=")),
            "{proxy_status}"
        );
        assert!(answer.headers.contains_key("x-request-id"));
    }
    assert_eq!(call(by_host, get("routed", "/")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_denies_and_a_new_table_takes_effect_at_once() {
    let (mesh, _tasks) = mesh().await;
    let rule = Rule {
        policy: "AuthorizationPolicy/shop/p".into(),
        action: Action::Allow,
        principals: Some(vec![id("frontend")]),
        methods: None,
        paths: Some(vec!["/open/*".parse().unwrap()]),
    };
    mesh.allow(Default::Deny, vec![rule]).await;
    let to = mesh.listener(To::Orders);
    assert_eq!(call(to, get("orders", "/shut")).await.status, 403);
    assert_eq!(call(to, get("orders", "/open/a")).await.status, 200);
    assert_eq!(call(to, get("orders", "/open/../shut")).await.status, 403);
    assert_eq!(
        call(to, get("orders", "/open/%2e%2e/shut")).await.status,
        403
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_not_reached_is_replaced_by_another() {
    let (mesh, _tasks) = mesh().await;
    // `twice` is not served there, so the peer that is reached answers 421: it was reached.
    for _ in 0..4 {
        assert_eq!(
            call(mesh.listener(To::Twice), get("x", "/")).await.status,
            421
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_requests_are_refused_before_they_cross() {
    let (mesh, _tasks) = mesh().await;
    let to = mesh.listener(To::Orders);
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "400"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400"),
        (
            b"GET http://example.com/ HTTP/1.1\r\nhost: example.com\r\n\r\n",
            "405",
        ),
        (
            b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n",
            "405",
        ),
        (b"GET / HTTP/1.1\r\nhost: a\r\nexpect: x\r\n\r\n", "417"),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            "501",
        ),
        (b"\x16\x03\x01\x00\xa5\r\n\r\n", "400"),
    ] {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(
            std::str::from_utf8(&head[9..]),
            Ok(status),
            "{}",
            String::from_utf8_lossy(request)
        );
    }
    let mut stream = TcpStream::connect(to).await.unwrap();
    let many = "a: b\r\n".repeat(101);
    stream
        .write_all(format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head[9..], b"431");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_application_gets_its_caller_a_502_and_no_caller_a_stray_byte() {
    for hostile in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: \x00\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"garbage\r\n\r\n",
        b"",
    ] {
        let mut tasks = JoinSet::new();
        let (origin, http) = listener().await;
        serve_raw(&mut tasks, origin, hostile);
        let mesh = Mesh::start(Applications {
            http,
            grpc: http,
            tcp: http,
        })
        .await;
        let answer = call(mesh.listener(To::Orders), get("orders", "/")).await;
        assert_eq!(answer.status, 502, "{}", String::from_utf8_lossy(hostile));
        assert!(answer.headers.contains_key("proxy-status"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_down_is_a_502_with_a_reason() {
    let (_, down) = listener().await;
    let mesh = Mesh::start(Applications {
        http: down,
        grpc: down,
        tcp: down,
    })
    .await;
    let answer = call(mesh.listener(To::Orders), get("orders", "/")).await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.headers["proxy-status"]
            .to_str()
            .unwrap()
            .contains("connection_refused")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_keep_alive_stay_in_step() {
    let (mesh, _tasks) = mesh().await;
    let mut stream = TcpStream::connect(mesh.listener(To::Orders)).await.unwrap();
    let pipelined = "HEAD /one HTTP/1.1\r\nhost: a\r\n\r\nGET /two HTTP/1.1\r\nhost: a\r\n\r\nGET /three HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(pipelined.as_bytes()).await.unwrap();
    let mut seen = String::new();
    stream.read_to_string(&mut seen).await.unwrap();
    let paths: Vec<&str> = seen
        .lines()
        .filter_map(|line| line.strip_prefix("x-path: "))
        .collect();
    assert_eq!(paths, ["/one", "/two", "/three"]);
    assert_eq!(seen.matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_runs_and_the_admin_endpoint_tells() {
    let (mesh, _tasks) = mesh().await;
    let admin = mesh.frontend.admin();
    assert_eq!(call(admin, get("localhost", "/live")).await.status, 200);
    assert_eq!(call(admin, get("localhost", "/ready")).await.status, 200);
    assert_eq!(
        call(mesh.listener(To::Orders), get("x", "/")).await.status,
        200
    );
    let metrics = String::from_utf8(
        call(admin, get("localhost", "/metrics"))
            .await
            .body
            .to_vec(),
    )
    .unwrap();
    assert!(
        metrics.contains("weft_requests_total{direction=\"outbound\""),
        "{metrics}"
    );
    let certs =
        String::from_utf8(call(admin, get("localhost", "/certs")).await.body.to_vec()).unwrap();
    assert!(certs.contains("frontend") && !certs.contains("PRIVATE"));
    let drain = Request::builder()
        .method("POST")
        .uri("/drain")
        .header("host", "localhost")
        .body(Full::<Bytes>::default())
        .unwrap();
    assert_eq!(call(admin, drain).await.status, 202);
    mesh.frontend
        .until(tokio_util::sync::CancellationToken::new())
        .await
        .unwrap();
}

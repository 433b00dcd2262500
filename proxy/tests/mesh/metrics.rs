//! The counts that the admin endpoint shows of calls through the pair.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http_ends::{self as calls, call, get, grpc_call, grpc_client};
use crate::sidecars::{Applications, Mesh, To, listener};

/// The value of the one sample with these labels, once there is one: a call is counted when it ends,
/// which can be after the caller has its answer.
async fn value(admin: SocketAddr, name: &str, labels: &[&str]) -> String {
    loop {
        let answer = call(admin, get("localhost", "/metrics")).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let mut found = text.lines().filter(|line| {
            line.starts_with(&format!("{name}{{")) && labels.iter().all(|one| line.contains(one))
        });
        if let Some(line) = found.next() {
            assert_eq!(found.next(), None, "{name} {labels:?} is not one sample");
            return line.rsplit_once(' ').unwrap().1.to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_counted_under_the_service_that_was_called() {
    let (mesh, _tasks) = calls::mesh().await;
    call(mesh.listener(To::Host), get("empty.shop", "/")).await;
    call(mesh.listener(To::Host), get("nope.shop", "/")).await;
    let admin = mesh.frontend.admin();
    let failure = "classification=\"failure\"";
    let known = [
        "destination_service=\"empty.shop:80\"",
        "status=\"503\"",
        failure,
    ];
    assert_eq!(value(admin, "weft_requests_total", &known).await, "1");
    let unknown = ["destination_service=\"\"", failure];
    assert_eq!(value(admin, "weft_requests_total", &unknown).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_status_in_trailers_decides_the_classification_on_both_sides() {
    let (mesh, _tasks) = calls::mesh().await;
    let (mut sender, _connection) = grpc_client(mesh.listener(To::Grpc)).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "13".parse().unwrap());
    grpc_call(&mut sender, trailers).await;
    for (admin, direction) in [
        (mesh.frontend.admin(), "direction=\"outbound\""),
        (mesh.orders.admin(), "direction=\"inbound\""),
    ] {
        let labels = [direction, "status=\"200\"", "classification=\"failure\""];
        assert_eq!(value(admin, "weft_requests_total", &labels).await, "1");
    }
    let ok = ["result=\"ok\""];
    let handshakes = value(mesh.orders.admin(), "weft_quic_handshakes_total", &ok).await;
    assert_eq!(handshakes, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn first_requests_share_one_http2_connection_to_the_application() {
    let (origin, address) = listener().await;
    let mut tasks = JoinSet::new();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    calls::serve_http2(&mut tasks, origin, move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let mesh = Mesh::start_in_memory(Applications {
        http: address,
        grpc: address,
        tcp: address,
    })
    .await;
    let (sender, _connection) = grpc_client(mesh.listener(To::Grpc)).await;
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let mut sender = sender.clone();
        callers.spawn(async move { grpc_call(&mut sender, HeaderMap::new()).await });
    }
    callers.join_all().await;
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_counted_while_it_runs() {
    let (database, tcp) = listener().await;
    let mesh = Mesh::start_in_memory(Applications {
        http: tcp,
        grpc: tcp,
        tcp,
    })
    .await;
    let mut client = TcpStream::connect(mesh.listener(To::Database))
        .await
        .unwrap();
    client.write_all(b"question").await.unwrap();
    let mut server = loop {
        let (stream, _) = database.accept().await.unwrap();
        // Health probes say nothing.
        if stream.peek(&mut [0]).await.is_ok_and(|count| count > 0) {
            break stream;
        }
    };
    server.write_all(b"yes").await.unwrap();
    client.read_exact(&mut [0; 3]).await.unwrap();
    let service = ["destination_service=\"db.shop:5432\""];
    for admin in [mesh.frontend.admin(), mesh.orders.admin()] {
        for (name, expected) in [
            ("weft_tcp_connections_active", "1"),
            ("weft_tcp_connections_closed_total", "0"),
            ("weft_tcp_sent_bytes_total", "8"),
            ("weft_tcp_received_bytes_total", "3"),
        ] {
            // Bytes are counted when they have been sent, which may be when the other side has them already.
            while value(admin, name, &service).await != expected {}
        }
    }
}

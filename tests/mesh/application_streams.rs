//! Streams of HTTP/2 applications: how many there may be, and the effect of one that ends early.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

use crate::harness::{Call, Http2, Mesh, Sidecar, Streams, service};

struct Between {
    _mesh: Mesh,
    served: Sidecar,
    callers: Vec<Sidecar>,
}

impl Between {
    fn to(mesh: Mesh, application: SocketAddr, callers: &[&str]) -> Self {
        mesh.apply(&service("echo", 80, "grpc"));
        let served = mesh.sidecar("echo").serves("echo:80", application).start();
        let start = |name: &&str| {
            let caller = mesh.sidecar(name).calls("echo:80").start();
            caller.wait_endpoints("echo:80", 1);
            caller
        };
        Self {
            callers: callers.iter().map(start).collect(),
            served,
            _mesh: mesh,
        }
    }

    fn client(&self, caller: usize, connections: usize) -> Streams {
        Streams::open(self.callers[caller].listener("echo:80"), connections)
    }
}

/// Answers `/hold` by a head and a piece, and then goes on until the call ends; other calls at once.
fn holding(mesh: &Mesh, streams: u32) -> Http2 {
    Http2::start(mesh.address(), streams, |request, mut respond| {
        Box::pin(async move {
            let held = request.uri().path() == "/hold";
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"well"), false).unwrap();
            if held {
                let mut upload = request.into_body();
                while let Some(Ok(piece)) = upload.data().await {
                    let _ = upload.flow_control().release_capacity(piece.len());
                }
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = body.send_trailers(trailers);
        })
    })
}

#[test]
fn calls_beyond_the_streams_of_one_connection_run_on_further_ones() {
    let mesh = Mesh::start();
    let application = holding(&mesh, 100);
    let between = Between::to(mesh, application.address, &["shop", "bystander"]);
    let (client, bystander) = (between.client(0, 3), between.client(1, 1));
    let calls = client.begin("/hold", 240);
    let running = |call: &&Call| !call.response.headers().contains_key("grpc-status");
    assert_eq!(calls.iter().filter(running).count(), 240);
    // Other calls of the service, by this caller and by another one, are not affected.
    for other in [&client, &bystander] {
        let outcomes = other.unary("/", 20, 4);
        assert!(outcomes.iter().all(|one| one.is_good()), "{outcomes:?}");
    }
    assert!(application.connections() < 12);
}

#[test]
fn a_call_that_waits_too_long_for_a_stream_is_refused_and_counted_and_the_next_one_runs_when_there_is_room()
 {
    let mesh = Mesh::start();
    let application = holding(&mesh, 1);
    let between = Between::to(mesh, application.address, &["shop", "bystander"]);
    let (client, bystander) = (between.client(0, 1), between.client(1, 1));
    let began = Instant::now();
    // More than the connections of this caller for all workers.
    let calls = client.begin("/hold", 80);
    let took = began.elapsed().as_secs();
    assert!(took < 10, "{took} s");
    let (refused, running): (Vec<_>, Vec<_>) = calls
        .into_iter()
        .partition(|call| call.response.headers().contains_key("grpc-status"));
    assert!(
        running.len() >= 16 && refused.len() >= 16,
        "{}",
        running.len()
    );
    for call in refused {
        let outcome = client.finish(call);
        assert_eq!(outcome.grpc.as_deref(), Some("14"), "{outcome:?}");
        let told = outcome.proxy_status.as_deref().unwrap_or_default();
        assert!(
            told.contains("error=connection_limit_reached"),
            "{outcome:?}"
        );
        assert!(told.contains("allows no more streams"), "{outcome:?}");
    }
    // Another caller has connections of its own.
    assert!(bystander.unary("/", 5, 1).iter().all(|one| one.is_good()));
    let metrics = between.served.admin_get("/metrics").unwrap().text();
    for counted in [
        "weft_overload_total{limit=\"application_streams\"",
        "weft_application_waits_total{reason=\"streams\"",
    ] {
        let series = |line: &&str| {
            let labels = counted.split_once('{').unwrap();
            line.starts_with(labels.0) && line.contains(labels.1) && !line.ends_with(" 0")
        };
        assert!(metrics.lines().any(|line| series(&line)), "{counted}");
    }
    drop(running);
    let outcomes = client.unary("/", 5, 1);
    assert!(outcomes.iter().all(|one| one.is_good()), "{outcomes:?}");
}

#[test]
fn a_stream_that_the_application_resets_has_the_code_that_grpc_gives_it() {
    let mesh = Mesh::start();
    // The path is the code, and whether a part of the answer comes before.
    let application = Http2::start(mesh.address(), 100, |request, mut respond| {
        Box::pin(async move {
            let path = request.uri().path().trim_start_matches('/').to_owned();
            let (when, code) = path.split_once('/').unwrap();
            let code = h2::Reason::from(code.parse::<u32>().unwrap());
            if when == "before" {
                return respond.send_reset(code);
            }
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            body.send_reset(code);
        })
    });
    let between = Between::to(mesh, application.address, &["shop"]);
    let client = between.client(0, 1);
    for (path, code) in [
        ("/before/1", "13"),
        ("/before/2", "13"),
        ("/before/7", "14"),
        ("/before/8", "1"),
        ("/before/11", "8"),
        ("/before/12", "7"),
        ("/after/0", "13"),
        ("/after/2", "13"),
        ("/after/7", "14"),
        ("/after/8", "1"),
        ("/after/11", "8"),
    ] {
        let outcome = client.unary(path, 1, 1).remove(0);
        assert_eq!(outcome.grpc.as_deref(), Some(code), "{path}: {outcome:?}");
        if path.starts_with("/after") {
            assert_eq!(outcome.body, b"half", "{path}: {outcome:?}");
        }
    }
}

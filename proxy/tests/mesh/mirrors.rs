//! Copies of requests that routes send: what mirrors see, and that callers do not notice.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weft_config::table::{Filters, Mirror, MirrorShare, RouteRule};

use crate::fabric::{Fabric, application, status};
use crate::http_ends::{Answer, call};
use crate::resilience::metric;
use crate::routes::{lines, modified, request, rule, seen, service, show, to};
use crate::sidecars::listener;

/// A mesh with mirrors, and what they saw.
struct Mirrors {
    fabric: Fabric,
    client: usize,
    seen: mpsc::Receiver<(String, Bytes)>,
    _tasks: Vec<JoinSet<()>>,
}

/// `orders` with rules that send copies to applications that are well, that answer 500, that are down, that
/// hang, and to nowhere.
async fn mirrors() -> Mirrors {
    let mut fabric = Fabric::new();
    let (tell, seen) = mpsc::channel(64);
    let (main, one) = application(|request| show("v1", request)).await;
    let (well, two) = application(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let added = lines(&head.headers, "x-app").unwrap_or_default();
            let _ = tell.send((format!("{} {added}", head.uri), body)).await;
            status(200)
        }
    })
    .await;
    let (ill, three) = application(|_| async { status(500) }).await;
    let (hanging, four) = application(|_| std::future::pending()).await;
    let (down, address) = listener().await;
    drop(down);
    let serves = [
        ("v1", main),
        ("orders", main),
        ("well", well),
        ("ill", ill),
        ("hanging", hanging),
        ("down", address),
    ];
    fabric.add("orders", &serves, &[]).await;
    // Nothing answers handshakes there.
    drop(fabric.peer("silent", "orders"));
    let client = fabric.add("client", &[], &["orders"]).await;
    let of = |path: &str, mirrors: &[(&str, u32, u32)]| {
        let mirrors = mirrors.iter().map(|(name, numerator, denominator)| Mirror {
            service: service(name),
            port: 80,
            share: MirrorShare {
                numerator: *numerator,
                denominator: *denominator,
            },
        });
        let filters = Filters {
            request_headers: modified(),
            mirrors: mirrors.collect(),
            ..Filters::default()
        };
        rule(path, filters, vec![to("v1")])
    };
    let each = ["well", "ill", "hanging", "down", "silent", "nope"];
    let mut rules: Vec<RouteRule> = each
        .map(|name| of(&format!("/{name}"), &[(name, 1, 1)]))
        .into();
    rules.push(of("/two", &[("well", 1, 1), ("ill", 1, 1)]));
    rules.push(of("/half", &[("well", 25, 50), ("ill", 0, 100)]));
    fabric
        .publish_ports(|name, port| {
            if name == "orders" {
                port.routes = rules.clone();
            }
        })
        .await;
    Mirrors {
        fabric,
        client,
        seen,
        _tasks: vec![one, two, three, four],
    }
}

impl Mirrors {
    async fn call(&self, request: Request<Full<Bytes>>) -> Answer {
        call(self.fabric.listener(self.client, 0), request).await
    }

    /// Waits until so many copies for the service came to that result.
    async fn counted(&self, service: &str, result: &str, number: f64) {
        let destination = format!("destination_service=\"{service}.shop:80\"");
        let result = format!("result=\"{result}\"");
        let labels = [&*destination, &*result];
        while metric(&self.fabric, self.client, "weft_mirrored_total", &labels).await < number {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_sees_what_the_backend_gets_and_the_caller_only_its_answer() {
    let mut mesh = mirrors().await;
    let answer = mesh.call(request("/well/a?id=U", &[("x-app", "p")])).await;
    assert_eq!(answer.headers["x-by"], "v1");
    assert_eq!(seen(&answer, "x-app").as_deref(), Some("p,A2"), "G40b");
    let copied = mesh.seen.recv().await.unwrap();
    assert_eq!(copied, ("/well/a?id=U p,A2".into(), Bytes::new()), "G40a");
    mesh.counted("well", "answered", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mirror_of_a_rule_is_drawn_for_itself() {
    let mut mesh = mirrors().await;
    mesh.call(request("/two", &[])).await;
    mesh.counted("well", "answered", 1.0).await;
    mesh.counted("ill", "answered", 1.0).await;
    mesh.seen.recv().await.unwrap();
    for _ in 0..200 {
        let answer = mesh.call(request("/half", &[])).await;
        assert_eq!(answer.headers["x-by"], "v1");
        while mesh.seen.try_recv().is_ok() {}
    }
    let counts = |name: &'static str| {
        let destination = format!("destination_service=\"{name}.shop:80\"");
        let mesh = &mesh;
        async move {
            metric(
                &mesh.fabric,
                mesh.client,
                "weft_mirrored_total",
                &[&destination],
            )
            .await
        }
    };
    // Four standard deviations.
    let well = counts("well").await;
    assert!((72.0..=130.0).contains(&well), "G42b: {well}");
    assert!(counts("ill").await < 1.5, "X27");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_gets_the_whole_body_or_no_copy_at_all() {
    let mut mesh = mirrors().await;
    let post = |size: usize| {
        let body = vec![b'x'; size];
        let request = Request::builder().method("POST").uri("/well");
        let request = request.header("host", "orders");
        request.body(Full::from(body)).unwrap()
    };
    for size in [1, 60_000] {
        let answer = mesh.call(post(size)).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, size));
        assert_eq!(mesh.seen.recv().await.unwrap().1.len(), size);
    }
    let answer = mesh.call(post(1 << 20)).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 1 << 20));
    mesh.counted("well", "body", 1.0).await;
    assert!(mesh.seen.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_mirror_is_not_the_callers() {
    let mesh = mirrors().await;
    for name in ["ill", "down", "silent", "hanging", "nope"] {
        let path = format!("/{name}");
        let calls = async {
            for _ in 0..5 {
                let answer = mesh.call(request(&path, &[])).await;
                assert_eq!(answer.status, 200, "X26 {name}");
                assert_eq!(answer.headers["x-by"], "v1", "X25 {name}");
            }
        };
        // Far less than a copy may take.
        let all = tokio::time::timeout(Duration::from_secs(5), calls).await;
        assert!(all.is_ok(), "{name} held its callers back");
    }
    mesh.counted("ill", "answered", 5.0).await;
    mesh.counted("down", "failed", 5.0).await;
    mesh.counted("silent", "failed", 5.0).await;
    let failures = metric(
        &mesh.fabric,
        mesh.client,
        "weft_requests_total",
        &["classification=\"failure\""],
    );
    assert!(failures.await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_copies_than_may_be_under_way_are_dropped_and_counted() {
    let mesh = mirrors().await;
    let mut calls = JoinSet::new();
    let to = mesh.fabric.listener(mesh.client, 0);
    for _ in 0..30 {
        calls.spawn(async move {
            for _ in 0..10 {
                assert_eq!(call(to, request("/hanging", &[])).await.status, 200);
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    mesh.counted("hanging", "crowded", 30.0).await;
    assert_eq!(mesh.call(request("/well", &[])).await.status, 200);
}

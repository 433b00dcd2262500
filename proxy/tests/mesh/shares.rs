//! Backends of rules: their shares, what becomes of the share of a broken one, and whether it is asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use weft_config::table::{Backend, Broken, Filters, Protocol, Retry, RouteRule};

use crate::fabric::Fabric;
use crate::http_ends::{call, get};
use crate::routes::{Pair, rule, service, to};
use crate::sidecars::listener;

#[tokio::test(flavor = "multi_thread")]
async fn the_share_of_a_backend_that_cannot_be_used_fails_and_is_not_moved() {
    let mut broken = Backend::new(service("nonexistent"), 80, 1);
    broken.broken = Some(Broken::BackendNotFound);
    let unresolved = Filters {
        unresolved: Some("Filter nope".into()),
        ..Filters::default()
    };
    let nothing = Backend::new(service("v1"), 80, 0);
    let mesh = Pair::start(vec![
        rule("/half", Filters::default(), vec![to("v1"), broken.clone()]),
        rule("/zero", Filters::default(), vec![nothing]),
        rule("/none", Filters::default(), vec![]),
        rule("/filter", unresolved, vec![to("v1")]),
        rule(
            "/unseen",
            Filters::default(),
            vec![Backend::new(service("nope"), 80, 1)],
        ),
    ])
    .await;
    let mut failed = 0;
    for _ in 0..100 {
        let answer = mesh.call("/half", &[]).await;
        if answer.status == 500 {
            failed += 1;
            let why = answer.headers["proxy-status"].to_str().unwrap();
            let names = [
                "proxy_configuration_error",
                "nonexistent.shop:80",
                "HTTPRoute/shop/r",
                "BackendNotFound",
            ];
            assert!(names.iter().all(|name| why.contains(name)), "{why}");
        } else {
            assert_eq!(answer.headers["x-by"], "v1");
        }
    }
    assert!((25..75).contains(&failed), "X13: {failed}");
    for (id, path, status) in [
        ("X16", "/zero", 500),
        ("G10", "/none", 500),
        ("X24", "/filter", 500),
        ("not visible", "/unseen", 500),
        ("X35", "/else", 404),
    ] {
        assert_eq!(mesh.call(path, &[]).await.status, status, "{id}");
    }
    let labels = ["route=\"HTTPRoute/shop/r\"", "status=\"500\""];
    let counted = mesh.metric("weft_requests_total", &labels).await;
    assert!((counted - f64::from(failed) - 4.0).abs() < 0.1, "{counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_share_of_a_backend_without_endpoints_is_unavailable() {
    let mesh = Pair::start(vec![]).await;
    let split = rule("/", Filters::default(), vec![to("v1"), to("v2")]);
    mesh.fabric
        .publish_ports(|name, port| match name {
            "orders" => port.routes = vec![split.clone()],
            "v2" => port.endpoints.clear(),
            _ => {}
        })
        .await;
    let mut unavailable = 0;
    for _ in 0..100 {
        let answer = mesh.call("/", &[]).await;
        if answer.status == 503 {
            unavailable += 1;
        } else {
            assert_eq!(answer.headers["x-by"], "v1");
        }
    }
    assert!((25..75).contains(&unavailable), "X15: {unavailable}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_breaks_off_is_asked_again_without_any_code_listed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (application, address) = listener().await;
    let mut tasks = JoinSet::new();
    let count = Arc::clone(&asked);
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = application.accept().await {
            let mut head = [0; 4096];
            // Health probes send nothing.
            if !matches!(stream.read(&mut head).await, Ok(1..)) {
                continue;
            }
            if count.fetch_add(1, Ordering::Relaxed) < 2 {
                continue;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    let mut fabric = Fabric::new();
    fabric.add("orders", &[("orders", address)], &[]).await;
    let client = fabric.add("client", &[], &["orders"]).await;
    let publish = async |attempts| {
        let mut rule = rule("/", Filters::default(), vec![to("orders")]);
        let traffic = Arc::make_mut(&mut rule.traffic);
        traffic.retry = Retry {
            attempts,
            ..Retry::default()
        };
        traffic.retry.backoff.at_least = Duration::from_millis(50);
        fabric
            .publish_ports(|_, port| port.routes = vec![rule.clone()])
            .await;
    };
    publish(3).await;
    let began = std::time::Instant::now();
    let answer = call(fabric.listener(client, 0), get("orders", "/")).await;
    assert_eq!(answer.status, 200, "G46");
    assert!(began.elapsed() >= Duration::from_millis(100), "X31");
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_split_by_weight_and_reset_where_the_backend_is_broken() {
    let mut fabric = Fabric::new();
    let mut tasks = JoinSet::new();
    let mut serves = Vec::new();
    for name in ["one", "two"] {
        let (application, address) = listener().await;
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = application.accept().await {
                let _ = stream.write_all(name.as_bytes()).await;
            }
        });
        serves.push((name, address));
    }
    serves.push(("db", serves[0].1));
    fabric.add("db", &serves, &[]).await;
    let client = fabric.add("client", &[], &["db"]).await;
    let publish = async |backends: Vec<Backend>| {
        let rule = RouteRule {
            route: "TCPRoute/shop/t".into(),
            backends,
            ..RouteRule::default()
        };
        fabric
            .publish_ports(|name, port| {
                port.protocol = Protocol::Tcp;
                if name == "db" {
                    port.routes = vec![rule.clone()];
                }
            })
            .await;
    };
    let talk = async || {
        let mut stream = TcpStream::connect(fabric.listener(client, 0)).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let zero = Backend::new(service("db"), 80, 0);
    publish(vec![to("one"), to("two"), zero]).await;
    let mut ones = 0;
    for _ in 0..60 {
        match &*talk().await.unwrap() {
            "one" => ones += 1,
            "two" => {}
            other => panic!("{other}"),
        }
    }
    assert!((10..50).contains(&ones), "T1: {ones}");
    let mut broken = to("one");
    broken.broken = Some(Broken::BackendNotFound);
    publish(vec![broken]).await;
    assert!(talk().await.is_err(), "T5");
}

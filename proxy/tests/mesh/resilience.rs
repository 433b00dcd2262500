//! How sidecars handle endpoints that are dead, slow, failing or full: retries, ejection, deadlines, limits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use weft_config::table::{Algorithm, Mode, Traffic};

use crate::fabric::{Fabric, application, status};
use crate::http_ends::{Answer, call, get};
use crate::traffic_policy::requests;

/// A request with an id that the application may count, and a body that it may check.
fn post(id: u64) -> Request<Full<Bytes>> {
    Request::builder()
        .method("POST")
        .uri(format!("/{id}"))
        .header("host", "orders")
        .body(Full::from(id.to_string()))
        .unwrap()
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// The sum of the samples of a metric with these labels.
pub(crate) async fn metric(fabric: &Fabric, sidecar: usize, name: &str, labels: &[&str]) -> f64 {
    let text = text(&call(fabric.admin(sidecar), get("localhost", "/metrics")).await);
    let samples = text.lines().filter(|line| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    });
    samples
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_one_of_two_instances_fails_no_request_and_executes_none_twice() {
    let executed = Arc::new(Mutex::new(HashMap::<String, u32>::new()));
    let mut fabric = Fabric::new();
    let mut instances = Vec::new();
    for account in ["orders-a", "orders-b"] {
        let executed = Arc::clone(&executed);
        let (address, tasks) = application(move |request| {
            let executed = Arc::clone(&executed);
            async move {
                let id = request.uri().path()[1..].to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, id, "a body arrives whole or not at all");
                *executed.lock().unwrap().entry(id).or_default() += 1;
                status(200)
            }
        })
        .await;
        fabric.add(account, &[("orders", address)], &[]).await;
        instances.push(tasks);
    }
    let client = fabric.add("client", &[], &["orders"]).await;
    fabric
        .publish(|_| {
            let mut traffic = Traffic::default();
            // Both get requests, however they compare.
            traffic.balance.algorithm = Algorithm::RoundRobin;
            traffic
        })
        .await;
    let to = fabric.listener(client, 0);
    for id in 0..200 {
        if id == 50 {
            instances.pop().unwrap().shutdown().await;
        }
        assert_eq!(call(to, post(id)).await.status, 200, "{id}");
    }
    {
        let executed = executed.lock().unwrap();
        assert_eq!(executed.len(), 200);
        assert!(executed.values().all(|times| *times == 1));
    }
    let recovered = ["result=\"recovered\""];
    assert!(metric(&fabric, client, "weft_requests_retried_total", &recovered).await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_endpoint_is_left_out_and_comes_back_by_one_request() {
    let ill = Arc::new(AtomicBool::new(true));
    let asked = Arc::new(AtomicUsize::new(0));
    let mut fabric = Fabric::new();
    let (of_ill, of_asked) = (Arc::clone(&ill), Arc::clone(&asked));
    let (address, _ill_tasks) = application(move |_| {
        of_asked.fetch_add(1, Ordering::Relaxed);
        let code = if of_ill.load(Ordering::Relaxed) {
            500
        } else {
            201
        };
        async move { status(code) }
    })
    .await;
    fabric.add("orders-a", &[("orders", address)], &[]).await;
    let (address, _well_tasks) = application(|_| async { status(200) }).await;
    fabric.add("orders-b", &[("orders", address)], &[]).await;
    let client = fabric.add("client", &[], &["orders"]).await;
    let traffic = |_: &str| {
        let mut traffic = Traffic::default();
        traffic.breaker.ejection_base = Duration::from_millis(200);
        traffic
    };
    fabric.publish(traffic).await;
    let to = fabric.listener(client, 0);
    let out = ["state=\"out\""];
    while metric(&fabric, client, "weft_lb_endpoints", &out).await < 1.0 {
        call(to, get("orders", "/")).await;
    }
    let endpoints = text(&call(fabric.admin(client), get("localhost", "/endpoints")).await);
    assert!(endpoints.contains("consecutive_failures"), "{endpoints}");
    // A new table does not make it forget.
    fabric.publish(traffic).await;
    let before = asked.load(Ordering::Relaxed);
    for _ in 0..20 {
        assert_eq!(call(to, get("orders", "/")).await.status, 200);
    }
    // At most a probe or two went there, whose failure was not repeated for the caller.
    assert!(asked.load(Ordering::Relaxed) <= before + 2);
    ill.store(false, Ordering::Relaxed);
    while call(to, get("orders", "/")).await.status != 201 {}
    assert_eq!(
        metric(&fabric, client, "weft_lb_endpoints", &out).await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_always_fails_gets_little_more_than_what_is_asked() {
    let asked = Arc::new(AtomicU64::new(0));
    let of_asked = Arc::clone(&asked);
    let (address, _tasks) = application(move |_| {
        of_asked.fetch_add(1, Ordering::Relaxed);
        async { status(503) }
    })
    .await;
    let mut fabric = Fabric::new();
    fabric.add("orders", &[("orders", address)], &[]).await;
    let client = fabric.add("client", &[], &["orders"]).await;
    fabric
        .publish(|_| {
            let mut traffic = Traffic::default();
            let mut request = (*traffic.request).clone();
            request.retry.codes = vec![503];
            request.retry.backoff.base = Duration::from_millis(1);
            request.retry.backoff.max = Duration::from_millis(1);
            traffic.request = Arc::new(request);
            traffic
        })
        .await;
    let to = fabric.listener(client, 0);
    let began = Instant::now();
    for _ in 0..300 {
        assert_eq!(call(to, get("orders", "/")).await.status, 503);
    }
    // A fifth more, and the floor of one per second with what the first ten seconds bring along.
    let most = 300 + 60 + 10 + began.elapsed().as_secs();
    let asked = asked.load(Ordering::Relaxed);
    assert!((360..=most).contains(&asked), "{asked}");
    let withheld = ["reason=\"budget\""];
    assert!(metric(&fabric, client, "weft_retries_withheld_total", &withheld).await > 0.0);
    let failed = ["result=\"failed\""];
    assert!(metric(&fabric, client, "weft_requests_retried_total", &failed).await > 0.0);
}

/// A last service that never answers, behind one that calls it and passes on only `traceparent`. The returned
/// channels report when the last one is asked, with its deadline, and when it is cancelled.
async fn stuck_chain(
    fabric: &mut Fabric,
) -> (usize, mpsc::Receiver<String>, Vec<tokio::task::JoinSet<()>>) {
    struct Told(mpsc::Sender<String>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.try_send("cancelled".into());
        }
    }
    let (heard, hears) = mpsc::channel(16);
    let (last, last_tasks) = application(move |request| {
        let deadline = request.headers().get("weft-deadline");
        let deadline = deadline.map_or("none", |value| value.to_str().unwrap());
        let _ = heard.try_send(deadline.to_owned());
        let told = Told(heard.clone());
        async move {
            std::future::pending::<()>().await;
            drop(told);
            status(200)
        }
    })
    .await;
    fabric.add("last", &[("last", last)], &[]).await;
    let (client, middle_tasks) = before_last(fabric).await;
    (client, hears, vec![last_tasks, middle_tasks])
}

/// A service that calls the last one, passing on only `traceparent` of the request and returning its status;
/// and a client of it, whose number is returned.
async fn before_last(fabric: &mut Fabric) -> (usize, tokio::task::JoinSet<()>) {
    // Its own address is known only once it has a sidecar.
    let next = Arc::new(Mutex::new(None));
    let of_next = Arc::clone(&next);
    let (middle, middle_tasks) = application(move |request| {
        let next = of_next.lock().unwrap().unwrap();
        let mut onward = get("last", "/");
        if let Some(trace) = request.headers().get("traceparent") {
            onward.headers_mut().insert("traceparent", trace.clone());
        }
        async move { status(call(next, onward).await.status.as_u16()) }
    })
    .await;
    let sidecar = fabric.add("middle", &[("middle", middle)], &["last"]).await;
    *next.lock().unwrap() = Some(fabric.listener(sidecar, 0));
    let client = fabric.add("client", &[], &["middle"]).await;
    (client, middle_tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_deep_in_a_chain_are_not_multiplied_where_the_trace_is_passed_on() {
    let asked = Arc::new(AtomicU64::new(0));
    let of_asked = Arc::clone(&asked);
    let (last, _last) = application(move |_| {
        of_asked.fetch_add(1, Ordering::Relaxed);
        async { status(503) }
    })
    .await;
    let mut fabric = Fabric::new();
    fabric.add("last", &[("last", last)], &[]).await;
    let (client, _middle) = before_last(&mut fabric).await;
    fabric
        .publish(|_| {
            requests(|request| {
                request.retry.codes = vec![503];
                request.retry.backoff.max = request.retry.backoff.base;
            })
        })
        .await;
    let to = fabric.listener(client, 0);
    let began = Instant::now();
    for number in 1..=200 {
        let mut request = get("middle", "/");
        let trace = format!("00-{number:032x}-b7ad6b7169203331-01");
        request
            .headers_mut()
            .insert("traceparent", trace.parse().unwrap());
        assert_eq!(call(to, request).await.status, 503);
    }
    // A fifth more and the floor, once for the whole chain: two hops apart would be 288 and two floors.
    let most = 200 + 40 + 10 + began.elapsed().as_secs();
    let asked = asked.load(Ordering::Relaxed);
    assert!((240..=most).contains(&asked), "{asked}");
    assert_eq!(
        metric(&fabric, client, "weft_retries_total", &[]).await,
        0.0
    );
    let told = ["reason=\"told\""];
    assert_eq!(
        metric(&fabric, client, "weft_retries_withheld_total", &told).await,
        200.0
    );
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_holds_through_an_application_that_passes_on_only_the_trace() {
    let mut fabric = Fabric::new();
    let (client, mut hears, _tasks) = stuck_chain(&mut fabric).await;
    fabric.publish(|_| Traffic::default()).await;
    let mut request = get("middle", "/");
    let headers = request.headers_mut();
    headers.insert("weft-deadline", "300".parse().unwrap());
    headers.insert("traceparent", TRACE.parse().unwrap());
    let began = Instant::now();
    let answer = call(fabric.listener(client, 0), request).await;
    let took = began.elapsed();
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(2),
        "{took:?}"
    );
    let left: u64 = hears.recv().await.unwrap().parse().unwrap();
    assert!((1..300).contains(&left), "{left}");
    assert_eq!(hears.recv().await.unwrap(), "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_is_noticed_by_the_application() {
    let mut fabric = Fabric::new();
    let (client, mut hears, _tasks) = stuck_chain(&mut fabric).await;
    fabric.publish(|_| Traffic::default()).await;
    let to = fabric.listener(client, 0);
    let asking = call(to, get("middle", "/"));
    tokio::select! {
        _ = asking => panic!("the last one never answers"),
        asked = hears.recv() => assert_eq!(asked.unwrap(), "none"),
    }
    // The middle application is told by its sidecar, and drops its own call. Each closes its connection, in
    // order.
    let heard = tokio::time::timeout(Duration::from_secs(10), hears.recv()).await;
    assert_eq!(heard.unwrap().unwrap(), "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_the_limit_are_refused_at_once_and_may_go_elsewhere() {
    let (go, entered) = (CancellationToken::new(), Arc::new(Notify::new()));
    let (of_go, of_entered) = (go.clone(), Arc::clone(&entered));
    let (address, _tasks) = application(move |_| {
        let go = of_go.clone();
        of_entered.notify_one();
        async move {
            go.cancelled().await;
            status(200)
        }
    })
    .await;
    let mut fabric = Fabric::new();
    fabric.add("orders", &[("orders", address)], &[]).await;
    let client = fabric.add("client", &[], &["orders"]).await;
    let limited = |mode| {
        move |_: &str| {
            let mut traffic = Traffic::default();
            traffic.concurrency.max = Some(1);
            traffic.concurrency.mode = mode;
            traffic
        }
    };
    fabric.publish(limited(Mode::Enforce)).await;
    let to = fabric.listener(client, 0);
    let first = tokio::task::JoinSet::from_iter([call(to, get("orders", "/"))]);
    entered.notified().await;
    let refused = call(to, get("orders", "/")).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(!refused.headers.contains_key("weft-retry"));
    let proxy_status = refused.headers["proxy-status"].to_str().unwrap();
    assert!(
        proxy_status.contains("connection_limit_reached"),
        "{proxy_status}"
    );
    let mut grpc = get("orders", "/");
    grpc.headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    assert_eq!(call(to, grpc).await.headers["grpc-status"], "14");
    // A policy that only observes lets requests through and counts them.
    fabric.publish(limited(Mode::Observe)).await;
    let second = tokio::task::JoinSet::from_iter([call(to, get("orders", "/"))]);
    entered.notified().await;
    let observed = ["limit=\"fixed\"", "mode=\"observe\""];
    assert_eq!(
        metric(&fabric, 0, "weft_overload_total", &observed).await,
        1.0
    );
    go.cancel();
    for answer in first
        .join_all()
        .await
        .into_iter()
        .chain(second.join_all().await)
    {
        assert_eq!(answer.status, 200);
    }
}

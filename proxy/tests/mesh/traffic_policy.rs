//! Sidecars under a traffic policy, besides retries and breakers: hedges, faults, rates, failover, overrides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use weft_config::table::{
    Algorithm, Failover, Fault, FaultAbort, FaultDelay, FaultStatus, Hedge, HedgeAfter, Mode,
    Percent, RateLimit, RequestTraffic, ServiceName, Traffic,
};

use crate::fabric::{Fabric, application, status};
use crate::http_ends::{call, get};
use crate::resilience::metric;

/// The traffic of requests changed.
pub(crate) fn requests(change: impl Fn(&mut RequestTraffic)) -> Traffic {
    let mut request = RequestTraffic::default();
    change(&mut request);
    Traffic {
        request: Arc::new(request),
        ..Traffic::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_stuck_request_answers_and_the_stuck_one_is_cancelled() {
    let (told, mut hears) = mpsc::channel(16);
    struct Told(mpsc::Sender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    let mut fabric = Fabric::new();
    let (address, _stuck) = application(move |_| {
        let told = Told(told.clone());
        async move {
            std::future::pending::<()>().await;
            drop(told);
            status(500)
        }
    })
    .await;
    fabric.add("orders-a", &[("orders", address)], &[]).await;
    let (address, _well) = application(|_| async { status(200) }).await;
    fabric.add("orders-b", &[("orders", address)], &[]).await;
    let client = fabric.add("client", &[], &["orders"]).await;
    fabric
        .publish(|_| {
            let mut traffic = requests(|request| {
                request.hedge = Some(Hedge {
                    after: HedgeAfter::Delay(Duration::from_millis(20)),
                    attempts: 1,
                    non_idempotent: false,
                });
            });
            traffic.balance.algorithm = Algorithm::RoundRobin;
            traffic
        })
        .await;
    let to = fabric.listener(client, 0);
    for _ in 0..4 {
        assert_eq!(call(to, get("orders", "/")).await.status, 200);
    }
    hears.recv().await.unwrap();
    hears.recv().await.unwrap();
    let won = metric(&fabric, client, "weft_hedges_total", &["result=\"won\""]).await;
    assert!(won >= 2.0, "{won}");
}

#[tokio::test(flavor = "multi_thread")]
async fn injected_faults_answer_in_place_of_the_application() {
    let (address, _tasks) = application(|_| async { status(200) }).await;
    let mut fabric = Fabric::new();
    fabric.add("orders", &[("orders", address)], &[]).await;
    let client = fabric.add("client", &[], &["orders"]).await;
    fabric
        .publish(|_| {
            requests(|request| {
                request.fault = Fault {
                    delay: Some(FaultDelay {
                        percent: Percent::whole(100),
                        duration: Duration::from_millis(50),
                    }),
                    abort: Some(FaultAbort {
                        percent: Percent::whole(100),
                        with: FaultStatus::Http(418),
                    }),
                };
            })
        })
        .await;
    let began = Instant::now();
    let answer = call(fabric.listener(client, 0), get("orders", "/")).await;
    assert_eq!(answer.status, 418);
    assert!(began.elapsed() >= Duration::from_millis(50));
    let proxy_status = answer.headers["proxy-status"].to_str().unwrap();
    assert!(
        proxy_status.contains("proxy_internal_response"),
        "{proxy_status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_its_rate_is_told_so_and_another_one_is_not() {
    let (address, _tasks) = application(|_| async { status(200) }).await;
    let mut fabric = Fabric::new();
    fabric.add("orders", &[("orders", address)], &[]).await;
    let one = fabric.add("client-a", &[], &["orders"]).await;
    let other = fabric.add("client-b", &[], &["orders"]).await;
    fabric
        .publish(|_| Traffic {
            caller_rate_limits: vec![RateLimit {
                requests: 1,
                per: Duration::from_secs(3600),
                burst: 2,
                mode: Mode::Enforce,
            }],
            ..Traffic::default()
        })
        .await;
    let ask = async |client| call(fabric.listener(client, 0), get("orders", "/")).await;
    assert_eq!(ask(one).await.status, 200);
    assert_eq!(ask(one).await.status, 200);
    let refused = ask(one).await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(ask(other).await.status, 200);
    let refused = ["limit=\"caller_rate\"", "mode=\"enforce\""];
    assert_eq!(
        metric(&fabric, 0, "weft_overload_total", &refused).await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_takes_over_while_no_endpoint_is_well() {
    let ill = Arc::new(AtomicBool::new(true));
    let of_ill = Arc::clone(&ill);
    let mut fabric = Fabric::new();
    let (address, _first) = application(move |_| {
        let code = if of_ill.load(Ordering::Relaxed) {
            500
        } else {
            200
        };
        async move { status(code) }
    })
    .await;
    fabric.add("orders", &[("orders", address)], &[]).await;
    let (address, _spare) = application(|_| async { status(203) }).await;
    fabric.add("spare", &[("spare", address)], &[]).await;
    let client = fabric.add("client", &[], &["orders"]).await;
    fabric
        .publish(|service| {
            let mut traffic = Traffic::default();
            traffic.breaker.ejection_base = Duration::from_millis(100);
            traffic.failover = (service == "orders").then(|| Failover {
                service: ServiceName::new("shop", "spare").unwrap(),
                port: 80,
            });
            traffic
        })
        .await;
    let to = fabric.listener(client, 0);
    while call(to, get("orders", "/")).await.status != 203 {}
    ill.store(false, Ordering::Relaxed);
    while call(to, get("orders", "/")).await.status != 200 {}
    assert!(metric(&fabric, client, "weft_failovers_total", &[]).await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_the_policy_names_overrides_it_by_headers_that_go_no_further() {
    let asked = Arc::new(AtomicUsize::new(0));
    let of_asked = Arc::clone(&asked);
    let (address, _tasks) = application(move |request| {
        let leaked = request
            .headers()
            .keys()
            .any(|name| name.as_str().contains("override"));
        of_asked.fetch_add(1, Ordering::Relaxed);
        async move { status(if leaked { 200 } else { 503 }) }
    })
    .await;
    let mut fabric = Fabric::new();
    fabric.add("orders", &[("orders", address)], &[]).await;
    let named = fabric.add("client-a", &[], &["orders"]).await;
    let other = fabric.add("client-b", &[], &["orders"]).await;
    fabric
        .publish(|_| {
            requests(|request| {
                request.retry.codes = vec![503];
                request.overrides.callers =
                    vec!["spiffe://demo.test/ns/shop/sa/client-a".parse().unwrap()];
            })
        })
        .await;
    let ask = async |client| {
        let mut request = get("orders", "/");
        let once = http::HeaderValue::from_static("0");
        request
            .headers_mut()
            .insert("weft-override-retry-attempts", once);
        let before = asked.load(Ordering::Relaxed);
        let answer = call(fabric.listener(client, 0), request).await;
        assert_eq!(answer.status, 503);
        asked.load(Ordering::Relaxed) - before
    };
    assert_eq!(ask(named).await, 1);
    assert!(ask(other).await > 1);
    for (client, result) in [(named, "result=\"taken\""), (other, "result=\"forbidden\"")] {
        assert_eq!(
            metric(&fabric, client, "weft_overrides_total", &[result]).await,
            1.0
        );
    }
}

//! Health checks of applications: an endpoint is there for callers while its application passes, and how
//! soon it leaves when that fails, stops, or crashes.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, Response};
use nix::sys::signal::Signal;

use crate::harness::{
    Answer, Http2, Load, Mesh, Origin, Sidecar, eventually, get, pause, service, wait_until,
};

/// The check of these tests: every 200 ms, 300 ms for an answer, out after two failures.
const RULES: &str = "interval: 200ms, timeout: 300ms, unhealthy: 2";

/// By those rules at most 200 + 2 * 300 + 200 ms, and 200 ms until the config service publishes it. The rest
/// is for a busy machine.
const OUT_WITHIN: Duration = Duration::from_millis(1200 + 2000);

/// The life of a registration without renewal, and how late its end may be noticed.
const LEASE: Duration = Duration::from_secs(15 + 1);

/// How long until a sidecar has this many endpoints of `orders:80`.
fn until_endpoints(sidecar: &Sidecar, count: usize) -> Duration {
    let began = Instant::now();
    sidecar.wait_endpoints("orders:80", count);
    began.elapsed()
}

/// Writes an answer, and says whether the connection goes on.
type Answering = fn(&mut dyn Write) -> io::Result<bool>;

/// How an application answers its health check, and what the sidecar says of that.
const ANSWERS: [(&str, Answering, &str); 7] = [
    (
        "503",
        |out| {
            write(
                out,
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            )
        },
        "answered 503",
    ),
    (
        "a redirect",
        |out| {
            write(
                out,
                "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            )
        },
        "answered 302 Found: redirects are not followed",
    ),
    ("nothing", |_| hang(), "no whole answer within 300ms"),
    (
        "a part of its head",
        |out| write(out, "HTTP/1.1 200 OK\r\n").and_then(|_| hang()),
        "no whole answer within 300ms",
    ),
    (
        "a byte now and then",
        |out| {
            write(out, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")?;
            for _ in 0..20 {
                write(out, "a")?;
                pause(Duration::from_millis(50));
            }
            Ok(false)
        },
        "no whole answer within 300ms",
    ),
    (
        "half of its body",
        |out| {
            write(out, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")?;
            Ok(false)
        },
        "no answer that can be understood",
    ),
    (
        "another protocol",
        |out| write(out, "220 mail.example ready\r\n").map(|_| false),
        "no answer that can be understood",
    ),
];

fn write(out: &mut dyn Write, text: &str) -> io::Result<bool> {
    out.write_all(text.as_bytes())?;
    Ok(true)
}

/// Longer than the check waits.
fn hang() -> io::Result<bool> {
    pause(Duration::from_secs(1));
    Ok(false)
}

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn an_application_that_fails_its_check_in_any_way_is_out_in_time_and_said_why() {
    let mesh = Mesh::start();
    let mode = Arc::new(AtomicUsize::new(usize::MAX));
    let bad = Arc::clone(&mode);
    let origin = Origin::http(mesh.address(), move |seen, out| {
        match ANSWERS.get(bad.load(Ordering::Relaxed)) {
            Some((_, answer, _)) if seen.path() == "/healthz" => answer(out),
            _ => write(out, GOOD),
        }
    });
    let other = Origin::echo(mesh.address(), "carts");
    mesh.apply(&(service("orders", 80, "http") + &service("carts", 80, "http")));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .service_setting(&format!(
            "health: {{ kind: http, path: /healthz, {RULES} }}"
        ))
        .start();
    let _carts = mesh
        .sidecar("carts")
        .serves("carts:80", other.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").calls("carts:80");
    let shop = shop.start();
    shop.wait_endpoints("orders:80", 1);
    shop.wait_endpoints("carts:80", 1);
    let bystander = Load::start(shop.listener("carts:80"), "/", 2, Duration::from_millis(20));
    let at = orders.admin().to_string();
    for (index, (name, _, why)) in ANSWERS.iter().enumerate() {
        mode.store(index, Ordering::Relaxed);
        let took = until_endpoints(&shop, 0);
        assert!(took < OUT_WITHIN, "{name}: {took:?}");
        let answer = get(shop.listener("orders:80"), "/").unwrap();
        assert!(
            answer.text().contains("fail their health checks"),
            "{answer:?}"
        );
        eventually(&format!("{name}: weft endpoints says why"), || {
            let shown = mesh.weft(&["endpoints", "orders", "--admin", &at]).ok();
            shown.contains("http /healthz at") && shown.contains(why) && shown.contains(" out ")
        });
        let listed = mesh.get("sidecars");
        let mut sidecars = listed.as_array().unwrap().iter();
        let told = |one: &serde_json::Value| one["problems"]["orders.shop:80"].to_string();
        assert!(
            sidecars.any(|one| told(one).contains(why)),
            "{name}: {listed}"
        );
        mode.store(usize::MAX, Ordering::Relaxed);
        shop.wait_endpoints("orders:80", 1);
        assert_eq!(get(shop.listener("orders:80"), "/").unwrap().status, 200);
    }
    let log = orders.process.log();
    assert!(
        log.contains("the application is not healthy") && log.contains("answered 503"),
        "{log}"
    );
    let page = orders.admin_get("/metrics").unwrap().text();
    for label in ["passed", "status", "late", "broken"] {
        let line = format!(
            "weft_application_checks_total{{service=\"orders.shop:80\",result=\"{label}\"}}"
        );
        assert!(page.contains(&line), "{line} in {page}");
    }
    assert!(
        page.contains("weft_application_healthy{service=\"orders.shop:80\"} 1"),
        "{page}"
    );
    bystander.finish().expect_all_good(50);
}

#[test]
fn one_failed_check_of_a_busy_application_changes_nothing() {
    let mesh = Mesh::start();
    let checks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&checks);
    let origin = Origin::http(mesh.address(), move |seen, out| {
        let is_check = seen.path() == "/healthz";
        match is_check && count.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
            true => write(out, "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"),
            false => write(out, GOOD),
        }
    });
    mesh.apply(&service("orders", 80, "http"));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .service_setting(&format!(
            "health: {{ kind: http, path: /healthz, {RULES} }}"
        ))
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let load = Load::start(
        shop.listener("orders:80"),
        "/",
        1,
        Duration::from_millis(20),
    );
    let before = checks.load(Ordering::Relaxed);
    eventually("ten more checks", || {
        checks.load(Ordering::Relaxed) >= before + 10
    });
    load.finish().expect_all_good(20);
    assert!(!orders.process.log().contains("is not healthy"));
}

#[test]
fn a_grpc_server_is_called_while_it_says_that_it_serves() {
    let mesh = Mesh::start();
    let serves = Arc::new(AtomicBool::new(false));
    let serving = Arc::clone(&serves);
    let (origin, seen) = Http2::recording(mesh.address(), move |_| Answer {
        head: Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap(),
        pieces: match serving.load(Ordering::Relaxed) {
            true => vec!["\0\0\0\0\u{2}\u{8}\u{1}"],
            false => vec!["\0\0\0\0\u{2}\u{8}\u{2}"],
        },
        trailers: Some(HeaderMap::from_iter([(
            "grpc-status".parse().unwrap(),
            "0".parse().unwrap(),
        )])),
        ..Answer::default()
    });
    mesh.apply(&service("orders", 80, "grpc"));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .service_setting(&format!(
            "health: {{ kind: grpc, service: shop.Orders, {RULES} }}"
        ))
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    eventually("it was asked", || !seen.lock().unwrap().is_empty());
    eventually("it is out, and said why", || {
        let served = &orders.admin_json("/endpoints")["served"][0]["health"];
        let failed = served["failed"].as_str().unwrap_or_default();
        served["state"] == "out" && failed.contains("NotServing")
    });
    let first = seen.lock().unwrap()[0].clone();
    assert_eq!(first.path(), "/grpc.health.v1.Health/Check");
    assert_eq!(first.body, b"\0\0\0\0\x0d\x0a\x0bshop.Orders");
    serves.store(true, Ordering::Relaxed);
    shop.wait_endpoints("orders:80", 1);
    serves.store(false, Ordering::Relaxed);
    let took = until_endpoints(&shop, 0);
    assert!(took < OUT_WITHIN, "{took:?}");
}

#[test]
fn an_application_that_starts_within_its_grace_is_never_called_unhealthy() {
    let mesh = Mesh::start();
    let started = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&started);
    let origin = Origin::http(mesh.address(), move |_, out| {
        match up.load(Ordering::Relaxed) {
            true => write(out, GOOD),
            false => write(out, "HTTP/1.1 503 Starting\r\ncontent-length: 0\r\n\r\n"),
        }
    });
    mesh.apply(&service("orders", 80, "http"));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .service_setting(&format!("health: {{ kind: http, grace: 1m, {RULES} }}"))
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    eventually("it was asked a few times", || origin.requests().len() > 4);
    let health = || orders.admin_json("/endpoints")["served"][0]["health"].clone();
    assert_eq!(health()["state"], "starting");
    started.store(true, Ordering::Relaxed);
    shop.wait_endpoints("orders:80", 1);
    assert_eq!(health()["state"], "in");
    assert!(!orders.process.log().contains("is not healthy"));
}

#[test]
fn an_endpoint_leaves_within_a_second_of_a_clean_stop_and_within_its_lease_of_a_crash() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    // A machine that is busy with other tests may be late now and then, and not each time.
    let quickest = (0..3).map(|_| {
        shop.wait_endpoints("orders:80", 1);
        orders.terminate();
        let took = until_endpoints(&shop, 0);
        orders.process.wait_exit(Duration::from_secs(30));
        orders.restart();
        orders.wait_ready();
        took
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    shop.wait_endpoints("orders:80", 1);
    orders.process.signal(Signal::SIGKILL);
    let crashed = Instant::now();
    wait_until("its lease ends", LEASE + Duration::from_secs(10), || {
        let dump = shop.admin_json("/config_dump");
        let endpoints = dump.pointer("/table/services/orders.shop/ports/80/endpoints");
        let none = endpoints.is_none_or(|found| found.as_array().is_none_or(Vec::is_empty));
        none.then_some(())
    });
    let took = crashed.elapsed();
    assert!(took < LEASE + Duration::from_secs(2), "{took:?}");
}

//! Refusals by the mesh are shown where an operator of the caller looks: in its log, its metrics, and by
//! `weft check`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::authorization::{allow, allow_requests};
use crate::harness::{Load, Mesh, Origin, Sidecar, connect, eventually, exchange, get, service};

/// The line of the access log that has this text.
#[track_caller]
fn line_with(sidecar: &Sidecar, text: &str) -> Value {
    let mut line = None;
    eventually(&format!("{text} is logged"), || {
        let log = sidecar.process.log();
        let found = log
            .lines()
            .filter(|line| line.starts_with("{\"time\"") && line.contains("\"direction\""))
            .find(|line| line.contains(text));
        line = found.and_then(|line| serde_json::from_str(line).ok());
        line.is_some()
    });
    line.unwrap()
}

/// The value of the first metric whose line has all of these parts.
pub(crate) fn metric(sidecar: &Sidecar, parts: &[&str]) -> f64 {
    let page = sidecar.admin_get("/metrics").unwrap().text();
    let mut lines = page.lines();
    let line = lines.find(|line| parts.iter().all(|part| line.contains(part)));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or(0.0)
}

fn ask(address: SocketAddr, head: &str) -> crate::harness::Response {
    let request = format!("{head}connection: close\r\ncontent-length: 0\r\n\r\n");
    exchange(address, request.as_bytes()).unwrap()
}

#[test]
fn what_the_far_sidecar_refuses_is_in_the_callers_log_and_metrics_with_its_error() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let gone = Origin::raw(mesh.address(), |_| Ok(()));
    // An application sets a field that only the mesh may set.
    let liar = Origin::raw(mesh.address(), |mut stream| {
        let _some_of_it = stream.read(&mut [0; 4096])?;
        stream.write_all(
            b"HTTP/1.1 403 No\r\nweft-error: http_request_denied; policy=\"x\"\r\nproxy-status: weft; error=http_request_denied; details=\"x\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        )
    });
    let get_only = "  to: [ { methods: [GET] } ]\n";
    mesh.apply(
        &[
            service("orders", 80, "http"),
            service("gone", 80, "http"),
            service("liar", 80, "http"),
            allow_requests("orders", &["shop"], get_only),
        ]
        .concat(),
    );
    let _far: Vec<Sidecar> = [
        ("orders", origin.address),
        ("gone", gone.address),
        ("liar", liar.address),
    ]
    .into_iter()
    .map(|(name, application)| {
        mesh.sidecar(name)
            .serves(&format!("{name}:80"), application)
            .start()
    })
    .collect();
    let services = ["orders:80", "gone:80", "liar:80"];
    let plan = mesh.sidecar("shop");
    let shop = services
        .iter()
        .fold(plan, |plan, service| plan.calls(service))
        .start();
    services
        .iter()
        .for_each(|service| shop.wait_endpoints(service, 1));
    let orders = shop.listener("orders:80");
    let bystander = Load::start(orders, "/", 1, Duration::from_millis(20));

    let denied = ask(
        orders,
        "POST / HTTP/1.1\r\nhost: orders\r\nx-request-id: far-denied\r\n",
    );
    assert_eq!(denied.status, 403, "{denied:?}");
    assert_eq!(denied.header("weft-error"), None);
    let line = line_with(&shop, "far-denied");
    assert_eq!(line["error"], "http_request_denied", "{line}");
    assert_eq!(
        line["policy"], "AuthorizationPolicy/shop/orders-allow",
        "{line}"
    );
    assert_eq!(line["destination"], "orders.shop:80", "{line}");
    assert!(
        line["details"].as_str().unwrap().contains("sa/shop"),
        "{line}"
    );
    let failed = [
        "weft_requests_total",
        "orders.shop:80",
        "status=\"403\"",
        "classification=\"failure\"",
        "error=\"http_request_denied\"",
    ];
    eventually("the refusal is counted", || metric(&shop, &failed) >= 1.0);

    // Its one attempt is reported part by part.
    let tried = &line["tried"][0];
    assert_eq!(tried["status"], 403, "{line}");
    assert!(tried["endpoint"].is_string(), "{line}");
    for part in ["pick_ms", "dial_ms", "stream_ms", "head_ms"] {
        assert!(tried[part].as_f64().unwrap() >= 0.0, "{part}: {line}");
    }
    assert_eq!(line["tried"].as_array().unwrap().len(), 1, "{line}");
    for part in ["pick", "dial", "stream", "head", "body"] {
        let part = format!("part=\"{part}\",outcome=\"ended\"");
        let count = ["weft_attempt_part_seconds_count", &part];
        assert!(metric(&shop, &count) >= 1.0, "{part}");
    }

    // The same in gRPC, whose status is 200.
    let head = "POST / HTTP/1.1\r\nhost: orders\r\ncontent-type: application/grpc\r\nte: trailers\r\nx-request-id: far-grpc\r\n";
    let denied = ask(orders, head);
    assert_eq!(denied.header("grpc-status"), Some("7"), "{denied:?}");
    assert_eq!(denied.header("weft-error"), None);
    let line = line_with(&shop, "far-grpc");
    assert_eq!(line["error"], "http_request_denied", "{line}");
    assert_eq!(line["grpc_status"], 7, "{line}");

    let broken = ask(
        shop.listener("gone:80"),
        "POST / HTTP/1.1\r\nhost: gone\r\nx-request-id: far-gone\r\n",
    );
    assert_eq!(broken.status, 502, "{broken:?}");
    let line = line_with(&shop, "far-gone");
    assert_eq!(line["error"], "connection_terminated", "{line}");
    assert!(
        line["details"]
            .as_str()
            .unwrap()
            .starts_with("the far sidecar: "),
        "{line}"
    );

    let lied = ask(
        shop.listener("liar:80"),
        "POST / HTTP/1.1\r\nhost: liar\r\nx-request-id: far-lie\r\n",
    );
    assert_eq!(lied.status, 403, "{lied:?}");
    assert_eq!(lied.header("weft-error"), None);
    let believed = [
        "weft_requests_total",
        "liar.shop:80",
        "status=\"403\"",
        "classification=\"success\"",
        "error=\"\"",
    ];
    eventually(
        "an application's own answer is no error of the mesh",
        || metric(&shop, &believed) >= 1.0,
    );
    bystander.finish_after(10).expect_all_good(10);
}

#[test]
fn a_call_to_a_sidecar_that_is_gone_says_where_its_time_went() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&[service("orders", 80, "http"), service("dead", 80, "http")].concat());
    let serve = |name: &str| {
        mesh.sidecar(name)
            .serves(&format!("{name}:80"), origin.address)
            .start()
    };
    let (_orders, dead) = (serve("orders"), serve("dead"));
    let plan = mesh.sidecar("shop").calls("orders:80").calls("dead:80");
    let shop = plan.start();
    ["orders:80", "dead:80"]
        .iter()
        .for_each(|service| shop.wait_endpoints(service, 1));
    let orders = shop.listener("orders:80");
    let bystander = Load::start(orders, "/", 1, Duration::from_millis(20));
    dead.process.signal(Signal::SIGKILL);

    let head = "GET / HTTP/1.1\r\nhost: dead\r\nx-request-id: not-there\r\n";
    let failed = ask(shop.listener("dead:80"), head);
    assert!(failed.status >= 500, "{failed:?}");
    let line = line_with(&shop, "not-there");
    let tried = line["tried"].as_array().unwrap();
    let last = tried.last().unwrap();
    assert_eq!(last["error"], line["error"], "{line}");
    assert!(last["endpoint"].is_string(), "{line}");
    // There was no connection, so no stream is mentioned; nearly all of the time was the wait for one.
    assert!(
        last["stream_ms"].is_null() && line["body_ms"].is_null(),
        "{line}"
    );
    let waited: f64 = tried.iter().filter_map(|one| one["dial_ms"].as_f64()).sum();
    assert!(
        waited > 0.0 && waited <= line["duration_ms"].as_f64().unwrap(),
        "{line}"
    );
    let counted = [
        "weft_attempt_part_seconds_count",
        "part=\"dial\",outcome=\"failed\"",
    ];
    assert!(metric(&shop, &counted) >= 1.0);
    bystander.finish_after(10).expect_all_good(10);
}

#[test]
fn a_call_that_is_refused_here_names_its_service_and_the_policy() {
    let mesh = Mesh::start();
    mesh.apply(&[service("secret", 80, "http"), allow("secret", &["admin"])].concat());
    let shop = mesh
        .sidecar("shop")
        .calls("secret:80")
        .calls("nothing:80")
        .calls_by_host()
        .start();
    let own = format!("spiffe://{}/ns/shop/sa/shop", Mesh::DOMAIN);
    let policy = "AuthorizationPolicy/shop/secret-allow";
    for (address, host, status, destination, id) in [
        (
            shop.listener("secret:80"),
            "secret",
            403,
            "secret.shop:80",
            "denied-1",
        ),
        (shop.by_host(), "secret", 403, "secret.shop", "denied-2"),
        (
            shop.listener("nothing:80"),
            "any",
            503,
            "nothing.shop:80",
            "unknown-1",
        ),
        (shop.by_host(), "nope.bank", 503, "nope.bank", "unknown-2"),
    ] {
        let head = format!("GET /a HTTP/1.1\r\nhost: {host}\r\nx-request-id: {id}\r\n");
        let refused = ask(address, &head);
        assert_eq!(refused.status, status, "{id}: {refused:?}");
        let line = line_with(&shop, id);
        assert_eq!(line["destination"], destination, "{line}");
        assert_eq!(line["authority"], host, "{line}");
        let details = line["details"].as_str().unwrap();
        assert!(details.contains(&own), "{line}");
        if status == 403 {
            assert_eq!(line["policy"], policy, "{line}");
            assert!(details.contains(policy), "{line}");
        }
    }
    let counted = |service: &str, status: &str| {
        let service = format!("destination_service=\"{service}\"");
        metric(&shop, &["weft_requests_total", &service, status, "failure"])
    };
    eventually(
        "what the settings or the table name is counted by name",
        || {
            counted("secret.shop:80", "403") >= 1.0
                && counted("secret.shop", "403") >= 1.0
                && counted("nothing.shop:80", "503") >= 1.0
        },
    );
    // A name that only a request gives is not a label.
    assert!(counted("nope.bank", "503") < 1.0 && counted("", "503") >= 1.0);
}

#[test]
fn a_tcp_client_that_may_not_call_is_reset_logged_and_counted_and_gets_no_http() {
    let mesh = Mesh::start();
    mesh.apply(&[service("db", 5432, "tcp"), allow("db", &["admin"])].concat());
    let shop = mesh
        .sidecar("shop")
        .calls("db:5432")
        .calls("nothing:5432")
        .start();
    eventually("the sidecar knows that it may not", || {
        shop.admin_json("/config_dump")["table"]["forbidden"]["db.shop"].is_object()
    });
    for (service, error) in [
        ("db:5432", "http_request_denied"),
        ("nothing:5432", "destination_not_found"),
    ] {
        // PostgreSQL's first message, which begins with its length.
        let mut stream = connect(shop.listener(service)).unwrap();
        let mut answer = Vec::new();
        // The reset may come before the message has left.
        let sent = stream.write_all(b"\0\0\0\x15\0\x03\0\0user\0shop\0\0");
        let ended = sent.and_then(|()| stream.read_to_end(&mut answer));
        assert_eq!(
            ended.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset,
            "{service}"
        );
        assert!(answer.is_empty(), "{service}: {answer:?}");
        let name = service.replace(':', ".shop:");
        let line = line_with(&shop, &name);
        assert_eq!(
            (&line["method"], &line["error"]),
            (&"CONNECT".into(), &error.into()),
            "{line}"
        );
        let failed = ["weft_tcp_connections_failed_total", &name, error];
        eventually("it is counted", || metric(&shop, &failed) >= 1.0);
    }
    let line = line_with(&shop, "db.shop:5432");
    assert_eq!(
        line["policy"], "AuthorizationPolicy/shop/db-allow",
        "{line}"
    );
}

#[test]
fn the_reasons_for_a_service_without_endpoints_are_told_apart() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    let address = shop.listener("orders:80");
    let expect = |words: &str| {
        eventually(&format!("the caller is told: {words}"), || {
            let response = get(address, "/").unwrap();
            response.status == 503 && response.text().contains(words)
        });
    };
    expect("no workload has registered");
    let origin = Origin::echo(mesh.address(), "orders");
    let plan = mesh.sidecar("orders");
    let mut orders = plan.serves("orders:80", origin.address).start();
    shop.wait_endpoints("orders:80", 1);
    assert_eq!(get(address, "/").unwrap().status, 200);
    drop(origin);
    expect("fail their health checks");
    let admin = shop.admin().to_string();
    let listed = mesh.weft(&["endpoints", "orders", "--admin", &admin]).ok();
    assert!(listed.contains("fail their health checks"), "{listed}");
    let at = orders.admin().to_string();
    let served = mesh.weft(&["endpoints", "orders", "--admin", &at]).ok();
    let row = served
        .lines()
        .skip_while(|line| !line.starts_with("SERVED"))
        .nth(1);
    assert!(
        row.is_some_and(|row| row.contains("calm") && row.contains("1024")),
        "{served}"
    );
    orders.terminate();
    orders.process.wait_exit(Duration::from_secs(40));
    expect("withdrew");
    let origin = Origin::echo(mesh.address(), "orders");
    let plan = mesh.sidecar("orders").named("orders-again");
    let again = plan.serves("orders:80", origin.address).start();
    shop.wait_endpoints("orders:80", 1);
    again.process.signal(Signal::SIGKILL);
    expect("did not renew");
}

#[test]
fn weft_check_finds_unmet_settings_and_the_program_that_holds_a_port() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(
        &[
            service("orders", 80, "http"),
            service("secret", 80, "http"),
            service("empty", 80, "http"),
            allow("secret", &["admin"]),
        ]
        .concat(),
    );
    let plan = mesh.sidecar("orders").serves("orders:80", origin.address);
    let mut shop = plan
        .serves("secret:80", origin.address)
        .calls("orders:80")
        .calls("secret:80")
        .calls("nothing:80")
        .calls("empty:80")
        .start();
    shop.wait_endpoints("orders:80", 1);
    let admin = shop.admin().to_string();
    let ask = ["check", "--admin", &admin, "-o", "json"];
    let verdicts = |arguments: &[&str]| -> (i32, Vec<(String, String, String)>) {
        let output = mesh.weft(arguments);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let findings: Vec<Value> = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let all = findings.iter().map(|one| {
            (
                text(&one["check"]),
                text(&one["verdict"]),
                text(&one["found"]),
            )
        });
        (output.code, all.collect())
    };
    let listener = |service: &str| format!("outbound {}", shop.listener(service));
    let (code, findings) = verdicts(&ask);
    assert_eq!(code, 1, "{findings:?}");
    for (check, verdict, words) in [
        ("sidecar".to_owned(), "ok", "ready"),
        ("identity".to_owned(), "ok", "sa/orders"),
        ("config service".to_owned(), "ok", "connected"),
        ("table".to_owned(), "ok", "revision 1"),
        ("registration orders.shop:80".to_owned(), "ok", "registered"),
        // The operator who logged in on this host gets the reason.
        (
            "registration secret.shop:80".to_owned(),
            "fail",
            "may not serve",
        ),
        (listener("orders:80"), "ok", "orders.shop:80"),
        (listener("secret:80"), "fail", "may not call"),
        (listener("nothing:80"), "fail", "no service"),
        (listener("empty:80"), "warn", "no workload has registered"),
    ] {
        let found = findings.iter().find(|one| one.0 == check);
        let found = found.unwrap_or_else(|| panic!("{check}: {findings:?}"));
        assert_eq!(found.1, verdict, "{found:?}");
        assert!(found.2.contains(words), "{found:?}");
    }
    let status = mesh.weft(&["proxy", "status", "--admin", &admin]).ok();
    for words in ["serves orders.shop:80", "may not call", "listens on "] {
        assert!(status.contains(words), "{status}");
    }

    // The settings get a listener whose port another program has.
    let taken = TcpListener::bind((mesh.address(), 0)).unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let file = shop.folder().join("proxy.yaml");
    let settings = std::fs::read_to_string(&file).unwrap();
    let added = format!("    - {{ listen: \"{}\", route_by: host }}\n", taken.1);
    std::fs::write(&file, settings + &added).unwrap();
    let file = file.to_string_lossy().into_owned();
    let (_, findings) = verdicts(&["check", "--config", &file, "-o", "json"]);
    let held = findings
        .iter()
        .find(|one| one.0 == format!("outbound {}", taken.1));
    let held = held.unwrap_or_else(|| panic!("{findings:?}"));
    expect_held(held);

    // And so does a Service, for callers without mutual TLS.
    let other = TcpListener::bind((mesh.address(), 0)).unwrap();
    let at = other.local_addr().unwrap();
    let settings = std::fs::read_to_string(&file).unwrap();
    let served = "{ service: orders, port: 80,";
    assert!(settings.contains(served), "{settings}");
    let with = format!("{served} plaintext_listen: \"{at}\",");
    std::fs::write(&file, settings.replacen(served, &with, 1)).unwrap();
    let (_, findings) = verdicts(&["check", "--config", &file, "-o", "json"]);
    let check = format!("plaintext {at}");
    let held = findings.iter().find(|one| one.0 == check);
    expect_held(held.unwrap_or_else(|| panic!("{findings:?}")));
    // It is the sidecar's, whose Service takes no such callers.
    drop((taken, other));
    shop.process.kill();
    shop.restart();
    shop.wait_ready();
    let (_, findings) = verdicts(&["check", "--config", &file, "-o", "json"]);
    let found = findings.iter().filter(|one| one.0 == check);
    let found: Vec<_> = found.map(|one| (one.1.as_str(), one.2.as_str())).collect();
    let [(of_service, why), (of_port, _)] = found[..] else {
        panic!("{findings:?}")
    };
    assert_eq!((of_service, of_port), ("warn", "ok"), "{found:?}");
    assert!(why.contains("mutualTls: Strict"), "{found:?}");

    shop.process.kill();
    let none = mesh.weft(&["check", "--admin", &admin]);
    assert_eq!(none.code, 69, "{none:?}");
}

/// A port of the settings is held by this program, or by a child of another test that has not started its own
/// program yet.
#[track_caller]
fn expect_held((check, verdict, found): &(String, String, String)) {
    let has_name = found.starts_with("in use, by ") && found.contains("(pid ");
    assert!(verdict == "fail" && has_name, "{check}: {found}");
}

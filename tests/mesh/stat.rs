//! What `weft stat` and `weft edges` say of calls is what was called: counts, reasons, times, and who proved
//! what.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::authorization::allow_requests;
use crate::harness::{
    Connection, Mesh, OpenLoad, Origin, connect, eventually, exchange, expect_echo, get, pause,
    service,
};
use crate::plaintext::orders;

/// The rows of `weft stat`, or of `weft edges`.
fn rows(mesh: &Mesh, arguments: &[&str]) -> Vec<Value> {
    let told = mesh.weft(&[arguments, &["-o", "json"]].concat()).ok();
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
}

/// The row with these values, once its requests are as many.
#[track_caller]
fn row(mesh: &Mesh, arguments: &[&str], wanted: &[(&str, &str)], requests: u64) -> Value {
    let mut found = Value::Null;
    eventually(
        &format!("{requests} requests of {wanted:?} are shown"),
        || {
            let all = rows(mesh, arguments);
            let row = all
                .into_iter()
                .find(|row| wanted.iter().all(|(name, value)| row[name] == *value));
            found = row.unwrap_or_default();
            found["requests"] == requests
        },
    );
    found
}

/// Takes 20 ms for each request, and fails each tenth one.
fn application(mesh: &Mesh) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::http(mesh.address(), move |_, out| {
        pause(Duration::from_millis(20));
        let number = asked.fetch_add(1, Ordering::Relaxed);
        let status = if number % 10 == 9 {
            "500 Bad"
        } else {
            "200 OK"
        };
        write!(out, "HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nhi")?;
        Ok(true)
    })
}

#[test]
fn every_call_is_in_its_edge_its_service_its_route_its_sidecars_and_its_namespace() {
    let mesh = Mesh::start();
    let origin = application(&mesh);
    mesh.apply(&(service("orders", 80, "http") + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: split, namespace: shop }\nspec:\n  parentRefs: [ { group: \"\", kind: Service, name: orders } ]\n  rules: [ { backendRefs: [ { name: orders, port: 80 } ] } ]\n"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let frontend = mesh
        .sidecar("frontend")
        .calls("orders:80")
        .outbound_setting("server_timing: true")
        .setting("access_log: all")
        .start();
    frontend.wait_endpoints("orders:80", 1);
    let mut connection = Connection::open(frontend.listener("orders:80")).unwrap();
    for _ in 0..100 {
        let answer = connection.get("/").unwrap();
        // The mesh's own time is a part of what the caller waited for, and so is the application's.
        let timing = answer.header("server-timing").unwrap();
        let parts: Vec<f64> = timing
            .split(", ")
            .map(|part| part.split_once("dur=").unwrap().1.parse().unwrap())
            .collect();
        assert!(
            timing.starts_with("weft;dur=") && parts[1] >= 20.0,
            "{timing}"
        );
        assert_eq!(answer.header("weft-time"), None);
    }
    let edge = row(
        &mesh,
        &["stat", "edges"],
        &[("from", "frontend.shop"), ("to", "orders.shop")],
        100,
    );
    let domain = Mesh::DOMAIN;
    assert_eq!(
        edge["identity"],
        format!("spiffe://{domain}/ns/shop/sa/orders")
    );
    assert_eq!(
        edge["from_identity"],
        format!("spiffe://{domain}/ns/shop/sa/frontend")
    );
    assert_eq!(
        (&edge["namespace"], &edge["port"]),
        (&"shop".into(), &80.into())
    );
    assert_eq!(
        (&edge["failures"], &edge["success"]),
        (&10.into(), &0.9.into())
    );
    assert_eq!(edge["reasons"], serde_json::json!({ "status 500": 10 }));
    assert_eq!(
        (&edge["received"], &edge["security"]),
        (&200.into(), &"mutual_tls".into())
    );
    let time = |name: &str| edge[name].as_f64().unwrap();
    assert!(
        time("p50_ms") > 19.0 && time("p50_ms") <= time("p99_ms"),
        "{edge}"
    );
    // The application took 20 ms of each.
    assert!(time("mesh_p50_ms") < time("p50_ms") - 18.0, "{edge}");
    assert!(time("mesh_share") < 0.5, "{edge}");

    row(&mesh, &["stat"], &[("to", "orders.shop")], 100);
    row(
        &mesh,
        &["stat", "namespaces"],
        &[("namespace", "shop")],
        100,
    );
    let route = row(
        &mesh,
        &["stat", "routes", "--to", "orders.shop"],
        &[("to", "orders.shop")],
        100,
    );
    assert!(
        route["route"].as_str().unwrap().contains("shop/split"),
        "{route}"
    );
    row(
        &mesh,
        &["stat", "sidecars"],
        &[("from", "frontend.shop"), ("direction", "outbound")],
        100,
    );
    row(
        &mesh,
        &["stat", "sidecars"],
        &[("from", "orders.shop"), ("direction", "inbound")],
        100,
    );
    let table = mesh.weft(&["stat", "edges", "--from", "*.shop"]).ok();
    assert!(
        table.contains("frontend.shop") && table.contains("90.00%"),
        "{table}"
    );
    let log = frontend.process.log();
    let line = log
        .lines()
        .find(|line| line.contains("\"application_ms\""))
        .unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let (application, mesh_part) = (
        line["application_ms"].as_f64().unwrap(),
        line["mesh_ms"].as_f64().unwrap(),
    );
    let whole = line["duration_ms"].as_f64().unwrap();
    assert!(
        application >= 20.0 && application + mesh_part <= whole + 0.1,
        "{line}"
    );
}

#[test]
fn edges_show_who_is_denied_who_is_silent_and_who_comes_without_an_identity() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let listen = SocketAddr::from((mesh.address(), 8081));
    mesh.apply(
        &[
            orders("http", "Permissive"),
            allow_requests("orders", &["frontend"], "  to: [ { methods: [GET] } ]\n"),
            service("db", 5432, "tcp"),
        ]
        .concat(),
    );
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .service_setting(&format!("plaintext_listen: \"{listen}\""))
        .start();
    let echo = Origin::raw(mesh.address(), |mut tap| {
        let mut writer = tap.try_clone()?;
        std::io::copy(&mut tap, &mut writer).map(drop)
    });
    let _db = mesh.sidecar("db").serves("db:5432", echo.address).start();
    let frontend = mesh
        .sidecar("frontend")
        .calls("orders:80")
        .calls("db:5432")
        .start();
    let _audit = mesh.sidecar("audit").calls("db:5432").start();
    frontend.wait_endpoints("orders:80", 1);
    frontend.wait_endpoints("db:5432", 1);
    let address = frontend.listener("orders:80");
    for _ in 0..3 {
        let refused = exchange(
            address,
            b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        )
        .unwrap();
        assert_eq!(refused.status, 403);
    }
    assert_eq!(get(address, "/").unwrap().status, 200);
    let plain = get(listen, "/").unwrap().status;
    let mut stream = connect(frontend.listener("db:5432")).unwrap();
    expect_echo(&mut stream, b"ping");
    drop(stream);

    let from_frontend = [("from", "frontend.shop"), ("to", "orders.shop")];
    let denied = row(&mesh, &["edges"], &from_frontend, 4);
    assert_eq!(denied["reasons"]["http_request_denied"], 3, "{denied}");
    let of_plaintext = row(&mesh, &["edges"], &[("from", "unknown")], 1);
    assert_eq!(of_plaintext["security"], "plaintext");
    assert_eq!(of_plaintext["failures"], u64::from(plain != 200));
    eventually("the connection is shown as over", || {
        let all = rows(
            &mesh,
            &["edges", "--from", "frontend.shop", "--to", "db.shop"],
        );
        all.iter()
            .any(|row| row["opened"] == 1 && row["closed"] == 1 && row["sent"] == 4)
    });
    let silent = rows(&mesh, &["edges", "--from", "audit.shop"]);
    assert_eq!(
        (silent.len(), &silent[0]["security"]),
        (1, &"no_calls".into())
    );
    assert!(rows(&mesh, &["stat", "edges", "--from", "audit.shop"]).is_empty());
    let table = mesh.weft(&["edges"]).ok();
    assert!(
        table.contains("PLAINTEXT") && table.contains("mutual TLS"),
        "{table}"
    );
}

#[test]
fn what_is_shown_agrees_with_what_weft_load_counted() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&[service("orders", 80, "http"), service("gone", 80, "http")].concat());
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    // An application that is not there.
    let free = TcpListener::bind((mesh.address(), 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let _gone = mesh.sidecar("gone").serves("gone:80", free).start();
    let frontend = mesh
        .sidecar("frontend")
        .calls("orders:80")
        .calls("gone:80")
        .start();
    frontend.wait_endpoints("orders:80", 1);
    let load = |service| {
        OpenLoad::start(
            mesh.weft_command(&["load"]),
            frontend.listener(service),
            100,
            8,
            &[],
        )
    };
    let (good, bad) = (load("orders:80"), load("gone:80"));
    let (good, bad) = (good.result(), bad.result());
    let sent = |result: &Value| {
        let count = |name: &str| result["summary"][name].as_u64().unwrap();
        count("requests") + count("warm_up_requests") - count("unsent")
    };
    let shown = row(
        &mesh,
        &["stat", "edges"],
        &[("to", "orders.shop")],
        sent(&good),
    );
    assert_eq!(shown["failures"], 0, "{shown}");
    let refused = row(
        &mesh,
        &["stat", "services"],
        &[("to", "gone.shop")],
        sent(&bad),
    );
    assert_eq!(
        (&refused["failures"], &refused["success"]),
        (&sent(&bad).into(), &0.0.into()),
        "{refused}"
    );
    // What a restart of the config service forgets does not come back twice.
    let before = orders.process.log();
    assert!(!before.contains("panicked"), "{before}");
}

#[test]
fn calls_made_while_the_config_service_is_away_are_told_when_it_is_back() {
    let mut mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let frontend = mesh.sidecar("frontend").calls("orders:80").start();
    frontend.wait_endpoints("orders:80", 1);
    let address = frontend.listener("orders:80");
    for _ in 0..10 {
        assert_eq!(get(address, "/").unwrap().status, 200);
    }
    row(&mesh, &["stat", "edges"], &[("to", "orders.shop")], 10);
    mesh.restart_config();
    for _ in 0..7 {
        assert_eq!(get(address, "/").unwrap().status, 200);
    }
    // What it knew before is gone, and what came meanwhile is not.
    row(&mesh, &["stat", "edges"], &[("to", "orders.shop")], 7);
}

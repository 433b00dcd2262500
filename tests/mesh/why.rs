//! `weft why` names the cause of failures that are made on purpose, and of requests that are slow.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::Value;

use crate::authorization::allow_requests;
use crate::harness::{Mesh, Origin, Response, Sidecar, eventually, exchange, get, pause, service};

/// Why the request of this answer failed.
#[track_caller]
fn why(mesh: &Mesh, answer: &Response) -> Value {
    let id = answer
        .header("x-request-id")
        .unwrap_or_else(|| panic!("{answer:?}"));
    why_of(mesh, &[id])
}

#[track_caller]
fn why_of(mesh: &Mesh, arguments: &[&str]) -> Value {
    let mut told = Value::Null;
    eventually(&format!("weft why {arguments:?} knows it"), || {
        let output = mesh.weft(&[&["why"], arguments, &["-o", "json"]].concat());
        told = serde_json::from_str(&output.stdout).unwrap_or_default();
        !told.is_null()
    });
    told
}

fn policy(service: &str, what: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {service}, namespace: shop }}\nspec:\n  targetRefs: [ {{ kind: Service, name: {service} }} ]\n  {what}\n"
    )
}

fn route(service: &str, rule: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: {service}, namespace: shop }}\nspec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: {service} }} ]\n  rules: [ {{ {rule} }} ]\n"
    )
}

/// Answers each request with these bytes, and closes.
fn raw(mesh: &Mesh, answer: &'static [u8]) -> Origin {
    Origin::raw(mesh.address(), move |mut stream| {
        let _some_of_it = stream.read(&mut [0; 4096])?;
        stream.write_all(answer)
    })
}

/// A place at which nothing listens.
fn free(mesh: &Mesh) -> SocketAddr {
    let listener = TcpListener::bind((mesh.address(), 0)).unwrap();
    listener.local_addr().unwrap()
}

fn ask(sidecar: &Sidecar, service: &str, request: &str) -> Response {
    let request = match request.contains("HTTP/1.1") {
        true => request.to_owned(),
        false => format!("{request} HTTP/1.1"),
    };
    let request = format!("{request}\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    exchange(sidecar.listener(service), request.as_bytes()).unwrap()
}

#[test]
fn each_failure_that_is_made_on_purpose_has_its_own_cause_and_says_what_to_do() {
    let mesh = Mesh::start();
    let good = Origin::echo(mesh.address(), "good");
    let slow = Origin::http(mesh.address(), |_, out| {
        pause(Duration::from_secs(3));
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(true)
    });
    let failing = raw(
        &mesh,
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    let broken = raw(
        &mesh,
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    );
    let leaving = raw(&mesh, b"");
    let names = [
        "good", "slow", "failing", "broken", "leaving", "down", "strict", "limited", "faulty",
        "routed", "empty", "absent",
    ];
    let mut yaml: String = names.map(|name| service(name, 80, "http")).concat();
    yaml += &policy("slow", "timeouts: { request: 500ms }");
    yaml += &policy(
        "limited",
        "rateLimits: [ { requests: 1, per: 24h, burst: 1 } ]",
    );
    yaml += &policy("faulty", "fault: { abort: { percent: 100, status: 503 } }");
    yaml += &allow_requests("strict", &["another"], "");
    yaml += &route(
        "routed",
        "matches: [ { path: { type: Exact, value: /only } } ], backendRefs: [ { name: good, port: 80 } ]",
    );
    yaml += &route("empty", "backendRefs: [ { name: not-there, port: 80 } ]");
    mesh.apply(&yaml);
    let serve = |name: &str, application: SocketAddr| {
        mesh.sidecar(name)
            .serves(&format!("{name}:80"), application)
            .start()
    };
    let _sidecars = [
        serve("good", good.address),
        serve("slow", slow.address),
        serve("failing", failing.address),
        serve("broken", broken.address),
        serve("leaving", leaving.address),
        serve("strict", good.address),
        serve("limited", good.address),
        serve("faulty", good.address),
    ];
    let dying = Origin::echo(mesh.address(), "down");
    let _down = serve("down", dying.address);
    let mut plan = mesh.sidecar("caller");
    for name in names {
        plan = plan.calls(&format!("{name}:80"));
    }
    let caller = plan.start();
    for name in [
        "good", "slow", "failing", "broken", "leaving", "limited", "faulty", "down",
    ] {
        caller.wait_endpoints(&format!("{name}:80"), 1);
    }
    assert_eq!(ask(&caller, "limited:80", "GET /").status, 200);
    // Its sidecar does not know yet that it has ended.
    drop(dying);

    let cases = [
        ("failing", "GET /", "application_error"),
        ("down", "POST /", "application_down"),
        ("slow", "GET /", "application_slow"),
        ("broken", "GET /", "bad_response"),
        ("leaving", "POST /", "application_broke_off"),
        ("strict", "GET /", "denied"),
        ("limited", "GET /", "rate_limit"),
        ("faulty", "GET /", "fault_injected"),
        ("routed", "GET /other", "no_route"),
        ("empty", "GET /", "no_backend"),
        ("absent", "GET /", "no_endpoint"),
    ];
    for (name, request, cause) in cases {
        let answer = ask(&caller, &format!("{name}:80"), request);
        assert!(answer.status >= 400, "{name}: {answer:?}");
        let told = why(&mesh, &answer);
        assert_eq!(told["cause"], cause, "{name}: {told:#}");
        assert_eq!(told["status"], answer.status, "{name}: {told:#}");
        let sentence = told["sentence"].as_str().unwrap();
        assert!(sentence.contains(&format!("{name}.shop")), "{sentence}");
        assert!(told["todo"].as_str().unwrap().len() > 20, "{told:#}");
    }
    let denied = why(&mesh, &ask(&caller, "strict:80", "GET /"));
    assert!(
        denied["decided_by"][0]
            .as_str()
            .unwrap()
            .contains("shop/strict"),
        "{denied:#}"
    );
    let latest = why_of(&mesh, &["--from", "caller.shop", "--to", "strict.shop"]);
    assert!(
        latest
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["cause"] == "denied"),
        "{latest:#}"
    );
    let text = mesh.weft(&["why", "--to", "faulty.shop"]).ok();
    assert!(
        text.contains("fault_injected") && text.contains("to do"),
        "{text}"
    );
    let unknown = mesh.weft(&["why", "no-such-request"]);
    assert!(
        unknown.code == 1 && unknown.stderr.contains("none of"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn of_a_chain_of_services_the_one_that_failed_first_is_named_and_a_slow_request_has_its_parts() {
    let mesh = Mesh::start();
    let stock = free(&mesh);
    // Calls the next service for each request, with the id that it got.
    let mesh_address = mesh.address();
    let next = std::sync::Arc::new(std::sync::OnceLock::<SocketAddr>::new());
    let orders = Origin::http(mesh_address, {
        let next = std::sync::Arc::clone(&next);
        move |request, out| {
            if request.path() == "/slow" {
                pause(Duration::from_millis(300));
                out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
                return Ok(true);
            }
            let id = request.header("x-request-id").unwrap_or_default();
            let call = format!(
                "POST / HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let answer = exchange(*next.get().unwrap(), call.as_bytes())?;
            let status = if answer.status == 200 { 200 } else { 500 };
            write!(out, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n")?;
            Ok(true)
        }
    });
    mesh.apply(&[service("orders", 80, "http"), service("stock", 80, "http")].concat());
    let _stock = mesh.sidecar("stock").serves("stock:80", stock).start();
    let middle = mesh
        .sidecar("orders")
        .serves("orders:80", orders.address)
        .calls("stock:80")
        .start();
    next.set(middle.listener("stock:80")).unwrap();
    let caller = mesh.sidecar("caller").calls("orders:80").start();
    caller.wait_endpoints("orders:80", 1);
    let failed = get(caller.listener("orders:80"), "/").unwrap();
    assert_eq!(failed.status, 500);
    let told = why(&mesh, &failed);
    // The application of stock was never there, so its sidecar did not register.
    assert_eq!(
        (&told["cause"], &told["to"]),
        (&"no_endpoint".into(), &"stock.shop:80".into()),
        "{told:#}"
    );
    assert_eq!(told["seen"].as_array().unwrap().len(), 3, "{told:#}");

    let slow = ask(
        &caller,
        "orders:80",
        "GET /slow HTTP/1.1\r\nx-request-id: the-slow-one\r\nx: y",
    );
    assert_eq!(slow.status, 200);
    let told = why_of(&mesh, &["the-slow-one"]);
    assert_eq!(told["cause"], "application_slow", "{told:#}");
    let seen = &told["seen"][0]["call"];
    assert!(
        seen["application_ms"].as_f64().unwrap() >= 300.0,
        "{told:#}"
    );
    assert_eq!(told["attempts"][0]["longest"], "head", "{told:#}");
}

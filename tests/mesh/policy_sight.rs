//! A policy sees the same request as the application: real WSGI applications (Flask, Django) read names,
//! methods and paths in their own ways, and yet no denied request reaches a view.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::authorization::allow;
use crate::harness::{
    Mesh, Need, Origin, Process, Sidecar, exchange, get, need, python, python_command, service,
};

/// An application, and the requests that reached its views.
struct Application {
    address: SocketAddr,
    log: PathBuf,
    _process: Process,
}

impl Application {
    fn start(mesh: &Mesh, framework: &str) -> Self {
        let address = mesh.address();
        let log = mesh.folder().join(format!("{framework}.seen"));
        let mut command = python_command("wsgi_application.py");
        command
            .args([framework, &address.to_string()])
            .arg(&log)
            .stdin(Stdio::null());
        let mut process = Process::spawn(framework, mesh.folder(), &mut command);
        let port = process.wait_for_line("").trim().parse().unwrap();
        Self {
            address: (address, port).into(),
            log,
            _process: process,
        }
    }

    fn seen(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn deny(name: &str, service: &str, to: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: {name}, namespace: shop }}\nspec:\n  targetRefs: [ {{ kind: Service, name: {service} }} ]\n  action: Deny\n  to: [ {to} ]\n"
    )
}

const CALLER: &str = "spiffe://demo.test/ns/shop/sa/client";

/// Denied requests, in the spellings that one framework or the other takes for them.
const DENIED: [(&str, &str); 22] = [
    ("DELETE", "/orders/1"),
    ("delete", "/orders/1"),
    ("Delete", "/orders/1"),
    ("dELETE", "/orders/1"),
    ("GET", "/admin"),
    ("GET", "/admin/x"),
    ("GET", "/%61dmin"),
    ("GET", "/%2561dmin"),
    ("GET", "//admin"),
    ("GET", "/./admin"),
    ("GET", "/x/../admin"),
    ("GET", "/x/%2e%2e/admin"),
    ("GET", "/admin%20"),
    ("GET", "/%20admin"),
    ("GET", "/admin%23"),
    ("GET", "/admin%3f"),
    ("GET", "/admin%3fx=1"),
    ("GET", "/%c1%a1dmin"),
    ("GET", "/admin%c0%af"),
    ("GET", "/admin;x"),
    ("GET", "/admin\\"),
    ("GET", "/admin%00"),
];

/// The same where the Service says that its application ignores case.
const DENIED_FOLDED: [(&str, &str); 4] = [
    ("GET", "/ADMIN"),
    ("GET", "/Admin/x"),
    ("GET", "/adm%C4%B1n"),
    ("GET", "/adm%C4%B0n"),
];

/// Requests that no policy denies.
const PASSING: [(&str, &str); 5] = [
    ("GET", "/orders/1"),
    ("POST", "/orders"),
    ("GET", "/caf%C3%A9"),
    ("GET", "/a%20b"),
    ("GET", "/administrator"),
];

struct Scene {
    _mesh: Mesh,
    application: Application,
    orders: Sidecar,
    client: Sidecar,
}

fn scene(framework: &str, spec: &str) -> Scene {
    let mesh = Mesh::start();
    let application = Application::start(&mesh, framework);
    mesh.apply(&format!(
        "{}{}{}",
        service("orders", 80, "http").replace("spec: {", &format!("spec: {{ {spec}")),
        deny("no-delete", "orders", "{ methods: [DELETE] }"),
        deny("no-admin", "orders", "{ paths: [/admin, \"/admin/*\"] }"),
    ));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", application.address)
        .start();
    let client = mesh.sidecar("client").calls("orders:80").start();
    client.wait_endpoints("orders:80", 1);
    Scene {
        _mesh: mesh,
        application,
        orders,
        client,
    }
}

impl Scene {
    /// From an application, through its own sidecar.
    fn ask(&self, method: &str, path: &str, fields: &str) -> u16 {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\ncontent-length: 0\r\n{fields}\r\n"
        );
        let address = self.client.listener("orders:80");
        exchange(address, request.as_bytes()).map_or(0, |response| response.status)
    }

    /// From a peer that is not a sidecar of weft.
    fn ask_as_peer(&self, method: &str, path: &str, flags: &[&str]) -> Value {
        let address = self.orders.mesh_address().to_string();
        let identity = self.client.state();
        let identity = identity.to_str().unwrap();
        let mut arguments = vec![
            "send",
            &address,
            "--identity",
            identity,
            "--method",
            method,
            "--path",
            path,
        ];
        arguments.extend(["--service", "orders.shop:80"]);
        arguments.extend(flags);
        python("h3_client.py", &arguments)["status"].clone()
    }

    fn expect_nothing_denied_was_seen(&self) {
        for seen in self.application.seen() {
            let method = seen["method"].as_str().unwrap().to_uppercase();
            assert!(seen["view"] == "other" && method != "DELETE", "{seen}");
            assert_eq!(seen["caller"], CALLER, "{seen}");
        }
    }
}

#[test]
fn flask_sees_nothing_that_a_policy_denies() {
    if !need(&[Need::Python]) {
        return;
    }
    let scene = scene("flask", "");
    for (method, path) in DENIED {
        let status = scene.ask(method, path, "");
        assert!((400..500).contains(&status), "{method} {path}: {status}");
    }
    for (method, path) in [("delete", "/orders/1"), ("GET", "/%c1%a1dmin")] {
        assert_eq!(scene.ask_as_peer(method, path, &[]), 403, "{method} {path}");
    }
    assert!(scene.application.seen().is_empty());
    for (method, path) in PASSING.into_iter().chain([("GET", "/ADMIN")]) {
        assert_eq!(scene.ask(method, path, ""), 200, "{method} {path}");
    }
    assert_eq!(scene.application.seen().len(), PASSING.len() + 1);
    scene.expect_nothing_denied_was_seen();
}

#[test]
fn django_that_ignores_case_sees_nothing_that_a_policy_denies() {
    if !need(&[Need::Python]) {
        return;
    }
    let scene = scene("django", "pathCase: insensitive,");
    for (method, path) in DENIED.into_iter().chain(DENIED_FOLDED) {
        let status = scene.ask(method, path, "");
        assert!((400..500).contains(&status), "{method} {path}: {status}");
    }
    assert!(scene.application.seen().is_empty());
    for (method, path) in PASSING {
        assert_eq!(scene.ask(method, path, ""), 200, "{method} {path}");
    }
    assert_eq!(scene.application.seen().len(), PASSING.len());
    scene.expect_nothing_denied_was_seen();
}

#[test]
fn a_field_that_wsgi_takes_for_one_of_the_mesh_is_refused() {
    if !need(&[Need::Python]) {
        return;
    }
    let scene = scene("flask", "");
    for name in [
        "weft_client_id",
        "Weft_Client-Id",
        "weft-client_id",
        "weft_x",
    ] {
        let field = format!("{name}: spiffe://demo.test/ns/shop/sa/admin\r\n");
        assert_eq!(scene.ask("GET", "/", &field), 400, "{name}");
        let flag = format!(
            "{}=spiffe://demo.test/ns/shop/sa/admin",
            name.to_lowercase()
        );
        let head = scene.ask_as_peer("GET", "/", &["--field", &flag]);
        assert_eq!(head, 400, "{name}");
    }
    for field in ["content_length: 5\r\n", "transfer_encoding: chunked\r\n"] {
        assert_eq!(scene.ask("POST", "/", field), 400, "{field}");
    }
    assert!(scene.application.seen().is_empty());
    // Other names with underscores pass.
    assert_eq!(
        scene.ask("GET", "/", "api_key: 1\r\nx_request_id: 2\r\n"),
        200
    );
    let seen = scene.application.seen();
    assert_eq!(seen.last().unwrap()["key"], "1", "{seen:?}");
    scene.expect_nothing_denied_was_seen();
}

#[test]
fn a_request_with_such_a_trailer_is_broken_off() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    // It answers once it has the whole request, with its trailers.
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let client = mesh.sidecar("client").calls("orders:80").start();
    client.wait_endpoints("orders:80", 1);
    let address = orders.mesh_address().to_string();
    let identity = client.state();
    let send = |trailer: &str| {
        let mut arguments = vec!["send", &address, "--identity", identity.to_str().unwrap()];
        arguments.extend(["--method", "POST", "--trailer", trailer]);
        python("h3_client.py", &arguments)["status"].clone()
    };
    assert_eq!(send("x-sum=1"), 200);
    let twin = "weft_client_id=spiffe://demo.test/ns/shop/sa/admin";
    assert_ne!(send(twin), 200);
    // The same from an application, through its own sidecar.
    let request = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntrailer: weft_client_id\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{}\r\n\r\n",
        twin.replace('=', ": ")
    );
    let outcome = exchange(client.listener("orders:80"), request.as_bytes());
    let seen = origin.requests();
    assert!(
        seen.iter()
            .all(|one| !one.trailers.iter().any(|(name, _)| name.contains('_'))),
        "{seen:?}"
    );
    assert!(outcome.is_err() || seen.len() == 1, "{seen:?}");
}

#[test]
fn an_authority_that_names_another_service_of_the_sidecar_is_misdirected() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "both");
    let shared = "spec: { identities: [\"spiffe://demo.test/ns/shop/sa/orders\"],";
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: echo, namespace: shop }\nspec:\n  parentRefs: [ { group: \"\", kind: Service, name: echo, port: 80 } ]\n  rules: [ { backendRefs: [ { name: v1, port: 80 } ] } ]\n";
    mesh.apply(&format!(
        "{}{}{}{}{}{route}",
        service("orders", 80, "http"),
        service("back", 80, "http").replace("spec: {", shared),
        allow("back", &["operator"]),
        service("echo", 80, "http").replace("spec: {", shared),
        service("v1", 80, "http").replace("spec: {", shared),
    ));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .serves("back:80", origin.address)
        .serves("echo:80", origin.address)
        .serves("v1:80", origin.address)
        .start();
    let client = mesh
        .sidecar("client")
        .calls("orders:80")
        .calls("echo:80")
        .start();
    client.wait_endpoints("orders:80", 1);
    client.wait_endpoints("v1:80", 1);
    let status = |listener: &str, host: &str| {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        exchange(client.listener(listener), request.as_bytes())
            .unwrap()
            .status
    };
    // The application may act on Host, so that of another service is refused for this one.
    for host in ["back", "back.shop", "BACK.shop.", "back:80"] {
        assert_eq!(status("orders:80", host), 421, "{host}");
    }
    let reached = origin.requests().len();
    assert_eq!(reached, 0);
    for host in ["orders", "orders.shop:80", "127.0.0.1:5001", "example.com"] {
        assert_eq!(status("orders:80", host), 200, "{host}");
    }
    // A route led from echo to v1, and the application is told which service the caller addressed.
    assert_eq!(status("echo:80", "echo"), 200);
    assert_eq!(
        origin.requests().last().unwrap().header("host"),
        Some("echo")
    );

    let address = orders.mesh_address().to_string();
    let identity = client.state();
    let as_peer = |authority: &str, fields: &[&str]| {
        let mut arguments = vec!["send", &address, "--identity", identity.to_str().unwrap()];
        arguments.extend(["--authority", authority, "--service", "orders.shop:80"]);
        arguments.extend(fields);
        python("h3_client.py", &arguments)["status"].clone()
    };
    assert_eq!(as_peer("back.shop", &[]), 421);
    let parent = ["--field", "weft-route-parent=back.shop:80"];
    assert_eq!(as_peer("back.shop", &parent), 403);
    for authority in ["a,b", "*", "orders.shop,back.shop"] {
        assert_eq!(as_peer(authority, &[]), 400, "{authority}");
    }
    assert_eq!(as_peer("orders.shop", &[]), 200);
}

#[test]
fn a_service_that_only_routes_lead_to_refuses_direct_calls() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "v1");
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: split, namespace: shop }\nspec:\n  parentRefs: [ { group: \"\", kind: Service, name: orders, port: 80 } ]\n  rules: [ { backendRefs: [ { name: v1, port: 80 } ] } ]\n";
    mesh.apply(&format!(
        "{}{}{}{route}",
        service("orders", 80, "http"),
        deny("no-admin", "orders", "{ paths: [\"/admin/*\"] }"),
        service("v1", 80, "http").replace("spec: {", "spec: { callers: RouteOnly,"),
    ));
    let _v1 = mesh.sidecar("v1").serves("v1:80", origin.address).start();
    let client = mesh
        .sidecar("client")
        .calls("orders:80")
        .calls("v1:80")
        .start();
    client.wait_endpoints("v1:80", 1);
    let (front, side) = (client.listener("orders:80"), client.listener("v1:80"));
    assert_eq!(get(front, "/").unwrap().status, 200);
    assert_eq!(get(front, "/admin/x").unwrap().status, 403);
    for path in ["/", "/admin/x"] {
        let refused = get(side, path).unwrap();
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(
            refused.text().contains("only routes lead to"),
            "{refused:?}"
        );
    }
    assert_eq!(origin.requests().len(), 1);
}

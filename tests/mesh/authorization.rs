//! Which identities may call, and which may serve.

use std::time::Duration;

use crate::harness::{Mesh, Origin, eventually, exchange, get, pause, service};

/// A policy: only these workloads of namespace `shop` may call `service`.
pub(crate) fn allow(service: &str, callers: &[&str]) -> String {
    policy("Allow", service, callers, "")
}

/// The same, for the requests that `to` describes.
pub(crate) fn allow_requests(service: &str, callers: &[&str], to: &str) -> String {
    policy("Allow", service, callers, to)
}

fn policy(action: &str, service: &str, callers: &[&str], to: &str) -> String {
    let principals: Vec<String> = callers
        .iter()
        .map(|name| format!("\"spiffe://{}/ns/shop/sa/{name}\"", Mesh::DOMAIN))
        .collect();
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: {service}-{}, namespace: shop }}\nspec:\n  targetRefs: [ {{ kind: Service, name: {service} }} ]\n  action: {action}\n  from: [ {{ principals: [{}] }} ]\n{to}",
        action.to_lowercase(),
        principals.join(", ")
    )
}

#[test]
fn only_the_callers_that_a_policy_names_reach_the_application() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        allow("orders", &["frontend"])
    ));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let frontend = mesh.sidecar("frontend").calls("orders:80").start();
    let intruder = mesh.sidecar("intruder").calls("orders:80").start();

    frontend.wait_endpoints("orders:80", 1);
    let allowed = get(frontend.listener("orders:80"), "/").unwrap();
    assert_eq!(allowed.status, 200);
    let before = origin.requests().len();

    let denied = get(intruder.listener("orders:80"), "/").unwrap();
    assert_eq!(denied.status, 403);
    assert!(denied.header("proxy-status").is_some(), "{denied:?}");
    assert_eq!(origin.requests().len(), before);
}

#[test]
fn a_policy_judges_method_and_path_as_the_application_receives_them() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let to = "  to: [ { methods: [GET], paths: [\"/orders/*\"] } ]\n";
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        policy("Allow", "orders", &["frontend"], to)
    ));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let frontend = mesh.sidecar("frontend").calls("orders:80").start();
    frontend.wait_endpoints("orders:80", 1);
    let address = frontend.listener("orders:80");
    let status = |method: &str, path: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        exchange(address, request.as_bytes()).unwrap().status
    };
    assert_eq!(status("GET", "/orders/1"), 200);
    assert_eq!(status("GET", "/orders/"), 200);
    assert_eq!(status("POST", "/orders/1"), 403);
    assert_eq!(status("GET", "/orders"), 403);
    let reached = origin.requests().len();
    // Other spellings of a forbidden path: refused, as bad or as forbidden, and never delivered.
    for path in [
        "/admin",
        "/orders/../admin",
        "/orders/%2e%2e/admin",
        "/orders/%2E./admin",
        "/orders/..%2fadmin",
        "/orders//../../admin",
        "/orders/..;/admin",
        "/orders/\\..\\..\\admin",
    ] {
        let status = status("GET", path);
        let delivered = origin.requests().split_off(reached);
        let escaped = delivered.iter().any(|request| {
            !request.path().starts_with("/orders/") || request.path().contains("..")
        });
        assert!(!escaped, "{path}: {status} {delivered:?}");
    }
}

#[test]
fn deny_beats_allow_and_a_change_takes_effect_when_apply_returns() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let frontend = mesh.sidecar("frontend").calls("orders:80").start();
    frontend.wait_endpoints("orders:80", 1);
    let status = || get(frontend.listener("orders:80"), "/").unwrap().status;
    assert_eq!(status(), 200);
    mesh.apply(&policy("Deny", "orders", &["frontend"], ""));
    assert_eq!(status(), 403);
    mesh.apply(&allow("orders", &["frontend"]));
    assert_eq!(status(), 403);
}

#[test]
fn a_workload_that_registers_for_another_identitys_service_is_never_dialled() {
    let mesh = Mesh::start();
    let honest = Origin::echo(mesh.address(), "honest");
    let mallory = Origin::echo(mesh.address(), "mallory");
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", honest.address)
        .start();
    // Has an identity of the mesh, but not one that may serve orders.
    let mut thief = mesh
        .sidecar("mallory")
        .serves("orders:80", mallory.address)
        .spawn();
    let frontend = mesh.sidecar("frontend").calls("orders:80").start();
    frontend.wait_endpoints("orders:80", 1);

    // The refusal is logged for the operator of that workload.
    eventually("the refusal is told", || {
        let log = thief.process.log().to_lowercase();
        let sidecars = mesh.get("sidecars").to_string();
        log.contains("may not serve") || sidecars.contains("may not serve")
    });
    for _ in 0..50 {
        let response = get(frontend.listener("orders:80"), "/").unwrap();
        assert!(response.text().starts_with("honest"), "{response:?}");
    }
    frontend.wait_endpoints("orders:80", 1);

    // Not even if it is the only one left.
    orders.terminate();
    assert!(orders.process.wait_exit(Duration::from_secs(30)).success());
    eventually("the honest endpoint is gone", || {
        get(frontend.listener("orders:80"), "/").is_ok_and(|response| response.status >= 500)
    });
    pause(Duration::from_millis(500));
    assert!(get(frontend.listener("orders:80"), "/").unwrap().status >= 500);
    assert_eq!(mallory.bytes(), b"");
    let _ = thief.process.is_running();
}

#[test]
fn a_registration_before_its_service_exists_waits_for_it() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let frontend = mesh.sidecar("frontend").calls("orders:80").start();
    let before = get(frontend.listener("orders:80"), "/").unwrap();
    assert!(matches!(before.status, 404 | 503), "{before:?}");
    mesh.apply(&service("orders", 80, "http"));
    frontend.wait_endpoints("orders:80", 1);
    assert_eq!(
        get(frontend.listener("orders:80"), "/").unwrap().status,
        200
    );
}

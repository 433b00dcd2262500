//! Identities that have expired, that belong to another mesh, or that are given up: the messages, and how
//! soon they come.

use std::time::{Duration, Instant};

use crate::harness::{Mesh, Origin, eventually, get, pause, program, run, service};

/// The life of certificates, the shortest that there is.
const LIFE: Duration = Duration::from_secs(30);

#[test]
fn a_peer_whose_identity_has_ended_is_named_at_once() {
    let mut mesh = Mesh::with_svid_ttl("30s");
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    mesh.ca.kill();
    let begin = Instant::now();
    let mut refused = 0;
    // Beyond the expiry, and beyond the allowed clock skew.
    while begin.elapsed() < LIFE + Duration::from_secs(25) {
        let asked = Instant::now();
        let response = get(shop.listener("orders:80"), "/").unwrap();
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}: {response:?}");
        if response.status != 200 {
            let why = response.header("proxy-status").unwrap_or_default();
            assert_eq!(response.status, 502, "{response:?}");
            assert!(why.contains("tls_certificate_error"), "{why}");
            assert!(why.contains("xpired"), "{why}");
            refused += 1;
        }
        pause(Duration::from_millis(500));
    }
    assert!(refused >= 40, "{refused}");
    let ready = shop.admin_get("/ready").unwrap();
    assert!(
        ready.text().contains("the identity has expired"),
        "{ready:?}"
    );
}

#[test]
fn a_command_whose_identity_has_ended_says_within_seconds_that_the_ca_is_away() {
    let mut mesh = Mesh::with_svid_ttl("30s");
    mesh.weft(&["get", "sidecars"]).ok();
    mesh.ca.kill();
    pause(LIFE);
    let begin = Instant::now();
    let output = mesh.weft(&["get", "sidecars"]);
    assert!(begin.elapsed() < Duration::from_secs(10), "{output:?}");
    assert_eq!(output.code, 69, "{output:?}");
    for part in [
        "has expired",
        "only the CA can renew it",
        "Connection refused",
    ] {
        assert!(output.stderr.contains(part), "{output:?}");
    }
    mesh.restart_ca();
    mesh.weft(&["get", "sidecars"]).ok();
}

#[test]
fn what_is_of_another_mesh_is_named() {
    // Of one trust domain, as two CAs made by one script have.
    let [first, second] = [Mesh::start(), Mesh::start()];
    let mut shop = first.sidecar("shop").calls("orders:80").start();
    shop.process.kill();
    let moved = second.folder().join("shop/state");
    std::fs::create_dir_all(&moved).unwrap();
    run(program("cp")
        .arg("-a")
        .arg(shop.state().join("."))
        .arg(&moved))
    .ok();
    std::fs::remove_file(moved.join("table.json")).ok();
    let mut shop = second.sidecar("shop").calls("orders:80").spawn();
    shop.process
        .wait_for_line("an identity of another mesh than the join token's");
    eventually("what is missing is said with its reason", || {
        let ready = shop.admin_get("/ready");
        ready.is_ok_and(|ready| ready.status == 503 && ready.text().contains("of another mesh"))
    });

    let mut command = second.weft_command(&["get", "sidecars", "--server"]);
    command
        .arg(second.config_address())
        .env("HOME", first.folder());
    let output = run(&mut command);
    assert_eq!(output.code, 69, "{output:?}");
    assert!(output.stderr.contains("of another mesh"), "{output:?}");
}

#[test]
fn logout_removes_the_identity_and_says_what_it_removed() {
    let mesh = Mesh::start();
    let kept = mesh.folder().join(".config/weft/contexts/default");
    assert!(kept.join("identity/identity.key").exists());
    let output = mesh.weft(&["logout"]);
    assert_eq!(output.code, 0, "{output:?}");
    for part in [
        &format!("logged out of {}", mesh.config_address()),
        "spiffe://demo.test/ns/weft/sa/operator-admin",
        kept.to_str().unwrap(),
    ] {
        assert!(output.stderr.contains(part), "{output:?}");
    }
    assert!(!kept.exists());
    let output = mesh.weft(&["get", "sidecars"]);
    assert_eq!(output.code, 77, "{output:?}");
    assert!(output.stderr.contains("no login"), "{output:?}");
}

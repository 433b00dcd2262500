//! `kill -9` ends the control plane: traffic goes on, sidecars restart without it, and both services return
//! with their state.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Load, Mesh, Origin, eventually, get, pause, run, service};

#[test]
fn traffic_and_restarts_survive_the_death_of_ca_and_config_service() {
    let mut mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let steady = mesh.sidecar("steady").calls("orders:80").start();
    let mut restarted = mesh.sidecar("restarted").calls("orders:80").start();
    steady.wait_endpoints("orders:80", 1);
    restarted.wait_endpoints("orders:80", 1);
    let before = state(&mesh);
    let load = Load::start(
        steady.listener("orders:80"),
        "/",
        4,
        Duration::from_millis(20),
    );

    mesh.ca.kill();
    mesh.config.kill();
    // Beyond the lease of 15 s would be another test; here only the traffic counts.
    pause(Duration::from_secs(3));

    restarted.process.kill();
    restarted.restart();
    restarted.wait_ready();
    let response = get(restarted.listener("orders:80"), "/").unwrap();
    assert_eq!(response.status, 200, "{response:?}");

    mesh.restart_ca();
    mesh.restart_config();
    let report = load.finish();
    report.expect_all_good(300);

    assert_eq!(state(&mesh), before);
    // Both work again: a new workload joins, and the next revision reaches all sidecars.
    let _new = mesh.sidecar("newcomer").calls("orders:80").start();
    let revision = steady.revision();
    mesh.apply(&service("payments", 80, "http"));
    // A sidecar that was still waiting to try again gets it when it is back.
    eventually("everyone has the new revision", || {
        restarted.revision() > revision && steady.revision() > revision
    });
    orders.expect_alive();
    restarted.wait_endpoints("orders:80", 1);
}

/// The state that the control plane must keep.
fn state(mesh: &Mesh) -> (Value, String) {
    let revisions = mesh.get("revisions");
    let inspect = run(mesh
        .weft_command(&["ca", "inspect", "--dir"])
        .arg(mesh.folder().join("ca")))
    .ok();
    let anchors: String = inspect
        .lines()
        .filter(|line| line.to_lowercase().contains("root") || line.contains("issuing"))
        .collect();
    (revisions, anchors)
}

#[test]
fn a_sidecar_that_starts_first_waits_for_the_control_plane() {
    let mut mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let plan = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .calls("orders:80");
    mesh.ca.kill();
    mesh.config.kill();
    let mut orders = plan.spawn();
    eventually("the sidecar says that it lives", || {
        orders
            .admin_get("/live")
            .is_ok_and(|answer| answer.status == 200)
    });
    let ready = orders.admin_get("/ready").unwrap();
    assert_eq!(ready.status, 503);
    let said = ready.text();
    assert!(
        said.starts_with("not ready: waiting for the CA: ") && said.contains("refused"),
        "{said}"
    );
    assert!(orders.process.is_running());
    mesh.restart_ca();
    mesh.restart_config();
    orders.wait_ready();
    orders.wait_endpoints("orders:80", 1);
    assert_eq!(get(orders.listener("orders:80"), "/").unwrap().status, 200);
}

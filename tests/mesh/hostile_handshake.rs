//! Strangers at the mesh's port: they begin handshakes and never prove an identity.

use std::time::{Duration, Instant};

use crate::harness::{
    Load, Mesh, Need, Origin, Process, eventually, get, need, python, python_command, service,
};

#[test]
fn a_newcomer_gets_in_beside_silent_handshakes_from_its_own_address() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .setting("workers: 1")
        .start();
    let bystander = mesh.sidecar("bystander").calls("orders:80").start();
    let newcomer = mesh.sidecar("newcomer").calls("orders:80").start();
    bystander.wait_endpoints("orders:80", 1);
    newcomer.wait_endpoints("orders:80", 1);
    get(bystander.listener("orders:80"), "/").unwrap();
    let handshakes = |result: &str| {
        let metrics = orders.admin_get("/metrics").unwrap().text();
        let line = format!("weft_quic_handshakes_total{{result=\"{result}\"}} ");
        let count = metrics.lines().find_map(|one| one.strip_prefix(&line));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let resident = orders.process.resident();
    orders.process.forget_peak();

    let load = Load::start(
        bystander.listener("orders:80"),
        "/",
        2,
        Duration::from_millis(40),
    );
    let address = orders.mesh_address().to_string();
    let mut silent = Process::spawn(
        "silent",
        mesh.folder(),
        python_command("hostile_handshake.py")
            .args(["silent", &address, "--count", "2500", "--rate", "500"]),
    );
    silent.wait_for_line("READY");
    eventually("handshakes are given up", || handshakes("given_up") > 0);
    let begin = Instant::now();
    let response = get(newcomer.listener("orders:80"), "/").unwrap();
    let took = begin.elapsed();
    assert!(silent.is_running(), "over too soon: {}", silent.log());
    assert_eq!(response.status, 200, "{response:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    silent.wait_exit(Duration::from_secs(30));
    load.finish_after(5).expect_all_good(5);
    assert!(handshakes("retry") > 0);

    let grown = orders.process.resident_peak().saturating_sub(resident);
    assert!(grown <= 96 << 10, "grew by {grown} KiB");
    orders.expect_alive();
}

#[test]
fn an_address_that_only_says_hello_gets_three_times_its_bytes_at_most() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let address = orders.mesh_address().to_string();
    // The server repeats its flight after one second and after three, until its timeout of three.
    let seen = python(
        "hostile_handshake.py",
        &["amplified", &address, "--seconds", "5"],
    );
    let received: Vec<u64> = serde_json::from_value(seen["received"].clone()).unwrap();
    let sent = seen["sent"].as_u64().unwrap();
    assert!(received.len() >= 3, "{seen}");
    assert!(received.iter().sum::<u64>() <= 3 * sent, "{seen}");
}

//! A sidecar that has too little processor time for what its callers ask: what it can do it does in time, and the
//! rest is refused at once.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Mesh, Need, OpenLoad, Origin, Quota, heavy, need, pause, run, service};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Goodput at a rate: answers per second within a second.
fn offered(mesh: &Mesh, to: SocketAddr, rate: u32, seconds: u32) -> (f64, Value) {
    let flags = ["--deadline", "1s", "--warm-up", "1s"];
    let load = OpenLoad::start(mesh.weft_command(&["load"]), to, rate, seconds, &flags).result();
    let good = load["summary"]["succeeded_per_second"].as_f64().unwrap();
    (good, load)
}

/// What callers get that wait for each other's answers.
fn in_turn(mesh: &Mesh, to: SocketAddr) -> f64 {
    let mut load = mesh.weft_command(&["load", "--closed", "--connections", "64"]);
    load.arg(format!("http://{to}/"));
    let flags = ["--duration", "3s", "--warm-up", "1s", "--quiet"];
    let output = run(load.args(flags).args(["-o", "json"]));
    let result: Value = serde_json::from_str(&output.stdout).unwrap();
    result["summary"]["succeeded_per_second"].as_f64().unwrap()
}

#[test]
fn at_three_times_what_a_serving_sidecar_can_do_its_goodput_stays_and_refusals_are_quick() {
    if !need(&[Need::Quota]) {
        return;
    }
    let _quiet = heavy();
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |_, out| out.write_all(OK).map(|()| true));
    mesh.apply(&service("orders", 80, "http"));
    let plan = mesh.sidecar("orders").serves("orders:80", origin.address);
    let orders = plan.setting("workers: 1").start();
    let plan = mesh.sidecar("shop").calls("orders:80");
    let shop = plan.setting("workers: 1").start();
    shop.wait_endpoints("orders:80", 1);
    let to = shop.listener("orders:80");
    let process = u32::try_from(orders.process.pid().as_raw()).unwrap();
    let _quota = Quota::percent(process, 10);
    let mut seen = Vec::new();
    // A busy machine may spoil one.
    let holds = (0..3).any(|_| {
        let capacity = in_turn(&mesh, to);
        // Callers that do not wait for each other cost more each.
        let (peak, _) = offered(&mesh, to, (capacity * 0.5) as u32, 4);
        let (good, load) = offered(&mesh, to, (peak * 3.0) as u32, 6);
        let refused = load["failed"]["percentiles"]["p50"]["us"].as_u64();
        pause(Duration::from_secs(5));
        let (_, after) = offered(&mesh, to, (peak / 4.0) as u32, 2);
        seen.push((
            capacity,
            peak,
            good,
            refused,
            after["summary"]["failed"].clone(),
        ));
        good >= 0.7 * peak
            && refused.is_some_and(|refused| refused <= 50_000)
            && after["summary"]["failed"] == 0
    });
    assert!(holds, "{seen:?}");
}

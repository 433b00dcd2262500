//! A caller that policy allows, and that takes what it can: another caller of the same service must not notice.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Connection, Mesh, Origin, eventually, get, service};

/// More than the places of a service.
const REQUESTS: usize = 1_100;

#[test]
fn requests_without_their_bodies_leave_places_to_others_and_are_ended() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let greedy = mesh.sidecar("greedy").calls("orders:80").start();
    let bystander = mesh.sidecar("bystander").calls("orders:80").start();
    for sidecar in [&greedy, &bystander] {
        sidecar.wait_endpoints("orders:80", 1);
        assert_eq!(get(sidecar.listener("orders:80"), "/").unwrap().status, 200);
    }
    let before = orders.process.resident();

    let head = b"POST /held HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
    let mut first = Connection::open(greedy.listener("orders:80")).unwrap();
    first.send(head).unwrap();
    let began = Instant::now();
    let mut held = Vec::with_capacity(REQUESTS);
    for _ in 1..REQUESTS {
        let mut stream = TcpStream::connect(greedy.listener("orders:80")).unwrap();
        stream.write_all(head).unwrap();
        held.push(stream);
    }
    eventually("the greedy caller has its share", || {
        let metrics = orders.admin_get("/metrics").unwrap().text();
        metrics.lines().any(|line| {
            line.starts_with("weft_overload_total")
                && line.contains("limit=\"share\"")
                && line.contains("mode=\"enforce\"")
                && !line.ends_with(" 0")
        })
    });
    for _ in 0..20 {
        let asked = Instant::now();
        let response = get(bystander.listener("orders:80"), "/").unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
    let grown = orders.process.resident().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");

    // Nothing comes of their bodies, so they are ended.
    let refused = first.receive(false).unwrap();
    assert_eq!(refused.status, 408, "{refused:?}");
    let took = began.elapsed().as_secs();
    assert!((18..40).contains(&took), "{took} s");
    drop(held);
    orders.expect_alive();
}

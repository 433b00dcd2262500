//! Endpoints that die or fail, with real processes: callers notice as little as possible.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Load, Mesh, Origin, eventually, get, service};

#[test]
fn a_killed_sidecar_fails_no_idempotent_request() {
    let mesh = Mesh::start();
    let one = Origin::echo(mesh.address(), "one");
    let two = Origin::echo(mesh.address(), "two");
    mesh.apply(&service("orders", 80, "http"));
    let mut first = mesh
        .sidecar("orders")
        .serves("orders:80", one.address)
        .start();
    let _second = mesh
        .sidecar("orders")
        .named("orders-2")
        .serves("orders:80", two.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 2);
    let load = Load::start(
        shop.listener("orders:80"),
        "/",
        4,
        Duration::from_millis(10),
    );
    eventually("both serve", || {
        one.connections() > 0 && two.connections() > 0
    });
    first.process.kill();
    let before = two.requests().len();
    eventually("the other one serves on", || {
        two.requests().len() > before + 500
    });
    load.finish().expect_all_good(500);
}

#[test]
fn a_failing_endpoint_is_shown_to_be_out_and_comes_back_when_it_is_well() {
    let mesh = Mesh::start();
    let ill = Arc::new(AtomicBool::new(true));
    let of_ill = Arc::clone(&ill);
    let one = Origin::http(mesh.address(), move |_, out| {
        let status = if of_ill.load(Ordering::Relaxed) {
            "500 Internal Server Error"
        } else {
            "201 Created"
        };
        out.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
        Ok(true)
    });
    let two = Origin::echo(mesh.address(), "two");
    mesh.apply(&service("orders", 80, "http"));
    let _first = mesh
        .sidecar("orders")
        .serves("orders:80", one.address)
        .start();
    let _second = mesh
        .sidecar("orders")
        .named("orders-2")
        .serves("orders:80", two.address)
        .start();
    let shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .setting("workers: 1")
        .start();
    shop.wait_endpoints("orders:80", 2);
    let address = shop.listener("orders:80");
    let admin = shop.admin().to_string();
    let shown = || {
        let output = mesh.weft(&["endpoints", "orders.shop", "--admin", &admin]);
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stdout
    };
    eventually("it is out", || {
        (0..20).for_each(|_| drop(get(address, "/")));
        shown().contains("consecutive_failures")
    });
    ill.store(false, Ordering::Relaxed);
    eventually("it is back", || get(address, "/").unwrap().status == 201);
    assert!(!shown().contains("consecutive_failures"));
}

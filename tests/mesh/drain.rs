//! How a sidecar ends: running requests finish, and it ends with a wrapped command.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Connection, Load, Mesh, Origin, eventually, get, pause, service};

/// Answers after two seconds, half of the body at a time.
fn slow_origin(mesh: &Mesh) -> Origin {
    Origin::http(mesh.address(), |_, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nslow")?;
        pause(Duration::from_secs(4));
        out.write_all(b"done")?;
        Ok(true)
    })
}

#[test]
fn sigterm_lets_running_requests_finish_on_both_sides() {
    let mesh = Mesh::start();
    let origin = slow_origin(&mesh);
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let mut shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let address = shop.listener("orders:80");
    for side in ["inbound", "outbound"] {
        let before = origin.requests().len();
        let request = thread::spawn(move || get(address, "/"));
        eventually("the request is running", || {
            origin.requests().len() > before
        });
        let sidecar = if side == "inbound" {
            &mut orders
        } else {
            &mut shop
        };
        sidecar.terminate();
        let response = request.join().unwrap().unwrap();
        assert_eq!(response.text(), "slowdone", "{side}");
        let status = sidecar.process.wait_exit(Duration::from_secs(30));
        assert!(status.success(), "{side}: {status}");
        if side == "inbound" {
            orders.restart();
            orders.wait_ready();
            shop.wait_endpoints("orders:80", 1);
        }
    }
}

#[test]
fn one_of_two_endpoints_drains_under_load_without_a_failure() {
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
    first.terminate();
    assert!(first.process.wait_exit(Duration::from_secs(30)).success());
    shop.wait_endpoints("orders:80", 1);
    load.finish().expect_all_good(100);
}

#[test]
fn a_wrapped_commands_exit_code_is_the_sidecars() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    for (command, code) in [("exit 0", 0), ("exit 7", 7)] {
        let mut sidecar = mesh
            .sidecar("shop")
            .calls("orders:80")
            .spawn_wrapping(&["sh", "-c", command]);
        let status = sidecar.process.wait_exit(Duration::from_secs(30));
        assert_eq!(status.code(), Some(code), "{command}");
    }
}

#[test]
fn a_wrapped_command_starts_when_the_mesh_is_ready_and_gets_the_signals() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let plan = mesh.sidecar("shop").calls("orders:80");
    let mut sidecar = plan.spawn_wrapping(&[
        "sh",
        "-c",
        "trap 'echo got-term; exit 3' TERM; echo started; while :; do sleep 0.1; done",
    ]);
    sidecar.process.wait_for_line("started");
    assert_eq!(sidecar.admin_get("/ready").unwrap().status, 200);
    sidecar.process.signal(Signal::SIGTERM);
    let status = sidecar.process.wait_exit(Duration::from_secs(30));
    assert_eq!(status.code(), Some(3), "{:?}", status.signal());
    assert!(sidecar.process.log().contains("got-term"));
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let mesh = Mesh::start();
    let origin = slow_origin(&mesh);
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let mut connection = Connection::open(shop.listener("orders:80")).unwrap();
    connection
        .send(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n")
        .unwrap();
    eventually("the request is running", || !origin.requests().is_empty());
    orders.terminate();
    pause(Duration::from_millis(200));
    orders.terminate();
    orders.process.wait_exit(Duration::from_secs(2));
}

#[test]
fn tunnels_that_outlive_the_drain_are_reset_on_both_sides_with_a_reason() {
    let mesh = Mesh::start();
    let (heard, ends) = sync_channel(16);
    let store = Origin::raw(mesh.address(), move |mut tap| {
        let mut writer = tap.try_clone()?;
        let ended = std::io::copy(&mut tap, &mut writer).map_err(|error| error.kind());
        let _ = heard.send(ended.err());
        Ok(())
    });
    mesh.apply(&service("store", 7000, "tcp"));
    let mut serving = mesh
        .sidecar("store")
        .serves("store:7000", store.address)
        .setting("drain: { accept: 1s, deadline: 2s }")
        .start();
    let shop = mesh.sidecar("shop").calls("store:7000").start();
    shop.wait_endpoints("store:7000", 1);
    let mut client = TcpStream::connect(shop.listener("store:7000")).unwrap();
    let mut echo = [0; 4];
    client.write_all(b"ping").unwrap();
    client.read_exact(&mut echo).unwrap();
    serving.terminate();
    let reset = client.read(&mut echo).unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    // The connections of the probes end cleanly.
    let mut broken = ends.iter().flatten();
    assert_eq!(broken.next(), Some(std::io::ErrorKind::ConnectionReset));
    assert!(serving.process.wait_exit(Duration::from_secs(30)).success());
    let log = serving.process.log();
    assert!(log.contains("the tunnel outlived its drain"), "{log}");
}

#[test]
fn post_drain_does_what_sigterm_does() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let response = orders.admin_ask("POST /drain", "").unwrap();
    assert_eq!(response.status, 202, "{response:?}");
    assert!(orders.process.wait_exit(Duration::from_secs(30)).success());
}

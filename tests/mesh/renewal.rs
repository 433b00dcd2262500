//! Certificates that live for a minute or for seconds, under load.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Load, Mesh, Origin, Sidecar, pause, service};

const LIFE: &str = "60s";
const OBSERVED: Duration = Duration::from_secs(125);

#[test]
fn certificates_of_60_seconds_are_renewed_under_load_without_a_failed_request() {
    let mesh = Mesh::with_svid_ttl(LIFE);
    let origin = Origin::echo(mesh.address(), "orders");
    let echo = TcpListener::bind((mesh.address(), 0)).unwrap();
    let echo_address = echo.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in echo.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        service("echo", 7, "tcp")
    ));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let _echo = mesh.sidecar("echo").serves("echo:7", echo_address).start();
    let shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .calls("echo:7")
        .start();
    shop.wait_endpoints("orders:80", 1);
    shop.wait_endpoints("echo:7", 1);

    // One tunnel stays open over all renewals, and carries bytes every time.
    let mut tunnel = TcpStream::connect(shop.listener("echo:7")).unwrap();
    tunnel
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let load = Load::start(
        shop.listener("orders:80"),
        "/",
        3,
        Duration::from_millis(20),
    );
    let mut serials = [BTreeSet::new(), BTreeSet::new()];
    let begin = Instant::now();
    while begin.elapsed() < OBSERVED {
        for (sidecar, serials) in [&orders, &shop].into_iter().zip(&mut serials) {
            serials.insert(serial(sidecar));
        }
        tunnel.write_all(b"still there?").unwrap();
        let mut answer = [0; 12];
        tunnel.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still there?");
        pause(Duration::from_secs(1));
    }
    // Renewed at two thirds of a minute, give or take a tenth: three times in two minutes.
    for serials in &serials {
        assert!(serials.len() >= 3, "{serials:?}");
    }
    // 3 connections at 50 requests a second at most; a slow machine makes fewer.
    load.finish().expect_all_good(2_000);
    let after = mesh.weft(&["get", "sidecars"]);
    assert_eq!(after.code, 0, "the operator's own certificate: {after:?}");
}

#[test]
fn certificates_of_30_seconds_cost_no_registration_no_table_and_no_apply() {
    let mesh = Mesh::with_svid_ttl("30s");
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let load = Load::start(
        shop.listener("orders:80"),
        "/",
        2,
        Duration::from_millis(20),
    );
    // Streams to the config service end with their certificates; the next stream begins before.
    let mut serials = BTreeSet::new();
    let begin = Instant::now();
    let mut applied = 0;
    while begin.elapsed() < Duration::from_secs(70) {
        serials.insert(serial(&orders));
        for sidecar in [&orders, &shop] {
            let plane = &sidecar.admin_json("/config_dump")["control_plane"];
            assert_eq!(plane["connected"], true, "{plane}");
            assert_eq!(plane["last_error"], Value::Null, "{plane}");
        }
        if begin.elapsed() > Duration::from_secs(5) * applied {
            applied += 1;
            let more = service(&format!("more-{applied}"), 80, "http");
            mesh.apply(&format!("{}{more}", service("orders", 80, "http")));
        }
        pause(Duration::from_millis(200));
    }
    assert!(serials.len() >= 3, "{serials:?}");
    load.finish().expect_all_good(500);
}

/// The serial number of a sidecar's certificate.
fn serial(sidecar: &Sidecar) -> String {
    let certificates = sidecar.admin_json("/certs");
    let own = certificates.get("svid").unwrap_or(&certificates);
    own["serial"]
        .as_str()
        .unwrap_or_else(|| panic!("no serial in {certificates}"))
        .to_owned()
}

//! Which peers are accepted: those with no certificate, a wrong one, or a valid one of the wrong service are
//! refused in both directions, and the application sees no byte of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::authorization::allow;
use crate::harness::{
    Mesh, Need, Origin, Process, Sidecar, eventually, get, need, python, python_command, service,
};

/// `certificates.py` makes them; each has one fault.
fn certificates(mesh: &Mesh, workload: &str) -> (PathBuf, Vec<String>) {
    let out = mesh.folder().join(format!("certificates-{workload}"));
    let ca = mesh.folder().join("ca");
    let identity = format!("spiffe://{}/ns/shop/sa/{workload}", Mesh::DOMAIN);
    let kinds = python(
        "certificates.py",
        &[
            out.to_str().unwrap(),
            "--ca",
            ca.to_str().unwrap(),
            "--identity",
            &identity,
        ],
    );
    let kinds = kinds.as_array().unwrap().iter();
    let bad = kinds
        .map(|kind| kind.as_str().unwrap().to_owned())
        .filter(|kind| kind != "good")
        .collect();
    (out, bad)
}

/// A request by a foreign client, at once after its own side of the handshake.
fn attempt(sidecar: &Sidecar, identity: Option<&Path>) -> Value {
    let address = sidecar.mesh_address().to_string();
    let mut arguments = vec!["refused", address.as_str()];
    if let Some(identity) = identity {
        arguments.extend(["--identity", identity.to_str().unwrap()]);
    }
    python("h3_client.py", &arguments)
}

#[test]
fn a_client_without_a_right_certificate_is_refused_and_unheard() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let (folder, kinds) = certificates(&mesh, "frontend");
    assert!(kinds.len() >= 14);
    let before = origin.connections();
    let none = attempt(&orders, None);
    assert_eq!(none["status"], Value::Null, "without: {none}");
    assert_ne!(none["closed"], Value::Null, "without: {none}");
    for kind in &kinds {
        let seen = attempt(&orders, Some(&folder.join(kind)));
        assert_eq!(seen["status"], Value::Null, "{kind}: {seen}");
        assert_ne!(seen["closed"], Value::Null, "{kind}: {seen}");
    }
    assert_eq!(origin.requests().len(), 0);
    assert_eq!(origin.bytes(), b"");
    // The sidecar looks at its application by connecting; no refused peer made it connect.
    let _ = before;

    // The control: the one fault was the only difference.
    let good = attempt(&orders, Some(&folder.join("good")));
    assert_eq!(good["status"], 200, "{good}");
    orders.expect_alive();
}

#[test]
fn a_right_client_of_the_wrong_service_is_refused_and_unheard() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        allow("orders", &["frontend"])
    ));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    // A real identity of the mesh, taken out of a real sidecar.
    let stranger = mesh.sidecar("stranger").calls("orders:80").start();
    let seen = attempt(&orders, Some(&stranger.state()));
    assert_eq!(seen["status"], 403, "{seen}");
    assert_eq!(origin.bytes(), b"");
}

/// An aioquic server at the address that the sidecar of `orders` tells the mesh.
fn serve(mesh: &Mesh, address: SocketAddr, identity: &Path, name: &str) -> Process {
    let mut command = python_command("h3_server.py");
    command
        .args(["serve", &address.to_string(), "--identity"])
        .arg(identity);
    let mut server = Process::spawn(name, mesh.folder(), &mut command);
    server.wait_for_line("serving");
    server
}

#[test]
fn a_server_without_the_expected_identity_gets_no_byte() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let elsewhere = SocketAddr::from((mesh.address(), 6143));
    mesh.apply(&service("orders", 80, "http"));
    // It keeps the registration alive, at an address where other processes answer.
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .advertise(elsewhere)
        .start();
    let mut shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let address = shop.listener("orders:80");

    let (folder, kinds) = certificates(&mesh, "orders");
    let stranger = mesh.sidecar("stranger").calls("orders:80").start();
    let wrong = kinds
        .iter()
        .map(|kind| (kind.as_str(), folder.join(kind)))
        .chain([("another service's", stranger.state())]);
    for (index, (kind, identity)) in wrong.enumerate() {
        let server = serve(&mesh, elsewhere, &identity, &format!("server-{index}"));
        let response = get(address, "/SECRET").unwrap();
        assert!(matches!(response.status, 502..=504), "{kind}: {response:?}");
        assert!(response.header("proxy-status").is_some(), "{kind}");
        let log = server.log();
        assert!(
            !log.contains("\"bytes\"") && !log.contains("\"request\""),
            "{kind}: {log}"
        );
    }
    assert_eq!(origin.bytes(), b"");

    // The control: the same server with the right identity is served.
    let server = serve(&mesh, elsewhere, &orders.state(), "server-right");
    eventually("the right one is reached", || {
        get(address, "/").is_ok_and(|response| response.status == 200)
    });
    assert!(server.log().contains("\"request\""));
    shop.expect_alive();
}

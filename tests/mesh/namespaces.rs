//! Two hosts with one wire between them: only the mesh's own protocol crosses it, and all of its contents are
//! encrypted.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::harness::{Capture, Mesh, Need, Packet, Process, Wire, eventually, need, run, service};

/// The text that an eavesdropper looks for.
const SECRET: &str = "the-secret-that-crosses-the-wire";

#[test]
fn only_udp_6143_and_the_control_planes_tcp_cross_the_wire() {
    if !need(&[
        Need::Root,
        Need::Program("ip"),
        Need::Program("tcpdump"),
        Need::Program("curl"),
        Need::Program("python3"),
    ]) {
        return;
    }
    let Wire { left, right } = Wire::new();
    let (left, right) = (Arc::new(left), Arc::new(right));
    // Control plane and caller on the left host, the service on the right one.
    let mesh = Mesh::in_namespace(&left);
    let capture = Capture::start(&left, mesh.folder());
    let root = mesh.folder().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("page"), SECRET.repeat(1000)).unwrap();
    let mut server = right.command("python3");
    server
        .args(["-m", "http.server", "8080", "--bind", "127.0.0.1", "-d"])
        .arg(&root);
    let _application = Process::spawn("application", mesh.folder(), &mut server);
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        service("orders-tcp", 81, "tcp").replace(
            "spec: {",
            "spec: { identities: [\"spiffe://demo.test/ns/shop/sa/orders\"],"
        )
    ));
    let _orders = mesh
        .sidecar("orders")
        .in_namespace(&right)
        .serves("orders:80", "127.0.0.1:8080")
        .serves("orders-tcp:81", "127.0.0.1:8080")
        .start();
    let shop = mesh
        .sidecar("shop")
        .in_namespace(&left)
        .calls("orders:80")
        .calls("orders-tcp:81")
        .start();
    shop.wait_endpoints("orders:80", 1);
    shop.wait_endpoints("orders-tcp:81", 1);
    for service in ["orders:80", "orders-tcp:81"] {
        for _ in 0..5 {
            let url = format!("http://{}/page", shop.listener(service));
            let page = run(left
                .command("curl")
                .args(["-sSf", "--max-time", "20", &url]))
            .ok();
            assert!(page.contains(SECRET));
        }
    }

    let packets = capture.finish();
    let mut kinds = BTreeSet::new();
    for (packet, bytes) in &packets {
        let kind = match packet {
            Packet::Arp => "arp".to_owned(),
            Packet::Ports(protocol, source, target) => {
                let ports: BTreeSet<_> = [*source, *target].into();
                let known = [6143, 6200, 6201]
                    .into_iter()
                    .find(|port| ports.contains(port));
                format!(
                    "{protocol} {known:?} {}",
                    known.map_or(format!("{ports:?}"), |_| String::new())
                )
            }
            Packet::Other(what) => what.clone(),
        };
        kinds.insert(kind.trim().to_owned());
        let window = SECRET.as_bytes();
        let readable = bytes.windows(window.len()).any(|part| part == window);
        assert!(!readable, "readable on the wire: {packet:?}");
    }
    let allowed = ["arp", "udp Some(6143)", "tcp Some(6200)", "tcp Some(6201)"];
    assert!(
        kinds.iter().all(|kind| allowed.contains(&kind.as_str())),
        "{kinds:?}"
    );
    assert!(kinds.contains("udp Some(6143)"), "{kinds:?}");
}

/// The same without the mesh: the capture does show unencrypted text.
#[test]
fn the_same_capture_reads_plain_http() {
    if !need(&[
        Need::Root,
        Need::Program("ip"),
        Need::Program("tcpdump"),
        Need::Program("curl"),
        Need::Program("python3"),
    ]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let wire = Wire::new();
    let capture = Capture::start(&wire.left, folder.path());
    std::fs::write(folder.path().join("page"), SECRET).unwrap();
    let mut server = wire.right.command("python3");
    let address = wire.right.socket(8080);
    server
        .args([
            "-m",
            "http.server",
            "8080",
            "--bind",
            &address.ip().to_string(),
            "-d",
        ])
        .arg(folder.path());
    let _application = Process::spawn("application", folder.path(), &mut server);
    let url = format!("http://{address}/page");
    let mut curl = wire.left.command("curl");
    run(curl.args([
        "-sSf",
        "--retry",
        "20",
        "--retry-connrefused",
        "--retry-delay",
        "1",
        &url,
    ]))
    .ok();
    eventually("the page is captured", || capture.has(SECRET.as_bytes()));
    let packets = capture.finish();
    let readable = packets.iter().any(|(packet, bytes)| {
        matches!(packet, Packet::Ports("tcp", 8080, _))
            && bytes
                .windows(SECRET.len())
                .any(|part| part == SECRET.as_bytes())
    });
    assert!(readable);
}

//! TLS to services outside of the mesh, ended by implementations other than weft's: gRPC, bytes, and a server
//! that demands a certificate. The same through a Service (`spec.via`), whose sidecars then speak TLS. The
//! caller's application also calls `orders`, whose requests must not notice.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair};

use crate::egress::addresses;
use crate::harness::{
    Mesh, Need, Origin, Process, Sidecar, connect, eventually, expect_echo, get, need, pause,
    python, python_command, service,
};

/// Longer than files of TLS are taken for what they were (`OUTSIDE_TLS_FILES_LIFE`).
const FILES_LIFE: Duration = Duration::from_secs(61);

/// Writes a certificate of its own for `localhost`, and its key. Gives the names of both files.
fn certificate(mesh: &Mesh, name: &str, subject: &str) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    let made = params.self_signed(&key).unwrap();
    let file = |end: &str| mesh.folder().join(format!("{name}.{end}"));
    fs::write(file("pem"), made.pem()).unwrap();
    fs::write(file("key"), key.serialize_pem()).unwrap();
    (file("pem"), file("key"))
}

/// The way of the calls to `pay`.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Direct,
    Via,
}

struct Scene {
    shop: Sidecar,
    orders: Sidecar,
    gate: Sidecar,
    listener: SocketAddr,
    mesh: Mesh,
}

/// `pay` is at this address, which TLS with these fields leads to.
fn resources(to: SocketAddr, protocol: &str, tls: &str, way: Way) -> String {
    let via = match way {
        Way::Direct => "",
        Way::Via => "  via: { name: gate }\n",
    };
    let gate = "---\napiVersion: weft.dev/v1alpha1\nkind: Service\n\
                metadata: { name: gate, namespace: shop }\nspec:\n  \
                ports: [ { port: 15, protocol: http }, { port: 16, protocol: tcp } ]\n";
    let pay = format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: ExternalService\n\
         metadata: {{ name: pay, namespace: shop }}\nspec:\n  hosts: [ pay.example ]\n{via}{}  \
         ports: [ {{ port: {}, protocol: {protocol}, tls: {{ serverName: localhost, {tls} }} }} ]\n",
        addresses(&[to.ip()]),
        to.port(),
    );
    format!("{}{gate}{pay}", service("orders", 80, "http"))
}

fn scene(mesh: Mesh, to: SocketAddr, protocol: &str, tls: &str, way: Way) -> Scene {
    mesh.apply(&resources(to, protocol, tls, way));
    let application = Box::leak(Box::new(Origin::echo(mesh.address(), "orders"))).address;
    let orders = mesh.sidecar("orders").serves("orders:80", application);
    let gate = mesh
        .sidecar("gate")
        .serves("gate:15", application)
        .serves("gate:16", application);
    let (orders, gate) = (orders.start(), gate.start());
    let pay = format!("pay:{}", to.port());
    let shop = mesh.sidecar("shop").calls("orders:80").calls(&pay).start();
    shop.wait_endpoints("orders:80", 1);
    if way == Way::Via {
        shop.wait_endpoints(&pay, 1);
    }
    Scene {
        listener: shop.listener(&pay),
        shop,
        orders,
        gate,
        mesh,
    }
}

impl Scene {
    #[track_caller]
    fn expect_unharmed(&mut self) {
        self.gate.expect_alive();
        self.orders.expect_alive();
        self.shop.expect_alive();
        let response = get(self.shop.listener("orders:80"), "/").unwrap();
        assert_eq!(response.status, 200, "{response:?}");
    }
}

/// A server of bytes, see the script.
fn echo(
    mesh: &Mesh,
    files: &(PathBuf, PathBuf),
    clients: Option<&PathBuf>,
) -> (SocketAddr, Process) {
    let address = SocketAddr::from((mesh.address(), 8443));
    let mut command = python_command("tls_echo.py");
    command.arg(address.to_string()).arg(&files.0).arg(&files.1);
    command.args(clients);
    let mut server = Process::spawn("tls-echo", mesh.folder(), &mut command);
    server.wait_for_line("serving");
    (address, server)
}

/// Sends this many bytes, ends, and reads all that comes: the name that the server has for the client, and
/// the same bytes.
fn exchanged(listener: SocketAddr, length: usize) -> Option<String> {
    let mut stream = connect(listener).ok()?;
    let mut writer = stream.try_clone().unwrap();
    let sent = vec![7; length];
    let sending = std::thread::spawn(move || {
        writer.write_all(&vec![7; length])?;
        writer.shutdown(Shutdown::Write)
    });
    let mut reader = BufReader::new(&mut stream);
    let (mut name, mut heard) = (String::new(), Vec::new());
    let read = reader.read_line(&mut name);
    let read = read.and_then(|_| reader.read_to_end(&mut heard));
    let sent_all = sending.join().unwrap();
    if read.is_err() || sent_all.is_err() || name.is_empty() {
        return None;
    }
    assert!(heard == sent, "{} of {length} bytes", heard.len());
    Some(name.trim_end().to_owned())
}

#[test]
fn grpc_leaves_over_tls_as_http2_directly_and_through_a_service() {
    if !need(&[Need::Python]) {
        return;
    }
    for way in [Way::Direct, Way::Via] {
        let mesh = Mesh::start();
        let files = certificate(&mesh, "server", "server");
        let address = SocketAddr::from((mesh.address(), 50051));
        let mut command = python_command("grpc_peer.py");
        command.args(["serve", &address.to_string()]);
        command.arg(&files.0).arg(&files.1);
        let mut server = Process::spawn("grpc-server", mesh.folder(), &mut command);
        server.wait_for_line("serving");
        let tls = format!("caFile: {}", files.0.display());
        let mut scene = scene(mesh, address, "grpc", &tls, way);
        let seen = python("grpc_peer.py", &["call", &scene.listener.to_string()]);
        assert_eq!(seen["unary"], "hello", "{seen}");
        assert_eq!(seen["trailing"], serde_json::json!(["last", "answer"]));
        assert_eq!(seen["large"], true);
        assert_eq!(seen["client_stream"], 499_500);
        assert_eq!(seen["server_stream"], true);
        assert_eq!(seen["bidirectional"], 50);
        assert_eq!(seen["deadline"], "DEADLINE_EXCEEDED");
        assert_eq!(seen["concurrent"], true);
        scene.expect_unharmed();
    }
}

#[test]
fn bytes_leave_over_tls_to_their_end_directly_and_through_a_service() {
    if !need(&[Need::Python]) {
        return;
    }
    for way in [Way::Direct, Way::Via] {
        let mesh = Mesh::start();
        let files = certificate(&mesh, "server", "server");
        let (address, _server) = echo(&mesh, &files, None);
        let other = certificate(&mesh, "other", "other");
        let tls = format!("caFile: {}", files.0.display());
        let mut scene = scene(mesh, address, "tcp", &tls, way);
        for length in [5, 3_000_000] {
            assert_eq!(exchanged(scene.listener, length).as_deref(), Some("none"));
        }
        // A server that proves nothing gets nothing.
        let tls = format!("caFile: {}", other.0.display());
        scene.mesh.apply(&resources(address, "tcp", &tls, way));
        eventually("the server is not trusted", || {
            exchanged(scene.listener, 5).is_none()
        });
        scene.expect_unharmed();
    }
}

#[test]
fn a_server_that_demands_a_certificate_gets_that_of_the_file_and_soon_the_one_that_renews_it() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let files = certificate(&mesh, "server", "server");
    let (old, new) = (
        certificate(&mesh, "client", "first"),
        certificate(&mesh, "renewed", "second"),
    );
    let roots = mesh.folder().join("clients.pem");
    let both = [&old.0, &new.0].map(|file| fs::read_to_string(file).unwrap());
    fs::write(&roots, both.concat()).unwrap();
    let (address, _server) = echo(&mesh, &files, Some(&roots));
    let tls = format!(
        "caFile: {}, certificateFile: {}, keyFile: {}",
        files.0.display(),
        old.0.display(),
        old.1.display()
    );
    let mut scene = scene(mesh, address, "tcp", &tls, Way::Direct);
    assert_eq!(exchanged(scene.listener, 5).as_deref(), Some("first"));
    // A connection that is open goes on with what it showed.
    let mut open = connect(scene.listener).unwrap();
    let mut heard = vec![0; "first\n".len()];
    open.read_exact(&mut heard).unwrap();
    assert_eq!(heard, b"first\n");
    for (renewed, file) in [(&new.0, &old.0), (&new.1, &old.1)] {
        fs::copy(renewed, file).unwrap();
    }
    pause(FILES_LIFE);
    assert_eq!(exchanged(scene.listener, 5).as_deref(), Some("second"));
    expect_echo(&mut open, b"hello");
    // Without one there is no call.
    let tls = format!("caFile: {}", files.0.display());
    scene
        .mesh
        .apply(&resources(address, "tcp", &tls, Way::Direct));
    eventually("no certificate is shown", || {
        exchanged(scene.listener, 5).is_none()
    });
    scene.expect_unharmed();
}

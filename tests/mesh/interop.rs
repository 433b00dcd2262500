//! aioquic, an implementation of HTTP/3 independent of weft, with an identity of the mesh: as the client of a
//! sidecar, and as the server that a sidecar reaches.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Connection, Mesh, Need, Origin, Process, Sidecar, eventually, exchange, get, need, pause,
    python, python_command, service,
};

struct Served {
    mesh: Mesh,
    origin: Origin,
    orders: Sidecar,
    /// Its identity is the client's.
    client: Sidecar,
}

fn served(origin: impl FnOnce(&Mesh) -> Origin) -> Served {
    let mesh = Mesh::start();
    let origin = origin(&mesh);
    let echo = TcpListener::bind((mesh.address(), 0)).unwrap();
    let echo_address = echo.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in echo.incoming().flatten() {
            thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        service("store", 7000, "tcp").replace(
            "spec: {",
            "spec: { identities: [\"spiffe://demo.test/ns/shop/sa/orders\"],"
        )
    ));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .serves("store:7000", echo_address)
        .start();
    let client = mesh.sidecar("client").calls("orders:80").start();
    client.wait_endpoints("orders:80", 1);
    Served {
        mesh,
        origin,
        orders,
        client,
    }
}

impl Served {
    fn run(&self, scenario: &str, flags: &[&str]) -> Value {
        let address = self.orders.mesh_address().to_string();
        let identity = self.client.state();
        let mut arguments = vec![scenario, &address, "--identity", identity.to_str().unwrap()];
        arguments.extend(flags);
        python("h3_client.py", &arguments)
    }
}

#[test]
fn a_foreign_client_gets_posts_and_sends_trailers() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut served = served(|mesh| {
        Origin::http(mesh.address(), |request, out| {
            if request.path() == "/trailers" {
                let sum = request.trailers.first().map_or("none", |(_, value)| value);
                write!(
                    out,
                    "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: {sum}\r\n\r\n"
                )?;
            } else {
                write!(
                    out,
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-from: application\r\n\r\n",
                    request.body.len()
                )?;
                out.write_all(&request.body)?;
            }
            Ok(true)
        })
    });
    let seen = served.run("get", &["--path", "/a?b=c"]);
    assert_eq!(seen["status"], 200, "{seen}");
    assert_eq!(
        seen["peer"],
        json!(["spiffe://demo.test/ns/shop/sa/orders"])
    );
    let request = served.origin.requests().remove(0);
    assert_eq!(request.line, "GET /a?b=c HTTP/1.1");
    assert_eq!(request.header("host"), Some("orders.shop"));

    let seen = served.run("post", &[]);
    assert_eq!(
        seen,
        json!({"status": 200, "length": 10 << 20, "same": true})
    );

    let seen = served.run("trailers", &["--path", "/trailers"]);
    assert_eq!(
        seen,
        json!({"status": 200, "body": "ok", "trailers": [["x-sum", "294"]]})
    );

    // The mesh's own field can name the service, but only one that exists.
    let named = served.run(
        "get",
        &["--authority", "any.example", "--service", "orders.shop:80"],
    );
    assert_eq!(named["status"], 200, "{named}");
    let missing = served.run("get", &["--service", "payments.shop:80"]);
    assert_eq!(missing["status"], 421, "{missing}");
    served.orders.expect_alive();
    drop(served.mesh);
}

#[test]
fn a_foreign_client_opens_a_tunnel_to_a_service_and_to_nothing_else() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut served = served(|mesh| Origin::echo(mesh.address(), "orders"));
    let seen = served.run("connect", &["--authority", "store.shop:7000"]);
    assert_eq!(seen["status"], 200, "{seen}");
    assert_eq!(seen["same"], true, "{seen}");
    assert_eq!(seen["ended"], true, "{seen}");
    let elsewhere = seen["elsewhere"].as_u64().unwrap();
    assert!((400..500).contains(&elsewhere), "{seen}");
    served.orders.expect_alive();
}

#[test]
fn a_foreign_client_gets_goaway_and_its_request_finishes() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut served = served(|mesh| {
        Origin::http(mesh.address(), |_, out| {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nslow")?;
            pause(Duration::from_secs(4));
            out.write_all(b"done")?;
            Ok(true)
        })
    });
    let mut command = python_command("h3_client.py");
    command
        .args([
            "goaway",
            &served.orders.mesh_address().to_string(),
            "--identity",
        ])
        .arg(served.client.state())
        .stdin(Stdio::null());
    let mut client = Process::spawn("goaway-client", served.mesh.folder(), &mut command);
    client.wait_for_line("running");
    served.orders.terminate();
    assert!(client.wait_exit(Duration::from_secs(40)).success());
    let log = client.log();
    let seen: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(seen["status"], 200, "{seen}");
    assert_eq!(seen["body"], "slowdone", "{seen}");
    assert_eq!(seen["ended"], true, "{seen}");
    assert!(seen["goaway"].is_u64(), "{seen}");
    // H3_NO_ERROR
    assert_eq!(seen["closed"]["code"], 0x100, "{seen}");
    assert!(
        served
            .orders
            .process
            .wait_exit(Duration::from_secs(30))
            .success()
    );
}

#[test]
fn a_foreign_server_is_reached_like_a_sidecar() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let nobody = Origin::echo(mesh.address(), "nobody");
    let address = SocketAddr::from((mesh.address(), 6143));
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        service("store", 7000, "tcp").replace(
            "spec: {",
            "spec: { identities: [\"spiffe://demo.test/ns/shop/sa/orders\"],"
        )
    ));
    // This sidecar keeps the registration; the mesh is told the foreign server's address.
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", nobody.address)
        .serves("store:7000", nobody.address)
        .advertise(address)
        .start();
    let mut command = python_command("h3_server.py");
    command
        .args(["serve", &address.to_string(), "--identity"])
        .arg(orders.state());
    let mut server = Process::spawn("h3-server", mesh.folder(), &mut command);
    server.wait_for_line("serving");
    let mut shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .calls("store:7000")
        .start();
    shop.wait_endpoints("orders:80", 1);
    shop.wait_endpoints("store:7000", 1);
    let http = shop.listener("orders:80");

    let response = get(http, "/x").unwrap();
    assert_eq!(response.text(), "from aioquic", "{response:?}");
    assert!(server.log().contains("spiffe://demo.test/ns/shop/sa/shop"));
    assert!(
        server
            .log()
            .contains("[\"weft-service\", \"orders.shop:80\"]")
    );

    let body = "0123456789".repeat(1 << 20);
    let request = format!(
        "POST /post HTTP/1.1\r\nhost: orders\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = exchange(http, request.as_bytes()).unwrap();
    assert_eq!(response.status, 200);
    assert!(response.text() == body, "{} bytes", response.body.len());

    let request = b"POST /trailers HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-sum\r\nconnection: close, te\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 294\r\n\r\n";
    let response = exchange(http, request).unwrap();
    assert_eq!(response.trailers, [("x-sum".to_owned(), "294".to_owned())]);
    assert_eq!(get(http, "/interim").unwrap().text(), "from aioquic");

    let mut tunnel = std::net::TcpStream::connect(shop.listener("store:7000")).unwrap();
    tunnel.write_all(&[7; 100_000]).unwrap();
    tunnel.shutdown(std::net::Shutdown::Write).unwrap();
    let mut echo = Vec::new();
    io::Read::read_to_end(&mut tunnel, &mut echo).unwrap();
    assert_eq!(echo.len(), 100_000);

    // After GOAWAY the next request goes over another connection, and none fails.
    let mut keep_alive = Connection::open(http).unwrap();
    let first = keep_alive.get("/goaway").unwrap();
    eventually("another connection serves", || {
        let next = keep_alive.get("/x").unwrap();
        assert_eq!(next.status, 200, "{next:?}");
        next.header("x-connection") != first.header("x-connection")
    });

    // A client that goes away in the middle of an answer costs that stream only.
    let mut hanging = Connection::open(http).unwrap();
    hanging
        .send(b"GET /hang HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    pause(Duration::from_millis(300));
    drop(hanging);
    assert_eq!(get(http, "/x").unwrap().status, 200);
    assert_eq!(nobody.bytes(), b"");
    shop.expect_alive();
}

//! Many streams over one peer: stopped readers and thousands of tunnels do not harm the others.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::harness::{Connection, Load, Mesh, Origin, Sidecar, eventually, heavy, pause, service};

struct Pair {
    _mesh: Mesh,
    _origin: Origin,
    orders: Sidecar,
    shop: Sidecar,
}

/// An HTTP service and a TCP service behind one sidecar; `/large` never ends by itself.
fn pair(tcp: impl FnOnce(&Mesh) -> SocketAddr) -> Pair {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |request, out| {
        if request.path() != "/large" {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            return Ok(true);
        }
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")?;
        let block = vec![0; 1 << 16];
        loop {
            out.write_all(&block)?;
        }
    });
    let application = tcp(&mesh);
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
        .serves("store:7000", application)
        // More tunnels than a service may have by default are the subject here.
        .setting("concurrency: { in_flight_max: 4096 }")
        .start();
    let shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .calls("store:7000")
        .start();
    shop.wait_endpoints("orders:80", 1);
    shop.wait_endpoints("store:7000", 1);
    Pair {
        _mesh: mesh,
        _origin: origin,
        orders,
        shop,
    }
}

impl Pair {
    /// A small request from time to time, over the same peer.
    fn steady(&self) -> Load {
        Load::start(
            self.shop.listener("orders:80"),
            "/",
            2,
            Duration::from_millis(20),
        )
    }
}

fn echo(mesh: &Mesh) -> SocketAddr {
    // Thousands of connections come at once; the usual queue of 128 would lose some for a second.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from((mesh.address(), 0)).into())
        .unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let builder = thread::Builder::new().stack_size(128 << 10);
            builder
                .spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream))
                .unwrap();
        }
    });
    address
}

/// Starts a large download whose reader stops.
fn stopped_reader(address: SocketAddr) -> Connection {
    let mut connection = Connection::open(address).unwrap();
    connection
        .send(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    connection
}

#[test]
fn more_stopped_readers_than_a_connection_can_hold_lose_those_that_stopped_first() {
    let _heavy = heavy();
    let mut pair = pair(echo);
    let address = pair.shop.listener("orders:80");
    // More than fit into the window of each worker's connection.
    let stopped: Vec<Connection> = (0..400).map(|_| stopped_reader(address)).collect();
    let given_up = || {
        let connections = pair.shop.admin_json("/connections");
        let peers = connections["peers"].as_array().unwrap().iter();
        peers
            .filter_map(|peer| peer["peer"]["given_up_streams"].as_u64())
            .sum::<u64>()
    };
    eventually("streams are given up", || given_up() > 0);
    let load = pair.steady();
    pause(Duration::from_secs(5));
    let report = load.finish();
    report.expect_all_good(50);
    drop(stopped);
    pair.orders.expect_alive();
    pair.shop.expect_alive();
}

#[test]
fn a_hundred_stopped_readers_do_not_harm_other_streams() {
    let _heavy = heavy();
    let mut pair = pair(echo);
    let address = pair.shop.listener("orders:80");
    let mut stopped = Vec::new();
    for _ in 0..100 {
        let mut connection = stopped_reader(address);
        // The answer has begun; from here on it is not read.
        connection.reader().read_exact(&mut [0; 64]).unwrap();
        stopped.push(connection);
    }
    let load = pair.steady();
    pause(Duration::from_secs(5));
    let report = load.finish();
    report.expect_all_good(100);
    assert!(
        report.quantile(0.99) < Duration::from_secs(1),
        "{:?}",
        report.quantile(0.99)
    );
    // A stream beside them is complete, and one of the stopped ones goes on when it is read.
    let mut tunnel = TcpStream::connect(pair.shop.listener("store:7000")).unwrap();
    tunnel
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    tunnel.write_all(b"through?").unwrap();
    tunnel.read_exact(&mut [0; 8]).unwrap();
    let mut megabytes = vec![0; 8 << 20];
    stopped[50].reader().read_exact(&mut megabytes).unwrap();
    for sidecar in [&pair.orders, &pair.shop] {
        let resident = sidecar.process.resident();
        assert!(resident < 512 << 10, "{resident} KiB");
    }
    drop(stopped);
    pair.orders.expect_alive();
    pair.shop.expect_alive();
}

#[test]
fn two_thousand_tunnels_over_one_peer_do_not_harm_other_streams() {
    const TUNNELS: usize = 2000;
    let _heavy = heavy();
    let mut pair = pair(echo);
    let address = pair.shop.listener("store:7000");
    let load = pair.steady();
    let mut tunnels: Vec<TcpStream> = Vec::with_capacity(TUNNELS);
    for n in 0..TUNNELS {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(&(n as u64).to_be_bytes()).unwrap();
        tunnels.push(stream);
    }
    for (n, stream) in tunnels.iter_mut().enumerate() {
        let mut answer = [0; 8];
        stream
            .read_exact(&mut answer)
            .unwrap_or_else(|error| panic!("tunnel {n}: {error}"));
        assert_eq!(u64::from_be_bytes(answer), n as u64);
    }
    // All are open at once; each still carries its own bytes.
    for (n, stream) in tunnels.iter_mut().enumerate().rev() {
        let mut answer = [0; 8];
        stream.write_all(&(n as u64 + 1).to_be_bytes()).unwrap();
        stream
            .read_exact(&mut answer)
            .unwrap_or_else(|error| panic!("tunnel {n}: {error}"));
        assert_eq!(u64::from_be_bytes(answer), n as u64 + 1);
    }
    let report = load.finish_after(50);
    report.expect_all_good(50);
    assert!(
        report.quantile(0.99) < Duration::from_secs(2),
        "{:?}",
        report.quantile(0.99)
    );
    drop(tunnels);
    pair.orders.expect_alive();
    pair.shop.expect_alive();
}

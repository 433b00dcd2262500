//! Callers with little patience: the calls that they give up end in time, and do not harm other requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{
    Connection, Mesh, Origin, Shop, Sidecar, SidecarPlan, connect, get, pause, service,
};

/// Hears everything and never answers.
fn stuck(mesh: &Mesh) -> Origin {
    Origin::raw(mesh.address(), |mut tap| {
        let mut buffer = [0; 4096];
        while tap.read(&mut buffer)? > 0 {}
        Ok(())
    })
}

/// Sends a request and goes away after so long.
fn give_up(address: SocketAddr, patience: Duration) {
    let mut stream = connect(address).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n")
        .unwrap();
    pause(patience);
}

fn echo_once(tunnel: &mut TcpStream) {
    tunnel.write_all(b"still there?").unwrap();
    let mut echo = [0; 12];
    tunnel.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"still there?");
}

fn metrics(sidecar: &Sidecar) -> String {
    sidecar.admin_get("/metrics").unwrap().text()
}

#[test]
fn eight_hundred_callers_that_give_up_leave_a_tunnel_on_the_same_connection_alone() {
    let mesh = Mesh::start();
    let stuck = stuck(&mesh);
    let store = Origin::raw(mesh.address(), |mut tap| {
        let mut buffer = [0; 4096];
        loop {
            let read = tap.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            tap.write_all(&buffer[..read])?;
        }
    });
    let of_orders = "spec: { identities: [\"spiffe://demo.test/ns/shop/sa/orders\"],";
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        service("store", 7000, "tcp").replace("spec: {", of_orders)
    ));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", stuck.address)
        .serves("store:7000", store.address)
        .setting("workers: 1")
        .start();
    let mut shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .calls("store:7000")
        .setting("workers: 1")
        .start();
    shop.wait_endpoints("orders:80", 1);
    shop.wait_endpoints("store:7000", 1);
    let mut tunnel = connect(shop.listener("store:7000")).unwrap();
    echo_once(&mut tunnel);
    let to = shop.listener("orders:80");
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| (0..40).for_each(|_| give_up(to, Duration::from_millis(40))));
        }
    });
    echo_once(&mut tunnel);
    let seen = metrics(&orders) + &metrics(&shop);
    assert!(!seen.contains("weft_mesh_guards_total"), "{seen}");
    orders.expect_alive();
    shop.expect_alive();
}

#[test]
fn a_client_of_http2_whose_preface_comes_in_two_pieces_is_served() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = Shop::start(mesh, origin.address);
    let mut client = connect(shop.address).unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    pause(Duration::from_millis(100));
    // The rest, and an empty SETTINGS frame.
    client
        .write_all(b"\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let mut header = [0; 9];
    client.read_exact(&mut header).unwrap();
    assert_eq!(header[3], 0x04, "not SETTINGS: {header:?}");
}

/// `timeouts.request` of the service.
fn with_request_timeout(time: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\n\
         metadata: {{ name: impatient, namespace: shop }}\nspec:\n  \
         targetRefs: [ {{ kind: Service, name: orders }} ]\n  timeouts: {{ request: {time} }}\n"
    )
}

#[test]
fn a_request_timeout_holds_while_a_peer_that_never_answers_is_dialled() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    // Takes datagrams and says nothing.
    let mute = std::net::UdpSocket::bind((mesh.address(), 6143)).unwrap();
    let advertised = mute.local_addr().unwrap();
    let orders = |orders: SidecarPlan| orders.advertise(advertised);
    let shop = Shop::planned(mesh, "http", origin.address, orders, |shop| shop);
    shop.mesh.apply(&with_request_timeout("200ms"));
    let mut took = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = get(shop.address, "/").unwrap();
        assert_eq!(answer.status, 504, "{answer:?}");
        took.push(begun.elapsed());
    }
    // A busy machine may spoil one.
    let limit = Duration::from_millis(300);
    assert!(took.iter().any(|took| *took <= limit), "{took:?}");
    assert!(
        took.iter().all(|took| *took < Duration::from_secs(2)),
        "{took:?}"
    );
}

#[test]
fn one_caller_with_deadlines_of_five_milliseconds_puts_no_endpoint_out() {
    let mesh = Mesh::start();
    let slow = |mesh: &Mesh| {
        Origin::http(mesh.address(), |_, out| {
            pause(Duration::from_millis(30));
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(true)
        })
    };
    let (one, two) = (slow(&mesh), slow(&mesh));
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
    let to = shop.listener("orders:80");
    for _ in 0..10 {
        assert_eq!(get(to, "/").unwrap().status, 200);
    }
    let mut caller = Connection::open(to).unwrap();
    for _ in 0..200 {
        caller
            .send(b"GET / HTTP/1.1\r\nhost: orders\r\nweft-deadline: 5\r\n\r\n")
            .unwrap();
        assert_eq!(caller.receive(false).unwrap().status, 504);
    }
    let seen = metrics(&shop);
    assert!(!seen.contains("weft_lb_ejections_total"), "{seen}");
    assert_eq!(get(to, "/").unwrap().status, 200);
}

#[test]
fn a_tunnel_to_peers_that_never_answer_is_refused_after_five_seconds_in_all() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "store");
    mesh.apply(&service("store", 7000, "tcp"));
    let mutes: Vec<_> = (0..3)
        .map(|_| std::net::UdpSocket::bind((mesh.address(), 6143)).unwrap())
        .collect();
    let names = ["store-1", "store-2", "store-3"];
    let sidecars = mutes.iter().zip(names).map(|(mute, name)| {
        let plan = mesh.sidecar("store").named(name);
        let plan = plan.serves("store:7000", origin.address);
        plan.advertise(mute.local_addr().unwrap()).start()
    });
    let _sidecars: Vec<Sidecar> = sidecars.collect();
    let shop = mesh.sidecar("shop").calls("store:7000").start();
    shop.wait_endpoints("store:7000", 3);
    let begun = Instant::now();
    let mut tunnel = connect(shop.listener("store:7000")).unwrap();
    let mut byte = [0];
    assert!(!matches!(tunnel.read(&mut byte), Ok(read) if read > 0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(took < Duration::from_millis(5900), "{took:?}");
}

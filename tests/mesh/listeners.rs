//! The listeners of a sidecar: where each of them leads, in any order of the settings.

use crate::harness::{Mesh, Origin, Shop, exchange, exchange_at};

#[test]
fn a_listener_by_host_serves_every_request_whatever_stands_before_it_and_whichever_worker_has_it() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let sockets = ["first", "second", "third"].map(|name| mesh.folder().join(name));
    let [first, second, third] = &sockets;
    let shop = Shop::calling(mesh, origin.address, |shop| {
        shop.setting("workers: 2")
            .calls_by_socket("orders:80", first)
            .calls_by_socket("orders:80", second)
            .calls_by_socket("orders:80", third)
            .calls_by_host()
    });
    let by_host = shop.sidecar.by_host();
    // The port of a listener by host stands for the port of the intended service.
    let request = format!(
        "GET / HTTP/1.1\r\nhost: orders.shop:{}\r\nconnection: close\r\n\r\n",
        by_host.port()
    );
    for number in 0..40 {
        // Each connection may be the other worker's.
        let response = exchange(by_host, request.as_bytes()).unwrap();
        assert_eq!(response.status, 200, "request {number}: {response:?}");
    }
    for socket in &sockets {
        let response = exchange_at(socket, request.as_bytes()).unwrap();
        assert_eq!(response.status, 200, "{}: {response:?}", socket.display());
    }
}

//! Interim responses of servers outside of the mesh: one that declares content leaves it open where the
//! answer begins, so its connection carries no other request.

use std::io::Write as _;

use crate::egress::{addresses, external};
use crate::harness::{Mesh, Origin, Shop, get, service};

/// Requests that are sent one after the other.
const REQUESTS: usize = 10;

#[test]
fn a_connection_outside_whose_interim_response_declares_content_carries_no_other_request() {
    for (field, is_used_again) in [
        ("link: </a>; rel=preload", true),
        ("content-length: 5", false),
        ("transfer-encoding: chunked", false),
    ] {
        let mesh = Mesh::start();
        let pay = Origin::http(mesh.address(), move |_, out| {
            write!(out, "HTTP/1.1 103 Early Hints\r\n{field}\r\n\r\n")?;
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\npay")?;
            Ok(true)
        });
        let port = pay.address.port();
        let orders = Origin::echo(mesh.address(), "orders");
        let spec = external(&addresses(&[pay.address.ip()]), port, "http", "");
        mesh.apply(&format!("{}{spec}", service("orders", 80, "http")));
        let mut shop = Shop::calling(mesh, orders.address, |shop| {
            shop.calls(&format!("pay:{port}"))
        });
        let listener = shop.sidecar.listener(&format!("pay:{port}"));
        for _ in 0..REQUESTS {
            let answer = get(listener, "/").unwrap();
            assert_eq!(
                (answer.status, answer.text()),
                (200, "pay".into()),
                "{field}"
            );
        }
        // A connection may be missed that is only just given back.
        let connections = pay.connections();
        match is_used_again {
            true => assert!(connections < REQUESTS, "{field}: {connections}"),
            false => assert_eq!(connections, REQUESTS, "{field}"),
        }
        shop.expect_unharmed();
    }
}

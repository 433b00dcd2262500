//! Calls to services outside of the mesh that are under way when a policy comes to forbid them. The caller's
//! application also calls `orders`, whose requests must not notice.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::egress::{addresses, external};
use crate::harness::{Mesh, Origin, Shop, connect, eventually, read_response, service};

/// Answers `/wait` never, and of any other path one piece of what it promises.
fn slow(mesh: &Mesh) -> Origin {
    Origin::http(mesh.address(), |request, out| {
        if request.path() != "/wait" {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            write!(out, "{head}5\r\nfirst\r\n")?;
        }
        // Until the connection ends.
        while out.read(&mut [0; 64])? > 0 {}
        Ok(false)
    })
}

fn ask(shop: &Shop, port: u16, path: &str) -> TcpStream {
    let mut stream = connect(shop.sidecar.listener(&format!("pay:{port}"))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: pay.example\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[test]
fn requests_and_answers_under_way_end_when_a_policy_forbids_them() {
    let mesh = Mesh::start();
    let pay = slow(&mesh);
    let port = pay.address.port();
    let orders = Origin::echo(mesh.address(), "orders");
    let spec = external(&addresses(&[pay.address.ip()]), port, "http", "");
    let all = format!("{}{spec}", service("orders", 80, "http"));
    mesh.apply(&all);
    let mut shop = Shop::calling(mesh, orders.address, |shop| {
        shop.calls(&format!("pay:{port}"))
    });
    let mut waiting = ask(&shop, port, "/wait");
    let mut streaming = ask(&shop, port, "/stream");
    let mut heard = Vec::new();
    while !heard.ends_with(b"first\r\n") {
        let mut piece = [0; 256];
        let length = streaming.read(&mut piece).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend(&piece[..length]);
    }
    eventually("both are there", || pay.requests().len() == 2);
    let deny = "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
                metadata: { name: none, namespace: shop }\nspec:\n  \
                targetRefs: [ { kind: ExternalService, name: pay } ]\n  action: Deny\n  \
                to: [ { paths: [ \"/wait\", \"/stream\" ] } ]\n";
    shop.mesh.apply(&format!("{all}{deny}"));
    let refused = read_response(&mut std::io::BufReader::new(&mut waiting), false).unwrap();
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(
        refused.text().contains("AuthorizationPolicy/shop/none"),
        "{refused:?}"
    );
    // It breaks off: the last chunk never comes.
    let mut rest = Vec::new();
    let _ = streaming.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    shop.expect_unharmed();
}

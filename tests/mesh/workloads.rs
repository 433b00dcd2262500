//! Endpoints beyond plain registrations: weights and labels that sidecars say of themselves, and Workloads,
//! which name peers that do not register.

use std::time::Duration;

use crate::harness::{Load, Mesh, Origin, eventually, get, service};

#[test]
fn an_endpoint_gets_the_share_of_its_weight_and_callers_see_what_it_says() {
    let mesh = Mesh::start();
    let one = Origin::echo(mesh.address(), "one");
    let two = Origin::echo(mesh.address(), "two");
    // By turns, because latencies on a busy host would have a say as well.
    mesh.apply(
        &(service("orders", 80, "http")
            + "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: turns, namespace: shop }\n\
               spec: { targetRefs: [ { kind: Service, name: orders } ], balance: { algorithm: RoundRobin } }\n"),
    );
    let _first = mesh
        .sidecar("orders")
        .serves("orders:80", one.address)
        .service_setting("weight: 300, metadata: { version: v2, rack: r7 }")
        .start();
    let _second = mesh
        .sidecar("orders")
        .named("orders-2")
        .serves("orders:80", two.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 2);
    let address = shop.listener("orders:80");
    let mut first = 0;
    for _ in 0..600 {
        let response = get(address, "/").unwrap();
        assert_eq!(response.status, 200);
        first += u32::from(response.text().starts_with("one"));
    }
    // Three quarters are due.
    assert!((440..=460).contains(&first), "{first} of 600");
    let at = shop.admin().to_string();
    let shown = mesh.weft(&["endpoints", "orders", "--admin", &at]).ok();
    let of_first = shown.lines().find(|line| line.contains("version=v2"));
    let of_first = of_first.unwrap_or_else(|| panic!("{shown}"));
    assert!(
        of_first.contains(" 300 ") && of_first.contains("rack=r7"),
        "{shown}"
    );
    assert!(shown.lines().any(|line| line.contains(" 100 ")), "{shown}");
}

/// A Workload for `orders:80` at an address.
fn workload(address: &str, account: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: Workload\n\
         metadata: {{ name: cellar, namespace: shop }}\nspec:\n  address: \"{address}\"\n  \
         identity: spiffe://demo.test/ns/shop/sa/{account}\n  \
         services: [ {{ name: orders, port: 80 }} ]\n  metadata: {{ kind: legacy }}\n"
    )
}

/// The Service, which two identities may serve.
const ORDERS: &str = "---\napiVersion: weft.dev/v1alpha1\nkind: Service\n\
    metadata: { name: orders, namespace: shop }\nspec:\n  ports: [ { port: 80, protocol: http } ]\n  \
    identities: [ \"spiffe://demo.test/ns/shop/sa/orders\", \"spiffe://demo.test/ns/shop/sa/other\" ]\n";

#[test]
fn a_workload_makes_a_peer_reachable_that_is_not_registered_and_only_as_the_identity_that_it_names()
{
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let other = Origin::echo(mesh.address(), "carts");
    mesh.apply(&(ORDERS.to_owned() + &service("carts", 80, "http")));
    // It is never registered, as its check asks where no program listens.
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .service_setting("health: { kind: tcp, port: 1 }")
        .start();
    let _carts = mesh
        .sidecar("carts")
        .serves("carts:80", other.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").calls("carts:80");
    let shop = shop.start();
    shop.wait_endpoints("carts:80", 1);
    let bystander = Load::start(shop.listener("carts:80"), "/", 2, Duration::from_millis(20));
    let address = shop.listener("orders:80");
    assert_eq!(get(address, "/").unwrap().status, 503);

    let at = orders.mesh_address().to_string();
    mesh.apply(&workload(&at, "orders"));
    shop.wait_endpoints("orders:80", 1);
    let response = get(address, "/").unwrap();
    assert_eq!(response.status, 200, "{response:?}");
    let admin = shop.admin().to_string();
    let shown = mesh.weft(&["endpoints", "orders", "--admin", &admin]).ok();
    assert!(
        shown.contains("Workload/shop/cellar") && shown.contains("kind=legacy"),
        "{shown}"
    );
    let listed = mesh.weft(&["get", "workloads"]).ok();
    assert!(listed.contains(&at), "{listed}");

    // The peer that answers there has to prove the identity that the operator names.
    let seen = origin.requests().len();
    mesh.apply(&workload(&at, "other"));
    eventually("the peer is refused", || {
        let response = get(address, "/").unwrap();
        response.status == 502 && response.text().contains("proved to be")
    });
    let after = origin.requests().len();
    assert_eq!(get(address, "/").unwrap().status, 502);
    assert_eq!(origin.requests().len(), after, "nothing arrives there");
    assert!(seen <= after);

    // A Service that does not let the identity serve takes no such Workload.
    let refused = mesh.try_apply(&workload(&at, "stranger"));
    assert_ne!(refused.code, 0);
    let said = refused.stdout + &refused.stderr;
    assert!(said.contains("may not serve Service orders"), "{said}");
    mesh.weft(&["delete", "Workload/shop/cellar"]).ok();
    shop.wait_endpoints("orders:80", 0);
    bystander.finish().expect_all_good(10);
}

#[test]
fn a_workload_that_is_registered_too_is_one_endpoint_and_apply_says_so() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(ORDERS);
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let at = orders.mesh_address().to_string();
    let applied = mesh.try_apply(&workload(&at, "orders"));
    let said = applied.stdout + &applied.stderr;
    assert_eq!(applied.code, 0, "{said}");
    assert!(
        said.contains("has registered") && said.contains(&at),
        "{said}"
    );
    shop.wait_endpoints("orders:80", 1);
    let admin = shop.admin().to_string();
    let shown = mesh.weft(&["endpoints", "orders", "--admin", &admin]).ok();
    assert!(!shown.contains("Workload/shop/cellar"), "{shown}");
    let wrong = mesh.try_apply(&workload(&at, "other"));
    let said = wrong.stdout + &wrong.stderr;
    assert!(
        said.contains("callers refuse a peer that proves another identity"),
        "{said}"
    );
}

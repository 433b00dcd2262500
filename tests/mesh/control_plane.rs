//! The admin endpoints of the control plane.

use crate::harness::{Mesh, Origin, eventually, service};

#[test]
fn the_ca_and_the_config_service_tell_their_numbers() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    for page in [mesh.ca_page("/live"), mesh.config_page("/ready")] {
        assert_eq!(page.status, 200);
    }
    // The config service, the operator and the sidecar have joined.
    let page = mesh.ca_page("/metrics").text();
    assert!(page.contains("\nweft_ca_signed_total 3\n"), "{page}");
    assert!(page.contains("weft_ca_refused_total{reason="), "{page}");
    eventually("the sidecar runs the revision and serves", || {
        let page = mesh.config_page("/metrics").text();
        [
            "weft_config_store_revision 1",
            "weft_config_sidecars_connected 1",
            "weft_config_sidecars_behind 0",
            "weft_config_workloads_registered 1",
        ]
        .iter()
        .all(|line| page.lines().any(|other| other == *line))
    });
}

//! The mesh of most tests: `orders`, which an application serves, and `shop`, which calls it.

use std::net::SocketAddr;

use super::http;
use super::mesh::{Mesh, service};
use super::sidecar::{Sidecar, SidecarPlan};

/// Two sidecars, and an application behind the first.
pub(crate) struct Shop {
    /// Where the second one's application calls `orders:80`.
    pub(crate) address: SocketAddr,
    pub(crate) orders: Sidecar,
    pub(crate) sidecar: Sidecar,
    pub(crate) mesh: Mesh,
}

impl Shop {
    /// With `application` behind `orders`, over HTTP/1.1.
    pub(crate) fn start(mesh: Mesh, application: impl ToString) -> Self {
        Self::calling(mesh, application, |shop| shop)
    }

    /// With settings of the caller's.
    pub(crate) fn calling(
        mesh: Mesh,
        application: impl ToString,
        shop: impl FnOnce(SidecarPlan) -> SidecarPlan,
    ) -> Self {
        Self::planned(mesh, "http", application, |orders| orders, shop)
    }

    /// With a protocol of the port, and settings of both sidecars.
    pub(crate) fn planned(
        mesh: Mesh,
        protocol: &str,
        application: impl ToString,
        orders: impl FnOnce(SidecarPlan) -> SidecarPlan,
        shop: impl FnOnce(SidecarPlan) -> SidecarPlan,
    ) -> Self {
        mesh.apply(&service("orders", 80, protocol));
        let served = mesh.sidecar("orders").serves("orders:80", application);
        let orders = orders(served).start();
        let sidecar = shop(mesh.sidecar("shop").calls("orders:80")).start();
        sidecar.wait_endpoints("orders:80", 1);
        Self {
            address: sidecar.listener("orders:80"),
            orders,
            sidecar,
            mesh,
        }
    }

    /// Both sidecars are alive, and a request still gets its answer.
    #[track_caller]
    pub(crate) fn expect_unharmed(&mut self) {
        self.orders.expect_alive();
        self.sidecar.expect_alive();
        let response = http::get(self.address, "/").unwrap();
        assert_eq!(response.status, 200, "{response:?}");
    }
}

//! The leases of workloads, and the time after a start in which not every workload has registered again.
//! Pure: time is an argument. A lease is defined in `registry.rs`.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::server::registry::{Inbound, Registry, Workload};
use crate::server::withdrawn::Withdrawn;
use crate::table::Locality;

#[derive(Debug)]
pub(super) struct Leases {
    pub(super) registry: Registry,
    settling: Option<Settling>,
}

#[derive(Debug)]
struct Settling {
    /// When workloads that did not register again are given up.
    until: Instant,
    withdrawn: Arc<Withdrawn>,
}

impl Leases {
    /// No leases; until `settles`, if given, workloads may exist that have to register again.
    pub(super) fn new(settles: Option<Instant>) -> Self {
        Self {
            registry: Registry::default(),
            settling: settles.map(|until| Settling {
                until,
                withdrawn: Arc::default(),
            }),
        }
    }

    /// The endpoints withdrawn since the start, while not every workload has registered again.
    pub(super) fn settling(&self) -> Option<Arc<Withdrawn>> {
        let settling = self.settling.as_ref();
        settling.map(|settling| Arc::clone(&settling.withdrawn))
    }

    /// The services that a sidecar reports. Returns whether that changed anything.
    pub(super) fn report(
        &mut self,
        workload: &Workload,
        address: SocketAddr,
        locality: Option<Locality>,
        inbound: Arc<Inbound>,
        now: Instant,
    ) -> bool {
        let withdrawn = self.withdraw(workload, address, &inbound);
        let registry = &mut self.registry;
        registry.report(workload, address, locality, inbound, now) || withdrawn
    }

    /// A service that a sidecar reports as not served is withdrawn at once, also before all workloads have
    /// registered again.
    fn withdraw(&mut self, workload: &Workload, address: SocketAddr, inbound: &Inbound) -> bool {
        let Some(settling) = &mut self.settling else {
            return false;
        };
        let mut withdrawn = Withdrawn::clone(&settling.withdrawn);
        let changed = withdrawn.note(&workload.identity, address, inbound);
        if changed {
            settling.withdrawn = Arc::new(withdrawn);
        }
        changed
    }

    /// Ends leases and the time of settling. Returns whether that changed anything.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let ended = self.registry.expire(now);
        let settled = self.settling.take_if(|one| one.until <= now);
        ended || settled.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LEASE;

    #[test]
    fn a_service_that_started_settles_for_a_lease_and_takes_withdrawals_at_once() {
        let now = Instant::now();
        let mut leases = Leases::new(Some(now + LEASE));
        let workload = Workload {
            identity: "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap(),
            instance: "a".into(),
        };
        let down = Inbound::from([(("orders.shop".parse().unwrap(), 80), false.into())]);
        let address = "10.0.0.1:6143".parse().unwrap();
        let before = leases.settling().unwrap();
        assert!(leases.report(&workload, address, None, Arc::new(down), now));
        assert_ne!(leases.settling().unwrap(), before);
        assert!(leases.expire(now + LEASE), "the lease and the settling end");
        assert_eq!(leases.settling(), None);
        assert!(!leases.expire(now + LEASE));
    }
}

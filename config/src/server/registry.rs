//! Who serves what, as leases in memory. Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::time::Instant;
use weft_transport::identity::SpiffeId;

use crate::compile::{Endpoints, Plan};
use crate::limits;
use crate::table::{Endpoint, Locality, ServiceName};

/// What a sidecar says that it serves, with the health of each application.
pub(super) type Inbound = BTreeMap<(ServiceName, u16), bool>;

/// One process: its proven identity and the name it gave itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Workload {
    pub(super) identity: SpiffeId,
    pub(super) instance: String,
}

#[derive(Debug)]
struct Lease {
    address: SocketAddr,
    locality: Option<Locality>,
    inbound: Inbound,
    expires: Instant,
}

/// All registrations.
#[derive(Debug, Default)]
pub(super) struct Registry {
    leases: BTreeMap<Workload, Lease>,
}

impl Registry {
    /// Takes a report and renews the lease; an empty one ends it. Returns whether anything changed.
    /// A process that took the address of another of its identity is its successor and replaces it.
    pub(super) fn report(
        &mut self,
        workload: &Workload,
        address: SocketAddr,
        locality: Option<Locality>,
        inbound: Inbound,
        now: Instant,
    ) -> bool {
        if inbound.is_empty() {
            return self.leases.remove(workload).is_some();
        }
        let before = self.leases.len();
        self.leases.retain(|other, lease| {
            other == workload || other.identity != workload.identity || lease.address != address
        });
        let mut changed = self.leases.len() != before;
        let expires = now + limits::LEASE;
        match self.leases.get_mut(workload) {
            Some(lease) => {
                changed |= lease.address != address
                    || lease.inbound != inbound
                    || lease.locality != locality;
                *lease = Lease {
                    address,
                    locality,
                    inbound,
                    expires,
                };
            }
            None => {
                changed = true;
                self.leases.insert(
                    workload.clone(),
                    Lease {
                        address,
                        locality,
                        inbound,
                        expires,
                    },
                );
            }
        }
        changed
    }

    /// How many leases are valid.
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Drops leases that ended. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.leases.len();
        self.leases.retain(|_, lease| lease.expires > now);
        self.leases.len() != before
    }

    /// Healthy endpoints of services and ports that exist and that the identity may serve.
    pub(super) fn endpoints(&self, plan: &Plan) -> Endpoints {
        let mut endpoints = Endpoints::new();
        for (workload, lease) in &self.leases {
            for ((service, port), healthy) in &lease.inbound {
                let allowed = plan.may_serve(&workload.identity, service) == Some(true);
                if *healthy && allowed && plan.has_port(service, *port) {
                    endpoints
                        .entry((service.clone(), *port))
                        .or_default()
                        .push(Endpoint {
                            workload: workload.instance.clone(),
                            address: lease.address,
                            identity: workload.identity.clone(),
                            locality: lease.locality.clone(),
                        });
                }
            }
        }
        for list in endpoints.values_mut() {
            list.sort();
        }
        endpoints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(instance: &str) -> Workload {
        let identity = "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap();
        Workload {
            identity,
            instance: instance.into(),
        }
    }

    fn inbound(healthy: bool) -> Inbound {
        Inbound::from([(("orders.shop".parse().unwrap(), 80), healthy)])
    }

    #[test]
    fn a_lease_that_is_not_renewed_ends() {
        let (mut registry, start) = (Registry::default(), Instant::now());
        let address = "10.0.0.1:6143".parse().unwrap();
        assert!(registry.report(&workload("a"), address, None, inbound(true), start));
        let later = start + limits::LEASE_RENEWAL;
        assert!(!registry.report(&workload("a"), address, None, inbound(true), later));
        assert!(!registry.expire(start + limits::LEASE));
        assert!(registry.expire(later + limits::LEASE));
    }

    #[test]
    fn a_successor_at_the_same_address_replaces_its_predecessor() {
        let (mut registry, now) = (Registry::default(), Instant::now());
        let address = "10.0.0.1:6143".parse().unwrap();
        registry.report(&workload("a"), address, None, inbound(true), now);
        assert!(registry.report(&workload("b"), address, None, inbound(true), now));
        assert_eq!(registry.leases.len(), 1);
    }

    #[test]
    fn an_empty_report_ends_the_lease_and_health_counts_as_change() {
        let (mut registry, now) = (Registry::default(), Instant::now());
        let address = "10.0.0.1:6143".parse().unwrap();
        registry.report(&workload("a"), address, None, inbound(false), now);
        assert!(registry.report(&workload("a"), address, None, inbound(true), now));
        assert!(registry.report(&workload("a"), address, None, Inbound::new(), now));
        assert!(registry.leases.is_empty());
    }
}

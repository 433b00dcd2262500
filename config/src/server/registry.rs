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

    /// What a workload with a valid lease serves of what exists and what its identity may serve, and whether
    /// its application accepts connections.
    pub(super) fn serves<'a>(
        &'a self,
        workload: &'a Workload,
        plan: &'a Plan,
    ) -> impl Iterator<Item = (&'a (ServiceName, u16), bool)> {
        let lease = self.leases.get(workload);
        let inbound = lease.into_iter().flat_map(|lease| &lease.inbound);
        inbound
            .filter(|((service, port), _)| {
                plan.may_serve(&workload.identity, service) == Some(true)
                    && plan.has_port(service, *port)
            })
            .map(|(one, healthy)| (one, *healthy))
    }

    /// Healthy endpoints of services and ports that exist and that the identity may serve.
    pub(super) fn endpoints(&self, plan: &Plan) -> Endpoints {
        let mut endpoints = Endpoints::new();
        for (workload, lease) in &self.leases {
            for (one, healthy) in self.serves(workload, plan) {
                if healthy {
                    endpoints.entry(one.clone()).or_default().push(Endpoint {
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
    use crate::resources::{Set, SourceFile, parse};
    use crate::table::Revision;

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
    fn what_is_served_is_what_a_valid_lease_says_of_what_exists() {
        let text = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: orders, namespace: shop}\n\
                    spec: {ports: [{port: 80, protocol: http}]}\n";
        let parsed = parse(&[SourceFile {
            name: "mesh.yaml".into(),
            text: text.into(),
        }]);
        let mut set = Set::default();
        parsed.resources.into_iter().for_each(|one| set.insert(one));
        let revision = Revision {
            store: "s".into(),
            number: 1,
        };
        let plan = Plan::new(revision, "demo.test".parse().unwrap(), &set);
        let (mut registry, now) = (Registry::default(), Instant::now());
        let (own, address) = (workload("a"), "10.0.0.1:6143".parse().unwrap());
        let mut reported = inbound(false);
        reported.insert(("carts.shop".parse().unwrap(), 80), true);
        registry.report(&own, address, None, reported, now);
        let serves = |registry: &Registry| -> Vec<_> {
            let serves = registry.serves(&own, &plan);
            serves
                .map(|((name, port), up)| (format!("{name}:{port}"), up))
                .collect()
        };
        assert_eq!(serves(&registry), [("orders.shop:80".to_owned(), false)]);
        registry.expire(now + limits::LEASE);
        assert!(serves(&registry).is_empty());
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

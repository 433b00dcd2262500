//! Which workloads serve which ports, as leases in memory. Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use weft_transport::identity::SpiffeId;

use crate::compile::{Endpoints, Plan, Served};
use crate::limits;
use crate::table::{Absence, Details, Endpoint, Locality, ServiceName};

/// The services that a sidecar reports.
pub(super) type Inbound = BTreeMap<(ServiceName, u16), Reported>;

/// What it reports of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    /// Whether the application is healthy.
    pub(super) healthy: bool,
    /// What the sidecar says of itself there.
    pub(super) details: Details,
    /// Why the application is not healthy, if the sidecar says so.
    pub(super) problem: String,
}

impl From<bool> for Reported {
    fn from(healthy: bool) -> Self {
        Self {
            healthy,
            ..Self::default()
        }
    }
}

/// One process: its proven identity and the name that it gave itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Workload {
    pub(super) identity: SpiffeId,
    pub(super) instance: String,
}

#[derive(Debug)]
struct Lease {
    address: SocketAddr,
    locality: Option<Locality>,
    inbound: Arc<Inbound>,
    expires: Instant,
}

/// All registrations.
#[derive(Debug, Default)]
pub(super) struct Registry {
    leases: BTreeMap<Workload, Lease>,
    /// Which instance of an identity has an address.
    holders: BTreeMap<(SpiffeId, SocketAddr), String>,
    /// The last workload that served each port with permission, and how that ended if it did. At most one for
    /// each port that exists.
    last: BTreeMap<(ServiceName, u16), (SpiffeId, Absence)>,
}

impl Registry {
    /// Takes a report and renews the lease; an empty report ends it. Returns whether anything changed. A
    /// process at the address of another process of its identity is the successor, and replaces it. An
    /// identity that has as many leases as are allowed loses the one that would end first.
    pub(super) fn report(
        &mut self,
        workload: &Workload,
        address: SocketAddr,
        locality: Option<Locality>,
        inbound: Arc<Inbound>,
        now: Instant,
    ) -> bool {
        if inbound.is_empty() {
            return self.remove(workload, Absence::Withdrawn);
        }
        let holder = (workload.identity.clone(), address);
        let mut changed = false;
        if let Some(instance) = self.holders.get(&holder)
            && *instance != workload.instance
        {
            let predecessor = Workload {
                identity: workload.identity.clone(),
                instance: instance.clone(),
            };
            changed |= self.remove(&predecessor, Absence::Withdrawn);
        }
        match self.leases.get(workload) {
            Some(lease) => {
                changed |= lease.address != address
                    || lease.inbound != inbound
                    || lease.locality != locality;
                if lease.address != address {
                    self.remove(workload, Absence::Withdrawn);
                }
            }
            None => {
                changed = true;
                self.make_room(&workload.identity);
            }
        }
        self.holders.insert(holder, workload.instance.clone());
        self.leases.insert(
            workload.clone(),
            Lease {
                address,
                locality,
                inbound,
                expires: now + limits::LEASE,
            },
        );
        changed
    }

    fn remove(&mut self, workload: &Workload, how: Absence) -> bool {
        let Some(lease) = self.leases.remove(workload) else {
            return false;
        };
        for one in lease.inbound.keys() {
            if let Some((last, ended)) = self.last.get_mut(one)
                && *last == workload.identity
            {
                *ended = how;
            }
        }
        let holder = (workload.identity.clone(), lease.address);
        if self.holders.get(&holder) == Some(&workload.instance) {
            self.holders.remove(&holder);
        }
        true
    }

    fn make_room(&mut self, identity: &SpiffeId) {
        let from = Workload {
            identity: identity.clone(),
            instance: String::new(),
        };
        let of_identity = || {
            self.leases
                .range(&from..)
                .take_while(|(workload, _)| workload.identity == *identity)
        };
        if of_identity().count() < limits::SUBSCRIBERS_PER_IDENTITY_MAX {
            return;
        }
        let first = of_identity().min_by_key(|(_, lease)| lease.expires);
        if let Some(workload) = first.map(|(workload, _)| workload.clone()) {
            self.remove(&workload, Absence::Lost);
        }
    }

    /// How many leases are valid.
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Drops leases that ended. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let ended = self.leases.iter().filter(|(_, lease)| lease.expires <= now);
        let ended: Vec<Workload> = ended.map(|(workload, _)| workload.clone()).collect();
        for workload in &ended {
            self.remove(workload, Absence::Lost);
        }
        !ended.is_empty()
    }

    /// The existing services that a workload with a valid lease serves and may serve, and whether its
    /// application is healthy.
    pub(super) fn serves<'a>(
        &'a self,
        workload: &'a Workload,
        plan: &'a Plan,
    ) -> impl Iterator<Item = (&'a (ServiceName, u16), &'a Reported)> {
        let lease = self.leases.get(workload);
        let inbound = lease.into_iter().flat_map(|lease| lease.inbound.as_ref());
        inbound.filter(|((service, port), _)| {
            plan.may_serve(&workload.identity, service) == Some(true)
                && plan.has_port(service, *port)
        })
    }

    /// The identities of the workloads that registered under an address, with or without permission.
    pub(super) fn at(&self, address: SocketAddr) -> impl Iterator<Item = &SpiffeId> {
        let at = move |(_, lease): &(&Workload, &Lease)| lease.address == address;
        self.leases
            .iter()
            .filter(at)
            .map(|(workload, _)| &workload.identity)
    }

    /// Healthy endpoints of services and ports that exist and that the identity may serve, with those that
    /// Workload resources name; if there are none, the reason.
    pub(super) fn endpoints(&mut self, plan: &Plan) -> Endpoints {
        self.last
            .retain(|(service, port), _| plan.has_port(service, *port));
        let mut found = Endpoints::new();
        let mut serve = Vec::new();
        for (workload, lease) in &self.leases {
            for (one, reported) in self.serves(workload, plan) {
                if self
                    .last
                    .get(one)
                    .is_none_or(|(last, _)| *last != workload.identity)
                {
                    serve.push((one.clone(), workload.identity.clone()));
                }
                let served = found.entry(one.clone()).or_default();
                if reported.healthy {
                    served.endpoints.push(Endpoint {
                        workload: workload.instance.clone(),
                        address: lease.address,
                        identity: workload.identity.clone(),
                        locality: lease.locality.clone(),
                        details: reported.details.clone(),
                    });
                }
            }
        }
        for (one, identity) in serve {
            self.last.insert(one, (identity, Absence::Never));
        }
        for (one, endpoint) in plan.workloads() {
            let served = found.entry(one.clone()).or_default();
            let is_it = |other: &Endpoint| {
                other.address == endpoint.address && other.identity == endpoint.identity
            };
            // One that registers as well is known better by what it says itself.
            if !served.endpoints.iter().any(is_it) {
                served.endpoints.push(endpoint.clone());
            }
        }
        for served in found.values_mut() {
            served.endpoints.sort();
            if served.endpoints.is_empty() {
                served.absence = Absence::Down;
            }
        }
        for (one, (_, absence)) in &self.last {
            if !found.contains_key(one) {
                let absence = *absence;
                let endpoints = Vec::new();
                found.insert(one.clone(), Served { endpoints, absence });
            }
        }
        found
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

    fn inbound(healthy: bool) -> Arc<Inbound> {
        Arc::new(Inbound::from([(
            ("orders.shop".parse().unwrap(), 80),
            healthy.into(),
        )]))
    }

    const MESH: &str = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: orders, namespace: shop}\n\
                        spec: {ports: [{port: 80, protocol: http}]}\n";

    fn plan() -> Plan {
        plan_of(MESH)
    }

    fn plan_of(text: &str) -> Plan {
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
        Plan::new(revision, "demo.test".parse().unwrap(), &set)
    }

    #[test]
    fn the_reasons_for_a_port_without_endpoints_are_told_apart() {
        let (plan, mut registry, now) = (plan(), Registry::default(), Instant::now());
        let port = ("orders.shop".parse().unwrap(), 80);
        let why = |registry: &mut Registry| {
            let served = registry.endpoints(&plan).remove(&port).unwrap_or_default();
            (served.endpoints.len(), served.absence)
        };
        let address = "10.0.0.1:6143".parse().unwrap();
        let report = |registry: &mut Registry, instance: &str, inbound, now| {
            registry.report(&workload(instance), address, None, inbound, now);
        };
        assert_eq!(why(&mut registry), (0, Absence::Never));
        report(&mut registry, "a", inbound(false), now);
        assert_eq!(why(&mut registry), (0, Absence::Down));
        report(&mut registry, "a", inbound(true), now);
        assert_eq!(why(&mut registry), (1, Absence::Never));
        report(&mut registry, "a", Arc::default(), now);
        assert_eq!(why(&mut registry), (0, Absence::Withdrawn));
        report(&mut registry, "b", inbound(true), now);
        assert_eq!(why(&mut registry), (1, Absence::Never));
        registry.expire(now + limits::LEASE);
        assert_eq!(why(&mut registry), (0, Absence::Lost));
        // Reports of a workload that may not serve it change nothing.
        let stranger = Workload {
            identity: "spiffe://demo.test/ns/shop/sa/stranger".parse().unwrap(),
            instance: "c".into(),
        };
        registry.report(&stranger, address, None, inbound(true), now);
        assert_eq!(why(&mut registry), (0, Absence::Lost));
        registry.report(&stranger, address, None, Arc::default(), now);
        assert_eq!(why(&mut registry), (0, Absence::Lost));
    }

    #[test]
    fn a_workload_is_there_without_a_lease_and_one_that_registers_counts_in_its_place() {
        let workload_at = |address: &str| {
            format!(
                "{MESH}---\napiVersion: weft.dev/v1alpha1\nkind: Workload\n\
                 metadata: {{name: cellar, namespace: shop}}\nspec:\n  address: \"{address}\"\n  \
                 identity: spiffe://demo.test/ns/shop/sa/orders\n  \
                 services: [{{name: orders, port: 80}}]\n"
            )
        };
        let plan = plan_of(&workload_at("10.0.0.1:6143"));
        let port = ("orders.shop".parse().unwrap(), 80);
        let (mut registry, now) = (Registry::default(), Instant::now());
        let names = |registry: &mut Registry| -> Vec<String> {
            let served = registry.endpoints(&plan).remove(&port).unwrap_or_default();
            assert_eq!(served.absence, Absence::Never);
            let endpoints = served.endpoints.into_iter();
            endpoints.map(|one| one.workload).collect()
        };
        let cellar = "Workload/shop/cellar";
        assert_eq!(names(&mut registry), [cellar]);
        let (elsewhere, same) = ("10.0.0.2:6143", "10.0.0.1:6143");
        let report = |registry: &mut Registry, address: &str, up| {
            let address = address.parse().unwrap();
            registry.report(&workload("a"), address, None, inbound(up), now);
        };
        report(&mut registry, elsewhere, true);
        assert_eq!(names(&mut registry), [cellar, "a"]);
        report(&mut registry, same, true);
        assert_eq!(names(&mut registry), ["a"]);
        assert_eq!(registry.at(same.parse().unwrap()).count(), 1);
        // The operator's word holds where the sidecar itself does not register.
        report(&mut registry, same, false);
        assert_eq!(names(&mut registry), [cellar]);
    }

    #[test]
    fn what_is_served_is_what_a_valid_lease_says_of_what_exists() {
        let plan = plan();
        let (mut registry, now) = (Registry::default(), Instant::now());
        let (own, address) = (workload("a"), "10.0.0.1:6143".parse().unwrap());
        let mut reported = Inbound::clone(&inbound(false));
        reported.insert(("carts.shop".parse().unwrap(), 80), true.into());
        registry.report(&own, address, None, Arc::new(reported), now);
        let serves = |registry: &Registry| -> Vec<_> {
            let serves = registry.serves(&own, &plan);
            serves
                .map(|((name, port), said)| (format!("{name}:{port}"), said.healthy))
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
        assert!(registry.report(&workload("a"), address, None, Arc::default(), now));
        assert!(registry.leases.is_empty() && registry.holders.is_empty());
    }

    #[test]
    fn an_identity_that_registers_ever_new_instances_has_a_bounded_number_of_leases() {
        let (mut registry, now) = (Registry::default(), Instant::now());
        let mut address: SocketAddr = "10.0.0.1:1".parse().unwrap();
        for n in 0..limits::SUBSCRIBERS_PER_IDENTITY_MAX + 50 {
            address.set_port(u16::try_from(n + 1).unwrap());
            let later = now + std::time::Duration::from_millis(u64::try_from(n).unwrap());
            registry.report(
                &workload(&n.to_string()),
                address,
                None,
                inbound(true),
                later,
            );
        }
        assert_eq!(registry.len(), limits::SUBSCRIBERS_PER_IDENTITY_MAX);
        assert_eq!(registry.holders.len(), registry.len());
        assert!(!registry.leases.contains_key(&workload("0")));
    }

    #[test]
    fn a_workload_that_moves_holds_only_its_new_address() {
        let (mut registry, now) = (Registry::default(), Instant::now());
        for address in ["10.0.0.1:6143", "10.0.0.2:6143"] {
            let address = address.parse().unwrap();
            assert!(registry.report(&workload("a"), address, None, inbound(true), now));
        }
        assert_eq!((registry.len(), registry.holders.len()), (1, 1));
    }
}

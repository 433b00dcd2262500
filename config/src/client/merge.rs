//! How tables and changes of them are merged. Pure; `held.rs` says which table a sidecar should run.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_transport::identity::TrustDomain;

use crate::compile::Served;
use crate::table::{Absence, Endpoint, Port, Revision, ServiceName, Table};

/// Endpoints of some ports; each list is complete.
pub(super) type Changes = BTreeMap<(ServiceName, u16), Served>;

/// Why a table is not even offered to the sidecar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotOffered {
    #[error("the table is for trust domain {0}")]
    TrustDomain(TrustDomain),
    #[error("revision {offered} is older than {held}, which this sidecar has")]
    Older { offered: Revision, held: Revision },
}

/// Compares an offered table with the one that is held. A revision of another store is accepted: the store
/// was restored, which the caller reports.
pub(super) fn check(
    own: &TrustDomain,
    offered: &Table,
    held: Option<&Table>,
) -> Result<(), NotOffered> {
    if offered.trust_domain != *own {
        return Err(NotOffered::TrustDomain(offered.trust_domain.clone()));
    }
    match held {
        Some(held)
            if held.revision.store == offered.revision.store
                && held.revision.number > offered.revision.number =>
        {
            Err(NotOffered::Older {
                offered: offered.revision.clone(),
                held: held.revision.clone(),
            })
        }
        Some(_) | None => Ok(()),
    }
}

/// The table with the endpoints of some ports replaced; ports that it does not have are skipped.
pub(super) fn apply(table: &Table, changes: &Changes) -> Table {
    let mut table = table.clone();
    for ((name, number), served) in changes {
        if let Some(service) = table.services.get_mut(name)
            && service.ports.contains_key(number)
            && let Some(port) = Arc::make_mut(service).ports.get_mut(number)
        {
            port.endpoints.clone_from(&served.endpoints);
            port.absence = served.absence;
        }
    }
    table
}

/// The table with, at each port, the endpoints that only `known` has. While the config service settles after
/// a restart, a missing workload may simply not have registered again yet.
pub(super) fn keep_endpoints(table: &Table, known: &Table) -> Table {
    let mut table = table.clone();
    for (name, service) in &mut table.services {
        let Some(old) = known.services.get(name) else {
            continue;
        };
        let missing = |number: &u16, list: &[Endpoint]| -> Vec<Endpoint> {
            let old = old
                .ports
                .get(number)
                .into_iter()
                .flat_map(|port| &port.endpoints);
            old.filter(|old| !list.iter().any(|new| new.address == old.address))
                .cloned()
                .collect()
        };
        if service
            .ports
            .iter()
            .all(|(number, port)| missing(number, &port.endpoints).is_empty())
        {
            continue;
        }
        for (number, port) in &mut Arc::make_mut(service).ports {
            let kept = missing(number, &port.endpoints);
            port.endpoints.extend(kept);
            port.endpoints.sort();
        }
    }
    table
}

/// The table with the endpoints that `newer` has at the same ports: endpoints do not depend on the revision.
pub(super) fn with_endpoints_of(table: &Table, newer: &Table) -> Table {
    let mut table = table.clone();
    for (name, service) in &mut table.services {
        let Some(news) = newer.services.get(name) else {
            continue;
        };
        let is_same = |(number, port): (&u16, &Port)| {
            let new = news.ports.get(number);
            new.is_none_or(|new| new.endpoints == port.endpoints && new.absence == port.absence)
        };
        if service.ports.iter().all(is_same) {
            continue;
        }
        for (number, port) in &mut Arc::make_mut(service).ports {
            if let Some(new) = news.ports.get(number) {
                port.endpoints.clone_from(&new.endpoints);
                port.absence = new.absence;
            }
        }
    }
    table
}

/// The table without some endpoints, each known by its address and identity.
pub(super) fn without(table: &Table, withdrawn: &[((ServiceName, u16), Endpoint)]) -> Table {
    let mut table = table.clone();
    for ((name, number), gone) in withdrawn {
        let is_gone = |one: &Endpoint| one.address == gone.address && one.identity == gone.identity;
        if let Some(service) = table.services.get_mut(name)
            && let Some(port) = service.ports.get(number)
            && port.endpoints.iter().any(is_gone)
            && let Some(port) = Arc::make_mut(service).ports.get_mut(number)
        {
            port.endpoints.retain(|one| !is_gone(one));
            if port.endpoints.is_empty() {
                port.absence = Absence::Withdrawn;
            }
        }
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::table::{Details, Protocol, Service};

    pub(crate) fn endpoint(address: &str) -> Endpoint {
        Endpoint {
            workload: "w".into(),
            address: address.parse().unwrap(),
            identity: "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap(),
            locality: None,
            details: Details::default(),
        }
    }

    pub(crate) fn table(number: u64, addresses: &[&str]) -> Table {
        let endpoints = addresses.iter().map(|address| endpoint(address)).collect();
        let port = Port {
            h2c: false,
            protocol: Protocol::Http,
            routes: Vec::new(),
            endpoints,
            absence: crate::table::Absence::default(),
            traffic: crate::table::Traffic::default(),
        };
        let service = Service {
            external: None,
            ports: BTreeMap::from([(80, port)]),
            authorization: None,
        };
        Table {
            schema: crate::table::Schema,
            revision: Revision {
                store: "s".into(),
                number,
            },
            trust_domain: "demo.test".parse().unwrap(),
            services: BTreeMap::from([("orders.shop".parse().unwrap(), Arc::new(service))]),
            egress: crate::table::Egress::default(),
            closed_hosts: std::collections::BTreeSet::new(),
            forbidden: std::collections::BTreeMap::new(),
            session_keys: std::collections::BTreeMap::new(),
        }
    }

    pub(crate) fn addresses(table: &Table) -> Vec<String> {
        let endpoints = table
            .services
            .values()
            .flat_map(|service| &service.ports[&80].endpoints);
        endpoints
            .map(|endpoint| endpoint.address.to_string())
            .collect()
    }

    #[test]
    fn an_older_revision_of_the_same_store_and_another_mesh_are_refused() {
        let own = "demo.test".parse().unwrap();
        let held = table(5, &[]);
        assert!(matches!(
            check(&own, &table(4, &[]), Some(&held)),
            Err(NotOffered::Older { .. })
        ));
        assert_eq!(check(&own, &table(5, &[]), Some(&held)), Ok(()));
        let mut restored = table(1, &[]);
        restored.revision.store = "other".into();
        assert_eq!(check(&own, &restored, Some(&held)), Ok(()));
        let own = "other.test".parse().unwrap();
        assert!(matches!(
            check(&own, &table(6, &[]), None),
            Err(NotOffered::TrustDomain(_))
        ));
    }

    #[test]
    fn a_change_replaces_one_port_and_skips_unknown_ones() {
        let changes = Changes::from([
            (
                ("orders.shop".parse().unwrap(), 80),
                vec![endpoint("10.0.0.2:1")].into(),
            ),
            (
                ("gone.shop".parse().unwrap(), 80),
                vec![endpoint("10.0.0.3:1")].into(),
            ),
        ]);
        assert_eq!(
            addresses(&apply(&table(1, &["10.0.0.1:1"]), &changes)),
            ["10.0.0.2:1"]
        );
    }

    #[test]
    fn a_withdrawal_takes_out_the_endpoint_of_that_identity_alone() {
        let both = table(1, &["10.0.0.1:1", "10.0.0.2:1"]);
        let port = ("orders.shop".parse().unwrap(), 80);
        let gone = endpoint("10.0.0.1:1");
        assert_eq!(
            addresses(&without(&both, &[(port.clone(), gone.clone())])),
            ["10.0.0.2:1"]
        );
        let other = Endpoint {
            identity: "spiffe://demo.test/ns/shop/sa/other".parse().unwrap(),
            ..gone
        };
        assert_eq!(without(&both, &[(port, other)]), both);
    }

    #[test]
    fn known_endpoints_stay_while_the_service_settles() {
        let kept = keep_endpoints(
            &table(2, &["10.0.0.2:1"]),
            &table(1, &["10.0.0.1:1", "10.0.0.2:1"]),
        );
        assert_eq!(addresses(&kept), ["10.0.0.1:1", "10.0.0.2:1"]);
        assert_eq!(kept.revision.number, 2);
    }
}

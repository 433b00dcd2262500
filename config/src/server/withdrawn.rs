//! Endpoints that withdrew themselves while the service settles after its start. Sidecars then keep the
//! endpoints that they knew, because a missing workload may simply not have registered again; a workload that
//! reports that it does not serve is not missing. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use weft_transport::identity::SpiffeId;

use super::registry::Inbound;
use crate::limits;
use crate::proto;
use crate::table::{Details, Endpoint, ServiceName, Table};

/// By identity, the ports that it reported as not served, and their addresses. A report counts only for its
/// own identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Withdrawn(BTreeMap<SpiffeId, BTreeSet<(ServiceName, u16, SocketAddr)>>);

impl Withdrawn {
    /// The reports of a sidecar at that address. Returns whether they bring a change.
    pub(super) fn note(
        &mut self,
        identity: &SpiffeId,
        address: SocketAddr,
        inbound: &Inbound,
    ) -> bool {
        let mut any = false;
        let own = self.0.entry(identity.clone()).or_default();
        for ((service, port), reported) in inbound {
            let one = (service.clone(), *port, address);
            any |= if reported.healthy {
                own.remove(&one)
            } else {
                own.len() < limits::WITHDRAWN_PER_IDENTITY_MAX && own.insert(one)
            };
        }
        any
    }

    /// The withdrawn endpoints at the ports of a table, for the sidecar that has it.
    pub(super) fn of(&self, table: &Table) -> Vec<proto::PortEndpoints> {
        let mut ports: BTreeMap<(&ServiceName, u16), Vec<proto::Endpoint>> = BTreeMap::new();
        for (identity, own) in &self.0 {
            for (service, port, address) in own {
                for at in ports_of(table, service, *port) {
                    let endpoint = Endpoint {
                        workload: String::new(),
                        address: *address,
                        identity: identity.clone(),
                        locality: None,
                        details: Details::default(),
                    };
                    ports.entry(at).or_default().push((&endpoint).into());
                }
            }
        }
        let message =
            |((service, port), endpoints): ((&ServiceName, u16), _)| proto::PortEndpoints {
                service: service.to_string(),
                port: port.into(),
                endpoints,
                absence: proto::Absence::Withdrawn.into(),
            };
        ports.into_iter().map(message).collect()
    }
}

/// The ports of a table that have the endpoints of this one: itself, and those of services outside of the
/// mesh that are sent through it.
fn ports_of<'t>(
    table: &'t Table,
    service: &ServiceName,
    port: u16,
) -> impl Iterator<Item = (&'t ServiceName, u16)> {
    let own = table.services.get_key_value(service);
    let own = own.filter(|(_, known)| known.ports.contains_key(&port));
    let own = own.map(|(name, _)| (name, port));
    let sent = table.services.iter().flat_map(move |(name, known)| {
        let external = known.external.as_ref();
        let via = external.and_then(|external| external.via.as_ref());
        let via = via.filter(|via| via.service == *service);
        let ports = via.into_iter().flat_map(|via| &via.ports);
        let ports = ports.filter(move |(_, through)| **through == port);
        ports.map(move |(number, _)| (name, *number))
    });
    own.into_iter().chain(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound(port: u16, healthy: bool) -> Inbound {
        Inbound::from([(("orders.shop".parse().unwrap(), port), healthy.into())])
    }

    #[test]
    fn a_withdrawal_counts_until_the_same_workload_takes_it_back_and_is_news_once() {
        let identity = "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap();
        let address = "10.0.0.1:6143".parse().unwrap();
        let mut withdrawn = Withdrawn::default();
        assert!(!withdrawn.note(&identity, address, &inbound(80, true)));
        assert!(withdrawn.note(&identity, address, &inbound(80, false)));
        assert!(!withdrawn.note(&identity, address, &inbound(80, false)));
        let elsewhere = "10.0.0.2:6143".parse().unwrap();
        assert!(!withdrawn.note(&identity, elsewhere, &inbound(80, true)));
        assert!(withdrawn.note(&identity, address, &inbound(80, true)));
    }

    #[test]
    fn an_identity_that_withdraws_ever_more_takes_a_bounded_room() {
        let identity = "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap();
        let mut withdrawn = Withdrawn::default();
        for port in 1..=u16::MAX {
            let address = SocketAddr::from(([10, 0, 0, 1], port));
            withdrawn.note(&identity, address, &inbound(80, false));
        }
        assert_eq!(
            withdrawn.0[&identity].len(),
            limits::WITHDRAWN_PER_IDENTITY_MAX
        );
    }
}

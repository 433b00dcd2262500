//! The endpoints of a port, with what an earlier snapshot knows of them: those that a table names, and the
//! addresses of what is outside of the mesh. Pure.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use weft_config::table::{self, Details, Locality};
use weft_transport::pool::Target;

use crate::application::outside::Outside;
use crate::cluster::{ByRoute, Cluster, Endpoint, Lasting, Place};
use crate::outside::OutsideService;
use crate::outside::names::Answers;
use crate::resilience::balance;
use crate::resilience::destination::Destinations;
use crate::resilience::standing::Standing;

/// What clusters are made with.
pub(super) struct Making<'a> {
    pub(super) destinations: &'a Destinations,
    pub(super) here: Option<&'a Locality>,
    pub(super) now: Instant,
}

impl Making<'_> {
    /// The cluster of a port with these endpoints, of which `known` has the state.
    pub(super) fn cluster(
        &self,
        label: Arc<str>,
        port: &table::Port,
        (named, absence): (Vec<Named>, table::Absence),
        known: Option<&Cluster>,
    ) -> Cluster {
        let lasting = known.map(|one| Arc::clone(&one.lasting));
        let lasting = lasting.unwrap_or_default();
        let endpoints = endpoints(named, known, &lasting, self.here, self.now);
        let budget = &port.traffic.retry_budget;
        let destination = self.destinations.get(&label, budget, self.now);
        Cluster::new(
            label,
            port.protocol,
            port.traffic.clone(),
            (endpoints, absence),
            destination,
            lasting,
        )
    }
}

/// An endpoint that a table or a resolver names.
pub(super) struct Named {
    place: Place,
    workload: Box<str>,
    details: Details,
    locality: Option<Locality>,
    /// Distinguishes it in hashes, whatever its address is.
    name: String,
}

/// The endpoint of a sidecar of the mesh.
pub(super) fn peer(endpoint: &table::Endpoint) -> Named {
    Named {
        place: Place::Peer(Target {
            address: endpoint.address,
            identity: endpoint.identity.clone(),
        }),
        workload: endpoint.workload.as_str().into(),
        details: endpoint.details.clone(),
        locality: endpoint.locality.clone(),
        name: format!("{} {}", endpoint.identity, endpoint.workload),
    }
}

/// The addresses of a service outside of the mesh: those of the table, or those that its name leads to.
/// Connections stay where nothing changed.
pub(super) fn outside(
    service: &Arc<OutsideService>,
    port: u16,
    known: Option<&Cluster>,
    answers: &Answers,
) -> Vec<Named> {
    let external = &service.external;
    let tls = external.tls.get(&port);
    let addresses = match external.addresses.is_empty() {
        true => answers.of(service.host()),
        false => &external.addresses,
    };
    let named = addresses.iter().map(|address| {
        let address = (*address, port).into();
        let kept = known.and_then(|known| {
            known.endpoints.iter().find_map(|one| match &one.place {
                Place::Outside(outside) if outside.is(service, address, tls) => {
                    Some(Arc::clone(outside))
                }
                Place::Outside(_) | Place::Peer(_) => None,
            })
        });
        let fresh = || Arc::new(Outside::new(Arc::clone(service), address, tls.cloned()));
        Named {
            place: Place::Outside(kept.unwrap_or_else(fresh)),
            workload: service.host().into(),
            details: Details::default(),
            locality: None,
            name: address.to_string(),
        }
    });
    named.collect()
}

/// Endpoints, with what is known of them.
fn endpoints(
    named: Vec<Named>,
    known: Option<&Cluster>,
    lasting: &Lasting,
    here: Option<&Locality>,
    now: Instant,
) -> Vec<Endpoint> {
    let before: HashMap<(SocketAddr, &str), &Endpoint> = known
        .into_iter()
        .flat_map(|cluster| &cluster.endpoints)
        .map(|endpoint| {
            (
                (endpoint.place.address(), endpoint.place.identity()),
                endpoint,
            )
        })
        .collect();
    // The first endpoints need no slow start, because there are no older ones.
    let joined = (!before.is_empty()).then_some(now);
    let endpoints = named.into_iter().map(|one| {
        let standing = match before.get(&(one.place.address(), one.place.identity())) {
            Some(known) => Arc::clone(&known.standing),
            None => {
                let name = balance::hash(one.name.as_bytes());
                Arc::new(Standing::new(name, joined, Arc::clone(&lasting.out)))
            }
        };
        Endpoint {
            place: one.place,
            workload: one.workload,
            details: one.details,
            distance: match (here, &one.locality) {
                (Some(here), Some(there)) => here.distance(there),
                (_, _) => Locality::FARTHEST,
            },
            standing,
            counted: ByRoute::default(),
        }
    });
    endpoints.collect()
}

//! The endpoints of a cluster by the names that tokens of sessions have for them
//! ([`weft_config::table::EndpointName`]). Made at the first token that asks, as most clusters have no
//! sessions. Pure.

use std::collections::HashMap;
use std::sync::OnceLock;

use weft_config::table::EndpointName;

use super::{Endpoint, Place};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Named(OnceLock<Places>);

#[derive(Debug, Default)]
struct Places {
    by_process: HashMap<u64, usize>,
    by_address: HashMap<u64, usize>,
}

impl Named {
    /// The place of the endpoint with that name: the process, or what runs at its address since.
    pub(crate) fn find(
        &self,
        label: &str,
        endpoints: &[Endpoint],
        name: EndpointName,
    ) -> Option<usize> {
        let places = self.0.get_or_init(|| {
            let mut places = Places::default();
            for (place, endpoint) in endpoints.iter().enumerate() {
                let name = name_of(label, endpoint);
                places.by_process.entry(name.process).or_insert(place);
                places.by_address.entry(name.address).or_insert(place);
            }
            places
        });
        let process = places.by_process.get(&name.process);
        process
            .or_else(|| places.by_address.get(&name.address))
            .copied()
    }
}

/// The name of an endpoint of the cluster with that label.
pub(crate) fn name_of(label: &str, endpoint: &Endpoint) -> EndpointName {
    let place = &endpoint.place;
    let address = place.address();
    match place {
        Place::Peer(_) => EndpointName::new(label, place.identity(), &endpoint.workload, address),
        // All addresses of a name outside of the mesh have that name.
        Place::Outside(_) => EndpointName::new(label, "", &address.to_string(), address),
    }
}

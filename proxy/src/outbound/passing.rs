//! Names outside of the mesh that no ExternalService names, where the mesh lets them pass
//! (`MeshConfig.spec.egress`).
//!
//! One cluster for each name and port that was asked for lately, with one endpoint: its name is resolved at
//! each dial, and only a public address is dialled. All count under one label, as requests invent names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use weft_config::table::{Absence, Details, Egress, External, Locality, Protocol, Traffic};
use weft_transport::limited_log::LimitedLog;
use weft_transport::locks::lock;

use crate::application::outside::Outside;
use crate::cluster::{ByRoute, Cluster, Endpoint, Lasting, Place};
use crate::limits;
use crate::outside::OutsideService;
use crate::resilience::balance;
use crate::resilience::destination::Destinations;
use crate::resilience::standing::Standing;
use crate::visible::{cut, escape};

/// The label of all calls that pass so.
const LABEL: &str = "outside";

/// Those of one worker.
#[derive(Default)]
pub(crate) struct Passing {
    clusters: Mutex<HashMap<(String, u16), Used>>,
}

struct Used {
    cluster: Arc<Cluster>,
    at: Instant,
}

impl Passing {
    /// The cluster of a name and port. The one that was not used for the longest time makes room.
    pub(crate) fn cluster(
        &self,
        (host, port): (&str, u16),
        destinations: &Destinations,
        now: Instant,
    ) -> Arc<Cluster> {
        let mut clusters = lock(&self.clusters);
        let key = (host.to_owned(), port);
        if let Some(used) = clusters.get_mut(&key) {
            used.at = now;
            return Arc::clone(&used.cluster);
        }
        if clusters.len() >= limits::PASSING_NAMES_MAX {
            let oldest = clusters.iter().min_by_key(|(_, used)| used.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                clusters.remove(&oldest);
            }
        }
        let cluster = Arc::new(make(host, port, destinations, now));
        let at = now;
        clusters.insert(
            key,
            Used {
                cluster: Arc::clone(&cluster),
                at,
            },
        );
        cluster
    }

    /// Drops all of them.
    pub(crate) fn clear(&self) {
        lock(&self.clusters).clear();
    }

    /// Drops connections that were idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        for used in lock(&self.clusters).values() {
            for endpoint in &used.cluster.endpoints {
                if let Place::Outside(outside) = &endpoint.place {
                    outside.sweep(now);
                }
            }
        }
    }
}

/// Says that a call passed which `Deny` would refuse.
pub(crate) fn observed(log: &LimitedLog, egress: Egress, authority: &str) {
    if egress == Egress::Observe {
        log.log(|left_out| {
            tracing::warn!(
                authority = %escape(&cut(authority, limits::PASSING_LOGGED_BYTES_MAX)), left_out,
                "a request leaves the mesh that egress: Deny would refuse: add an ExternalService for it"
            );
        });
    }
}

fn make(host: &str, port: u16, destinations: &Destinations, now: Instant) -> Cluster {
    let traffic = Traffic::default();
    let lasting = Arc::new(Lasting::default());
    let service = Arc::new(OutsideService {
        name: None,
        external: Arc::new(External {
            hosts: vec![host.to_owned()],
            ..External::default()
        }),
    });
    let name = balance::hash(host.as_bytes());
    let endpoint = Endpoint {
        place: Place::Outside(Arc::new(Outside::by_name(Arc::clone(&service), port))),
        workload: host.into(),
        details: Details::default(),
        distance: Locality::FARTHEST,
        standing: Arc::new(Standing::new(name, None, Arc::clone(&lasting.out))),
        counted: ByRoute::default(),
    };
    let label: Arc<str> = Arc::from(LABEL);
    let destination = destinations.get(&label, &traffic.retry_budget, now);
    let endpoints = (vec![endpoint], Absence::default());
    Cluster::new(
        label,
        Protocol::Http,
        traffic,
        endpoints,
        destination,
        lasting,
    )
    .of_outside(Some(service))
}

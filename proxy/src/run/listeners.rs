//! The listeners of a sidecar for TCP and Unix sockets: those of its application, and those for callers
//! without mutual TLS. How each gets its sockets is in `bind.rs`.

use std::sync::Arc;

use weft_config::settings::{LocalAddress, ProxySettings};

use super::bind::{self, LeadsTo};
use super::{RunError, destination};
use crate::inbound::served::ServedService;
use crate::outbound::route::Destination;
use crate::takeover::OfferedSockets;

/// One listener, bound.
pub(super) struct Listener {
    pub(super) leads_to: LeadsTo,
    pub(super) bound: bind::Bound,
}

impl Listener {
    /// Its address and destination, if it is one of the application.
    pub(super) fn of_application(&self) -> Option<(LocalAddress, Destination)> {
        match &self.leads_to {
            LeadsTo::Mesh(destination) => Some((self.bound.address.clone(), destination.clone())),
            LeadsTo::Application(_) => None,
        }
    }
}

/// Takes or binds all listeners of the settings. `services` are those that they serve, in their order.
pub(super) fn all(
    settings: &ProxySettings,
    namespace: &str,
    services: &[Arc<ServedService>],
    workers: usize,
    mut offered: Option<&mut OfferedSockets>,
) -> Result<Vec<Listener>, RunError> {
    let mut listeners = Vec::new();
    for (number, listener) in settings.outbound.iter().enumerate() {
        let offered = offered.as_deref_mut();
        let bound = bind::outbound(&listener.listen, number, workers, offered)?;
        let leads_to = destination(&listener.target, namespace, bound.port())?;
        listeners.push(Listener {
            leads_to: LeadsTo::Mesh(leads_to),
            bound,
        });
    }
    let inbound = settings.inbound.iter().flat_map(|one| &one.services);
    for (service, served) in inbound.zip(services) {
        let Some(listen) = service.plaintext else {
            continue;
        };
        let bound = bind::plaintext(listen, workers, offered.as_deref_mut())?;
        if let LocalAddress::Tcp(address) = &bound.address {
            served.plaintext.listen_at(*address);
        }
        listeners.push(Listener {
            leads_to: LeadsTo::Application(Arc::clone(served)),
            bound,
        });
    }
    Ok(listeners)
}

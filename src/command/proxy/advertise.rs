//! The address at which peers reach this sidecar, found at the start and looked for again while it
//! runs: hosts move, and a sidecar that went on registering its old address would be lost to its peers.
//!
//! Only finds it; the subscription (`weft_config::client`) registers it.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use weft_config::settings::{HostPort, ProxySettings};

use crate::failure::{Code, Failure};

/// How often the route to the config service is asked for, in wall time: callers of a host that moved
/// wait for this. It is a system call without a packet.
const ROUTE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the name in `inbound.advertise` is resolved again: as long as short-lived records are kept.
const NAME_INTERVAL: Duration = Duration::from_secs(10);

/// The address to register, with what it takes to find it again.
pub(super) struct Advertise {
    source: Source,
    address: watch::Sender<Option<SocketAddr>>,
}

enum Source {
    /// Nothing is served, or the address was written down.
    Fixed,
    /// What `inbound.advertise` names.
    Name(HostPort),
    /// The route to the config service, for a wildcard listener at this port.
    Route { towards: SocketAddr, port: u16 },
}

impl Advertise {
    /// Finds the address at the start.
    pub(super) async fn find(
        settings: &ProxySettings,
        config: &[HostPort],
    ) -> Result<Self, Failure> {
        let Some(inbound) = &settings.inbound else {
            return Ok(Self::new(Source::Fixed, None));
        };
        if let Some(name) = &inbound.advertise {
            let address = lookup(name).await.into_iter().next().ok_or_else(|| {
                Failure::new(
                    Code::Failed,
                    format!("inbound.advertise: {name} has no address: write an IP address, or a name that resolves here"),
                )
            })?;
            return Ok(Self::new(Source::Name(name.clone()), Some(address)));
        }
        if !inbound.listen.ip().is_unspecified() {
            return Ok(Self::new(Source::Fixed, Some(inbound.listen)));
        }
        let port = inbound.listen.port();
        for one in config {
            if let Some(&towards) = lookup(one).await.first()
                && let Some(address) = route_to(towards, port)
            {
                tracing::info!(advertise = %address, "peers are told the address of the route to the config service");
                return Ok(Self::new(Source::Route { towards, port }, Some(address)));
            }
        }
        Err(Failure::new(
            Code::BadData,
            "inbound.listen is a wildcard: write inbound.advertise (--advertise), the address at which other sidecars reach this one",
        ))
    }

    fn new(source: Source, address: Option<SocketAddr>) -> Self {
        Self {
            source,
            address: watch::Sender::new(address),
        }
    }

    /// The address, and each that it changes to.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.subscribe()
    }

    /// Looks again and again; returns at once if nothing can change. While nothing is found, the host
    /// being between two networks, the last address stays.
    pub(super) async fn follow(self) {
        loop {
            let found = match &self.source {
                Source::Fixed => return,
                Source::Name(name) => {
                    sleep(NAME_INTERVAL).await;
                    let found = lookup(name).await;
                    let current = *self.address.borrow();
                    // A name may have several addresses, in another order each time.
                    let stays = current.is_some_and(|current| found.contains(&current));
                    if stays {
                        current
                    } else {
                        found.first().copied()
                    }
                }
                Source::Route { towards, port } => {
                    sleep(ROUTE_INTERVAL).await;
                    route_to(*towards, *port)
                }
            };
            self.address.send_if_modified(|address| {
                let moved = found.is_some() && found != *address;
                if moved {
                    tracing::info!(from = ?*address, to = ?found, "the address at which peers reach this sidecar changed");
                    *address = found;
                }
                moved
            });
        }
    }
}

async fn lookup(name: &HostPort) -> Vec<SocketAddr> {
    tokio::net::lookup_host((name.host.as_str(), name.port))
        .await
        .map(Iterator::collect)
        .unwrap_or_default()
}

/// The local address that packets to `towards` leave from, with `port`; connecting UDP sends nothing.
fn route_to(towards: SocketAddr, port: u16) -> Option<SocketAddr> {
    let any: SocketAddr = if towards.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(towards).ok()?;
    let local = socket.local_addr().ok()?;
    Some(SocketAddr::new(local.ip(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_to_loopback_leaves_from_loopback() {
        let found = route_to(([127, 0, 0, 1], 9).into(), 6143).unwrap();
        assert!(found.ip().is_loopback());
        assert_eq!(found.port(), 6143);
    }
}

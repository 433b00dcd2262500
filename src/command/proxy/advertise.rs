//! The address at which peers reach this sidecar. It is found at the start and looked up again while the
//! sidecar runs, because hosts move: a sidecar that kept registering its old address would be lost to its
//! peers.
//!
//! This file only finds it; the subscription (`weft_config::client`) registers it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use weft_config::settings::{HostPort, ProxySettings};

use crate::failure::{Code, Failure};

/// How often the route to the config service is looked up, in wall time: callers of a host that moved wait
/// this long. It is a system call without a packet.
const ROUTE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the name in `inbound.advertise` is resolved again: as long as short-lived records are cached.
const NAME_INTERVAL: Duration = Duration::from_secs(10);

/// The address to register, and the way to find it again.
pub(super) struct Advertise {
    source: Source,
    address: watch::Sender<Option<SocketAddr>>,
}

enum Source {
    /// The sidecar serves nothing, or the settings give the address.
    Fixed,
    /// The name in `inbound.advertise`, for a listener.
    Name { name: HostPort, listen: SocketAddr },
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
            let found = lookup(name).await;
            let address = preferred(&found, inbound.listen).ok_or_else(|| {
                Failure::new(
                    Code::Failed,
                    format!("inbound.advertise: {name} has no address: write an IP address, or a name that resolves here"),
                )
            })?;
            check_scope("inbound.advertise", address)?;
            let source = Source::Name {
                name: name.clone(),
                listen: inbound.listen,
            };
            return Ok(Self::new(source, Some(address)));
        }
        let listen = inbound.listen;
        if !listen.ip().is_unspecified() {
            check_scope("inbound.listen", listen)?;
            return Ok(Self::new(Source::Fixed, Some(listen)));
        }
        let mut other_family = None;
        for one in config {
            for towards in lookup(one).await {
                if !reaches(listen, towards) {
                    other_family = Some(one);
                } else if let Some(address) = route_to(towards, listen.port()) {
                    tracing::info!(advertise = %address, "peers are told the address of the route to the config service");
                    let port = listen.port();
                    return Ok(Self::new(Source::Route { towards, port }, Some(address)));
                }
            }
        }
        Err(Failure::new(
            Code::BadData,
            match other_family {
                Some(config) => format!(
                    "inbound.listen {listen} is of IPv4 only, and the config service {config} of IPv6, so the route to it does not say where other sidecars reach this one: write inbound.listen: \"[::]:{}\" for both families, or inbound.advertise (--advertise)",
                    listen.port()
                ),
                None => format!(
                    "inbound.listen is a wildcard, and there is no route to the config service ({}) that says where other sidecars reach this one: correct config.addresses (--server), or write inbound.advertise (--advertise)",
                    config
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            },
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

    /// Looks it up at intervals; returns at once if the address cannot change. While no address is found,
    /// because the host is between two networks, the last one stays.
    pub(super) async fn follow(self) {
        loop {
            let found = match &self.source {
                Source::Fixed => return,
                Source::Name { name, listen } => {
                    sleep(NAME_INTERVAL).await;
                    let found = lookup(name).await;
                    let current = *self.address.borrow();
                    // A name may have several addresses, in another order each time.
                    let stays = current.is_some_and(|current| found.contains(&current));
                    if stays {
                        current
                    } else {
                        preferred(&found, *listen)
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

/// Whether a listener can be reached at an address of the family of `other`: `[::]` takes both.
fn reaches(listen: SocketAddr, other: SocketAddr) -> bool {
    listen.is_ipv6() && listen.ip().is_unspecified()
        || listen.ip().to_canonical().is_ipv4() == other.ip().to_canonical().is_ipv4()
}

/// The first address of a name of a family that the listener has. An address that the settings give is used
/// as it is, because a gateway may translate it.
fn preferred(found: &[SocketAddr], listen: SocketAddr) -> Option<SocketAddr> {
    let fits = found.iter().find(|address| reaches(listen, **address));
    fits.or(found.first()).copied()
}

/// Other hosts cannot use a link-local address: its zone is valid on this host only.
fn check_scope(setting: &str, address: SocketAddr) -> Result<(), Failure> {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => Err(Failure::new(
            Code::BadData,
            format!(
                "{setting}: other sidecars cannot reach {address}, which is link-local: write inbound.advertise (--advertise), an address that they can reach"
            ),
        )),
        SocketAddr::V4(_) | SocketAddr::V6(_) => Ok(()),
    }
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
    let local = socket.local_addr().ok()?.ip().to_canonical();
    let is_link_local = matches!(local, IpAddr::V6(v6) if v6.is_unicast_link_local());
    (!is_link_local).then(|| SocketAddr::new(local, port))
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

    #[test]
    fn what_is_advertised_is_of_a_family_that_is_listened_on() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let both = [parse("[fd00::1]:1"), parse("10.0.0.1:1")];
        for (listen, expected) in [
            ("0.0.0.0:6143", both[1]),
            ("10.0.0.1:6143", both[1]),
            ("[::]:6143", both[0]),
            ("[fd00::1]:6143", both[0]),
        ] {
            assert_eq!(preferred(&both, parse(listen)), Some(expected), "{listen}");
        }
        assert!(reaches(parse("[::]:1"), both[1]));
        assert!(!reaches(parse("0.0.0.0:1"), both[0]));
        assert!(!reaches(parse("[fd00::1]:1"), both[1]));
    }

    #[test]
    fn a_link_local_address_is_not_advertised() {
        let listen = "[fe80::1%2]:6143".parse().unwrap();
        let refused = check_scope("inbound.listen", listen).unwrap_err();
        assert!(
            refused.line.contains("inbound.advertise"),
            "{}",
            refused.line
        );
    }
}

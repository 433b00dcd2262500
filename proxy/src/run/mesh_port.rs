//! Takes the mesh port: from the kernel, or from the predecessor. Not here: which process reads it when
//! ([`weft_transport::endpoint::Reading`]).

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use weft_transport::endpoint::{self, EarlierProcess, Inherited, MeshSettings};
use weft_transport::identity::SpiffeId;
use weft_transport::wire::Port;
#[cfg(feature = "testing")]
use weft_transport::wire::memory::Network;

use super::RunError;
use crate::takeover::TakeoverError;

/// The wire that carries the mesh.
pub(super) enum Carrier {
    Udp,
    #[cfg(feature = "testing")]
    Memory(Network),
}

/// Each worker's part of the mesh port.
#[cfg_attr(
    not(feature = "testing"),
    expect(unused_variables, reason = "a socket has no identity")
)]
pub(super) fn ports(
    carrier: Carrier,
    settings: &MeshSettings,
    identity: &SpiffeId,
    inherited: Option<(Vec<OwnedFd>, Vec<EarlierProcess>)>,
) -> Result<Vec<Port>, RunError> {
    let sockets = match (carrier, inherited) {
        #[cfg(feature = "testing")]
        (Carrier::Memory(network), _) => {
            return Ok(vec![network.port(settings.listen, identity)]);
        }
        (Carrier::Udp, Some((sockets, elders))) => {
            let inherited = Inherited {
                sockets: sockets.into_iter().map(UdpSocket::from).collect(),
                elders,
            };
            endpoint::inherit(settings, inherited).map_err(TakeoverError::from)?
        }
        (Carrier::Udp, None) => endpoint::bind(settings)?,
    };
    Ok(sockets.into_iter().map(Port::from).collect())
}

/// Duplicates of the sockets of the mesh side, for a successor.
pub(super) fn share(ports: &[Port]) -> io::Result<Vec<UdpSocket>> {
    ports
        .iter()
        .filter_map(|port| port.share().transpose())
        .collect()
}

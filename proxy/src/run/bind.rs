//! Takes the listeners of the application, one socket per worker on each TCP port, one for a Unix path: from
//! the predecessor, if it has them, else from the kernel.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use weft_config::settings::LocalAddress;
use weft_transport::private_socket::{is_answered, socket_at};

use super::RunError;
use crate::inbound::served::ServedService;
use crate::limits;
use crate::outbound::route::Destination;
use crate::takeover::OfferedSockets;

/// A bound socket that no runtime owns yet.
pub(super) enum Unowned {
    /// One of several on its port.
    Tcp(TcpListener),
    /// The only one on its path.
    Unix(UnixListener),
}

impl Unowned {
    /// A duplicate of the socket, for a successor.
    fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener) => listener.as_fd().try_clone_to_owned(),
        }
    }
}

/// Where the connections of a listener lead.
#[derive(Clone)]
pub(super) enum LeadsTo {
    /// Out into the mesh: calls of the application.
    Mesh(Destination),
    /// To the application: calls without mutual TLS.
    Application(Arc<ServedService>),
}

/// One listener of the settings with all its sockets.
pub(super) struct Bound {
    /// As the settings name it.
    wanted: LocalAddress,
    /// The address that was bound.
    pub(super) address: LocalAddress,
    /// One entry for each worker; empty if another worker has the only socket.
    sockets: Vec<Option<Unowned>>,
}

impl Bound {
    /// The port, where it has one.
    pub(super) fn port(&self) -> Option<u16> {
        match &self.address {
            LocalAddress::Tcp(address) => Some(address.port()),
            LocalAddress::Unix(_) => None,
        }
    }

    /// The socket of one worker, if it has one.
    pub(super) fn take(&mut self, worker: usize) -> Option<Unowned> {
        self.sockets.get_mut(worker)?.take()
    }

    /// Its address in the settings, with duplicates of all its sockets. To be called before the sockets are
    /// taken.
    pub(super) fn share(&self) -> io::Result<(LocalAddress, Vec<OwnedFd>)> {
        let sockets = self.sockets.iter().flatten().map(Unowned::share);
        Ok((self.wanted.clone(), sockets.collect::<io::Result<_>>()?))
    }
}

/// Takes or binds the outbound listener with this number in the settings for `workers`.
pub(super) fn outbound(
    wanted: &LocalAddress,
    number: usize,
    workers: usize,
    inherited: Option<&mut OfferedSockets>,
) -> Result<Bound, RunError> {
    let purpose = "for the application (outbound.listeners, or --outbound)";
    listener((wanted, purpose), number, workers, inherited)
}

/// The same for callers without mutual TLS.
pub(super) fn plaintext(
    wanted: SocketAddr,
    workers: usize,
    inherited: Option<&mut OfferedSockets>,
) -> Result<Bound, RunError> {
    let purpose = "for callers without mutual TLS (inbound.services[].plaintext_listen)";
    listener((&LocalAddress::Tcp(wanted), purpose), 0, workers, inherited)
}

fn listener(
    (wanted, purpose): (&LocalAddress, &'static str),
    number: usize,
    workers: usize,
    inherited: Option<&mut OfferedSockets>,
) -> Result<Bound, RunError> {
    let failed = |error| RunError::Listen {
        address: wanted.to_string(),
        purpose,
        error,
    };
    let taken = inherited.and_then(|offered| take(&mut offered.listeners, wanted));
    let (address, sockets) = match wanted {
        LocalAddress::Tcp(at) => {
            let sockets: Vec<TcpListener> = match taken {
                Some(taken) => taken.into_iter().map(TcpListener::from).collect(),
                None => tcp_listeners(*at, workers).map_err(failed)?,
            };
            let address = sockets.first().map_or(Ok(*at), TcpListener::local_addr);
            let sockets = sockets.into_iter().map(|one| Some(Unowned::Tcp(one)));
            (
                LocalAddress::Tcp(address.map_err(failed)?),
                sockets.collect(),
            )
        }
        LocalAddress::Unix(path) => {
            let socket = match taken.and_then(|mut taken| taken.pop()) {
                Some(taken) => UnixListener::from(taken),
                None => unix(path).map_err(failed)?,
            };
            let mut sockets: Vec<_> = (0..workers).map(|_| None).collect();
            // They take turns, so that no worker has all of them.
            if let Some(place) = sockets.get_mut(number % workers.max(1)) {
                *place = Some(Unowned::Unix(socket));
            }
            (wanted.clone(), sockets)
        }
    };
    Ok(Bound {
        wanted: wanted.clone(),
        address,
        sockets,
    })
}

fn take(
    listeners: &mut Vec<(LocalAddress, Vec<OwnedFd>)>,
    wanted: &LocalAddress,
) -> Option<Vec<OwnedFd>> {
    let index = listeners.iter().position(|(at, _)| at == wanted)?;
    Some(listeners.remove(index).1)
}

fn tcp_listeners(wanted: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // SO_REUSEPORT would silently share the port with another sidecar of this user, so a socket without it
    // tries first.
    let address = tcp(wanted, false).and_then(|socket| local_address(&socket))?;
    let sockets = (0..workers).map(|_| {
        let socket = tcp(address, true)?;
        socket.listen(limits::BACKLOG.cast_signed())?;
        Ok(socket.into())
    });
    sockets.collect()
}

/// Takes or binds a TCP listener of the admin endpoint.
pub(super) fn admin(
    address: SocketAddr,
    purpose: &'static str,
    inherited: Option<&mut OfferedSockets>,
) -> Result<tokio::net::TcpListener, RunError> {
    let taken = inherited.and_then(|offered| {
        let index = offered.admin.iter().position(|(at, _)| *at == address)?;
        Some(offered.admin.remove(index).1)
    });
    let bind = || {
        let socket: TcpListener = match taken {
            Some(socket) => socket.into(),
            None => {
                let socket = tcp(address, false)?;
                socket.listen(limits::ADMIN_BACKLOG)?;
                socket.into()
            }
        };
        tokio::net::TcpListener::from_std(socket)
    };
    bind().map_err(|error: io::Error| RunError::Listen {
        address: address.to_string(),
        purpose,
        error,
    })
}

fn tcp(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    // A restarted sidecar binds while connections of the old one are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

fn unix(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        // A socket that no process answers was left by a killed process. Another kind of file stays.
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && socket_at(path)?.is_some()
                && !is_answered(path) =>
        {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        outcome => outcome?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;

    const ANY: LocalAddress =
        LocalAddress::Tcp(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)));

    #[test]
    fn workers_share_a_tcp_port_that_no_other_process_may_take() {
        let mut bound = outbound(&ANY, 0, 2, None).unwrap();
        assert!(outbound(&bound.address, 0, 2, None).is_err());
        assert!(bound.take(0).is_some() && bound.take(1).is_some());
        assert!(bound.take(0).is_none() && bound.take(2).is_none());
    }

    #[test]
    fn a_leftover_unix_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let address = LocalAddress::Unix(path);
        let mut bound = outbound(&address, 3, 2, None).unwrap();
        assert!(bound.take(0).is_none());
        let live = bound.take(1);
        assert!(live.is_some());
        assert!(outbound(&address, 3, 2, None).is_err());
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        std::fs::write(&path, "mine").unwrap();
        let address = LocalAddress::Unix(path.clone());
        assert!(outbound(&address, 0, 1, None).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn what_was_inherited_is_used_and_the_rest_is_bound() {
        let folder = tempfile::tempdir().unwrap();
        let unix = LocalAddress::Unix(folder.path().join("s"));
        let old = [&unix, &ANY].map(|at| outbound(at, 0, 2, None).unwrap());
        let mut offered = OfferedSockets {
            mesh: None,
            listeners: old.iter().map(|one| one.share().unwrap()).collect(),
            admin: Vec::new(),
        };
        let new = [&ANY, &ANY, &unix].map(|at| outbound(at, 0, 2, Some(&mut offered)).unwrap());
        assert_eq!(new[0].address, old[1].address);
        assert_ne!(new[1].address, old[1].address);
        assert_eq!(new[2].address, unix);
        assert!(offered.listeners.is_empty());
    }
}

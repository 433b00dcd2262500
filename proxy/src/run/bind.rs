//! Takes the listeners of the application, one socket per worker on each TCP port, one for a Unix path:
//! from the process that is taken over, where it has them, else from the kernel.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};
use weft_config::settings::{LocalAddress, OutboundListener};
use weft_transport::private_socket::{is_answered, socket_at};

use super::RunError;
use crate::limits;
use crate::takeover::Estate;

/// A bound socket that no runtime owns yet.
pub(super) enum Unowned {
    /// One of several on its port.
    Tcp(TcpListener),
    /// The only one on its path.
    Unix(UnixListener),
}

impl Unowned {
    /// The same socket once more, for a process that takes it over.
    fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener) => listener.as_fd().try_clone_to_owned(),
        }
    }
}

/// All listeners.
pub(super) struct Bound {
    /// As bound, in the order of the settings.
    pub(super) addresses: Vec<LocalAddress>,
    /// Per worker, parallel to the settings; `None` where another worker has the only socket.
    pub(super) workers: Vec<Vec<Option<Unowned>>>,
}

impl Bound {
    /// All sockets once more, by the addresses of the settings.
    pub(super) fn share(
        &self,
        listeners: &[OutboundListener],
    ) -> io::Result<Vec<(LocalAddress, Vec<OwnedFd>)>> {
        let of = |index: usize| {
            let sockets = self
                .workers
                .iter()
                .filter_map(|all| all.get(index)?.as_ref());
            sockets.map(Unowned::share).collect::<io::Result<_>>()
        };
        let listeners = listeners.iter().enumerate();
        listeners
            .map(|(index, listener)| Ok((listener.listen.clone(), of(index)?)))
            .collect()
    }
}

/// Takes or binds every outbound listener for `workers`.
pub(super) fn outbound(
    listeners: &[OutboundListener],
    workers: usize,
    mut inherited: Option<&mut Estate>,
) -> Result<Bound, RunError> {
    let mut bound = Bound {
        addresses: Vec::new(),
        workers: (0..workers).map(|_| Vec::new()).collect(),
    };
    for (number, listener) in listeners.iter().enumerate() {
        let failed = |error| RunError::Listen {
            address: listener.listen.to_string(),
            purpose: "for the application (outbound.listeners, or --outbound)",
            error,
        };
        let sockets = inherited
            .as_mut()
            .and_then(|estate| take(&mut estate.listeners, &listener.listen));
        match &listener.listen {
            LocalAddress::Tcp(wanted) => {
                let sockets: Vec<TcpListener> = match sockets {
                    Some(sockets) => sockets.into_iter().map(TcpListener::from).collect(),
                    None => tcp_listeners(*wanted, workers).map_err(failed)?,
                };
                let address = sockets.first().map_or(Ok(*wanted), TcpListener::local_addr);
                bound
                    .addresses
                    .push(LocalAddress::Tcp(address.map_err(failed)?));
                for (own, socket) in bound.workers.iter_mut().zip(sockets) {
                    own.push(Some(Unowned::Tcp(socket)));
                }
            }
            LocalAddress::Unix(path) => {
                let taken = sockets.and_then(|mut sockets| sockets.pop());
                let socket = match taken {
                    Some(socket) => UnixListener::from(socket),
                    None => unix(path).map_err(failed)?,
                };
                let mut socket = Some(Unowned::Unix(socket));
                for (index, sockets) in bound.workers.iter_mut().enumerate() {
                    sockets.push(if index == number % workers.max(1) {
                        socket.take()
                    } else {
                        None
                    });
                }
                bound.addresses.push(listener.listen.clone());
            }
        }
    }
    Ok(bound)
}

fn take(
    listeners: &mut Vec<(LocalAddress, Vec<OwnedFd>)>,
    wanted: &LocalAddress,
) -> Option<Vec<OwnedFd>> {
    let index = listeners.iter().position(|(at, _)| at == wanted)?;
    Some(listeners.remove(index).1)
}

fn tcp_listeners(wanted: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // SO_REUSEPORT would share the port with another sidecar of this user without a word,
    // so a socket without it asks first.
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
    inherited: Option<&mut Estate>,
) -> Result<tokio::net::TcpListener, RunError> {
    let taken = inherited.and_then(|estate| {
        let index = estate.admin.iter().position(|(at, _)| *at == address)?;
        Some(estate.admin.remove(index).1)
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
    // A restarted sidecar binds beside connections of the old one that linger in TIME_WAIT.
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
        // A socket that no process answers is a leftover of a killed one. Another kind of file stays.
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
    use weft_config::settings::OutboundTarget;

    use super::*;

    fn listener(address: &LocalAddress) -> OutboundListener {
        OutboundListener {
            listen: address.clone(),
            target: OutboundTarget::ByHost,
        }
    }

    #[test]
    fn workers_share_a_tcp_port_that_nobody_else_may_take() {
        let any = LocalAddress::Tcp(([127, 0, 0, 1], 0).into());
        let bound = outbound(&[listener(&any)], 2, None).unwrap();
        assert_eq!(bound.workers.len(), 2);
        assert!(outbound(&[listener(&bound.addresses[0])], 2, None).is_err());
    }

    #[test]
    fn a_leftover_unix_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let address = LocalAddress::Unix(path);
        let bound = outbound(&[listener(&address)], 2, None).unwrap();
        assert_eq!(
            bound
                .workers
                .iter()
                .filter(|sockets| sockets[0].is_some())
                .count(),
            1
        );
        assert!(outbound(&[listener(&address)], 2, None).is_err());
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        std::fs::write(&path, "mine").unwrap();
        let address = LocalAddress::Unix(path.clone());
        assert!(outbound(&[listener(&address)], 1, None).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn what_was_inherited_is_used_and_the_rest_is_bound() {
        let any = LocalAddress::Tcp(([127, 0, 0, 1], 0).into());
        let folder = tempfile::tempdir().unwrap();
        let unix = LocalAddress::Unix(folder.path().join("s"));
        let before = [listener(&unix), listener(&any)];
        let old = outbound(&before, 2, None).unwrap();
        let mut estate = Estate {
            mesh: None,
            listeners: old.share(&before).unwrap(),
            admin: Vec::new(),
        };
        let after = [listener(&any), listener(&any), listener(&unix)];
        let new = outbound(&after, 2, Some(&mut estate)).unwrap();
        assert_eq!(new.addresses[0], old.addresses[1]);
        assert_ne!(new.addresses[1], old.addresses[1]);
        assert_eq!(new.addresses[2], unix);
        assert!(estate.listeners.is_empty());
    }
}

//! Takes the listeners of the application: one socket per worker on each TCP port, one for a Unix path.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};
use weft_config::settings::{LocalAddress, OutboundListener};

use super::RunError;

/// Connections that wait to be accepted. The kernel clamps it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A bound socket that no runtime owns yet.
pub(super) enum Unowned {
    /// One of several on its port.
    Tcp(TcpListener),
    /// The only one on its path.
    Unix(UnixListener),
}

/// All listeners.
pub(super) struct Bound {
    /// As bound, in the order of the settings.
    pub(super) addresses: Vec<LocalAddress>,
    /// Per worker, parallel to the settings; `None` where another worker has the only socket.
    pub(super) workers: Vec<Vec<Option<Unowned>>>,
}

/// Binds every outbound listener for `workers`.
pub(super) fn outbound(listeners: &[OutboundListener], workers: usize) -> Result<Bound, RunError> {
    let mut bound = Bound {
        addresses: Vec::new(),
        workers: (0..workers).map(|_| Vec::new()).collect(),
    };
    for (number, listener) in listeners.iter().enumerate() {
        let failed = |error| RunError::Listen {
            address: listener.listen.to_string(),
            error,
        };
        match &listener.listen {
            LocalAddress::Tcp(wanted) => {
                // SO_REUSEPORT would share the port with another sidecar of this user without a word,
                // so a socket without it asks first.
                let address = tcp(*wanted, false)
                    .and_then(|socket| local_address(&socket))
                    .map_err(failed)?;
                for sockets in &mut bound.workers {
                    let socket = tcp(address, true).map_err(failed)?;
                    socket.listen(BACKLOG).map_err(failed)?;
                    sockets.push(Some(Unowned::Tcp(socket.into())));
                }
                bound.addresses.push(LocalAddress::Tcp(address));
            }
            LocalAddress::Unix(path) => {
                let mut socket = Some(Unowned::Unix(unix(path).map_err(failed)?));
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

/// Binds the admin endpoint.
pub(super) fn admin(address: SocketAddr) -> Result<tokio::net::TcpListener, RunError> {
    let bind = || {
        let socket = tcp(address, false)?;
        socket.listen(128)?;
        tokio::net::TcpListener::from_std(socket.into())
    };
    bind().map_err(|error: io::Error| RunError::Listen {
        address: address.to_string(),
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
        // A socket that nobody answers is a leftover of a killed process.
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() =>
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
        let bound = outbound(&[listener(&any)], 2).unwrap();
        assert_eq!(bound.workers.len(), 2);
        assert!(outbound(&[listener(&bound.addresses[0])], 2).is_err());
    }

    #[test]
    fn a_leftover_unix_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let address = LocalAddress::Unix(path);
        let bound = outbound(&[listener(&address)], 2).unwrap();
        assert_eq!(
            bound
                .workers
                .iter()
                .filter(|sockets| sockets[0].is_some())
                .count(),
            1
        );
        assert!(outbound(&[listener(&address)], 2).is_err());
    }
}

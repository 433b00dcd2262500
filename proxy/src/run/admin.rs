//! The sockets of the admin endpoint, and the paths that each answers: TCP on loopback, TCP for other hosts,
//! a Unix socket for changes. `crate::admin` makes the answers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use axum::Router;
use tokio::net::TcpListener;
use weft_config::settings::{AdminChanges, ProxyAdmin};
use weft_transport::private_socket::{self, Opening, PrivateSocket, SocketPlace};

use super::{RunError, bind};
use crate::admin::server::Endpoint;
use crate::takeover::OfferedSockets;

/// Where a request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// `admin.listen`.
    Loopback,
    /// `admin.observe`.
    Observe,
    /// `admin.socket`.
    Socket,
}

/// All sockets of the endpoint.
#[derive(Debug)]
pub(crate) struct Bound {
    loopback: (SocketAddr, TcpListener),
    observe: Option<(SocketAddr, TcpListener)>,
    hosts: Vec<String>,
    socket: Option<PrivateSocket>,
}

impl Bound {
    /// Takes or binds them. The Unix socket has its path by [`Self::opening`].
    pub(crate) fn bind(
        settings: &ProxyAdmin,
        mut inherited: Option<&mut OfferedSockets>,
    ) -> Result<Self, RunError> {
        let takes_over = inherited.is_some();
        let listen = bind::admin(
            settings.listen,
            "for the admin endpoint (admin.listen, or --admin)",
            inherited.as_deref_mut(),
        )?;
        let observe = match &settings.observe {
            Some(observe) => {
                let purpose = "for probes and scrapers (admin.observe, or --observe)";
                let listener = bind::admin(observe.listen, purpose, inherited)?;
                Some((observe.listen, listener))
            }
            None => None,
        };
        let socket = match &settings.socket {
            Some(path) => {
                // The state directory is this process's own, but the path may be elsewhere.
                let made = if !takes_over && private_socket::is_answered(path) {
                    Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        "another process answers there: give each sidecar its own",
                    ))
                } else {
                    PrivateSocket::make(path)
                };
                match made {
                    Ok(made) => Some(made),
                    Err(error) if takes_nothing(&error) => {
                        tracing::error!(path = %path.display(), %error, "changes to this sidecar cannot be asked for (admin.socket): it runs all the same");
                        None
                    }
                    Err(error) => {
                        return Err(RunError::Listen {
                            address: format!("unix:{}", path.display()),
                            purpose: "for changes (admin.socket: a path, or off)",
                            error,
                        });
                    }
                }
            }
            None => None,
        };
        let hosts = settings.observe.as_ref().map(|one| one.hosts.clone());
        Ok(Self {
            loopback: (settings.listen, listen),
            observe,
            hosts: hosts.unwrap_or_default(),
            socket,
        })
    }

    /// The TCP address for this host.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.loopback.1.local_addr()
    }

    /// The listener for this host, then the one for others if there is one, each duplicated, with its address
    /// in the settings, for a successor.
    pub(crate) fn share(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let all = std::iter::once(&self.loopback).chain(&self.observe);
        all.map(|(at, listener)| Ok((*at, listener.as_fd().try_clone_to_owned()?)))
            .collect()
    }

    /// Puts the Unix socket in its place. To be called when no other process needs that place any more.
    pub(crate) fn opening(&self) -> Option<Opening> {
        self.socket.as_ref().map(PrivateSocket::opening)
    }

    /// The path to remove at the end.
    pub(crate) fn place(&self) -> Option<SocketPlace> {
        self.socket.as_ref().map(PrivateSocket::place)
    }

    /// Each socket with its router.
    pub(crate) fn endpoints(
        self,
        router: impl Fn(At) -> Router,
    ) -> io::Result<Vec<(Endpoint, Router)>> {
        let loopback = Endpoint::loopback(self.loopback.1)?;
        let mut endpoints = vec![(loopback, router(At::Loopback))];
        if let Some((_, listener)) = self.observe {
            let observe = Endpoint::observe(listener, self.hosts);
            endpoints.push((observe, router(At::Observe)));
        }
        if let Some(socket) = self.socket {
            endpoints.push((Endpoint::socket(socket), router(At::Socket)));
        }
        Ok(endpoints)
    }
}

/// Whether the file system is read-only or full: a sidecar's traffic does not depend on it.
fn takes_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull
    )
}

/// The answer to changes over TCP if TCP does not take them: it says where they are taken.
pub(crate) fn refusal_of_changes(settings: &ProxyAdmin) -> Option<String> {
    let AdminChanges::Socket = settings.changes else {
        return None;
    };
    Some(match &settings.socket {
        Some(path) => format!(
            "changes are taken on the Unix socket {} (weft proxy drain --state-dir or --config; curl --unix-socket), and here only with admin.changes: loopback",
            path.display()
        ),
        None => "changes are not taken: admin.socket is off, and admin.changes is not loopback"
            .to_owned(),
    })
}

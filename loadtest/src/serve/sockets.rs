//! The sockets of `weft load serve`: the same ports for each thread. Not here: the protocols on them.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Listen, ServeError};
use crate::limits;

/// The sockets of one thread.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) http: Option<TcpListener>,
    pub(super) https: Option<TcpListener>,
    /// With the first thread only: packets of a connection that moves must reach its thread.
    pub(super) http3: Option<UdpSocket>,
    pub(super) tcp: Option<TcpListener>,
    pub(super) tcp_sink: Option<TcpListener>,
    pub(super) tcp_source: Option<TcpListener>,
    pub(super) udp: Option<UdpSocket>,
}

/// Takes the addresses for each of `threads`, and returns their ports.
pub(super) fn bind(listen: Listen, threads: usize) -> Result<(Vec<Sockets>, Listen), ServeError> {
    let tcp = |address: Option<SocketAddr>| address.map(free_tcp).transpose();
    let udp = |address: Option<SocketAddr>| address.map(free_udp).transpose();
    let bound = Listen {
        http: tcp(listen.http)?,
        https: tcp(listen.https)?,
        http3: udp(listen.http3)?,
        tcp: tcp(listen.tcp)?,
        tcp_sink: tcp(listen.tcp_sink)?,
        tcp_source: tcp(listen.tcp_source)?,
        udp: udp(listen.udp)?,
    };
    let tcp = |address: Option<SocketAddr>| address.map(tcp_listener).transpose();
    let udp = |address: Option<SocketAddr>| address.map(udp_socket).transpose();
    let sockets = |thread: usize| {
        Ok(Sockets {
            http: tcp(bound.http)?,
            https: tcp(bound.https)?,
            http3: udp(bound.http3.filter(|_| thread == 0))?,
            tcp: tcp(bound.tcp)?,
            tcp_sink: tcp(bound.tcp_sink)?,
            tcp_source: tcp(bound.tcp_source)?,
            udp: udp(bound.udp)?,
        })
    };
    let sockets: Result<Vec<_>, ServeError> = (0..threads).map(sockets).collect();
    Ok((sockets?, bound))
}

/// The address with its port, if it is free. SO_REUSEPORT would silently share it with another process of the
/// same user, so a socket without it tries first.
fn free_tcp(address: SocketAddr) -> Result<SocketAddr, ServeError> {
    free(address, Type::STREAM, Protocol::TCP)
}

fn free_udp(address: SocketAddr) -> Result<SocketAddr, ServeError> {
    free(address, Type::DGRAM, Protocol::UDP)
}

fn free(address: SocketAddr, kind: Type, protocol: Protocol) -> Result<SocketAddr, ServeError> {
    let ask = || {
        let socket = socket(address, kind, protocol, Sharing::Alone)?;
        let bound = socket.local_addr()?.as_socket();
        bound.ok_or_else(|| io::Error::other("an address that is no IP address"))
    };
    ask().map_err(|error| ServeError::Bind { address, error })
}

fn tcp_listener(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let bind = || {
        let socket = socket(address, Type::STREAM, Protocol::TCP, Sharing::Threads)?;
        socket.listen(limits::SERVE_BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| ServeError::Bind { address, error })
}

fn udp_socket(address: SocketAddr) -> Result<UdpSocket, ServeError> {
    let bind = || Ok(socket(address, Type::DGRAM, Protocol::UDP, Sharing::Threads)?.into());
    bind().map_err(|error| ServeError::Bind { address, error })
}

/// The sharing of a socket's port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Threads,
}

fn socket(
    address: SocketAddr,
    kind: Type,
    protocol: Protocol,
    sharing: Sharing,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    if sharing == Sharing::Threads {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

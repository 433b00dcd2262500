//! TCP to a host by its name, and from hosts of either address family.
//!
//! A name may have addresses of both families, and this host may have only one family, or one that does not
//! work. So addresses are tried with a head start for each before the next (RFC 8305, "Happy Eyeballs"). Not
//! here: TLS ([`crate::tcp`]).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::sleep;

use crate::limits::{CONNECT_HEAD_START, CONNECT_TRIES_MAX, LISTEN_BACKLOG};

/// Connects to `HOST:PORT`, where the host is a name, an IPv4 address, or an IPv6 address in brackets, with a
/// zone if it needs one (`[fe80::1%eth0]:6201`).
///
/// # Errors
/// When the name has no address, or the last of its addresses failed.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    let (host, port) = split(address).ok_or_else(|| {
        let line = format!("{address} is not HOST:PORT");
        io::Error::new(io::ErrorKind::InvalidInput, line)
    })?;
    let found = interleave(lookup_host((host, port)).await?.collect());
    let found = found.into_iter().take(CONNECT_TRIES_MAX);
    let mut tries = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for next in found {
        tries.push(TcpStream::connect(next));
        tokio::select! {
            Some(result) = tries.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            },
            () = sleep(CONNECT_HEAD_START) => {}
        }
    }
    while let Some(result) = tries.next().await {
        match result {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Host without brackets, and port.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Some((bare, port.parse().ok()?))
}

/// Alternates the addresses of the two families, otherwise in the resolver's order (RFC 8305 section 4).
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut order = Vec::new();
    for address in first {
        order.push(address);
        order.extend(second.next());
    }
    order.extend(second);
    order
}

/// Listens on `address`; on `[::]` for both families, whatever the host's default is.
///
/// # Errors
/// The error of the kernel.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The wildcard address for a listener on `port`: of both families, if this host has IPv6.
pub fn everywhere(port: u16) -> SocketAddr {
    match can_bind((Ipv6Addr::UNSPECIFIED, 0).into()) {
        true => (Ipv6Addr::UNSPECIFIED, port).into(),
        false => (Ipv4Addr::UNSPECIFIED, port).into(),
    }
}

/// The loopback address that this host has, for `port`: 127.0.0.1, or ::1 where there is no IPv4.
pub fn loopback(port: u16) -> SocketAddr {
    match can_bind((Ipv4Addr::LOCALHOST, 0).into()) {
        true => (Ipv4Addr::LOCALHOST, port).into(),
        false => (Ipv6Addr::LOCALHOST, port).into(),
    }
}

fn can_bind(address: SocketAddr) -> bool {
    UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_split_from_its_port_without_its_brackets() {
        for (text, host) in [
            ("10.0.0.1:6200", "10.0.0.1"),
            ("ca.internal:6200", "ca.internal"),
            ("[fd00::9]:6200", "fd00::9"),
            ("[fe80::1%eth0]:6200", "fe80::1%eth0"),
        ] {
            assert_eq!(split(text), Some((host, 6200)));
        }
        assert_eq!(split("host"), None);
        assert_eq!(split("host:x"), None);
    }

    #[test]
    fn the_families_take_turns_in_the_order_of_the_resolver() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"]);
        let order = parse(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(interleave(found), order);
        assert_eq!(interleave(parse(&["10.0.0.1:1"])), parse(&["10.0.0.1:1"]));
        assert_eq!(interleave(Vec::new()), Vec::new());
    }

    #[tokio::test]
    async fn a_wildcard_listener_takes_both_families() {
        let listener = listen(everywhere(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "[::1]", "localhost"] {
            let address = format!("{host}:{port}");
            let (connected, accepted) = tokio::join!(connect(&address), listener.accept());
            connected.unwrap();
            accepted.unwrap();
        }
    }

    #[tokio::test]
    async fn an_address_that_is_no_address_is_an_error() {
        assert!(connect("host").await.is_err());
        assert!(connect("127.0.0.1:1").await.is_err());
    }
}

//! Whether a program still has the other end of a TCP connection open, if that end is on this host.
//!
//! A program that closes its socket and a program that only ends its sending side both send a FIN. The kernel
//! of this host tells them apart: a socket that no program has open belongs to no inode. `sock_diag(7)` reads
//! that without any privilege.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};

/// Bytes; more than the kernel answers about one socket.
const ANSWER_BYTES: usize = 4096;

/// Whether the program of the socket at `theirs`, which is connected to `ours`, has closed it. `false` also
/// if this kernel does not know that socket: it belongs to another host or network namespace, or asking is
/// forbidden here.
pub(crate) fn is_closed(ours: SocketAddr, theirs: SocketAddr) -> bool {
    inode(theirs, ours).is_ok_and(|inode| inode == Some(0))
}

/// The inode of the TCP socket at `here` that is connected to `there`: 0 without a program. None for no such
/// socket.
fn inode(here: SocketAddr, there: SocketAddr) -> io::Result<Option<u32>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    socket.send(&question(here, there), 0)?;
    // The kernel answers before it returns from the call that asks.
    socket.set_non_blocking(true)?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    socket.recv(&mut answer, 0)?;
    let answer =
        NetlinkMessage::<SockDiagMessage>::deserialize(&answer).map_err(io::Error::other)?;
    let NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) = answer.payload else {
        return Ok(None);
    };
    Ok(Some(found.header.inode))
}

fn question(here: SocketAddr, there: SocketAddr) -> Vec<u8> {
    // IPv6 sockets whose addresses map IPv4 addresses are found by those.
    let (source, destination) = (here.ip().to_canonical(), there.ip().to_canonical());
    let request = InetRequest {
        family: if source.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: here.port(),
            destination_port: there.port(),
            source_address: source,
            destination_address: destination,
            // Any interface; these bytes mean no cookie.
            interface_id: 0,
            cookie: [0xff; 8],
        },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    fn pair(address: &str) -> Option<(TcpStream, TcpStream)> {
        // On a host without IPv6 there is nothing to test.
        let listener = TcpListener::bind((address, 0)).ok()?;
        let to = (
            address.parse::<std::net::IpAddr>().unwrap().to_canonical(),
            listener.local_addr().unwrap().port(),
        );
        let client = TcpStream::connect(to).unwrap();
        Some((client, listener.accept().unwrap().0))
    }

    fn seen(server: &TcpStream) -> bool {
        is_closed(server.local_addr().unwrap(), server.peer_addr().unwrap())
    }

    #[test]
    fn a_client_that_ended_its_side_is_distinguished_from_one_that_closed() {
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let Some((client, server)) = pair(address) else {
                continue;
            };
            assert!(!seen(&server), "{address}");
            client.shutdown(Shutdown::Write).unwrap();
            assert!(!seen(&server), "{address}");
            drop(client);
            assert!(seen(&server), "{address}");
        }
    }

    #[test]
    fn what_this_kernel_does_not_know_is_not_closed() {
        let [ours, theirs] = ["192.0.2.1:80", "192.0.2.2:4711"].map(|one| one.parse().unwrap());
        assert!(!is_closed(ours, theirs));
    }
}

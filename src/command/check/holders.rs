//! Finds the program that holds a port or a socket of this host, as far as this user may see: the kernel
//! names the socket, and `/proc` the process that has it open. The program itself is not asked.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Processes that are searched; on a host with more, the holder is not found.
const PROCESSES_MAX: usize = 65_536;

/// The kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    Tcp,
    Udp,
}

/// The program at this address, as `nginx (pid 7)`.
pub fn at(of: SocketKind, address: SocketAddr) -> Option<String> {
    let name = match of {
        SocketKind::Tcp => "tcp",
        SocketKind::Udp => "udp",
    };
    let read = |suffix: &str| fs::read_to_string(format!("/proc/net/{name}{suffix}"));
    let tables = [read(""), read("6")];
    let mut lines = tables
        .iter()
        .flatten()
        .flat_map(|table| table.lines().skip(1));
    let inode = lines.find_map(|line| inode_of(line, of, address))?;
    program(&inode)
}

/// The program that listens on this path.
pub fn at_path(path: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let inode = table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let inode = words.nth(6)?;
        (Path::new(words.next()?) == path).then(|| inode.to_owned())
    })?;
    program(&inode)
}

/// The inode of a line of `/proc/net/tcp` or its like, if its socket receives packets to this address
/// (proc_net(5)).
fn inode_of(line: &str, of: SocketKind, address: SocketAddr) -> Option<String> {
    /// TCP_LISTEN.
    const LISTENS: &str = "0A";
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let local = socket_address(words.get(1)?)?;
    let listens = of == SocketKind::Udp || *words.get(3)? == LISTENS;
    let takes = local.port() == address.port()
        && (local.ip() == address.ip()
            || local.ip().is_unspecified()
            || address.ip().is_unspecified());
    (listens && takes).then(|| (*words.get(9).unwrap_or(&"")).to_owned())
}

/// `0100007F:1F90`: words of four bytes in the host's order, and the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

/// The process that has the socket with this inode open.
fn program(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten().take(PROCESSES_MAX);
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|name| name.bytes().all(|c| c.is_ascii_digit()))
        else {
            continue;
        };
        // The descriptors of other users are not visible.
        let Ok(open) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let mut open = open
            .flatten()
            .filter_map(|one| fs::read_link(one.path()).ok());
        if open.any(|link| link.as_os_str() == wanted.as_str()) {
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_at_an_address_is_this_one() {
        let own = format!("(pid {})", std::process::id());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        assert!(at(SocketKind::Tcp, address).is_some_and(|one| one.ends_with(&own)));
        assert_eq!(at(SocketKind::Udp, address), None);
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert!(at(SocketKind::Tcp, any).is_some_and(|one| one.ends_with(&own)));
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let found = at(SocketKind::Udp, udp.local_addr().unwrap());
        assert!(found.is_some_and(|one| one.ends_with(&own)));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(at_path(&path).is_some_and(|one| one.ends_with(&own)));
        drop(tcp);
        assert_eq!(at(SocketKind::Tcp, address), None);
    }

    #[test]
    fn lines_of_any_shape_are_read_or_passed_over() {
        for line in [
            "",
            "0:",
            "0: 0100007F",
            "0: 0100007F:ZZZZ 0 0A",
            "0: 01:1F90 0 0A",
            "0: é:1F90 0 0A",
        ] {
            assert_eq!(
                inode_of(line, SocketKind::Tcp, "127.0.0.1:8080".parse().unwrap()),
                None
            );
        }
    }
}

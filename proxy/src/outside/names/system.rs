//! The system's files about names: which resolvers to ask (`/etc/resolv.conf`), and names that need none
//! (`/etc/hosts`). Pure: bytes are arguments. Lines that cannot be read say nothing, as for other programs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::limits;

/// The resolvers, in their order. Without one the host's own is asked, as resolv.conf(5) says.
pub(super) fn servers(resolv_conf: &[u8]) -> Vec<SocketAddr> {
    let text = String::from_utf8_lossy(resolv_conf);
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // A zone (fe80::1%eth0) names an interface, which this does not know.
        let server = (words.next() == Some("nameserver")).then(|| words.next())?;
        server?.parse::<IpAddr>().ok()
    });
    let mut servers: Vec<SocketAddr> = addresses
        .take(limits::NAME_SERVERS_MAX)
        .map(|address| (address, limits::DNS_PORT).into())
        .collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, limits::DNS_PORT).into());
    }
    servers
}

/// The addresses that the file has for a name.
pub(super) fn of_hosts(hosts: &[u8], name: &str) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(hosts);
    let lines = text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    });
    lines.take(limits::NAME_ADDRESSES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolvers_are_those_that_can_be_read_and_the_hosts_own_without_one() {
        let conf = b"# nameserver 192.0.2.9\nsearch a.example\nnameserver 192.0.2.1\nnameserver x\n\
                     nameserver fe80::1%eth0\n nameserver 2001:db8::1 # two\nnameserver 192.0.2.3\nnameserver 192.0.2.4";
        let found: Vec<String> = servers(conf).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
        assert_eq!(servers(b"\xff\xfe")[0].to_string(), "127.0.0.1:53");
    }

    #[test]
    fn a_name_of_the_hosts_file_is_found_in_any_case_and_place() {
        let hosts = b"127.0.0.1 localhost\n192.0.2.7 a.example A2.example # b.example\n::1 a2.EXAMPLE\nbad a.example";
        let of = |name| {
            of_hosts(hosts, name)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("a.example"), ["192.0.2.7"]);
        assert_eq!(of("a2.example"), ["192.0.2.7", "::1"]);
        assert!(of("b.example").is_empty());
    }
}

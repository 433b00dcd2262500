//! Addresses and routes of a topology. Pure.
//!
//! Link number `k` has the network 10.88.k.0/24: .1 is its first end, .2 its second; .3 to .99 are
//! for ends that change their address, .100 to .250 for the outside of a NAT. Each end holds its
//! address as a /32 with a route to the network, so that addresses come and go on their own.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use super::{NodeName, Topology};
use crate::link::End;

/// The successive addresses of an end.
const ENDS: std::ops::RangeInclusive<u8> = 1..=99;

/// The successive addresses of a NAT.
const NATS: std::ops::RangeInclusive<u8> = 100..=250;

/// The network of a link, as `ip` writes it.
pub(super) fn network(link: usize) -> String {
    format!("{}/24", address(link, 0))
}

/// The first address of an end.
pub(super) fn first_address(link: usize, end: End) -> Ipv4Addr {
    address(link, *ENDS.start() + end.index() as u8)
}

/// The address that follows on `current`, past those that are taken.
pub(super) fn next_address(current: Ipv4Addr, taken: &[Ipv4Addr]) -> Ipv4Addr {
    let mut next = current;
    loop {
        next = following(next, ENDS);
        if !taken.contains(&next) || next == current {
            return next;
        }
    }
}

/// The first outside address of a link's NAT.
pub(super) fn first_outside(link: usize) -> Ipv4Addr {
    address(link, *NATS.start())
}

/// The outside address that follows on `current`.
pub(super) fn next_outside(current: Ipv4Addr) -> Ipv4Addr {
    following(current, NATS)
}

/// For each network that `node` is not attached to, the link of `node` that leads there by the
/// fewest links: (network's link, own link), as indices of the topology's links.
pub(super) fn routes(topology: &Topology, node: &NodeName) -> Vec<(usize, usize)> {
    let index_of = |name: &str| {
        topology
            .links()
            .iter()
            .position(|link| link.name.as_str() == name)
    };
    // Breadth first from `node`: by which own link each node is reached.
    let mut by: BTreeMap<&NodeName, Option<usize>> = BTreeMap::from([(node, None)]);
    let mut frontier = VecDeque::from([node]);
    let mut routes = BTreeMap::new();
    while let Some(at) = frontier.pop_front() {
        let own = by.get(at).copied().flatten();
        for (link, end) in topology.links_of(at) {
            let Some(index) = index_of(link.name.as_str()) else {
                continue;
            };
            let next = &link.ends[end.other().index()];
            let own = own.unwrap_or(index);
            if at != node {
                routes.entry(index).or_insert(own);
            }
            if !by.contains_key(next) {
                by.insert(next, Some(own));
                frontier.push_back(next);
            }
        }
    }
    let attached: Vec<usize> = topology
        .links_of(node)
        .filter_map(|(link, _)| index_of(link.name.as_str()))
        .collect();
    routes.retain(|network, _| !attached.contains(network));
    routes.into_iter().collect()
}

fn address(link: usize, host: u8) -> Ipv4Addr {
    // A topology has at most `limits::LINKS_MAX` links, fewer than 256.
    Ipv4Addr::new(10, 88, link as u8, host)
}

fn following(current: Ipv4Addr, range: std::ops::RangeInclusive<u8>) -> Ipv4Addr {
    let [a, b, c, host] = current.octets();
    let next = match range.contains(&host) && host < *range.end() {
        true => host + 1,
        false => *range.start(),
    };
    Ipv4Addr::new(a, b, c, next)
}

#[cfg(test)]
mod tests {
    use super::super::{LinkName, LinkSpec, Node, NodeKind};
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    /// a -0- x -1- y -2- b, and c -3- y; a short cut 4 between x and y is never needed.
    fn topology() -> Topology {
        let node = |text, kind| Node {
            name: name(text),
            kind,
        };
        let link = |index: usize, first, second| {
            let label = LinkName::new(&format!("l{index}")).unwrap();
            LinkSpec::new(label, [name(first), name(second)])
        };
        let nodes = vec![
            node("a", NodeKind::Host),
            node("b", NodeKind::Host),
            node("c", NodeKind::Host),
            node("x", NodeKind::Router),
            node("y", NodeKind::Router),
        ];
        let links = vec![
            link(0, "a", "x"),
            link(1, "x", "y"),
            link(2, "y", "b"),
            link(3, "c", "y"),
        ];
        Topology::new(nodes, links).unwrap()
    }

    #[test]
    fn every_network_has_a_route_over_the_nearest_link() {
        let topology = topology();
        assert_eq!(routes(&topology, &name("a")), [(1, 0), (2, 0), (3, 0)]);
        assert_eq!(routes(&topology, &name("x")), [(2, 1), (3, 1)]);
        assert_eq!(routes(&topology, &name("y")), [(0, 1)]);
        assert_eq!(routes(&topology, &name("b")), [(0, 2), (1, 2), (3, 2)]);
    }

    #[test]
    fn an_end_that_changes_its_address_never_takes_that_of_the_other() {
        let (own, other) = (first_address(3, End::First), first_address(3, End::Second));
        assert_eq!(own, Ipv4Addr::new(10, 88, 3, 1));
        let mut current = own;
        for _ in 0..300 {
            current = next_address(current, &[other]);
            assert_ne!(current, other);
            assert!(current.octets()[3] <= 99);
        }
    }

    #[test]
    fn a_nat_takes_addresses_that_no_end_has() {
        let mut current = first_outside(3);
        for _ in 0..300 {
            assert!((100..=250).contains(&current.octets()[3]));
            current = next_outside(current);
        }
    }
}

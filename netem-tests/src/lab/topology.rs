//! The hosts, routers and links of a lab: a value that can be built only if it fits together. Pure. The form
//! of the scenario file is elsewhere; `plan.rs` makes addresses and routes.

use std::collections::BTreeSet;
use std::fmt;

use crate::limits;
use crate::link::{End, Impairment};

/// The name of a host or router: 1 to 15 of `a-z`, `0-9` and `-`, beginning with a letter; it is
/// also the host's name in the lab's `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(String);

/// The name of a link; the rules of [`NodeName`], as it also names the network interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkName(String);

impl NodeName {
    /// Checks the name.
    pub fn new(name: &str) -> Result<Self, TopologyError> {
        checked(name).map(Self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LinkName {
    /// Checks the name.
    pub fn new(name: &str) -> Result<Self, TopologyError> {
        // `lo` is in every namespace.
        if name == "lo" {
            return Err(TopologyError::Name(name.to_owned()));
        }
        checked(name).map(Self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A host on which programs run.
    Host,
    /// It forwards packets; programs may run on it, too.
    Router,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub kind: NodeKind,
}

/// A link as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    /// Its name, unique in the lab.
    pub name: LinkName,
    /// The nodes at its [`End`]s.
    pub ends: [NodeName; 2],
    /// MTU of the interfaces at both ends, in bytes: a router answers longer packets with an ICMP message.
    /// For packets that vanish silently, see [`Impairment::black_hole`].
    pub mtu: u16,
    /// The impairments of packets that enter at the first and at the second end.
    pub impairments: [Impairment; 2],
    /// Network address translation on the link.
    pub nat: Option<Nat>,
}

impl LinkSpec {
    /// A perfect link with the usual MTU.
    pub fn new(name: LinkName, ends: [NodeName; 2]) -> Self {
        Self {
            name,
            ends,
            mtu: limits::MTU_DEFAULT,
            impairments: Default::default(),
            nat: None,
        }
    }

    /// The end at which `node` is.
    pub fn end_of(&self, node: &NodeName) -> Option<End> {
        End::BOTH
            .into_iter()
            .find(|end| self.ends[end.index()] == *node)
    }
}

/// Translation of the addresses and ports of UDP, TCP and ICMP echo: packets from the inside get an outside
/// address and port; packets from outside pass only if such a mapping exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// The end that is inside.
    pub inside: End,
}

/// Hosts, routers and links that fit together: names are unique, links end at nodes, every node can
/// be reached from every other, only routers have more than one link.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    nodes: Vec<Node>,
    links: Vec<LinkSpec>,
}

/// Why a topology does not fit together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A name that cannot be one.
    #[error(
        "`{0}` is no name of a host or link: write 1 to 15 of a-z, 0-9 and -, beginning with a letter"
    )]
    Name(String),
    /// Two things of one name.
    #[error("the name `{0}` is used twice: rename one of them")]
    Twice(String),
    /// A link to nowhere.
    #[error("link `{link}` ends at `{node}`, which is neither a host nor a router")]
    NoSuchNode {
        /// The link.
        link: LinkName,
        /// The missing name.
        node: NodeName,
    },
    /// A link from a node to itself.
    #[error("link `{0}` has the same node at both ends")]
    Loop(LinkName),
    /// A host that forwards.
    #[error("host `{0}` has several links, but only a router forwards: list it under `routers`")]
    HostWithManyLinks(NodeName),
    /// No path.
    #[error("there is no path from `{from}` to `{to}`: add a link")]
    Apart {
        /// The first node.
        from: NodeName,
        /// A node that it cannot reach.
        to: NodeName,
    },
    /// Nothing there.
    #[error("a topology needs at least one host")]
    Empty,
    /// Too much.
    #[error("{found} {what}: a lab has at most {max}")]
    TooMany {
        /// Nodes or links.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// An MTU that no interface has.
    #[error("link `{link}` has an MTU of {mtu}: write {min} to {max} (bytes)",
        min = limits::MTU_MIN, max = limits::MTU_MAX)]
    Mtu {
        /// The link.
        link: LinkName,
        /// The MTU.
        mtu: u16,
    },
}

impl Topology {
    /// Checks that `nodes` and `links` fit together.
    pub fn new(nodes: Vec<Node>, links: Vec<LinkSpec>) -> Result<Self, TopologyError> {
        for (what, found, max) in [
            ("hosts and routers", nodes.len(), limits::NODES_MAX),
            ("links", links.len(), limits::LINKS_MAX),
        ] {
            if found > max {
                return Err(TopologyError::TooMany { what, found, max });
            }
        }
        let mut names = BTreeSet::new();
        for node in &nodes {
            if !names.insert(&node.name) {
                return Err(TopologyError::Twice(node.name.to_string()));
            }
        }
        let mut link_names = BTreeSet::new();
        for link in &links {
            if !link_names.insert(&link.name) {
                return Err(TopologyError::Twice(link.name.to_string()));
            }
            if let Some(node) = link.ends.iter().find(|node| !names.contains(node)) {
                return Err(TopologyError::NoSuchNode {
                    link: link.name.clone(),
                    node: node.clone(),
                });
            }
            if link.ends[0] == link.ends[1] {
                return Err(TopologyError::Loop(link.name.clone()));
            }
            if !(limits::MTU_MIN..=limits::MTU_MAX).contains(&link.mtu) {
                return Err(TopologyError::Mtu {
                    link: link.name.clone(),
                    mtu: link.mtu,
                });
            }
        }
        let topology = Self { nodes, links };
        topology.check_paths()?;
        Ok(topology)
    }

    /// All nodes, in the order given.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All links, in the order given.
    pub fn links(&self) -> &[LinkSpec] {
        &self.links
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name.as_str() == name)
    }

    /// The link of this name.
    pub fn link(&self, name: &str) -> Option<&LinkSpec> {
        self.links.iter().find(|link| link.name.as_str() == name)
    }

    /// The links of a node, each with the end at which the node is.
    pub fn links_of<'a>(
        &'a self,
        node: &'a NodeName,
    ) -> impl Iterator<Item = (&'a LinkSpec, End)> + 'a {
        self.links
            .iter()
            .filter_map(move |link| Some((link, link.end_of(node)?)))
    }

    fn check_paths(&self) -> Result<(), TopologyError> {
        let Some(first) = self.nodes.first() else {
            return Err(TopologyError::Empty);
        };
        for node in &self.nodes {
            if node.kind == NodeKind::Host && self.links_of(&node.name).count() > 1 {
                return Err(TopologyError::HostWithManyLinks(node.name.clone()));
            }
        }
        let mut reached = BTreeSet::from([&first.name]);
        let mut frontier = vec![&first.name];
        while let Some(node) = frontier.pop() {
            for (link, end) in self.links_of(node) {
                let next = &link.ends[end.other().index()];
                if reached.insert(next) {
                    frontier.push(next);
                }
            }
        }
        match self.nodes.iter().find(|node| !reached.contains(&node.name)) {
            Some(apart) => Err(TopologyError::Apart {
                from: first.name.clone(),
                to: apart.name.clone(),
            }),
            None => Ok(()),
        }
    }
}

fn checked(name: &str) -> Result<String, TopologyError> {
    let valid = (1..=limits::NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    match valid {
        true => Ok(name.to_owned()),
        false => Err(TopologyError::Name(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn node(text: &str, kind: NodeKind) -> Node {
        Node {
            name: name(text),
            kind,
        }
    }

    fn link(text: &str, first: &str, second: &str) -> LinkSpec {
        LinkSpec::new(LinkName::new(text).unwrap(), [name(first), name(second)])
    }

    fn hosts(names: &[&str]) -> Vec<Node> {
        names
            .iter()
            .map(|name| node(name, NodeKind::Host))
            .collect()
    }

    #[test]
    fn names_are_those_of_interfaces_and_hosts() {
        for good in ["a", "client-1", "abcdefghijklmno"] {
            assert_eq!(name(good).as_str(), good);
        }
        for bad in ["", "1a", "Client", "a b", "a_b", "abcdefghijklmnop", "-a"] {
            assert_eq!(
                NodeName::new(bad),
                Err(TopologyError::Name(bad.to_owned())),
                "{bad:?}"
            );
        }
        assert!(LinkName::new("lo").is_err());
    }

    #[test]
    fn links_end_at_two_different_nodes() {
        let missing = Topology::new(hosts(&["a", "b"]), vec![link("wire", "a", "c")]);
        assert!(matches!(missing, Err(TopologyError::NoSuchNode { .. })));
        let looped = Topology::new(hosts(&["a"]), vec![link("wire", "a", "a")]);
        assert!(matches!(looped, Err(TopologyError::Loop(_))));
    }

    #[test]
    fn only_routers_have_several_links() {
        let links = || vec![link("left", "a", "m"), link("right", "m", "b")];
        let hosts_only = Topology::new(hosts(&["a", "m", "b"]), links());
        assert_eq!(hosts_only, Err(TopologyError::HostWithManyLinks(name("m"))));
        let mut nodes = hosts(&["a", "b"]);
        nodes.push(node("m", NodeKind::Router));
        assert!(Topology::new(nodes, links()).is_ok());
    }

    #[test]
    fn every_node_reaches_every_other() {
        let apart = Topology::new(hosts(&["a", "b", "c"]), vec![link("wire", "a", "b")]);
        assert_eq!(
            apart,
            Err(TopologyError::Apart {
                from: name("a"),
                to: name("c")
            })
        );
    }
}

//! Hosts, routers and links of a scenario, checked. Pure.

use super::check::{Checker, settings};
use super::profile;
use super::raw::{RawLink, RawTopology};
use crate::lab::{LinkName, LinkSpec, Nat, Node, NodeKind, NodeName, Topology};
use crate::link::End;

/// The topology; `None` if problems were found in it.
pub(super) fn topology(checker: &mut Checker<'_>, raw: RawTopology) -> Option<Topology> {
    let lists = [
        ("hosts", raw.hosts, NodeKind::Host),
        ("routers", raw.routers, NodeKind::Router),
    ];
    let mut nodes = Vec::new();
    for (field, names, kind) in lists {
        for (index, name) in names.iter().enumerate() {
            let field = format!("topology.{field}[{index}]");
            if let Some(name) = checker.name(field, NodeName::new(name)) {
                nodes.push(Node { name, kind });
            }
        }
    }
    let links: Vec<LinkSpec> = raw
        .links
        .into_iter()
        .filter_map(|(name, raw)| link(checker, &name, raw, &nodes))
        .collect();
    checker.name("topology", Topology::new(nodes, links))
}

fn link(checker: &mut Checker<'_>, name: &str, raw: RawLink, nodes: &[Node]) -> Option<LinkSpec> {
    let path = format!("topology.links.{name}");
    let Ok(between) = <[String; 2]>::try_from(raw.between) else {
        checker.problem(
            format!("{path}.between"),
            "write two hosts or routers, as [a, b]",
        );
        return None;
    };
    let known: Vec<String> = nodes.iter().map(|node| node.name.to_string()).collect();
    let mut ends = Vec::new();
    for (index, node) in between.iter().enumerate() {
        let field = format!("{path}.between[{index}]");
        if checker.known(&field, "host or router", node, &known) {
            ends.extend(checker.name(field, NodeName::new(node)));
        }
    }
    let name = checker.name(&path, LinkName::new(name))?;
    let mut spec = LinkSpec::new(name, ends.try_into().ok()?);
    if let Some(name) = &raw.profile {
        match profile::find(name) {
            Ok(both) => spec.impairments = both,
            Err(message) => checker.problem(format!("{path}.profile"), message),
        }
    }
    for impairment in &mut spec.impairments {
        settings(checker, &format!("{path}.set"), &raw.set, impairment);
    }
    for (node, changes) in &raw.from {
        let path = format!("{path}.from.{node}");
        if checker.known(&path, "end of this link", node, &between) {
            let direction = usize::from(between[1] == *node);
            settings(checker, &path, changes, &mut spec.impairments[direction]);
        }
    }
    if let Some(node) = &raw.nat
        && checker.known(format!("{path}.nat"), "end of this link", node, &between)
    {
        let inside = End::BOTH[usize::from(between[1] == *node)];
        spec.nat = Some(Nat { inside });
    }
    if let Some(mtu) = raw.mtu {
        spec.mtu = mtu;
    }
    Some(spec)
}

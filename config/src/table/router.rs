//! Finds the first rule that takes a request, at a cost that hardly grows with the number of rules. Pure.
//!
//! What it finds is what asking each rule in turn would find ([`RouteRule::matches`]); the order of rules is
//! the table's, which the compiler made by precedence. Each match of each rule is filed once:
//!
//! 1. by its path: an exact one under its text, a prefix at its node of a tree of segments, a pattern in a
//!    set that is matched as one, and what has no path by itself;
//! 2. there, by the rarest exact value that it asks of a header or a parameter, if it asks for any.
//!
//! A request looks into the few files that may hold matches of it, and stops in each at the first that holds
//! or that a better one precedes. Headers and parameters are read when the first match asks for them, and
//! once.

mod look;
mod making;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderName;

use super::asked::Asked;
use super::host_pattern::Hosts;
use super::pattern::PatternSet;
use super::{HttpMatch, PathMatch, RouteRule};
use look::Look;
use making::{Key, Making};

/// The rules of one port. Made once for a table, as its patterns are compiled; see the module.
#[derive(Debug, Default)]
pub struct Router {
    rules: Vec<Arc<RouteRule>>,
    /// Every match in the order of rules.
    entries: Vec<Entry>,
    exact: HashMap<Box<str>, File>,
    /// The tree of prefixes. The first node is the root, above the first segment.
    nodes: Vec<Node>,
    patterns: PatternSet,
    /// Parallel to `patterns`.
    of_patterns: Vec<u32>,
    anywhere: File,
    /// Header fields that any match asks for.
    headers: Vec<Field<HeaderName>>,
    /// Parameters that any match asks for.
    parameters: Vec<Field<Box<str>>>,
    /// Their places, by name.
    parameter_places: HashMap<Box<str>, usize>,
    /// Of a port of tcp.
    hosts: Hosts,
}

/// One match.
#[derive(Debug)]
struct Entry {
    /// The rule's place.
    rule: usize,
    method: Option<Box<str>>,
    /// Places of header fields, and the values that they must have.
    headers: Box<[(usize, Box<str>)]>,
    /// Places of header fields, and of patterns among theirs.
    header_patterns: Box<[(usize, usize)]>,
    parameters: Box<[(usize, Box<str>)]>,
    parameter_patterns: Box<[(usize, usize)]>,
}

/// A header field or parameter, and the patterns on it.
#[derive(Debug)]
struct Field<N> {
    name: N,
    patterns: PatternSet,
}

/// A prefix of whole segments.
#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, usize>,
    file: File,
    /// The nearest node towards the root that has a file.
    above: Option<usize>,
}

/// Entries by a value that they ask for.
type Lists<V> = HashMap<Box<V>, Vec<u32>>;

/// Entries of one condition on the path, in their order.
#[derive(Debug, Default)]
struct File {
    /// The first of all; none if there is none.
    first: Option<u32>,
    /// By the place of a header field, and a value of it.
    by_header: Vec<(usize, Lists<[u8]>)>,
    /// The same of parameters.
    by_parameter: Vec<(usize, Lists<str>)>,
    /// Those that ask for no value.
    rest: Vec<u32>,
}

impl Router {
    /// Prepares rules, in the order of the table.
    pub fn new(rules: &[RouteRule]) -> Self {
        let mut making = Making::default();
        let nothing = HttpMatch::default();
        let mut paths = Vec::new();
        for (place, rule) in rules.iter().enumerate() {
            // No match means every request.
            let of_all = rule.matches.is_empty().then_some(&nothing);
            for one in rule.matches.iter().chain(of_all) {
                if let Some(entry) = making.entry(place, one) {
                    paths.push(one.path.as_ref());
                    making.entries.push(entry);
                }
            }
        }
        let mut router = Self {
            rules: rules.iter().cloned().map(Arc::new).collect(),
            nodes: vec![Node::default()],
            ..Self::default()
        };
        let mut patterns = Vec::new();
        for (number, (path, entry)) in (0..).zip(paths.into_iter().zip(&making.entries)) {
            let key = making.key(entry);
            match path {
                None => router.anywhere.add(number, key),
                Some(PathMatch::Exact(path)) => {
                    let file = router.exact.entry(path.as_str().into()).or_default();
                    file.add(number, key);
                }
                Some(PathMatch::Prefix(prefix)) => {
                    let node = router.node(prefix.strip_suffix('/').unwrap_or(prefix));
                    router.nodes[node].file.add(number, key);
                }
                Some(PathMatch::Pattern(pattern)) => {
                    patterns.push(pattern.clone());
                    router.of_patterns.push(number);
                }
            }
        }
        router.hosts = Hosts::new(&router.rules);
        router.link();
        router.patterns = PatternSet::new(patterns);
        router.entries = making.entries;
        router.headers = making.headers.fields();
        router.parameters = making.parameters.fields();
        let places = (0..).zip(&router.parameters);
        router.parameter_places = places
            .map(|(place, field)| (field.name.clone(), place))
            .collect();
        router
    }

    /// The rules, in the order of the table.
    pub fn rules(&self) -> &[Arc<RouteRule>] {
        &self.rules
    }

    /// Whether it was made of these rules.
    pub fn is_of(&self, rules: &[RouteRule]) -> bool {
        self.rules.iter().map(|rule| &**rule).eq(rules)
    }

    /// The place of the first rule that takes the request.
    pub fn find(&self, asked: &Asked<'_>) -> Option<usize> {
        let mut look = Look::new(self, asked);
        if let Some(file) = self.exact.get(asked.path) {
            look.in_file(file);
        }
        // The longest prefix first, as it is likely to have precedence.
        let mut node = self.deepest(asked.path);
        while let Some(at) = node {
            look.in_file(&self.nodes[at].file);
            node = self.nodes[at].above;
        }
        look.in_patterns();
        look.in_file(&self.anywhere);
        let found = look.found()?;
        Some(self.entries.get(usize::try_from(found).ok()?)?.rule)
    }

    /// Whether connections are told apart by the host that their client asks for.
    pub fn asks_for_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// The place of the rule that takes a connection whose client asks for this host.
    pub fn find_by_host(&self, host: &str) -> Option<usize> {
        self.hosts.find(host)
    }

    /// The node of a prefix, made if there is none.
    fn node(&mut self, prefix: &str) -> usize {
        let mut at = 0;
        for segment in prefix.split('/') {
            at = match self.nodes[at].children.get(segment) {
                Some(next) => *next,
                None => {
                    let next = self.nodes.len();
                    self.nodes[at].children.insert(segment.into(), next);
                    self.nodes.push(Node::default());
                    next
                }
            };
        }
        at
    }

    /// Tells each node which one above it has a file.
    fn link(&mut self) {
        let mut left = vec![(0, None)];
        while let Some((at, above)) = left.pop() {
            self.nodes[at].above = above;
            let below = match self.nodes[at].file.first {
                Some(_) => Some(at),
                None => above,
            };
            left.extend(
                self.nodes[at]
                    .children
                    .values()
                    .map(|child| (*child, below)),
            );
        }
    }

    /// The node of the longest prefix of a path.
    fn deepest(&self, path: &str) -> Option<usize> {
        let mut at = 0;
        for segment in path.split('/') {
            match self.nodes.get(at)?.children.get(segment) {
                Some(next) => at = *next,
                None => break,
            }
        }
        Some(at)
    }
}

impl File {
    fn add(&mut self, number: u32, key: Key<'_>) {
        // Numbers come in their order.
        self.first.get_or_insert(number);
        let list = match key {
            Key::None => &mut self.rest,
            Key::Header(place, value) => {
                let values = values_of(&mut self.by_header, place);
                values.entry(value.as_bytes().into()).or_default()
            }
            Key::Parameter(place, value) => {
                let values = values_of(&mut self.by_parameter, place);
                values.entry(value.into()).or_default()
            }
        };
        list.push(number);
    }
}

fn values_of<V: Default>(all: &mut Vec<(usize, V)>, place: usize) -> &mut V {
    let at = match all.iter().position(|(one, _)| *one == place) {
        Some(at) => at,
        None => {
            all.push((place, V::default()));
            all.len() - 1
        }
    };
    &mut all[at].1
}

//! Compiles routes into the rules of ports, in the order in which they are tried, and notes which Services
//! they lead to. Pure.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attachments::{Act, Attachments, Fit, Group, group, parent_name, precedence};
use super::references::{References, target};
use super::traffic::Policies;
use super::{Compiled, Consumers};
use crate::resources::{
    BackendRef, HttpRouteMatch, PathMatchType, Route, RouteFilter, RuleEntry, Rules, Set,
    compiled_filters,
};
use crate::table::{
    Backend, Filters, HostPattern, HttpMatch, PathMatch, Persistence, Port, RequestTraffic,
    RouteRule, ServiceName,
};

/// Adds the routes of `set` to the Services.
pub(super) fn add_routes(
    services: &mut BTreeMap<ServiceName, Compiled>,
    set: &Set,
    policies: &Policies<'_>,
) {
    let attachments = Attachments::new(set);
    let references = References::new(set);
    let mut routes: Vec<Route<'_>> = set.routes().collect();
    // Rules are added in the order in which ties are decided, and sorted by what comes before that.
    routes.sort_by(|one, other| precedence(one.metadata, other.metadata));
    let mut ranked: BTreeMap<(ServiceName, Group<'_>, u16), Vec<Ranked>> = BTreeMap::new();
    for route in &routes {
        let rules = Ruled::all(route, &references);
        for parent in route.parents {
            let Fit::Ports(ports) = attachments.fit(route, parent) else {
                continue;
            };
            let acts = |port: &u16| matches!(attachments.act(route, parent, *port), Act::Acts);
            let ports: Vec<u16> = ports.into_iter().filter(acts).collect();
            if ports.is_empty() {
                continue;
            }
            let (name, group) = (parent_name(route, parent), group(route, parent));
            for rule in &rules {
                let traffic = policies.rule(route, rule.at, &name);
                for port in &ports {
                    let place = ranked.entry((name.clone(), group, *port)).or_default();
                    place.extend(rule.expand(&traffic));
                }
                relate(services, route, &references, &name, group, rule);
            }
        }
    }
    for ((name, group, port), mut rules) in ranked {
        // Stable: see above.
        rules.sort_by_key(|rule| Reverse(rule.rank));
        let rules: Vec<RouteRule> = rules.into_iter().map(|ranked| ranked.rule).collect();
        let Some(compiled) = services.get_mut(&name) else {
            continue;
        };
        match group {
            Group::Producers => {
                if let Some(port) = compiled.service.ports.get_mut(&port) {
                    port.routes = rules;
                }
            }
            Group::Consumers(namespace) => {
                let of_namespace = compiled.consumers.entry(namespace.to_owned());
                of_namespace.or_default().ports.insert(port, rules);
            }
        }
    }
}

/// Notes which Services a rule leads to from a parent.
fn relate(
    services: &mut BTreeMap<ServiceName, Compiled>,
    route: &Route<'_>,
    references: &References<'_>,
    parent: &ServiceName,
    group: Group<'_>,
    rule: &Ruled,
) {
    for target in &rule.targets {
        if let Some(compiled) = services.get_mut(target) {
            compiled.parents.insert(parent.clone());
            // A Service that only routes may lead to is opened by those of its own namespace, and by those of
            // others that a ReferenceGrant permits. Consumers' routes open nothing: those who may call the
            // parent would all be let in, and not only the callers for whom such a route holds.
            let permitted =
                target.namespace == route.key.namespace || references.grants(route.key, target);
            if group == Group::Producers && permitted {
                compiled.doors.insert(parent.clone());
            }
        }
    }
    let Some(compiled) = services.get_mut(parent) else {
        return;
    };
    let named = match group {
        Group::Producers => &mut compiled.backends,
        Group::Consumers(namespace) => {
            let of_namespace = compiled.consumers.entry(namespace.to_owned());
            &mut of_namespace.or_default().backends
        }
    };
    named.extend(rule.targets.iter().cloned());
}

/// A rule for requests with these conditions, with what decides when it is tried; greater is earlier.
struct Ranked {
    rank: Rank,
    rule: RouteRule,
}

/// What decides before the age of routes. Routes of different kinds never meet on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// Gateway API v1, HTTPRouteRule.matches.
    Http {
        /// An exact path, then a regular expression, then a prefix.
        path: u8,
        /// Characters of the path.
        length: usize,
        method: bool,
        headers: usize,
        queries: usize,
    },
    /// Gateway API v1, GRPCRouteRule.matches: characters of the service and of the method, then headers.
    Grpc(usize, usize, usize),
    /// Of connections: hosts decide first, and the table finds them (`table/host_pattern.rs`).
    Bytes,
}

impl Rank {
    fn key(self) -> (u8, usize, bool, usize, usize) {
        match self {
            Self::Http {
                path,
                length,
                method,
                headers,
                queries,
            } => (path, length, method, headers, queries),
            Self::Grpc(service, method, headers) => (0, service, false, method, headers),
            Self::Bytes => (0, 0, false, 0, 0),
        }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A rule of a route, as far as it does not depend on the parent.
struct Ruled {
    /// Its number in the route.
    at: usize,
    name: String,
    conditions: Vec<(Rank, Option<HttpMatch>)>,
    hosts: Vec<HostPattern>,
    backends: Vec<Backend>,
    filters: Arc<Filters>,
    session: Option<Arc<Persistence>>,
    /// Services to which requests or copies of them go.
    targets: BTreeSet<ServiceName>,
}

impl Ruled {
    fn all(route: &Route<'_>, references: &References<'_>) -> Vec<Self> {
        let rules = route.rules().map(|(at, rule)| {
            let mut targets = BTreeSet::new();
            let matched = matched(&route.rules, at);
            let mut filters = |says: &[RouteFilter]| {
                let mut resolve = |to: &BackendRef| {
                    let (service, port) = references.resolve(route.key, to).ok()?;
                    targets.insert(service.clone());
                    Some((service, port))
                };
                match says.is_empty() {
                    true => Arc::default(),
                    false => Arc::new(compiled_filters(says, matched, &mut resolve)),
                }
            };
            let own = filters(rule.filters);
            let backends = rule.backends.iter().map(|to| Backend {
                filters: filters(&to.filters),
                ..backend(route, to, references)
            });
            let backends: Vec<Backend> = backends.collect();
            let whole = backends.iter().filter(|one| one.broken.is_none());
            targets.extend(whole.map(|one| one.service.clone()));
            Self {
                at,
                name: route.name_of(at),
                conditions: conditions(&route.rules, at),
                hosts: match route.rules {
                    Rules::Tls(_, hosts) => hosts.to_vec(),
                    Rules::Http(_) | Rules::Grpc(_) | Rules::Tcp(_) => Vec::new(),
                },
                backends,
                filters: own,
                session: rule
                    .session
                    .and_then(|one| one.compiled(&route.scope_of(at))),
                targets,
            }
        });
        let mut rules: Vec<Self> = rules.collect();
        if rules.is_empty() {
            rules.push(Self::of_none(route));
        }
        rules
    }

    /// What a route without rules does: it is attached, so it replaces what holds by default.
    fn of_none(route: &Route<'_>) -> Self {
        let condition = match route.rules {
            // Gateway API v1, HTTPRouteSpec.rules: one that takes every request, without a backend.
            Rules::Http(_) => None,
            // One that takes no call.
            Rules::Grpc(_) | Rules::Tls(..) | Rules::Tcp(_) => Some(never()),
        };
        Self {
            at: 0,
            name: route.key.to_string(),
            conditions: vec![(Rank::Bytes, condition)],
            hosts: Vec::new(),
            backends: Vec::new(),
            filters: Arc::default(),
            session: None,
            targets: BTreeSet::new(),
        }
    }

    /// One rule per match, so that precedence orders all matches of a port.
    fn expand(&self, traffic: &Arc<RequestTraffic>) -> impl Iterator<Item = Ranked> {
        self.conditions.iter().map(|(rank, condition)| Ranked {
            rank: *rank,
            rule: RouteRule {
                route: self.name.clone(),
                matches: condition.iter().cloned().collect(),
                hosts: self.hosts.clone(),
                backends: self.backends.clone(),
                traffic: Arc::clone(traffic),
                filters: Arc::clone(&self.filters),
                session: self.session.clone(),
            },
        })
    }
}

/// Conditions that no request meets: every path begins with `/`.
fn never() -> HttpMatch {
    HttpMatch {
        path: Some(PathMatch::Exact(String::new())),
        ..HttpMatch::default()
    }
}

/// The matches of a rule; `None` is every request.
fn conditions(rules: &Rules<'_>, at: usize) -> Vec<(Rank, Option<HttpMatch>)> {
    let some = |one: HttpMatch| (one != HttpMatch::default()).then_some(one);
    match rules {
        Rules::Http(rules) => {
            let rule = rules.get(at).and_then(RuleEntry::rule);
            let matches = rule.map_or(&[][..], |rule| &rule.matches);
            let any = [HttpRouteMatch::default()];
            let matches = if matches.is_empty() { &any } else { matches };
            let compiled = matches.iter().map(|one| {
                let condition = one.compiled().unwrap_or_else(never);
                (rank(one, &condition), some(condition))
            });
            compiled.collect()
        }
        Rules::Grpc(rules) => {
            let rule = rules.get(at).and_then(RuleEntry::rule);
            let matches = rule.map_or(&[][..], |rule| &rule.matches);
            let compiled = matches.iter().map(|one| {
                let condition = one.compiled().unwrap_or_else(never);
                let (service, method) = one.lengths();
                let rank = Rank::Grpc(service, method, headers(&condition));
                (rank, some(condition))
            });
            let compiled: Vec<_> = compiled.collect();
            match compiled.is_empty() {
                true => vec![(Rank::Grpc(0, 0, 0), None)],
                false => compiled,
            }
        }
        Rules::Tls(..) | Rules::Tcp(_) => vec![(Rank::Bytes, None)],
    }
}

fn rank(one: &HttpRouteMatch, compiled: &HttpMatch) -> Rank {
    let path = one.path.as_ref();
    Rank::Http {
        path: match path.map(|path| path.kind) {
            Some(PathMatchType::Exact) => 2,
            Some(PathMatchType::RegularExpression) => 1,
            Some(PathMatchType::PathPrefix) | None => 0,
        },
        // Without a path a match has the prefix `/`.
        length: path.map_or(1, |path| path.value.chars().count()),
        method: one.method.is_some(),
        headers: headers(compiled),
        queries: compiled.queries.len() + compiled.query_patterns.len(),
    }
}

fn headers(compiled: &HttpMatch) -> usize {
    compiled.headers.len() + compiled.header_patterns.len()
}

/// The prefix by which a rule takes requests, if it has that one match; filters may replace it.
fn matched<'a>(rules: &Rules<'a>, at: usize) -> Option<&'a str> {
    let Rules::Http(rules) = rules else {
        return None;
    };
    let [only] = rules.get(at)?.rule()?.matches.as_slice() else {
        return None;
    };
    let path = only.path.as_ref()?;
    (path.kind == PathMatchType::PathPrefix).then_some(path.value.as_str())
}

fn backend(route: &Route<'_>, to: &BackendRef, references: &References<'_>) -> Backend {
    match references.resolve(route.key, to) {
        Ok((service, port)) => Backend::new(service, port, to.weight),
        Err(error) => Backend {
            broken: Some(error.broken),
            ..Backend::new(
                target(route.key, to),
                to.port.unwrap_or_default(),
                to.weight,
            )
        },
    }
}

impl Consumers {
    /// Puts the routes of one namespace in place of those that hold for all.
    pub(super) fn replace(&self, ports: &mut BTreeMap<u16, Port>) {
        for (number, rules) in &self.ports {
            if let Some(port) = ports.get_mut(number) {
                port.routes.clone_from(rules);
            }
        }
    }
}

#[cfg(test)]
mod tests;

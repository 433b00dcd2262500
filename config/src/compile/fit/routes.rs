//! Rules of routes for sidecars that do not know all of them: such a rule keeps the conditions that can be
//! told, and no backend. It takes no fewer requests than it should, and what it takes gets an error; so none
//! goes where the resources send it not.

use std::sync::Arc;
use std::time::Duration;

use crate::table::{
    Feature, Features, Filters, HttpMatch, PathMatch, Port, RouteRule, Service, ServiceName,
    Withheld,
};

/// Fits the rules of a service's ports, and says what they lack.
pub(super) fn fit(
    name: &ServiceName,
    service: &mut Arc<Service>,
    features: Features,
) -> Vec<Withheld> {
    let lacks = |port: &Port| needs(port).any(|feature| !features.has(feature));
    let affected: Vec<u16> = service
        .ports
        .iter()
        .filter(|(_, port)| lacks(port))
        .map(|(number, _)| *number)
        .collect();
    let mut withheld = Vec::new();
    for number in affected {
        let Some(port) = Arc::make_mut(service).ports.get_mut(&number) else {
            continue;
        };
        if is_tcp(port) {
            withheld.extend(port.routes.iter().map(|rule| Withheld {
                resource: resource(rule),
                feature: of_connections(rule).name().to_owned(),
                instead: format!("connections to {name}:{number} are refused"),
            }));
            // It would send them to the endpoints of the port, or to what takes over for those.
            port.routes.clear();
            port.endpoints.clear();
            port.traffic.failover = None;
            continue;
        }
        for rule in &mut port.routes {
            for feature in fitted(rule, features) {
                withheld.push(Withheld {
                    resource: resource(rule),
                    feature: feature.name().to_owned(),
                    instead: format!("requests to {name}:{number} that it takes get an error"),
                });
            }
        }
    }
    withheld
}

fn is_tcp(port: &Port) -> bool {
    !port.protocol.has_requests()
}

/// Features that the rules of a port need.
fn needs(port: &Port) -> impl Iterator<Item = Feature> {
    let tcp = port.routes.iter().filter(|_| is_tcp(port));
    let tcp = tcp.map(of_connections);
    let of_rules = port.routes.iter().flat_map(|rule| {
        [
            (Feature::RouteConditions, has_conditions(rule)),
            (Feature::RouteFilters, has_filters(rule)),
            (Feature::BrokenBackends, has_broken(rule)),
            (Feature::LeastBackoff, has_least_backoff(rule)),
            (Feature::RuleRetry, rule.traffic.retry.of_rule),
            (Feature::Sessions, rule.session.is_some()),
        ]
    });
    let of_rules = of_rules.filter_map(|(feature, needed)| needed.then_some(feature));
    tcp.chain(of_rules)
}

/// The feature that a rule of a port of tcp is.
fn of_connections(rule: &RouteRule) -> Feature {
    match rule.hosts.is_empty() {
        true => Feature::TcpRoutes,
        false => Feature::TlsRoutes,
    }
}

/// Takes out of a rule what cannot be told. Returns what decides about its requests and was taken.
fn fitted(rule: &mut RouteRule, features: Features) -> Vec<Feature> {
    let mut taken = Vec::new();
    if !features.has(Feature::RouteConditions) && has_conditions(rule) {
        rule.matches.iter_mut().for_each(reduce);
        taken.push(Feature::RouteConditions);
    }
    if !features.has(Feature::RouteFilters) && has_filters(rule) {
        rule.filters = Arc::default();
        taken.push(Feature::RouteFilters);
    }
    // Without it a client's requests would go to endpoints that know nothing of its session.
    if !features.has(Feature::Sessions) && rule.session.take().is_some() {
        taken.push(Feature::Sessions);
    }
    if !taken.is_empty() {
        rule.backends.clear();
    }
    if !features.has(Feature::LeastBackoff) && has_least_backoff(rule) {
        Arc::make_mut(&mut rule.traffic).retry.backoff.at_least = Duration::ZERO;
    }
    if !features.has(Feature::RuleRetry) && rule.traffic.retry.of_rule {
        Arc::make_mut(&mut rule.traffic).retry.of_rule = false;
    }
    if !features.has(Feature::BrokenBackends) {
        for backend in &mut rule.backends {
            if backend.broken.take().is_some() {
                // The Service may exist, and its endpoints must not get the share. No Service has this port.
                backend.port = 0;
            }
        }
    }
    taken
}

fn has_conditions(rule: &RouteRule) -> bool {
    rule.matches.iter().any(|one| {
        !one.header_patterns.is_empty()
            || !one.queries.is_empty()
            || !one.query_patterns.is_empty()
            || matches!(one.path, Some(PathMatch::Pattern(_)))
            || one.headers.iter().any(is_host)
    })
}

/// Older sidecars do not find it in `:authority`, and would send such requests by another rule.
fn is_host((name, _): &(String, String)) -> bool {
    name == "host"
}

fn reduce(one: &mut HttpMatch) {
    one.header_patterns.clear();
    one.queries.clear();
    one.query_patterns.clear();
    one.headers.retain(|header| !is_host(header));
    one.path
        .take_if(|path| matches!(path, PathMatch::Pattern(_)));
}

fn has_filters(rule: &RouteRule) -> bool {
    let none = Filters::default();
    let mut of_backends = rule.backends.iter().map(|backend| &backend.filters);
    *rule.filters != none || of_backends.any(|filters| **filters != none)
}

fn has_broken(rule: &RouteRule) -> bool {
    rule.backends.iter().any(|backend| backend.broken.is_some())
}

fn has_least_backoff(rule: &RouteRule) -> bool {
    !rule.traffic.retry.backoff.at_least.is_zero()
}

/// `KIND/NAMESPACE/NAME` of the route that a rule comes from.
fn resource(rule: &RouteRule) -> String {
    let parts: Vec<&str> = rule.route.split('/').take(3).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests;

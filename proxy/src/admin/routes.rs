//! The rules of routes in the order in which they are tried, with what each got in the last minute: what
//! `weft routes` shows.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_config::table::{Backend, Filters, RouteRule, Table};

use crate::directory::{Directory, Led, Port, Rule};
use crate::metrics::{Tallies, Tally};
use crate::outbound::explain::described::{conditions, described};

/// All ports that this sidecar may call. `tallies` are what came in the `window` before.
pub(super) fn routes(
    table: &Table,
    directory: &Directory,
    (window, tallies): &(Duration, Tallies),
    now: Instant,
) -> Value {
    let mut ports = Vec::new();
    for (name, service) in &table.services {
        let Some(known) = directory.service(&name.to_string()) else {
            continue;
        };
        for number in service.ports.keys() {
            if let Some(port) = known.port(*number) {
                ports.push(of_port(port, tallies, now));
            }
        }
    }
    json!({ "seconds": window.as_secs(), "ports": ports })
}

fn of_port(port: &Port, tallies: &Tallies, now: Instant) -> Value {
    let label = &port.cluster.label;
    let rules: Vec<Value> = match port.rules.as_slice() {
        [] => vec![of_none(port, tallies)],
        rules => {
            let places = rules.iter().zip(1..);
            places
                .map(|(rule, place)| of_rule(rule, place, tallies, now))
                .collect()
        }
    };
    json!({
        "port": &**label,
        "protocol": port.cluster.protocol,
        "rules": rules,
    })
}

/// A port without routes: its calls go to its own endpoints.
fn of_none(port: &Port, tallies: &Tallies) -> Value {
    let cluster = &port.cluster;
    json!({
        "place": Value::Null,
        "rule": Value::Null,
        "takes": "everything, as it has no route",
        "does": [],
        "backends": [{
            "backend": &*cluster.label,
            "weight": 1,
            "percent": 100.0,
            "endpoints": cluster.endpoints.len(),
            "condition": no_endpoint(cluster.endpoints.is_empty()),
            "does": [],
        }],
        "last_minute": counted(tallies.get(&cluster.label)),
    })
}

fn of_rule(rule: &Rule, place: usize, tallies: &Tallies, now: Instant) -> Value {
    let said: &RouteRule = &rule.rule;
    let takes: Vec<String> = said.matches.iter().map(conditions).collect();
    let takes = match takes.as_slice() {
        [] => "everything".to_owned(),
        some => some.join("; or "),
    };
    let mut does = done(&said.filters);
    if let Some(session) = &said.session {
        does.push(format!("session: {session}"));
    }
    let sum: u64 = said.backends.iter().map(|one| u64::from(one.weight)).sum();
    let backends = said.backends.iter().zip(&rule.backends);
    let backends: Vec<Value> = backends
        .map(|(backend, led)| of_backend(backend, led, sum, now))
        .collect();
    json!({
        "place": place,
        "rule": &*rule.route,
        "takes": takes,
        "does": does,
        "backends": backends,
        "last_minute": counted(tallies.get(&rule.route)),
    })
}

fn of_backend(backend: &Backend, led: &Led, sum: u64, now: Instant) -> Value {
    let percent = match sum {
        0 => 0.0,
        sum => (f64::from(backend.weight) * 10_000.0 / sum as f64).round() / 100.0,
    };
    let condition = match (backend.broken, &led.cluster) {
        (Some(broken), _) => Some(format!("{}: answers 500", broken.as_str())),
        (None, None) => Some("may not be called from here: answers 500".to_owned()),
        (None, Some(cluster)) => match cluster.failover(now) {
            Some(other) => Some(format!("{} takes over", other.label)),
            None if cluster.is_all_out() => Some("every endpoint is out of rotation".to_owned()),
            None => no_endpoint(cluster.endpoints.is_empty()),
        },
    };
    json!({
        "backend": format!("{}:{}", backend.service, backend.port),
        "weight": backend.weight,
        "percent": percent,
        "endpoints": led.cluster.as_ref().map(|cluster| cluster.endpoints.len()),
        "condition": condition,
        "does": done(&backend.filters),
    })
}

fn no_endpoint(is_empty: bool) -> Option<String> {
    is_empty.then(|| "no endpoint: answers 503".to_owned())
}

/// What filters do, those that answer in place of a backend first.
fn done(filters: &Filters) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(name) = &filters.unresolved {
        lines.push(format!("{name} leads nowhere: answers 500"));
    }
    if let Some(redirect) = &filters.redirect {
        lines.push(format!("RequestRedirect: answers {}", redirect.status));
    }
    lines.extend(described(filters));
    lines
}

fn counted(tally: Option<&Tally>) -> Value {
    let none = Tally::default();
    let tally = tally.unwrap_or(&none);
    let millis = |share| {
        let seconds: Option<f64> = tally.quantile(share);
        seconds.map(|seconds| (seconds * 1e4).round() / 10.0)
    };
    json!({
        "requests": tally.calls,
        "failures": tally.failures,
        "p50_ms": millis(0.5),
        "p99_ms": millis(0.99),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::directory::tests::{directory, table};

    #[test]
    fn rules_stand_in_their_order_with_shares_conditions_and_counts() {
        let mut tally = Tally::default();
        (tally.calls, tally.failures) = (7, 2);
        let tallies = Tallies::from([(Arc::from("HTTPRoute/shop/split"), tally)]);
        let now = Instant::now();
        let shown = routes(
            &table(),
            &directory(),
            &(Duration::from_secs(60), tallies),
            now,
        );
        let of = |name: &str| {
            let ports = shown["ports"].as_array().unwrap();
            ports.iter().find(|port| port["port"] == name).unwrap()
        };
        let split = &of("orders.shop:80")["rules"][0];
        assert_eq!(split["rule"], "HTTPRoute/shop/split");
        assert_eq!(split["takes"], "path /v and below");
        assert_eq!(split["last_minute"]["requests"], 7);
        assert_eq!(split["last_minute"]["failures"], 2);
        assert_eq!(split["backends"][1]["percent"], 10.0);
        assert_eq!(split["backends"][1]["endpoints"], 2);
        let solo = &of("solo.shop:8080")["rules"][0];
        assert_eq!(solo["rule"], Value::Null);
        assert_eq!(solo["backends"][0]["condition"], "no endpoint: answers 503");
    }
}

//! Pairs of other proxies in a scenario, checked. Pure. The loads that use a pair determine where its two
//! sides are. `run/pairs.rs` starts them.

use std::collections::BTreeMap;

use super::check::Checker;
use super::raw::RawPair;
use super::{Caller, Load, Pair, Plugin, Protocol, Service};

/// The pairs, each with the services that loads call over it.
pub(super) fn pairs(
    checker: &mut Checker<'_>,
    raw: BTreeMap<String, RawPair>,
    loads: &[Load],
    callers: &[Caller],
    services: &[Service],
) -> Vec<Pair> {
    let known: Vec<String> = raw.keys().cloned().collect();
    for load in loads {
        if let Some(over) = &load.over {
            checker.known(format!("loads.{}.over", load.name), "pair", over, &known);
        }
    }
    let mut pairs = Vec::with_capacity(raw.len());
    for (name, raw) in raw {
        let path = format!("pairs.{name}");
        checker.label(&path, &name);
        let Some(plugin) = plugin(&raw.plugin) else {
            checker.problem(
                format!("{path}.plugin"),
                "write `envoy`, or the path of a program (with a `/`)",
            );
            continue;
        };
        let over = loads
            .iter()
            .filter(|load| load.over.as_ref() == Some(&name));
        let mut pair: Option<Pair> = None;
        for load in over {
            let caller = callers.iter().find(|caller| caller.name == load.from);
            let service = services.iter().find(|service| service.name == load.to);
            // Unknown names are problems already.
            let (Some(caller), Some(service)) = (caller, service) else {
                continue;
            };
            let field = format!("loads.{}.over", load.name);
            let ([endpoint], Protocol::Http) = (service.endpoints.as_slice(), service.protocol)
            else {
                checker.problem(field, "a pair carries HTTP to services of one endpoint");
                continue;
            };
            let pair = pair.get_or_insert_with(|| Pair {
                name: name.clone(),
                plugin: plugin.clone(),
                flags: raw.flags.clone(),
                caller_host: caller.host.clone(),
                service_host: endpoint.host.clone(),
                services: Vec::new(),
            });
            if (&pair.caller_host, &pair.service_host) != (&caller.host, &endpoint.host) {
                let (from, to) = (&pair.caller_host, &pair.service_host);
                let message = format!("the pair is between {from} and {to}: use another one");
                checker.problem(field, message);
            }
            if !pair.services.contains(&service.name) {
                pair.services.push(service.name.clone());
            }
        }
        match pair {
            Some(pair) => pairs.push(pair),
            None => checker.problem(path, "no load goes over it: write `over` in one"),
        }
    }
    pairs
}

fn plugin(text: &str) -> Option<Plugin> {
    match text {
        "envoy" => Some(Plugin::Envoy),
        path if path.contains('/') => Some(Plugin::Program(path.to_owned())),
        _ => None,
    }
}

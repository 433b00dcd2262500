//! VirtualService of Istio, as HTTPRoute and TCPRoute.
//!
//! Istio asks its rules in the order of the list, Gateway API the most specific first: where that differs, it
//! is a finding. A rule whose conditions cannot be said is left out, and one that would lead elsewhere
//! without what cannot be said keeps its conditions and has no backend, so it answers 500.

use serde_json::{Value as Json, json};

use super::filters::{self, merged};
use super::matches::{Rank, matches};
use super::times::{fault, times};
use crate::import::mesh::{Mesh, ServiceKey};
use crate::import::output::Output;
use crate::import::reader::{Document, Place};

pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let Some(spec) = document.spec() else { return };
    let mut fields = spec.fields();
    let gateways = fields.take("gateways");
    if let Some(at) = &gateways {
        let is_of_mesh = at.texts().iter().any(|one| one == "mesh");
        let hint = "keep your gateway, and let it call the mesh through a sidecar";
        if !is_of_mesh {
            let message = "applies at a gateway only, which weft has not";
            return output.dropped(document, at, message, hint);
        }
        if at.items().len() > 1 {
            output.dropped(document, at, "holds in the mesh only", hint);
        }
    }
    let hosts = fields.take("hosts");
    let mut parents = Vec::new();
    for at in hosts.iter().flat_map(Place::items) {
        let host = at.text().unwrap_or_default();
        match mesh.service(&host, &document.namespace) {
            Some(key) if mesh.knows(&key) => parents.push(key),
            Some(_) => {
                let message = "is no Service of the files, so its requests are not routed";
                let hint = "import the Services of Kubernetes along";
                output.dropped(document, &at, message, hint);
            }
            None => {
                let message = "is no Service of the mesh, so its requests are not routed";
                output.dropped(document, &at, message, "write the name of a Service");
            }
        }
    }
    let (http, tcp) = (fields.take("http"), fields.take("tcp"));
    if let Some(at) = fields.take("exportTo") {
        let message = "a route of the Service's own namespace holds for all callers in weft";
        output.dropped(document, &at, message, "");
    }
    fields.rest(document, output);
    if parents.is_empty() {
        return;
    }
    if let Some(at) = http {
        routes(document, &at, &parents, mesh, output);
    }
    if let Some(at) = tcp {
        streams(document, &at, &parents, mesh, output);
    }
}

fn refs(parents: &[ServiceKey], own: &str) -> Json {
    let parents = parents.iter().map(|(namespace, name)| {
        let mut parent = json!({ "group": "", "kind": "Service", "name": name });
        if namespace != own {
            parent["namespace"] = json!(namespace);
        }
        parent
    });
    parents.collect()
}

/// A rule of a route, and the fault that is injected into its requests.
struct Rule {
    json: Json,
    fault: Option<Json>,
}

fn routes(
    document: &Document<'_>,
    at: &Place<'_>,
    parents: &[ServiceKey],
    mesh: &Mesh,
    output: &mut Output,
) {
    let mut plain = Vec::new();
    let mut faulty = Vec::new();
    let mut least: Option<Rank> = None;
    let mut catches_all = false;
    for item in at.items() {
        if catches_all {
            let message = "is never reached, as the rule before it takes every request; left out";
            output.told(document, &item, message, "");
            continue;
        }
        let (matches, all) = matches(document, &item, output);
        catches_all = all;
        for (rank, place) in &matches.ranks {
            if least.as_ref().is_some_and(|least| rank > least) {
                let message = "is more specific than a match before it, and is asked first in weft";
                let hint = "Gateway API asks the most specific first: check which rule is meant";
                output.dropped(document, place, message, hint);
            }
            let lower = least.map_or(*rank, |one| one.min(*rank));
            least = Some(lower);
        }
        if matches.json.is_empty() && !all {
            continue;
        }
        for rule in rules(document, &item, &matches.json, mesh, output) {
            match rule.fault {
                None => plain.push(rule.json),
                Some(_) => faulty.push(rule),
            }
        }
    }
    let own = &document.namespace;
    for (number, rules) in plain.chunks(16).enumerate() {
        let name = match number {
            0 => document.name.clone(),
            number => format!("{}-{}", document.name, number + 1),
        };
        let spec = json!({ "parentRefs": refs(parents, own), "rules": rules });
        output.add("HTTPRoute", own, &name, spec);
    }
    // A policy for a fault names a route, so each such rule has one of its own.
    for (number, rule) in faulty.into_iter().enumerate() {
        let name = format!("{}-fault-{}", document.name, number + 1);
        let spec = json!({ "parentRefs": refs(parents, own), "rules": [rule.json] });
        output.add("HTTPRoute", own, &name, spec);
        let spec = json!({
            "targetRefs": [{ "kind": "HTTPRoute", "name": name }],
            "fault": rule.fault,
        });
        output.add("TrafficPolicy", own, &name, spec);
    }
}

/// The rules of one entry of `http`: several where a rewrite depends on the match.
fn rules(
    document: &Document<'_>,
    at: &Place<'_>,
    matches: &[Json],
    mesh: &Mesh,
    output: &mut Output,
) -> Vec<Rule> {
    let mut fields = at.fields();
    fields.take("match");
    fields.take("name");
    fields.take("statPrefix");
    let mut rule = json!({});
    let mut filters = Vec::new();
    let (route, redirect) = (fields.take("route"), fields.take("redirect"));
    let rewrite = fields.take("rewrite");
    if let Some(at) = fields.take("headers") {
        filters.extend(filters::headers(document, &at, output));
    }
    if let Some(at) = fields.take("corsPolicy") {
        filters.extend(filters::cors(document, &at, output));
    }
    let percent = fields
        .take("mirrorPercentage")
        .and_then(|one| one.field("value")?.number());
    let percent = percent.or_else(|| fields.take("mirrorPercent")?.number());
    if let Some(at) = fields.take("mirror") {
        filters.extend(mirror(document, &at, percent, mesh, output));
    }
    for item in fields.take("mirrors").iter().flat_map(Place::items) {
        let percent = item
            .field("percentage")
            .and_then(|one| one.field("value")?.number());
        if let Some(at) = item.field("destination") {
            filters.extend(mirror(document, &at, percent, mesh, output));
        }
    }
    let (timeout, retries) = (fields.take("timeout"), fields.take("retries"));
    times(document, timeout, retries, &mut rule, output);
    let injected = fields
        .take("fault")
        .and_then(|at| fault(document, &at, output));
    if let Some(at) = &redirect {
        filters.extend(filters::redirect(document, at, output));
    }
    let mut backends = Vec::new();
    for item in route.iter().flat_map(Place::items) {
        backends.extend(destination(document, &item, mesh, output));
    }
    for name in ["directResponse", "delegate"] {
        if let Some(at) = fields.take(name) {
            let message = "has no counterpart: the requests of this rule get 500";
            let hint = "send them to a Service that answers so";
            output.dropped(document, &at, message, hint);
            backends.clear();
        }
    }
    fields.rest(document, output);
    if !backends.is_empty() && redirect.is_none() {
        rule["backendRefs"] = json!(backends);
    }
    let each: Vec<Vec<Json>> = match &rewrite {
        Some(at) if at.field("uri").is_some() && !matches.is_empty() => {
            matches.iter().map(|one| vec![one.clone()]).collect()
        }
        _ => vec![matches.to_vec()],
    };
    let each = each.into_iter().map(|matches| {
        let mut filters = filters.clone();
        if let Some(at) = &rewrite {
            filters.extend(filters::rewrite(document, at, matches.first(), output));
        }
        let mut rule = rule.clone();
        let is_plain = matches.iter().all(|one| *one == json!({}));
        if !matches.is_empty() && !is_plain {
            rule["matches"] = json!(matches);
        } else if filters
            .iter()
            .any(|one| one.to_string().contains("ReplacePrefixMatch"))
        {
            rule["matches"] = json!([{ "path": { "type": "PathPrefix", "value": "/" } }]);
        }
        if !filters.is_empty() {
            rule["filters"] = json!(merged(filters));
        }
        Rule {
            json: rule,
            fault: injected.clone(),
        }
    });
    each.collect()
}

fn destination(
    document: &Document<'_>,
    at: &Place<'_>,
    mesh: &Mesh,
    output: &mut Output,
) -> Option<Json> {
    let mut fields = at.fields();
    let to = fields.take("destination");
    let weight = fields.take("weight").and_then(|one| one.number());
    let own = fields
        .take("headers")
        .map(|at| filters::headers(document, &at, output));
    fields.rest(document, output);
    let mut backend = backend(document, to.as_ref().unwrap_or(at), mesh, output)?;
    if let Some(weight) = weight {
        backend["weight"] = json!(weight as u32);
    }
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        backend["filters"] = json!(own);
    }
    Some(backend)
}

/// `host`, `subset` and `port`. A host outside of the mesh becomes a backend that does not exist, so that its
/// share goes nowhere else.
fn backend(
    document: &Document<'_>,
    at: &Place<'_>,
    mesh: &Mesh,
    output: &mut Output,
) -> Option<Json> {
    let text = |name: &str| at.field(name).and_then(|one| one.text());
    let host = text("host")?;
    let Some(key) = mesh.service(&host, &document.namespace) else {
        let message = "is no Service of the mesh: its share of the requests gets 500";
        let hint = "let callers reach it without the mesh";
        output.dropped(document, at, message, hint);
        return Some(json!({ "name": "not-in-the-mesh", "port": 80 }));
    };
    let number = at
        .field("port")
        .and_then(|one| one.field("number")?.number());
    let port = match number {
        Some(number) => number as u16,
        None => mesh.only_port(&key).unwrap_or_else(|| {
            let message = format!("{} has several ports; 80 is written", key.1);
            output.dropped(document, at, &message, "write the port that is meant");
            80
        }),
    };
    let key = match text("subset") {
        Some(subset) => mesh.subset(document, at, &key, &subset, output),
        None => key,
    };
    let mut json = json!({ "name": key.1, "port": port });
    if key.0 != document.namespace {
        json["namespace"] = json!(key.0);
    }
    Some(json)
}

fn mirror(
    document: &Document<'_>,
    at: &Place<'_>,
    percent: Option<f64>,
    mesh: &Mesh,
    output: &mut Output,
) -> Option<Json> {
    let mut mirror = json!({ "backendRef": backend(document, at, mesh, output)? });
    if let Some(percent) = percent {
        mirror["fraction"] =
            json!({ "numerator": (percent * 1000.0) as u32, "denominator": 100_000 });
    }
    Some(json!({ "type": "RequestMirror", "requestMirror": mirror }))
}

/// `tcp`: one rule for each port, as a TCPRoute has.
fn streams(
    document: &Document<'_>,
    at: &Place<'_>,
    parents: &[ServiceKey],
    mesh: &Mesh,
    output: &mut Output,
) {
    for item in at.items() {
        let mut ports = Vec::new();
        let mut whole = true;
        for one in item.field("match").iter().flat_map(Place::items) {
            let mut fields = one.fields();
            ports.extend(fields.take("port").and_then(|one| one.number()));
            for left in fields.left() {
                let message = "is a condition that has no counterpart, so this rule is left out";
                output.dropped(document, &left, message, "");
                whole = false;
            }
        }
        if !whole {
            continue;
        }
        let route = item.field("route");
        let mut backends = Vec::new();
        for place in route.iter().flat_map(Place::items) {
            backends.extend(destination(document, &place, mesh, output));
        }
        let parents = refs(parents, &document.namespace);
        let parents: Vec<Json> = match ports.is_empty() {
            true => parents.as_array().cloned().unwrap_or_default(),
            false => {
                let each = parents.as_array().into_iter().flatten();
                each.flat_map(|parent| {
                    ports.iter().map(|port| {
                        let mut parent = parent.clone();
                        parent["port"] = json!(*port as u16);
                        parent
                    })
                })
                .collect()
            }
        };
        let spec = json!({ "parentRefs": parents, "rules": [{ "backendRefs": backends }] });
        output.add("TCPRoute", &document.namespace, &document.name, spec);
    }
}

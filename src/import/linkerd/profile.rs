//! ServiceProfile of Linkerd: routes with timeouts and retries, which change where nothing goes.

use serde_json::{Value as Json, json};

use crate::import::durations::{duration, seconds};
use crate::import::mesh::Mesh;
use crate::import::output::Output;
use crate::import::reader::{Document, Place};

pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let key = mesh.service(&document.name, &document.namespace);
    let Some(key) = key.filter(|key| mesh.knows(key)) else {
        let message = "its name is no Service of the files, so this is left out";
        let hint = "import the Services of Kubernetes along";
        return output.dropped(document, &document.root(), message, hint);
    };
    let Some(spec) = document.spec() else { return };
    let mut fields = spec.fields();
    let ports: Vec<u16> = match mesh.ports(&key) {
        [] => vec![80],
        ports => ports
            .iter()
            .filter(|port| port.has_requests())
            .map(|port| port.number)
            .collect(),
    };
    let written = fields.take("routes");
    for port in ports {
        let backend = json!([{ "name": key.1, "port": port }]);
        let mut rules = Vec::new();
        for at in written.iter().flat_map(Place::items) {
            rules.extend(rule(document, &at, &backend, output));
        }
        if rules.is_empty() {
            continue;
        }
        // What no route of the profile takes still passes.
        rules.push(json!({ "backendRefs": backend }));
        if rules.len() > 16 {
            let message = "has more routes than a rule list holds: 15 of them are kept";
            output.dropped(document, &spec, message, "split them over two HTTPRoutes");
            let last = rules.pop();
            rules.truncate(15);
            rules.extend(last);
        }
        let spec = json!({
            "parentRefs": [{ "group": "", "kind": "Service", "name": key.1, "port": port }],
            "rules": rules,
        });
        output.add("HTTPRoute", &key.0, &key.1, spec);
    }
    if let Some(at) = fields.take("retryBudget") {
        budget(document, &at, &key.0, &key.1, output);
    }
    if let Some(at) = fields.take("dstOverrides") {
        let hint = "write an HTTPRoute with weights, or import the TrafficSplit";
        output.dropped(document, &at, "is left out", hint);
    }
    fields.rest(document, output);
}

fn rule(
    document: &Document<'_>,
    at: &Place<'_>,
    backend: &Json,
    output: &mut Output,
) -> Option<Json> {
    let mut fields = at.fields();
    fields.take("name");
    let condition = fields.take("condition");
    let mut matches = Vec::new();
    if let Some(one) = &condition {
        matches.extend(conditions(document, one, output)?);
    }
    let mut rule = json!({ "backendRefs": backend });
    if !matches.is_empty() {
        rule["matches"] = json!(matches);
    }
    if let Some(timeout) = fields.take("timeout").and_then(|one| seconds(&one.text()?)) {
        rule["timeouts"] = json!({ "request": duration(timeout) });
    }
    if fields.take("isRetryable").is_some_and(|one| one.is_true()) {
        rule["retry"] = json!({ "codes": [500, 502, 503, 504] });
        let message = "weft retries only idempotent methods by itself";
        output.told(
            document,
            at,
            message,
            "a TrafficPolicy may say more: retry.nonIdempotent",
        );
    }
    if let Some(at) = fields.take("responseClasses") {
        let message = "what counts as a failure is fixed in weft: statuses of 500 and above";
        output.dropped(document, &at, message, "");
    }
    fields.rest(document, output);
    Some(rule)
}

/// Alternatives of a condition; none if a part of it cannot be said, as the rule would take more.
fn conditions(document: &Document<'_>, at: &Place<'_>, output: &mut Output) -> Option<Vec<Json>> {
    if let Some(any) = at.field("any") {
        let mut all = Vec::new();
        for one in any.items() {
            all.extend(conditions(document, &one, output)?);
        }
        return Some(all);
    }
    let mut one = json!({});
    let mut parts = vec![at.clone()];
    parts.extend(at.field("all").iter().flat_map(Place::items));
    for part in parts {
        for (name, place) in part.entries() {
            let known = match (name, place.text()) {
                ("method", Some(method)) => ("method", json!(method)),
                ("pathRegex", Some(path)) => (
                    "path",
                    json!({ "type": "RegularExpression", "value": path }),
                ),
                ("all", None) => continue,
                _ => {
                    let message = "has no counterpart, so this route of the profile is left out";
                    output.dropped(document, &place, message, "");
                    return None;
                }
            };
            if !one[known.0].is_null() {
                let message = "says it twice, so this route of the profile is left out";
                output.dropped(document, &place, message, "");
                return None;
            }
            one[known.0] = known.1;
        }
    }
    Some(vec![one])
}

fn budget(
    document: &Document<'_>,
    at: &Place<'_>,
    namespace: &str,
    service: &str,
    output: &mut Output,
) {
    let mut fields = at.fields();
    let mut budget = json!({});
    if let Some(ratio) = fields.take("retryRatio").and_then(|one| one.number()) {
        budget["percent"] = json!((ratio * 100.0).clamp(0.0, 100.0));
    }
    if let Some(least) = fields
        .take("minRetriesPerSecond")
        .and_then(|one| one.number())
    {
        budget["minRetriesPerSecond"] = json!(least as u32);
    }
    if let Some(ttl) = fields.take("ttl").and_then(|one| seconds(&one.text()?)) {
        budget["interval"] = json!(duration(ttl));
    }
    fields.rest(document, output);
    let spec = json!({
        "targetRefs": [{ "kind": "Service", "name": service }],
        "retryBudget": budget,
    });
    output.add("TrafficPolicy", namespace, service, spec);
}

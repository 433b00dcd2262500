//! DestinationRule of Istio, as TrafficPolicy.

use serde_json::{Value as Json, json};

use crate::import::durations::{duration, seconds};
use crate::import::external::TLS_FIELDS;
use crate::import::mesh::{Mesh, ServiceKey};
use crate::import::output::Output;
use crate::import::reader::{Document, Fields, Place};

pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let Some(spec) = document.spec() else { return };
    let mut fields = spec.fields();
    let host = fields.take("host");
    let text = host.as_ref().and_then(Place::text).unwrap_or_default();
    if mesh.externals().knows(&text) {
        return external(document, fields, output);
    }
    let Some(key) = mesh.service(&text, &document.namespace) else {
        let at = host.unwrap_or(spec);
        let message = "is no Service of the mesh, so this has no counterpart";
        return output.dropped(document, &at, message, "");
    };
    if !mesh.knows(&key) {
        let at = host.unwrap_or(spec);
        let message = "is no Service of the files, so this is left out";
        return output.dropped(
            document,
            &at,
            message,
            "import the Services of Kubernetes along",
        );
    }
    let policy = fields.take("trafficPolicy");
    if let Some(at) = &policy {
        write(document, at, &key, output);
    }
    for subset in fields.take("subsets").iter().flat_map(Place::items) {
        let name = subset
            .field("name")
            .and_then(|one| one.text())
            .unwrap_or_default();
        let own = mesh.subset(document, &subset, &key, &name, output);
        // A subset inherits what it does not say itself.
        match (subset.field("trafficPolicy"), &policy) {
            (Some(at), _) => write(document, &at, &own, output),
            (None, Some(at)) => write(document, at, &own, output),
            (None, None) => {}
        }
    }
    fields.take("exportTo");
    fields.rest(document, output);
}

/// A host of a ServiceEntry: its TLS is that of the ExternalService.
fn external(document: &Document<'_>, mut fields: Fields<'_>, output: &mut Output) {
    if let Some(at) = fields.take("trafficPolicy") {
        let mut policy = at.fields();
        let of_all = policy.take("tls");
        let of_ports = policy.take("portLevelSettings");
        let mut tls: Vec<Place<'_>> = of_all.into_iter().collect();
        for at in of_ports.iter().flat_map(Place::items) {
            let mut settings = at.fields();
            settings.take("port");
            tls.extend(settings.take("tls"));
            settings.rest(document, output);
        }
        for at in &tls {
            external_tls(document, at, output);
        }
        policy.rest(document, output);
    }
    fields.take("exportTo");
    fields.rest(document, output);
}

fn external_tls(document: &Document<'_>, at: &Place<'_>, output: &mut Output) {
    let mut fields = at.fields();
    let mode = fields.take("mode");
    for (name, _) in TLS_FIELDS {
        fields.take(name);
    }
    match mode.as_ref().and_then(Place::text).as_deref() {
        Some("SIMPLE" | "MUTUAL" | "DISABLE") | None => {}
        Some(_) => {
            let message = "a service outside of the mesh proves no identity of it: no TLS is begun";
            output.dropped(document, at, message, "write mode: SIMPLE");
        }
    }
    if let Some(at) = fields.take("insecureSkipVerify") {
        output.dropped(
            document,
            &at,
            "weft checks every certificate",
            "name its root by caFile",
        );
    }
    for name in ["credentialName", "subjectAltNames"] {
        if let Some(at) = fields.take(name) {
            let message = "has no counterpart: weft reads files of the caller's host, and proves the name that it asks for";
            output.dropped(
                document,
                &at,
                message,
                "write serverName, caFile, certificateFile and keyFile",
            );
        }
    }
    fields.rest(document, output);
}

fn write(document: &Document<'_>, at: &Place<'_>, key: &ServiceKey, output: &mut Output) {
    if key.0 != document.namespace {
        let message =
            "a TrafficPolicy stands in the namespace of its Service, and is written there";
        output.told(document, at, message, "");
    }
    let mut fields = at.fields();
    let mut spec = json!({});
    if let Some(at) = fields.take("outlierDetection") {
        breaker(document, &at, &mut spec, output);
    }
    if let Some(at) = fields.take("loadBalancer") {
        balance(document, &at, &mut spec, output);
    }
    if let Some(at) = fields.take("tls") {
        let mode = at.field("mode").and_then(|one| one.text());
        match mode.as_deref() {
            Some("ISTIO_MUTUAL") => {
                let message = "needs no counterpart: weft always proves both identities";
                output.told(document, &at, message, "");
            }
            _ => {
                let message = "weft always uses its own TLS between sidecars";
                output.dropped(document, &at, message, "");
            }
        }
    }
    if let Some(at) = fields.take("connectionPool") {
        let message =
            "limits connections of each caller, which weft shares among all requests; left out";
        let hint = "bound the requests of all callers with concurrency.max of a TrafficPolicy";
        output.dropped(document, &at, message, hint);
    }
    fields.rest(document, output);
    if spec == json!({}) {
        return;
    }
    spec["targetRefs"] = json!([{ "kind": "Service", "name": key.1 }]);
    output.add("TrafficPolicy", &key.0, &key.1, spec);
}

fn breaker(document: &Document<'_>, at: &Place<'_>, spec: &mut Json, output: &mut Output) {
    let mut fields = at.fields();
    let mut breaker = json!({});
    let number = |fields: &mut Fields<'_>, name| fields.take(name).and_then(|one| one.number());
    let failures = [
        "consecutive5xxErrors",
        "consecutiveErrors",
        "consecutiveGatewayErrors",
    ]
    .into_iter()
    .filter_map(|name| number(&mut fields, name))
    .reduce(f64::min);
    match failures {
        Some(0.0) => {
            let message = "0 switches the condition off; the default of weft holds";
            output.dropped(document, at, message, "");
        }
        Some(count) => breaker["consecutiveFailures"] = json!(count as u32),
        None => {}
    }
    if let Some(base) = fields
        .take("baseEjectionTime")
        .and_then(|one| seconds(&one.text()?))
    {
        // The longest time is 20 s without a word.
        breaker["ejection"] = json!({ "base": duration(base), "max": duration(base.max(20.0)) });
    }
    if let Some(most) = number(&mut fields, "maxEjectionPercent") {
        breaker["maxEjectedPercent"] = json!(most as u32);
    }
    if let Some(least) = number(&mut fields, "minHealthPercent") {
        breaker["panicThreshold"] = json!(least as u32);
    }
    if let Some(at) = fields.take("interval") {
        let message = "needs no counterpart: weft judges with each answer";
        output.told(document, &at, message, "");
    }
    fields.rest(document, output);
    if breaker != json!({}) {
        spec["breaker"] = breaker;
    }
}

fn balance(document: &Document<'_>, at: &Place<'_>, spec: &mut Json, output: &mut Output) {
    let mut fields = at.fields();
    let mut balance = json!({});
    if let Some(place) = fields.take("simple") {
        match place.text().as_deref() {
            Some("ROUND_ROBIN") => balance["algorithm"] = json!("RoundRobin"),
            Some("LEAST_REQUEST" | "LEAST_CONN") => balance["algorithm"] = json!("LeastRequest"),
            Some("UNSPECIFIED") | None => {}
            Some(other) => {
                let message =
                    format!("{other} has no counterpart: weft balances by latency and load");
                output.dropped(document, &place, &message, "");
            }
        }
    }
    if let Some(hash) = fields.take("consistentHash") {
        let text = |name: &str| hash.field(name).and_then(|one| one.text());
        let cookie = hash
            .field("httpCookie")
            .and_then(|one| one.field("name")?.text());
        let key = match (text("httpHeaderName"), cookie) {
            (Some(header), _) => Some(json!({ "header": header })),
            (None, Some(cookie)) => {
                let message = "a client without the cookie gets none from weft";
                let hint = "a route with sessionPersistence gives clients one";
                output.told(document, &hash, message, hint);
                Some(json!({ "cookie": cookie }))
            }
            (None, None) if hash.field("useSourceIp").is_some_and(|one| one.is_true()) => {
                Some(json!("source"))
            }
            (None, None) => None,
        };
        match key {
            Some(key) => {
                let maglev = hash.field("maglev").is_some();
                balance["algorithm"] = json!(if maglev { "Maglev" } else { "RingHash" });
                balance["key"] = key;
            }
            None => output.dropped(document, &hash, "hashes by what weft does not", ""),
        }
    }
    let warmup = fields.take("warmupDurationSecs");
    if let Some(warmup) = warmup.and_then(|one| seconds(&one.text()?)) {
        balance["slowStart"] = json!(duration(warmup));
    }
    fields.rest(document, output);
    if balance != json!({}) {
        spec["balance"] = balance;
    }
}

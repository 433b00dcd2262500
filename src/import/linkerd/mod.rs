//! Kinds of Linkerd, and the TrafficSplit that it reads.

mod policy;
mod profile;

use serde_json::{Value as Json, json};

use super::mesh::Mesh;
use super::output::{self, Output};
use super::reader::{Document, Place};

pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    match (document.group(), document.kind.as_str()) {
        ("linkerd.io", "ServiceProfile") => profile::import(document, mesh, output),
        ("split.smi-spec.io", "TrafficSplit") => split(document, mesh, output),
        ("policy.linkerd.io", "HTTPRoute") => route(document, output),
        ("policy.linkerd.io", "Server") => policy::server(document, mesh, output),
        ("policy.linkerd.io", "ServerAuthorization") => {
            policy::server_authorization(document, mesh, output);
        }
        ("policy.linkerd.io", "AuthorizationPolicy") => {
            policy::authorization(document, mesh, output);
        }
        // Read where an AuthorizationPolicy names them.
        ("policy.linkerd.io", "MeshTLSAuthentication" | "NetworkAuthentication") => {}
        ("linkerd.io", "ServiceName") => {}
        (_, "EgressNetwork") => {
            let hint = "let callers reach it without the mesh, or write an ExternalService where your weft has that kind";
            let message = "traffic that leaves the mesh has no counterpart";
            output.dropped(document, &document.root(), message, hint);
        }
        (_, "HTTPLocalRateLimitPolicy") => {
            let hint = "write rateLimits in a TrafficPolicy for the Service";
            output.dropped(document, &document.root(), "is left out", hint);
        }
        _ => {
            let hint = "write what it does anew, or remove it";
            output.dropped(
                document,
                &document.root(),
                "this kind has no counterpart",
                hint,
            );
        }
    }
}

/// An HTTPRoute of Linkerd's own group has the fields of Gateway API, with what annotations say of retries
/// and timeouts.
fn route(document: &Document<'_>, output: &mut Output) {
    let parents = document.spec().and_then(|spec| spec.field("parentRefs"));
    let is_of_server = parents.iter().flat_map(Place::items).any(|parent| {
        parent.field("kind").and_then(|kind| kind.text()).as_deref() == Some("Server")
    });
    // Read where an AuthorizationPolicy names it.
    if !is_of_server {
        output::pass(document, output);
    }
    for name in [
        "retry.linkerd.io/http",
        "retry.linkerd.io/grpc",
        "retry.linkerd.io/limit",
        "retry.linkerd.io/timeout",
        "timeout.linkerd.io/request",
        "timeout.linkerd.io/response",
        "timeout.linkerd.io/idle",
    ] {
        if document.annotation(name).is_some() {
            let message = format!("the annotation {name} is left out");
            let hint = "write timeouts and retry in the rule, or in a TrafficPolicy for the route";
            output.dropped(document, &document.root(), &message, hint);
        }
    }
}

fn split(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let Some(spec) = document.spec() else { return };
    let mut fields = spec.fields();
    let service = fields.take("service");
    let name = service.as_ref().and_then(Place::text).unwrap_or_default();
    let key = mesh.service(&name, &document.namespace);
    let Some(key) = key.filter(|key| mesh.knows(key)) else {
        let at = service.unwrap_or(spec);
        let hint = "import the Services of Kubernetes along";
        return output.dropped(document, &at, "is no Service of the files", hint);
    };
    let ports: Vec<u16> = match mesh.ports(&key) {
        [] => vec![80],
        ports => ports
            .iter()
            .filter(|port| port.has_requests())
            .map(|port| port.number)
            .collect(),
    };
    let backends = fields.take("backends");
    if let Some(at) = fields.take("matches") {
        let message = "conditions of a split have no counterpart: the split holds for no request";
        output.dropped(document, &at, message, "write an HTTPRoute with matches");
        return;
    }
    fields.rest(document, output);
    for port in ports {
        let backends = backends.iter().flat_map(Place::items).filter_map(|at| {
            let weight = at.field("weight").and_then(|one| weight(&one.text()?));
            let name = at.field("service")?.text()?;
            Some(json!({ "name": name, "port": port, "weight": weight.unwrap_or(1) }))
        });
        let backends: Vec<Json> = backends.collect();
        let spec = json!({
            "parentRefs": [{ "group": "", "kind": "Service", "name": key.1, "port": port }],
            "rules": [{ "backendRefs": backends }],
        });
        output.add("HTTPRoute", &document.namespace, &document.name, spec);
    }
}

/// `500m` is half, as Kubernetes writes quantities; shares count alone.
fn weight(text: &str) -> Option<u32> {
    match text.strip_suffix('m') {
        Some(millis) => millis.parse().ok(),
        None => text
            .parse::<u32>()
            .ok()?
            .checked_mul(1000)
            .map(|one| one.min(1_000_000)),
    }
}

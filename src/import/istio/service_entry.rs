//! ServiceEntry of Istio, as ExternalService, with the TLS that a DestinationRule begins for its hosts.

use std::net::IpAddr;

use serde_json::{Value as Json, json};
use weft_config::table::{check_label, check_subdomain};

use crate::import::mesh::Mesh;
use crate::import::output::Output;
use crate::import::reader::{Document, Place};

pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let Some(spec) = document.spec() else { return };
    let mut fields = spec.fields();
    if let Some(at) = fields.take("location")
        && at.text().as_deref() == Some("MESH_INTERNAL")
    {
        let message = "is of the mesh: a Service has workloads with identities";
        let hint = "write a Service, and a sidecar or a Workload for each of its endpoints";
        return output.dropped(document, &at, message, hint);
    }
    let hosts_at = fields.take("hosts");
    let hosts = hosts(document, hosts_at.as_ref(), output);
    let endpoints = fields.take("endpoints");
    let addresses = match resolution(document, fields.take("resolution").as_ref(), output) {
        None => return,
        Some(Resolution::Name) => match &endpoints {
            Some(at) if !at.items().is_empty() => {
                let message = "its name is resolved by other names, which weft does not";
                let hint = "name the endpoints as hosts of ExternalServices";
                return output.dropped(document, at, message, hint);
            }
            _ => Vec::new(),
        },
        Some(Resolution::Written) => {
            let Some(found) = addresses(document, endpoints.as_ref(), output) else {
                return;
            };
            found
        }
    };
    let ports = fields.take("ports");
    let mut written = Vec::new();
    for at in ports.iter().flat_map(Place::items) {
        written.extend(port(document, &at, &hosts, mesh, output));
    }
    for ignored in ["addresses", "exportTo", "subjectAltNames"] {
        if let Some(at) = fields.take(ignored) {
            let message = "has no counterpart and is left out: weft captures no traffic, names it to all and proves the host itself";
            output.told(document, &at, message, "");
        }
    }
    fields.rest(document, output);
    if hosts.is_empty() || written.is_empty() {
        let message = "has no host or no port that weft can reach, and is left out";
        return output.dropped(document, &document.root(), message, "");
    }
    let name = match check_label(&document.name) {
        Ok(()) => document.name.clone(),
        Err(_) => document.name.replace('.', "-"),
    };
    let message =
        "callers' sidecars resolve and reach it; an application speaks without TLS to its own";
    output.told(document, &document.root(), message, "see docs/egress.md");
    if addresses.is_empty() {
        // Each name has addresses of its own.
        for host in hosts {
            let spec = json!({ "hosts": [host], "ports": written });
            output.add("ExternalService", &document.namespace, &name, spec);
        }
        return;
    }
    let spec = json!({ "hosts": hosts, "ports": written, "addresses": addresses });
    output.add("ExternalService", &document.namespace, &name, spec);
}

/// Where its addresses come from.
enum Resolution {
    Name,
    Written,
}

fn resolution(
    document: &Document<'_>,
    at: Option<&Place<'_>>,
    output: &mut Output,
) -> Option<Resolution> {
    match at.and_then(Place::text).as_deref() {
        Some("DNS" | "DNS_ROUND_ROBIN") => Some(Resolution::Name),
        Some("STATIC") => Some(Resolution::Written),
        Some(_) | None => {
            let root = document.root();
            let message =
                "goes to whatever address the application dials, which weft does not capture";
            let hint = "write resolution: DNS, if the name leads there";
            output.dropped(document, at.unwrap_or(&root), message, hint);
            None
        }
    }
}

/// The names that weft can take.
fn hosts(document: &Document<'_>, at: Option<&Place<'_>>, output: &mut Output) -> Vec<String> {
    let mut hosts = Vec::new();
    for place in at.into_iter().flat_map(Place::items) {
        let host = place.text().unwrap_or_default().to_ascii_lowercase();
        let is_name = check_subdomain(&host).is_ok() && host.parse::<IpAddr>().is_err();
        match is_name {
            true => hosts.push(host),
            false => {
                let message = "is not one name, and is left out";
                output.dropped(document, &place, message, "name each host");
            }
        }
    }
    hosts
}

/// The addresses of its endpoints; none if weft cannot reach all of them.
fn addresses(
    document: &Document<'_>,
    at: Option<&Place<'_>>,
    output: &mut Output,
) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for place in at.into_iter().flat_map(Place::items) {
        let mut fields = place.fields();
        let address = fields.take("address").and_then(|one| one.text());
        let address = address.and_then(|text| text.parse::<IpAddr>().ok());
        let Some(address) = address else {
            let message = "is no IP address, so this is left out as a whole";
            output.dropped(document, &place, message, "write its addresses");
            return None;
        };
        if let Some(ports) = fields.take("ports") {
            let message =
                "has ports of its own, which weft cannot say: the ports of the service are used";
            output.dropped(document, &ports, message, "");
        }
        fields.rest(document, output);
        all.push(address.to_string());
    }
    if all.is_empty() {
        let root = document.root();
        let message = "has no endpoints, and is left out";
        output.dropped(document, at.unwrap_or(&root), message, "");
        return None;
    }
    Some(all)
}

fn port(
    document: &Document<'_>,
    at: &Place<'_>,
    hosts: &[String],
    mesh: &Mesh,
    output: &mut Output,
) -> Option<Json> {
    let mut fields = at.fields();
    let number_of = |place: Option<Place<'_>>| place?.text()?.parse::<u16>().ok();
    let number = number_of(fields.take("number"));
    let protocol = fields.take("protocol");
    fields.take("name");
    let target = number_of(fields.take("targetPort"));
    fields.rest(document, output);
    let Some(number) = number else {
        output.dropped(document, at, "has no number, and is left out", "");
        return None;
    };
    let protocol = match protocol.as_ref().and_then(Place::text).as_deref() {
        Some("HTTP") => "http",
        Some("HTTP2") => {
            let message = "gets HTTP/1.1: weft speaks HTTP/2 outside of the mesh for gRPC only";
            output.told(document, at, message, "write protocol: grpc, if it is gRPC");
            "http"
        }
        Some("GRPC") => "grpc",
        Some("TCP" | "TLS" | "HTTPS" | "MONGO") | None => "tcp",
        Some(_) => {
            output.dropped(document, at, "weft knows no such protocol", "");
            return None;
        }
    };
    let reached = target.unwrap_or(number);
    if reached != number {
        let message = format!(
            "is {reached} in weft: callers name the port that the service has, and not {number}"
        );
        output.dropped(document, at, &message, "let applications call that port");
    }
    let mut port = json!({ "port": reached, "protocol": protocol });
    let of_hosts = hosts
        .iter()
        .find_map(|host| mesh.externals().tls_of(host, number));
    if let Some(tls) = of_hosts {
        port["tls"] = tls.clone();
    }
    Some(port)
}

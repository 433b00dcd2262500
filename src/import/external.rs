//! What the files of Istio say of hosts outside of the mesh: which there are, and the TLS that a
//! DestinationRule begins for them.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::reader::{Document, Place};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Externals {
    hosts: BTreeSet<String>,
    /// By host; for one port, or for all.
    tls: Vec<(String, Option<u16>, Json)>,
}

impl Externals {
    pub(super) fn note(&mut self, document: &Document<'_>) {
        let Some(spec) = document.spec() else { return };
        if document.kind == "ServiceEntry" {
            let hosts = spec.field("hosts");
            let hosts = hosts.iter().flat_map(Place::texts);
            self.hosts
                .extend(hosts.map(|host| host.to_ascii_lowercase()));
            return;
        }
        let host = spec.field("host").and_then(|one| one.text());
        let host = host.unwrap_or_default().to_ascii_lowercase();
        let Some(policy) = spec.field("trafficPolicy") else {
            return;
        };
        let of_ports = policy.field("portLevelSettings");
        for at in of_ports.iter().flat_map(Place::items) {
            let number = at.field("port").and_then(|port| port.field("number"));
            let number = number.and_then(|one| one.text()?.parse().ok());
            if let (Some(number), Some(tls)) = (number, at.field("tls").and_then(|at| tls(&at))) {
                self.tls.push((host.clone(), Some(number), tls));
            }
        }
        if let Some(tls) = policy.field("tls").and_then(|at| tls(&at)) {
            self.tls.push((host, None, tls));
        }
    }

    /// Whether a ServiceEntry names the host.
    pub(super) fn knows(&self, host: &str) -> bool {
        self.hosts.contains(&host.to_ascii_lowercase())
    }

    /// The TLS towards a port of the host, as weft says it. That of one port comes first.
    pub(super) fn tls_of(&self, host: &str, port: u16) -> Option<&Json> {
        let found = self
            .tls
            .iter()
            .find(|(one, of, _)| one == host && of.is_none_or(|of| of == port));
        found.map(|(_, _, tls)| tls)
    }
}

/// The fields that weft has for it; none if none is begun.
fn tls(at: &Place<'_>) -> Option<Json> {
    let text = |name: &str| at.field(name).and_then(|one| one.text());
    if !matches!(text("mode").as_deref(), Some("SIMPLE" | "MUTUAL")) {
        return None;
    }
    let mut tls = json!({});
    for (theirs, ours) in TLS_FIELDS {
        if let Some(value) = text(theirs) {
            tls[ours] = json!(value);
        }
    }
    Some(tls)
}

/// Fields of TLS that both have.
pub(super) const TLS_FIELDS: [(&str, &str); 4] = [
    ("sni", "serverName"),
    ("caCertificates", "caFile"),
    ("clientCertificate", "certificateFile"),
    ("privateKey", "keyFile"),
];

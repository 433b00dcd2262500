//! Whose spans they are: the resource and the scope of an export, by the semantic conventions of
//! OpenTelemetry. Pure.

use std::collections::BTreeMap;

use weft_transport::identity::SpiffeId;

use super::encode::{self, Value, attribute};

/// The version of the conventions that the spans follow.
const SCHEMA: &[u8] = b"https://opentelemetry.io/schemas/1.44.0";

/// What is known of the process.
#[derive(Debug)]
pub(crate) struct Process<'a> {
    pub(crate) identity: &'a SpiffeId,
    /// The one service that it serves, without its namespace, if there is one.
    pub(crate) service: Option<&'a str>,
    /// The version of the service, if its labels say one.
    pub(crate) version: Option<&'a str>,
    /// Different for each process.
    pub(crate) instance: u128,
}

/// The parts of an export that are always the same.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Fields of `ResourceSpans`.
    resource: Vec<u8>,
    /// Fields of `ScopeSpans`.
    scope: Vec<u8>,
}

impl Frame {
    /// Of a process; what the settings say comes first.
    pub(crate) fn new(process: &Process<'_>, said: &BTreeMap<String, String>) -> Self {
        let mut all: BTreeMap<&str, String> = BTreeMap::new();
        let workload = process.identity.workload();
        let name = process.service.or(workload.map(|one| one.service_account));
        all.insert("service.name", name.unwrap_or("weft-proxy").to_owned());
        if let Some(workload) = workload {
            all.insert("service.namespace", workload.namespace.to_owned());
        }
        if let Some(version) = process.version {
            all.insert("service.version", version.to_owned());
        }
        all.insert("service.instance.id", uuid(process.instance));
        all.insert("telemetry.sdk.name", "weft".to_owned());
        all.insert("telemetry.sdk.language", "rust".to_owned());
        all.insert(
            "telemetry.sdk.version",
            env!("CARGO_PKG_VERSION").to_owned(),
        );
        all.insert("weft.principal", process.identity.as_str().to_owned());
        all.extend(
            said.iter()
                .map(|(name, value)| (name.as_str(), value.clone())),
        );
        let mut attributes = Vec::new();
        for (name, value) in &all {
            attribute(&mut attributes, 1, name, Value::Text(&[value]));
        }
        let mut resource = Vec::new();
        encode::bytes(&mut resource, 1, &attributes);
        let mut named = Vec::new();
        encode::bytes(&mut named, 1, b"weft");
        encode::bytes(&mut named, 2, env!("CARGO_PKG_VERSION").as_bytes());
        let mut scope = Vec::new();
        encode::bytes(&mut scope, 1, &named);
        Self { resource, scope }
    }

    /// An `ExportTraceServiceRequest` of spans that are written as fields of `ScopeSpans`.
    pub(super) fn request(&self, spans: &[Vec<u8>]) -> Vec<u8> {
        let of_spans: usize = spans.iter().map(Vec::len).sum();
        let scope = self.scope.len() + of_spans;
        let resource =
            self.resource.len() + encode::field_length(scope) + encode::field_length(SCHEMA.len());
        let mut request = Vec::with_capacity(encode::field_length(resource));
        encode::begin(&mut request, 1, resource);
        request.extend_from_slice(&self.resource);
        encode::begin(&mut request, 2, scope);
        request.extend_from_slice(&self.scope);
        spans
            .iter()
            .for_each(|spans| request.extend_from_slice(spans));
        encode::bytes(&mut request, 3, SCHEMA);
        request
    }
}

/// As text of RFC 9562, version 4.
fn uuid(random: u128) -> String {
    let set = random & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let text = format!("{set:032x}");
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_random_uuid() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}

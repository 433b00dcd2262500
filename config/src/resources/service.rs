//! `weft.dev/v1alpha1` Service: a name, its ports, and the identities that may serve it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_transport::identity::SpiffeId;

use super::decode::{At, Decoder, Fields};
use super::schema::{Identity, some, word};
use crate::limits;
use crate::table::{PathCase, Protocol};

/// What a Service says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// The ports under which callers know it.
    #[schemars(extend("x-range" = some(limits::PORTS_PER_SERVICE_MAX)))]
    pub ports: Vec<ServicePort>,
    /// The identities that may serve it. A sidecar with another identity cannot register for it, and callers
    /// do not connect to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<Vec<Identity>>",
        extend(
            "x-range" = some(limits::POLICY_TERMS_MAX),
            "x-default" = "`spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME`, by its own namespace and name"
        )
    )]
    pub identities: Option<Vec<SpiffeId>>,
    /// How callers may reach it.
    #[serde(default, skip_serializing_if = "Callers::is_any")]
    #[schemars(extend("x-default" = word(Callers::default())))]
    pub callers: Callers,
    /// Whether its application tells `/admin` from `/ADMIN`. The sidecar needs to know it to apply the paths
    /// of an AuthorizationPolicy.
    #[serde(default, skip_serializing_if = "PathCase::is_sensitive")]
    #[schemars(extend("x-default" = word(PathCase::default())))]
    pub path_case: PathCase,
    /// Whether its sidecars take callers without mutual TLS, too. They come to the listener that a sidecar's
    /// setting `inbound.services[].plaintext_listen` names; a sidecar without that setting takes none.
    #[serde(default, skip_serializing_if = "MutualTls::is_strict")]
    #[schemars(extend("x-default" = word(MutualTls::default())))]
    pub mutual_tls: MutualTls,
}

/// Whether callers must come by mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MutualTls {
    /// every caller proves its identity.
    #[default]
    Strict,
    /// callers that prove none are taken as well, while services move into the mesh. No rule that names
    /// principals allows their calls, and every `Deny` that names some refuses them.
    Permissive,
}

impl MutualTls {
    /// Whether it is the default, which is left out where it is written.
    pub fn is_strict(&self) -> bool {
        *self == Self::Strict
    }
}

/// How a Service may be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Callers {
    /// under its own name, and through a route or a failover that leads to it.
    #[default]
    Any,
    /// only through a route or a failover of another Service that leads to it. The policies of that other
    /// Service then count for every call.
    RouteOnly,
}

impl ServicePort {
    /// Whether its application takes every request over HTTP/2 with prior knowledge, beside `protocol`.
    pub(crate) fn is_h2c(&self) -> bool {
        matches!(
            self.app_protocol.as_deref(),
            Some("kubernetes.io/h2c" | "http2")
        )
    }
}

impl Callers {
    /// Whether it is the default, which is left out where it is written.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServicePort {
    /// Its number. Callers use it; where the application listens is a setting of the sidecar that serves.
    #[schemars(extend("x-range" = "1 to 65535"))]
    pub port: u16,
    /// Its name, a DNS-1123 label, by which a route may name it as `sectionName`. No other port of the
    /// Service has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 63 characters"))]
    pub name: Option<String>,
    /// What applications speak on it.
    pub protocol: Protocol,
    /// The same in the words of Kubernetes, such as `http`, `grpc`, `kubernetes.io/h2c` or
    /// `kubernetes.io/ws`. It must agree with `protocol`. With `kubernetes.io/h2c` or `http2`, the
    /// application gets every request over HTTP/2 with prior knowledge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters"))]
    pub app_protocol: Option<String>,
}

pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ServiceSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let ports = fields.require(decoder, "ports").map(|at| {
        let items = decoder.list_of_some(&at, limits::PORTS_PER_SERVICE_MAX);
        items
            .iter()
            .filter_map(|item| port(decoder, item))
            .collect()
    });
    let identities = fields.take("identities").map(|at| {
        let items = decoder.list_of_some(&at, limits::POLICY_TERMS_MAX);
        let example = "write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT";
        items
            .iter()
            .filter_map(|item| decoder.parsed(item, example))
            .collect()
    });
    let callers = [("Any", Callers::Any), ("RouteOnly", Callers::RouteOnly)];
    let callers = fields
        .take("callers")
        .and_then(|at| decoder.choice(&at, &callers));
    let cases = [
        ("sensitive", PathCase::Sensitive),
        ("insensitive", PathCase::Insensitive),
    ];
    let path_case = fields
        .take("pathCase")
        .and_then(|at| decoder.choice(&at, &cases));
    let modes = [
        ("Strict", MutualTls::Strict),
        ("Permissive", MutualTls::Permissive),
    ];
    let mutual_tls = fields
        .take("mutualTls")
        .and_then(|at| decoder.choice(&at, &modes));
    fields.close(decoder);
    Some(ServiceSpec {
        ports: ports?,
        identities,
        callers: callers.unwrap_or_default(),
        path_case: path_case.unwrap_or_default(),
        mutual_tls: mutual_tls.unwrap_or_default(),
    })
}

fn port(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ServicePort> {
    let mut fields = Fields::open(decoder, at)?;
    let number = fields
        .require(decoder, "port")
        .and_then(|at| port_number(decoder, &at));
    let protocol = fields
        .require(decoder, "protocol")
        .and_then(|at| protocol(decoder, &at));
    let name = fields.take("name").map(|at| super::label(decoder, &at));
    let app_protocol = fields
        .take("appProtocol")
        .map(|at| app_protocol(decoder, &at, protocol));
    fields.refuse(
        decoder,
        "targetPort",
        "the sidecar's settings say where the application listens",
    );
    fields.close(decoder);
    // What could not be read must not mean the same as what is not there.
    let (name, app_protocol) = match (name, app_protocol) {
        (Some(None), _) | (_, Some(None)) => return None,
        (name, app_protocol) => (name.flatten(), app_protocol.flatten()),
    };
    Some(ServicePort {
        port: number?,
        name,
        protocol: protocol?,
        app_protocol,
    })
}

/// Reads `appProtocol`, which must agree with the protocol. Names that Kubernetes does not define say nothing
/// of that.
fn app_protocol(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    protocol: Option<Protocol>,
) -> Option<String> {
    let text = decoder.text(at)?;
    if text.is_empty() || text.chars().count() > limits::SUBDOMAIN_LENGTH_MAX {
        let most = limits::SUBDOMAIN_LENGTH_MAX;
        decoder.error(at, format!("has 1 to {most} characters"), None);
        return None;
    }
    let agrees: &[Protocol] = match text.as_str() {
        "http" | "kubernetes.io/ws" => &[Protocol::Http],
        "grpc" => &[Protocol::Grpc],
        "kubernetes.io/h2c" | "http2" => &[Protocol::Http, Protocol::Grpc],
        "https" | "tls" | "tcp" | "kubernetes.io/wss" => &[Protocol::Tcp],
        _ => return Some(text),
    };
    if let Some(protocol) = protocol
        && !agrees.contains(&protocol)
    {
        let hint = format!("write protocol: {}, or another appProtocol", agrees[0]);
        let message = format!("{text} does not agree with protocol: {protocol}");
        decoder.error(at, message, Some(hint));
        return None;
    }
    Some(text)
}

pub(super) fn port_number(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<u16> {
    decoder
        .integer(at, 1, u16::MAX.into())
        .and_then(|number| u16::try_from(number).ok())
}

pub(super) fn protocol(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<Protocol> {
    if let crate::yaml::Value::Text(text) = &at.node.value
        && matches!(text.as_str(), "udp" | "auto")
    {
        let message = format!("protocol {text} is not supported yet");
        decoder.error(at, message, Some("use http, grpc or tcp".to_owned()));
        return None;
    }
    decoder.choice(
        at,
        &[
            ("http", Protocol::Http),
            ("grpc", Protocol::Grpc),
            ("tcp", Protocol::Tcp),
        ],
    )
}

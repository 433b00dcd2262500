//! `weft.dev/v1alpha1` Service: a name, its ports, and who may serve it.

use serde::{Deserialize, Serialize};
use weft_transport::identity::SpiffeId;

use super::decode::{At, Decoder, Fields};
use crate::limits;
use crate::table::{PathCase, Protocol};

/// What a Service says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Its ports; at least one.
    pub ports: Vec<ServicePort>,
    /// Identities that may serve it; absent means `ns/<namespace>/sa/<name>` of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<Vec<SpiffeId>>,
    /// How it may be reached.
    #[serde(default, skip_serializing_if = "Callers::is_any")]
    pub callers: Callers,
    /// How its application takes the case of paths, which policies must know.
    #[serde(default, skip_serializing_if = "PathCase::is_sensitive")]
    pub path_case: PathCase,
}

/// How a Service may be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Callers {
    /// Under its own name, and as a backend.
    #[default]
    Any,
    /// As a backend of a route, or where it takes over for another Service: the policies of the Service that
    /// was addressed always count.
    RouteOnly,
}

impl Callers {
    /// Whether it is the default, which is left out where it is written.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServicePort {
    /// Its number.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
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
    fields.close(decoder);
    Some(ServiceSpec {
        ports: ports?,
        identities,
        callers: callers.unwrap_or_default(),
        path_case: path_case.unwrap_or_default(),
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
    fields.refuse(decoder, "name", "name the port by its number");
    fields.refuse(
        decoder,
        "targetPort",
        "the sidecar's settings say where the application listens",
    );
    fields.close(decoder);
    Some(ServicePort {
        port: number?,
        protocol: protocol?,
    })
}

pub(super) fn port_number(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<u16> {
    decoder
        .integer(at, 1, u16::MAX.into())
        .and_then(|number| u16::try_from(number).ok())
}

fn protocol(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<Protocol> {
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

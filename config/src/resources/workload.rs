//! `weft.dev/v1alpha1` Workload: a peer of the mesh that does not register by itself, such as a sidecar that
//! cannot reach the config service, or another implementation of the protocol. It names the peer's mesh port
//! and the identity that the peer must prove there: no Workload makes callers send anything in plaintext.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_transport::identity::SpiffeId;

use super::decode::{At, Decoder, Fields};
use super::schema::{Identity, numbers, some, up_to};
use super::{label, service};
use crate::limits;
use crate::table::{Details, Labels, Locality, Weight};

/// What a Workload says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// Where the peer listens for the mesh (UDP), for every caller.
    #[schemars(with = "String", extend("x-range" = "`IP:PORT`"))]
    pub address: SocketAddr,
    /// The identity that the peer must prove there. Each Service in `services` has to name it in its
    /// `identities`.
    #[schemars(with = "Identity")]
    pub identity: SpiffeId,
    /// What it serves. Its applications take calls for as long as the Workload exists: nothing tells the mesh
    /// of their health but the calls themselves.
    #[schemars(extend("x-range" = some(limits::WORKLOAD_PORTS_MAX)))]
    pub services: Vec<ServedPort>,
    /// Where it runs, from the region inwards. Calls stay near, as with the setting `locality` of a sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<String>",
        extend("x-range" = "one to three parts, as `eu-west/eu-west-1a`", "x-default" = "unknown")
    )]
    pub locality: Option<Locality>,
    /// Its share of requests, in percent of that of an endpoint that says nothing.
    #[serde(default, skip_serializing_if = "Weight::is_ordinary")]
    #[schemars(
        with = "u16",
        extend("x-range" = numbers(&limits::ENDPOINT_WEIGHT), "x-default" = "100")
    )]
    pub weight: Weight,
    /// Labels for people and tools, which `weft endpoints` shows.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schemars(
        with = "std::collections::BTreeMap<String, String>",
        extend("x-range" = up_to(limits::ENDPOINT_LABELS_MAX), "x-default" = "none")
    )]
    pub metadata: Labels,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServedPort {
    /// The name of a Service of the same namespace.
    #[schemars(extend("x-range" = "1 to 63 characters"))]
    pub name: String,
    /// A port of it.
    #[schemars(extend("x-range" = "1 to 65535"))]
    pub port: u16,
}

impl WorkloadSpec {
    /// What callers learn of it.
    pub(crate) fn details(&self) -> Details {
        Details {
            weight: self.weight,
            metadata: self.metadata.clone(),
        }
    }
}

pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<WorkloadSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let address = fields
        .require(decoder, "address")
        .and_then(|at| address(decoder, &at));
    let identity = fields
        .require(decoder, "identity")
        .and_then(|at| decoder.parsed(&at, "write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"));
    let services = fields.require(decoder, "services").map(|at| {
        let items = decoder.list_of_some(&at, limits::WORKLOAD_PORTS_MAX);
        let read = items.iter().filter_map(|item| served(decoder, item));
        read.collect()
    });
    let locality = fields
        .take("locality")
        .map(|at| decoder.parsed(&at, "write REGION/ZONE, as eu-west/eu-west-1a"));
    let weight = fields.take("weight").map(|at| weight(decoder, &at));
    let metadata = fields.take("metadata").map(|at| {
        let labels = decoder.texts(&at);
        let checked = Labels::try_from(labels);
        checked
            .map_err(|error| decoder.error(&at, error.to_string(), None))
            .ok()
    });
    fields.close(decoder);
    Some(WorkloadSpec {
        address: address?,
        identity: identity?,
        services: services?,
        locality: match locality {
            Some(locality) => Some(locality?),
            None => None,
        },
        weight: match weight {
            Some(weight) => weight?,
            None => Weight::default(),
        },
        metadata: match metadata {
            Some(metadata) => metadata?,
            None => Labels::default(),
        },
    })
}

fn address(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<SocketAddr> {
    let example = "write IP:PORT, as 10.9.0.7:6143";
    let address: SocketAddr = decoder.parsed(at, example)?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        let message = format!("{address} is not the address of one peer");
        decoder.error(at, message, Some(example.to_owned()));
        return None;
    }
    Some(address)
}

fn served(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ServedPort> {
    let mut fields = Fields::open(decoder, at)?;
    let name = fields
        .require(decoder, "name")
        .and_then(|at| label(decoder, &at));
    let port = fields
        .require(decoder, "port")
        .and_then(|at| service::port_number(decoder, &at));
    fields.close(decoder);
    Some(ServedPort {
        name: name?,
        port: port?,
    })
}

fn weight(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<Weight> {
    let range = &limits::ENDPOINT_WEIGHT;
    let (least, most) = ((*range.start()).into(), (*range.end()).into());
    Weight::try_from(decoder.integer(at, least, most)?).ok()
}

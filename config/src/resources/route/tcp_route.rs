//! `gateway.networking.k8s.io/v1` TCPRoute.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backends::{BackendRef, Extras, WeighedRef, backends};
use super::parents::{ParentRef, parents};
use super::section;
use crate::limits;
use crate::resources::decode::{At, Decoder, Fields, all_or_none};
use crate::resources::schema::some;

/// What a TCPRoute says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TcpRouteSpec {
    /// The Services whose connections it routes: their ports of `tcp`.
    #[schemars(extend("x-range" = some(limits::PARENTS_PER_ROUTE_MAX)))]
    pub parent_refs: Vec<ParentRef>,
    /// Its rule. Of several routes for one port, the oldest acts.
    #[schemars(extend("x-range" = "1"))]
    pub rules: Vec<TcpRouteRule>,
}

/// The rule of a TCPRoute or of a TLSRoute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TcpRouteRule {
    /// A name for people, a DNS-1123 subdomain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters"))]
    pub name: Option<String>,
    /// The Services to which the connections go, each by its weight.
    #[schemars(with = "Vec<WeighedRef>", extend("x-range" = some(limits::BACKENDS_PER_RULE_MAX)))]
    pub backend_refs: Vec<BackendRef>,
}

pub(in crate::resources) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<TcpRouteSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let parent_refs = parents(decoder, &mut fields);
    let rules = rules(decoder, &mut fields);
    fields.close(decoder);
    Some(TcpRouteSpec {
        parent_refs: parent_refs?,
        rules: rules?,
    })
}

/// Reads the one rule of a route of connections.
pub(super) fn rules(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
) -> Option<Vec<TcpRouteRule>> {
    let at = fields.require(decoder, "rules")?;
    let items = decoder.list_of_some(&at, 1);
    let read = items.iter().filter_map(|item| rule(decoder, item));
    Some(read.collect())
}

fn rule(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<TcpRouteRule> {
    let mut fields = Fields::open(decoder, at)?;
    let name = fields.take("name").map(|at| section(decoder, &at));
    let backends_at = fields.require(decoder, "backendRefs");
    if let Some(at) = &backends_at {
        decoder.some(at);
    }
    let backend_refs = backends(decoder, &mut fields, Extras::Weight);
    fields.close(decoder);
    backends_at?;
    Some(TcpRouteRule {
        name: all_or_none(name)?,
        backend_refs,
    })
}

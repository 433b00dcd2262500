//! `gateway.networking.k8s.io/v1` TLSRoute: connections of TLS by the name that their client asks for, passed
//! through as they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backends::{BackendRef, Extras, WeighedRef, backends};
use super::parents::{ParentRef, all_or_none, parents};
use super::section;
use crate::limits;
use crate::resources::decode::{At, Decoder, Fields};
use crate::resources::schema::some;
use crate::table::HostPattern;

/// What a TLSRoute says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsRouteSpec {
    /// The Services whose connections it routes: their ports of `tcp`.
    #[schemars(extend("x-range" = some(limits::PARENTS_PER_ROUTE_MAX)))]
    pub parent_refs: Vec<ParentRef>,
    /// The names that clients ask for (SNI), as `shop.example.com`, or `*.example.com` for every name below
    /// that, of one or more labels. Of several that fit, a whole name is before one with `*`, and a longer
    /// one before a shorter.
    #[schemars(with = "Vec<String>", extend("x-range" = some(limits::HOSTNAMES_PER_ROUTE_MAX)))]
    pub hostnames: Vec<HostPattern>,
    /// Its rule. Of several routes with one name, the oldest acts.
    #[schemars(extend("x-range" = "1"))]
    pub rules: Vec<TlsRouteRule>,
}

/// The rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsRouteRule {
    /// A name for people, a DNS-1123 subdomain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters"))]
    pub name: Option<String>,
    /// The Services to which the connections go, each by its weight.
    #[schemars(with = "Vec<WeighedRef>", extend("x-range" = some(limits::BACKENDS_PER_RULE_MAX)))]
    pub backend_refs: Vec<BackendRef>,
}

pub(in crate::resources) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<TlsRouteSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let parent_refs = parents(decoder, &mut fields);
    let hostnames = fields.require(decoder, "hostnames").map(|at| {
        let items = decoder.list_of_some(&at, limits::HOSTNAMES_PER_ROUTE_MAX);
        let hint = "write a name as shop.example.com or *.example.com, in lower case";
        let read = items.iter().filter_map(|item| decoder.parsed(item, hint));
        read.collect()
    });
    let rules = fields.require(decoder, "rules").map(|at| {
        let items = decoder.list_of_some(&at, 1);
        let read = items.iter().filter_map(|item| rule(decoder, item));
        read.collect()
    });
    fields.close(decoder);
    Some(TlsRouteSpec {
        parent_refs: parent_refs?,
        hostnames: hostnames?,
        rules: rules?,
    })
}

fn rule(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<TlsRouteRule> {
    let mut fields = Fields::open(decoder, at)?;
    let name = fields.take("name").map(|at| section(decoder, &at));
    let backends_at = fields.require(decoder, "backendRefs");
    if let Some(at) = &backends_at {
        decoder.some(at);
    }
    let backend_refs = backends(decoder, &mut fields, Extras::Weight);
    fields.close(decoder);
    backends_at?;
    Some(TlsRouteRule {
        name: all_or_none(name)?,
        backend_refs,
    })
}

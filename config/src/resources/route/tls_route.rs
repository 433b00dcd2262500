//! `gateway.networking.k8s.io/v1` TLSRoute: connections of TLS by the name that their client asks for, passed
//! through as they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parents::{ParentRef, parents};
use super::tcp_route::{TcpRouteRule, rules};
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
    pub rules: Vec<TcpRouteRule>,
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
    let rules = rules(decoder, &mut fields);
    fields.close(decoder);
    Some(TlsRouteSpec {
        parent_refs: parent_refs?,
        hostnames: hostnames?,
        rules: rules?,
    })
}

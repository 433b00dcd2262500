//! `gateway.networking.k8s.io/v1` ReferenceGrant: who may refer to resources of its namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{At, Decoder, Fields};
use super::label;
use super::schema::some;
use crate::limits;

/// What a ReferenceGrant says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceGrantSpec {
    /// Who may refer: any of these.
    #[schemars(extend("x-range" = some(limits::GRANT_TERMS_MAX)))]
    pub from: Vec<GrantFrom>,
    /// To what, in the namespace of the grant: any of these.
    #[schemars(extend("x-range" = some(limits::GRANT_TERMS_MAX)))]
    pub to: Vec<GrantTo>,
}

/// A kind of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantFrom {
    /// The API group of what refers: `gateway.networking.k8s.io` for routes.
    #[schemars(extend("x-range" = "up to 253 characters"))]
    pub group: String,
    /// Its kind, such as `HTTPRoute`.
    #[schemars(extend("x-range" = "1 to 63 characters"))]
    pub kind: String,
    /// Its namespace.
    #[schemars(extend("x-range" = "1 to 63 characters"))]
    pub namespace: String,
}

/// A kind of the grant's namespace, or one resource of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantTo {
    /// The API group of what is referred to: `""` for a Service, `weft.dev` for an ExternalService.
    #[schemars(extend("x-range" = "up to 253 characters"))]
    pub group: String,
    /// Its kind: `Service` or `ExternalService`.
    #[schemars(extend("x-range" = "1 to 63 characters"))]
    pub kind: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters", "x-default" = "all of that kind"))]
    pub name: Option<String>,
}

pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ReferenceGrantSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let from = fields.require(decoder, "from").map(|at| {
        let items = decoder.list_of_some(&at, limits::GRANT_TERMS_MAX);
        let read = items.iter().filter_map(|item| {
            let mut fields = Fields::open(decoder, item)?;
            let group = text(decoder, &mut fields, "group");
            let kind = text(decoder, &mut fields, "kind");
            let namespace = fields
                .require(decoder, "namespace")
                .and_then(|at| label(decoder, &at));
            fields.close(decoder);
            Some(GrantFrom {
                group: group?,
                kind: kind?,
                namespace: namespace?,
            })
        });
        read.collect()
    });
    let to = fields.require(decoder, "to").map(|at| {
        let items = decoder.list_of_some(&at, limits::GRANT_TERMS_MAX);
        let read = items.iter().filter_map(|item| {
            let mut fields = Fields::open(decoder, item)?;
            let group = text(decoder, &mut fields, "group");
            let kind = text(decoder, &mut fields, "kind");
            let name = fields.take("name").map(|at| decoder.text(&at));
            fields.close(decoder);
            Some(GrantTo {
                group: group?,
                kind: kind?,
                name: match name {
                    Some(name) => Some(name?),
                    None => None,
                },
            })
        });
        read.collect()
    });
    fields.close(decoder);
    Some(ReferenceGrantSpec {
        from: from?,
        to: to?,
    })
}

fn text(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>, name: &'static str) -> Option<String> {
    let at = fields.require(decoder, name)?;
    decoder.text(&at)
}

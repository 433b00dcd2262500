//! `weft.dev/v1alpha1` MeshConfig: what holds for the whole mesh. There is at most one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{At, Decoder, Fields};
use super::traffic::{TrafficSpec, decode_traffic};
use crate::table;

/// What a MeshConfig says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MeshConfigSpec {
    /// Who may call a Service that no AuthorizationPolicy with `action: Allow` targets. A mesh
    /// without a MeshConfig has `Allow`.
    #[serde(default = "allow")]
    pub default_authorization: table::Default,
    /// How traffic is treated where no TrafficPolicy says otherwise: the fields of a
    /// [TrafficPolicy](TrafficPolicy.md#fields), all but `targetRefs`.
    #[serde(default, skip_serializing_if = "is_silent")]
    #[schemars(with = "Map")]
    pub traffic: TrafficSpec,
}

/// Fields that another page describes.
type Map = std::collections::BTreeMap<String, serde_json::Value>;

fn is_silent(traffic: &TrafficSpec) -> bool {
    *traffic == TrafficSpec::default()
}

fn allow() -> table::Default {
    table::Default::Allow
}

pub(super) fn decode(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<MeshConfigSpec> {
    let mut fields = Fields::open(decoder, at)?;
    let choices = [
        ("Allow", table::Default::Allow),
        ("Deny", table::Default::Deny),
    ];
    let default_authorization = match fields.take("defaultAuthorization") {
        Some(at) => decoder.choice(&at, &choices),
        None => Some(allow()),
    };
    let traffic = fields
        .take("traffic")
        .and_then(|at| decode_traffic(decoder, &at));
    fields.close(decoder);
    Some(MeshConfigSpec {
        default_authorization: default_authorization?,
        traffic: traffic.unwrap_or_default(),
    })
}

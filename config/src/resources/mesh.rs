//! `weft.dev/v1alpha1` MeshConfig: what holds for the whole mesh. There is at most one.

use serde::{Deserialize, Serialize};

use super::decode::{At, Decoder, Fields};
use super::traffic::{TrafficSpec, decode_traffic};
use crate::table;

/// What a MeshConfig says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MeshConfigSpec {
    /// Whether a Service that no Allow policy targets may be called. Allow without a MeshConfig.
    #[serde(default = "allow")]
    pub default_authorization: table::Default,
    /// How traffic is treated where no TrafficPolicy says otherwise.
    #[serde(default, skip_serializing_if = "is_silent")]
    pub traffic: TrafficSpec,
}

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

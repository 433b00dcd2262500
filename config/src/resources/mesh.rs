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
    /// Who may call a Service that no AuthorizationPolicy with `action: Allow` targets. A mesh without a
    /// MeshConfig has `Allow`.
    #[serde(default = "allow")]
    pub default_authorization: table::Default,
    /// Whether a route may refer to a Service of another namespace only if a
    /// [ReferenceGrant](ReferenceGrant.md) there permits it. Without it, routes of a mesh need none
    /// (GEP-1294): AuthorizationPolicies say who may call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_reference_grants: bool,
    /// What becomes of a request of an application for a name that is no Service and no
    /// [ExternalService](ExternalService.md) of the mesh.
    #[serde(default, skip_serializing_if = "table::Egress::is_deny")]
    #[schemars(extend("x-default" = super::schema::word(table::Egress::default())))]
    pub egress: table::Egress,
    /// How traffic is treated where no TrafficPolicy says otherwise: the fields of a
    /// [TrafficPolicy](TrafficPolicy.md#fields), all but `targetRefs`.
    #[serde(default, skip_serializing_if = "is_silent")]
    #[schemars(with = "Map")]
    pub traffic: TrafficSpec,
}

/// Fields that another page describes.
type Map = std::collections::BTreeMap<String, serde_json::Value>;

impl MeshConfigSpec {
    /// Writes out what a MeshConfig that is applied leaves to the default, where the default has changed
    /// since the MeshConfig that it replaces was written: `traffic.concurrency.adaptive`. A MeshConfig that
    /// does not name it is from before and means `Observe`, until it is told.
    pub(crate) fn complete(&mut self, before: Option<&Self>) {
        let adaptive = &mut self.traffic.concurrency.adaptive;
        if before.is_none_or(|before| before.traffic.concurrency.adaptive.is_some()) {
            adaptive.get_or_insert(table::Mode::Enforce);
        }
    }
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
    let require_reference_grants = match fields.take("requireReferenceGrants") {
        Some(at) => decoder.truth(&at),
        None => Some(false),
    };
    let modes = [
        ("Deny", table::Egress::Deny),
        ("Observe", table::Egress::Observe),
        ("Allow", table::Egress::Allow),
    ];
    let egress = match fields.take("egress") {
        Some(at) => decoder.choice(&at, &modes),
        None => Some(table::Egress::default()),
    };
    let traffic = fields
        .take("traffic")
        .and_then(|at| decode_traffic(decoder, &at));
    fields.close(decoder);
    Some(MeshConfigSpec {
        default_authorization: default_authorization?,
        require_reference_grants: require_reference_grants?,
        egress: egress?,
        traffic: traffic.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use table::Mode::{Enforce, Observe};

    #[test]
    fn a_new_mesh_config_enforces_the_adaptive_limit_and_an_old_one_observes_until_it_names_a_mode()
    {
        let saying = |adaptive| {
            let mut spec = MeshConfigSpec {
                default_authorization: allow(),
                require_reference_grants: false,
                egress: table::Egress::default(),
                traffic: TrafficSpec::default(),
            };
            spec.traffic.concurrency.adaptive = adaptive;
            spec
        };
        let applied = |says, before: Option<MeshConfigSpec>| {
            let mut spec = saying(says);
            spec.complete(before.as_ref());
            spec.traffic.concurrency.adaptive
        };
        assert_eq!(applied(None, None), Some(Enforce));
        assert_eq!(applied(Some(Observe), None), Some(Observe));
        assert_eq!(applied(None, Some(saying(None))), None);
        assert_eq!(applied(Some(Enforce), Some(saying(None))), Some(Enforce));
        assert_eq!(applied(None, Some(saying(Some(Observe)))), Some(Enforce));
    }
}

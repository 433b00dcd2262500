//! What the mesh makes of a route, in the words of Gateway API v1 (`status.parents`). [`crate::status`]
//! judges.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ParentRef;

/// What the mesh makes of a route (Gateway API v1, RouteStatus).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// What each of its parents makes of it.
    pub parents: Vec<ParentStatus>,
}

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
    pub reason: ConditionReason,
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
    /// Some rules are in force, and some are left out, as they are not valid. Only set where it is true: of a
    /// route that was applied so.
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
pub enum ConditionReason {
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

//! What the mesh makes of a route, as Gateway API v1 says it in `status.parents`: for each parent whether the route is in
//! force there, and whether its references lead somewhere. Pure; the same code that compiles tables answers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::compile::attachments::{Act, Attachments, Fit};
use crate::compile::references::References;
use crate::resources::{Key, Metadata, ParentRef, Route, Set};
use crate::table::Broken;

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
    /// Some rules are in force, and some are not. weft refuses such a document as a whole when it is applied, so it
    /// is never set on what is in force.
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
pub fn route_status(set: &Set, key: &Key) -> Vec<ParentStatus> {
    match set.route(key) {
        Some(route) => Judge::new(set).parents(&route),
        None => Vec::new(),
    }
}

/// The status of every route, which costs as much as that of one.
pub fn route_statuses(set: &Set) -> BTreeMap<Key, Vec<ParentStatus>> {
    let judge = Judge::new(set);
    let routes = set.routes();
    routes
        .map(|route| (route.key.clone(), judge.parents(&route)))
        .collect()
}

struct Judge<'a> {
    attachments: Attachments<'a>,
    references: References<'a>,
}

impl<'a> Judge<'a> {
    fn new(set: &'a Set) -> Self {
        Self {
            attachments: Attachments::new(set),
            references: References::new(set),
        }
    }

    fn parents(&self, route: &Route<'a>) -> Vec<ParentStatus> {
        let resolved = self.resolved(route);
        let entries = route.parents.iter().filter_map(|parent| {
            let accepted = self.accepted(route, parent)?;
            Some(ParentStatus {
                parent_ref: parent.clone(),
                controller_name: CONTROLLER_NAME.to_owned(),
                conditions: vec![accepted, resolved.clone()],
            })
        });
        entries.collect()
    }

    /// Whether the route is in force at a parent; `None` if there is no such parent.
    fn accepted(&self, route: &Route<'a>, parent: &'a ParentRef) -> Option<Condition> {
        let (reason, message) = match self.attachments.fit(route, parent) {
            Fit::NoService => return None,
            Fit::NoPort(misfit) => (
                Reason::NoMatchingParent,
                format!("{}; {}", misfit.message, misfit.hint),
            ),
            Fit::Ports(ports) => {
                let mut conflicts = Vec::new();
                let mut younger = None;
                let all = ports.len();
                for port in ports {
                    match self.attachments.act(route, parent, port) {
                        Act::Acts => {}
                        Act::Conflicts(other) => conflicts.push((port, other)),
                        Act::IsYounger(other) => younger = Some((port, other)),
                    }
                }
                let acts = |(port, other): (u16, &Key)| format!("{other} acts on port {port}");
                match (conflicts.first(), younger) {
                    (Some(first), _) if conflicts.len() == all => {
                        let message =
                            format!("{}, and routes of one kind act on a port", acts(*first));
                        (Reason::Conflicted, message)
                    }
                    (Some(first), _) => (
                        Reason::Accepted,
                        format!("in force, but not everywhere: {}", acts(*first)),
                    ),
                    // Gateway API v1, TCPRouteSpec.rules: accepted as well, though the oldest route acts.
                    (None, Some(first)) => (
                        Reason::Accepted,
                        format!("attached, and {}, as the older one", acts(first)),
                    ),
                    (None, None) => (Reason::Accepted, "in force".to_owned()),
                }
            }
        };
        let status = ConditionStatus::of(reason == Reason::Accepted);
        Some(condition(
            route,
            ConditionType::Accepted,
            status,
            reason,
            message,
        ))
    }

    /// Whether all references of the route lead somewhere, mirrors and filters of other APIs included.
    fn resolved(&self, route: &Route<'a>) -> Condition {
        let mut faults = Vec::new();
        for reference in route.references() {
            if let Err(error) = self.references.resolve(route.key, reference.to) {
                let reason = match error.broken {
                    Broken::InvalidKind => Reason::InvalidKind,
                    Broken::BackendNotFound => Reason::BackendNotFound,
                    Broken::RefNotPermitted => Reason::RefNotPermitted,
                    Broken::UnsupportedProtocol => Reason::UnsupportedProtocol,
                };
                faults.push((reason, format!("{}: {}", reference.field, error.message)));
            }
        }
        for (i, rule) in route.rules().enumerate() {
            let of_backends = rule.backends.iter().flat_map(|backend| &backend.filters);
            let extensions = rule.filters.iter().chain(of_backends);
            for to in extensions.filter_map(|one| one.extension_ref.as_ref()) {
                let message = format!(
                    "spec.rules[{i}]: weft knows no filter {} {}",
                    to.kind, to.name
                );
                faults.push((Reason::InvalidKind, message));
            }
        }
        let (status, reason, message) = match faults.first() {
            None => (
                ConditionStatus::True,
                Reason::ResolvedRefs,
                "every reference leads somewhere".to_owned(),
            ),
            Some((reason, first)) => {
                let message = match faults.len() {
                    1 => first.clone(),
                    more => format!("{first} (and {} more)", more - 1),
                };
                (ConditionStatus::False, *reason, message)
            }
        };
        condition(route, ConditionType::ResolvedRefs, status, reason, message)
    }
}

impl ConditionStatus {
    fn of(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

fn condition(
    route: &Route<'_>,
    kind: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: String,
) -> Condition {
    Condition {
        kind,
        status,
        reason,
        message,
        observed_generation: observed(route.metadata),
    }
}

/// The generation of what was judged, where the resource has one.
fn observed(_metadata: &Metadata) -> Option<i64> {
    None
}

#[cfg(test)]
mod tests;

//! What the mesh makes of a route, as Gateway API v1 says it in `status.parents`: for each parent whether the
//! route is in force there, and whether its references lead somewhere. Pure; the same code that compiles
//! tables answers.

use std::collections::BTreeMap;

use crate::compile::attachments::{Act, Attachments, Fit};
use crate::compile::references::References;
use crate::resources::{Key, Metadata, ParentRef, Route, Set};
use crate::table::Broken;

pub use crate::resources::{
    CONTROLLER_NAME, Condition, ConditionReason as Reason, ConditionStatus, ConditionType,
    ParentStatus,
};

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
            // Gateway API v1, RouteConditionPartiallyInvalid: only beside an Accepted that holds.
            let partly = match accepted.status {
                ConditionStatus::True => partially_invalid(route),
                ConditionStatus::False => None,
            };
            let conditions = [accepted, resolved.clone()].into_iter().chain(partly);
            Some(ParentStatus {
                parent_ref: parent.clone(),
                controller_name: CONTROLLER_NAME.to_owned(),
                conditions: conditions.collect(),
            })
        });
        entries.collect()
    }

    /// Whether the route is in force at a parent; `None` if there is no such parent.
    fn accepted(&self, route: &Route<'a>, parent: &'a ParentRef) -> Option<Condition> {
        let (reason, message) = match self.attachments.fit(route, parent) {
            Fit::NoService => return None,
            Fit::NoRule => (
                Reason::UnsupportedValue,
                format!(
                    "no rule is valid, so requests go as if there were no route: {}",
                    faults(route)
                ),
            ),
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
        for (i, rule) in route.rules() {
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

/// Set where some rules are left out. The message begins as Gateway API v1 has it.
fn partially_invalid(route: &Route<'_>) -> Option<Condition> {
    route.dropped().next()?;
    Some(condition(
        route,
        ConditionType::PartiallyInvalid,
        ConditionStatus::True,
        Reason::UnsupportedValue,
        format!("Dropped Rule {}", faults(route)),
    ))
}

/// Of each rule that is left out, what is wrong with it.
fn faults(route: &Route<'_>) -> String {
    let faults: Vec<&str> = route.dropped().map(|one| one.dropped.as_str()).collect();
    faults.join("; ")
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
fn observed(metadata: &Metadata) -> Option<i64> {
    metadata.generation
}

#[cfg(test)]
mod tests;

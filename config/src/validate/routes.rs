//! Routes: are they in force where they are attached, and do their references lead somewhere? What does not
//! is accepted, as Gateway API has it, and answered as it says; here are the warnings of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::compile::attachments::{Act, Attachments, Fit, group, parent_name, precedence};
use crate::compile::references::{References, Unresolved, target};
use crate::findings::Severity;
use crate::resources::{
    BackendRef, FilterType, HttpRouteMatch, Key, Kind, ParentRef, Route, Rule, RuleEntry, Rules,
};
use crate::table::{Broken, HttpMatch, ServiceName};

impl Check<'_> {
    pub(super) fn routes(&mut self) {
        let set = self.set;
        let (attachments, references) = (Attachments::new(set), References::new(set));
        for route in set.routes() {
            for (i, parent) in route.parents.iter().enumerate() {
                self.parent(
                    &attachments,
                    &route,
                    parent,
                    &format!("spec.parentRefs[{i}]"),
                );
            }
            for reference in route.references() {
                let to = target(route.key, reference.to);
                if let Err(error) = references.resolve(route.key, reference.to)
                    && !self.is_broken(&to.namespace, &to.name)
                {
                    self.unresolved(&route, &reference.field, (reference.to, &to), &error);
                }
            }
            for (i, rule) in route.rules() {
                self.without_backend(&route, &format!("spec.rules[{i}]"), &rule);
            }
            self.bypasses(&references, &route);
        }
    }

    /// A rule that answers every request with an error.
    fn without_backend(&mut self, route: &Route<'_>, at: &str, rule: &Rule<'_>) {
        let answers = |kind| matches!(kind, FilterType::RequestRedirect | FilterType::ExtensionRef);
        if rule.filters.iter().any(|one| answers(one.kind)) || self.parsed.is_broken(route.key) {
            return;
        }
        let (message, hint) = if rule.backends.is_empty() {
            (
                "has no backend, so what the rule takes gets an error",
                "add backendRefs",
            )
        } else if rule.backends.iter().all(|backend| backend.weight == 0) {
            (
                "the weights add up to 0, so what the rule takes gets an error",
                "give at least one backend a weight above 0",
            )
        } else {
            return;
        };
        self.warning(route.key, at, message, hint);
    }

    fn unresolved(
        &mut self,
        route: &Route<'_>,
        at: &str,
        (reference, to): (&BackendRef, &ServiceName),
        error: &Unresolved,
    ) {
        let field = format!("{at}.{}", error.field);
        if error.broken == Broken::BackendNotFound && error.field == "name" {
            let kind = reference.target_kind().unwrap_or(Kind::Service);
            let wanted = Key::new(kind, &to.namespace, &to.name);
            self.missing(Severity::Warning, route.key, &field, &wanted);
        } else {
            self.warning(route.key, &field, &error.message, &error.hint);
        }
    }

    fn parent<'a>(
        &mut self,
        attachments: &Attachments<'a>,
        route: &Route<'a>,
        parent: &'a ParentRef,
        at: &str,
    ) {
        let name = parent_name(route, parent);
        match attachments.fit(route, parent) {
            Fit::NoService => {
                let wanted = Key::new(parent.target_kind(), &name.namespace, &name.name);
                self.missing(Severity::Warning, route.key, &format!("{at}.name"), &wanted);
            }
            // What is wrong with the rules was told where they were read.
            Fit::NoRule => {}
            Fit::NoPort(_) if self.is_broken(&name.namespace, &name.name) => {}
            Fit::NoPort(misfit) => {
                let field = format!("{at}.{}", misfit.field);
                self.warning(route.key, &field, &misfit.message, &misfit.hint);
            }
            Fit::Ports(ports) => {
                for port in ports {
                    let (other, hint) = match attachments.act(route, parent, port) {
                        Act::Acts => continue,
                        Act::Conflicts(other) => (other, "use one kind of route for a port"),
                        Act::IsYounger(other) => (other, "remove one: only the older one acts"),
                    };
                    let message = format!("{other} acts on port {port}, and this route does not");
                    self.warning(route.key, at, &message, hint);
                }
            }
        }
    }

    /// Two rules of one parent with the same conditions: the second never gets a request.
    pub(super) fn conflicts(&mut self) {
        let mut routes: Vec<Route<'_>> = self.set.routes().collect();
        routes.sort_by(|one, other| precedence(one.metadata, other.metadata));
        let mut first: BTreeMap<String, String> = BTreeMap::new();
        let mut found = Vec::new();
        for route in &routes {
            let parents = route.parents.iter().map(|parent| {
                let (port, section) = (parent.port, &parent.section_name);
                let (name, group) = (parent_name(route, parent), group(route, parent));
                format!("{:?} {group:?} {name} {port:?} {section:?}", route.key.kind)
            });
            let parents: BTreeSet<String> = parents.collect();
            let conditions = conditions(&route.rules);
            for parent in parents {
                for (field, condition) in &conditions {
                    let what = format!("{parent} {condition}");
                    match first.get(&what) {
                        Some(other) => {
                            found.push((route.key.clone(), field.clone(), other.clone()));
                        }
                        None => {
                            first.insert(what, format!("{} {field}", route.key));
                        }
                    }
                }
            }
        }
        for (key, field, other) in found {
            let message = format!("{other} takes the same requests, so this never gets one");
            self.warning(&key, &field, &message, "remove one");
        }
    }
}

/// The conditions of all matches, each as a text that is equal for equal meaning, with its field.
fn conditions(rules: &Rules<'_>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut add = |i: usize, compiled: Vec<Option<HttpMatch>>| {
        for (j, condition) in compiled.into_iter().enumerate() {
            if let Some(condition) = condition {
                let field = format!("spec.rules[{i}].matches[{j}]");
                all.push((field, canonical(condition)));
            }
        }
    };
    match rules {
        Rules::Http(rules) => {
            for (i, rule) in in_force(rules) {
                let any = [HttpRouteMatch::default()];
                let matches = match rule.matches.is_empty() {
                    true => &any[..],
                    false => &rule.matches,
                };
                add(i, matches.iter().map(HttpRouteMatch::compiled).collect());
            }
        }
        Rules::Grpc(rules) => {
            for (i, rule) in in_force(rules) {
                match rule.matches.is_empty() {
                    true => add(i, vec![Some(HttpMatch::default())]),
                    false => add(i, rule.matches.iter().map(|one| one.compiled()).collect()),
                }
            }
        }
        Rules::Tls(..) | Rules::Tcp(_) => {}
    }
    all
}

fn in_force<R>(rules: &[RuleEntry<R>]) -> impl Iterator<Item = (usize, &R)> {
    let numbered = rules.iter().enumerate();
    numbered.filter_map(|(i, entry)| Some((i, entry.rule()?)))
}

fn canonical(mut condition: HttpMatch) -> String {
    condition.headers.sort();
    condition.queries.sort();
    let by_name = |one: &(String, crate::table::Pattern), other: &(String, _)| one.0.cmp(&other.0);
    condition.header_patterns.sort_by(by_name);
    condition.query_patterns.sort_by(by_name);
    format!("{condition:?}")
}

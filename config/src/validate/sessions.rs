//! Sessions of several rules that take requests of the same clients: do their cookies get in each other's
//! way? Pure.

use std::collections::BTreeMap;

use super::Check;
use crate::compile::attachments::{Group, group, parent_name, precedence};
use crate::resources::Route;
use crate::table::{Carrier, ServiceName};

/// Rules by the path of their cookie.
type Cookies = BTreeMap<String, String>;

/// A warning of a rule.
struct Overlap {
    field: String,
    message: String,
}

impl Check<'_> {
    /// Warns of a cookie that clients of a Service send beside another of its name, or keep in its place: a
    /// client has one cookie for each name and path (RFC 6265 section 5.3), and sends all whose path is that
    /// of the request or above it.
    pub(super) fn cookies(&mut self) {
        let mut routes: Vec<Route<'_>> = self.set.routes().collect();
        routes.sort_by(|one, other| precedence(one.metadata, other.metadata));
        let mut seen: BTreeMap<(ServiceName, Group<'_>, String), Cookies> = BTreeMap::new();
        let mut found = Vec::new();
        for route in &routes {
            // A rule that is attached to several ports of a Service has one cookie there.
            let parents = route.parents.iter();
            let mut parents: Vec<_> = parents
                .map(|parent| (parent_name(route, parent), group(route, parent)))
                .collect();
            parents.sort();
            parents.dedup();
            for (at, rule) in route.rules() {
                let session = rule.session;
                let session = session.and_then(|says| says.compiled(&route.scope_of(at)));
                let Some(session) = session else { continue };
                let Carrier::Cookie { name, path, .. } = &session.carrier else {
                    continue;
                };
                let field = format!("spec.rules[{at}].sessionPersistence");
                let mut overlap = None;
                for (service, group) in &parents {
                    let place = (service.clone(), *group, name.clone());
                    let others = seen.entry(place).or_default();
                    overlap = overlap.or_else(|| {
                        let (other, of) = overlapping(others, path)?;
                        Some(message(name, path, (other, of), service))
                    });
                    let own = format!("{} {field}", route.key);
                    others.entry(path.clone()).or_insert(own);
                }
                if let Some(message) = overlap {
                    found.push((route.key.clone(), Overlap { field, message }));
                }
            }
        }
        for (key, Overlap { field, message }) in found {
            let hint = "give each rule a cookie of its own name";
            self.warning(&key, &field, &message, hint);
        }
    }
}

/// A cookie whose path is this one, or above it, or below it, with its rule.
fn overlapping<'a>(cookies: &'a Cookies, path: &str) -> Option<(&'a String, &'a String)> {
    // RFC 6265 section 5.1.4: whole segments. `/` is above all, and `/a/` above `/a/b` but not above `/a`.
    let ends = path.match_indices('/').flat_map(|(at, _)| [at, at + 1]);
    let mut above = ends.filter_map(|end| cookies.get_key_value(&path[..end]));
    let below = || {
        let first = format!("{}/", path.strip_suffix('/').unwrap_or(path));
        let mut after = cookies.range(first.clone()..);
        after.next().filter(|(other, _)| other.starts_with(&first))
    };
    let same = cookies.get_key_value(path);
    same.or_else(|| above.next()).or_else(below)
}

fn message(name: &str, path: &str, (other, of): (&str, &str), service: &ServiceName) -> String {
    match path == other {
        true => format!(
            "{of} has a cookie {name} of the same path, and clients of {service} keep one of the two"
        ),
        false => format!(
            "{of} has a cookie {name}, too, and clients of {service} send both where the paths {other} and {path} \
             overlap"
        ),
    }
}

//! AuthorizationPolicy of Istio.

use std::collections::{BTreeMap, BTreeSet};

use crate::import::access::{self, Action, Callers, Rule, inexpressible, paths_of};
use crate::import::mesh::{Mesh, Requests, Selected, identity};
use crate::import::output::Output;
use crate::import::reader::{Document, Place};

/// The namespace whose policies hold in all.
const ROOT: &str = "istio-system";

pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let spec = document.spec();
    let selected = selected(document, mesh, spec.as_ref(), output);
    let text = |name: &str| spec.as_ref()?.field(name)?.text();
    let action = match text("action").as_deref() {
        None | Some("ALLOW") => Action::Allow,
        Some("DENY") => Action::Deny,
        Some("AUDIT") => Action::Audit,
        Some(_) => {
            let message = "weft asks no other service for leave: every call that it would ask about is denied";
            let hint = "write who may call, and remove the policy that denies";
            output.dropped(document, &document.root(), message, hint);
            let all = [Rule::of(Callers::Any)];
            return access::write(document, Action::Deny, &selected, &all, mesh, output);
        }
    };
    let mut rules = Vec::new();
    let written = spec.as_ref().and_then(|spec| spec.field("rules"));
    for at in written.iter().flat_map(Place::items) {
        rules.extend(rule(document, &at, action, mesh, output));
    }
    // One without rules matches nothing: it closes what it allows, and denies nothing.
    if action == Action::Allow || !rules.is_empty() {
        access::write(document, action, &selected, &rules, mesh, output);
    }
    if let Some(spec) = spec {
        let mut fields = spec.fields();
        for known in ["selector", "targetRef", "targetRefs", "action", "rules"] {
            fields.take(known);
        }
        fields.rest(document, output);
    }
}

fn selected(
    document: &Document<'_>,
    mesh: &Mesh,
    spec: Option<&Place<'_>>,
    output: &mut Output,
) -> Selected {
    let field = |name: &str| spec.and_then(|spec| spec.field(name));
    let mut refs: Vec<Place<'_>> = field("targetRefs").iter().flat_map(Place::items).collect();
    refs.extend(field("targetRef"));
    if !refs.is_empty() {
        let mut selected = Selected::default();
        for at in refs {
            let text = |name: &str| at.field(name).and_then(|one| one.text());
            let key = (document.namespace.clone(), text("name").unwrap_or_default());
            match text("kind").as_deref() {
                Some("Service") if mesh.knows(&key) => selected.whole.push(key),
                Some(_) | None => {
                    let hint = "name a Service of the files";
                    output.dropped(document, &at, "this target is not known", hint);
                    output.close();
                }
            }
        }
        return selected;
    }
    let labels = field("selector").and_then(|one| one.field("matchLabels"));
    let labels = labels.iter().flat_map(Place::entries);
    let labels: BTreeMap<String, String> = labels
        .filter_map(|(name, value)| Some((name.to_owned(), value.text()?)))
        .collect();
    let namespace = (document.namespace != ROOT).then_some(document.namespace.as_str());
    mesh.selected(namespace, &labels)
}

/// The rules of weft that come of one: none if it can allow nothing.
fn rule(
    document: &Document<'_>,
    at: &Place<'_>,
    action: Action,
    mesh: &Mesh,
    output: &mut Output,
) -> Vec<Rule> {
    let mut fields = at.fields();
    let (from, to) = (fields.take("from"), fields.take("to"));
    // `when`, and whatever else restricts it.
    for place in fields.left() {
        inexpressible(document, &place, action, output);
        if action != Action::Deny {
            return Vec::new();
        }
    }
    let mut callers = BTreeSet::new();
    let (mut any, mut proven) = (from.is_none(), false);
    for source in from.iter().flat_map(Place::items) {
        match source
            .field("source")
            .map(|one| self::callers(document, &one, action, mesh, output))
        {
            None | Some(Some(Callers::Any)) => any = true,
            Some(Some(Callers::Proven)) => proven = true,
            Some(Some(Callers::These(some))) => callers.extend(some),
            Some(None) => {}
        }
    }
    if !any && !proven && callers.is_empty() {
        return Vec::new();
    }
    let callers = if any {
        Callers::Any
    } else if proven {
        Callers::Proven
    } else {
        Callers::These(callers)
    };
    if to.is_none() {
        return vec![Rule::of(callers)];
    }
    let mut rules = Vec::new();
    for operation in to.iter().flat_map(Place::items) {
        let Some(operation) = operation.field("operation") else {
            rules.push(Rule::of(callers.clone()));
            continue;
        };
        if let Some((methods, paths)) = requests(document, &operation, action, output) {
            rules.push(Rule {
                callers: callers.clone(),
                methods,
                paths,
            });
        }
    }
    rules
}

/// Whom a source is about; none if that cannot be expressed and the rule allows.
fn callers(
    document: &Document<'_>,
    at: &Place<'_>,
    action: Action,
    mesh: &Mesh,
    output: &mut Output,
) -> Option<Callers> {
    let is_deny = action == Action::Deny;
    let mut fields = at.fields();
    let principals = fields.take("principals");
    let namespaces = fields.take("namespaces");
    let mut lost = fields.left();
    let mut found = Callers::Any;
    if let Some(at) = &principals {
        let mut some = BTreeSet::new();
        let mut any = false;
        for text in at.texts() {
            let parts: Vec<&str> = text.split('/').collect();
            match parts.as_slice() {
                ["*"] => any = true,
                [_, "ns", namespace, "sa", account] if !text.contains('*') => {
                    match identity(namespace, account, output) {
                        Some(id) => drop(some.insert(id)),
                        None => lost.push(at.clone()),
                    }
                }
                [_, "ns", namespace, "*"] | [_, "ns", namespace, "sa", "*"] if !is_deny => {
                    some.extend(of_namespace(document, at, namespace, mesh, output));
                }
                _ => lost.push(at.clone()),
            }
        }
        found = match any {
            true => Callers::Proven,
            false => Callers::These(some),
        };
    }
    if let Some(at) = &namespaces {
        if is_deny || principals.is_some() || at.texts().iter().any(|one| one.contains('*')) {
            lost.push(at.clone());
        } else {
            let mut some = BTreeSet::new();
            for namespace in at.texts() {
                some.extend(of_namespace(document, at, &namespace, mesh, output));
            }
            found = Callers::These(some);
        }
    }
    if lost.is_empty() {
        return Some(found);
    }
    for place in &lost {
        inexpressible(document, place, action, output);
    }
    match action {
        // All callers, as those that were lost may be any.
        Action::Deny => Some(Callers::Any),
        // Those that remain of a list of principals are still allowed.
        Action::Allow | Action::Audit => {
            let only_principals = lost
                .iter()
                .all(|one| Some(&one.path) == principals.as_ref().map(|one| &one.path));
            only_principals.then_some(found)
        }
    }
}

/// Identities of a namespace, which weft has no pattern for.
fn of_namespace(
    document: &Document<'_>,
    at: &Place<'_>,
    namespace: &str,
    mesh: &Mesh,
    output: &mut Output,
) -> Vec<String> {
    let known = mesh.identities(namespace, output);
    match known.is_empty() {
        true => {
            let message = format!(
                "no service account of the namespace {namespace} is in the files, so none is allowed"
            );
            let hint = "import them along: kubectl get serviceaccount,deployment -A -o yaml";
            output.dropped(document, at, &message, hint);
        }
        false => {
            let message = format!(
                "the namespace {namespace} is the {} identities of it in the files",
                known.len()
            );
            output.told(document, at, &message, "add later ones to the policy");
        }
    }
    known
}

/// Methods and paths; none if they cannot be expressed and the rule allows.
fn requests(
    document: &Document<'_>,
    at: &Place<'_>,
    action: Action,
    output: &mut Output,
) -> Option<Requests> {
    let is_deny = action == Action::Deny;
    let mut fields = at.fields();
    let (methods_at, paths_at) = (fields.take("methods"), fields.take("paths"));
    let mut fatal = fields.left();
    let mut methods = methods_at.as_ref().map(Place::texts);
    if let (Some(list), Some(at)) = (&mut methods, &methods_at) {
        if list.iter().any(|one| one == "*") {
            methods = None;
        } else if list.iter().any(|one| one.contains('*')) {
            match is_deny {
                true => {
                    inexpressible(document, at, action, output);
                    methods = None;
                }
                false => fatal.push(at.clone()),
            }
        }
    }
    let mut paths = None;
    if let Some(at) = &paths_at {
        let texts = at.texts();
        if !texts.iter().any(|one| one == "*") {
            let read: Vec<Option<Vec<String>>> =
                texts.iter().map(|one| paths_of(one, is_deny)).collect();
            let lost = read.iter().any(Option::is_none);
            let some: Vec<String> = read.into_iter().flatten().flatten().collect();
            if lost {
                inexpressible(document, at, action, output);
            }
            match (lost, is_deny, some.is_empty()) {
                (true, true, _) => {}
                (_, false, true) => return None,
                (_, _, _) => paths = Some(some),
            }
            if !is_deny
                && texts
                    .iter()
                    .any(|one| one.ends_with('*') && !one.ends_with("/*"))
            {
                let message =
                    "a prefix is whole segments in weft: /a* allows /a and below, not /ab";
                output.told(document, at, message, "");
            }
        }
    }
    for place in &fatal {
        inexpressible(document, place, action, output);
    }
    (fatal.is_empty() || is_deny).then_some((methods, paths))
}

//! Policies of authorisation. Each function keeps one rule: what comes of a policy lets no call in that the
//! policy refuses. So a rule that allows is left out where it cannot be expressed, one that denies is made
//! wider, and a Service that a policy closes stays closed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::mesh::{Mesh, Selected, ServiceKey, identity};
use super::output::Output;
use super::reader::{Document, Place};

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Deny,
    Audit,
}

/// Whom it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Callers {
    /// Every caller.
    Any,
    /// Every identity of the mesh, and no caller that proves none.
    Proven,
    /// These.
    These(BTreeSet<String>),
}

/// A rule, all of which weft can say.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) callers: Callers,
    pub(super) methods: Option<Vec<String>>,
    pub(super) paths: Option<Vec<String>>,
}

impl Rule {
    pub(super) fn of(callers: Callers) -> Self {
        Self {
            callers,
            methods: None,
            paths: None,
        }
    }
}

/// Writes the rules of a policy for the Services that it selects.
pub(super) fn write(
    document: &Document<'_>,
    action: Action,
    selected: &Selected,
    rules: &[Rule],
    mesh: &Mesh,
    output: &mut Output,
) {
    let mut targets = selected.whole.clone();
    if !selected.part.is_empty() {
        let names: Vec<&str> = selected
            .part
            .iter()
            .map(|(_, name)| name.as_str())
            .collect();
        let names = names.join(", ");
        match action {
            Action::Allow => {
                // The rules of two parts of a Service would add up.
                let message = format!(
                    "selects some workloads of {names}, or all: that cannot be told, so every call to these is denied"
                );
                let hint = "give the workloads a Service of their own, and write its policy";
                output.dropped(document, &document.root(), &message, hint);
                close(document, &selected.part, output);
            }
            Action::Deny | Action::Audit => {
                let message =
                    format!("selects some workloads of {names}: it holds for all of these in weft");
                output.told(document, &document.root(), &message, "");
                targets.extend(selected.part.iter().cloned());
            }
        }
    }
    if targets.is_empty() && selected.part.is_empty() {
        let message = "selects no Service of the files, so it cannot be put where it belongs";
        let hint = "import the Services of Kubernetes along: kubectl get service -A -o yaml";
        output.dropped(document, &document.root(), message, hint);
        return output.close();
    }
    for (namespace, names) in by_namespace(&targets) {
        let is_of_tcp = |name: &&String| mesh.has_tcp(&(namespace.clone(), (*name).clone()));
        let (tcp, http): (Vec<&String>, Vec<&String>) = names.iter().partition(is_of_tcp);
        let mut allowed: BTreeSet<&String> = BTreeSet::new();
        for rule in rules {
            let judges_requests = rule.methods.is_some() || rule.paths.is_some();
            let all: Vec<&String> = names.iter().collect();
            let (targets, left) = match judges_requests {
                true => (http.clone(), tcp.clone()),
                false => (all, Vec::new()),
            };
            if !targets.is_empty() {
                allowed.extend(&targets);
                add(document, action, &namespace, &targets, rule, output);
            }
            if left.is_empty() {
                continue;
            }
            let message = "judges requests, which ports of TCP have not";
            match action {
                Action::Deny => {
                    let hint = "every call of these callers to such a Service is denied";
                    output.dropped(document, &document.root(), message, hint);
                    let wide = Rule::of(rule.callers.clone());
                    add(document, action, &namespace, &left, &wide, output);
                }
                Action::Allow | Action::Audit => {
                    let hint = "it is left out for such a Service";
                    output.dropped(document, &document.root(), message, hint);
                }
            }
        }
        if action == Action::Allow {
            let closed: Vec<&String> = names
                .iter()
                .filter(|name| !allowed.contains(name))
                .collect();
            if !closed.is_empty() {
                let none = Rule::of(Callers::These(BTreeSet::new()));
                add(document, action, &namespace, &closed, &none, output);
            }
        }
    }
}

/// Denies every call to these.
pub(super) fn close(document: &Document<'_>, targets: &[ServiceKey], output: &mut Output) {
    for (namespace, names) in by_namespace(targets) {
        let names: Vec<&String> = names.iter().collect();
        let all = Rule::of(Callers::Any);
        add(document, Action::Deny, &namespace, &names, &all, output);
    }
}

fn by_namespace(targets: &[ServiceKey]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (namespace, name) in targets {
        all.entry(namespace.clone())
            .or_default()
            .insert(name.clone());
    }
    all
}

fn add(
    document: &Document<'_>,
    action: Action,
    namespace: &str,
    targets: &[&String],
    rule: &Rule,
    output: &mut Output,
) {
    let refs: Vec<Json> = targets
        .iter()
        .map(|name| json!({ "kind": "Service", "name": name }))
        .collect();
    let mut spec = json!({
        "targetRefs": refs,
        "action": match action {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
            Action::Audit => "Audit",
        },
    });
    if let Callers::These(principals) = &rule.callers {
        let mut principals = principals.clone();
        if principals.is_empty() {
            // A list must not be empty; the CA gives no workload this identity by itself.
            principals.extend(identity("weft-import", "no-caller", output));
        }
        spec["from"] = json!([{ "principals": principals }]);
    }
    let mut to = json!({});
    if let Some(methods) = &rule.methods {
        to["methods"] = json!(methods);
    }
    if let Some(paths) = &rule.paths {
        to["paths"] = json!(paths);
    }
    if to != json!({}) {
        spec["to"] = json!([to]);
    }
    if action == Action::Allow && rule.callers == Callers::Proven {
        for target in targets {
            output.keep_strict(document, namespace, target);
        }
    }
    output.add("AuthorizationPolicy", namespace, &document.name, spec);
}

/// A path of another mesh, where `*` at the end is any text, as weft says it. `None` if it cannot.
///
/// `is_deny` asks for paths that are at least as many, otherwise they are at most as many.
pub(super) fn paths_of(text: &str, is_deny: bool) -> Option<Vec<String>> {
    let Some(prefix) = text.strip_suffix('*') else {
        return (!text.contains('*')).then(|| vec![text.to_owned()]);
    };
    if prefix.contains('*') || !prefix.starts_with('/') {
        return None;
    }
    match prefix.strip_suffix('/') {
        Some("") => Some(vec!["/*".to_owned()]),
        Some(folder) => Some(vec![format!("{folder}/*")]),
        // `/a*` is also `/ab`, which weft has no pattern for.
        None if is_deny => None,
        None => Some(vec![prefix.to_owned(), format!("{prefix}/*")]),
    }
}

/// Reports a condition that cannot be expressed, by what becomes of its rule.
pub(super) fn inexpressible(
    document: &Document<'_>,
    at: &Place<'_>,
    action: Action,
    output: &mut Output,
) {
    let (message, hint) = match action {
        Action::Allow => (
            "cannot be expressed, so this rule allows nothing",
            "allow the calls that are meant by principals, methods and paths",
        ),
        Action::Deny => (
            "cannot be expressed, so this rule denies more: as if the condition were not there",
            "narrow it by principals, methods and paths",
        ),
        Action::Audit => ("cannot be expressed, so this rule is left out", ""),
    };
    output.dropped(document, at, message, hint);
}

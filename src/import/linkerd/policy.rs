//! Who may call, in Linkerd's words. A Server closes its port to all that no authorization names. weft's
//! policies hold for all ports of a Service, so what closes one port closes the others, too.

use std::collections::{BTreeMap, BTreeSet};

use crate::import::access::{self, Action, Callers, Rule, inexpressible};
use crate::import::mesh::{Mesh, Selected, identity};
use crate::import::output::Output;
use crate::import::reader::{Document, Place};

fn labels(at: Option<Place<'_>>) -> BTreeMap<String, String> {
    let labels = at.and_then(|one| one.field("matchLabels"));
    let labels = labels.iter().flat_map(Place::entries);
    labels
        .filter_map(|(name, value)| Some((name.to_owned(), value.text()?)))
        .collect()
}

/// A Server by itself lets no caller in.
pub(super) fn server(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let Some(spec) = document.spec() else { return };
    let selected = selected(document, mesh);
    let access = spec.field("accessPolicy").and_then(|one| one.text());
    match access.as_deref() {
        None | Some("deny") => {
            let message = "closes its port to all that no policy names; in weft it closes all ports of the Service";
            output.told(document, &spec, message, "");
            access::write(document, Action::Allow, &selected, &[], mesh, output);
        }
        Some("all-authenticated" | "all-unauthenticated") => {
            let message = "every identity of the mesh may call; callers without one may not";
            output.told(document, &spec, message, "");
        }
        Some(_) => {
            if let Some(at) = spec.field("accessPolicy") {
                inexpressible(document, &at, Action::Allow, output);
            }
            access::write(document, Action::Allow, &selected, &[], mesh, output);
        }
    }
}

/// The Services whose workloads a Server selects.
fn selected(server: &Document<'_>, mesh: &Mesh) -> Selected {
    let spec = server.spec();
    let labels = labels(spec.and_then(|spec| spec.field("podSelector")));
    mesh.selected(Some(&server.namespace), &labels)
}

pub(super) fn server_authorization(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let Some(spec) = document.spec() else { return };
    let server = spec.field("server");
    let name = server.as_ref().and_then(|one| one.field("name")?.text());
    let found = name.and_then(|name| mesh.document("Server", &document.namespace, &name));
    let Some(found) = found else {
        let at = server.unwrap_or(spec);
        // Its Server closes what it would open, wherever that is.
        let message = "names no Server of the files, so it allows nothing";
        return output.dropped(
            document,
            &at,
            message,
            "import the Server along, and name it",
        );
    };
    let selected = mesh.selected(Some(found.namespace()), found.labels());
    let Some(client) = spec.field("client") else {
        return;
    };
    let mut fields = client.fields();
    let mut rules = Vec::new();
    let mesh_tls = fields.take("meshTLS");
    if let Some(at) = fields.take("unauthenticated").filter(Place::is_true) {
        let message = "callers without an identity are refused: weft always asks for one";
        output.dropped(
            document,
            &at,
            message,
            "give such callers a sidecar before the move",
        );
        rules.push(Rule::of(Callers::Any));
    }
    // Networks restrict the callers further.
    let mut restricted = false;
    for at in fields.left() {
        inexpressible(document, &at, Action::Allow, output);
        restricted = true;
    }
    if let Some(at) = &mesh_tls {
        let callers = of_mesh_tls(document, at, mesh, output);
        rules.extend(callers.map(Rule::of));
    }
    if restricted {
        rules.clear();
    }
    access::write(document, Action::Allow, &selected, &rules, mesh, output);
}

fn of_mesh_tls(
    document: &Document<'_>,
    at: &Place<'_>,
    mesh: &Mesh,
    output: &mut Output,
) -> Option<Callers> {
    let mut fields = at.fields();
    let mut some = BTreeSet::new();
    let mut any = fields
        .take("unauthenticatedTLS")
        .is_some_and(|one| one.is_true());
    for at in fields.take("identities").iter().flat_map(Place::items) {
        any |= named(document, &at, &mut some, mesh, output);
    }
    for at in fields.take("serviceAccounts").iter().flat_map(Place::items) {
        some.extend(account(&at, &document.namespace, output));
    }
    fields.rest(document, output);
    if any {
        return Some(Callers::Any);
    }
    (!some.is_empty()).then_some(Callers::These(some))
}

fn account(at: &Place<'_>, namespace: &str, output: &Output) -> Option<String> {
    let text = |name: &str| at.field(name)?.text();
    let namespace = text("namespace").unwrap_or_else(|| namespace.to_owned());
    identity(&namespace, &text("name")?, output)
}

/// Adds the identities of a name of Linkerd, as
/// `frontend.shop.serviceaccount.identity.linkerd.cluster.local`. `true` if it is every identity.
fn named(
    document: &Document<'_>,
    at: &Place<'_>,
    some: &mut BTreeSet<String>,
    mesh: &Mesh,
    output: &mut Output,
) -> bool {
    let text = at.text().unwrap_or_default();
    let parts: Vec<&str> = text.split('.').collect();
    match parts.as_slice() {
        ["*"] => return true,
        ["*", namespace, "serviceaccount", ..] => {
            some.extend(of_namespace(document, at, namespace, mesh, output));
        }
        [account, namespace, "serviceaccount", ..] if !account.contains('*') => {
            some.extend(identity(namespace, account, output));
        }
        _ => inexpressible(document, at, Action::Allow, output),
    }
    false
}

fn of_namespace(
    document: &Document<'_>,
    at: &Place<'_>,
    namespace: &str,
    mesh: &Mesh,
    output: &mut Output,
) -> Vec<String> {
    let known = mesh.identities(namespace, output);
    if known.is_empty() {
        let message = format!(
            "no service account of the namespace {namespace} is in the files, so none is allowed"
        );
        let hint = "import them along: kubectl get serviceaccount,deployment -A -o yaml";
        output.dropped(document, at, &message, hint);
    } else {
        let message = format!(
            "the namespace {namespace} is the {} identities of it in the files",
            known.len()
        );
        output.told(document, at, &message, "add later ones to the policy");
    }
    known
}

/// An AuthorizationPolicy of Linkerd: all of its `requiredAuthenticationRefs` must hold.
pub(super) fn authorization(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let Some(spec) = document.spec() else { return };
    let Some(target) = spec.field("targetRef") else {
        return;
    };
    let text = |name: &str| target.field(name).and_then(|one| one.text());
    let name = text("name").unwrap_or_default();
    let mut paths = None;
    let selected = match text("kind").as_deref() {
        Some("Namespace") => mesh.selected(Some(&name), &BTreeMap::new()),
        Some("Server") => match mesh.document("Server", &document.namespace, &name) {
            Some(server) => mesh.selected(Some(server.namespace()), server.labels()),
            None => return unknown(document, &target, output),
        },
        Some("HTTPRoute") => {
            let Some(route) = mesh.document("HTTPRoute", &document.namespace, &name) else {
                return unknown(document, &target, output);
            };
            let Some(server) = route
                .parent()
                .and_then(|name| mesh.document("Server", &document.namespace, name))
            else {
                return unknown(document, &target, output);
            };
            match route.requests() {
                Some(found) => paths = Some(found.clone()),
                None => {
                    let message =
                        "its route matches by what a policy cannot say, so it allows nothing";
                    return output.dropped(document, &target, message, "allow paths and methods");
                }
            }
            mesh.selected(Some(server.namespace()), server.labels())
        }
        Some(_) | None => return unknown(document, &target, output),
    };
    let mut callers = Some(Callers::Any);
    let refs = spec.field("requiredAuthenticationRefs");
    for at in refs.iter().flat_map(Place::items) {
        let one = required(document, &at, mesh, output);
        callers = match (callers, one) {
            (Some(Callers::Any | Callers::Proven), one) => one,
            (one, Some(Callers::Any | Callers::Proven)) => one,
            (Some(Callers::These(a)), Some(Callers::These(b))) => {
                Some(Callers::These(a.intersection(&b).cloned().collect()))
            }
            (None, _) | (_, None) => None,
        };
    }
    let rules: Vec<Rule> = match (callers, paths) {
        (None, _) => Vec::new(),
        (Some(Callers::These(some)), _) if some.is_empty() => Vec::new(),
        (Some(callers), None) => vec![Rule::of(callers)],
        (Some(callers), Some(requests)) => requests
            .into_iter()
            .map(|(methods, paths)| Rule {
                callers: callers.clone(),
                methods,
                paths,
            })
            .collect(),
    };
    access::write(document, Action::Allow, &selected, &rules, mesh, output);
}

/// It allows nothing, and what it would allow is closed by its Server.
fn unknown(document: &Document<'_>, at: &Place<'_>, output: &mut Output) {
    let message = "names nothing of the files, so it allows nothing";
    output.dropped(document, at, message, "import what it names along");
}

/// Whom one authentication lets in; none if that cannot be expressed.
fn required(
    document: &Document<'_>,
    at: &Place<'_>,
    mesh: &Mesh,
    output: &mut Output,
) -> Option<Callers> {
    let text = |name: &str| at.field(name).and_then(|one| one.text());
    let name = text("name").unwrap_or_default();
    let namespace = text("namespace").unwrap_or_else(|| document.namespace.clone());
    match text("kind").as_deref() {
        Some("ServiceAccount") => {
            let found = account(at, &document.namespace, output)?;
            Some(Callers::These([found].into()))
        }
        Some("MeshTLSAuthentication") => {
            let Some(found) = mesh.document("MeshTLSAuthentication", &namespace, &name) else {
                unknown(document, at, output);
                return None;
            };
            let mut some = BTreeSet::new();
            let mut any = false;
            for text in found.identities() {
                let parts: Vec<&str> = text.split('.').collect();
                match parts.as_slice() {
                    ["*"] => any = true,
                    ["*", namespace, "serviceaccount", ..] => {
                        some.extend(of_namespace(document, at, namespace, mesh, output));
                    }
                    [account, namespace, "serviceaccount", ..] => {
                        some.extend(identity(namespace, account, output));
                    }
                    _ => inexpressible(document, at, Action::Allow, output),
                }
            }
            for (kind, namespace, name) in found.identity_refs() {
                match kind.as_str() {
                    "ServiceAccount" => some.extend(identity(namespace, name, output)),
                    "Namespace" => some.extend(of_namespace(document, at, name, mesh, output)),
                    _ => inexpressible(document, at, Action::Allow, output),
                }
            }
            Some(if any {
                Callers::Any
            } else {
                Callers::These(some)
            })
        }
        // Networks, which weft does not know callers by.
        Some(_) | None => {
            inexpressible(document, at, Action::Allow, output);
            None
        }
    }
}

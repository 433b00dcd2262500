//! Each cause of a status, by the table of Gateway API's conditions.

use super::*;
use crate::resources::{InvalidRules, SourceFile, parse, parse_with};

const SERVICES: &str = "
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: echo, namespace: mesh }
spec:
  ports:
    - { name: http, port: 80, protocol: http }
    - { name: tcp, port: 9090, protocol: tcp }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: v1, namespace: mesh }
spec: { ports: [ { port: 8080, protocol: http }, { port: 9090, protocol: tcp } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: w, namespace: web }
spec: { ports: [ { port: 8080, protocol: http } ] }
";

fn set(text: &str) -> Set {
    let parsed = parse(&[SourceFile {
        name: "t.yaml".into(),
        text: format!("{SERVICES}---\n{text}"),
    }]);
    assert!(!parsed.findings.has_errors(), "{:?}", parsed.findings);
    let mut set = Set::default();
    for resource in parsed.resources {
        set.insert(resource);
    }
    set
}

fn route(kind: &str, parent: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: mesh}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, {parent}}}]\n  rules: [{rules}]\n---\n"
    )
}

/// The reasons of both conditions at the only parent.
fn reasons(set: &Set, key: &str) -> (Reason, Reason) {
    let status = route_status(set, &key.parse().unwrap());
    let [one] = status.as_slice() else {
        panic!("{status:?}");
    };
    let [accepted, resolved] = one.conditions.as_slice() else {
        panic!("{one:?}");
    };
    assert_eq!(accepted.kind, ConditionType::Accepted);
    assert_eq!(resolved.kind, ConditionType::ResolvedRefs);
    let holds = |one: &Condition| one.status == ConditionStatus::True;
    assert_eq!(holds(accepted), accepted.reason == Reason::Accepted);
    assert_eq!(holds(resolved), resolved.reason == Reason::ResolvedRefs);
    (accepted.reason, resolved.reason)
}

fn of(parent: &str, rules: &str) -> (Reason, Reason) {
    reasons(&set(&route("HTTPRoute", parent, rules)), "HTTPRoute/mesh/r")
}

#[test]
fn references_that_lead_nowhere_do_not_make_a_route_unaccepted() {
    let all = |rules| of("name: echo, port: 80", rules);
    let accepted = |reason| (Reason::Accepted, reason);
    assert_eq!(
        all("{backendRefs: [{name: v1, port: 8080}]}"),
        accepted(Reason::ResolvedRefs)
    );
    assert_eq!(all("{backendRefs: []}"), accepted(Reason::ResolvedRefs));
    for missing in [
        "{backendRefs: [{name: v1, port: 8080}, {name: nonexistent, port: 8080}]}",
        "{backendRefs: [{name: v1, port: 81}]}",
        "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}}], \
          backendRefs: [{name: v1, port: 8080}]}",
    ] {
        assert_eq!(all(missing), accepted(Reason::BackendNotFound), "{missing}");
    }
    let unknown =
        "{backendRefs: [{group: unknown.example.com, kind: NonExistent, name: v1, port: 8080}]}";
    assert_eq!(all(unknown), accepted(Reason::InvalidKind));
    let tcp = "{backendRefs: [{name: v1, port: 9090}]}";
    assert_eq!(all(tcp), accepted(Reason::UnsupportedProtocol));
    let extension = "{filters: [{type: ExtensionRef, extensionRef: {group: g, kind: K, name: n}}]}";
    assert_eq!(all(extension), accepted(Reason::InvalidKind));
}

#[test]
fn a_parent_whose_port_is_missing_does_not_match_and_one_that_is_missing_has_no_entry() {
    let all = |parent| of(parent, "{backendRefs: [{name: v1, port: 8080}]}");
    let missing = (Reason::NoMatchingParent, Reason::ResolvedRefs);
    for parent in [
        "name: echo, port: 81",
        "name: echo, sectionName: http1",
        "name: echo, sectionName: http, port: 81",
        "name: echo, sectionName: tcp",
    ] {
        assert_eq!(all(parent), missing, "{parent}");
    }
    assert_eq!(
        all("name: echo, sectionName: http, port: 80").0,
        Reason::Accepted
    );
    let nowhere = set(&route("HTTPRoute", "name: gone", "{}"));
    assert!(route_status(&nowhere, &"HTTPRoute/mesh/r".parse().unwrap()).is_empty());
    assert!(route_status(&nowhere, &"HTTPRoute/mesh/none".parse().unwrap()).is_empty());
}

#[test]
fn a_grpc_route_takes_a_port_from_an_http_route_and_only_there() {
    let both = set(&(route("HTTPRoute", "name: echo, port: 80", "{}")
        + &route("GRPCRoute", "name: echo, port: 80", "{}")));
    assert_eq!(reasons(&both, "HTTPRoute/mesh/r").0, Reason::Conflicted);
    assert_eq!(reasons(&both, "GRPCRoute/mesh/r").0, Reason::Accepted);
    let elsewhere =
        set(&(route("HTTPRoute", "name: echo, port: 80", "{}")
            + &route("GRPCRoute", "name: v1", "{}")));
    assert_eq!(reasons(&elsewhere, "HTTPRoute/mesh/r").0, Reason::Accepted);
}

#[test]
fn of_two_tcp_routes_for_a_port_both_are_accepted() {
    let rule = "{backendRefs: [{name: v1, port: 9090}]}";
    let one = route("TCPRoute", "name: echo, port: 9090", rule);
    let two = set(&(one.clone() + &one.replace("name: r,", "name: s,")));
    for key in ["TCPRoute/mesh/r", "TCPRoute/mesh/s"] {
        assert_eq!(
            reasons(&two, key),
            (Reason::Accepted, Reason::ResolvedRefs),
            "{key}"
        );
    }
    let http = set(&route("TCPRoute", "name: echo, port: 80", rule));
    assert_eq!(
        reasons(&http, "TCPRoute/mesh/r").0,
        Reason::NoMatchingParent
    );
}

#[test]
fn a_tls_route_takes_a_port_from_a_tcp_route_and_shares_it_with_others_of_its_kind() {
    let rule = "{backendRefs: [{name: v1, port: 9090}]}";
    let parent = "name: echo, port: 9090";
    let tls = route("TLSRoute", parent, rule).replace("spec:", "spec:\n  hostnames: [a.test]");
    let all = set(&(tls.clone()
        + &tls.replace("name: r,", "name: s,")
        + &route("TCPRoute", parent, rule)));
    assert_eq!(reasons(&all, "TLSRoute/mesh/r").0, Reason::Accepted);
    assert_eq!(reasons(&all, "TLSRoute/mesh/s").0, Reason::Accepted);
    assert_eq!(reasons(&all, "TCPRoute/mesh/r").0, Reason::Conflicted);
    let http = set(&tls.replace("name: v1, port: 9090}]", "name: echo, port: 80}]"));
    assert_eq!(
        reasons(&http, "TLSRoute/mesh/r").1,
        Reason::UnsupportedProtocol
    );
}

#[test]
fn another_namespace_needs_a_grant_only_where_the_mesh_asks_for_one() {
    let across = route(
        "HTTPRoute",
        "name: echo, port: 80",
        "{backendRefs: [{namespace: web, name: w, port: 8080}]}",
    );
    let strict = "apiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\n\
                  spec: {requireReferenceGrants: true}\n---\n";
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
                 metadata: {name: g, namespace: web}\n\
                 spec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: mesh}]\n  \
                 to: [{group: '', kind: Service, name: w}]\n---\n";
    let resolved = |text: &str| reasons(&set(&(across.clone() + text)), "HTTPRoute/mesh/r").1;
    assert_eq!(resolved(""), Reason::ResolvedRefs);
    assert_eq!(resolved(strict), Reason::RefNotPermitted);
    assert_eq!(resolved(&format!("{strict}{grant}")), Reason::ResolvedRefs);
    // Each wrong in one thing.
    for (right, wrong) in [
        ("g, namespace: web", "g, namespace: app"),
        ("group: gateway.networking.k8s.io", "group: example.com"),
        (
            "kind: HTTPRoute, namespace: mesh",
            "kind: Gateway, namespace: mesh",
        ),
        ("namespace: mesh}]", "namespace: other}]"),
        ("group: ''", "group: example.com"),
        ("kind: Service", "kind: Secret"),
        ("name: w}", "name: x}"),
    ] {
        let grant = grant.replacen(right, wrong, 1);
        assert_eq!(
            resolved(&format!("{strict}{grant}")),
            Reason::RefNotPermitted,
            "{wrong}"
        );
    }
}

#[test]
fn a_status_is_written_as_gateway_api_has_it() {
    let set = set(&route("HTTPRoute", "name: echo, port: 80", "{}"));
    let status = route_status(&set, &"HTTPRoute/mesh/r".parse().unwrap());
    assert_eq!(
        serde_json::to_value(&status).unwrap(),
        serde_json::json!([{
            "parentRef": { "group": "", "kind": "Service", "name": "echo", "port": 80 },
            "controllerName": "weft.dev/mesh",
            "conditions": [
                { "type": "Accepted", "status": "True", "reason": "Accepted", "message": "in force" },
                {
                    "type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs",
                    "message": "every reference leads somewhere"
                }
            ]
        }])
    );
    assert_eq!(route_statuses(&set).len(), 1);
}

fn with_invalid(rules: &str) -> Set {
    let text = format!(
        "{SERVICES}---\n{}",
        route("HTTPRoute", "name: echo, port: 80", rules)
    );
    let file = SourceFile {
        name: "t.yaml".into(),
        text,
    };
    let parsed = parse_with(&[file], InvalidRules::Drop);
    assert!(!parsed.findings.has_errors(), "{:?}", parsed.findings);
    let mut set = Set::default();
    parsed
        .resources
        .into_iter()
        .for_each(|resource| set.insert(resource));
    set
}

const INVALID: &str = "{filters: [{type: Nonsense}], backendRefs: [{name: v1, port: 8080}]}";

#[test]
fn a_route_with_a_rule_that_is_left_out_is_accepted_and_partially_invalid() {
    let valid = "{matches: [{path: {value: /v}}], backendRefs: [{name: v1, port: 8080}]}";
    let set = with_invalid(&format!("{INVALID}, {valid}"));
    let status = route_status(&set, &"HTTPRoute/mesh/r".parse().unwrap());
    let [accepted, resolved, partly] = status[0].conditions.as_slice() else {
        panic!("{status:?}");
    };
    assert_eq!(
        (accepted.kind, accepted.status),
        (ConditionType::Accepted, ConditionStatus::True)
    );
    assert_eq!(resolved.status, ConditionStatus::True);
    assert_eq!(
        (partly.kind, partly.status, partly.reason),
        (
            ConditionType::PartiallyInvalid,
            ConditionStatus::True,
            Reason::UnsupportedValue
        )
    );
    let wanted = "Dropped Rule spec.rules[0].filters[0].type: ";
    assert!(partly.message.starts_with(wanted), "{}", partly.message);
}

#[test]
fn a_route_without_a_valid_rule_is_not_accepted_and_not_partially_invalid() {
    let set = with_invalid(INVALID);
    let (accepted, _) = reasons(&set, "HTTPRoute/mesh/r");
    assert_eq!(accepted, Reason::UnsupportedValue);
}

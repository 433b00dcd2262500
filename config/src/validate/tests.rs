//! Each bad resource with the exact line that the operator reads.

mod external;
mod routes;
mod sessions;
mod warnings;

use super::*;
use crate::resources::{SourceFile, parse};

pub(super) fn check(text: &str) -> Vec<String> {
    let parsed = parse(&[SourceFile {
        name: "mesh.yaml".into(),
        text: text.into(),
    }]);
    let mut set = Set::default();
    parsed
        .resources
        .iter()
        .cloned()
        .for_each(|resource| set.insert(resource));
    let mut findings = parsed.findings.clone();
    let domain: TrustDomain = "demo.test".parse().unwrap();
    findings.extend(validate(&set, Some(&domain), &parsed));
    findings.sort();
    findings.listed.iter().map(ToString::to_string).collect()
}

pub(super) fn service(name: &str, protocol: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  ports:\n    - {{port: 80, protocol: {protocol}}}\n---\n"
    )
}

/// Starts at line 15 after two services of 7 lines.
fn two_services() -> String {
    service("orders", "http") + &service("db", "tcp")
}

fn route(rules: &str) -> String {
    format!(
        "{}apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: split, namespace: shop}}\nspec:\n  parentRefs:\n    \
         - {{group: '', kind: Service, name: orders, port: 80}}\n  rules:\n{rules}",
        two_services()
    )
}

fn policy(spec: &str) -> String {
    format!(
        "{}apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
         metadata: {{name: callers, namespace: shop}}\nspec:\n{spec}",
        two_services()
    )
}

#[test]
fn the_example_of_the_design_is_accepted() {
    let text = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders, namespace: shop }
spec:
  ports: [ { port: 80, protocol: http } ]
  identities: ["spiffe://demo.test/ns/shop/sa/orders"]
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders-v1, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders-v2, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: orders-callers, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: orders }, { kind: Service, name: orders-v1 }, { kind: Service, name: orders-v2 } ]
  action: Allow
  from: [ { principals: ["spiffe://demo.test/ns/shop/sa/frontend"] } ]
  to:   [ { methods: [GET], paths: ["/orders/*"] } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders-split, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: orders, port: 80 } ]
  rules: [ { backendRefs: [ { name: orders-v1, port: 80, weight: 90 }, { name: orders-v2, port: 80, weight: 10 } ] } ]
"#;
    assert_eq!(check(text), Vec::<String>::new());
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_known_one() {
    let text = route("    - backendRfs:\n        - {name: orders, port: 80}\n");
    assert_eq!(
        check(&text),
        ["mesh.yaml:22: spec.rules[0].backendRfs: unknown field; did you mean backendRefs?",]
    );
}

#[test]
fn a_key_with_control_characters_is_shown_on_one_line() {
    let text =
        service("orders", "http").replace("protocol: http", "protocol: http, \"a\\n\\e[2J\": 1");
    let lines = check(&text);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("mesh.yaml:6: spec.ports[0].a\\n\\u{1b}[2J: unknown field"),
        "{lines:?}"
    );
}

#[test]
fn what_gateway_api_has_and_weft_does_not_is_refused_by_name() {
    let text = route("    - sessionPersistence: {idleTimeout: 5m}\n").replacen(
        "  rules:",
        "  hostnames: [a.example.org]\n  rules:",
        1,
    );
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:21: spec.hostnames: is not supported yet; they have no effect on a route of a Service: match on \
             the header host instead, as headers: [{ name: host, value: shop.example.org }]",
            "mesh.yaml:23: spec.rules[0].sessionPersistence.idleTimeout: is not supported yet; \
             write absoluteTimeout: a session does not end for want of requests",
        ]
    );
}

#[test]
fn a_kind_that_is_not_supported_yet_is_refused_by_name() {
    let text =
        "apiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute\nmetadata: {name: a}\nspec: {}\n";
    assert_eq!(
        check(text),
        ["mesh.yaml:2: kind: kind UDPRoute is not supported yet; \
          supported kinds are MeshConfig, Service, ExternalService, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, ReferenceGrant, \
          AuthorizationPolicy, TrafficPolicy, Workload"]
    );
}

#[test]
fn udp_and_auto_are_refused_clearly() {
    assert_eq!(
        check(&service("dns", "udp")),
        [
            "mesh.yaml:6: spec.ports[0].protocol: protocol udp is not supported yet; use http, grpc or tcp"
        ]
    );
    assert_eq!(
        check(&service("dns", "htp")),
        ["mesh.yaml:6: spec.ports[0].protocol: \"htp\" is not known here; did you mean http?"]
    );
}

#[test]
fn a_route_to_a_missing_service_names_the_nearest_one() {
    let text = route("    - backendRefs:\n        - {name: order, port: 80}\n");
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:23: warning: spec.rules[0].backendRefs[0].name: there is no Service order in namespace shop; \
          did you mean orders?"
        ]
    );
}

#[test]
fn a_route_to_a_missing_or_tcp_port_is_a_warning() {
    let text = route(
        "    - backendRefs:\n        - {name: orders, port: 81}\n        - {name: db, port: 80}\n",
    );
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:23: warning: spec.rules[0].backendRefs[0].port: Service orders has no port 81; it has 80",
            "mesh.yaml:24: warning: spec.rules[0].backendRefs[1].port: port 80 of Service db is tcp; \
             an HTTPRoute needs an http or grpc port",
        ]
    );
}

#[test]
fn weights_that_add_up_to_nothing_are_a_warning_and_those_out_of_range_an_error() {
    let zero = route("    - backendRefs:\n        - {name: orders, port: 80, weight: 0}\n");
    assert_eq!(
        check(&zero),
        [
            "mesh.yaml:22: warning: spec.rules[0]: the weights add up to 0, so what the rule takes gets an error; \
          give at least one backend a weight above 0"
        ]
    );
    let huge = route(
        "    - backendRefs:\n        - {name: orders, port: 80, weight: 18446744073709551615}\n",
    );
    assert_eq!(
        check(&huge),
        [
            "mesh.yaml:23: spec.rules[0].backendRefs[0].weight: 18446744073709551615 is not within 0 to \
          1000000"
        ]
    );
}

#[test]
fn a_policy_for_a_missing_service_is_refused() {
    let text = policy("  targetRefs: [{kind: Service, name: payments}]\n  action: Deny\n");
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:19: spec.targetRefs[0].name: there is no Service payments in namespace shop; \
          apply the Service first, or in the same change"
        ]
    );
}

#[test]
fn request_rules_on_a_tcp_service_are_refused() {
    let text = policy(
        "  targetRefs: [{kind: Service, name: db}]\n  action: Allow\n  to: [{methods: [GET]}]\n",
    );
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:19: spec.targetRefs[0].name: methods and paths cannot be checked on Service db, \
          whose port 80 is tcp; use from alone, or split the Service"
        ]
    );
}

#[test]
fn principals_must_be_well_formed_and_of_this_mesh() {
    let text = policy(
        "  targetRefs: [{kind: Service, name: db}]\n  action: Allow\n  from:\n    - principals:\n        \
         - spiffe://other.test/ns/shop/sa/a\n        - nonsense\n",
    );
    let found = check(&text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        found[0],
        "mesh.yaml:23: spec.from[0].principals[0]: spiffe://other.test/ns/shop/sa/a is outside the trust \
         domain of this mesh; the mesh is demo.test"
    );
    assert!(
        found[1]
            .starts_with("mesh.yaml:24: spec.from[0].principals[1]: \"nonsense\" is not valid: "),
        "{found:?}"
    );
}

#[test]
fn empty_lists_that_read_as_none_or_any_are_refused() {
    let text = policy("  targetRefs: [{kind: Service, name: db}]\n  action: Allow\n  from: []\n");
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:21: spec.from: an empty list says neither none nor any; \
          leave the field out or list at least one"
        ]
    );
}

#[test]
fn the_same_resource_twice_is_refused() {
    let text = service("orders", "http") + &service("orders", "grpc");
    assert_eq!(
        check(&text),
        ["mesh.yaml:8: Service/shop/orders is defined twice; it stands at mesh.yaml:1 already"]
    );
}

#[test]
fn names_follow_dns_1123() {
    assert_eq!(
        check(&service("Orders", "http")),
        [
            "mesh.yaml:3: metadata.name: \"Orders\" is not valid: a name consists of a-z, 0-9 and -, and \
          begins and ends with a letter or digit"
        ]
    );
}

#[test]
fn a_bad_path_pattern_is_refused() {
    let text = policy(
        "  targetRefs: [{kind: Service, name: orders}]\n  action: Allow\n  to: [{paths: ['/a*']}]\n",
    );
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:21: spec.to[0].paths[0]: \"/a*\" is not valid: * may only be the whole last segment, \
          as in /orders/*"
        ]
    );
}

#[test]
fn broken_yaml_has_one_line_with_its_place() {
    let found = check("apiVersion: [weft\nkind: Service\n");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("mesh.yaml:2: not valid YAML: "),
        "{found:?}"
    );
}

#[test]
fn the_control_planes_namespace_is_reserved() {
    let text = service("config", "http").replace("shop", "weft");
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:3: metadata.namespace: weft is the control plane's own namespace; \
          choose another namespace"
        ]
    );
}

#[test]
fn a_rule_that_never_gets_a_request_is_a_warning() {
    let text = route(
        "    - backendRefs:\n        - {name: orders, port: 80}\n    \
         - matches: [{path: {type: PathPrefix, value: /}}]\n      backendRefs:\n        \
         - {name: orders, port: 80}\n",
    );
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:24: warning: spec.rules[1].matches[0]: HTTPRoute/shop/split \
          spec.rules[0].matches[0] takes the same requests, so this never gets one; remove one"
        ]
    );
}

#[test]
fn one_mistake_gives_one_error() {
    // A port whose protocol is mistyped is still the port that a route and a policy mean.
    let mesh = |text: &str| {
        format!(
            "{text}{}{}",
            policy(
                "  targetRefs: [{kind: Service, name: db}]\n  action: Allow\n  \
                    to: [{methods: [GET]}]\n---\n"
            )
            .replacen(&two_services(), "", 1),
            route("    - backendRefs: [{name: orders, port: 80}, {name: db, port: 80}]\n")
                .replacen(&two_services(), "", 1)
        )
    };
    let mistyped = mesh(&(service("orders", "htp") + &service("db", "http")));
    assert_eq!(
        check(&mistyped),
        ["mesh.yaml:6: spec.ports[0].protocol: \"htp\" is not known here; did you mean http?"]
    );
    let unnamed = mesh(&(service("Orders", "http") + &service("db", "http")));
    assert_eq!(
        check(&unnamed),
        [
            "mesh.yaml:3: metadata.name: \"Orders\" is not valid: a name consists of a-z, 0-9 and -, \
          and begins and ends with a letter or digit"
        ]
    );
    let kind = mesh(&(service("orders", "http") + &service("db", "http"))).replacen(
        "kind: Service",
        "kind: Servce",
        1,
    );
    assert_eq!(
        check(&kind),
        ["mesh.yaml:2: kind: kind \"Servce\" is not known; did you mean Service?"]
    );
    let specless = mesh(&service("db", "http"))
        + "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: orders, namespace: shop}\n";
    let found = check(&specless);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].ends_with("spec: is missing"), "{found:#?}");
}

#[test]
fn timeouts_of_a_rule_follow_gateway_api() {
    let text = |timeouts: &str| {
        check(&route(&format!(
            "    - backendRefs: [{{name: orders, port: 80}}]\n      timeouts: {timeouts}\n"
        )))
    };
    assert!(text("{request: 10s, backendRequest: 2s}").is_empty());
    assert!(text("{request: 0s, backendRequest: 2s}").is_empty());
    assert_eq!(
        text("{request: 1s, backendRequest: 2s}"),
        [
            "mesh.yaml:23: spec.rules[0].timeouts.backendRequest: is longer than request, so it never \
          ends an attempt; make it shorter, or leave it out"
        ]
    );
    assert_eq!(
        text("{request: 10}"),
        [
            "mesh.yaml:23: spec.rules[0].timeouts.request: \"10\" has no unit; write 10s for seconds, \
             or one of ms, m, h, d"
        ]
    );
    assert_eq!(
        text("{streamIdle: 10s}"),
        [
            "mesh.yaml:23: spec.rules[0].timeouts.streamIdle: unknown field; known fields are request, \
          backendRequest"
        ]
    );
}

fn workload(spec: &str) -> Vec<String> {
    check(&format!(
        "{}apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: cellar, namespace: shop}}\n\
         spec: {spec}\n",
        two_services()
    ))
}

#[test]
fn a_workload_names_a_service_that_exists_and_an_identity_that_may_serve_it() {
    let of = |address: &str, account: &str, services: &str| {
        workload(&format!(
            "{{address: '{address}', identity: 'spiffe://demo.test/{account}', services: [{services}]}}"
        ))
    };
    let (address, orders) = ("10.0.0.7:6143", "ns/shop/sa/orders");
    let fine = of(address, orders, "{name: orders, port: 80}");
    assert_eq!(fine, Vec::<String>::new());
    for (said, wanted) in [
        (
            of(address, orders, "{name: order, port: 80}"),
            "there is no Service order in namespace shop",
        ),
        (
            of(address, orders, "{name: orders, port: 81}"),
            "Service orders has no port 81",
        ),
        (
            of(address, orders, "{name: db, port: 80}"),
            "spiffe://demo.test/ns/shop/sa/orders may not serve Service db",
        ),
        (
            of(address, "ns/weft/sa/config", "{name: orders, port: 80}"),
            "the control plane's",
        ),
        (
            of(
                address,
                orders,
                "{name: orders, port: 80}, {name: orders, port: 80}",
            ),
            "is listed twice",
        ),
        (
            of("0.0.0.0:6143", orders, "{name: orders, port: 80}"),
            "is not the address of one peer",
        ),
        (
            of("orders.internal:6143", orders, "{name: orders, port: 80}"),
            "write IP:PORT",
        ),
        (of(address, orders, ""), "an empty list"),
    ] {
        assert!(
            said.iter().any(|line| line.contains(wanted)),
            "{wanted}: {said:?}"
        );
    }
    let odd = workload(
        "{address: '10.0.0.7:1', identity: 'spiffe://demo.test/ns/shop/sa/orders', services: [{name: orders, port: 80}], weight: 0}",
    );
    assert!(odd[0].contains("weight"), "{odd:?}");
    let odd = workload(
        "{address: '10.0.0.7:1', identity: 'spiffe://demo.test/ns/shop/sa/orders', services: [{name: orders, port: 80}], metadata: {'a b': c}}",
    );
    assert!(odd[0].contains("the label \"a b\" is not valid"), "{odd:?}");
}

#[test]
fn one_peer_stands_in_one_workload() {
    let one = |name: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{address: '10.0.0.7:1', identity: 'spiffe://demo.test/ns/shop/sa/orders', services: [{{name: orders, port: 80}}]}}\n---\n"
        )
    };
    let said = check(&(two_services() + &one("a") + &one("b")));
    assert_eq!(said.len(), 1);
    assert!(
        said[0].contains("Workload/shop/a has orders:80 at 10.0.0.7:1 as well"),
        "{said:?}"
    );
}

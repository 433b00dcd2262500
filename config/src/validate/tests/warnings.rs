//! Resources that are valid and probably not intended: the exact line of each warning.

use super::*;

#[test]
fn an_open_backend_behind_a_protected_parent_is_a_warning() {
    let text = route("    - backendRefs:\n        - {name: orders-v1, port: 80}\n---\n")
        + &service("orders-v1", "http")
        + "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
           metadata: {name: callers, namespace: shop}\n\
           spec: {targetRefs: [{kind: Service, name: orders}], action: Allow}\n";
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:23: warning: spec.rules[0].backendRefs[0].name: Service orders is under an Allow \
          policy, but its backend orders-v1 is under none: every identity may call orders-v1 directly; \
          add orders-v1 to the targetRefs of the policy, or write callers: RouteOnly in the spec of \
          Service orders-v1"
        ]
    );
}

/// A route from orders to orders-v1, a Deny of one caller on orders, and further resources.
fn denied_parent(backend: &str, more: &str) -> Vec<String> {
    let text = route("    - backendRefs:\n        - {name: orders-v1, port: 80}\n---\n")
        + backend
        + "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
           metadata: {name: banned, namespace: shop}\n\
           spec:\n  targetRefs: [{kind: Service, name: orders}]\n  action: Deny\n  \
           from: [{principals: ['spiffe://demo.test/ns/shop/sa/mallory']}]\n"
        + more;
    check(&text)
}

fn allow_on_backend(caller: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
         metadata: {{name: some, namespace: shop}}\n\
         spec:\n  targetRefs: [{{kind: Service, name: orders-v1}}]\n  action: Allow\n  \
         from: [{{principals: ['spiffe://demo.test/ns/shop/sa/{caller}']}}]\n"
    )
}

#[test]
fn a_backend_that_a_deny_of_its_parent_does_not_cover_is_a_warning() {
    let warning = "mesh.yaml:23: warning: spec.rules[0].backendRefs[0].name: \
         AuthorizationPolicy/shop/banned denies calls to Service orders, but not to its backend orders-v1: \
         whom it denies may call orders-v1 directly; add orders-v1 to the targetRefs of the policy, or write \
         callers: RouteOnly in the spec of Service orders-v1";
    let backend = service("orders-v1", "http");
    assert_eq!(denied_parent(&backend, ""), [warning]);
    assert_eq!(
        denied_parent(&backend, &allow_on_backend("mallory")),
        [warning]
    );
    assert!(denied_parent(&backend, &allow_on_backend("frontend")).is_empty());
}

#[test]
fn a_backend_that_only_routes_lead_to_cannot_be_bypassed() {
    let backend = service("orders-v1", "http").replace("spec:\n", "spec:\n  callers: RouteOnly\n");
    assert!(denied_parent(&backend, "").is_empty());
}

#[test]
fn a_service_that_only_routes_may_lead_to_and_none_does_is_a_warning() {
    let text = service("lonely", "http").replace("spec:\n", "spec:\n  callers: RouteOnly\n");
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:5: warning: spec.callers: no route leads to Service lonely, so it may not be called; \
             name it in the backendRefs of a route, or write callers: Any"
        ]
    );
}

#[test]
fn the_error_lists_the_values_of_callers_and_path_case() {
    let text = service("orders", "http").replace(
        "spec:\n",
        "spec:\n  callers: Routes\n  pathCase: Insensitive\n",
    );
    let found = check(&text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("spec.callers") && found[0].contains("RouteOnly"),
        "{found:?}"
    );
    assert!(
        found[1].contains("spec.pathCase") && found[1].contains("insensitive"),
        "{found:?}"
    );
}

#[test]
fn a_backend_that_is_missing_is_no_open_one_as_well() {
    let text = route("    - backendRefs:\n        - {name: carts, port: 80}\n---\n")
        + "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
           metadata: {name: callers, namespace: shop}\n\
           spec: {targetRefs: [{kind: Service, name: orders}], action: Allow}\n";
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:23: warning: spec.rules[0].backendRefs[0].name: there is no Service carts in namespace \
          shop; apply the Service first, or in the same change"
        ]
    );
}

#[test]
fn a_service_that_only_routes_reach_and_that_takes_callers_without_mutual_tls_is_a_warning() {
    let service = |callers: &str| {
        check(&format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: orders, namespace: shop}}\n\
             spec: {{ports: [{{port: 80, protocol: http}}], callers: {callers}, mutualTls: Permissive}}\n"
        ))
    };
    let found = service("RouteOnly").join("\n");
    assert!(
        found.contains("spec.mutualTls: lets in no caller without mutual TLS"),
        "{found}"
    );
    assert!(service("Any").is_empty());
}

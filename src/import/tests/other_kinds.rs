//! Other kinds of Istio, and what of Kubernetes passes as it is.

use super::*;

#[test]
fn other_kinds_of_istio_are_named_and_routes_of_gateway_api_pass() {
    let imported = imported(
        From::Istio,
        r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: shop }
spec: { mtls: { mode: STRICT }, portLevelMtls: { 8080: { mode: PERMISSIVE } } }
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: payments, namespace: shop }
spec: { hosts: [ api.example.com ] }
---
apiVersion: v1
kind: List
items:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: { name: plain, namespace: shop, resourceVersion: "7", uid: a-b }
    spec:
      parentRefs: [ { group: "", kind: Service, name: reviews, port: 9080 } ]
      rules: [ { backendRefs: [ { name: ratings, port: 8080 } ] } ]
    status: { parents: [] }
  - apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: { name: edge, namespace: shop }
    spec:
      parentRefs: [ { name: gateway } ]
      rules: [ { backendRefs: [ { name: ratings, port: 8080 } ] } ]
  - apiVersion: v1
    kind: ConfigMap
    metadata: { name: c, namespace: shop }
"#,
    );
    let routes = of_kind(&imported, "HTTPRoute");
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0]["metadata"]["name"], "plain");
    let errors = errors(&imported);
    has(
        &errors,
        "spec.portLevelMtls.8080",
        "without an identity are refused",
    );
    has(&errors, "ServiceEntry/shop/payments", "no counterpart");
    assert!(
        errors
            .iter()
            .any(|one| one.contains("only a Service is a parent")),
        "{errors:?}"
    );
    assert!(
        !errors.iter().any(|one| one.contains("ConfigMap")),
        "{errors:?}"
    );
}

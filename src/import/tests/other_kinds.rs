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
    has(
        &errors,
        "ServiceEntry/shop/payments",
        "goes to whatever address",
    );
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

#[test]
fn a_service_entry_becomes_an_external_service_with_the_tls_that_a_destination_rule_begins() {
    let entry = |spec: &str, more: &str| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{ name: pay, namespace: shop }}\nspec: {{ {spec} }}\n---\n{more}"
        );
        imported(From::Istio, &text)
    };
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: { name: pay, namespace: shop }\nspec:\n  host: api.pay.example\n  trafficPolicy: { tls: { mode: SIMPLE, sni: pay.example, caCertificates: /etc/pay.pem }, connectionPool: {} }\n";
    let by_name = "hosts: [ api.pay.example ], location: MESH_EXTERNAL, resolution: DNS, ports: [ { number: 443, name: https, protocol: HTTP } ]";
    let result = entry(by_name, rule);
    let found = of_kind(&result, "ExternalService");
    assert_eq!(found[0]["metadata"]["name"], "pay");
    assert_eq!(
        found[0]["spec"],
        serde_json::json!({
            "hosts": ["api.pay.example"],
            "ports": [{ "port": 443, "protocol": "http", "tls": { "serverName": "pay.example", "caFile": "/etc/pay.pem" } }],
        })
    );
    let said = errors(&result);
    assert_eq!(said.len(), 1, "{said:?}");
    has(&said, "spec.trafficPolicy.connectionPool", "no counterpart");

    // The application's own TLS passes as bytes.
    let passed = entry(&by_name.replace("protocol: HTTP", "protocol: TLS"), "");
    let found = of_kind(&passed, "ExternalService");
    assert_eq!(
        found[0]["spec"]["ports"][0],
        serde_json::json!({ "port": 443, "protocol": "tcp" })
    );
    assert!(errors(&passed).is_empty());

    // Each name has addresses of its own; written ones are of all.
    let two = entry(
        &by_name.replace("[ api.pay.example ]", "[ a.example, b.example ]"),
        "",
    );
    assert_eq!(of_kind(&two, "ExternalService").len(), 2);
    let fixed = "hosts: [ a.example, b.example ], resolution: STATIC, endpoints: [ { address: 10.1.2.3 } ], ports: [ { number: 80, protocol: HTTP } ]";
    let fixed = entry(fixed, "");
    let found = of_kind(&fixed, "ExternalService");
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0]["spec"]["addresses"],
        serde_json::json!(["10.1.2.3"])
    );

    for (spec, field, word) in [
        (
            by_name.replace("MESH_EXTERNAL", "MESH_INTERNAL"),
            "spec.location",
            "is of the mesh",
        ),
        (
            by_name
                .replace("api.", "'*.'")
                .replace("'*.'pay.example", "'*.pay.example'"),
            "spec.hosts[0]",
            "not one name",
        ),
        (
            by_name.replace("resolution: DNS", "resolution: NONE"),
            "spec.resolution",
            "whatever address",
        ),
        (
            format!("{by_name}, endpoints: [ {{ address: eu.pay.example }} ]"),
            "spec.endpoints",
            "other names",
        ),
        (
            by_name.replace("DNS", "STATIC"),
            "ServiceEntry/shop/pay",
            "no endpoints",
        ),
        (
            by_name.replace("protocol: HTTP", "protocol: HTTP, targetPort: 8443"),
            "spec.ports[0]",
            "is 8443 in weft",
        ),
        (
            format!("{by_name}, workloadSelector: {{ labels: {{ a: b }} }}"),
            "spec.workloadSelector",
            "no counterpart",
        ),
    ] {
        let result = entry(&spec, "");
        has(&errors(&result), field, word);
    }
}

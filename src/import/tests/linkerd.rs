//! Files of Linkerd.

use super::*;

#[test]
fn a_service_profile_and_a_split_become_routes_that_leave_no_request_out() {
    let imported = imported(
        From::Linkerd,
        r"
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: { name: reviews.shop.svc.cluster.local, namespace: shop }
spec:
  routes:
    - { name: GET /books, condition: { method: GET, pathRegex: '/books/[^/]*' }, isRetryable: true, timeout: 300ms }
    - { name: odd, condition: { not: { method: GET } } }
    - { name: either, condition: { any: [ { method: PUT }, { all: [ { method: POST }, { pathRegex: /a } ] } ] } }
  retryBudget: { retryRatio: 0.2, minRetriesPerSecond: 10, ttl: 10s }
---
apiVersion: split.smi-spec.io/v1alpha1
kind: TrafficSplit
metadata: { name: ratings-split, namespace: shop }
spec:
  service: ratings
  backends: [ { service: ratings, weight: 900m }, { service: reviews, weight: 100m } ]
",
    );
    let routes = of_kind(&imported, "HTTPRoute");
    let rules = routes[0]["spec"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 3);
    assert_eq!(rules[0]["timeouts"]["request"], "300ms");
    assert_eq!(rules[1]["matches"].as_array().unwrap().len(), 2);
    assert!(
        rules[2].get("matches").is_none(),
        "what no route takes still passes"
    );
    assert_eq!(
        routes[1]["spec"]["rules"][0]["backendRefs"][0]["weight"],
        900
    );
    let policy = of_kind(&imported, "TrafficPolicy")[0];
    assert_eq!(policy["spec"]["retryBudget"]["interval"], "10s");
    has(
        &errors(&imported),
        "spec.routes[1].condition.not",
        "left out",
    );
}

#[test]
fn policies_of_linkerd_are_never_wider_in_weft() {
    const SERVER: &str = "
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: { name: s, namespace: shop }
spec: { podSelector: { matchLabels: { app: reviews } }, port: http }
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: { name: m, namespace: shop }
spec:
  identities: [ frontend.shop.serviceaccount.identity.linkerd.cluster.local ]
  identityRefs: [ { kind: ServiceAccount, name: frontend } ]
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: { name: r, namespace: shop }
spec:
  parentRefs: [ { group: policy.linkerd.io, kind: Server, name: s } ]
  rules: [ { matches: [ { path: { value: /books }, method: GET } ] } ]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: { name: n, namespace: shop }
spec: { networks: [ { cidr: 10.0.0.0/8 } ] }
---
";
    let closed = "Allow reviews weft-import.no-caller";
    let policy = |target: &str, refs: &str| {
        format!(
            "{SERVER}apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: p, namespace: shop }}\n\
             spec: {{ targetRef: {target}, requiredAuthenticationRefs: [ {refs} ] }}\n"
        )
    };
    let old = |client: &str| {
        format!(
            "{SERVER}apiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {{ name: p, namespace: shop }}\n\
             spec: {{ server: {{ name: s }}, client: {client} }}\n"
        )
    };
    let of_server = "{ group: policy.linkerd.io, kind: Server, name: s }";
    let mesh_tls = "{ kind: MeshTLSAuthentication, name: m }";
    let rows: &[(String, &[&str])] = &[
        (SERVER.to_owned(), &[closed]),
        (
            policy(of_server, mesh_tls),
            &[closed, "Allow reviews shop.frontend"],
        ),
        (
            policy(
                "{ group: policy.linkerd.io, kind: HTTPRoute, name: r }",
                mesh_tls,
            ),
            &[
                closed,
                "Allow reviews shop.frontend {\"methods\":[\"GET\"],\"paths\":[\"/books\",\"/books/*\"]}",
            ],
        ),
        (
            policy(of_server, "{ kind: ServiceAccount, name: frontend }"),
            &[closed, "Allow reviews shop.frontend"],
        ),
        (
            policy(
                of_server,
                &format!("{mesh_tls}, {{ kind: NetworkAuthentication, name: n }}"),
            ),
            &[closed, closed],
        ),
        (
            policy(of_server, "{ kind: MeshTLSAuthentication, name: missing }"),
            &[closed, closed],
        ),
        (
            policy("{ kind: Server, name: missing }", mesh_tls),
            &[closed],
        ),
        (
            old("{ meshTLS: { serviceAccounts: [ { name: frontend } ] } }"),
            &[closed, "Allow reviews shop.frontend"],
        ),
        (
            old("{ meshTLS: { identities: [ '*' ] } }"),
            &[closed, "Allow reviews any"],
        ),
        (
            old(
                "{ meshTLS: { identities: [ '*.jobs.serviceaccount.identity.linkerd.cluster.local' ] } }",
            ),
            &[closed, "Allow reviews jobs.batch"],
        ),
        (
            old("{ meshTLS: { identities: [ '*' ] }, networks: [ { cidr: 10.0.0.0/8 } ] }"),
            &[closed, closed],
        ),
    ];
    for (text, expected) in rows {
        let imported = imported(From::Linkerd, text);
        assert_eq!(
            policies(&imported),
            *expected,
            "{text}: {:#?}",
            errors(&imported)
        );
    }
}

//! Files as they are in clusters, and what comes of them. Every result passes the validation of `weft
//! validate`.

use serde_json::Value;
use weft_config::resources::{Set, SourceFile, parse};
use weft_config::validate::validate;
use weft_config::yaml;

use super::{From, Imported, import};

const SERVICES: &str = r"
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: shop }
spec:
  selector: { app: reviews }
  ports: [ { name: http, port: 9080, targetPort: 9080 } ]
---
apiVersion: v1
kind: Service
metadata: { name: ratings, namespace: shop }
spec:
  selector: { app: ratings }
  ports: [ { port: 8080, appProtocol: http } ]
---
apiVersion: v1
kind: Service
metadata: { name: db, namespace: shop }
spec:
  selector: { app: db }
  ports: [ { name: tcp-sql, port: 5432 } ]
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: frontend, namespace: shop }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: batch, namespace: jobs }
spec: { template: { spec: { serviceAccountName: batch } } }
---
";

fn imported(from: From, text: &str) -> Imported {
    let files = [SourceFile {
        name: "mesh.yaml".into(),
        text: format!("{SERVICES}{text}"),
    }];
    let imported = import(from, &files, &"demo.test".parse().unwrap());
    check(&imported);
    imported
}

/// As `weft validate` does.
#[track_caller]
fn check(imported: &Imported) {
    let texts = imported
        .documents
        .iter()
        .map(|one| yaml::to_string(one).unwrap());
    let text: Vec<String> = texts.collect();
    let text = text.join("---\n");
    let parsed = parse(&[SourceFile {
        name: "weft.yaml".into(),
        text: text.clone(),
    }]);
    assert!(
        !parsed.findings.has_errors(),
        "{:#?}\n{text}",
        parsed.findings.listed
    );
    let mut set = Set::default();
    for resource in parsed.resources.clone() {
        set.insert(resource);
    }
    let findings = validate(&set, None, &parsed);
    assert!(!findings.has_errors(), "{:#?}\n{text}", findings.listed);
}

fn of_kind<'i>(imported: &'i Imported, kind: &str) -> Vec<&'i Value> {
    let documents = imported.documents.iter();
    documents.filter(|one| one["kind"] == kind).collect()
}

fn errors(imported: &Imported) -> Vec<String> {
    let listed = imported.findings.listed.iter();
    let errors = listed.filter(|one| one.severity == weft_config::findings::Severity::Error);
    errors
        .map(|one| format!("{}: {}", one.field, one.message))
        .collect()
}

#[track_caller]
fn has(lines: &[String], field: &str, word: &str) {
    let found = lines
        .iter()
        .any(|one| one.starts_with(&format!("{field}: ")) && one.contains(word));
    assert!(found, "{field} {word}: {lines:#?}");
}

#[test]
fn a_virtual_service_becomes_a_route_with_all_that_it_says() {
    let imported = imported(
        From::Istio,
        r"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: shop }
spec:
  hosts: [ reviews.shop.svc.cluster.local ]
  http:
    - match:
        - uri: { exact: /v2/reviews }
          headers: { end-user: { exact: jason }, x-trace: { prefix: 'a.' } }
          method: { exact: GET }
          queryParams: { page: { regex: '[0-9]+' } }
      route:
        - destination: { host: reviews, subset: v2 }
          weight: 90
        - destination: { host: ratings, port: { number: 8080 } }
          weight: 10
          headers: { response: { remove: [ x-internal ] } }
      timeout: 2.5s
      retries: { attempts: 3, perTryTimeout: 800ms, retryOn: '5xx,connect-failure' }
    - match: [ { uri: { prefix: /old } } ]
      redirect: { uri: /new, authority: 'www.example.org:8443', redirectCode: 308 }
    - match: [ { uri: { prefix: /api } } ]
      rewrite: { uri: /, authority: inner }
      headers: { request: { set: { x-from: mesh }, add: { x-more: '1' }, remove: [ cookie ] } }
      mirror: { host: ratings }
      mirrorPercentage: { value: 12.5 }
      corsPolicy:
        allowOrigins: [ { exact: 'https://example.org' }, { regex: '.*' } ]
        allowMethods: [ GET, PUT ]
        maxAge: 24h
        allowCredentials: true
      route: [ { destination: { host: reviews } } ]
    - fault: { delay: { percentage: { value: 10 }, fixedDelay: 5s }, abort: { percentage: { value: 1 }, httpStatus: 503 } }
      match: [ { uri: { exact: /x } } ]
      route: [ { destination: { host: reviews } } ]
    - route: [ { destination: { host: reviews } } ]
",
    );
    let routes = of_kind(&imported, "HTTPRoute");
    let rules = &routes[0]["spec"]["rules"];
    let first = &rules[0];
    assert_eq!(first["matches"][0]["path"]["type"], "Exact");
    assert_eq!(first["matches"][0]["headers"][1]["value"], "a\\..*");
    assert_eq!(
        first["matches"][0]["queryParams"][0]["type"],
        "RegularExpression"
    );
    assert_eq!(first["backendRefs"][0]["name"], "reviews-v2");
    assert_eq!(first["backendRefs"][0]["port"], 9080);
    assert_eq!(
        first["backendRefs"][1]["filters"][0]["type"],
        "ResponseHeaderModifier"
    );
    assert_eq!(first["timeouts"]["request"], "2500ms");
    assert_eq!(first["timeouts"]["backendRequest"], "800ms");
    assert_eq!(first["retry"]["attempts"], 3);
    assert_eq!(
        first["retry"]["codes"],
        serde_json::json!([500, 502, 503, 504])
    );
    let redirect = &rules[1]["filters"][0]["requestRedirect"];
    assert_eq!(
        (&redirect["statusCode"], &redirect["port"]),
        (&308.into(), &8443.into())
    );
    assert!(rules[1].get("backendRefs").is_none());
    let types: Vec<&str> = rules[2]["filters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "RequestHeaderModifier",
            "CORS",
            "RequestMirror",
            "URLRewrite"
        ]
    );
    assert_eq!(
        rules[2]["filters"][2]["requestMirror"]["fraction"]["numerator"],
        12_500
    );
    assert_eq!(rules[2]["filters"][1]["cors"]["maxAge"], 86_400);
    // A fault is a policy for a route of its own.
    assert_eq!(routes[1]["metadata"]["name"], "reviews-fault-1");
    let policy = of_kind(&imported, "TrafficPolicy")[0];
    assert_eq!(policy["spec"]["fault"]["delay"]["duration"], "5s");
    assert_eq!(of_kind(&imported, "Service").len(), 4);
    let errors = errors(&imported);
    has(
        &errors,
        "spec.http[2].corsPolicy.allowOrigins[1]",
        "only whole origins",
    );
    assert!(
        !errors.iter().any(|one| one.contains("subset")),
        "{errors:?}"
    );
}

#[test]
fn what_a_route_cannot_say_leads_nowhere_else_and_is_named_with_its_place() {
    let text = r"
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: { name: odd, namespace: shop }
spec:
  hosts: [ reviews, api.example.com ]
  http:
    - match:
        - { uri: { prefix: / }, sourceLabels: { app: x } }
        - { withoutHeaders: { a: { exact: b } } }
      route: [ { destination: { host: reviews } } ]
    - match: [ { uri: { prefix: /down } } ]
      directResponse: { status: 503 }
    - match: [ { uri: { prefix: /out } } ]
      route: [ { destination: { host: www.example.com } } ]
    - match: [ { uri: { exact: /late } } ]
      route: [ { destination: { host: reviews } } ]
    - route: [ { destination: { host: reviews } } ]
    - route: [ { destination: { host: ratings } } ]
";
    let imported = imported(From::Istio, text);
    let errors = errors(&imported);
    has(&errors, "spec.hosts[1]", "no Service of the mesh");
    has(
        &errors,
        "spec.http[0].match[0].sourceLabels",
        "this match is left out",
    );
    has(
        &errors,
        "spec.http[0].match[1].withoutHeaders",
        "this match is left out",
    );
    has(&errors, "spec.http[1].directResponse", "get 500");
    has(&errors, "spec.http[2].route[0].destination", "gets 500");
    has(&errors, "spec.http[3].match[0]", "asked first in weft");
    let rules = of_kind(&imported, "HTTPRoute")[0]["spec"]["rules"]
        .as_array()
        .unwrap();
    let paths: Vec<&str> = rules
        .iter()
        .map(|one| one["matches"][0]["path"]["value"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(paths, ["/down", "/out", "/late", ""]);
    assert!(rules[0].get("backendRefs").is_none());
    // The place is the line of the file.
    let found = imported
        .findings
        .listed
        .iter()
        .find(|one| one.field == "spec.http[1].directResponse");
    let line = found.unwrap().position.unwrap().line;
    let before = SERVICES.lines().count()
        + text
            .lines()
            .position(|one| one.contains("directResponse"))
            .unwrap();
    assert_eq!(usize::try_from(line).unwrap(), before + 1);
}

#[test]
fn a_destination_rule_becomes_policies_and_its_subsets_services() {
    let imported = imported(
        From::Istio,
        r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews, namespace: shop }
spec:
  host: reviews
  trafficPolicy:
    connectionPool: { tcp: { maxConnections: 100 } }
    outlierDetection: { consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 30 }
    loadBalancer: { simple: LEAST_REQUEST, warmupDurationSecs: 30s }
    tls: { mode: ISTIO_MUTUAL }
  subsets:
    - { name: v1, labels: { version: v1 } }
    - { name: v2, labels: { version: v2 }, trafficPolicy: { loadBalancer: { consistentHash: { httpHeaderName: x-user } } } }
",
    );
    let policies = of_kind(&imported, "TrafficPolicy");
    let names: Vec<&str> = policies
        .iter()
        .map(|one| one["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["reviews", "reviews-v1", "reviews-v2"]);
    let breaker = &policies[0]["spec"]["breaker"];
    assert_eq!(breaker["consecutiveFailures"], 7);
    assert_eq!(
        breaker["ejection"],
        serde_json::json!({ "base": "900s", "max": "900s" })
    );
    assert_eq!(policies[2]["spec"]["balance"]["key"]["header"], "x-user");
    let services = of_kind(&imported, "Service");
    let v1 = services
        .iter()
        .find(|one| one["metadata"]["name"] == "reviews-v1")
        .unwrap();
    assert_eq!(
        v1["spec"]["identities"][0],
        "spiffe://demo.test/ns/shop/sa/reviews"
    );
    has(
        &errors(&imported),
        "spec.trafficPolicy.connectionPool",
        "connections of each caller",
    );
}

/// The policies of a result: action, targets, principals, and what of requests.
fn policies(imported: &Imported) -> Vec<String> {
    let all = of_kind(imported, "AuthorizationPolicy")
        .into_iter()
        .map(|one| {
            let spec = &one["spec"];
            let targets: Vec<&str> = spec["targetRefs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["name"].as_str().unwrap())
                .collect();
            let principals = spec["from"][0]["principals"].as_array();
            let principals = principals.map_or("any".to_owned(), |list| {
                let names = list.iter().map(|one| {
                    one.as_str()
                        .unwrap()
                        .rsplit_once("/ns/")
                        .unwrap()
                        .1
                        .replace("/sa/", ".")
                });
                names.collect::<Vec<_>>().join("+")
            });
            let to = &spec["to"][0];
            let to = if to.is_null() {
                String::new()
            } else {
                format!(" {to}")
            };
            format!(
                "{} {} {principals}{to}",
                spec["action"].as_str().unwrap(),
                targets.join("+")
            )
        });
    all.collect()
}

fn istio_policy(spec: &str) -> Imported {
    imported(
        From::Istio,
        &format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: p, namespace: shop }}\nspec: {spec}\n"
        ),
    )
}

#[test]
fn policies_of_istio_are_never_wider_in_weft() {
    let closed = "Allow reviews weft-import.no-caller";
    let of = "selector: { matchLabels: { app: reviews } }";
    let rows: &[(&str, &[&str], bool)] = &[
        // What can be said.
        (
            "{ OF, rules: [ { from: [ { source: { principals: [ cluster.local/ns/shop/sa/frontend ] } } ], to: [ { operation: { methods: [ GET ], paths: [ /a, '/b/*' ] } } ] } ] }",
            &["Allow reviews shop.frontend {\"methods\":[\"GET\"],\"paths\":[\"/a\",\"/b/*\"]}"],
            false,
        ),
        (
            "{ OF, action: DENY, rules: [ { to: [ { operation: { paths: [ '/admin/*' ] } } ] } ] }",
            &["Deny reviews any {\"paths\":[\"/admin/*\"]}"],
            false,
        ),
        ("{ OF, rules: [ {} ] }", &["Allow reviews any"], false),
        ("{ OF }", &[closed], false),
        ("{ OF, action: DENY }", &[], false),
        // Callers of a namespace are those that are known.
        (
            "{ OF, rules: [ { from: [ { source: { namespaces: [ jobs ] } } ] } ] }",
            &["Allow reviews jobs.batch"],
            false,
        ),
        (
            "{ OF, rules: [ { from: [ { source: { namespaces: [ unknown ] } } ] } ] }",
            &[closed],
            true,
        ),
        // What allows and cannot be said allows nothing.
        (
            "{ OF, rules: [ { from: [ { source: { notPrincipals: [ cluster.local/ns/shop/sa/frontend ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { from: [ { source: { ipBlocks: [ 10.0.0.0/8 ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { when: [ { key: 'request.headers[x]', values: [ a ] } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { to: [ { operation: { hosts: [ a ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { to: [ { operation: { paths: [ '*/x' ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { to: [ { operation: { methods: [ GET ], notPaths: [ /a ] } } ] } ] }",
            &[closed],
            true,
        ),
        (
            "{ OF, rules: [ { to: [ { operation: { paths: [ '/a*' ] } } ] } ] }",
            &["Allow reviews any {\"paths\":[\"/a\",\"/a/*\"]}"],
            false,
        ),
        // What denies and cannot be said denies more.
        (
            "{ OF, action: DENY, rules: [ { from: [ { source: { notPrincipals: [ cluster.local/ns/shop/sa/frontend ] } } ] } ] }",
            &["Deny reviews any"],
            true,
        ),
        (
            "{ OF, action: DENY, rules: [ { from: [ { source: { namespaces: [ jobs ] } } ] } ] }",
            &["Deny reviews any"],
            true,
        ),
        (
            "{ OF, action: DENY, rules: [ { to: [ { operation: { methods: [ GET ], paths: [ '/a*' ] } } ] } ] }",
            &["Deny reviews any {\"methods\":[\"GET\"]}"],
            true,
        ),
        (
            "{ OF, action: DENY, rules: [ { when: [ { key: source.ip, values: [ 10.0.0.1 ] } ], to: [ { operation: { paths: [ /a ] } } ] } ] }",
            &["Deny reviews any {\"paths\":[\"/a\"]}"],
            true,
        ),
        (
            "{ OF, action: CUSTOM, provider: { name: x }, rules: [ {} ] }",
            &["Deny reviews any"],
            true,
        ),
        // A Service of TCP has no requests to judge.
        (
            "{ selector: { matchLabels: { app: db } }, rules: [ { to: [ { operation: { methods: [ GET ] } } ] } ] }",
            &["Allow db weft-import.no-caller"],
            true,
        ),
        (
            "{ selector: { matchLabels: { app: db } }, action: DENY, rules: [ { to: [ { operation: { methods: [ GET ] } } ] } ] }",
            &["Deny db any"],
            true,
        ),
        // A part of a Service.
        (
            "{ selector: { matchLabels: { app: reviews, version: v1 } }, rules: [ {} ] }",
            &["Deny reviews any"],
            true,
        ),
        (
            "{ selector: { matchLabels: { app: reviews, version: v1 } }, action: DENY, rules: [ {} ] }",
            &["Deny reviews any"],
            false,
        ),
        // The whole namespace.
        (
            "{ rules: [ { from: [ { source: { principals: [ '*' ] } } ] } ] }",
            &["Allow db+ratings+reviews any"],
            false,
        ),
    ];
    for (spec, expected, has_errors) in rows {
        let imported = istio_policy(&spec.replace("OF", of));
        assert_eq!(
            policies(&imported),
            *expected,
            "{spec}: {:#?}",
            errors(&imported)
        );
        assert_eq!(
            imported.findings.has_errors(),
            *has_errors,
            "{spec}: {:#?}",
            errors(&imported)
        );
        assert!(of_kind(&imported, "MeshConfig").is_empty(), "{spec}");
    }
}

#[test]
fn a_restriction_that_has_no_place_closes_the_mesh() {
    for text in [
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: elsewhere }\nspec: { rules: [ {} ] }\n",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: shop }\nspec: { targetRefs: [ { kind: Gateway, name: x } ] }\n",
        "kind: AuthorizationPolicy\n",
        "a: [\n",
    ] {
        let imported = imported(From::Istio, text);
        let closed = of_kind(&imported, "MeshConfig");
        assert_eq!(closed[0]["spec"]["defaultAuthorization"], "Deny", "{text}");
        assert!(imported.findings.has_errors());
    }
}

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

#[test]
fn nothing_that_a_file_says_makes_it_panic() {
    let odd = [
        "7",
        "[]",
        "{}",
        "null",
        "'a'",
        "[ 7, [], {} ]",
        "{ a: { b: [ 7 ] } }",
    ];
    let kinds = [
        (
            "networking.istio.io/v1",
            "VirtualService",
            &["hosts", "http", "tcp", "gateways"][..],
        ),
        (
            "networking.istio.io/v1",
            "DestinationRule",
            &["host", "trafficPolicy", "subsets"],
        ),
        (
            "security.istio.io/v1",
            "AuthorizationPolicy",
            &["selector", "rules", "action", "targetRefs"],
        ),
        (
            "security.istio.io/v1",
            "PeerAuthentication",
            &["mtls", "portLevelMtls"],
        ),
        (
            "linkerd.io/v1alpha2",
            "ServiceProfile",
            &["routes", "retryBudget"],
        ),
        (
            "policy.linkerd.io/v1",
            "Server",
            &["podSelector", "accessPolicy"],
        ),
        (
            "policy.linkerd.io/v1",
            "AuthorizationPolicy",
            &["targetRef", "requiredAuthenticationRefs"],
        ),
        (
            "policy.linkerd.io/v1",
            "ServerAuthorization",
            &["server", "client"],
        ),
        (
            "split.smi-spec.io/v1",
            "TrafficSplit",
            &["service", "backends"],
        ),
        ("v1", "Service", &["ports", "selector"]),
    ];
    for (version, kind, fields) in kinds {
        for field in fields {
            for value in odd {
                let text = format!(
                    "apiVersion: {version}\nkind: {kind}\nmetadata: {{ name: reviews, namespace: shop }}\nspec: {{ hosts: [ reviews ], host: reviews, {field}2: 1, {field}: {value} }}\n"
                )
                .replacen(&format!("{field}2: 1, "), "", 1);
                let text = match *field {
                    "hosts" | "host" => text.replacen("hosts: [ reviews ], host: reviews, ", "", 1),
                    _ => text,
                };
                for from in [From::Istio, From::Linkerd] {
                    imported(from, &text);
                }
            }
        }
    }
}
